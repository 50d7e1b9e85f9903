"""Sockets for pipes: of the overlay where the address is, of the kernel otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import socket as _std
import struct
from collections.abc import Sequence
from typing import Any

from .. import _peersock
from .. import socket as _overlay
from ..interfaces import IP4, IP6, Interface, IPRange, Route
from ._addresses import AF_ANY, TCP, Tup, family_of, parse_ip, parse_port, sockaddr_of
from ._options import Options

#: Delay before the next address of a name is tried beside the earlier ones, seconds: RFC 8305 (5).
_STAGGER = 0.25


async def bound_route(route: Route | Interface | tuple[str, int] | None, af: int = AF_ANY) -> Route | None:
    """Returns a route that one pipe alone uses, with an endpoint.

    Raises:
        TypeError: It is neither a route nor what stands for one.
        LookupError: The interface has no route of the family.
        OSError: There is no such interface, or no address to bind to.
    """
    if route is None:
        return None
    if isinstance(route, Interface):
        if not route.supported():
            await route
        route = route.route(None if af == AF_ANY else af)
    elif isinstance(route, tuple) and len(route) == 2:
        ip = parse_ip(route[0])
        if ip is None:
            raise ValueError(f"{route[0]!r} is no IPv4 or IPv6 address to bind to")
        own = Route(IP4 if ip.version == 4 else IP6, [IPRange(str(ip))])
        own._bound = sockaddr_of((str(ip), parse_port(route[1])), own.af)
        return own
    elif not isinstance(route, Route):
        raise TypeError(f"a route is a Route, an Interface or (ADDRESS, PORT), not {route!r}")
    if af not in (AF_ANY, route.af):
        raise ValueError("the route is of the other address family")
    bound, own = route._bound, copy.copy(route)
    own._bound = bound
    if bound is None:
        await own.bind()
    return own


def overlay_route(session: Any, af: int = IP6) -> Route:
    """The route of a session's first address in the overlay, to be bound: ``await overlay_route(session).bind(7000)``.

    Args:
        session: A `peersock.Session`.
        af: The family.

    Raises:
        LookupError: The session has no address of the family.
    """
    for address in session.addresses:
        if family_of((address, 0)) == af:
            return Route(af, [IPRange(address)])
    raise LookupError("the session has no address of that family")


def is_overlay(host: str) -> bool:
    """Returns true if an address belongs to the overlay."""
    return _peersock.is_overlays(host.partition("%")[0])


def open_socket(proto: int, family: int, route: Route | None, options: Options) -> _std.socket:
    """A socket that does not block, bound if there is a route.

    Raises:
        OSError: It cannot be opened or bound.
    """

    def prepare(sock: _std.socket) -> None:
        sock.setblocking(False)
        if options.reuse_addr:
            sock.setsockopt(_std.SOL_SOCKET, _std.SO_REUSEADDR, 1)
        if options.broadcast and proto != TCP:
            sock.setsockopt(_std.SOL_SOCKET, _std.SO_BROADCAST, 1)
        if options.linger is not None and proto == TCP:
            sock.setsockopt(_std.SOL_SOCKET, _std.SO_LINGER, struct.pack("ii", 1, options.linger))

    if route is not None:
        host = str(route.bind_tup[0])
        ip = parse_ip(host)
        if not is_overlay(host) and not (ip is not None and ip.is_unspecified):
            return route.socket(proto, options.sock_proto, prepare=prepare)
    sock = _overlay.socket(family, proto, options.sock_proto)
    try:
        prepare(sock)
        if route is not None:
            sock.bind(route.bind_tup)
    except BaseException:
        sock.close()
        raise
    return sock


def open_server(proto: int, route: Route | None, options: Options) -> _std.socket:
    """A socket that clients reach; without a route at any port of all addresses."""
    if route is not None:
        return open_socket(proto, route.af, route, options)
    sock = open_socket(proto, IP6 if _std.has_dualstack_ipv6() else IP4, None, options)
    try:
        if sock.family == IP6:
            sock.setsockopt(_std.IPPROTO_IPV6, _std.IPV6_V6ONLY, 0)
        sock.bind(("::" if sock.family == IP6 else "0.0.0.0", 0))
    except BaseException:
        sock.close()
        raise
    return sock


def check_side(tup: Tup, route: Route | None) -> None:
    """Refuses a route that does not lead to the destination.

    Raises:
        ValueError: One of them is of the overlay, and the other one is not.
    """
    own = parse_ip(route.bind_tup[0]) if route is not None else None
    if own is not None and not own.is_unspecified and is_overlay(str(own)) != is_overlay(tup[0]):
        raise ValueError("the route and the destination are not of the same network: one is of the overlay")


async def connect(tups: Sequence[Tup], route: Route | None, options: Options) -> _std.socket:
    """A socket that is connected to the first address that answers.

    Raises:
        TimeoutError: None did in time.
        OSError: None could be connected to.
    """
    timeout = None if options.con_timeout == math.inf else options.con_timeout
    try:
        return await asyncio.wait_for(_race(tups, route, options), timeout)
    except asyncio.TimeoutError:
        raise TimeoutError(f"not answered within {timeout:g} s") from None


async def _race(tups: Sequence[Tup], route: Route | None, options: Options) -> _std.socket:
    """Tries the addresses one after the other, the next one a moment after the last, RFC 8305."""
    waiting, running = list(tups), set[asyncio.Task[_std.socket]]()
    error: BaseException = OSError("there is no address to connect to")
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_connect(waiting.pop(0), route, options)))
            done, running = await asyncio.wait(
                running, timeout=_STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if task.exception() is None:
                    running |= done - {task}
                    return task.result()
            for task in done:
                error = task.exception() or error
        raise error
    finally:
        for task in running:
            task.add_done_callback(_discard)
            task.cancel()


def _discard(task: asyncio.Task[_std.socket]) -> None:
    """Closes the connection that came second."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect(tup: Tup, route: Route | None, options: Options) -> _std.socket:
    sock = open_socket(TCP, family_of(tup) if route is None else route.af, route, options)
    try:
        await asyncio.get_running_loop().sock_connect(sock, sockaddr_of(tup, sock.family))
    except BaseException:
        with contextlib.suppress(OSError):
            sock.close()
        raise
    return sock
