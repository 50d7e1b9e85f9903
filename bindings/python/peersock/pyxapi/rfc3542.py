"""PyXAPI's module ``rfc3542``: objects that are set and read, over those of `peersock.rfc3542`."""

from __future__ import annotations

from typing import Generic, TypeVar

from .. import rfc3542 as _ours
from ..rfc3542 import CMSG_LEN, CMSG_SPACE, inet6_rth_space, sockaddr_in6
from ..rfc3542.constants import *  # noqa: F403
from ..rfc3542.constants import __all__ as _constants
from ..rfc3542.sockaddr import Address, Buffer
from . import _constants as _more
from ._constants import *  # noqa: F403

# PyXAPI's `cmsg` is in ``socket_ext``.
__all__ = [
    *_constants,
    *(name for name in vars(_more) if name.isupper()),
    "CMSG_LEN",
    "CMSG_SPACE",
    "IP6OPT_TYPE",
    "error",
    "hoplimit",
    "icmp6_filter",
    "in6_pktinfo",
    "inet6_opt",
    "inet6_opt_append",
    "inet6_opt_find",
    "inet6_opt_finish",
    "inet6_opt_get_val",
    "inet6_opt_init",
    "inet6_opt_next",
    "inet6_opt_set_val",
    "inet6_rth",
    "inet6_rth_add",
    "inet6_rth_getaddr",
    "inet6_rth_init",
    "inet6_rth_reverse",
    "inet6_rth_segments",
    "inet6_rth_space",
    "ip6_mtuinfo",
    "nexthop",
    "tclass",
]

#: The exception that the functions here raise.
error = ValueError

Kind = TypeVar("Kind", bound=_ours.Ancillary)


class _Object(Generic[Kind]):
    """An object of ours that can be set again."""

    _kind: type[Kind]
    _value: Kind
    #: Size of the option, bytes, for CMSG_SPACE.
    size: int

    def set_from_data(self, data: Buffer) -> None:
        """Takes what a control message or an option has.

        Raises:
            ValueError: It is not of the right size.
        """
        self._value = self._kind.from_bytes(data)

    @property
    def data(self) -> bytes:
        """The object as a control message or an option has it."""
        return bytes(self._value)


_Number = TypeVar("_Number", _ours.hoplimit, _ours.tclass)


class _NumberObject(_Object[_Number]):
    size = 4

    def __init__(self) -> None:
        self.set(-1)

    def set(self, value: int) -> None:
        """Takes the number.

        Raises:
            ValueError: It is out of range.
        """
        self._value = self._kind(value)

    def get(self) -> int:
        """Returns the number."""
        return int(self._value)


class hoplimit(_NumberObject[_ours.hoplimit]):
    """A hop limit, 0 to 255; -1 is the node's default."""

    _kind = _ours.hoplimit


class tclass(_NumberObject[_ours.tclass]):
    """A traffic class, 0 to 255; -1 is the node's default."""

    _kind = _ours.tclass


class in6_pktinfo(_Object[_ours.in6_pktinfo]):
    """An own address and an interface."""

    _kind, size = _ours.in6_pktinfo, 20

    def __init__(self) -> None:
        self.set("::", 0)

    def set(self, addr: Address, ifindex: int = 0) -> None:
        """Takes the address, ``::`` for any, and the interface's index, 0 for any."""
        self._value = _ours.in6_pktinfo(addr, ifindex)

    def get(self) -> tuple[str, int]:
        """The address and the interface's index."""
        return str(self._value.ipi6_addr), self._value.ipi6_ifindex


class nexthop(_Object[_ours.nexthop]):
    """The neighbour to which a datagram goes first."""

    _kind, size = _ours.nexthop, sockaddr_in6.SIZE

    def __init__(self) -> None:
        self.set("::")

    def set(self, addr: Address) -> None:
        """Takes the address."""
        self._value = _ours.nexthop(addr)

    def get(self) -> str:
        """The address."""
        return str(self._value.addr.sin6_addr)


