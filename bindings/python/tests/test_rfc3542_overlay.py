"""Ancillary data and the options of RFC 3542 on sockets of the overlay, of every kind that carries them."""

from __future__ import annotations

import errno
import ipaddress

import pytest

import peersock
from peersock import rfc3542, socket
from peersock.rfc3542 import (
    CMSG_SPACE,
    IPPROTO_ICMPV6,
    IPPROTO_IPV6,
    IPV6_DONTFRAG,
    IPV6_USE_MIN_MTU,
    cmsg,
    decode,
    dstopts,
    find,
    hoplimit,
    hopopts,
    icmp6_filter,
    in6_pktinfo,
    ip6_mtuinfo,
    nexthop,
    rthdr,
    tclass,
)
from tests.conftest import Peer

from .conftest import fails

# RFC 3692: for experiments.
EXPERIMENT = 253
RECEIVE = (rfc3542.IPV6_RECVPKTINFO, rfc3542.IPV6_RECVHOPLIMIT, rfc3542.IPV6_RECVTCLASS)
MESSAGE = bytes([rfc3542.ICMP6_ECHO_REPLY, 0, 0, 0, 0, 1, 0, 1]) + b"data"
UDP = (socket.SOCK_DGRAM, 0)
RAW = (socket.SOCK_RAW, EXPERIMENT)
RAW_ICMP = (socket.SOCK_RAW, IPPROTO_ICMPV6)


def pair(session: peersock.Session, kind: tuple[int, int]) -> tuple[socket.socket, socket.socket]:
    """A sender, and a receiver that wants to know everything."""
    sender, receiver = (socket.socket(socket.AF_INET6, *kind) for _ in range(2))
    receiver.bind((session.address, 0))
    receiver.settimeout(20)
    for option in RECEIVE:
        receiver.setsockopt(IPPROTO_IPV6, option, 1)
    return sender, receiver


@pytest.mark.parametrize("kind", [UDP, RAW, RAW_ICMP])
def test_datagrams_arrive_with_what_was_sent_beside(session: peersock.Session, kind: tuple[int, int]) -> None:
    sender, receiver = pair(session, kind)
    with sender, receiver:
        sent = [hoplimit(7), tclass(0x28), in6_pktinfo(session.address)]
        to = (session.address, receiver.getsockname()[1])
        sender.sendmsg([MESSAGE], [item.cmsg() for item in sent], 0, to)
        data, ancillary, flags, address = receiver.recvmsg(64, CMSG_SPACE(20) + 2 * CMSG_SPACE(4))
        # The checksum of ICMPv6 is filled in.
        assert (data[:2], data[4:], flags) == (MESSAGE[:2], MESSAGE[4:], 0)
        assert address[0] == session.address
        network = find(ancillary, in6_pktinfo)
        assert network is not None and str(network.ipi6_addr) == session.address
        assert network.ipi6_ifindex > 0
        assert set(decode(ancillary)) == {hoplimit(7), tclass(0x28), network}


def test_echo_sockets_tell_what_came_beside_replies(session: peersock.Session) -> None:
    with session.socket(type=socket.SOCK_DGRAM, proto=IPPROTO_ICMPV6) as sock:
        sock.settimeout(20)
        sock.connect((session.address, 0))
        for option in RECEIVE:
            sock.setsockopt(IPPROTO_IPV6, option, 1)
        sock.send(bytes([rfc3542.ICMP6_ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 5]) + b"data")
        data, ancillary, _, _ = sock.recvmsg(64, CMSG_SPACE(20) + 2 * CMSG_SPACE(4))
        assert (data[0], data[6:]) == (rfc3542.ICMP6_ECHO_REPLY, b"\0\5data")
        assert find(ancillary, hoplimit) == hoplimit(64)
        assert find(ancillary, tclass) == tclass(0)


def want_headers(sock: socket.socket) -> None:
    for option in (rfc3542.IPV6_RECVHOPOPTS, rfc3542.IPV6_RECVDSTOPTS, rfc3542.IPV6_RECVRTHDR):
        sock.setsockopt(IPPROTO_IPV6, option, 1)


def is_privileged() -> bool:
    """Returns true if this process has CAP_NET_RAW, which Linux wants for options headers."""
    with open("/proc/self/status") as status:
        effective = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> 13 & 1)


def behind(item: rfc3542.Ancillary) -> bytes:
    """A header without the byte that names what follows, which is filled in."""
    return bytes(item)[1:]


