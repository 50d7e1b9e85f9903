"""A peer that is started again, or whose process is killed, while connections to it are idle."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

import peersock
from peersock import socket

from .background import background
from .conftest import Network, Peer

#: Longest time from reaching the new instance to the end of a wait, seconds.
AGAIN = 1.0
#: And so long after the process was killed, on a machine that answers.
KILLED = 2.0
#: Nothing is under way any more then.
IDLE = 4.0


@pytest.fixture
def victim(network: Network, session: peersock.Session) -> Iterator[tuple[Peer, bytes]]:
    """A member of its own, and its seed."""
    seed = network.spare()
    peer = Peer(network, seed)
    yield peer, seed
    peer.kill()


def connected(peer: Peer) -> socket.socket:
    """A connection on which nothing is under way but what nobody sends."""
    sock = socket.create_connection((peer.v6, peer.port("greeting")), timeout=60)
    assert sock.recv(1) == b"x"
    return sock


def is_reset(sock: socket.socket) -> float:
    """Waits for a reset, and says when it came."""
    with sock, pytest.raises(ConnectionResetError):
        sock.recv(1)
    return time.monotonic()


def is_reset_in_asyncio(sock: socket.socket) -> float:
    """The same, of a stream of asyncio."""

    async def wait() -> float:
        sock.setblocking(False)
        with peersock.patched():
            reader, writer = await asyncio.open_connection(sock=sock)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        when = time.monotonic()
        writer.close()
        return when

    return asyncio.run(wait())


@pytest.mark.parametrize("wait", [is_reset, is_reset_in_asyncio])
def test_who_waits_for_a_peer_that_is_started_again_hears_of_it(
    victim: tuple[Peer, bytes], network: Network, session: peersock.Session, wait: object
) -> None:
    assert callable(wait)
    peer, seed = victim
    sock = connected(peer)
    waiting = background(lambda: wait(sock))
    # Nothing but the new instance says that this one is gone.
    peer.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, peer.process.pid, os.WSTOPPED)
    again = Peer(network, seed)
    try:
        assert again.start("meet", session.address) == "met"
        met = time.monotonic()
        took = waiting.result(60) - met
        assert took < AGAIN, took
    finally:
        again.kill()


@pytest.mark.parametrize("wait", [is_reset, is_reset_in_asyncio])
def test_who_waits_for_a_process_that_is_killed_hears_of_it(victim: tuple[Peer, bytes], wait: object) -> None:
    assert callable(wait)
    peer, _ = victim
    sock = connected(peer)
    waiting = background(lambda: wait(sock))
    time.sleep(IDLE)
    assert not waiting.done()
    peer.process.kill()
    peer.process.wait(10)
    killed = time.monotonic()
    took = waiting.result(60) - killed
    assert took < KILLED, took
