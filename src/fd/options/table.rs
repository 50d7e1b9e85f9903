//! The socket options that there are. `docs/SOCKETS.md` has the same table, and a test compares them.

use libc::{IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_RAW, IPPROTO_TCP, SOL_SOCKET};
use peersock_fd::{Family, Kind};

/// One option.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) level: i32,
    pub(super) number: i32,
    /// The sockets that have it: `t` streams, `u` datagrams, `i` echo, `r` raw.
    pub(super) kinds: &'static str,
    pub(super) access: Access,
    /// What the documentation says of it.
    pub(super) what: &'static str,
}

/// What can be done with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It is set and asked for.
    Both,
    /// setsockopt(2) only.
    Set,
    /// getsockopt(2) only.
    Get,
    /// It is remembered, and this is its value before it is set. It means nothing here, or nothing that has
    /// to be asked for.
    Kept(i32),
    /// The application's end answers, without the node.
    Application,
    /// It is known, and refused with ENOPROTOOPT.
    Refused,
}

/// The row of an option, if such a socket has it.
pub(super) fn find(kind: Kind, family: Family, level: i32, number: i32) -> Option<&'static Row> {
    // As Linux: IPv6 sockets have IPv4's options too, for mapped addresses.
    if level == IPPROTO_IPV6 && family == Family::V4 {
        return None;
    }
    let letter = match kind {
        Kind::Stream => 't',
        Kind::Datagram => 'u',
        Kind::Echo => 'i',
        Kind::Raw(_) => 'r',
    };
    TABLE.iter().find(|row| (row.level, row.number) == (level, number) && row.kinds.contains(letter))
}

/// Of `struct icmp_filter`, whose number libc does not name.
pub(super) const ICMP_FILTER: i32 = 1;
/// As above.
pub(super) const ICMP6_FILTER: i32 = 1;
/// As above (RFC 3542 3.1).
pub(super) const IPV6_CHECKSUM: i32 = 7;
/// As above (RFC 3542 6.3).
pub(super) const IPV6_PATHMTU: i32 = 61;
/// Linux's headers keep the number for it, its kernel does not know it (RFC 3542 11.1).
pub(super) const IPV6_USE_MIN_MTU: i32 = 63;
/// As above (RFC 3542 6.2).
pub(super) const IPV6_RECVPATHMTU: i32 = 60;
/// As above.
pub(super) const IP_MULTICAST_ALL: i32 = 49;
/// As above.
pub(super) const IPV6_MULTICAST_ALL: i32 = 29;
/// As above (RFC 3678).
pub(super) const MCAST_JOIN_GROUP: i32 = 42;
/// As above.
pub(super) const MCAST_BLOCK_SOURCE: i32 = 43;
/// As above.
pub(super) const MCAST_UNBLOCK_SOURCE: i32 = 44;
/// As above.
pub(super) const MCAST_LEAVE_GROUP: i32 = 45;
/// As above.
pub(super) const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
/// As above.
pub(super) const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
/// As above (RFC 3542 5).
const IPV6_RECVHOPOPTS: i32 = 53;
/// As above.
const IPV6_HOPOPTS: i32 = 54;
/// As above.
const IPV6_RTHDRDSTOPTS: i32 = 55;
/// As above.
const IPV6_RECVRTHDR: i32 = 56;
/// As above.
const IPV6_RTHDR: i32 = 57;
/// As above.
const IPV6_RECVDSTOPTS: i32 = 58;
/// As above.
const IPV6_DSTOPTS: i32 = 59;
/// As above.
const IPV6_NEXTHOP: i32 = 9;

const fn row(
    name: &'static str,
    level: i32,
    number: i32,
    kinds: &'static str,
    access: Access,
    what: &'static str,
) -> Row {
    Row { name, level, number, kinds, access, what }
}

