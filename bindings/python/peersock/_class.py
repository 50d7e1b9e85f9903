"""The class of sockets: CPython's own, with what it cannot know of overlay descriptors."""

from __future__ import annotations

import _socket
import errno
import operator
import os
import socket as _std
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from . import _node, _peersock
from ._addresses import V4, V6, numeric
from ._copies import following, note
from .identity import PeerIdentity, peer_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

_STREAM, _DGRAM = int(_std.SOCK_STREAM), int(_std.SOCK_DGRAM)
_INTERNET = (V4, V6)
#: Result of choosing a socket's side when nothing is left to do for the call.
_BOUND = 2
_DEFAULT_BACKLOG = min(_std.SOMAXCONN, 128)
_DENIED = (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT)
_BROKEN = (errno.ECONNRESET, errno.EPIPE)
_TRANSLATED = (errno.EINVAL, errno.ENOTCONN, *_BROKEN)
_MSG_OOB = int(_std.MSG_OOB)
_IP = int(_std.IPPROTO_IP)
#: Options about groups, and where in their values the interface's address is. Some are not in the module.
_INTERFACE_AT = {int(_std.IP_MULTICAST_IF): 4, int(_std.IP_ADD_MEMBERSHIP): 4, 39: 4}

# The plain numbers, without the enumerations around them, which take a while.
_family = vars(_socket.socket)["family"].__get__
_type = vars(_socket.socket)["type"].__get__
_getpeername = _socket.socket.getpeername
_is_overlay = _peersock.is_overlay
_stays_kernels = _peersock.stays_kernels


def _ours(sock: _std.socket) -> bool:
    """Returns true if the socket is an overlay socket."""
    return _family(sock) in _INTERNET and _is_overlay(sock.fileno())


def _is_connected(sock: _std.socket) -> bool:
    try:
        _getpeername(sock)
    except OSError:
        return False
    return True


def _our_datagrams(sock: _std.socket) -> bool:
    return _type(sock) != _STREAM and _ours(sock)


def _sender(sock: _std.socket, sender: Any) -> tuple[bool, Any]:
    """Returns the sender of a datagram that was awaited on a kernel socket, and false if the call has to be repeated.

    Another thread may have moved the socket to the overlay meanwhile. The kernel then returns the name of the node's
    end, or no name if the call was only woken."""
    if isinstance(sender, tuple) or not _our_datagrams(sock):
        return True, sender
    known = _peersock.sender_of(sock.fileno(), sender) if isinstance(sender, bytes) else None
    return known is not None, known


