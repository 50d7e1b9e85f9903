"""Options of extension headers: as glibc builds and reads them, and as RFC 3542's appendix shows them."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peersock.rfc3542 import (
    IP6OPT_PAD1,
    IP6OPT_PADN,
    dstopts,
    hopopts,
    inet6_opt_append,
    inet6_opt_find,
    inet6_opt_finish,
    inet6_opt_get_val,
    inet6_opt_init,
    inet6_opt_next,
    inet6_opt_set_val,
)
from tests import rfc3542_package  # noqa: F401

libc = ctypes.CDLL(None)
pointer = ctypes.c_void_p
libc.inet6_opt_init.argtypes = [pointer, ctypes.c_uint]
libc.inet6_opt_append.argtypes = [
    pointer, ctypes.c_uint, ctypes.c_int, ctypes.c_uint8, ctypes.c_uint, ctypes.c_uint8,
    ctypes.POINTER(pointer),
]  # fmt: skip
libc.inet6_opt_finish.argtypes = [pointer, ctypes.c_uint, ctypes.c_int]
libc.inet6_opt_set_val.argtypes = [pointer, ctypes.c_int, pointer, ctypes.c_uint]
libc.inet6_opt_get_val.argtypes = [pointer, ctypes.c_int, pointer, ctypes.c_uint]
found: list[Any] = [ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(pointer)]
libc.inet6_opt_next.argtypes = [pointer, ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_uint8), *found]
libc.inet6_opt_find.argtypes = [pointer, ctypes.c_uint, ctypes.c_int, ctypes.c_uint8, *found]

OPT_X, OPT_Y = 10, 20
# RFC 3542, appendix C: two options, and between them the padding that their alignment demands.
APPENDIX = bytes.fromhex("0003 01020000 0a0c 12345678 0102030405060708 0100 1407 01 1331 01020304 00".replace(" ", ""))

aligned = st.tuples(st.integers(2, 255), st.binary(min_size=1, max_size=255), st.sampled_from([1, 2, 4, 8])).filter(
    lambda option: option[2] <= len(option[1])
)
headers = st.lists(aligned, max_size=6)


def test_the_example_of_the_appendix_is_built_byte_for_byte() -> None:
    size = inet6_opt_init(None)
    size, _ = inet6_opt_append(None, size, OPT_X, 12, 8)
    size, _ = inet6_opt_append(None, size, OPT_Y, 7, 4)
    header = bytearray(inet6_opt_finish(None, size))
    end = inet6_opt_init(header)
    end, data = inet6_opt_append(header, end, OPT_X, 12, 8)
    assert data is not None
    offset = inet6_opt_set_val(data, 0, bytes.fromhex("12345678"))
    assert inet6_opt_set_val(data, offset, bytes.fromhex("0102030405060708")) == 12
    end, data = inet6_opt_append(header, end, OPT_Y, 7, 4)
    assert data is not None
    offset = inet6_opt_set_val(data, 0, b"\x01")
    offset = inet6_opt_set_val(data, offset, bytes.fromhex("1331"))
    inet6_opt_set_val(data, offset, bytes.fromhex("01020304"))
    assert inet6_opt_finish(header, end) == len(header) == 32
    assert header == APPENDIX


def test_the_example_of_the_appendix_is_read() -> None:
    option = inet6_opt_next(APPENDIX)
    assert option is not None and (option.type, len(option.data)) == (OPT_X, 12)
    value, offset = inet6_opt_get_val(option.data, 0, 4)
    assert (value.hex(), offset) == ("12345678", 4)
    assert inet6_opt_get_val(option.data, offset, 8)[0].hex() == "0102030405060708"
    option = inet6_opt_next(APPENDIX, option.offset)
    assert option is not None and (option.type, bytes(option.data).hex()) == (OPT_Y, "01133101020304")
    assert inet6_opt_next(APPENDIX, option.offset) is None
    assert inet6_opt_find(APPENDIX, 0, OPT_Y) == option
    assert inet6_opt_find(APPENDIX, option.offset, OPT_X) is None


@given(headers)
def test_headers_are_built_as_glibc_builds_them(options: list[tuple[int, bytes, int]]) -> None:
    ours = dstopts.of(options)
    buffer = ctypes.create_string_buffer(len(ours.header))
    end = libc.inet6_opt_init(buffer, len(buffer))
    data = pointer()
    for type, value, align in options:
        end = libc.inet6_opt_append(buffer, len(buffer), end, type, len(value), align, ctypes.byref(data))
        assert libc.inet6_opt_set_val(data, 0, value, len(value)) == len(value)
    assert libc.inet6_opt_finish(buffer, len(buffer), end) == len(buffer)
    assert ours.header == buffer.raw


@given(headers)
def test_what_is_built_is_read_again(options: list[tuple[int, bytes, int]]) -> None:
    header = hopopts.of(options)
    assert header.options == [(type, value) for type, value, _ in options]
    assert len(bytes(header)) % 8 == 0
    option, data_at = inet6_opt_next(bytes(header)), []
    while option is not None:
        data_at.append(option.offset - len(option.data))
        option = inet6_opt_next(bytes(header), option.offset)
    assert all(at % align == 0 for at, (_, _, align) in zip(data_at, options, strict=True))


@given(st.integers(0, 300), st.integers(0, 255), st.integers(0, 300), st.integers(0, 16), st.integers(0, 40))
def test_an_option_is_refused_where_glibc_refuses_it(
    offset: int, type: int, size: int, align: int, eights: int
) -> None:
    expected = libc.inet6_opt_append(None, 0, offset, type, size, align, None)
    assert (_or_refused(lambda: inet6_opt_append(None, offset, type, size, align)[0])) == expected
    buffer, data = ctypes.create_string_buffer(8 * eights), pointer()
    expected = libc.inet6_opt_append(buffer, len(buffer), offset, type, size, align, ctypes.byref(data))
    ours = bytearray(8 * eights)
    assert _or_refused(lambda: inet6_opt_append(ours, offset, type, size, align)[0]) == expected
    assert bytes(ours) == buffer.raw


@given(st.integers(0, 2100))
def test_the_size_of_a_header_is_checked_as_in_glibc(size: int) -> None:
    buffer = ctypes.create_string_buffer(max(size, 2))
    expected = libc.inet6_opt_init(buffer, size)
    ours = bytearray(size)
    assert _or_refused(lambda: inet6_opt_init(ours)) == expected
    assert bytes(ours) == buffer.raw[:size]
    assert inet6_opt_init(None) == libc.inet6_opt_init(None, 0)


@given(st.integers(0, 64), st.integers(0, 8))
def test_a_header_is_finished_as_in_glibc(offset: int, eights: int) -> None:
    assert _or_refused(lambda: inet6_opt_finish(None, offset)) == libc.inet6_opt_finish(None, 0, offset)
    buffer = ctypes.create_string_buffer(b"\xff" * (8 * eights), 8 * eights)
    expected = libc.inet6_opt_finish(buffer, len(buffer), offset)
    ours = bytearray(b"\xff" * (8 * eights))
    assert _or_refused(lambda: inet6_opt_finish(ours, offset)) == expected
    assert bytes(ours) == buffer.raw


@given(st.binary(min_size=2, max_size=64), st.integers(0, 70))
@example(b"\0\0\x05", 0)
@example(b"\0\0\x01\x06\0\0\0\0\0", 0)
def test_any_bytes_are_read_as_glibc_reads_them(header: bytes, offset: int) -> None:
    # glibc looks at the length of an option whose type is the buffer's last byte.
    buffer = ctypes.create_string_buffer(header, len(header) + 1)
    for wanted in (None, IP6OPT_PAD1, IP6OPT_PADN, header[-1]):
        type, size, data = ctypes.c_uint8(), ctypes.c_uint(), pointer()
        kind = ctypes.byref(type) if wanted is None else wanted
        call = libc.inet6_opt_next if wanted is None else libc.inet6_opt_find
        expected = call(buffer, len(header), offset, kind, ctypes.byref(size), ctypes.byref(data))
        try:
            ours = inet6_opt_next(header, offset) if wanted is None else inet6_opt_find(header, offset, wanted)
        except ValueError:
            ours = None
        assert (-1 if ours is None else ours.offset) == expected
        if ours is not None:
            assert ours.type == (type.value if wanted is None else wanted)
            # glibc sets no length of Pad1.
            length = 0 if wanted == IP6OPT_PAD1 else size.value
            assert bytes(ours.data) == ctypes.string_at(data.value or 0, length)


@given(st.binary(max_size=32), st.integers(-2, 40), st.binary(max_size=32))
def test_values_stay_within_their_option(data: bytes, offset: int, value: bytes) -> None:
    buffer = bytearray(data)
    fits = offset >= 0 and offset + len(value) <= len(data)
    if fits:
        assert inet6_opt_set_val(memoryview(buffer), offset, value) == offset + len(value)
        assert inet6_opt_get_val(buffer, offset, len(value)) == (value, offset + len(value))
        assert buffer == data[:offset] + value + data[offset + len(value) :]
    else:
        with pytest.raises(ValueError):
            inet6_opt_set_val(memoryview(buffer), offset, value)
        with pytest.raises(ValueError):
            inet6_opt_get_val(buffer, offset, len(value))
        assert buffer == data


def test_a_header_has_the_length_it_says() -> None:
    for wrong in (b"", bytes(7), bytes(16), b"\0\1" + bytes(6)):
        with pytest.raises(ValueError):
            dstopts.from_bytes(wrong)
    with pytest.raises(ValueError, match="2048"):
        dstopts.of([(OPT_X, bytes(255), 1)] * 8)


def _or_refused(call: object) -> int:
    """Returns a function's result, or -1, as C does, if it refuses."""
    assert callable(call)
    try:
        result = call()
    except ValueError:
        return -1
    assert isinstance(result, int)
    return result
