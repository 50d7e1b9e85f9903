"""Functions that the programs share. None of them knows of the overlay: they are started by ``python -m peersock
run``."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable

SIZES = (1, 1000, 65_536, 3_000_000)


def data(seed: int, size: int) -> bytes:
    """Bytes in which no two places look alike, the same in both processes."""
    return random.Random(seed).randbytes(size)


def ready(sock: socket.socket) -> None:
    """Tells the test where this server listens."""
    print(json.dumps({"port": sock.getsockname()[1]}), flush=True)


def listener() -> socket.socket:
    """A socket that listens on every address of the network."""
    return socket.create_server(("::", 0), family=socket.AF_INET6)


def check_http(get: Callable[[str], bytes], post: Callable[[str, bytes], bytes]) -> None:
    """Fetches and sends data of several sizes, and compares it."""
    for round in range(3):
        for size in SIZES:
            seed = round * 100 + len(str(size))
            expected = data(seed, size)
            assert get(f"/data/{seed}/{size}") == expected, f"GET of {size} bytes"
            assert post("/echo", expected) == expected, f"POST of {size} bytes"


def answer(method: str, path: str, body: bytes) -> bytes | None:
    """Returns the answer of every HTTP server of these tests; None if there is no such page."""
    parts = path.split("/")
    if method == "GET" and parts[1] == "data":
        return data(int(parts[2]), int(parts[3]))
    if method == "POST" and parts[1] == "echo":
        return body
    return None
