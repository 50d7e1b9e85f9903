"""Examples of PyXAPI's documentation, with its names, on kernel sockets and overlay sockets."""

from __future__ import annotations

import errno
import os
import select
import struct
from collections.abc import Iterator
from typing import Any

import pytest

import peersock
from peersock.pyxapi import rfc3542 as rfc
from peersock.pyxapi import socket_ext as ext

from .conftest import fails


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


def test_the_example_of_options() -> None:
    # RFC 3542 22, as PyXAPI's inet6_opt.py has it; its numbers of 4 bytes are of a machine of 32 bits.
    opt_x, opt_y = 10, 20
    currentlen = rfc.inet6_opt_init()
    currentlen = rfc.inet6_opt_append(currentlen, opt_x, 12, 8)
    currentlen = rfc.inet6_opt_append(currentlen, opt_y, 7, 4)
    currentlen = rfc.inet6_opt_finish(currentlen)
    extlen = currentlen
    opt = rfc.inet6_opt()
    opt.set(extlen)
    currentlen = rfc.inet6_opt_init(opt, extlen)
    currentlen = rfc.inet6_opt_append(opt, currentlen, opt_x, 12, 8)
    offset = 0
    offset = rfc.inet6_opt_set_val(opt, offset, struct.pack("=L", 0x12345678))
    offset = rfc.inet6_opt_set_val(opt, offset, struct.pack("Q", 0x0102030405060708))
    currentlen = rfc.inet6_opt_append(opt, currentlen, opt_y, 7, 4)
    offset = 0
    offset = rfc.inet6_opt_set_val(opt, offset, struct.pack("B", 0x01))
    offset = rfc.inet6_opt_set_val(opt, offset, struct.pack("H", 0x1331))
    offset = rfc.inet6_opt_set_val(opt, offset, struct.pack("=L", 0x01020304))
    assert offset == 7
    currentlen = rfc.inet6_opt_finish(opt, currentlen)
    assert currentlen == extlen == 32

    # Received data is read as it was written.
    received = rfc.inet6_opt()
    received.set_from_data(opt.data)
    assert received.get() == (0, 3)
    read: list[tuple[int, int, list[int]]] = []
    currentlen = 0
    with pytest.raises(rfc.error):
        while True:
            currentlen, type, length = rfc.inet6_opt_next(received, currentlen)
            offset = 0
            values: list[int] = []
            for form in ("=L", "Q") if type == opt_x else ("B", "H", "=L"):
                offset, value = rfc.inet6_opt_get_val(received, offset, struct.calcsize(form))
                values += struct.unpack(form, value)
            read.append((type, length, values))
    assert read == [
        (opt_x, 12, [0x12345678, 0x0102030405060708]),
        (opt_y, 7, [0x01, 0x1331, 0x01020304]),
    ]
    _, length = rfc.inet6_opt_find(received, 0, opt_y)
    assert (length, rfc.inet6_opt_get_val(received, 0, 1)) == (7, (1, b"\x01"))
    with pytest.raises(ValueError):
        rfc.inet6_opt_find(received, 0, 30)


def test_wrong_headers_of_options() -> None:
    opt = rfc.inet6_opt()
    with pytest.raises(ValueError):
        opt.get()
    for extlen in (-1, 0, 2, 12, 2056):
        with pytest.raises(ValueError):
            opt.set(extlen)
    for data in (b"", b"\0", b"\0\1" + bytes(6)):
        with pytest.raises(ValueError):
            opt.set_from_data(data)
    opt.set(8)
    with pytest.raises(ValueError):
        rfc.inet6_opt_init(opt, 16)
    with pytest.raises(ValueError):
        rfc.inet6_opt_set_val(opt, 0, b"1")
    with pytest.raises(ValueError):
        rfc.inet6_opt_append(opt, 2, 10, 12, 8)
    # Treatments of an option that routers do not know.
    assert [rfc.IP6OPT_TYPE(type) for type in (5, 0x45, 0x85, 0xC5)] == [0, 0x40, 0x80, 0xC0]