class socket(_std.socket):
    """A subclass of _socket.socket adding the makefile() method."""

    # True if a datagram socket was bound to no address and port in particular, and may yet become the overlay's.
    __slots__ = ("_is_open",)

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        self._is_open = False
        is_given = fileno is not None
        if fileno is None:
            try:
                super().__init__(family, type, proto)
                return
            except OSError as error:
                # Unprivileged users can ping members even where the system denies them echo sockets. A program that is
                # kept to the overlay gets no kernel sockets.
                family, type = (V4 if family == -1 else family), (_STREAM if type == -1 else type)
                if error.errno not in _DENIED or family not in _INTERNET or not _peersock.has_rules():
                    raise
                try:
                    fileno = _peersock.open_socket(family, type, max(proto, 0))
                except OSError:
                    fileno = None
                if fileno is None:
                    raise
        elif isinstance(fileno, int) and 0 <= fileno <= 0x7FFFFFFF:
            # To the kernel it is another kind of socket.
            known = _peersock.socket_of(fileno)
            if known is not None:
                family, type, proto = (
                    own if given == -1 else given for own, given in zip(known, (family, type, proto), strict=True)
                )
        super().__init__(family, type, proto, fileno)
        if is_given and not _is_connected(self):
            # The descriptor may be a copy of another one's.
            note()

    def dup(self) -> socket:
        """dup() -> socket object

        Duplicate the socket. Return a new socket object connected to the same
        system resource. The new socket is non-inheritable.
        """
        copy = super().dup()
        copy._is_open = self._is_open
        return copy

    def _remote(self, address: object) -> tuple[bool, Any]:
        """Chooses the socket's side by an address. Returns true for the overlay, and the address as a number."""
        family = _family(self)
        if family not in _INTERNET or not (_peersock.has_rules() or _is_overlay(self.fileno())):
            return False, address
        target = numeric(family, address)
        if target is None:
            return False, address
        return following(_peersock.choose_by_remote, self, target, family == V6), target

    # Connections.

    def _accept(self) -> tuple[int, Any]:
        if _ours(self):
            fd, address = _peersock.accept(self.fileno(), self.gettimeout())
            return fd, address
        return super()._accept()  # type: ignore[misc, no-any-return]

    def accept(self) -> tuple[socket, Any]:
        """accept() -> (socket object, address info)

        Wait for an incoming connection.  Return a new socket
        representing the connection, and the address of the client.
        For IP sockets, the address info is a pair (hostaddr, port).
        """
        fd, address = self._accept()
        sock = socket(self.family, self.type, self.proto, fileno=fd)
        # As CPython: with no default timeout the flags of the listening socket are not inherited.
        if _std.getdefaulttimeout() is None and self.gettimeout():
            sock.setblocking(True)
        return sock, address

    def bind(self, address: Any, /) -> None:
        family = _family(self)
        if family not in _INTERNET or not (_peersock.has_rules() or _is_overlay(self.fileno())):
            return super().bind(address)
        local = numeric(family, address)
        if local is None:
            return super().bind(address)
        chosen = following(_peersock.choose_by_local, self, local, family == V6)
        self._is_open = local[1] == 0 and local[0] in ("0.0.0.0", "::") and _type(self) == _DGRAM
        if chosen == _BOUND:
            _warn_of_port(self, local[1])
            return None
        if chosen:
            try:
                following(_peersock.bind, self, local)
            except PermissionError as error:
                raise _refused(error, local[1]) from None
            _warn_of_port(self, local[1])
            return None
        try:
            super().bind(local)
        except OSError as error:
            # It may be the port of a socket of both networks that is closed, and that the node still has.
            if error.errno != errno.EADDRINUSE or not _peersock.vacate(local[1]):
                raise
            super().bind(local)
        return None

    def connect(self, address: Any, /) -> None:
        ours, target = self._remote(address)
        if not ours:
            return super().connect(target)
        sys.audit("socket.connect", self, address)
        number = following(_peersock.connect, self, target, self.gettimeout())
        if number == errno.EWOULDBLOCK and self.gettimeout():
            raise TimeoutError("timed out")
        if number == errno.EACCES:
            raise _refused(PermissionError(number, os.strerror(number)), target[1])
        if number:
            raise OSError(number, _peersock.strerror(number))
        return None

    def connect_ex(self, address: Any, /) -> int:
        try:
            ours, target = self._remote(address)
        except OSError as error:
            if error.errno is None or isinstance(error, _std.gaierror):
                raise
            return error.errno
        if not ours:
            return super().connect_ex(target)
        sys.audit("socket.connect", self, address)
        return following(_peersock.connect, self, target, self.gettimeout())

    def listen(self, backlog: int = _DEFAULT_BACKLOG, /) -> None:
        if _family(self) not in _INTERNET or _type(self) != _STREAM:
            return super().listen(backlog)
        number = operator.index(backlog)
        if not -(1 << 31) <= number < 1 << 31:
            raise OverflowError("Python int too large to convert to C int")
        try:
            chosen = following(_peersock.choose_by_listen, self, max(number, 0))
            if chosen == _BOUND:
                return None
            if chosen:
                return following(_peersock.listen, self, max(number, 0))
        except PermissionError as error:
            raise _refused(error, self.getsockname()[1]) from None
        return super().listen(backlog)

    def shutdown(self, how: int, /) -> None:
        if _ours(self):
            return _peersock.shutdown(self.fileno(), how)
        return super().shutdown(how)

    def getsockname(self) -> Any:
        if self._is_open:
            # A program that asks for its port wants to be reached there.
            self._is_open = False
            following(_peersock.share, self)
        return _peersock.getsockname(self.fileno()) if _ours(self) else super().getsockname()

    # It is no property: `unittest.mock` and `inspect` read each attribute, and this one raises OSError.
    def peer(self) -> PeerIdentity:
        """Who is at the other end of the connection, also after its end: see `peersock.peer_of`."""
        return peer_of(self)

    def getpeername(self) -> Any:
        return _peersock.getpeername(self.fileno()) if _ours(self) else super().getpeername()

    def _real_close(self, _ss: Any = _socket.socket) -> None:
        # Of datagrams the node hears by itself; streams may linger, or listen.
        if _type(self) == _STREAM and _ours(self):
            _peersock.close(_ss.detach(self))
        else:
            _ss.close(self)

    # Options.

    def getsockopt(self, level: int, optname: int, buflen: int = 0, /) -> Any:
        if not _ours(self):
            return super().getsockopt(level, optname, buflen) if buflen else super().getsockopt(level, optname)
        if not 0 <= buflen <= 1024:
            raise OSError("getsockopt buflen out of range")
        return _peersock.getsockopt(self.fileno(), level, optname, buflen)

    def setsockopt(self, level: int, optname: int, value: int | Buffer | None, optlen: int | None = None, /) -> None:
        if value is not None and not isinstance(value, int) and level == _IP and optname in _INTERFACE_AT:
            self._choose_interface(optname, bytes(memoryview(value)))
        if optlen is not None:
            return super().setsockopt(level, optname, value, optlen)  # type: ignore[arg-type]
        if value is None:
            super().setsockopt(level, optname, value)  # type: ignore[call-overload]
            return None
        data = value.to_bytes(4, sys.byteorder, signed=True) if isinstance(value, int) else bytes(memoryview(value))
        if _ours(self):
            return _peersock.setsockopt(self.fileno(), level, optname, data)
        if _peersock.has_rules() and _peersock.is_refused_early(self.fileno(), level, optname, data):
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
        return super().setsockopt(level, optname, value)

    def _choose_interface(self, optname: int, value: bytes) -> None:
        """Moves a socket to the overlay if its interface for groups is an overlay address."""
        at = 0 if len(value) == 4 else _INTERFACE_AT[optname]
        if len(value) >= at + 4 and _family(self) == V4 and _type(self) != _STREAM and _peersock.has_rules():
            address = _std.inet_ntoa(value[at : at + 4])
            if _peersock.is_overlays(address):
                following(_peersock.choose_by_local, self, (address, 0), False)

    # Receiving. The kernel carries the data of streams, and the node knows their errors.

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        if _our_datagrams(self):
            if bufsize < 0:
                raise ValueError("negative buffersize in recv")
            return _peersock.recv(self.fileno(), bufsize, flags, self.gettimeout())
        try:
            data = super().recv(bufsize, flags)
        except OSError as error:
            if _attaches(self, error):
                return self.recv(bufsize, flags)
            _translate(self, error)
            raise
        return data if data or not _our_datagrams(self) else self.recv(bufsize, flags)

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        if _our_datagrams(self):
            return self._receive_into(buffer, nbytes, flags, "recv_into", "buffer too small for requested bytes")[0]
        try:
            length = super().recv_into(buffer, nbytes, flags)
        except OSError as error:
            if _attaches(self, error):
                return self.recv_into(buffer, nbytes, flags)
            _translate(self, error)
            raise
        return length if length or not _our_datagrams(self) else self.recv_into(buffer, nbytes, flags)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        if not _ours(self):
            data, sender = super().recvfrom(bufsize, flags)
            is_known, sender = _sender(self, sender)
            return (data, sender) if is_known else self.recvfrom(bufsize, flags)
        if _type(self) == _STREAM:
            return self.recv(bufsize, flags), None
        if bufsize < 0:
            raise ValueError("negative buffersize in recvfrom")
        return _peersock.recvfrom(self.fileno(), bufsize, flags, self.gettimeout())[1:]

    def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        if not _ours(self):
            length, sender = super().recvfrom_into(buffer, nbytes, flags)
            is_known, sender = _sender(self, sender)
            return (length, sender) if is_known else self.recvfrom_into(buffer, nbytes, flags)
        if _type(self) == _STREAM:
            return self.recv_into(buffer, nbytes, flags), None
        too_small = "nbytes is greater than the length of the buffer"
        return self._receive_into(buffer, nbytes, flags, "recvfrom_into", too_small)

    def _receive_into(self, buffer: Buffer, nbytes: int, flags: int, name: str, too_small: str) -> tuple[int, Any]:
        with memoryview(buffer) as view, view.cast("B") as room:
            if room.readonly:
                raise TypeError("read-only buffer where a writable one is needed")
            if nbytes < 0:
                raise ValueError(f"negative buffersize in {name}")
            if nbytes > len(room):
                raise ValueError(too_small)
            size, timeout = nbytes or len(room), self.gettimeout()
            # With MSG_TRUNC it is the datagram's, of which there may be less.
            length, data, address = _peersock.recvfrom(self.fileno(), size, flags, timeout)
            room[: len(data)] = data
        return length, address

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        if not _ours(self):
            return super().recvmsg(bufsize, ancbufsize, flags)
        if bufsize < 0:
            raise ValueError("negative buffer size in recvmsg()")
        _check_ancillary(ancbufsize, "recvmsg()")
        return self._receive_message(bufsize, ancbufsize, flags)[1:]

    def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        if not _ours(self):
            return super().recvmsg_into(buffers, ancbufsize, flags)
        views = [memoryview(buffer).cast("B") for buffer in _iterable(buffers, "recvmsg_into() argument 1")]
        if any(view.readonly for view in views):
            raise TypeError("recvmsg_into() argument 1 must be an iterable of single-segment read-write buffers")
        _check_ancillary(ancbufsize, "recvmsg_into()")
        room = sum(len(view) for view in views)
        length, data, ancillary, told, address = self._receive_message(room, ancbufsize, flags)
        at = 0
        for view in views:
            piece = data[at : at + len(view)]
            view[: len(piece)] = piece
            at += len(piece)
        return length, ancillary, told, address

    def _receive_message(
        self, bufsize: int, ancbufsize: int, flags: int
    ) -> tuple[int, bytes, list[tuple[int, int, bytes]], int, Any]:
        try:
            return _peersock.recvmsg(self.fileno(), bufsize, ancbufsize, flags, self.gettimeout())
        except OSError as error:
            _translate(self, error)
            raise

    # Sending.

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        if _our_datagrams(self) and isinstance(data, (bytes, bytearray, memoryview)):
            return _peersock.send(self.fileno(), bytes(data), flags, self.gettimeout())
        self._check_urgent(flags)
        try:
            return super().send(data, flags)
        except OSError as error:
            _translate(self, error, sending=True)
            raise

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        if _our_datagrams(self):
            self.send(bytes(memoryview(data)), flags)
            return None
        self._check_urgent(flags)
        try:
            return super().sendall(data, flags)
        except OSError as error:
            _translate(self, error, sending=True)
            raise

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        try:
            return super().sendfile(file, offset, count)
        except OSError as error:
            # Others may be the file's.
            if error.errno in _BROKEN:
                _translate(self, error, sending=True)
            raise

    def sendto(self, data: Buffer, *args: Any) -> int:
        family = _family(self)
        if not 1 <= len(args) <= 2 or family not in _INTERNET:
            return super().sendto(data, *args)
        flags, address = args if len(args) == 2 else (0, args[0])
        # The common calls have to cost little.
        if isinstance(data, bytes) and _stays_kernels(self.fileno(), address, family == V6):
            self._is_open = False
            return super().sendto(data, *args)
        if _type(self) == _STREAM:
            # TCP does not look at the address.
            return self.send(data, flags) if _ours(self) else super().sendto(data, *args)
        try:
            view = memoryview(data)
        except TypeError:
            return super().sendto(data, *args)
        if not isinstance(flags, int):
            return super().sendto(data, *args)
        with view:
            ours, target = self._remote(address)
            self._is_open = False
            if not ours:
                return super().sendto(data, flags, target)
            sys.audit("socket.sendto", self, address)
            piece = data if isinstance(data, bytes) else bytes(view)
            return _peersock.sendto(self.fileno(), piece, flags, target, self.gettimeout())

    def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        if address is None and _type(self) == _STREAM and not ancdata:
            # asyncio writes with this method, which has nothing to translate.
            self._check_urgent(flags)
            try:
                return super().sendmsg(buffers, (), flags)
            except OSError as error:
                _translate(self, error, sending=True)
                raise
        ours, target = (_ours(self), address) if address is None else self._remote(address)
        if not ours:
            return super().sendmsg(buffers, ancdata, flags, target)
        if address is not None:
            sys.audit("socket.sendmsg", self, address)
        pieces = [bytes(memoryview(piece)) for piece in _iterable(buffers, "sendmsg() argument 1")]
        messages = []
        for message in _iterable(ancdata, "sendmsg() argument 2"):
            if not isinstance(message, tuple) or len(message) != 3:
                raise TypeError("[sendmsg() ancillary data items] must be tuples of length 3")
            messages.append((message[0], message[1], bytes(memoryview(message[2]))))
        if _type(self) == _STREAM:
            target = None
        try:
            return _peersock.sendmsg(self.fileno(), pieces, messages, flags, target, self.gettimeout())
        except OSError as error:
            _translate(self, error, sending=True)
            raise

    def _check_urgent(self, flags: int) -> None:
        # The kernel would take it out of the stream.
        if flags and flags & _MSG_OOB and _ours(self):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def _refused(error: PermissionError, port: int) -> PermissionError:
    """The error of a port that no network allows, with those that are allowed."""
    networks = _refusing(port)
    if error.errno != errno.EACCES or not networks:
        return error
    return PermissionError(errno.EACCES, f"port {port} is not allowed: {_allowed(networks)}")


