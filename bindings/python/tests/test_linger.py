"""SO_LINGER with a time: closing waits until what was sent has arrived, but no longer than said."""

from __future__ import annotations

import signal
import struct
import time

import pytest

from peersock import socket
from tests.conftest import Peer

LINGER = 1


def linger(sock: socket.socket, seconds: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))


def fill(sock: socket.socket) -> None:
    """Sends as much as goes without somebody reading: then there is no room for half a second."""
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
    # Not everything has arrived, and whoever closes is told.
    with pytest.raises(TimeoutError):
        sock.close()
    assert sock.fileno() == -1
    assert time.monotonic() - start > LINGER * 0.99


def test_closing_goes_on_when_all_has_arrived(peer: Peer) -> None:
    sock = socket.create_connection((peer.v6, peer.port("echo", int(socket.AF_INET6))), 20)
    linger(sock, 3600)
    sock.sendall(b"all")
    sock.close()


def test_closing_tells_that_the_peer_has_thrown_away_what_was_sent(peer: Peer) -> None:
    port = peer.port("throw_away")
    sock = socket.create_connection((peer.v6, port), 20)
    fill(sock)
    linger(sock, 3600)
    # The second session makes the peer close the first one.
    with socket.create_connection((peer.v6, port), 20):
        with pytest.raises(ConnectionResetError):
            sock.close()
    assert sock.fileno() == -1


def test_a_listener_with_a_time_to_linger_is_closed_at_once(peer: Peer) -> None:
    server = socket.create_server(("::", 0), family=socket.AF_INET6)
    own = server.getsockname()[1]
    linger(server, 3600)
    server.close()
    # The port is free again.
    socket.create_server(("::", own), family=socket.AF_INET6).close()


def test_what_a_signal_handler_raises_ends_lingering(peer: Peer) -> None:
    class Stop(Exception):
        pass

    def stop(number: int, frame: object) -> None:
        raise Stop

    sock = socket.create_connection((peer.v6, peer.port("deaf")), 20)
    fill(sock)
    linger(sock, 3600)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(Stop):
            signal.setitimer(signal.ITIMER_REAL, 1)
            sock.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert sock.fileno() == -1