class ip6_mtuinfo(_Object[_ours.ip6_mtuinfo]):
    """The MTU of the path to an address."""

    _kind, size = _ours.ip6_mtuinfo, _ours.ip6_mtuinfo.SIZE

    def __init__(self) -> None:
        self._value = _ours.ip6_mtuinfo(None, 0)

    def set(self, addr: tuple[str, int] | tuple[str, int, int, int], mtu: int) -> None:
        """Takes the address, as Python's sockets have it, and the MTU, bytes."""
        self._value = _ours.ip6_mtuinfo(sockaddr_in6(*addr), mtu)

    def get(self) -> tuple[tuple[str, int, int, int], int]:
        """The address, as Python's sockets have it, and the MTU, bytes."""
        addr = self._value.ip6m_addr
        return ("::", 0, 0, 0) if addr is None else addr.to_tuple(), self._value.ip6m_mtu


class icmp6_filter:
    """A filter of the ICMPv6 messages that a raw socket gets; at first all of them."""

    size = _ours.icmp6_filter.SIZE

    def __init__(self) -> None:
        self._filter = _ours.icmp6_filter()

    @property
    def data(self) -> bytes:
        """The filter as the option ICMP6_FILTER has it."""
        return bytes(self._filter)

    def ICMP6_FILTER_SETPASSALL(self) -> None:
        """Passes everything."""
        self._filter.setpassall()

    def ICMP6_FILTER_SETBLOCKALL(self) -> None:
        """Blocks everything."""
        self._filter.setblockall()

    def ICMP6_FILTER_SETPASS(self, type: int) -> None:
        """Passes a type."""
        self._filter.setpass(type)

    def ICMP6_FILTER_SETBLOCK(self, type: int) -> None:
        """Blocks a type."""
        self._filter.setblock(type)

    def ICMP6_FILTER_WILLPASS(self, type: int) -> bool:
        """Returns true if a type passes."""
        return self._filter.willpass(type)

    def ICMP6_FILTER_WILLBLOCK(self, type: int) -> bool:
        """Returns true if a type is blocked."""
        return self._filter.willblock(type)


class inet6_rth:
    """A routing header of type 0. It serves to build and to read, because RFC 5095 has abolished it."""

    def __init__(self) -> None:
        self._header = bytearray()

    @property
    def data(self) -> bytes:
        """The header as a control message has it."""
        return bytes(self._header)

    def set(self, type: int, *nodes: Address) -> None:
        """Makes it anew, with these addresses.

        Raises:
            ValueError: The type is not 0, or there are more than 127 addresses.
        """
        inet6_rth_init(self, type, len(nodes))
        for node in nodes:
            inet6_rth_add(self, node)

    def set_from_data(self, data: Buffer) -> None:
        """Takes what a control message has.

        Raises:
            ValueError: It is no routing header of type 0.
        """
        header = bytearray(data)
        _ours.inet6_rth_segments(header)
        self._header = header

    def get(self) -> tuple[tuple[int, int, int, int, int] | str, ...]:
        """The next header, the length in eights, the type, the segments left and the reserved word in one tuple, and
        then the addresses."""
        header = self._header
        addresses = [str(_ours.inet6_rth_getaddr(header, at)) for at in range(_ours.inet6_rth_segments(header))]
        fixed = (header[0], header[1], header[2], header[3], int.from_bytes(header[4:8], "big"))
        return (fixed, *addresses)


def inet6_rth_init(bp: inet6_rth, type: int, segments: int) -> inet6_rth:
    """Begins a header for `segments` addresses. Returns it."""
    bp._header = _ours.inet6_rth_init(bytearray(_ours.inet6_rth_space(type, segments)), type, segments)
    return bp


def inet6_rth_add(bp: inet6_rth, addr: Address) -> None:
    """Adds an address at the end."""
    _ours.inet6_rth_add(bp._header, addr)


def inet6_rth_reverse(source: inet6_rth, target: inet6_rth) -> None:
    """Makes the header for the way back; target may be the source."""
    header = bytearray(len(source._header))
    _ours.inet6_rth_reverse(source._header, header)
    target._header = header


def inet6_rth_segments(bp: inet6_rth) -> int:
    """Returns the number of addresses that the header has room for."""
    return _ours.inet6_rth_segments(bp._header)


def inet6_rth_getaddr(bp: inet6_rth, index: int) -> str:
    """An address by its index, from 0."""
    return str(_ours.inet6_rth_getaddr(bp._header, index))


def IP6OPT_TYPE(type: int) -> int:
    """The two bits of an option's type that say what is done where it is not known."""
    return type & 0xC0


