"""Checks of the network that this machine is in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypedDict, cast

from . import _arguments as given
from ._node import Settings
from ._pending import Pending


class Advice(TypedDict):
    """One thing that was found, and what to do about it."""

    #: The finding.
    finding: str
    #: The remedy, if there is one.
    what_to_do: str | None


class Netcheck(TypedDict):
    """Findings, as ``peersock netcheck --json`` prints them; docs/use/NETCHECK.md explains the fields of everything in
    them. Later versions may have more."""

    #: The interfaces that are up, with the NATs in front of them.
    interfaces: list[dict[str, Any]]
    #: The servers that were asked over UDP, with their round trips.
    servers: list[dict[str, Any]]
    #: Lists of roots.
    lists: list[dict[str, Any]]
    #: Roots that are named by their keys, and whether they have them.
    roots: list[dict[str, Any]]
    #: The system's nameservers.
    nameservers: list[dict[str, Any]]
    #: TCP connections that were tried.
    tcp: list[dict[str, Any]]
    #: TURN servers, and whether they relay.
    turn: list[dict[str, Any]]
    #: Proxies that the environment names.
    proxies: list[dict[str, Any]]
    #: The prefix of the network's NAT64, by which servers with IPv4 were asked.
    nat64: str | None
    #: True if UDP gets out and back; ``None`` if no server could be asked.
    udp: bool | None
    #: Advice, the most important first.
    advice: list[Advice]
    #: Duration of the check, milliseconds.
    took_ms: float


def netcheck(
    *,
    stun: str | Iterable[str] | None = None,
    roots: str | Iterable[str] | None = None,
    turn: str | Iterable[str] | None = None,
    interfaces: Literal["all", "loopback"] | Sequence[str] = "all",
    discovery_port: int | None = None,
) -> Pending[Netcheck]:
    """Looks what network this machine is in: interfaces, NATs, servers and their round trips, what is blocked, and what
    to do about it. It needs no session. The result is awaited, or waited for with ``wait()``::

        found = await peersock.netcheck()           # blocking: peersock.netcheck().wait()
        for advice in found["advice"]:
            print(advice["finding"])

    It takes up to six seconds, and before that up to four where ``dns:DOMAIN`` is among the roots, up to six with
    ``lan``. No server is asked that nobody named.

    Args:
        stun: The STUN servers to ask: a text ``"HOST:PORT"``, or several. ``None`` means those of the variable
            ``PEERSOCK_STUN``.
        roots: Roots, as for `Session`; ``None`` means those of ``PEERSOCK_ROOTS``.
        turn: TURN servers, as for `Session`; ``None`` means those of ``PEERSOCK_TURN``.
        interfaces: Which network interfaces are looked at: ``"all"``, ``"loopback"``, or names.
        discovery_port: The UDP port at which roots that announce themselves are heard.

    Raises:
        TypeError: Something of this is not of the right type.
        ValueError: Something of this, or a variable, makes no sense.
        OSError: No such interface is up (ENODEV), or a file with servers cannot be read.
    """
    settings = Settings(
        interfaces=given.interfaces(interfaces),
        discovery_port=given.optional_number("discovery_port", discovery_port, 1, 0xFFFF),
        roots=given.roots(roots),
        turn=given.turn(turn),
    )
    return look(settings, given.stun(stun))


def look(settings: Settings, stun: tuple[str, ...] | None) -> Pending[Netcheck]:
    """The same, in the network in which a node with these settings is."""
    config = settings.config()
    return Pending(lambda: cast(Netcheck, json.loads(config.netcheck(None if stun is None else list(stun)))))
