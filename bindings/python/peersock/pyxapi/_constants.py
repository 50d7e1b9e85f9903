"""PyXAPI's constants that have no use with sockets: of ICMPv6 and IPv6 headers, as RFC 3542 2 defines them."""

from __future__ import annotations

import sys
from typing import Final


def _as_sent(value: int, size: int) -> int:
    """Returns a field of ``size`` bytes as it is read from a packet without its order being turned."""
    return int.from_bytes(value.to_bytes(size, "big"), sys.byteorder)


IPPROTO_ESP: Final = 50
IPPROTO_AH: Final = 51

IP6F_OFF_MASK: Final = _as_sent(0xFFF8, 2)
IP6F_RESERVED_MASK: Final = _as_sent(0x0006, 2)
IP6F_MORE_FRAG: Final = _as_sent(0x0001, 2)

IP6OPT_TUNNEL_LIMIT: Final = 0x04
IP6OPT_NSAP_ADDR: Final = 0xC3
IP6OPT_JUMBO_LEN: Final = 6
IP6_ALERT_MLD: Final = _as_sent(0x0000, 2)
IP6_ALERT_RSVP: Final = _as_sent(0x0001, 2)
IP6_ALERT_AN: Final = _as_sent(0x0002, 2)

MLD_LISTENER_QUERY: Final = 130
MLD_LISTENER_REPORT: Final = 131
MLD_LISTENER_REDUCTION: Final = 132

ND_RA_FLAG_MANAGED: Final = 0x80
ND_RA_FLAG_OTHER: Final = 0x40
ND_NA_FLAG_ROUTER: Final = _as_sent(0x80000000, 4)
ND_NA_FLAG_SOLICITED: Final = _as_sent(0x40000000, 4)
ND_NA_FLAG_OVERRIDE: Final = _as_sent(0x20000000, 4)
ND_OPT_SOURCE_LINKADDR: Final = 1
ND_OPT_TARGET_LINKADDR: Final = 2
ND_OPT_PREFIX_INFORMATION: Final = 3
ND_OPT_REDIRECTED_HEADER: Final = 4
ND_OPT_MTU: Final = 5
ND_OPT_PI_FLAG_ONLINK: Final = 0x80
ND_OPT_PI_FLAG_AUTO: Final = 0x40

# Router renumbering (RFC 2894).
ICMP6_ROUTER_RENUMBERING: Final = 138
ICMP6_RR_FLAGS_TEST: Final = 0x80
ICMP6_RR_FLAGS_REQRESULT: Final = 0x40
ICMP6_RR_FLAGS_FORCEAPPLY: Final = 0x20
ICMP6_RR_FLAGS_SPECSITE: Final = 0x10
ICMP6_RR_FLAGS_PREVDONE: Final = 0x08
ICMP6_RR_PCOUSE_RAFLAGS_ONLINK: Final = 0x20
ICMP6_RR_PCOUSE_RAFLAGS_AUTO: Final = 0x10
ICMP6_RR_PCOUSE_FLAGS_DECRVLTIME: Final = _as_sent(0x80000000, 4)
ICMP6_RR_PCOUSE_FLAGS_DECRPLTIME: Final = _as_sent(0x40000000, 4)
ICMP6_RR_RESULT_FLAGS_OOB: Final = _as_sent(0x0002, 2)
ICMP6_RR_RESULT_FLAGS_FORBIDDEN: Final = _as_sent(0x0001, 2)
