"""A program on a machine of `hosts.py`: ``python -m tests.host ROOTS``, then one request a line, as JSON.

Each is the name of a function and its arguments, and is answered with one line of JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

import peersock
from peersock import socket
from peersock.interfaces import IP4, Interface

NETWORK = "ff0001ffff000000"
#: The longest wait for something, seconds: a way that was silent is tried again after half a minute, then after one.
PATIENCE = 150
#: The outcome of an attempt that is under way.
IS_TRIED = "being tried"


class Host:
    """The requests that the program answers."""

    def __init__(self, roots: str) -> None:
        self.roots = roots
        self.session: peersock.Session
        self.sock: socket.socket
        self.events: peersock.Events

    def ready(self) -> bool:
        """Its namespace is made."""
        return True

    def open(self, *interfaces: str) -> str:
        """Opens the session, with some interfaces; its address."""
        self.session = peersock.Session(NETWORK, interfaces=list(interfaces), discovery=False, roots=self.roots)
        return self.session.address

    def pinned(self, *interfaces: str) -> dict[str, Any]:
        """Returns the names of a node's interfaces if it may use some alone. They are loaded for their names."""
        loaded = [Interface(name, stun=[]).wait() for name in interfaces]
        names, own = [nic.name for nic in loaded], [nic.route(IP4).nic() for nic in loaded]
        with peersock.Session(NETWORK, interfaces=names, discovery=False, roots=self.roots) as session:
            end = time.monotonic() + PATIENCE
            while not _is_found_at(status := session.status(), own) and time.monotonic() < end:
                time.sleep(0.02)
        return {"own": own, "status": status}

    def serve(self) -> int:
        """Sends back what one connection sends; its port."""
        server = socket.create_server((self.session.address, 0), family=socket.AF_INET6)

        def echo() -> None:
            connection, _ = server.accept()
            while data := connection.recv(1 << 16):
                connection.sendall(data)

        threading.Thread(target=echo, daemon=True).start()
        port: int = server.getsockname()[1]
        return port

    def connect(self, address: str, port: int) -> str:
        """Begins to watch the events, and connects; its ID."""
        self.events = self.session.events()
        self.sock = socket.create_connection((address, port), timeout=PATIENCE)
        return self.session.id

    def until(self, relayed: bool) -> dict[str, Any]:
        """Sends bytes and awaits them, until an event says that a root relays, or that none does any more.

        Gives the events until then, and what the session says of its peer.
        """
        seen: list[peersock.Event] = []
        end = time.monotonic() + PATIENCE
        while (not seen or seen[-1].relayed is not relayed) and time.monotonic() < end:
            self._send()
            if (event := self.events.next_timeout(0.05)) is not None:
                seen.append(event)
        while (event := self.events.next_timeout(0)) is not None:
            seen.append(event)
        (peer,) = self.session.peers()
        return {"events": [asdict(event) for event in seen], "peer": asdict(peer)}

    def searched(self) -> dict[str, Any]:
        """Sends bytes and awaits them, until all that is tried to do without the root has come to nothing.

        Gives what the status of the session says of its peer, and what its object says of the attempts.
        """
        end = time.monotonic() + PATIENCE
        while not _is_over((peer := self._peer())["attempts"]) and time.monotonic() < end:
            self._send()
            time.sleep(0.05)
        (same,) = self.session.peers()
        return {"status": peer, "attempts": [asdict(attempt) for attempt in same.attempts]}

    def _send(self) -> None:
        self.sock.sendall(b"x")
        assert self.sock.recv(1) == b"x"

    def _peer(self) -> dict[str, Any]:
        peer: dict[str, Any] = self.session.status()["peers"][0]
        return peer


def _is_found_at(status: dict[str, Any], own: list[str]) -> bool:
    """Returns true if the root knows the node, and the node has addresses for others."""
    candidates = (status["contact"] or {"candidates": []})["candidates"]
    known = [one["address"].rsplit(":", 1)[0] for one in candidates]
    return status["roots"][0]["state"] == "registered" and set(own) <= set(known)


def _is_over(attempts: list[dict[str, Any]]) -> bool:
    """Returns true if no attempt is under way, and the last round of datagrams is over."""
    was_sent = any(attempt["kind"] != "tcp" and attempt["sent"] > 0 for attempt in attempts)
    return was_sent and all(attempt["outcome"] != IS_TRIED for attempt in attempts)


def _main(roots: str) -> None:
    host = Host(roots)
    for line in sys.stdin:
        function, *arguments = json.loads(line)
        print(json.dumps(getattr(host, function)(*arguments)), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
