"""Interfaces: listed, loaded, and as dictionaries."""

from __future__ import annotations

import errno
import json
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from .. import _peersock
from .._pending import Pending
from ._addresses import IP4, IP6, family
from ._nat import DeltaType, Nat, NatType
from ._routes import Route, RoutePool

#: The NAT that is assumed before anything is known.
_ASSUMED: Nat = {
    "type": int(NatType.RESTRICT_PORT_NAT),
    "nat_info": "restrict port",
    "delta": {"type": int(DeltaType.RANDOM_DELTA), "value": 0},
    "delta_info": "random",
    "is_known": False,
}

#: Interfaces that are loaded at the same time.
_AT_ONCE = 16


class Interface:
    """A network interface of this machine: the default one without a name.

    Awaiting it, or `wait`, loads its addresses and asks servers for its external ones, for at most `timeout` seconds.
    Both give the interface itself.
    """

    def __init__(self, name: str | None = None, *, stun: Iterable[str] | None = None, timeout: float = 2.0) -> None:
        self._stun = None if stun is None else list(stun)
        self._timeout = timeout
        self._name = name
        #: Its number in the kernel; 0 until it is loaded.
        self.index = 0
        #: The NAT in front of it; assumed until `load_nat`.
        self.nat: Nat = cast(Nat, json.loads(json.dumps(_ASSUMED)))
        #: Its routes, by family.
        self.rp = {IP4: RoutePool(), IP6: RoutePool()}

    def __await__(self) -> Generator[Any, None, Interface]:
        return Pending(self.wait).__await__()

    def wait(self) -> Interface:
        """Loads it, blocking."""
        self._take(json.loads(_peersock.load_interface(self._name, self._stun, self._timeout)))
        return self

    def load_nat(self, *, stun: Iterable[str] | None = None, timeout: float = 4.0) -> Pending[Nat]:
        """Finds out the NAT in front of it: sets `nat`, and gives it."""
        servers = self._stun if stun is None else list(stun)

        def work() -> Nat:
            self.nat = json.loads(_peersock.load_nat(self.name, servers, timeout))["nat"]
            return self.nat

        return Pending(work)

    @property
    def name(self) -> str:
        """Its name."""
        if self._name is None:
            raise ValueError("the interface is not loaded: await it first")
        return self._name

    def supported(self) -> list[int]:
        """The families that it has routes of."""
        return [af for af, pool in self.rp.items() if pool.routes]

    def route(self, af: int | None = None) -> Route:
        """A copy of the first route of a family; without one, of the first family that it has."""
        families = self.supported() if af is None else [family(af)]
        route = self.rp[family(families[0])].first() if families else None
        if route is None:
            raise LookupError(f"{self._name or 'the interface'} has no route of that family, or is not loaded")
        return route

    def _take(self, value: dict[str, Any]) -> None:
        self._name, self.index, self.nat = value["name"], value.get("index", 0), value["nat"]
        self.nat = {**_ASSUMED, **self.nat}
        for number, routes in value["rp"].items():
            self.rp[family(int(number))] = RoutePool.from_dict(routes, self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interface) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return json.dumps(self.to_dict(), indent=4)

    def __repr__(self) -> str:
        return f"Interface.from_dict({self})" if self._name else "Interface()"

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that JSON can carry."""
        pools = {str(int(af)): pool.to_dict() for af, pool in self.rp.items()}
        return {"name": self.name, "index": self.index, "nat": self.nat, "rp": pools}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Interface:
        """Takes what `to_dict` gave, here or on another machine."""
        interface = cls(value["name"])
        interface._take(value)
        return interface


def list_interfaces() -> Pending[list[str]]:
    """The names of the interfaces that are up, the default one first."""
    return Pending(_peersock.interface_names)


def load_interfaces(
    names: Iterable[str], *, stun: Iterable[str] | None = None, timeout: float = 4.0, skip_nat: bool = False
) -> Pending[list[Interface]]:
    """Loads interfaces and, unless `skip_nat`, the NATs in front of them, all at once.

    Interfaces that are gone are left out.
    """
    wanted, servers = list(names), None if stun is None else list(stun)

    def load(name: str) -> Interface | None:
        try:
            interface = Interface(name, stun=servers, timeout=timeout).wait()
            if not skip_nat:
                interface.load_nat(timeout=timeout).wait()
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return None
        return interface

    def work() -> list[Interface]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [interface for interface in pool.map(load, wanted) if interface is not None]

    return Pending(work)
