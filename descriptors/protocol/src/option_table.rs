//! The socket options that there are: who keeps each, and what has to be done where it is set. The only list
//! of them: `docs/SOCKETS.md` has the same table, and a test compares them.

use libc::{IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_RAW, IPPROTO_TCP, SOL_SOCKET};

use crate::name::{Family, Kind};

/// One option.
///
/// ```
/// use peersock_fd::option_table::{self, Access, Repeat};
/// use peersock_fd::{Family, Kind};
///
/// let row = option_table::find(Kind::Stream, Family::V4, libc::IPPROTO_TCP, libc::TCP_NODELAY).unwrap();
/// assert_eq!((row.name, row.access, row.repeat), ("TCP_NODELAY", Access::Both, Repeat::Unless(0)));
/// assert!(option_table::find(Kind::Datagram, Family::V4, libc::IPPROTO_TCP, libc::TCP_NODELAY).is_none());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What C calls it.
    pub name: &'static str,
    /// As getsockopt(2) has it.
    pub level: i32,
    /// As getsockopt(2) has it.
    pub number: i32,
    /// The sockets that have it: `t` streams, `u` datagrams, `i` echo, `r` raw.
    pub kinds: &'static str,
    /// Who keeps it, and what a program may do with it.
    pub access: Access,
    /// When a socket takes it over from the one whose place it takes.
    pub repeat: Repeat,
    /// Whether the kernel's listener of a server on both networks gets it, too.
    pub is_followed: bool,
    /// Whether setting it to a whole `int` cannot fail: for a connection the node is told, and nobody waits
    /// for an answer.
    pub is_told: bool,
    /// Whether who sets it needs CAP_NET_RAW, as in Linux.
    pub is_privileged: bool,
    /// What the application's end has to know of it.
    pub note: Note,
    /// What the documentation says of it.
    pub what: &'static str,
}

/// What can be done with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is set and asked for.
    Both,
    /// setsockopt(2) only.
    Set,
    /// getsockopt(2) only.
    Get,
    /// It is remembered, and this is its value before it is set. It means nothing here, or nothing that has
    /// to be asked for.
    Kept(i32),
    /// The kernel's AF_UNIX socket has it, at the application's end.
    Kernel,
    /// The application's end answers, without the node.
    Application,
    /// It is known, and refused with ENOPROTOOPT.
    Refused,
}

/// When a socket that takes the place of another, of the kernel's in most cases, gets the other's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Never.
    Never,
    /// Unless it is this `int`, with which sockets begin.
    Unless(i32),
    /// Unless it is all zeros; a value of so many bytes.
    UnlessZeros(usize),
    /// Unless it is what new sockets have, which depends on the system; a value of so many bytes.
    UnlessNew(usize),
    /// As above. What is asked for is half of what is told (socket(7)).
    Buffer,
    /// Unless it has no bytes; a value of any length.
    UnlessEmpty,
}

/// What the application's end notes of an option that is set, so that other calls need not ask the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Nothing.
    Nothing,
    /// Closing may have to wait.
    Linger,
    /// Datagrams may have to go whole or not at all, or have less room.
    Cutting,
}

impl Row {
    const fn repeated(self, repeat: Repeat) -> Self {
        Self { repeat, ..self }
    }

    const fn followed(self) -> Self {
        Self { is_followed: true, ..self }
    }

    const fn told(self) -> Self {
        Self { is_told: true, ..self }
    }

    const fn privileged(self) -> Self {
        Self { is_privileged: true, ..self }
    }

    const fn noted(self, note: Note) -> Self {
        Self { note, ..self }
    }
}

/// The row of an option, if such a socket has it.
pub fn find(kind: Kind, family: Family, level: i32, number: i32) -> Option<&'static Row> {
    // As Linux: IPv6 sockets have IPv4's options too, for mapped addresses.
    if level == IPPROTO_IPV6 && family == Family::V4 {
        return None;
    }
    let letter = letter_of(kind);
    TABLE.iter().find(|row| (row.level, row.number) == (level, number) && row.kinds.contains(letter))
}

