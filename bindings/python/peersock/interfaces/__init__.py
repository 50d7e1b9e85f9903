"""The machine's own interfaces: as what their addresses are seen from outside, and the NAT in front of them.

The names are those of P2PD. Everything that asks the network can be awaited, or waited for with ``wait()``::

    from peersock.interfaces import IP4, Interface

    nic = await Interface()              # the default one; blocking: Interface().wait()
    await nic.load_nat()                 # blocking: nic.load_nat().wait()
    route = await nic.route(IP4).bind()  # blocking: nic.route(IP4).bind().wait()
    sock = route.socket()

Only servers can tell which external address an address has: those of ``stun``, ``["HOST:PORT", ...]``, or else those
that the variables ``PEERSOCK_STUN`` and ``PEERSOCK_ROOTS`` name. No server is asked that nobody named. Without any, the
external addresses are the public ones that the interface has itself, and the NAT stays what is assumed: restrict port,
with random ports.
"""

from __future__ import annotations

from .._pending import Pending
from ._addresses import IP4, IP6, IPRange
from ._interface import Interface, list_interfaces, load_interfaces
from ._nat import Delta, DeltaType, Nat, NatType
from ._routes import Route, RoutePool

__all__ = [
    "IP4",
    "IP6",
    "Delta",
    "DeltaType",
    "IPRange",
    "Interface",
    "Nat",
    "NatType",
    "Pending",
    "Route",
    "RoutePool",
    "list_interfaces",
    "load_interfaces",
]
