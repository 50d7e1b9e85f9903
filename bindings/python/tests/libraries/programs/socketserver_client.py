"""Talks with the servers of socketserver: many connections at once, or datagrams."""

from __future__ import annotations

import socket
import sys
from concurrent.futures import ThreadPoolExecutor

from common import SIZES, data


def stream(address: tuple[str, int], seed: int) -> None:
    expected = data(seed, SIZES[seed % len(SIZES)])
    with socket.create_connection(address, timeout=60) as connection, connection.makefile("rwb") as file:
        file.write(b"%d\n" % len(expected) + expected)
        file.flush()
        assert file.read() == expected


def datagrams(address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        for size in (0, 1, 100, 1200, 8000):
            sent = data(size, size)
            # A lost datagram is sent again.
            for _ in range(60):
                sock.sendto(sent, address)
                try:
                    received, sender = sock.recvfrom(65_536)
                except TimeoutError:
                    continue
                if received == sent[::-1]:
                    break
            else:
                raise AssertionError(f"no answer to {size} bytes")
            assert sender[:2] == address


if __name__ == "__main__":
    address = sys.argv[2], int(sys.argv[3])
    if sys.argv[1] == "datagrams":
        datagrams(address)
    else:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda seed: stream(address, seed), range(24)))
    print("ok")
