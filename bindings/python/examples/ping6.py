"""Pings a member: ICMPv6 on a raw socket, with what RFC 3542 has for it. Members need no privileges for that."""

from __future__ import annotations

import argparse
import os
import struct
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import peersock
from peersock.rfc3542 import (
    CMSG_SPACE,
    ICMP6_ECHO_REPLY,
    ICMP6_ECHO_REQUEST,
    IPPROTO_ICMPV6,
    IPPROTO_IPV6,
    IPV6_RECVHOPLIMIT,
    IPV6_RECVPKTINFO,
    find,
    hoplimit,
    icmp6_filter,
    in6_pktinfo,
)

HEADER = struct.Struct("!BBHHH")
TIMEOUT = 2.0


class Reply(NamedTuple):
    size: int
    sender: str
    sequence: int
    hops: hoplimit | None
    arrived_at: in6_pktinfo | None
    seconds: float


def ping(sock: peersock.socket.socket, address: str, count: int) -> Iterator[Reply | None]:
    """Returns the replies to `count` requests; None for each one that is missing."""
    icmp6_filter.passing(ICMP6_ECHO_REPLY).set_on(sock)
    sock.setsockopt(IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1)
    sock.setsockopt(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    identifier = os.getpid() & 0xFFFF
    for sequence in range(1, count + 1):
        # The checksum is filled in by whoever sends it (RFC 3542 3.1).
        request = HEADER.pack(ICMP6_ECHO_REQUEST, 0, 0, identifier, sequence) + os.urandom(56)
        start = time.monotonic()
        sock.sendto(request, (address, 0))
        yield receive(sock, request, start)


def receive(sock: peersock.socket.socket, request: bytes, start: float) -> Reply | None:
    while (left := start + TIMEOUT - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            message, ancillary, _, sender = sock.recvmsg(2048, CMSG_SPACE(20) + CMSG_SPACE(4))
        except TimeoutError:
            return None
        # Raw sockets receive everybody's.
        if message[4:] == request[4:]:
            sequence = HEADER.unpack_from(message)[4]
            hops, arrived_at = find(ancillary, hoplimit), find(ancillary, in6_pktinfo)
            return Reply(len(message), sender[0], sequence, hops, arrived_at, time.monotonic() - start)
    return None


def main(network: str, address: str, count: int) -> int:
    received = 0
    with (
        peersock.Session(network),
        peersock.socket.socket(peersock.socket.AF_INET6, peersock.socket.SOCK_RAW, IPPROTO_ICMPV6) as sock,
    ):
        for reply in ping(sock, address, count):
            if reply is None:
                print("no answer", flush=True)
                continue
            received += 1
            print(
                f"{reply.size} bytes from {reply.sender}: icmp_seq={reply.sequence}"
                f" hlim={int(reply.hops or -1)} time={reply.seconds * 1000:.3f} ms"
                + (f" to={reply.arrived_at.ipi6_addr}" if reply.arrived_at else ""),
                flush=True,
            )
    print(f"{count} sent, {received} received")
    return 0 if received else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", help="the network's ID or file")
    parser.add_argument("address", help="the member's IPv6 address")
    parser.add_argument("count", nargs="?", type=int, default=4, help="how many requests are sent (%(default)s)")
    options = parser.parse_args()
    sys.exit(main(options.network, options.address, options.count))
