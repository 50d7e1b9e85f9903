"""What PyXAPI's documentation shows, with its names, on the kernel's sockets and on the overlay's."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

import peersock
from peersock.pyxapi import rfc3542 as rfc
from peersock.pyxapi import socket_ext as ext


@pytest.fixture(params=["kernel", "overlay"])
def host(request: pytest.FixtureRequest) -> Iterator[str]:
    """An own address."""
    if request.param == "kernel":
        yield "::1"
    else:
        session: peersock.Session = request.getfixturevalue("session")
        yield session.address


@pytest.fixture
def pair(host: str) -> Iterator[tuple[ext.socket, ext.socket, tuple[str, int]]]:
    """A sender, a receiver and its address."""
    with ext.socket(ext.AF_INET6, ext.SOCK_DGRAM) as sender, ext.socket(ext.AF_INET6, ext.SOCK_DGRAM) as receiver:
        receiver.bind((host, 0))
        receiver.settimeout(20)
        yield sender, receiver, receiver.getsockname()[:2]


def message(level: int, kind: int, data: bytes) -> ext.cmsg:
    """One of them."""
    made = ext.cmsg()
    made.set(level, kind, data)
    return made


def test_streams_send_and_receive_in_pieces(host: str) -> None:
    with ext.socket(ext.AF_INET6, ext.SOCK_STREAM) as server:
        server.bind((host, 0))
        server.listen()
        client = ext.socket(ext.AF_INET6, ext.SOCK_STREAM)
        client.connect(server.getsockname()[:2])
        connection, _ = server.accept()
        assert isinstance(connection, ext.socket)
        with client, connection:
            connection.settimeout(20)
            assert client.sendmsg(("This is ", "a test")) == 14
            address, data, adata, flags = connection.recvmsg((12, 2))
            assert (data, adata) == ((b"This is a te", b"st"), ())
            assert not flags & (ext.MSG_TRUNC | ext.MSG_CTRUNC)
            del address


def test_cmsg_objects() -> None:
    ttl = struct.pack("@i", 1)
    c = message(ext.SOL_IP, ext.IP_TTL, ttl)
    length = ext.CMSG_LEN(4)
    assert c.get() == ((length, 0, 2), ttl)
    assert c.CMSG_DATA() == c.cmsg_data == ttl
    assert (c.cmsg_len, c.cmsg_level, c.cmsg_type) == (length, 0, 2)
    again = ext.cmsg()
    again.set_from_data(struct.pack("@Nii", length, 0, 2) + ttl + b"padding")
    assert again.get() == c.get()
    for wrong in (b"", struct.pack("@Nii", length, 0, 2), struct.pack("@Nii", 3, 0, 2)):
        with pytest.raises(ValueError):
            again.set_from_data(wrong)
    assert ext.CMSG_SPACE(4) >= ext.CMSG_LEN(4)


def test_ttl_as_ancillary_data(session: peersock.Session) -> None:
    for host in ("127.0.0.1", session.address4):
        with ext.socket(ext.AF_INET, ext.SOCK_DGRAM) as sender, ext.socket(ext.AF_INET, ext.SOCK_DGRAM) as receiver:
            receiver.bind((host, 0))
            receiver.settimeout(20)
            # IP_RECVTTL, which Python does not name.
            receiver.setsockopt(ext.SOL_IP, 12, 1)
            c = message(ext.SOL_IP, ext.IP_TTL, struct.pack("@i", 7))
            sender.sendmsg(receiver.getsockname(), ("This is ", "a test"), (c,))
            _, data, adata, _ = receiver.recvmsg((1024,), ext.CMSG_SPACE(struct.calcsize("@i")))
            assert data == (b"This is a test",)
            found = [a.cmsg_data for a in adata if a.cmsg_level == ext.SOL_IP and a.cmsg_type == ext.IP_TTL]
            assert found == [struct.pack("@i", 7)]


def test_hop_limit_traffic_class_and_packet_info_together(
    pair: tuple[ext.socket, ext.socket, tuple[str, int]],
) -> None:
    sender, receiver, address = pair
    for option in (rfc.IPV6_RECVHOPLIMIT, rfc.IPV6_RECVTCLASS, rfc.IPV6_RECVPKTINFO):
        receiver.setsockopt(rfc.IPPROTO_IPV6, option, 1)
    h, t, p = rfc.hoplimit(), rfc.tclass(), rfc.in6_pktinfo()
    h.set(16)
    t.set(0x08)
    p.set("::", 0)
    objects: list[tuple[int, Any]] = [(rfc.IPV6_HOPLIMIT, h), (rfc.IPV6_TCLASS, t), (rfc.IPV6_PKTINFO, p)]
    sender.sendmsg(address, ("a test",), tuple(message(rfc.IPPROTO_IPV6, kind, one.data) for kind, one in objects))
    h, t, p = rfc.hoplimit(), rfc.tclass(), rfc.in6_pktinfo()
    alen = sum(rfc.CMSG_SPACE(one.size) for one in (h, t, p))
    _, data, adata, flags = receiver.recvmsg((1024,), alen)
    assert data == (b"a test",) and not flags & ext.MSG_CTRUNC
    for a in adata:
        assert a.cmsg_level == rfc.IPPROTO_IPV6
        known: dict[int, Any] = {rfc.IPV6_HOPLIMIT: h, rfc.IPV6_TCLASS: t, rfc.IPV6_PKTINFO: p}
        known[a.cmsg_type].set_from_data(a.cmsg_data)
    assert (h.get(), t.get()) == (16, 8)
    assert p.get()[0] == address[0]
    assert p.get()[1] > 0
    for wrong in (-2, 256):
        with pytest.raises(ValueError):
            h.set(wrong)


def test_the_filter_of_icmpv6() -> None:
    f = rfc.icmp6_filter()
    f.ICMP6_FILTER_SETBLOCKALL()
    f.ICMP6_FILTER_SETPASS(rfc.ICMP6_ECHO_REPLY)
    assert f.ICMP6_FILTER_WILLPASS(129) and f.ICMP6_FILTER_WILLBLOCK(128)
    with ext.socket(ext.AF_INET6, ext.SOCK_RAW, rfc.IPPROTO_ICMPV6) as sock:
        sock.setsockopt(rfc.IPPROTO_ICMPV6, rfc.ICMP6_FILTER, f.data)
        assert sock.getsockopt(rfc.IPPROTO_ICMPV6, rfc.ICMP6_FILTER, f.size) == f.data
    f.ICMP6_FILTER_SETPASSALL()
    f.ICMP6_FILTER_SETBLOCK(1)
    assert f.ICMP6_FILTER_WILLPASS(0) and f.ICMP6_FILTER_WILLBLOCK(1)


def test_routing_headers() -> None:
    r = rfc.inet6_rth()
    r = rfc.inet6_rth_init(r, rfc.IPV6_RTHDR_TYPE_0, 2)
    rfc.inet6_rth_add(r, "3ffe::1")
    rfc.inet6_rth_add(r, "3ffe::2")
    other = rfc.inet6_rth()
    other.set(rfc.IPV6_RTHDR_TYPE_0, "3ffe::1", "3ffe::2")
    assert r.data == other.data
    assert r.get() == ((0, 4, 0, 2, 0), "3ffe::1", "3ffe::2")
    assert rfc.inet6_rth_segments(r) == 2
    assert rfc.inet6_rth_getaddr(r, 0) == "3ffe::1"
    rfc.inet6_rth_reverse(r, r)
    assert r.get() == ((0, 4, 0, 2, 0), "3ffe::2", "3ffe::1")
    received = rfc.inet6_rth()
    received.set_from_data(message(rfc.IPPROTO_IPV6, rfc.IPV6_RTHDR, other.data).cmsg_data)
    assert received.get() == other.get()
    assert len(other.data) == rfc.inet6_rth_space(rfc.IPV6_RTHDR_TYPE_0, 2)
    for wrong in (b"", b"\0\x04\x02\x02" + bytes(36)):
        with pytest.raises(ValueError):
            received.set_from_data(wrong)


def test_next_hops_and_the_path_s_mtu(host: str) -> None:
    n = rfc.nexthop()
    n.set("3ffe::1")
    again = rfc.nexthop()
    again.set_from_data(n.data)
    assert (again.get(), len(n.data)) == ("3ffe::1", n.size)
    with ext.socket(ext.AF_INET6, ext.SOCK_DGRAM) as sock:
        sock.connect((host, 20000))
        m = rfc.ip6_mtuinfo()
        m.set_from_data(sock.getsockopt(rfc.IPPROTO_IPV6, rfc.IPV6_PATHMTU, m.size))
        assert m.get()[1] >= 1280
    m.set((host, 1, 0, 0), 1400)
    assert m.get() == ((host, 1, 0, 0), 1400)


def test_interfaces_and_names() -> None:
    assert ext.if_indextoname(ext.if_nametoindex("lo")) == "lo"
    assert "lo" in [name for _, name in ext.if_nameindex()]
    for module in (ext, rfc):
        assert all(hasattr(module, name) for name in module.__all__)
    assert rfc.inet6_opt_init(None) == 2