/// All that are known. Every other is refused with ENOPROTOOPT.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = {
    use Access::{Application, Both, Get, Kept, Refused, Set};
    &[
        row("SO_TYPE", SOL_SOCKET, libc::SO_TYPE, "tuir", Application, "what the socket was opened as"),
        row("SO_PROTOCOL", SOL_SOCKET, libc::SO_PROTOCOL, "tuir", Application, "what the socket was opened as"),
        row("SO_DOMAIN", SOL_SOCKET, libc::SO_DOMAIN, "tuir", Application, "what the socket was opened as"),
        row("SO_ERROR", SOL_SOCKET, libc::SO_ERROR, "tuir", Application, "what went wrong, once"),
        row("SO_ACCEPTCONN", SOL_SOCKET, libc::SO_ACCEPTCONN, "tuir", Application, "whether it listens"),
        row("SO_RCVTIMEO", SOL_SOCKET, libc::SO_RCVTIMEO, "tuir", Application, "the kernel's own"),
        row("SO_SNDTIMEO", SOL_SOCKET, libc::SO_SNDTIMEO, "tuir", Application, "the kernel's own; also limits connect"),
        row("SO_RCVLOWAT", SOL_SOCKET, libc::SO_RCVLOWAT, "tuir", Application, "the kernel's own"),
        row("SO_REUSEADDR", SOL_SOCKET, libc::SO_REUSEADDR, "tuir", Both, "streams: a port with connections in TIME-WAIT can be bound. Datagrams: sockets that all have it share an address, the youngest gets what comes, and each member its copy of what goes to a group"),
        row("SO_REUSEPORT", SOL_SOCKET, libc::SO_REUSEPORT, "tuir", Both, "sockets that all have it share a port, and each gets its share of the connections or datagrams, by the other end's address"),
        row("SO_KEEPALIVE", SOL_SOCKET, libc::SO_KEEPALIVE, "t", Both, "a silent peer is probed"),
        row("SO_LINGER", SOL_SOCKET, libc::SO_LINGER, "tuir", Both, "streams: with 0 seconds closing resets the connection; with more `peersock_close`, and `close` under `peersock run`, wait until what was written is acknowledged. Others: kept"),
        row("SO_RCVBUF", SOL_SOCKET, libc::SO_RCVBUF, "tuir", Both, "streams: the queue of connections made from then on. Others: the queue, from now on. As in Linux twice what was asked for"),
        row("SO_SNDBUF", SOL_SOCKET, libc::SO_SNDBUF, "tuir", Both, "streams: the queue of connections made from then on. Others: kept, for datagrams leave at once. As in Linux twice what was asked for"),
        row("SO_BROADCAST", SOL_SOCKET, libc::SO_BROADCAST, "tuir", Both, "kept; networks have no broadcast addresses, so sending to one fails with ENETUNREACH"),
        row("SO_BINDTODEVICE", SOL_SOCKET, libc::SO_BINDTODEVICE, "tuir", Both, "one network only, by its interface's name; before the socket is bound or connected, else EINVAL"),

        row("SO_OOBINLINE", SOL_SOCKET, libc::SO_OOBINLINE, "tuir", Kept(0), "urgent data is always in line"),
        row("SO_DONTROUTE", SOL_SOCKET, libc::SO_DONTROUTE, "tuir", Kept(0), "every member is one hop away"),
        row("SO_PRIORITY", SOL_SOCKET, libc::SO_PRIORITY, "tuir", Kept(0), "IP_TOS and IPV6_TCLASS say it to the peer"),
        row("SO_MARK", SOL_SOCKET, libc::SO_MARK, "tuir", Kept(0), "for the kernel's firewall"),
        row("SO_DEBUG", SOL_SOCKET, libc::SO_DEBUG, "tuir", Kept(0), "for the kernel's developers"),
        row("SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, "t", Kept(0), "streams have none on Linux either"),
        row("SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, "uir", Application, "the kernel's own: SCM_TIMESTAMP comes with each datagram, as of when the node has handed it over"),
        row("SO_TIMESTAMPNS", SOL_SOCKET, libc::SO_TIMESTAMPNS, "t", Kept(0), "as SO_TIMESTAMP"),
        row("SO_TIMESTAMPNS", SOL_SOCKET, libc::SO_TIMESTAMPNS, "uir", Application, "the kernel's own: SCM_TIMESTAMPNS, as above"),

        row("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, "t", Both, "small writes leave at once"),
        row("TCP_MAXSEG", IPPROTO_TCP, libc::TCP_MAXSEG, "t", Both, "the largest segment, 88 to 32767 bytes; asked for, the present one"),
        row("TCP_CORK", IPPROTO_TCP, libc::TCP_CORK, "t", Both, "a segment that is not full waits, 200 ms at most"),
        row("TCP_KEEPIDLE", IPPROTO_TCP, libc::TCP_KEEPIDLE, "t", Both, "seconds of silence before the first probe"),
        row("TCP_KEEPINTVL", IPPROTO_TCP, libc::TCP_KEEPINTVL, "t", Both, "seconds between two probes"),
        row("TCP_KEEPCNT", IPPROTO_TCP, libc::TCP_KEEPCNT, "t", Both, "probes without an answer until the peer is given up"),
        row("TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, "t", Both, "milliseconds that what was sent may stay unacknowledged"),
        row("TCP_INFO", IPPROTO_TCP, libc::TCP_INFO, "t", Get, "`struct tcp_info`; what the node does not count is 0"),
        row("TCP_QUICKACK", IPPROTO_TCP, libc::TCP_QUICKACK, "t", Both, "the next segments are acknowledged at once"),
        row("TCP_DEFER_ACCEPT", IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, "t", Both, "a connection can be accepted once data has come, or after so many seconds"),
        row("TCP_FASTOPEN_CONNECT", IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, "t", Kept(0), "no data goes with the handshake"),
        row("TCP_LINGER2", IPPROTO_TCP, libc::TCP_LINGER2, "t", Kept(60), "how long is the node's own choice"),
        row("TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, "t", Kept(0), "writability is the kernel's buffer's"),
        row("TCP_SYNCNT", IPPROTO_TCP, libc::TCP_SYNCNT, "t", Kept(6), "how often is the node's own choice"),
        row("TCP_WINDOW_CLAMP", IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, "t", Kept(0), "SO_RCVBUF bounds the window"),
        row("TCP_CONGESTION", IPPROTO_TCP, libc::TCP_CONGESTION, "t", Both, "`bbr`, `cubic` or `reno`; ENOENT for others"),

        row("IP_TTL", IPPROTO_IP, libc::IP_TTL, "tuir", Both, "1 to 255, or -1 for the default"),
        row("IP_TOS", IPPROTO_IP, libc::IP_TOS, "tuir", Both, "the traffic class; streams keep their two bits of ECN"),
        row("IP_MTU", IPPROTO_IP, libc::IP_MTU, "tuir", Get, "the path's, of a connected socket"),
        row("IP_MTU_DISCOVER", IPPROTO_IP, libc::IP_MTU_DISCOVER, "tuir", Both, "datagrams over the path's MTU: cut (DONT, WANT, OMIT) or refused with EMSGSIZE (DO, PROBE, INTERFACE)"),
        row("IP_MULTICAST_TTL", IPPROTO_IP, libc::IP_MULTICAST_TTL, "uir", Both, "0 to 255; with 0 datagrams to groups stay on the node"),
        row("IP_MULTICAST_LOOP", IPPROTO_IP, libc::IP_MULTICAST_LOOP, "uir", Both, "whether members on this node get them, too"),
        row("IP_MULTICAST_IF", IPPROTO_IP, libc::IP_MULTICAST_IF, "uir", Both, "by own address, or by index in an `ip_mreqn`"),
        row("IP_MULTICAST_ALL", IPPROTO_IP, IP_MULTICAST_ALL, "uir", Both, "0, and nothing else: a socket gets what goes to its own groups"),
        row("IP_ADD_MEMBERSHIP", IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, "ur", Set, "`ip_mreq` or `ip_mreqn`"),
        row("IP_DROP_MEMBERSHIP", IPPROTO_IP, libc::IP_DROP_MEMBERSHIP, "ur", Set, "as above"),
        row("IP_ADD_SOURCE_MEMBERSHIP", IPPROTO_IP, libc::IP_ADD_SOURCE_MEMBERSHIP, "ur", Set, "`ip_mreq_source`; 10 sources for each group, else ENOBUFS"),
        row("IP_DROP_SOURCE_MEMBERSHIP", IPPROTO_IP, libc::IP_DROP_SOURCE_MEMBERSHIP, "ur", Set, "`ip_mreq_source`"),
        row("IP_BLOCK_SOURCE", IPPROTO_IP, libc::IP_BLOCK_SOURCE, "ur", Set, "`ip_mreq_source`"),
        row("IP_UNBLOCK_SOURCE", IPPROTO_IP, libc::IP_UNBLOCK_SOURCE, "ur", Set, "`ip_mreq_source`"),
        row("MCAST_JOIN_GROUP", IPPROTO_IP, MCAST_JOIN_GROUP, "ur", Set, "`group_req`"),
        row("MCAST_LEAVE_GROUP", IPPROTO_IP, MCAST_LEAVE_GROUP, "ur", Set, "`group_req`"),
        row("MCAST_JOIN_SOURCE_GROUP", IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, "ur", Set, "`group_source_req`"),
        row("MCAST_LEAVE_SOURCE_GROUP", IPPROTO_IP, MCAST_LEAVE_SOURCE_GROUP, "ur", Set, "`group_source_req`"),
        row("MCAST_BLOCK_SOURCE", IPPROTO_IP, MCAST_BLOCK_SOURCE, "ur", Set, "`group_source_req`"),
        row("MCAST_UNBLOCK_SOURCE", IPPROTO_IP, MCAST_UNBLOCK_SOURCE, "ur", Set, "`group_source_req`"),
        row("IP_PKTINFO", IPPROTO_IP, libc::IP_PKTINFO, "uir", Both, "the own address and the interface come with each datagram"),
        row("IP_RECVTTL", IPPROTO_IP, libc::IP_RECVTTL, "uir", Both, "IP_TTL comes with each datagram"),
        row("IP_RECVTOS", IPPROTO_IP, libc::IP_RECVTOS, "uir", Both, "IP_TOS comes with each datagram"),
        row("IP_RECVERR", IPPROTO_IP, libc::IP_RECVERR, "tuir", Both, "ICMP errors are told, and wait for MSG_ERRQUEUE"),
        row("IP_HDRINCL", IPPROTO_IP, libc::IP_HDRINCL, "r", Both, "what is sent begins with an IPv4 header"),
        row("IP_FREEBIND", IPPROTO_IP, libc::IP_FREEBIND, "tuir", Kept(0), "foreign addresses cannot be bound all the same"),
        row("IP_BIND_ADDRESS_NO_PORT", IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, "tuir", Kept(0), "a port is taken at once"),
        row("IP_OPTIONS", IPPROTO_IP, libc::IP_OPTIONS, "tuir", Refused, "no packet has options"),
        row("ICMP_FILTER", IPPROTO_RAW, ICMP_FILTER, "r", Both, "the types below 32 that are not received, as a mask"),

        row("IPV6_V6ONLY", IPPROTO_IPV6, libc::IPV6_V6ONLY, "tuir", Both, "before the socket is bound, else EINVAL"),
        row("IPV6_UNICAST_HOPS", IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, "tuir", Both, "1 to 255, or -1 for the default"),
        row("IPV6_MULTICAST_HOPS", IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, "uir", Both, "0 to 255, or -1 for 1"),
        row("IPV6_MULTICAST_LOOP", IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, "uir", Both, "whether members on this node get them, too"),
        row("IPV6_MULTICAST_IF", IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, "uir", Both, "by index"),
        row("IPV6_MULTICAST_ALL", IPPROTO_IPV6, IPV6_MULTICAST_ALL, "uir", Both, "0, and nothing else"),
        row("IPV6_JOIN_GROUP", IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, "ur", Set, "`ipv6_mreq`"),
        row("IPV6_LEAVE_GROUP", IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP, "ur", Set, "`ipv6_mreq`"),
        row("MCAST_JOIN_GROUP", IPPROTO_IPV6, MCAST_JOIN_GROUP, "ur", Set, "`group_req`"),
        row("MCAST_LEAVE_GROUP", IPPROTO_IPV6, MCAST_LEAVE_GROUP, "ur", Set, "`group_req`"),
        row("MCAST_JOIN_SOURCE_GROUP", IPPROTO_IPV6, MCAST_JOIN_SOURCE_GROUP, "ur", Set, "`group_source_req`; 64 sources for each group, else ENOBUFS"),
        row("MCAST_LEAVE_SOURCE_GROUP", IPPROTO_IPV6, MCAST_LEAVE_SOURCE_GROUP, "ur", Set, "`group_source_req`"),
        row("MCAST_BLOCK_SOURCE", IPPROTO_IPV6, MCAST_BLOCK_SOURCE, "ur", Set, "`group_source_req`"),
        row("MCAST_UNBLOCK_SOURCE", IPPROTO_IPV6, MCAST_UNBLOCK_SOURCE, "ur", Set, "`group_source_req`"),
        row("IPV6_TCLASS", IPPROTO_IPV6, libc::IPV6_TCLASS, "tuir", Both, "the traffic class, or -1 for 0; streams keep their two bits of ECN"),
        row("IPV6_RECVPKTINFO", IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, "uir", Both, "IPV6_PKTINFO comes with each datagram"),
        row("IPV6_RECVHOPLIMIT", IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, "uir", Both, "IPV6_HOPLIMIT comes with each datagram"),
        row("IPV6_RECVTCLASS", IPPROTO_IPV6, libc::IPV6_RECVTCLASS, "uir", Both, "IPV6_TCLASS comes with each datagram"),
        row("IPV6_RECVERR", IPPROTO_IPV6, libc::IPV6_RECVERR, "tuir", Both, "ICMPv6 errors are told, and wait for MSG_ERRQUEUE"),
        row("IPV6_RECVPATHMTU", IPPROTO_IPV6, IPV6_RECVPATHMTU, "uir", Both, "after a datagram that was too long and must not be cut, an empty one comes with IPV6_PATHMTU"),
        row("IPV6_PKTINFO", IPPROTO_IPV6, libc::IPV6_PKTINFO, "uir", Both, "own address and interface of all datagrams, `in6_pktinfo`; zeros for none, EADDRNOTAVAIL if it is not this node's"),
        row("IPV6_NEXTHOP", IPPROTO_IPV6, IPV6_NEXTHOP, "tuir", Refused, "every member is one hop away"),
        row("IPV6_RTHDR", IPPROTO_IPV6, IPV6_RTHDR, "tuir", Refused, "nothing is sent with extension headers"),
        row("IPV6_HOPOPTS", IPPROTO_IPV6, IPV6_HOPOPTS, "tuir", Refused, "as IPV6_RTHDR"),
        row("IPV6_DSTOPTS", IPPROTO_IPV6, IPV6_DSTOPTS, "tuir", Refused, "as IPV6_RTHDR"),
        row("IPV6_RTHDRDSTOPTS", IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, "tuir", Refused, "as IPV6_RTHDR"),
        row("IPV6_RECVRTHDR", IPPROTO_IPV6, IPV6_RECVRTHDR, "uir", Kept(0), "the node takes extension headers out, and no datagram tells them"),
        row("IPV6_RECVHOPOPTS", IPPROTO_IPV6, IPV6_RECVHOPOPTS, "uir", Kept(0), "as IPV6_RECVRTHDR"),
        row("IPV6_RECVDSTOPTS", IPPROTO_IPV6, IPV6_RECVDSTOPTS, "uir", Kept(0), "as IPV6_RECVRTHDR"),
        row("IPV6_MTU", IPPROTO_IPV6, libc::IPV6_MTU, "tuir", Get, "the path's, of a connected socket"),
        row("IPV6_MTU_DISCOVER", IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, "tuir", Both, "as IP_MTU_DISCOVER"),
        row("IPV6_DONTFRAG", IPPROTO_IPV6, libc::IPV6_DONTFRAG, "uir", Both, "datagrams over the path's MTU are refused with EMSGSIZE"),
        row("IPV6_USE_MIN_MTU", IPPROTO_IPV6, IPV6_USE_MIN_MTU, "uir", Both, "63, which Linux does not have: with 1 datagrams over 1280 bytes leave in fragments, whatever the path takes; 0 and -1 (unless set) go by the path"),
        row("IPV6_PATHMTU", IPPROTO_IPV6, IPV6_PATHMTU, "uir", Get, "`ip6_mtuinfo`, of a connected socket"),
        row("IPV6_FREEBIND", IPPROTO_IPV6, libc::IPV6_FREEBIND, "tuir", Kept(0), "as IP_FREEBIND"),
        row("IPV6_CHECKSUM", IPPROTO_IPV6, IPV6_CHECKSUM, "r", Both, "where the checksum is, or -1"),
        row("IPV6_CHECKSUM", IPPROTO_RAW, IPV6_CHECKSUM, "r", Both, "as above"),
        row("ICMP6_FILTER", IPPROTO_ICMPV6, ICMP6_FILTER, "r", Both, "`icmp6_filter`"),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of the documentation.
    fn line(row: &Row) -> String {
        let sockets = ["t", "u", "i", "r"].into_iter().zip(["TCP", "UDP", "echo", "raw"]);
        let sockets: Vec<_> =
            sockets.filter(|(letter, _)| row.kinds.contains(letter)).map(|(_, name)| name).collect();
        let access = match row.access {
            Access::Both | Access::Application => "",
            Access::Kept(_) => "kept: ",
            Access::Set => "only set: ",
            Access::Get => "only asked for: ",
            Access::Refused => "refused: ",
        };
        let sockets = if sockets.len() == 4 { "all".into() } else { sockets.join(", ") };
        format!("| `{}` | {sockets} | {access}{} |", row.name, row.what)
    }

    #[test]
    fn the_documentation_has_the_same_table() {
        let text = include_str!("../../../docs/SOCKETS.md");
        let documented: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
        let known: Vec<_> = TABLE.iter().map(line).collect();
        assert_eq!(documented, known, "\n{}", known.join("\n"));
    }

    #[test]
    fn no_option_is_listed_twice() {
        for (at, row) in TABLE.iter().enumerate() {
            let same = |other: &Row| {
                let kinds = other.kinds.chars().any(|kind| row.kinds.contains(kind));
                (other.level, other.number) == (row.level, row.number) && kinds
            };
            assert!(!TABLE[at + 1..].iter().any(same), "{}", row.name);
        }
    }
}