def _warn_of_port(sock: _std.socket, port: int) -> None:
    """Warns that no peer reaches a datagram socket. Its bind succeeds, because it may be a client's."""
    networks = _refusing(port)
    if port and _type(sock) == _DGRAM and networks and len(networks) == len(_node.allowed_ports()):
        text = f"no other member reaches UDP port {port}: {_allowed(networks)}"
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def _refusing(port: int) -> list[tuple[str, int, int]]:
    """The networks that do not allow a port, with their first and last."""
    return [network for network in _node.allowed_ports() if not network[1] <= port <= network[2]]


def _allowed(networks: list[tuple[str, int, int]]) -> str:
    return ", ".join(f"network {network} allows ports {first} to {last}" for network, first, last in networks)


def _iterable(items: Iterable[Any], what: str) -> list[Any]:
    try:
        return list(items)
    except TypeError as error:
        if hasattr(type(items), "__iter__"):
            raise
        raise TypeError(f"{what} must be iterable") from error


def _check_ancillary(size: int, name: str) -> None:
    if size < 0 or size > 0x7FFFFFFF:
        raise ValueError(f"invalid ancillary data buffer length in {name}")


def _attaches(sock: _std.socket, error: OSError) -> bool:
    """Returns true if another thread is connecting the socket: its connection is there, but not yet its end."""
    if error.errno != errno.EINVAL or not _ours(sock):
        return False
    try:
        _peersock.getpeername(sock.fileno())
    except OSError:
        return False
    time.sleep(0.001)
    return True


def _translate(sock: _std.socket, error: OSError, sending: bool = False) -> None:
    """Raises TCP's error in place of the error of the kernel's AF_UNIX socket.

    A socket that was never connected has another error in AF_UNIX. Of a broken connection the node knows the error,
    because the kernel sees only that the node's end is closed."""
    if error.errno not in _TRANSLATED or not _ours(sock) or _our_datagrams(sock):
        return
    number = errno.EPIPE if sending else errno.ENOTCONN
    if error.errno in _BROKEN:
        number = _peersock.stream_error(sock.fileno(), error.errno)
    if number != error.errno:
        raise OSError(number, _peersock.strerror(number)) from None


def _document() -> None:
    """Copies the standard library's documentation to the methods."""
    for name, value in vars(socket).items():
        if callable(value) and not name.startswith("_") and not value.__doc__:
            value.__doc__ = getattr(_std.socket, name).__doc__


_document()
socket.__module__ = "peersock.socket"