def make_ancillary_data(*nodes: str) -> ext.cmsg:
    r = rfc.inet6_rth()
    r = rfc.inet6_rth_init(r, rfc.IPV6_RTHDR_TYPE_0, len(nodes))
    for node in nodes:
        rfc.inet6_rth_add(r, node)
    c = ext.cmsg()
    c.set(rfc.IPPROTO_IPV6, rfc.IPV6_RTHDR, r.data)
    return c


def test_the_example_that_sends_by_way_of_others(host: str) -> None:
    # As inet6_rth_send.py and inet6_rth_recv.py: a system that heeds RFC 5095 does not send it, and says so at once.
    with ext.socket(ext.AF_INET6, ext.SOCK_DGRAM) as receiver, ext.socket(ext.AF_INET6, ext.SOCK_DGRAM) as sender:
        receiver.bind((host, 0))
        receiver.setsockopt(rfc.IPPROTO_IPV6, rfc.IPV6_RECVRTHDR, 1)
        receiver.settimeout(20)
        adata = (make_ancillary_data("3ffe::1", "3ffe::2", "3ffe::3"),)
        address = (host, receiver.getsockname()[1])
        with fails(errno.EINVAL, ext.exterror):
            sender.sendmsg(address, ("this is", " a test"), adata)
        # Without the header they pass, and go back by way of nobody.
        assert sender.sendmsg(address, ("this is", " a test"), ()) == 14
        extlen = rfc.inet6_rth_space(rfc.IPV6_RTHDR_TYPE_0, 100)
        addr, data, received, flags = receiver.recvmsg((1024,), ext.CMSG_SPACE(extlen))
        assert (data, received) == ((b"this is a test",), ()) and not flags & (ext.MSG_TRUNC | ext.MSG_CTRUNC)
        assert receiver.sendmsg(addr[:2], data, ()) == 14


def test_the_example_that_pings_once(host: str) -> None:
    # As one_ping6.py: the header and the data are pieces of one message.
    header = struct.Struct("2B3H")
    identifier, sequence = os.getpid() & 0xFFFF, 123
    request = header.pack(rfc.ICMP6_ECHO_REQUEST, 0, 0, identifier, sequence)
    with ext.socket(ext.AF_INET6, ext.SOCK_RAW, ext.IPPROTO_ICMPV6) as sock:
        f = rfc.icmp6_filter()
        f.ICMP6_FILTER_SETBLOCKALL()
        f.ICMP6_FILTER_SETPASS(rfc.ICMP6_ECHO_REPLY)
        sock.setsockopt(rfc.IPPROTO_ICMPV6, rfc.ICMP6_FILTER, f.data)
        h = rfc.hoplimit()
        alen = ext.CMSG_SPACE(rfc.inet6_rth_space(rfc.IPV6_RTHDR_TYPE_0, 100)) + ext.CMSG_SPACE(h.size)
        sock.setsockopt(rfc.IPPROTO_IPV6, rfc.IPV6_RECVHOPLIMIT, 1)
        sock.setsockopt(rfc.IPPROTO_IPV6, rfc.IPV6_RECVRTHDR, 1)
        assert sock.sendmsg((host, 0), (request, b"This is ", b"a test"), ()) == header.size + 14
        while True:
            assert select.select([sock], [], [], 20)[0] == [sock]
            addr, data, adata, flags = sock.recvmsg((header.size, 1024), alen)
            assert not flags & (ext.MSG_TRUNC | ext.MSG_CTRUNC)
            if header.unpack(data[0])[3:] == (identifier, sequence):
                break
        assert header.unpack(data[0])[0] == rfc.ICMP6_ECHO_REPLY and data[1] == b"This is a test"
        for a in adata:
            if a.cmsg_level == rfc.IPPROTO_IPV6 and a.cmsg_type == rfc.IPV6_HOPLIMIT:
                h.set_from_data(a.cmsg_data)
        assert h.get() == 64
        assert addr[0] == host


def test_pyxapi_s_names_are_there() -> None:
    assert issubclass(ext.exterror, OSError) and ext.CMSGType is ext.cmsg
    # In the order of the bytes in a packet, as C's headers have them.
    assert struct.pack("@H", rfc.IP6F_MORE_FRAG) == b"\0\1"
    assert struct.pack("@I", rfc.ND_NA_FLAG_ROUTER) == b"\x80\0\0\0"
