"""Routing headers of type 0, compared with glibc."""

from __future__ import annotations

import ctypes
import socket
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersock.rfc3542 import (
    IPPROTO_IPV6,
    IPV6_RTHDR_TYPE_0,
    inet6_rth_add,
    inet6_rth_getaddr,
    inet6_rth_init,
    inet6_rth_reverse,
    inet6_rth_segments,
    inet6_rth_space,
    rthdr,
)
from tests import rfc3542_package  # noqa: F401

libc = ctypes.CDLL(None)
pointer = ctypes.c_void_p
libc.inet6_rth_space.argtypes = [ctypes.c_int, ctypes.c_int]
libc.inet6_rth_space.restype = ctypes.c_uint
libc.inet6_rth_init.argtypes = [pointer, ctypes.c_uint, ctypes.c_int, ctypes.c_int]
libc.inet6_rth_init.restype = pointer
libc.inet6_rth_add.argtypes = [pointer, pointer]
libc.inet6_rth_reverse.argtypes = [pointer, pointer]
libc.inet6_rth_segments.argtypes = [pointer]
libc.inet6_rth_getaddr.argtypes = [pointer, ctypes.c_int]
libc.inet6_rth_getaddr.restype = pointer

addresses = st.lists(st.binary(min_size=16, max_size=16).map(IPv6Address), max_size=127)


@given(st.integers(0, 4), st.integers(-3, 140))
def test_space_is_glibcs(type: int, segments: int) -> None:
    try:
        ours = inet6_rth_space(type, segments)
    except ValueError:
        ours = 0
    assert ours == libc.inet6_rth_space(type, segments)


@given(addresses, st.integers(0, 3), st.integers(0, 24))
def test_headers_are_built_and_reversed_as_glibc_does(route: list[IPv6Address], unused: int, longer: int) -> None:
    segments = min(len(route) + unused, 127)
    size = inet6_rth_space(IPV6_RTHDR_TYPE_0, segments) + longer
    theirs = ctypes.create_string_buffer(b"\xff" * size, size)
    assert libc.inet6_rth_init(theirs, size, IPV6_RTHDR_TYPE_0, segments)
    ours = bytearray(b"\xff" * size)
    assert inet6_rth_init(ours, IPV6_RTHDR_TYPE_0, segments) is ours
    assert ours == theirs.raw
    for address in route:
        assert libc.inet6_rth_add(theirs, address.packed) == 0
        inet6_rth_add(ours, address)
    assert ours == theirs.raw
    assert inet6_rth_segments(ours) == libc.inet6_rth_segments(theirs) == segments
    for index in range(segments):
        at = libc.inet6_rth_getaddr(theirs, index)
        assert inet6_rth_getaddr(ours, index).packed == ctypes.string_at(at, 16)
    with pytest.raises(ValueError):
        inet6_rth_getaddr(ours, segments)
    back, their_back = bytearray(size), ctypes.create_string_buffer(size)
    assert libc.inet6_rth_reverse(theirs, their_back) == 0
    inet6_rth_reverse(ours, back)
    assert back == their_back.raw
    inet6_rth_reverse(ours, ours)
    assert ours[: size - longer] == back[: size - longer]


@given(addresses)
def test_a_route_is_read_again_and_reversed(route: list[IPv6Address]) -> None:
    header = rthdr.of(map(str, route))
    assert header.addresses == route
    assert (header.type, header.segments_left) == (0, len(route))
    back = bytearray(header.header)
    inet6_rth_reverse(header.header, back)
    assert rthdr.from_bytes(back).addresses == route[::-1]


def test_a_full_header_takes_no_more() -> None:
    header = bytearray(inet6_rth_space(IPV6_RTHDR_TYPE_0, 1))
    inet6_rth_init(header, IPV6_RTHDR_TYPE_0, 1)
    inet6_rth_add(header, "fd00::1")
    before = bytes(header)
    with pytest.raises(ValueError, match="full"):
        inet6_rth_add(header, "fd00::2")
    assert header == before
    with pytest.raises(ValueError):
        inet6_rth_init(bytearray(23), IPV6_RTHDR_TYPE_0, 1)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(header: bytes) -> None:
    try:
        segments = inet6_rth_segments(header)
    except ValueError:
        with pytest.raises(ValueError):
            inet6_rth_getaddr(header, 0)
        with pytest.raises(ValueError):
            inet6_rth_reverse(header, bytearray(2048))
        return
    assert [inet6_rth_getaddr(header, index).packed for index in range(segments)] == [
        header[8 + 16 * index : 24 + 16 * index] for index in range(segments)
    ]


def test_the_kernel_refuses_type_0_too() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        with pytest.raises(OSError):
            sock.setsockopt(IPPROTO_IPV6, socket.IPV6_RTHDR, bytes(rthdr.of(["::1"])))
