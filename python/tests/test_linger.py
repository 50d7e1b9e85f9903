"""SO_LINGER with a time: closing waits until what was sent has arrived, but no longer than said."""

from __future__ import annotations

import struct
import time

from peersock import socket
from tests.conftest import Peer

LINGER = 1


def linger(sock: socket.socket, seconds: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))


def fill(sock: socket.socket) -> None:
    """Sends as much as goes without somebody reading: for half a second there is no more room."""
    sock.settimeout(0.5)
    try:
        while True:
            sock.send(bytes(1 << 20))
    except TimeoutError:
        pass


def test_closing_waits_for_who_does_not_read(peer: Peer) -> None:
    sock = socket.create_connection((peer.v6, peer.port("deaf")), 20)
    fill(sock)
    linger(sock, LINGER)
    start = time.monotonic()
    sock.close()
    assert time.monotonic() - start > LINGER * 0.99


def test_closing_goes_on_when_all_has_arrived(peer: Peer) -> None:
    sock = socket.create_connection((peer.v6, peer.port("echo", int(socket.AF_INET6))), 20)
    linger(sock, 3600)
    sock.sendall(b"all")
    sock.close()
