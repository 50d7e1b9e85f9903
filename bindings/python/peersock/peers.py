"""Peers as a node knows them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Attempt:
    """An address at which a direct path to a peer was looked for."""

    #: The address, as ``ADDRESS:PORT``.
    address: str
    #: The kind of the address. ``interface`` is of the peer's machine, ``mapped`` as seen from outside, ``forwarded``
    #: by a router on request, ``relayed`` by the peer's TURN server. ``predicted`` is the port that a NAT was expected
    #: to use next. ``birthday`` stands for many source or target ports, with port 0. ``tcp`` stands for attempts to
    #: connect. Later versions may add kinds.
    kind: str
    #: True if a root has seen the peer at that IP address. Others get a few packets only.
    vouched: bool
    #: Packets sent there in the last round; of ``tcp`` how many connections at most.
    sent: int
    #: Time since the last of them was sent, seconds; ``None`` if none was.
    tried_s: float | None
    #: True if the peer has answered from there.
    answered: bool
    #: The outcome, or the reason why nothing was sent there, in words.
    outcome: str

    @classmethod
    def from_json(cls, attempt: dict[str, Any]) -> Attempt:
        """Takes what the node says."""
        return cls(**{field.name: attempt[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Peer:
    """A peer in one network."""

    #: Its node ID.
    id: str
    #: The network.
    network: int
    #: Its addresses there.
    addresses: tuple[str, ...]
    #: True if there is an encrypted session with it: packets flow.
    connected: bool
    #: The address to which its packets are sent, as ``ADDRESS:PORT``: the root's, if a root relays.
    path: str | None
    #: The node ID of the root that relays, if one does.
    root: str | None
    #: True if a TURN server relays: the node's own or, as far as it has said so, the peer's.
    turn: bool
    #: The path's smoothed round-trip time, milliseconds.
    rtt_ms: float | None
    #: The cipher of the session.
    cipher: str | None
    #: The session's age, seconds.
    session_age_s: float | None
    #: Packets and bytes of the session, both ways.
    traffic: dict[str, int] | None
    #: Attempts to find a direct path, from the last time that a root had to relay.
    attempts: tuple[Attempt, ...]

    @property
    def address(self) -> str:
        """Its first address: the one that follows from its key."""
        return self.addresses[0]

    @classmethod
    def from_json(cls, peer: dict[str, Any]) -> Peer:
        """Takes what the node says."""
        known = {field.name: peer[field.name] for field in fields(cls)}
        known["network"] = int(peer["network"], 16)
        known["addresses"] = tuple(peer["addresses"])
        known["attempts"] = tuple(map(Attempt.from_json, peer["attempts"]))
        return cls(**known)
