"""Routes: by which addresses of an interface which external addresses are used."""

from __future__ import annotations

import copy
import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

from .._pending import Pending
from ._addresses import IP4, IP6, IPAddress, IPRange, family

if TYPE_CHECKING:
    from ._interface import Interface


class Route:
    """A relation of an interface's addresses, `nic_ips`, to external ones, `ext_ips`.

    In IPv6 the addresses of the interface are its link-local ones, and private ones in front of a translator. A route
    without external addresses is one of which none is known.
    """

    def __init__(
        self,
        af: int,
        nic_ips: Iterable[IPRange],
        ext_ips: Iterable[IPRange] = (),
        interface: Interface | None = None,
    ) -> None:
        self.af = family(af)
        self.nic_ips = list(nic_ips)
        self.ext_ips = list(ext_ips)
        self.interface = interface
        self._bound: tuple[Any, ...] | None = None

    def nic(self) -> str:
        """The first address of the interface."""
        if not self.nic_ips:
            raise LookupError("the route has no address of an interface")
        return str(self.nic_ips[0][0])

    def ext(self) -> str:
        """The first external address."""
        if not self.ext_ips:
            raise LookupError("no external address is known: no STUN server was given, or none answered")
        return str(self.ext_ips[0][0])

    def bind(self, port: int = 0, ips: str | None = None) -> Pending[Route]:
        """Chooses the endpoint for sockets, `bind_tup`, and gives the route itself.

        Without `ips`, it is the address of the interface in IPv4, and the external one in IPv6, where both are the
        same.
        `ips` may be any address of this machine. Port 0 leaves the choice to the system.
        """

        def work() -> Route:
            if not 0 <= port <= 0xFFFF:
                raise ValueError("ports are 0 to 65535")
            ip = self._own() if ips is None else ipaddress.ip_address(ips)
            if ip is None or (ip.version == 4) != (self.af == IP4):
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL), str(ips or ""))
            scope = self.interface.index if self.interface and ip.is_link_local and self.af == IP6 else 0
            self._bound = (str(ip), port) if self.af == IP4 else (str(ip), port, 0, scope)
            return self

        return Pending(work)

    def __await__(self) -> Any:
        return self.bind().__await__()

    def _own(self) -> IPAddress | None:
        if self.af == IP4:
            return self.nic_ips[0][0] if self.nic_ips else None
        translated = [block[0] for block in self.nic_ips if not block[0].is_link_local]
        found = [*translated, *(block[0] for block in self.ext_ips), *(block[0] for block in self.nic_ips)]
        return found[0] if found else None

    @property
    def bind_tup(self) -> tuple[Any, ...]:
        """The endpoint for `socket.bind`, once the route is bound."""
        if self._bound is None:
            raise ValueError("the route is not bound: await route.bind() first")
        return self._bound

    def socket(
        self,
        type: int = socket.SOCK_STREAM,
        proto: int = 0,
        *,
        prepare: Callable[[socket.socket], None] | None = None,
    ) -> socket.socket:
        """Opens a socket of the operating system at the endpoint.

        It is kept to the interface, unless the endpoint's address is none of the route's. `prepare` is called with the
        socket before it is bound.
        """
        sock = socket.socket(self.af, type, proto)
        try:
            if prepare is not None:
                prepare(sock)
            is_here = any(self.bind_tup[0] in block for block in (*self.nic_ips, *self.ext_ips))
            if self.interface and is_here and hasattr(socket, "SO_BINDTODEVICE"):
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.name.encode())
                except PermissionError:
                    # Kernels before 5.7 want a privilege. The address alone chooses the interface then.
                    pass
            sock.bind(self.bind_tup)
        except BaseException:
            sock.close()
            raise
        return sock

    def __len__(self) -> int:
        return min(self.count, sys.maxsize)

    def __bool__(self) -> bool:
        return True

    @property
    def count(self) -> int:
        """Number of its external addresses. ``len`` gives at most `sys.maxsize`."""
        return sum(block.count for block in self.ext_ips)

    def _at(self, index: int) -> Route:
        """The route for one external address. Where the interface itself has the block, its own address is that one."""
        for block in self.ext_ips:
            if index < block.count:
                ext = IPRange(block[index])
                nic = [ext] if block in self.nic_ips else list(self.nic_ips)
                return Route(self.af, nic, [ext], self.interface)
            index -= block.count
        raise IndexError("the route has fewer external addresses")

    def __copy__(self) -> Route:
        return Route(self.af, self.nic_ips, self.ext_ips, self.interface)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Route) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.af, *self.nic_ips, *self.ext_ips))

    def __repr__(self) -> str:
        return f"Route.from_dict({self.to_dict()})"

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that JSON can carry. It does not say which interface, nor where it is bound."""
        return {
            "af": int(self.af),
            "nic_ips": [block.to_dict() for block in self.nic_ips],
            "ext_ips": [block.to_dict() for block in self.ext_ips],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any], interface: Interface | None = None) -> Route:
        """Takes what `to_dict` gave."""
        nic, ext = (map(IPRange.from_dict, value[name]) for name in ("nic_ips", "ext_ips"))
        return cls(value["af"], nic, ext, interface)


class RoutePool:
    """The routes of an interface and a family, as a sequence: every single external address is a route."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        #: The routes as they were found: each may have several external addresses, or none.
        self.routes = list(routes)

    @property
    def count(self) -> int:
        """Number of external addresses. ``len`` gives at most `sys.maxsize`."""
        return sum(route.count for route in self.routes)

    def __len__(self) -> int:
        return min(self.count, sys.maxsize)

    @overload
    def __getitem__(self, key: int) -> Route: ...
    @overload
    def __getitem__(self, key: slice) -> list[Route]: ...
    def __getitem__(self, key: int | slice) -> Route | list[Route]:
        if isinstance(key, slice):
            return [self._at(index) for index in range(*key.indices(self.count))]
        return self._at(key + self.count if key < 0 else key)

    def _at(self, index: int) -> Route:
        if index >= 0:
            for route in self.routes:
                if index < route.count:
                    return route._at(index)
                index -= route.count
        raise IndexError("the pool has fewer external addresses")

    def __iter__(self) -> Iterator[Route]:
        return (self._at(index) for index in range(self.count))

    def __reversed__(self) -> Iterator[Route]:
        return (self._at(index) for index in range(self.count - 1, -1, -1))

    def __contains__(self, item: object) -> bool:
        """Returns true if the pool has an external address, or a route's first one."""
        if isinstance(item, Route):
            item = item.ext() if item.ext_ips else ""
        try:
            ip = ipaddress.ip_address(item)  # type: ignore[arg-type]
        except ValueError:
            return False
        return any(ip in block for route in self.routes for block in route.ext_ips)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoutePool) and self.routes == other.routes

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RoutePool.from_dict({self.to_dict()})"

    def first(self) -> Route | None:
        """A copy of the first route."""
        return copy.copy(self.routes[0]) if self.routes else None

    def to_dict(self) -> list[dict[str, Any]]:
        """As a list that JSON can carry."""
        return [route.to_dict() for route in self.routes]

    @classmethod
    def from_dict(cls, value: list[dict[str, Any]], interface: Interface | None = None) -> RoutePool:
        """Takes what `to_dict` gave."""
        return cls(Route.from_dict(route, interface) for route in value)
