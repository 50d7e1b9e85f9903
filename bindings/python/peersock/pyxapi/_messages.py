"""PyXAPI's ``cmsg`` objects, and sockets that send and receive them."""

from __future__ import annotations

import struct
from socket import CMSG_LEN
from typing import Any

from .. import _class

#: ``struct cmsghdr``: its length with the data, the level and the type.
_HEADER = struct.Struct("@Nii")

_Data = str | bytes | bytearray | memoryview


def _bytes(data: _Data) -> bytes:
    return data.encode() if isinstance(data, str) else bytes(data)


class cmsg:
    """Ancillary data: what a message carries beside its data."""

    __slots__ = ("cmsg_data", "cmsg_level", "cmsg_type")

    #: The originating protocol.
    cmsg_level: int
    #: The type, as that protocol counts.
    cmsg_type: int
    #: The data.
    cmsg_data: bytes

    def __init__(self) -> None:
        self.set(0, 0, b"")

    def set(self, level: int, type: int, data: _Data) -> None:
        """Takes the originating protocol, the type and the data."""
        self.cmsg_level, self.cmsg_type, self.cmsg_data = level, type, _bytes(data)

    def set_from_data(self, data: _Data) -> None:
        """Takes a whole control message: a ``struct cmsghdr`` and its data.

        Raises:
            ValueError: It is shorter than it says.
        """
        raw = _bytes(data)
        if len(raw) < _HEADER.size:
            raise ValueError(f"a control message has at least {_HEADER.size} bytes, not {len(raw)}")
        length, level, kind = _HEADER.unpack_from(raw)
        if not CMSG_LEN(0) <= length <= len(raw):
            raise ValueError(f"a control message of {len(raw)} bytes says that it has {length}")
        self.set(level, kind, raw[CMSG_LEN(0) : length])

    def get(self) -> tuple[tuple[int, int, int], bytes]:
        """The header, as length, level and type, and the data."""
        return (self.cmsg_len, self.cmsg_level, self.cmsg_type), self.cmsg_data

    def CMSG_DATA(self) -> bytes:
        """The data."""
        return self.cmsg_data

    @property
    def cmsg_len(self) -> int:
        """The length with the header, bytes."""
        return CMSG_LEN(len(self.cmsg_data))

    def __repr__(self) -> str:
        return f"cmsg(level={self.cmsg_level}, type={self.cmsg_type}, data={self.cmsg_data!r})"


class socket(_class.socket):
    """A socket with PyXAPI's ``sendmsg`` and ``recvmsg``."""

    __slots__ = ()

    def accept(self) -> tuple[socket, Any]:
        """accept() -> (socket object, address info)

        Wait for an incoming connection."""
        sock, address = super().accept()
        timeout = sock.gettimeout()
        own = socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        own.settimeout(timeout)
        return own, address

    def sendmsg(self, *arguments: Any) -> int:
        """sendmsg([address, ]data[, ancillary[, flags]]) -> bytes sent

        The data are a tuple of pieces, the ancillary data one of `cmsg` objects."""
        address = None
        if arguments and _is_address(arguments[0]):
            address, *rest = arguments
        else:
            rest = list(arguments)
        if not 1 <= len(rest) <= 3:
            raise TypeError("sendmsg() takes an address, data, ancillary data and flags; the data must be there")
        pieces = rest[0]
        ancillary = rest[1] if len(rest) > 1 else ()
        flags = rest[2] if len(rest) > 2 else 0
        if isinstance(pieces, (str, bytes)):
            raise TypeError("the data are a tuple of pieces")
        messages = [(message.cmsg_level, message.cmsg_type, message.cmsg_data) for message in ancillary]
        return super().sendmsg([_bytes(piece) for piece in pieces], messages, flags, address)

    def recvmsg(  # type: ignore[override]
        self, sizes: tuple[int, ...], ancillary: int = 0, flags: int = 0
    ) -> tuple[Any, tuple[bytes, ...], tuple[cmsg, ...], int]:
        """recvmsg(sizes[, ancillary[, flags]]) -> (address, data, ancillary, flags)

        The data come in pieces of at most those sizes, the ancillary data as `cmsg` objects, for which
        there is room of ``ancillary`` bytes."""
        data, items, told, address = super().recvmsg(sum(sizes), ancillary, flags)
        pieces = []
        for size in sizes:
            pieces.append(data[:size])
            data = data[size:]
        found = []
        for level, kind, value in items:
            message = cmsg()
            message.set(level, kind, value)
            found.append(message)
        return address, tuple(piece for piece in pieces if piece), tuple(found), told


def _is_address(argument: object) -> bool:
    """Returns true for an address, and false for data: an IP address is a tuple with a port, others are no tuples."""
    if isinstance(argument, tuple):
        return len(argument) >= 2 and isinstance(argument[1], int)
    return isinstance(argument, (str, bytes))
