"""Opening pipes."""

from __future__ import annotations

import asyncio
import socket as _std
import ssl
from collections.abc import Mapping
from typing import Any, cast

from ..interfaces import IP4, Interface, Route
from ._addresses import AF_ANY, TCP, UDP, Address, Tup, parse_tup
from ._callbacks import checked
from ._options import NET_CONF, Options
from ._pipe import MsgCallback, Pipe, StateCallback
from ._server import TcpServer, finite
from ._sockets import bound_route, check_side, connect, open_server, open_socket
from ._subscriptions import SUB_ALL
from ._tcp import TcpPipe, identity
from ._udp import UdpPipe

_BACKLOG = 128


async def pipe_open(
    proto: int,
    dest: Address | tuple[Any, ...] | list[Any] | None = None,
    route: Route | Interface | tuple[str, int] | None = None,
    sock: _std.socket | None = None,
    msg_cb: MsgCallback | None = None,
    up_cb: StateCallback | None = None,
    conf: Mapping[str, Any] | None = NET_CONF,
) -> Pipe:
    """Opens a pipe: with a destination a client's, without one a server's.

    Addresses and names of the overlay's members lead over the overlay, all others over the system's network. Without
    `msg_cb`, all messages are queued for `Pipe.recv`, by the subscription `SUB_ALL`; a TCP server's are in the pipes of
    its clients.

    Args:
        proto: TCP or UDP.
        dest: ``(HOST, PORT)`` or an `Address`. Each address of a name is tried.
        route: Which address and interface are used: a `Route`, which is bound if it is not yet, an `Interface`, or
            ``(ADDRESS, PORT)``. None leaves it to the system, and a server listens at any port of all addresses.
        sock: A socket that is to become the pipe; a TCP one with a destination is connected.
        msg_cb: As for `Pipe.add_msg_cb`, from the first message on.
        up_cb: Called as ``up_cb(None, client_tup, pipe)`` once a client is connected; a server's for each one.
        conf: Options; see `NET_CONF`. With ``sock_only`` the socket is given, and no pipe: not what the type says.

    Raises:
        TypeError, ValueError: An argument or option makes no sense.
        TimeoutError: The name, the connection or the handshake took longer than its option allows.
        OSError: The pipe cannot be opened: ConnectionRefusedError, ssl.SSLError, and what sockets say otherwise.
    """
    if proto not in (TCP, UDP) or isinstance(proto, bool):
        raise ValueError(f"a pipe is TCP or UDP, not {proto!r}")
    options = Options.parse(conf, proto)
    for callback in (msg_cb, up_cb):
        if callback is not None:
            checked(callback)
    if sock is not None:
        _check_socket(sock, proto)
    given, found = sock, None
    try:
        name = parse_tup(dest) if isinstance(dest, (tuple, list)) else None
        address = Address(*name, conf={"dns_timeout": options.dns_timeout}) if name is not None else dest
        if address is not None and not isinstance(address, Address):
            raise TypeError(f"a destination is (HOST, PORT) or an Address, not {dest!r} ({type(dest).__name__})")
        _check_tls(proto, address, options)
        if address is not None:
            name = (address.host, address.port)
            route = route or (address.route if sock is None else None)
            if not address.resolved:
                await address.res(route if isinstance(route, (Route, Interface)) else None)
        if sock is None:
            sock, route, found = await _socket(proto, address, route, options)
        else:
            sock.setblocking(False)
            route = route if isinstance(route, Route) else None
            found = address.tup if address is not None else None
        if options.sock_only:
            return cast(Pipe, sock)
        is_server = proto == TCP and address is None and not _is_connected(sock)
        pipe = _make(proto, sock, route, options, name, found, is_server)
        if up_cb is not None:
            pipe.add_up_cb(up_cb)
        if msg_cb is not None:
            pipe.add_msg_cb(msg_cb)
        elif not is_server:
            pipe._subscribe_by_default()
        await _start(pipe)
        return pipe
    except BaseException:
        if sock is not None and (given is None or options.do_close):
            sock.close()
        raise


