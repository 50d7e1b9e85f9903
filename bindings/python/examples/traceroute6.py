"""The way to an address: probes with hop limits 1, 2, 3..., and the ICMPv6 messages that they cause.

Members of an overlay network are one hop apart, wherever they are: what the packets pass on the way is outside.
"""

from __future__ import annotations

import argparse
import os
import struct
import time
from collections.abc import Iterator

import peersock
from peersock.rfc3542 import (
    ICMP6_DST_UNREACH,
    ICMP6_ECHO_REPLY,
    ICMP6_ECHO_REQUEST,
    ICMP6_TIME_EXCEEDED,
    IPPROTO_ICMPV6,
    hoplimit,
    icmp6_filter,
)

HEADER = struct.Struct("!BBHHH")
PROBES, MOST_HOPS, TIMEOUT = 3, 30, 2.0
# Errors quote the packet that has caused them, from its IPv6 header on (RFC 4443 3).
QUOTED = 8 + 40


def trace(sock: peersock.socket.socket, address: str) -> Iterator[list[tuple[str, float] | None]]:
    """Yields each probe's answer and its round-trip time, hop by hop."""
    icmp6_filter.passing(ICMP6_ECHO_REPLY, ICMP6_TIME_EXCEEDED, ICMP6_DST_UNREACH).set_on(sock)
    identifier, sequence = os.getpid() & 0xFFFF, 0
    for hops in range(1, MOST_HOPS + 1):
        answers: list[tuple[str, float] | None] = []
        ended = False
        for _ in range(PROBES):
            sequence += 1
            probe = HEADER.pack(ICMP6_ECHO_REQUEST, 0, 0, identifier, sequence) + bytes(16)
            start = time.monotonic()
            sock.sendmsg([probe], [hoplimit(hops).cmsg()], 0, (address, 0))
            answer = receive(sock, probe, start)
            answers.append(answer and (answer[0], time.monotonic() - start))
            ended = ended or (answer is not None and answer[1] != ICMP6_TIME_EXCEEDED)
        yield answers
        if ended:
            return


def receive(sock: peersock.socket.socket, probe: bytes, start: float) -> tuple[str, int] | None:
    """Returns the node that answers a probe, and the type of its message."""
    while (left := start + TIMEOUT - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            message, sender = sock.recvfrom(2048)
        except TimeoutError:
            return None
        about = message[4:] if message[0] == ICMP6_ECHO_REPLY else message[QUOTED + 4 :]
        if about[:4] == probe[4:8]:
            return sender[0], message[0]
    return None


def main(network: str, address: str) -> None:
    with (
        peersock.Session(network),
        peersock.socket.socket(peersock.socket.AF_INET6, peersock.socket.SOCK_RAW, IPPROTO_ICMPV6) as sock,
    ):
        for hop, answers in enumerate(trace(sock, address), 1):
            texts = ["*" if answer is None else f"{answer[0]} {answer[1] * 1000:.3f} ms" for answer in answers]
            print(f"{hop:2}  {'  '.join(texts)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", help="the network's ID or file")
    parser.add_argument("address", help="the IPv6 address")
    options = parser.parse_args()
    main(options.network, options.address)
