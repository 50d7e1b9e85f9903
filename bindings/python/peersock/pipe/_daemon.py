"""Servers on several routes, ports and protocols."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from ..interfaces import IP4, IP6, Interface, Route
from ..session import Session
from ._addresses import AF_ANY, LOOPBACK, TCP, Tup, parse_port
from ._callbacks import checked
from ._open import pipe_open
from ._options import TCP_ONLY, TLS_ONLY, UDP_ONLY, Options, dict_child
from ._pipe import MsgCallback, Pipe
from ._sockets import bound_route, overlay_route

#: A place where a daemon listens: an address, all those of an interface, or those of a session in the overlay.
Target: TypeAlias = Route | Interface | Session
T = TypeVar("T", bound="Daemon")

#: The options of daemons.
DAEMON_CONF: Mapping[str, Any] = dict_child({"reuse_addr": True})


class Daemon:
    """Several servers that share callbacks. Inherit from it, and say in `msg_cb` what is done with messages::

        class EchoServer(Daemon):
            async def msg_cb(self, msg, client_tup, pipe):
                await pipe.send(msg, client_tup)

        server = await EchoServer().listen_all([route], [12345, 8080], [TCP, UDP])

    Args:
        conf: The options of its pipes. By default, ``reuse_addr`` is set: a server can be started again at once. It is
            used for TCP only, as several sockets could share a UDP port with it.
    """

    def __init__(self, conf: Mapping[str, Any] = DAEMON_CONF) -> None:
        Options.parse(conf)
        self.conf = dict(conf)
        #: The pipes of all servers.
        self.servers: list[Pipe] = []
        #: The functions of `add_msg_cb`.
        self.msg_cbs: list[MsgCallback] = []

    async def __aenter__(self: T) -> T:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def msg_cb(self, msg: bytes, client_tup: Tup, pipe: Pipe) -> None:
        """Called for each message that comes in. This one does nothing. It may be a plain function, too."""

    async def up_cb(self, msg: None, client_tup: Tup, pipe: Pipe) -> None:
        """Called for each client that connects. This one does nothing."""

    async def end_cb(self, msg: None, client_tup: Tup, pipe: Pipe) -> None:
        """Called when a client or a server ends. This one does nothing."""

    def add_msg_cb(self, msg_cb: MsgCallback) -> Daemon:
        """Has another function called for messages, of all servers, present and future."""
        self.msg_cbs.append(checked(msg_cb))
        for server in self.servers:
            server.add_msg_cb(msg_cb)
        return self

    def del_msg_cb(self, msg_cb: MsgCallback) -> Daemon:
        """Takes such a function away. It may be none."""
        if msg_cb in self.msg_cbs:
            self.msg_cbs.remove(msg_cb)
        for server in self.servers:
            server.del_msg_cb(msg_cb)
        return self

    async def add_listener(self, proto: int, route: Route) -> tuple[int, Pipe]:
        """Listens at a route, which is bound if it is not yet. Gives the port, and the server's pipe.

        Raises:
            OSError: The route cannot be bound: EADDRINUSE where another server listens there.
        """
        # A daemon has options for both protocols, and there is nothing to warn of.
        useless = UDP_ONLY if proto == TCP else (*TCP_ONLY, *TLS_ONLY, "reuse_addr")
        used = {name: value for name, value in self.conf.items() if name not in useless}
        server = await pipe_open(proto, route=route, msg_cb=self.msg_cb, up_cb=self.up_cb, conf=used)
        server.add_end_cb(self.end_cb)
        for msg_cb in self.msg_cbs:
            server.add_msg_cb(msg_cb)
        self.servers.append(server)
        return server.local_tup[1], server

    async def listen_all(
        self: T,
        targets: Target | Iterable[Target] | int,
        ports: int | Iterable[int | Sequence[int]],
        protos: int | Iterable[int] | Target,
        af: int = AF_ANY,
        msg_cb: MsgCallback | None = None,
        error_on_af: bool = False,
    ) -> T:
        """Listens at each target, on each port, by each protocol. Gives the daemon itself.

        If one of the servers cannot listen, none does that this call has begun.

        Args:
            targets: Routes, which are bound to each port; interfaces: the first route of each family; sessions: their
                first address of each family.
            ports: Ports, and ranges of them as ``[FIRST, LAST]``. Port 0 is any.
            protos: TCP, UDP or both. They may come first and the target last, as for `listen_local`.
            af: IP4, IP6, or both with AF_ANY.
            msg_cb: Another callback for messages.
            error_on_af: Whether a target without an address of the family is an error. It is left out otherwise.

        Raises:
            LookupError: No target has an address of the family, or with `error_on_af` one has none.
            OSError: A server cannot listen: EADDRINUSE where another one does.
        """
        if isinstance(targets, int) or isinstance(protos, (Route, Interface, Session)):
            targets, protos = protos, targets  # type: ignore[assignment]
        assert not isinstance(targets, int) and not isinstance(protos, (Route, Interface, Session))
        numbers = _ports(ports)
        protocols = [protos] if isinstance(protos, int) else list(protos)
        some = [targets] if isinstance(targets, (Route, Interface, Session)) else list(targets)
        routes = [route for target in some for route in await _routes(target, af, error_on_af)]
        if not routes:
            raise LookupError("there is no address of that family to listen at")
        if msg_cb is not None:
            self.add_msg_cb(msg_cb)
        at = [(route, port, proto) for route in routes for port in numbers for proto in protocols]
        await self._listen(at)
        return self

    async def listen_loopback(
        self, proto: int, port: int | Iterable[int | Sequence[int]], nic: Interface | None = None
    ) -> list[tuple[int, Pipe]]:
        """Listens at the loopback addresses of the families that the interface has, or of both. Gives ports and pipes.

        Raises:
            OSError: A server cannot listen.
        """
        if nic is not None and not nic.supported():
            await nic
        families = [IP4, IP6] if nic is None else nic.supported()
        routes = [await bound_route((LOOPBACK[IP4 if af == IP4 else IP6], 0)) for af in families]
        return await self._listen([(route, at, proto) for route in routes if route for at in _ports(port)])

    async def listen_local(
        self, proto: int, port: int | Iterable[int | Sequence[int]], nic: Interface, limit: int | None = 1
    ) -> list[tuple[int, Pipe]]:
        """Listens at the interface's private addresses of IPv4 and its link-local ones of IPv6. Gives ports and pipes.

        Args:
            proto: TCP or UDP.
            port: The port, or several.
            nic: The interface.
            limit: How many addresses of each family; None for all.

        Raises:
            OSError: A server cannot listen.
        """
        if not nic.supported():
            await nic
        at: list[tuple[Route, int, int]] = []
        for af in nic.supported():
            pool = nic.rp[IP4 if af == IP4 else IP6]
            ips = dict.fromkeys(block[0] for route in pool.routes for block in route.nic_ips)
            local = [ip for ip in ips if (ip.is_private if af == IP4 else ip.is_link_local)]
            for ip in local[:limit]:
                for number in _ports(port):
                    at.append((await nic.route(af).bind(number, str(ip)), number, proto))
        return await self._listen(at)

    async def close(self) -> None:
        """Closes all servers, and the pipes of their clients."""
        servers, self.servers = self.servers, []
        await asyncio.gather(*(server.close() for server in servers))

    async def _listen(self, at: list[tuple[Route, int, int]]) -> list[tuple[int, Pipe]]:
        opened: list[tuple[int, Pipe]] = []
        try:
            for route, port, proto in at:
                bound = copy.copy(route)
                bound._bound = (route.bind_tup[0], port, *route.bind_tup[2:])
                opened.append(await self.add_listener(proto, bound))
        except BaseException:
            for _, server in opened:
                self.servers.remove(server)
            await asyncio.gather(*(server.close() for _, server in opened))
            raise
        return opened


async def _routes(target: Target, af: int, error_on_af: bool) -> list[Route]:
    """A target's routes of a family, bound."""
    if isinstance(target, Route):
        found = [target] if af in (AF_ANY, target.af) else []
    elif isinstance(target, Session):
        families = [one for one in (IP4, IP6) if af in (AF_ANY, one)]
        has = [IP6 if ":" in address else IP4 for address in target.addresses]
        found = [overlay_route(target, one) for one in families if one in has]
    elif isinstance(target, Interface):
        if not target.supported():
            await target
        found = [target.route(one) for one in target.supported() if af in (AF_ANY, one)]
    else:
        raise TypeError(f"a target is a Route, an Interface or a Session, not {target!r}")
    if not found and error_on_af:
        raise LookupError(f"{target!r} has no address of that family")
    return [route for route in [await bound_route(one) for one in found] if route is not None]


def _ports(ports: int | Iterable[int | Sequence[int]]) -> list[int]:
    numbers: list[int] = []
    for entry in [ports] if isinstance(ports, int) else ports:
        if isinstance(entry, int):
            numbers.append(parse_port(entry))
            continue
        first, last = (parse_port(port) for port in entry)
        if first > last:
            raise ValueError(f"a range of ports begins with the lower one, not {first}")
        numbers.extend(range(first, last + 1))
    return numbers