@pytest.mark.parametrize("kind", [UDP, RAW, RAW_ICMP])
def test_headers_arrive_beside_the_datagram(session: peersock.Session, kind: tuple[int, int]) -> None:
    sender, receiver = pair(session, kind)
    # RFC 8200 4.2: the highest bits of the type are 0, so who does not know it skips it.
    hop_by_hop = hopopts.of([(0x1E, b"all", 1)])
    destination = dstopts.of([(0x1E, b"experiment", 2), (0x1E, b"eight by", 8)])
    with sender, receiver:
        to = (session.address, receiver.getsockname()[1])
        want_headers(receiver)
        sent = [hoplimit(7).cmsg(), destination.cmsg(), hop_by_hop.cmsg()]
        if not is_privileged():
            with pytest.raises(PermissionError):
                sender.sendmsg([MESSAGE], sent, 0, to)
            return
        sender.sendmsg([MESSAGE], sent, 0, to)
        data, ancillary, flags, _ = receiver.recvmsg(64, 1000)
        assert (data[:2], data[4:], flags) == (MESSAGE[:2], MESSAGE[4:], 0)
        assert find(ancillary, hoplimit) == hoplimit(7)
        first, second = find(ancillary, hopopts), find(ancillary, dstopts)
        assert first is not None and second is not None
        assert (first.options, second.options) == (hop_by_hop.options, destination.options)
        assert (behind(first), behind(second)) == (behind(hop_by_hop), behind(destination))
        assert bytes(first)[0] == rfc3542.IPPROTO_DSTOPTS
        # Ancillary data without room is cut, and the flags say so.
        sender.sendmsg([MESSAGE], [destination.cmsg()], 0, to)
        room = CMSG_SPACE(20) + 2 * CMSG_SPACE(4) + CMSG_SPACE(8)
        _, ancillary, flags, _ = receiver.recvmsg(64, room)
        assert flags & socket.MSG_CTRUNC
        assert ancillary[-1][1:] == (
            rfc3542.IPV6_DSTOPTS,
            bytes([kind[1] or socket.IPPROTO_UDP]) + behind(destination)[:7],
        )
        # Each has its own.
        sender.sendto(MESSAGE, to)
        assert find(receiver.recvmsg(64, 1000)[1], dstopts) is None


@pytest.mark.parametrize("kind", [UDP, RAW, RAW_ICMP])
def test_headers_of_options_go_with_all_datagrams(session: peersock.Session, kind: tuple[int, int]) -> None:
    sender, receiver = pair(session, kind)
    # A segment route (RFC 8754) that has come to its end here.
    address = ipaddress.IPv6Address(session.address).packed
    route = rthdr(bytes([0, 2, 4, 0, 0, 0, 0, 0]) + address)
    with sender, receiver:
        to = (session.address, receiver.getsockname()[1])
        want_headers(receiver)
        # Before the socket is the overlay's, and after.
        sender.setsockopt(IPPROTO_IPV6, rfc3542.IPV6_RTHDR, bytes(route))
        for _ in range(2):
            sender.sendto(MESSAGE, to)
            got = find(receiver.recvmsg(64, 1000)[1], rthdr)
            assert got is not None and behind(got) == behind(route)
            assert (got.type, got.segments_left) == (4, 0)
            assert sender.getsockopt(IPPROTO_IPV6, rfc3542.IPV6_RTHDR, 100) == bytes(route)
        sender.setsockopt(IPPROTO_IPV6, rfc3542.IPV6_RTHDR, b"")
        assert sender.getsockopt(IPPROTO_IPV6, rfc3542.IPV6_RTHDR, 100) == b""
        sender.sendto(MESSAGE, to)
        assert find(receiver.recvmsg(64, 1000)[1], rthdr) is None
        header = dstopts.of([(0x1E, b"all", 1)])
        if not is_privileged():
            with pytest.raises(PermissionError):
                sender.setsockopt(IPPROTO_IPV6, rfc3542.IPV6_DSTOPTS, bytes(header))
            return
        sender.setsockopt(IPPROTO_IPV6, rfc3542.IPV6_DSTOPTS, bytes(header))
        sender.sendto(MESSAGE, to)
        told = find(receiver.recvmsg(64, 1000)[1], dstopts)
        assert told is not None and behind(told) == behind(header)


@pytest.mark.parametrize("kind", [UDP, RAW, RAW_ICMP])
@pytest.mark.parametrize(
    ("item", "option_error"),
    [
        (nexthop("fd00::1"), errno.ENOPROTOOPT),
        # RFC 5095 has abolished type 0.
        (rthdr.of(["fd00::1"]), errno.EINVAL),
    ],
    ids=lambda item: type(item).__name__,
)
def test_what_the_overlay_does_not_carry_is_refused(
    session: peersock.Session, kind: tuple[int, int], item: rfc3542.Ancillary, option_error: int
) -> None:
    sender, receiver = pair(session, kind)
    with sender, receiver:
        to = (session.address, receiver.getsockname()[1])
        with fails(errno.EINVAL, OSError):
            sender.sendmsg([MESSAGE], [item.cmsg()], 0, to)
        with pytest.raises(OSError) as refused:
            receiver.setsockopt(IPPROTO_IPV6, item.cmsg_type, bytes(item))
        assert refused.value.errno == option_error