/// The options that such sockets have.
pub fn of_kind(kind: Kind) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(move |row| row.kinds.contains(letter_of(kind)))
}

fn letter_of(kind: Kind) -> char {
    match kind {
        Kind::Stream => 't',
        Kind::Datagram => 'u',
        Kind::Echo => 'i',
        Kind::Raw(_) => 'r',
    }
}

/// Of `struct icmp_filter`, whose number libc does not name.
pub const ICMP_FILTER: i32 = 1;
/// As above.
pub const ICMP6_FILTER: i32 = 1;
/// As above (RFC 3542 3.1).
pub const IPV6_CHECKSUM: i32 = 7;
/// As above (RFC 3542 6.3).
pub const IPV6_PATHMTU: i32 = 61;
/// Linux's headers keep the number for it, its kernel does not know it (RFC 3542 11.1).
pub const IPV6_USE_MIN_MTU: i32 = 63;
/// As above (RFC 3542 6.2).
pub const IPV6_RECVPATHMTU: i32 = 60;
/// As above.
pub const IP_MULTICAST_ALL: i32 = 49;
/// As above.
pub const IPV6_MULTICAST_ALL: i32 = 29;
/// As above (RFC 3678).
pub const MCAST_JOIN_GROUP: i32 = 42;
/// As above.
pub const MCAST_BLOCK_SOURCE: i32 = 43;
/// As above.
pub const MCAST_UNBLOCK_SOURCE: i32 = 44;
/// As above.
pub const MCAST_LEAVE_GROUP: i32 = 45;
/// As above.
pub const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
/// As above.
pub const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
/// As above (RFC 3542 5).
pub const IPV6_RECVHOPOPTS: i32 = 53;
/// As above.
pub const IPV6_HOPOPTS: i32 = 54;
/// As above.
pub const IPV6_RTHDRDSTOPTS: i32 = 55;
/// As above.
pub const IPV6_RECVRTHDR: i32 = 56;
/// As above.
pub const IPV6_RTHDR: i32 = 57;
/// As above.
pub const IPV6_RECVDSTOPTS: i32 = 58;
/// As above.
pub const IPV6_DSTOPTS: i32 = 59;
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
    let (repeat, is_followed, is_told, is_privileged, note) =
        (Repeat::Never, false, false, false, Note::Nothing);
    Row { name, level, number, kinds, access, repeat, is_followed, is_told, is_privileged, note, what }
}

