"""One identity at two places is said by both nodes that have it, and by their peer."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack

import peersock

from .conftest import Network

#: A node that sends to the peer, so that it takes the session from the other one. It prints its ID at a conflict.
TWIN = """
import sys, time
import peersock
from peersock import socket

seed, to = bytes.fromhex(sys.argv[2]), (sys.argv[3], 9)
with peersock.Session(sys.argv[1], identity=seed, interfaces="loopback", linger=0) as session:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    said = False
    while True:
        try:
            sock.sendto(b"x", to)
        except OSError:
            pass
        if not said and session.status()["conflict"]:
            said = True
            print(session.id, flush=True)
        time.sleep(0.05)
"""


def test_one_identity_at_two_places_is_said_by_both_and_by_their_peer(
    session: peersock.Session, network: Network
) -> None:
    seed = network.spare()
    command = [sys.executable, "-c", TWIN, str(network.path), seed.hex(), session.address]
    with ExitStack() as stack:
        twins = [stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) for _ in range(2)]
        for twin in twins:
            stack.callback(twin.kill)
        for twin in twins:
            assert twin.stdout is not None
            twin_id = twin.stdout.readline().strip()
        end = time.monotonic() + 60
        while not _of_peers(session, twin_id):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert session.status()["conflict"] is None


def _of_peers(session: peersock.Session, node: str) -> bool:
    """Returns true if the node reports it of this peer and of no other."""
    found = [peer for peer in session.status()["peers"] if peer["conflict"]]
    assert all(peer["id"] == node for peer in found)
    return bool(found)
