"""The kinds of NAT, with P2PD's numbers."""

from __future__ import annotations

from enum import IntEnum
from typing import TypedDict


class NatType(IntEnum):
    """A kind of NAT, by its mapping of addresses."""

    #: No NAT and no filter.
    OPEN_INTERNET = 1
    #: No NAT, but a firewall that lets in answers only.
    SYMMETRIC_UDP_FIREWALL = 2
    #: One mapping for all, open to all.
    FULL_CONE = 3
    #: One mapping for all, open to addresses to which something was sent.
    RESTRICT_NAT = 4
    #: One mapping for all, open to endpoints to which something was sent.
    RESTRICT_PORT_NAT = 5
    #: A mapping for each destination.
    SYMMETRIC_NAT = 6
    #: Nothing comes back: UDP is blocked.
    BLOCKED_NAT = 7


class DeltaType(IntEnum):
    """A pattern of the mapped ports of successive flows."""

    #: There is no NAT.
    NA_DELTA = 1
    #: The mapped port is the local one.
    EQUAL_DELTA = 2
    #: The mapped port is the local one plus the value.
    PRESERV_DELTA = 3
    #: Each new mapping is the last one plus the value.
    INDEPENDENT_DELTA = 4
    #: Each new mapping is the last one plus the value if the local port is the last one plus 1.
    DEPENDENT_DELTA = 5
    #: There is no rule.
    RANDOM_DELTA = 6


class Delta(TypedDict):
    """A rule of ports with its value."""

    type: int
    value: int


class Nat(TypedDict):
    """A NAT: its `NatType`, its `Delta`, both in words, and whether it was found out or is assumed."""

    type: int
    nat_info: str
    delta: Delta
    delta_info: str
    is_known: bool