/// All that are known. Every other is refused with ENOPROTOOPT.
#[rustfmt::skip]
pub const TABLE: &[Row] = {
    use Access::{Application, Both, Get, Kept, Kernel, Refused, Set};
    use Repeat::{Buffer, Unless, UnlessEmpty, UnlessNew, UnlessZeros};
    &[
        row("SO_TYPE", SOL_SOCKET, libc::SO_TYPE, "tuir", Application, "what the socket was opened as"),
        row("SO_PROTOCOL", SOL_SOCKET, libc::SO_PROTOCOL, "tuir", Application, "what the socket was opened as"),
        row("SO_DOMAIN", SOL_SOCKET, libc::SO_DOMAIN, "tuir", Application, "what the socket was opened as"),
        row("SO_ERROR", SOL_SOCKET, libc::SO_ERROR, "tuir", Application, "what went wrong, once"),
        row("SO_ACCEPTCONN", SOL_SOCKET, libc::SO_ACCEPTCONN, "tuir", Kernel, "whether it listens"),
        row("SO_RCVTIMEO", SOL_SOCKET, libc::SO_RCVTIMEO, "tuir", Kernel, "the kernel's own").repeated(UnlessZeros(16)),
        row("SO_SNDTIMEO", SOL_SOCKET, libc::SO_SNDTIMEO, "tuir", Kernel, "the kernel's own; also limits connect").repeated(UnlessZeros(16)),
        row("SO_RCVLOWAT", SOL_SOCKET, libc::SO_RCVLOWAT, "tuir", Kernel, "the kernel's own").repeated(Unless(1)),
        row("SO_REUSEADDR", SOL_SOCKET, libc::SO_REUSEADDR, "tuir", Both, "streams: a port with connections in TIME-WAIT can be bound. Datagrams: sockets that all have it share an address, the youngest gets what comes, and each member its copy of what goes to a group").repeated(Unless(0)),
        row("SO_REUSEPORT", SOL_SOCKET, libc::SO_REUSEPORT, "tuir", Both, "sockets that all have it share a port, and each gets its share of the connections or datagrams, by the other end's address").repeated(Unless(0)),
        row("SO_KEEPALIVE", SOL_SOCKET, libc::SO_KEEPALIVE, "t", Both, "a silent peer is probed").repeated(Unless(0)).followed().told(),
        row("SO_LINGER", SOL_SOCKET, libc::SO_LINGER, "tuir", Both, "streams: with 0 seconds closing resets the connection; with more `peersock_close`, and `close` under `peersock run`, wait until what was written is acknowledged. Others: kept").repeated(UnlessZeros(8)).followed().noted(Note::Linger),
        row("SO_RCVBUF", SOL_SOCKET, libc::SO_RCVBUF, "tuir", Both, "streams: the queue of connections made from then on. Others: the queue, from now on. As in Linux twice what was asked for").repeated(Buffer).followed(),
        row("SO_SNDBUF", SOL_SOCKET, libc::SO_SNDBUF, "tuir", Both, "streams: the queue of connections made from then on. Others: kept, for datagrams leave at once. As in Linux twice what was asked for").repeated(Buffer).followed(),
        row("SO_BROADCAST", SOL_SOCKET, libc::SO_BROADCAST, "tuir", Both, "kept; networks have no broadcast addresses, so sending to one fails with ENETUNREACH").repeated(Unless(0)),
        row("SO_BINDTODEVICE", SOL_SOCKET, libc::SO_BINDTODEVICE, "tuir", Both, "one network only, by its interface's name; before the socket is bound or connected, else EINVAL"),

        row("SO_OOBINLINE", SOL_SOCKET, libc::SO_OOBINLINE, "tuir", Kept(0), "urgent data is always in line").repeated(Unless(0)),
        row("SO_DONTROUTE", SOL_SOCKET, libc::SO_DONTROUTE, "tuir", Kept(0), "every member is one hop away").repeated(Unless(0)),
        row("SO_PRIORITY", SOL_SOCKET, libc::SO_PRIORITY, "tuir", Kept(0), "IP_TOS and IPV6_TCLASS say it to the peer").repeated(Unless(0)),
        row("SO_MARK", SOL_SOCKET, libc::SO_MARK, "tuir", Kept(0), "for the kernel's firewall").repeated(Unless(0)),
        row("SO_DEBUG", SOL_SOCKET, libc::SO_DEBUG, "tuir", Kept(0), "for the kernel's developers").repeated(Unless(0)),
        row("SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, "t", Kept(0), "streams have none on Linux either").repeated(Unless(0)),
        row("SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, "uir", Kernel, "the kernel's own: SCM_TIMESTAMP comes with each datagram, as of when the node has handed it over").repeated(Unless(0)),
        row("SO_TIMESTAMPNS", SOL_SOCKET, libc::SO_TIMESTAMPNS, "t", Kept(0), "as SO_TIMESTAMP").repeated(Unless(0)),
        row("SO_TIMESTAMPNS", SOL_SOCKET, libc::SO_TIMESTAMPNS, "uir", Kernel, "the kernel's own: SCM_TIMESTAMPNS, as above").repeated(Unless(0)),

        row("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, "t", Both, "small writes leave at once").repeated(Unless(0)).followed().told(),
        row("TCP_MAXSEG", IPPROTO_TCP, libc::TCP_MAXSEG, "t", Both, "the largest segment, 88 to 32767 bytes; asked for, the present one").repeated(UnlessNew(4)),
        row("TCP_CORK", IPPROTO_TCP, libc::TCP_CORK, "t", Both, "a segment that is not full waits, 200 ms at most").repeated(Unless(0)).followed(),
        row("TCP_KEEPIDLE", IPPROTO_TCP, libc::TCP_KEEPIDLE, "t", Both, "seconds of silence before the first probe").repeated(Unless(7200)).followed(),
        row("TCP_KEEPINTVL", IPPROTO_TCP, libc::TCP_KEEPINTVL, "t", Both, "seconds between two probes").repeated(Unless(75)).followed(),
        row("TCP_KEEPCNT", IPPROTO_TCP, libc::TCP_KEEPCNT, "t", Both, "probes without an answer until the peer is given up; TCP_USER_TIMEOUT, if set, decides instead").repeated(Unless(9)).followed(),
        row("TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, "t", Both, "milliseconds that what was sent may stay unacknowledged (also a SYN: it limits connect), and that the peer may have no room; with SO_KEEPALIVE that the peer may be silent, and one that answers may have no room for longer (Linux's may not)").repeated(Unless(0)).followed(),
        row("TCP_INFO", IPPROTO_TCP, libc::TCP_INFO, "t", Get, "`struct tcp_info`; what the node does not count is 0"),
        row("TCP_QUICKACK", IPPROTO_TCP, libc::TCP_QUICKACK, "t", Both, "the next segments are acknowledged at once").repeated(Unless(1)).told(),
        row("TCP_DEFER_ACCEPT", IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, "t", Both, "a connection can be accepted once data has come, or after so many seconds").repeated(Unless(0)),
        row("TCP_FASTOPEN_CONNECT", IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, "t", Kept(0), "no data goes with the handshake"),
        row("TCP_LINGER2", IPPROTO_TCP, libc::TCP_LINGER2, "t", Kept(60), "how long is the node's own choice").repeated(UnlessNew(4)),
        row("TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, "t", Kept(0), "writability is the kernel's buffer's").repeated(Unless(0)),
        row("TCP_SYNCNT", IPPROTO_TCP, libc::TCP_SYNCNT, "t", Kept(6), "how often is the node's own choice").repeated(UnlessNew(4)),
        row("TCP_WINDOW_CLAMP", IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, "t", Kept(0), "SO_RCVBUF bounds the window").repeated(Unless(0)),
        row("TCP_CONGESTION", IPPROTO_TCP, libc::TCP_CONGESTION, "t", Both, "`bbr`, `cubic` or `reno`; ENOENT for others").repeated(UnlessNew(16)),

        row("IP_TTL", IPPROTO_IP, libc::IP_TTL, "tuir", Both, "1 to 255, or -1 for the default").repeated(Unless(64)),
        row("IP_TOS", IPPROTO_IP, libc::IP_TOS, "tuir", Both, "the traffic class; streams keep their two bits of ECN").repeated(Unless(0)),
        row("IP_MTU", IPPROTO_IP, libc::IP_MTU, "tuir", Get, "the path's, of a connected socket"),
        row("IP_MTU_DISCOVER", IPPROTO_IP, libc::IP_MTU_DISCOVER, "tuir", Both, "datagrams over the path's MTU: cut (DONT, WANT, OMIT) or refused with EMSGSIZE (DO, PROBE, INTERFACE)").repeated(Unless(libc::IP_PMTUDISC_WANT)).noted(Note::Cutting),
        row("IP_MULTICAST_TTL", IPPROTO_IP, libc::IP_MULTICAST_TTL, "uir", Both, "0 to 255; with 0 datagrams to groups stay on the node").repeated(Unless(1)),
        row("IP_MULTICAST_LOOP", IPPROTO_IP, libc::IP_MULTICAST_LOOP, "uir", Both, "whether members on this node get them, too").repeated(Unless(1)),
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
        row("IP_PKTINFO", IPPROTO_IP, libc::IP_PKTINFO, "uir", Both, "the own address and the interface come with each datagram").repeated(Unless(0)),
        row("IP_RECVTTL", IPPROTO_IP, libc::IP_RECVTTL, "uir", Both, "IP_TTL comes with each datagram").repeated(Unless(0)),
        row("IP_RECVTOS", IPPROTO_IP, libc::IP_RECVTOS, "uir", Both, "IP_TOS comes with each datagram").repeated(Unless(0)),
        row("IP_RECVERR", IPPROTO_IP, libc::IP_RECVERR, "tuir", Both, "ICMP errors are told, and wait for MSG_ERRQUEUE").repeated(Unless(0)),
        row("IP_HDRINCL", IPPROTO_IP, libc::IP_HDRINCL, "r", Both, "what is sent begins with an IPv4 header").repeated(Unless(0)),
        row("IP_FREEBIND", IPPROTO_IP, libc::IP_FREEBIND, "tuir", Kept(0), "foreign addresses cannot be bound all the same").repeated(Unless(0)),
        row("IP_BIND_ADDRESS_NO_PORT", IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, "tuir", Kept(0), "a port is taken at once").repeated(Unless(0)),
        row("IP_OPTIONS", IPPROTO_IP, libc::IP_OPTIONS, "tuir", Refused, "no packet has options"),
        row("ICMP_FILTER", IPPROTO_RAW, ICMP_FILTER, "r", Both, "the types below 32 that are not received, as a mask").repeated(UnlessZeros(4)),

        row("IPV6_V6ONLY", IPPROTO_IPV6, libc::IPV6_V6ONLY, "tuir", Both, "before the socket is bound, else EINVAL").repeated(Unless(0)),
        row("IPV6_UNICAST_HOPS", IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, "tuir", Both, "1 to 255, or -1 for the default").repeated(Unless(64)),
        row("IPV6_MULTICAST_HOPS", IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, "uir", Both, "0 to 255, or -1 for 1").repeated(Unless(1)),
        row("IPV6_MULTICAST_LOOP", IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, "uir", Both, "whether members on this node get them, too").repeated(Unless(1)),
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
        row("IPV6_TCLASS", IPPROTO_IPV6, libc::IPV6_TCLASS, "tuir", Both, "the traffic class, or -1 for 0; streams keep their two bits of ECN").repeated(Unless(0)),
        row("IPV6_RECVPKTINFO", IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, "uir", Both, "IPV6_PKTINFO comes with each datagram").repeated(Unless(0)),
        row("IPV6_RECVHOPLIMIT", IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, "uir", Both, "IPV6_HOPLIMIT comes with each datagram").repeated(Unless(0)),
        row("IPV6_RECVTCLASS", IPPROTO_IPV6, libc::IPV6_RECVTCLASS, "uir", Both, "IPV6_TCLASS comes with each datagram").repeated(Unless(0)),
        row("IPV6_RECVERR", IPPROTO_IPV6, libc::IPV6_RECVERR, "tuir", Both, "ICMPv6 errors are told, and wait for MSG_ERRQUEUE").repeated(Unless(0)),
        row("IPV6_RECVPATHMTU", IPPROTO_IPV6, IPV6_RECVPATHMTU, "uir", Both, "after a datagram that was too long and must not be cut, an empty one comes with IPV6_PATHMTU").repeated(Unless(0)),
        row("IPV6_PKTINFO", IPPROTO_IPV6, libc::IPV6_PKTINFO, "uir", Both, "own address and interface of all datagrams, `in6_pktinfo`; zeros for none, EADDRNOTAVAIL if it is not this node's"),
        row("IPV6_NEXTHOP", IPPROTO_IPV6, IPV6_NEXTHOP, "tuir", Refused, "every member is one hop away"),
        row("IPV6_RTHDR", IPPROTO_IPV6, IPV6_RTHDR, "t", Refused, "streams leave without extension headers"),
        row("IPV6_RTHDR", IPPROTO_IPV6, IPV6_RTHDR, "uir", Both, "a routing header of type 2 or 4 for all datagrams; no bytes for none").repeated(UnlessEmpty).noted(Note::Cutting),
        row("IPV6_HOPOPTS", IPPROTO_IPV6, IPV6_HOPOPTS, "t", Refused, "as IPV6_RTHDR"),
        row("IPV6_HOPOPTS", IPPROTO_IPV6, IPV6_HOPOPTS, "uir", Both, "hop-by-hop options for all datagrams; EPERM without CAP_NET_RAW").repeated(UnlessEmpty).privileged().noted(Note::Cutting),
        row("IPV6_DSTOPTS", IPPROTO_IPV6, IPV6_DSTOPTS, "t", Refused, "as IPV6_RTHDR"),
        row("IPV6_DSTOPTS", IPPROTO_IPV6, IPV6_DSTOPTS, "uir", Both, "destination options for all datagrams; EPERM without CAP_NET_RAW").repeated(UnlessEmpty).privileged().noted(Note::Cutting),
        row("IPV6_RTHDRDSTOPTS", IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, "t", Refused, "as IPV6_RTHDR"),
        row("IPV6_RTHDRDSTOPTS", IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, "uir", Both, "those in front of a routing header, and only with one; EPERM without CAP_NET_RAW").repeated(UnlessEmpty).privileged().noted(Note::Cutting),
        row("IPV6_RECVRTHDR", IPPROTO_IPV6, IPV6_RECVRTHDR, "uir", Both, "IPV6_RTHDR comes with each datagram that has one").repeated(Unless(0)),
        row("IPV6_RECVHOPOPTS", IPPROTO_IPV6, IPV6_RECVHOPOPTS, "uir", Both, "IPV6_HOPOPTS comes with each datagram that has them").repeated(Unless(0)),
        row("IPV6_RECVDSTOPTS", IPPROTO_IPV6, IPV6_RECVDSTOPTS, "uir", Both, "IPV6_DSTOPTS comes with each datagram, once for each header of them").repeated(Unless(0)),
        row("IPV6_MTU", IPPROTO_IPV6, libc::IPV6_MTU, "tuir", Get, "the path's, of a connected socket"),
        row("IPV6_MTU_DISCOVER", IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, "tuir", Both, "as IP_MTU_DISCOVER").repeated(Unless(libc::IPV6_PMTUDISC_WANT)).noted(Note::Cutting),
        row("IPV6_DONTFRAG", IPPROTO_IPV6, libc::IPV6_DONTFRAG, "uir", Both, "datagrams over the path's MTU are refused with EMSGSIZE").repeated(Unless(0)).noted(Note::Cutting),
        row("IPV6_USE_MIN_MTU", IPPROTO_IPV6, IPV6_USE_MIN_MTU, "uir", Both, "63, which Linux does not have: with 1 datagrams over 1280 bytes leave in fragments, whatever the path takes; 0 and -1 (unless set) go by the path"),
        row("IPV6_PATHMTU", IPPROTO_IPV6, IPV6_PATHMTU, "uir", Get, "`ip6_mtuinfo`, of a connected socket"),
        row("IPV6_FREEBIND", IPPROTO_IPV6, libc::IPV6_FREEBIND, "tuir", Kept(0), "as IP_FREEBIND").repeated(Unless(0)),
        row("IPV6_CHECKSUM", IPPROTO_IPV6, IPV6_CHECKSUM, "r", Both, "where the checksum is, or -1").repeated(Unless(-1)),
        row("IPV6_CHECKSUM", IPPROTO_RAW, IPV6_CHECKSUM, "r", Both, "as above"),
        row("ICMP6_FILTER", IPPROTO_ICMPV6, ICMP6_FILTER, "r", Both, "`icmp6_filter`").repeated(UnlessZeros(32)),
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
            Access::Both | Access::Application | Access::Kernel => "",
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