def test_values_out_of_range_are_refused(session: peersock.Session) -> None:
    sender, receiver = pair(session, UDP)
    with sender, receiver:
        for kind in (hoplimit, tclass):
            wrong = cmsg(IPPROTO_IPV6, kind.cmsg_type, (256).to_bytes(4, "little"))
            with fails(errno.EINVAL, OSError):
                sender.sendmsg([MESSAGE], [wrong], 0, receiver.getsockname())


def test_a_foreign_source_is_refused(session: peersock.Session) -> None:
    sender, receiver = pair(session, UDP)
    with sender, receiver, pytest.raises(OSError) as refused:
        sender.sendmsg([MESSAGE], [in6_pktinfo("fd00::1").cmsg()], 0, receiver.getsockname())
    assert refused.value.errno in (errno.EINVAL, errno.EADDRNOTAVAIL)


def test_the_filter_keeps_types_away(session: peersock.Session) -> None:
    sender, receiver = pair(session, RAW_ICMP)
    with sender, receiver:
        filter = icmp6_filter.passing(rfc3542.ICMP6_ECHO_REPLY)
        filter.set_on(receiver)
        assert icmp6_filter.of(receiver) == filter
        for type in (rfc3542.ICMP6_ECHO_REQUEST, 200, rfc3542.ICMP6_ECHO_REPLY):
            sender.sendto(bytes([type]) + MESSAGE[1:], (session.address, 0))
        assert receiver.recv(64)[0] == rfc3542.ICMP6_ECHO_REPLY


def test_a_filter_is_kept_when_a_socket_becomes_the_overlays(session: peersock.Session) -> None:
    with socket.socket(socket.AF_INET6, *RAW_ICMP) as sock:
        filter = icmp6_filter.passing(rfc3542.ICMP6_ECHO_REPLY)
        filter.set_on(sock)
        sock.connect((session.address, 0))
        assert icmp6_filter.of(sock) == filter


@pytest.mark.parametrize("kind", [UDP, RAW, RAW_ICMP])
def test_connected_sockets_know_the_mtu(session: peersock.Session, kind: tuple[int, int]) -> None:
    sender, receiver = pair(session, kind)
    with sender, receiver:
        sender.connect((session.address, receiver.getsockname()[1] or 1))
        assert ip6_mtuinfo.of(sender).ip6m_mtu >= 1280


def test_a_datagram_that_is_too_long_brings_the_mtu(session: peersock.Session, peer: Peer) -> None:
    with session.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.connect((peer.v6, 7000))
        sock.setsockopt(IPPROTO_IPV6, rfc3542.IPV6_DONTFRAG, 1)
        sock.setsockopt(IPPROTO_IPV6, rfc3542.IPV6_RECVPATHMTU, 1)
        # Longer than any path takes: the node goes on to find longer packets that pass.
        with fails(errno.EMSGSIZE, OSError):
            sock.send(bytes(65_507))
        data, ancillary, _, _ = sock.recvmsg(64, CMSG_SPACE(ip6_mtuinfo.SIZE))
        told = find(ancillary, ip6_mtuinfo)
        assert data == b"" and told is not None
        assert 1280 <= told.ip6m_mtu <= ip6_mtuinfo.of(sock).ip6m_mtu
        assert told.ip6m_addr is not None and str(told.ip6m_addr.sin6_addr) == peer.v6


def test_datagrams_leave_in_fragments_of_the_least_mtu(session: peersock.Session, peer: Peer) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind((session.address, 0))
        sock.settimeout(20)
        for wrong in (-2, 2):
            with fails(errno.EINVAL, OSError):
                sock.setsockopt(IPPROTO_IPV6, IPV6_USE_MIN_MTU, wrong)
        assert sock.getsockopt(IPPROTO_IPV6, IPV6_USE_MIN_MTU) == -1
        address = (peer.v6, peer.port("datagrams", int(socket.AF_INET6), 3))
        sent = []
        for value in (0, 1, -1):
            sock.setsockopt(IPPROTO_IPV6, IPV6_USE_MIN_MTU, value)
            assert sock.getsockopt(IPPROTO_IPV6, IPV6_USE_MIN_MTU) == value
            before = session.status()["counters"]["ip_fragments_sent"]
            sock.sendto(bytes(5000), address)
            assert len(sock.recvfrom(6000)[0]) == 5000
            sent.append(session.status()["counters"]["ip_fragments_sent"] - before)
        # The loopback's path takes it whole, once that is known.
        assert sent[1] == 5
        assert sent[0] == sent[2]
        sock.setsockopt(IPPROTO_IPV6, IPV6_USE_MIN_MTU, 1)
        sock.setsockopt(IPPROTO_IPV6, IPV6_DONTFRAG, 1)
        with fails(errno.EMSGSIZE, OSError):
            sock.sendto(bytes(1300), address)
