"""Peers as a node knows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Peer:
    """A peer in one network."""

    #: Its node ID.
    id: str
    #: The network.
    network: int
    #: Its addresses there.
    addresses: tuple[str, ...]
    #: Whether there is an encrypted session with it: packets flow.
    connected: bool
    #: Where its packets are sent now, as ``ADDRESS:PORT``: the root's, if one relays.
    path: str | None
    #: The node ID of the root that relays, if one does.
    root: str | None
    #: Whether a TURN server relays: the node's own or, as far as it has said so, the peer's.
    turn: bool
    #: The path's smoothed round-trip time, milliseconds.
    rtt_ms: float | None
    #: The cipher of the session.
    cipher: str | None
    #: The session's age, seconds.
    session_age_s: float | None
    #: Packets and bytes of the session, both ways.
    traffic: dict[str, int] | None

    @property
    def address(self) -> str:
        """Its first address: the one that follows from its key."""
        return self.addresses[0]

    @classmethod
    def from_json(cls, peer: dict[str, Any]) -> Peer:
        """Takes what the node says."""
        return cls(
            id=peer["id"],
            network=int(peer["network"], 16),
            addresses=tuple(peer["addresses"]),
            connected=peer["connected"],
            path=peer["path"],
            root=peer["root"],
            turn=peer["turn"],
            rtt_ms=peer["rtt_ms"],
            cipher=peer["cipher"],
            session_age_s=peer["session_age_s"],
            traffic=peer["traffic"],
        )
