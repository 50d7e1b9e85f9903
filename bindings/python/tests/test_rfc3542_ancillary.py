"""Ancillary data of datagrams: layouts, conversion, and the kernel as the other side."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersock import rfc3542
from peersock.rfc3542 import (
    CMSG_LEN,
    CMSG_SPACE,
    IPPROTO_IPV6,
    IPV6_NEXTHOP,
    IPV6_PATHMTU,
    cmsg,
    decode,
    dstopts,
    find,
    hoplimit,
    hopopts,
    in6_pktinfo,
    ip6_mtuinfo,
    nexthop,
    rthdr,
    rthdrdstopts,
    sockaddr_in6,
    tclass,
)
from tests import rfc3542_package  # noqa: F401

packed = st.binary(min_size=16, max_size=16).map(IPv6Address)
sockaddrs = st.builds(
    sockaddr_in6, packed, st.integers(0, 0xFFFF), st.integers(0, 0x0FFF_FFFF), st.integers(0, 0xFFFF_FFFF)
)
options = st.lists(st.tuples(st.integers(2, 255), st.binary(min_size=1, max_size=20), st.just(1)), max_size=4)
objects = st.one_of(
    st.builds(in6_pktinfo, packed, st.integers(0, 0x7FFF_FFFF)),
    st.builds(hoplimit, st.integers(-1, 255)),
    st.builds(tclass, st.integers(-1, 255)),
    st.builds(nexthop, sockaddrs),
    st.builds(ip6_mtuinfo, st.none() | sockaddrs, st.integers(0, 0xFFFF_FFFF)),
    options.map(hopopts.of),
    options.map(dstopts.of),
    options.map(rthdrdstopts.of),
    st.lists(packed, max_size=8).map(rthdr.of),
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sender and a receiver of the kernel's loopback, connected by addresses only."""
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("::1", 0))
        receiver.settimeout(20)
        yield sender, receiver


@given(st.lists(objects))
def test_what_becomes_a_message_becomes_the_same_object(sent: list[rfc3542.Ancillary]) -> None:
    messages = [item.cmsg() for item in sent]
    received = [(message[0], message[1], message[2]) for message in messages]
    assert decode(received) == sent
    for item, message in zip(sent, messages, strict=True):
        assert type(item).from_bytes(memoryview(bytes(item))) == item
        assert hash(item) == hash(type(item).from_bytes(bytes(item)))
        assert (message.cmsg_len, message.space) == (CMSG_LEN(len(bytes(item))), CMSG_SPACE(len(bytes(item))))


@given(objects, st.integers(1, 40))
def test_what_was_cut_stays_a_message(item: rfc3542.Ancillary, less: int) -> None:
    whole = item.cmsg()
    cut = cmsg(whole.cmsg_level, whole.cmsg_type, whole.cmsg_data[:-less])
    assert decode([cut]) == [cut]
    with pytest.raises(ValueError):
        cut.decode()


@given(st.binary(max_size=40), st.sampled_from([50, 52, 54, 55, 57, 59, 61, 67, 9, 1]))
def test_any_bytes_are_an_object_or_stay_a_message(data: bytes, kind: int) -> None:
    (item,) = decode([(IPPROTO_IPV6, kind, data)])
    if isinstance(item, cmsg):
        assert item == (IPPROTO_IPV6, kind, data)
    else:
        # Reserved bits are lost.
        assert bytes(item) == data or kind in (IPV6_NEXTHOP, IPV6_PATHMTU)


def test_unknown_messages_stay_as_they_are() -> None:
    known = hoplimit(3).cmsg()
    other = (socket.SOL_SOCKET, 2, b"abc")
    assert decode([other, known]) == [other, hoplimit(3)]
    assert find([other, known], hoplimit) == hoplimit(3)
    assert find([other], hoplimit) is None


def test_values_out_of_range_are_refused() -> None:
    for kind in (hoplimit, tclass):
        for value in (-2, 256):
            with pytest.raises(ValueError):
                kind(value)
    with pytest.raises(ValueError):
        sockaddr_in6("::1", 65536)
    with pytest.raises(ValueError):
        in6_pktinfo("::1", -1)
    with pytest.raises(ValueError):
        sockaddr_in6.from_bytes(bytes(28))


def test_a_zone_is_no_part_of_an_address() -> None:
    assert in6_pktinfo("fe80::1%lo").ipi6_addr == IPv6Address("fe80::1")
    assert sockaddr_in6("fe80::1", 7, 1, 2).to_tuple() == ("fe80::1", 7, 1, 2)


def test_the_kernel_delivers_what_was_sent_beside(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    for option in (rfc3542.IPV6_RECVPKTINFO, rfc3542.IPV6_RECVHOPLIMIT, rfc3542.IPV6_RECVTCLASS):
        receiver.setsockopt(IPPROTO_IPV6, option, 1)
    sent = [hoplimit(7), tclass(0x28)]
    sender.sendmsg([b"data"], [item.cmsg() for item in sent], 0, receiver.getsockname())
    data, ancillary, flags, _ = receiver.recvmsg(64, CMSG_SPACE(20) + 2 * CMSG_SPACE(4))
    assert (data, flags & socket.MSG_CTRUNC) == (b"data", 0)
    loopback = socket.if_nametoindex("lo")
    assert set(decode(ancillary)) == {*sent, in6_pktinfo("::1", loopback)}
    assert int(find(ancillary, hoplimit) or -1) == 7


def test_the_kernel_takes_the_source_from_it(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    source = in6_pktinfo("::1", socket.if_nametoindex("lo"))
    sender.sendmsg([b"data"], [source.cmsg()], 0, receiver.getsockname())
    assert receiver.recvfrom(64)[1][0] == "::1"
    with pytest.raises(OSError):
        sender.sendmsg([b"data"], [in6_pktinfo("2001:db8::1").cmsg()], 0, receiver.getsockname())


def test_destination_options_pass_through_the_kernel(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    receiver.setsockopt(IPPROTO_IPV6, rfc3542.IPV6_RECVDSTOPTS, 1)
    # The highest bits are 0: who does not know them skips them.
    header = dstopts.of([(0x1E, b"experiment", 2), (0x1E, b"eight by", 8)])
    try:
        sender.sendmsg([b"data"], [header.cmsg()], 0, receiver.getsockname())
    except PermissionError:
        pytest.skip("destination options need CAP_NET_RAW here")
    data, ancillary, _, _ = receiver.recvmsg(64, CMSG_SPACE(len(bytes(header))))
    received = find(ancillary, dstopts)
    assert data == b"data"
    assert received is not None and received.options == header.options
    # RFC 8200 4: the kernel has filled in the protocol of what follows.
    assert bytes(received) == bytes([socket.IPPROTO_UDP]) + bytes(header)[1:]


def test_the_kernel_tells_the_mtu_of_a_path(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    with pytest.raises(OSError):
        ip6_mtuinfo.of(sender)
    sender.connect(receiver.getsockname())
    assert ip6_mtuinfo.of(sender).ip6m_mtu >= 1280


@given(sockaddrs)
def test_addresses_are_those_of_the_c_library(addr: sockaddr_in6) -> None:
    data = bytes(addr)
    assert socket.inet_ntop(socket.AF_INET6, data[8:24]) == addr.to_tuple()[0] or addr.sin6_addr.ipv4_mapped
    assert int.from_bytes(data[2:4], "big") == addr.sin6_port
    assert sockaddr_in6.from_bytes(data) == addr
