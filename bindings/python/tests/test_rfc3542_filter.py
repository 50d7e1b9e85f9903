"""The filter of raw ICMPv6 sockets, in the kernel's layout."""

from __future__ import annotations

import ctypes
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersock import rfc3542
from peersock.rfc3542 import ICMP6_ECHO_REPLY, ICMP6_ECHO_REQUEST, ICMP6_FILTER, IPPROTO_ICMPV6, icmp6_filter
from tests import rfc3542_package  # noqa: F401

types = st.integers(0, 255)


class Macros(ctypes.Structure):
    """netinet/icmp6.h, written out: its macros are no symbols of the C library."""

    _fields_ = [("icmp6_filt", ctypes.c_uint32 * 8)]

    def setpass(self, type: int) -> None:
        self.icmp6_filt[type >> 5] &= ~(1 << (type & 31)) & 0xFFFF_FFFF

    def setblock(self, type: int) -> None:
        self.icmp6_filt[type >> 5] |= 1 << (type & 31)

    def willpass(self, type: int) -> bool:
        return not self.icmp6_filt[type >> 5] & (1 << (type & 31))


@given(st.lists(st.tuples(st.sampled_from(["setpass", "setblock", "setpassall", "setblockall"]), types)))
def test_the_bits_are_those_of_the_macros(operations: list[tuple[str, int]]) -> None:
    ours, theirs = icmp6_filter(), Macros()
    for name, type in operations:
        if name.endswith("all"):
            getattr(ours, name)()
            getattr(rfc3542, f"ICMP6_FILTER_{name.upper()}")(ours)
            ctypes.memset(ctypes.byref(theirs), 0xFF if "block" in name else 0, ctypes.sizeof(theirs))
        else:
            getattr(ours, name)(type)
            getattr(rfc3542, f"ICMP6_FILTER_{name.upper()}")(type, ours)
            getattr(theirs, name)(type)
    assert bytes(ours) == bytes(theirs)
    for type in range(256):
        assert ours.willpass(type) == theirs.willpass(type) == rfc3542.ICMP6_FILTER_WILLPASS(type, ours)
        assert ours.willblock(type) != ours.willpass(type)
        assert rfc3542.ICMP6_FILTER_WILLBLOCK(type, ours) == ours.willblock(type)


@given(st.binary(min_size=32, max_size=32))
def test_bytes_make_a_filter_and_a_filter_bytes(data: bytes) -> None:
    filter = icmp6_filter.from_bytes(data)
    assert bytes(filter) == data
    assert filter == icmp6_filter(type for type in range(256) if filter.willblock(type))
    assert eval(repr(filter)) == filter


def test_what_is_no_type_or_no_filter_is_refused() -> None:
    for type in (-1, 256):
        with pytest.raises(ValueError):
            icmp6_filter().setpass(type)
    with pytest.raises(ValueError):
        icmp6_filter.from_bytes(bytes(31))
    with pytest.raises(TypeError):
        hash(icmp6_filter())


def test_the_kernel_filters_by_it() -> None:
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, IPPROTO_ICMPV6)
    except PermissionError:
        pytest.skip("raw sockets of the kernel need CAP_NET_RAW")
    with sock:
        assert icmp6_filter.of(sock) == icmp6_filter()
        filter = icmp6_filter.passing(ICMP6_ECHO_REPLY)
        filter.set_on(sock)
        assert icmp6_filter.of(sock) == filter
        assert sock.getsockopt(IPPROTO_ICMPV6, ICMP6_FILTER, 32) == bytes(filter)
        sock.settimeout(20)
        request = bytes([ICMP6_ECHO_REQUEST, 0, 0, 0]) + b"\x7f\x01\x00\x01peersock"
        sock.sendto(request, ("::1", 0))
        # The request comes by as well, but does not pass.
        while True:
            message = sock.recv(64)
            assert message[0] == ICMP6_ECHO_REPLY
            if message[4:] == request[4:]:
                break
