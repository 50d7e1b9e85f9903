"""A program in a new network namespace: ``python -m tests.narrow FOLDER HOW``.

It prints the errors of sockets whose path begins to lose all but the shortest packets, a line each. The sender's line
has the error's number and the seconds that it took, the other line has the error of the connection's other end.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import peersock
from peersock import socket

from .conftest import Network, Peer

#: Acknowledgements and keep-alives still pass.
RULES = "table inet small { chain arriving { type filter hook input priority 0; meta length > 150 drop; }; }"


def _say_error(call: Callable[[], object], began: float) -> None:
    try:
        call()
    except OSError as error:
        print(error.errno, time.monotonic() - began, flush=True)
    else:
        print("no error", flush=True)


def _main(folder: Path, how: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if how == "one by one":
        # Otherwise several datagrams cross it as one packet, which is longer than any of them.
        subprocess.run(["ip", "link", "set", "lo", "gso_max_segs", "1"], check=True)
    network = Network(folder)
    seed = network.seeds["here"]
    with peersock.Session(network.path, identity=seed, interfaces="loopback", linger=0) as session:
        peer = Peer(network)
        assert session.wait_peer(peer.v6, 60)
        port = peer.port("failing")
        with socket.create_connection((peer.v6, port), timeout=60) as sock:
            subprocess.run(["nft", RULES], check=True)
            began = time.monotonic()
            sock.sendall(bytes(5000))
            _say_error(lambda: sock.recv(1), began)
            print(peer.answer(), flush=True)
        peer.kill()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