class inet6_opt:
    """A header of hop-by-hop or destination options."""

    def __init__(self) -> None:
        self._header = bytearray()
        # The data of the option that was last appended or found.
        self._option = memoryview(b"")

    @property
    def data(self) -> bytes:
        """The header as a control message has it."""
        return bytes(self._header)

    def set(self, extlen: int) -> None:
        """Makes it anew, with `extlen` bytes.

        Raises:
            ValueError: It is no multiple of 8 from 8 to 2048.
        """
        header = bytearray(max(extlen, 0))
        _ours.inet6_opt_init(header)
        self._take(header)

    def set_from_data(self, data: Buffer) -> None:
        """Takes what a control message has.

        Raises:
            ValueError: It is shorter than it says.
        """
        header = bytearray(data)
        if len(header) < 2 or len(header) < (header[1] + 1) * 8:
            raise ValueError(f"a header of options of {len(header)} bytes")
        self._take(header)

    def get(self) -> tuple[int, int]:
        """The next header, and the length in eights behind the first.

        Raises:
            ValueError: It was not set.
        """
        if not self._header:
            raise ValueError("the header was not set")
        return self._header[0], self._header[1]

    def _take(self, header: bytearray) -> None:
        self._header, self._option = header, memoryview(b"")


def inet6_opt_init(opt: inet6_opt | None = None, extlen: int = 0) -> int:
    """Begins a header: without one it is to learn its size. Gives where the first option begins.

    Raises:
        ValueError: The length is not the header's.
    """
    if opt is None:
        return _ours.inet6_opt_init(None)
    if extlen != len(opt._header):
        raise ValueError(f"the header was set to {len(opt._header)} bytes, not {extlen}")
    return _ours.inet6_opt_init(opt._header)


def inet6_opt_append(opt: inet6_opt | int, *arguments: int) -> int:
    """``inet6_opt_append([opt, ]offset, type, len, align)``: appends an option, for `inet6_opt_set_val` to fill. Gives
    where the next one begins.

    Raises:
        ValueError: As `peersock.rfc3542.inet6_opt_append()`.
    """
    if not isinstance(opt, inet6_opt):
        return _ours.inet6_opt_append(None, opt, *arguments)[0]
    offset, data = _ours.inet6_opt_append(opt._header, *arguments)
    assert data is not None
    opt._option = data
    return offset


def inet6_opt_finish(opt: inet6_opt | int, *arguments: int) -> int:
    """``inet6_opt_finish([opt, ]offset)``: pads the header. Gives its size.

    Raises:
        ValueError: It has no room.
    """
    if not isinstance(opt, inet6_opt):
        return _ours.inet6_opt_finish(None, opt, *arguments)
    return _ours.inet6_opt_finish(opt._header, *arguments)


def inet6_opt_set_val(opt: inet6_opt, offset: int, val: Buffer) -> int:
    """Writes a part of the data of the option that was appended last. Gives where it ends.

    Raises:
        ValueError: It does not fit.
    """
    return _ours.inet6_opt_set_val(opt._option, offset, val)


def inet6_opt_next(opt: inet6_opt, offset: int) -> tuple[int, int, int]:
    """The option at an offset, 0 for the first: where the next one begins, its type and its length.

    Raises:
        ValueError: There is none, or the header is malformed.
    """
    found = _found(opt, _ours.inet6_opt_next(opt._header, offset))
    return found.offset, found.type, len(found.data)


def inet6_opt_find(opt: inet6_opt, offset: int, type: int) -> tuple[int, int]:
    """The next option of a type: where the next one begins, and its length.

    Raises:
        ValueError: There is none, or the header is malformed.
    """
    found = _found(opt, _ours.inet6_opt_find(opt._header, offset, type))
    return found.offset, len(found.data)


def inet6_opt_get_val(opt: inet6_opt, offset: int, vallen: int) -> tuple[int, bytes]:
    """Returns the end of a part of the last found option's data, and the part.

    Raises:
        ValueError: The data is shorter.
    """
    value, end = _ours.inet6_opt_get_val(opt._option, offset, vallen)
    return end, value


def _found(opt: inet6_opt, found: _ours.ip6_opt | None) -> _ours.ip6_opt:
    if found is None:
        raise ValueError("there is no such option")
    opt._option = found.data
    return found