async def send_recv_loop(
    dest: Any, pipe: Pipe, buf: bytes, sub: Any = SUB_ALL, timeout: float | None = None
) -> bytes | None:
    """Sends a request and gives the answer, or None if there is none.

    A datagram is sent again if no answer has come in time, as often as the option ``send_retry`` says. A stream loses
    nothing, so its answer is awaited once.

    Args:
        dest: Where to, or None for the pipe's own destination.
        pipe: The pipe.
        buf: The request.
        sub: The subscription in which the answer is expected.
        timeout: How long each attempt waits, seconds; None is the option ``recv_timeout``.
    """
    for _ in range(1 + (pipe.conf.send_retry if pipe.proto == UDP else 0)):
        await pipe.send(buf, dest)
        answer = await pipe.recv(sub, timeout)
        if answer is not None:
            return answer
    return None


async def _socket(
    proto: int, address: Address | None, route: Any, options: Options
) -> tuple[_std.socket, Route | None, Tup | None]:
    if address is None:
        bound = await bound_route(route)
        return open_server(proto, bound, options), bound, None
    if isinstance(route, Interface) and not route.supported():
        await route
    if isinstance(route, Interface):
        families = [af for af in route.supported() if (address.IP4 if af == IP4 else address.IP6)]
        bound = await bound_route(route, families[0] if families else AF_ANY)
    else:
        bound = await bound_route(route)
    address.route = bound
    tups = address.tups
    if not tups:
        raise ValueError(f"{address.host} has no address of the route's family")
    for tup in tups:
        check_side(tup, bound)
    if proto == TCP:
        return await connect(tups, bound, options), bound, None
    family = bound.af if bound is not None else _std.AF_INET6 if ":" in tups[0][0] else _std.AF_INET
    return open_socket(UDP, family, bound, options), bound, tups[0]


def _make(
    proto: int,
    sock: _std.socket,
    route: Route | None,
    options: Options,
    name: Tup | None,
    found: Tup | None,
    is_server: bool,
) -> Pipe:
    if proto == UDP:
        return UdpPipe(sock, route, options, found)
    if not is_server:
        return TcpPipe(sock, route, options, name)
    sock.listen(_BACKLOG)
    return TcpServer(sock, route, options)


async def _start(pipe: Pipe) -> None:
    """Begins to receive."""
    if isinstance(pipe, UdpPipe):
        pipe._start()
        if pipe.dest_tup is not None:
            pipe._run(pipe._up_cbs)
    if not isinstance(pipe, TcpPipe):
        return
    pipe._peer, _ = await identity(pipe.sock)
    options, tls, hostname = pipe.conf, None, None
    if options.use_ssl:
        tls = options.ssl_context or ssl.create_default_context()
        hostname = options.server_hostname or (pipe._name[0] if pipe._name is not None else "")
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: pipe._stream,
            sock=pipe.sock,
            ssl=tls,
            server_hostname=hostname,
            ssl_handshake_timeout=finite(options.ssl_handshake) if tls is not None else None,
        )
    except ConnectionAbortedError as error:
        # asyncio says so of a handshake that takes too long.
        raise TimeoutError(str(error)) from None


def _check_tls(proto: int, dest: Address | None, options: Options) -> None:
    if options.use_ssl and proto == TCP and dest is None and options.ssl_context is None:
        raise ValueError("a server with use_ssl needs an ssl_context that has its certificate")


def _check_socket(sock: Any, proto: int) -> None:
    if not isinstance(sock, _std.socket):
        raise TypeError(f"sock is a socket, not {sock!r} ({type(sock).__name__})")
    if sock.type != proto or sock.family not in (_std.AF_INET, _std.AF_INET6):
        raise ValueError(f"sock is no socket of the protocol: {sock!r}")


def _is_connected(sock: _std.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
