"""The advanced socket interface for IPv6 (RFC 3542), in pure Python.

What travels beside a datagram is an object: ``in6_pktinfo``, ``hoplimit``, ``tclass``, ``nexthop``,
``ip6_mtuinfo``, ``hopopts``, ``dstopts``, ``rthdrdstopts`` and ``rthdr``. ``obj.cmsg()`` is a tuple as
``socket.sendmsg`` takes it, and ``decode`` makes objects of what ``socket.recvmsg`` returned::

    sock.setsockopt(IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1)
    sock.sendmsg([b"ping"], [hoplimit(3).cmsg()], 0, (address, port))
    data, ancillary, flags, sender = sock.recvmsg(2048, CMSG_SPACE(4))
    print(find(ancillary, hoplimit))

Beside that are the filter of raw ICMPv6 sockets, ``icmp6_filter``, and the functions with which extension
headers are built and parsed: ``inet6_opt_*`` for hop-by-hop and destination options, ``inet6_rth_*`` for
routing headers. Functions and classes have the names of the RFC. Layouts are those of Linux. Nothing here
needs a node: the objects work with sockets of the kernel as well.
"""

# The constants are many, and their names speak for themselves.
# ruff: noqa: F403

from . import constants
from .ancillary import (
    CMSG_LEN,
    CMSG_SPACE,
    Ancillary,
    cmsg,
    decode,
    find,
    hoplimit,
    in6_pktinfo,
    nexthop,
    tclass,
)
from .constants import *
from .extension import dstopts, hopopts, rthdr, rthdrdstopts
from .filter import (
    ICMP6_FILTER_SETBLOCK,
    ICMP6_FILTER_SETBLOCKALL,
    ICMP6_FILTER_SETPASS,
    ICMP6_FILTER_SETPASSALL,
    ICMP6_FILTER_WILLBLOCK,
    ICMP6_FILTER_WILLPASS,
    icmp6_filter,
)
from .options import (
    inet6_opt_append,
    inet6_opt_find,
    inet6_opt_finish,
    inet6_opt_get_val,
    inet6_opt_init,
    inet6_opt_next,
    inet6_opt_set_val,
    ip6_opt,
)
from .pathmtu import ip6_mtuinfo
from .routing import (
    inet6_rth_add,
    inet6_rth_getaddr,
    inet6_rth_init,
    inet6_rth_reverse,
    inet6_rth_segments,
    inet6_rth_space,
)
from .sockaddr import sockaddr_in6

__all__ = [
    "Ancillary",
    "CMSG_LEN",
    "CMSG_SPACE",
    "ICMP6_FILTER_SETBLOCK",
    "ICMP6_FILTER_SETBLOCKALL",
    "ICMP6_FILTER_SETPASS",
    "ICMP6_FILTER_SETPASSALL",
    "ICMP6_FILTER_WILLBLOCK",
    "ICMP6_FILTER_WILLPASS",
    "cmsg",
    "decode",
    "dstopts",
    "find",
    "hoplimit",
    "hopopts",
    "icmp6_filter",
    "in6_pktinfo",
    "inet6_opt_append",
    "inet6_opt_find",
    "inet6_opt_finish",
    "inet6_opt_get_val",
    "inet6_opt_init",
    "inet6_opt_next",
    "inet6_opt_set_val",
    "inet6_rth_add",
    "inet6_rth_getaddr",
    "inet6_rth_init",
    "inet6_rth_reverse",
    "inet6_rth_segments",
    "inet6_rth_space",
    "ip6_mtuinfo",
    "ip6_opt",
    "nexthop",
    "rthdr",
    "rthdrdstopts",
    "sockaddr_in6",
    "tclass",
]
__all__ += constants.__all__
