//! Table of the socket options: which side keeps each, and the consequences of setting it. It is the only
//! list of them; a test compares it with the table in `docs/reference/SOCKETS.md`.
//!
//! # To add an option
//!
//! 1. Add its row to [`TABLE`]. C, Python, `peersock run` and [`Socket`](crate::Socket) have it then, because
//!    their calls take level and number, and look for the row.
//! 2. If the node keeps its value ([`Access::Both`], [`Access::Get`]), add its two functions to the table in
//!    `sockets/server/src/options/table.rs`, and a field with the initial value to `Options` beside it. The
//!    other kinds of access need none.
//! 3. Copy its line into `docs/reference/SOCKETS.md`; the test prints it.
//!
//! Tests fail if a row lacks its functions, or if an initial value cannot be set again. Only an option that
//! Rust programs set by name needs more: a method in `src/socket/options.rs`, which is written once for
//! `peersock::TcpStream` and `peersock::blocking::TcpStream`.

use libc::{IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_RAW, IPPROTO_TCP, IPPROTO_UDP, SOL_SOCKET};

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
    /// Its name in C.
    pub name: &'static str,
    /// Its level for getsockopt(2).
    pub level: i32,
    /// Its number for getsockopt(2).
    pub number: i32,
    /// The sockets that have it: `t` streams, `u` datagrams, `i` echo, `r` raw.
    pub kinds: &'static str,
    /// The side that keeps it, and the operations allowed to a program.
    pub access: Access,
    /// Condition under which a replacement socket takes its value over.
    pub repeat: Repeat,
    /// True if the kernel listener of a server on both networks gets it, too.
    pub is_followed: bool,
    /// True if setting it to a whole `int` cannot fail. On a connection the library then notifies the node
    /// without waiting for an answer.
    pub is_told: bool,
    /// True if it is also refused on kernel sockets that may become overlay sockets. The option would be lost
    /// then, without an error.
    pub is_refused_early: bool,
    /// True if setting it needs CAP_NET_RAW, as in Linux.
    pub is_privileged: bool,
    /// The application's end's note of it.
    pub note: Note,
    /// Its description in the documentation.
    pub what: &'static str,
}

/// Operations that an option supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Set and read.
    Both,
    /// setsockopt(2) only.
    Set,
    /// getsockopt(2) only.
    Get,
    /// Stored, with this initial value, but without effect here, or with one that needs no request.
    Kept(i32),
    /// getsockopt(2) only, with this constant value.
    Fixed(i32),
    /// Accepted without effect, as in Linux: the value is always 0.
    Ignored,
    /// The AF_UNIX socket at the application's end has it.
    Kernel,
    /// The application's end answers, without the node.
    Application,
    /// Known, and refused with ENOPROTOOPT.
    Refused,
}

/// Condition under which a socket that replaces another, usually a kernel socket, gets the other's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Never.
    Never,
    /// Unless it is this `int`, the initial value.
    Unless(i32),
    /// Unless it is all zeros; a value of this length, bytes.
    UnlessZeros(usize),
    /// Unless it is the value of new sockets, which depends on the system; a value of this length, bytes.
    UnlessNew(usize),
    /// As above. The value to set is half of the value read (socket(7)).
    Buffer,
    /// Unless it has no bytes; a value of any length.
    UnlessEmpty,
}

/// Note that the application's end takes when an option is set, so that other calls need not ask the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// No note.
    Nothing,
    /// Closing may have to wait.
    Linger,
    /// Datagrams may be forbidden to be fragmented, or have less room.
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

    const fn early(self) -> Self {
        Self { is_refused_early: true, ..self }
    }

    const fn noted(self, note: Note) -> Self {
        Self { note, ..self }
    }
}

/// Returns the row of an option, if such a socket has it.
pub fn find(kind: Kind, family: Family, level: i32, number: i32) -> Option<&'static Row> {
    // As Linux: IPv6 sockets have IPv4's options too, for mapped addresses.
    if level == IPPROTO_IPV6 && family == Family::V4 {
        return None;
    }
    let letter = letter_of(kind);
    TABLE.iter().find(|row| (row.level, row.number) == (level, number) && row.kinds.contains(letter))
}

/// Returns true if an option must be refused on a kernel socket that may become an overlay socket.
pub fn is_refused_early(level: i32, number: i32) -> bool {
    TABLE.iter().any(|row| row.is_refused_early && (row.level, row.number) == (level, number))
}

/// Returns the options that such sockets have.
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

/// Number of `struct icmp_filter`, which libc does not name.
pub const ICMP_FILTER: i32 = 1;
/// As above.
pub const ICMP6_FILTER: i32 = 1;
/// As above (RFC 3542 3.1).
pub const IPV6_CHECKSUM: i32 = 7;
/// As above (RFC 3542 6.3).
pub const IPV6_PATHMTU: i32 = 61;
/// Linux's headers define the number, but the kernel does not implement it (RFC 3542 11.1).
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
/// As above.
pub const SO_BINDTOIFINDEX: i32 = 62;

/// Level of the options that only peersock has; Linux has none with this number.
pub const SOL_PEERSOCK: i32 = 0x7073;
/// Number of the option that tells who is at the other end.
pub const PEERSOCK_PEER: i32 = 1;

const fn row(
    name: &'static str,
    level: i32,
    number: i32,
    kinds: &'static str,
    access: Access,
    what: &'static str,
) -> Row {
    Row {
        name,
        level,
        number,
        kinds,
        access,
        what,
        repeat: Repeat::Never,
        is_followed: false,
        is_told: false,
        is_refused_early: false,
        is_privileged: false,
        note: Note::Nothing,
    }
}

/// All options that Linux 6.18 knows. Every other is refused with ENOPROTOOPT.
#[rustfmt::skip]
pub const TABLE: &[Row] = {
    use Access::{Application, Both, Fixed, Get, Ignored, Kept, Kernel, Refused, Set};
    use Repeat::{Buffer, Unless, UnlessEmpty, UnlessNew, UnlessZeros};
    &[
        row("SO_TYPE", SOL_SOCKET, libc::SO_TYPE, "tuir", Application, "what the socket was opened as"),
        row("SO_PROTOCOL", SOL_SOCKET, libc::SO_PROTOCOL, "tuir", Application, "what the socket was opened as"),
        row("SO_DOMAIN", SOL_SOCKET, libc::SO_DOMAIN, "tuir", Application, "what the socket was opened as"),
        row("SO_ERROR", SOL_SOCKET, libc::SO_ERROR, "tuir", Application, "what went wrong, once"),
        row("SO_ACCEPTCONN", SOL_SOCKET, libc::SO_ACCEPTCONN, "tuir", Kernel, "whether it listens"),
        row("SO_RCVTIMEO", SOL_SOCKET, libc::SO_RCVTIMEO, "tuir", Kernel, "the kernel handles it").repeated(UnlessZeros(16)),
        row("SO_SNDTIMEO", SOL_SOCKET, libc::SO_SNDTIMEO, "tuir", Kernel, "the kernel handles it; also limits connect").repeated(UnlessZeros(16)),
        row("SO_RCVLOWAT", SOL_SOCKET, libc::SO_RCVLOWAT, "tuir", Kernel, "the kernel handles it").repeated(Unless(1)),
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
        row("SO_MARK", SOL_SOCKET, libc::SO_MARK, "tuir", Kept(0), "for the kernel firewall").repeated(Unless(0)),
        row("SO_DEBUG", SOL_SOCKET, libc::SO_DEBUG, "tuir", Kept(0), "for kernel developers").repeated(Unless(0)),
        row("SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, "t", Kept(0), "a stream's data comes without a time").repeated(Unless(0)),
        row("SO_TIMESTAMP", SOL_SOCKET, libc::SO_TIMESTAMP, "uir", Kernel, "the kernel handles it: SCM_TIMESTAMP comes with each datagram, as of when the node has handed it over").repeated(Unless(0)),
        row("SO_TIMESTAMPNS", SOL_SOCKET, libc::SO_TIMESTAMPNS, "t", Kept(0), "as SO_TIMESTAMP").repeated(Unless(0)),
        row("SO_TIMESTAMPNS", SOL_SOCKET, libc::SO_TIMESTAMPNS, "uir", Kernel, "the kernel handles it: SCM_TIMESTAMPNS, as above").repeated(Unless(0)),
        row("SO_BINDTOIFINDEX", SOL_SOCKET, SO_BINDTOIFINDEX, "tuir", Both, "as SO_BINDTODEVICE, by the index of its interface"),
        row("SO_PEERCRED", SOL_SOCKET, 17, "tuir", Application, "no process in particular, as in Linux: 0, -1 and -1"),
        row("SO_COOKIE", SOL_SOCKET, 57, "tuir", Kernel, "that of the kernel socket, until the descriptor gets another one"),
        row("SO_NETNS_COOKIE", SOL_SOCKET, 71, "tuir", Kernel, "the kernel handles it"),
        row("SO_PEEK_OFF", SOL_SOCKET, 42, "tu", Kernel, "the kernel handles it").repeated(Unless(-1)),
        row("SO_RCVTIMEO_NEW", SOL_SOCKET, 66, "tuir", Kernel, "as SO_RCVTIMEO"),
        row("SO_SNDTIMEO_NEW", SOL_SOCKET, 67, "tuir", Kernel, "as SO_SNDTIMEO"),
        row("SO_SNDLOWAT", SOL_SOCKET, 19, "tuir", Fixed(1), "always 1, as in Linux"),
        row("SO_BPF_EXTENSIONS", SOL_SOCKET, 48, "tuir", Fixed(64), "always 64, as in Linux"),
        row("SO_INCOMING_NAPI_ID", SOL_SOCKET, 56, "tuir", Fixed(0), "packets come from no device"),
        row("SO_BSDCOMPAT", SOL_SOCKET, 14, "tuir", Ignored, "does nothing in Linux either"),
        row("SO_KEEPALIVE", SOL_SOCKET, 9, "uir", Kept(0), "as in Linux, which has it on all sockets").repeated(Unless(0)),
        row("SO_NO_CHECK", SOL_SOCKET, 11, "tuir", Kept(0), "packets are authenticated").repeated(Unless(0)),
        row("SO_INCOMING_CPU", SOL_SOCKET, 49, "tuir", Kept(-1), "packets are for no processor in particular").repeated(Unless(-1)),
        row("SO_BUSY_POLL", SOL_SOCKET, 46, "tuir", Kept(0), "the node decides about it for all sockets (`--busy-poll`)").repeated(Unless(0)),
        row("SO_PREFER_BUSY_POLL", SOL_SOCKET, 69, "tuir", Kept(0), "as SO_BUSY_POLL").repeated(Unless(0)),
        row("SO_TXREHASH", SOL_SOCKET, 74, "t", Kept(1), "the overlay chooses paths by itself").repeated(Unless(1)),
        row("SO_ZEROCOPY", SOL_SOCKET, 60, "tuir", Refused, "what is sent is always copied, and nothing tells of completions").early(),
        row("SO_TXTIME", SOL_SOCKET, 61, "tuir", Refused, "datagrams leave at once").early(),
        row("SO_TIMESTAMPING", SOL_SOCKET, 37, "tuir", Refused, "SO_TIMESTAMP and SO_TIMESTAMPNS tell when datagrams come").early(),
        row("SO_TIMESTAMP_NEW", SOL_SOCKET, 63, "tuir", Refused, "as SO_TIMESTAMPING").early(),
        row("SO_TIMESTAMPNS_NEW", SOL_SOCKET, 64, "tuir", Refused, "as SO_TIMESTAMPING").early(),
        row("SO_TIMESTAMPING_NEW", SOL_SOCKET, 65, "tuir", Refused, "as SO_TIMESTAMPING").early(),
        row("SO_RXQ_OVFL", SOL_SOCKET, 40, "tuir", Refused, "datagrams do not tell how many were dropped before").early(),
        row("SO_MAX_PACING_RATE", SOL_SOCKET, 47, "tuir", Refused, "congestion control decides how fast data leaves").early(),
        row("SO_ATTACH_FILTER", SOL_SOCKET, 26, "tuir", Refused, "no program runs for packets").early(),
        row("SO_ATTACH_BPF", SOL_SOCKET, 50, "tuir", Refused, "as SO_ATTACH_FILTER").early(),
        row("SO_ATTACH_REUSEPORT_CBPF", SOL_SOCKET, 51, "tuir", Refused, "as SO_ATTACH_FILTER").early(),
        row("SO_ATTACH_REUSEPORT_EBPF", SOL_SOCKET, 52, "tuir", Refused, "as SO_ATTACH_FILTER").early(),
        row("SO_DETACH_FILTER", SOL_SOCKET, 27, "tuir", Refused, "as SO_ATTACH_FILTER"),
        row("SO_DETACH_REUSEPORT_BPF", SOL_SOCKET, 68, "tuir", Refused, "as SO_ATTACH_FILTER"),
        row("SO_LOCK_FILTER", SOL_SOCKET, 44, "tuir", Refused, "as SO_ATTACH_FILTER").early(),
        row("SO_WIFI_STATUS", SOL_SOCKET, 41, "tuir", Refused, "packets come from no device").early(),
        row("SO_NOFCS", SOL_SOCKET, 43, "tuir", Refused, "as SO_WIFI_STATUS").early(),
        row("SO_RCVMARK", SOL_SOCKET, 75, "tuir", Refused, "packets have no marks").early(),
        row("SO_RCVPRIORITY", SOL_SOCKET, 82, "tuir", Refused, "packets have no priorities").early(),
        row("SO_SELECT_ERR_QUEUE", SOL_SOCKET, 45, "tuir", Refused, "what waits for MSG_ERRQUEUE is told by POLLIN or POLLERR").early(),
        row("SO_SNDBUFFORCE", SOL_SOCKET, 32, "tuir", Refused, "SO_SNDBUF sets as much"),
        row("SO_RCVBUFFORCE", SOL_SOCKET, 33, "tuir", Refused, "SO_RCVBUF sets as much"),
        row("SO_BUF_LOCK", SOL_SOCKET, 72, "tuir", Refused, "the queues of streams grow by themselves"),
        row("SO_RESERVE_MEM", SOL_SOCKET, 73, "tuir", Refused, "memory is the node's"),
        row("SO_MEMINFO", SOL_SOCKET, 55, "tuir", Refused, "as SO_RESERVE_MEM"),
        row("SO_CNX_ADVICE", SOL_SOCKET, 53, "tuir", Refused, "the overlay finds out by itself whether a path works"),
        row("SO_BUSY_POLL_BUDGET", SOL_SOCKET, 70, "tuir", Refused, "as SO_BUSY_POLL"),
        row("SO_PASSCRED", SOL_SOCKET, 16, "tuir", Refused, "peers are on other machines"),
        row("SO_PASSSEC", SOL_SOCKET, 34, "tuir", Refused, "as SO_PASSCRED"),
        row("SO_PASSPIDFD", SOL_SOCKET, 76, "tuir", Refused, "as SO_PASSCRED"),
        row("SO_PASSRIGHTS", SOL_SOCKET, 83, "tuir", Refused, "as SO_PASSCRED"),
        row("SO_PEERNAME", SOL_SOCKET, 28, "tuir", Refused, "getpeername(2) tells it"),
        row("SO_PEERSEC", SOL_SOCKET, 31, "tuir", Refused, "as SO_PASSCRED"),
        row("SO_PEERGROUPS", SOL_SOCKET, 59, "tuir", Refused, "as SO_PASSCRED"),
        row("SO_PEERPIDFD", SOL_SOCKET, 77, "tuir", Refused, "as SO_PASSCRED"),
        row("SO_DEVMEM_DONTNEED", SOL_SOCKET, 80, "tuir", Refused, "data is in no device"),

        row("PEERSOCK_PEER", SOL_PEERSOCK, PEERSOCK_PEER, "tu", Get, "level 28787 and number 1, which Linux does not have: who is at the other end, as JSON; also after the connection has ended"),

        row("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, "t", Both, "small writes leave at once").repeated(Unless(0)).followed().told(),
        row("TCP_MAXSEG", IPPROTO_TCP, libc::TCP_MAXSEG, "t", Both, "the largest segment, 88 to 32767 bytes; asked for, the present one").repeated(UnlessNew(4)),
        row("TCP_CORK", IPPROTO_TCP, libc::TCP_CORK, "t", Both, "a segment that is not full waits, 200 ms at most").repeated(Unless(0)).followed(),
        row("TCP_KEEPIDLE", IPPROTO_TCP, libc::TCP_KEEPIDLE, "t", Both, "seconds of silence before the first probe").repeated(Unless(7200)).followed(),
        row("TCP_KEEPINTVL", IPPROTO_TCP, libc::TCP_KEEPINTVL, "t", Both, "seconds between two probes").repeated(Unless(75)).followed(),
        row("TCP_KEEPCNT", IPPROTO_TCP, libc::TCP_KEEPCNT, "t", Both, "probes without an answer until the peer is given up; TCP_USER_TIMEOUT, if set, decides instead").repeated(Unless(9)).followed(),
        row("TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, "t", Both, "milliseconds that sent data may stay unacknowledged (also a SYN: it limits connect), and that the peer may have no room; with SO_KEEPALIVE, that the peer may be silent").repeated(Unless(0)).followed(),
        row("TCP_INFO", IPPROTO_TCP, libc::TCP_INFO, "t", Get, "`struct tcp_info`; what the node does not count is 0"),
        row("TCP_QUICKACK", IPPROTO_TCP, libc::TCP_QUICKACK, "t", Both, "the next segments are acknowledged at once").repeated(Unless(1)).told(),
        row("TCP_DEFER_ACCEPT", IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, "t", Both, "a connection can be accepted once data has come, or after that number of seconds").repeated(Unless(0)),
        row("TCP_FASTOPEN_CONNECT", IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, "t", Kept(0), "no data goes with the handshake").repeated(Unless(0)),
        row("TCP_LINGER2", IPPROTO_TCP, libc::TCP_LINGER2, "t", Kept(60), "how long is the node's own choice").repeated(UnlessNew(4)),
        row("TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, "t", Kept(0), "the kernel buffer decides writability").repeated(Unless(0)),
        row("TCP_SYNCNT", IPPROTO_TCP, libc::TCP_SYNCNT, "t", Kept(6), "how often is the node's own choice").repeated(UnlessNew(4)),
        row("TCP_WINDOW_CLAMP", IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, "t", Kept(0), "SO_RCVBUF bounds the window").repeated(Unless(0)),
        row("TCP_CONGESTION", IPPROTO_TCP, libc::TCP_CONGESTION, "t", Both, "`bbr`, `cubic` or `reno`; ENOENT for others").repeated(UnlessNew(16)),
        row("TCP_FASTOPEN", IPPROTO_TCP, 23, "t", Kept(0), "no data comes with the handshake").repeated(Unless(0)),
        row("TCP_FASTOPEN_NO_COOKIE", IPPROTO_TCP, 34, "t", Kept(0), "as TCP_FASTOPEN").repeated(Unless(0)),
        row("TCP_THIN_LINEAR_TIMEOUTS", IPPROTO_TCP, 16, "t", Kept(0), "how losses are found is the node's own choice").repeated(Unless(0)),
        row("TCP_THIN_DUPACK", IPPROTO_TCP, 17, "t", Ignored, "does nothing in Linux either"),
        row("TCP_IS_MPTCP", IPPROTO_TCP, 43, "t", Fixed(0), "it is not"),
        row("TCP_MD5SIG", IPPROTO_TCP, 14, "t", Refused, "segments are authenticated by the overlay").early(),
        row("TCP_MD5SIG_EXT", IPPROTO_TCP, 32, "t", Refused, "as TCP_MD5SIG").early(),
        row("TCP_AO_ADD_KEY", IPPROTO_TCP, 38, "t", Refused, "as TCP_MD5SIG").early(),
        row("TCP_AO_DEL_KEY", IPPROTO_TCP, 39, "t", Refused, "as TCP_MD5SIG").early(),
        row("TCP_AO_INFO", IPPROTO_TCP, 40, "t", Refused, "as TCP_MD5SIG").early(),
        row("TCP_AO_GET_KEYS", IPPROTO_TCP, 41, "t", Refused, "as TCP_MD5SIG"),
        row("TCP_AO_REPAIR", IPPROTO_TCP, 42, "t", Refused, "as TCP_MD5SIG"),
        row("TCP_INQ", IPPROTO_TCP, 36, "t", Refused, "FIONREAD tells how much waits").early(),
        row("TCP_TX_DELAY", IPPROTO_TCP, 37, "t", Refused, "nothing is delayed").early(),
        row("TCP_SAVE_SYN", IPPROTO_TCP, 27, "t", Refused, "the first segment is not kept").early(),
        row("TCP_SAVED_SYN", IPPROTO_TCP, 28, "t", Refused, "as TCP_SAVE_SYN"),
        row("TCP_ULP", IPPROTO_TCP, 31, "t", Refused, "TLS is the program's own"),
        row("TCP_ZEROCOPY_RECEIVE", IPPROTO_TCP, 35, "t", Refused, "what is received is always copied"),
        row("TCP_REPAIR", IPPROTO_TCP, 19, "t", Refused, "connections stay where they are"),
        row("TCP_REPAIR_QUEUE", IPPROTO_TCP, 20, "t", Refused, "as TCP_REPAIR"),
        row("TCP_QUEUE_SEQ", IPPROTO_TCP, 21, "t", Refused, "as TCP_REPAIR"),
        row("TCP_REPAIR_OPTIONS", IPPROTO_TCP, 22, "t", Refused, "as TCP_REPAIR"),
        row("TCP_REPAIR_WINDOW", IPPROTO_TCP, 29, "t", Refused, "as TCP_REPAIR"),
        row("TCP_TIMESTAMP", IPPROTO_TCP, 24, "t", Refused, "as TCP_REPAIR"),
        row("TCP_FASTOPEN_KEY", IPPROTO_TCP, 33, "t", Refused, "as TCP_FASTOPEN"),
        row("TCP_CC_INFO", IPPROTO_TCP, 26, "t", Refused, "TCP_INFO tells the rate and the window"),
        row("TCP_RTO_MAX_MS", IPPROTO_TCP, 44, "t", Refused, "how losses are found is the node's own choice").early(),
        row("TCP_RTO_MIN_US", IPPROTO_TCP, 45, "t", Refused, "as TCP_RTO_MAX_MS").early(),
        row("TCP_DELACK_MAX_US", IPPROTO_TCP, 46, "t", Refused, "as TCP_RTO_MAX_MS").early(),

        row("UDP_SEGMENT", IPPROTO_UDP, libc::UDP_SEGMENT, "u", Both, "what is sent at once is cut into datagrams of that number of bytes, also by control message").repeated(Unless(0)),
        row("UDP_GRO", IPPROTO_UDP, libc::UDP_GRO, "u", Kept(0), "datagrams come one by one").repeated(Unless(0)),
        row("UDP_NO_CHECK6_TX", IPPROTO_UDP, 101, "u", Kept(0), "packets are authenticated").repeated(Unless(0)),
        row("UDP_NO_CHECK6_RX", IPPROTO_UDP, 102, "u", Kept(0), "as UDP_NO_CHECK6_TX").repeated(Unless(0)),
        row("UDP_CORK", IPPROTO_UDP, libc::UDP_CORK, "u", Refused, "each call sends a datagram").early(),
        row("UDP_ENCAP", IPPROTO_UDP, 100, "u", Refused, "no packet has another protocol inside").early(),

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
        row("IP_PKTINFO", IPPROTO_IP, libc::IP_PKTINFO, "t", Kept(0), "streams tell nothing of their packets").repeated(Unless(0)),
        row("IP_RECVTTL", IPPROTO_IP, libc::IP_RECVTTL, "t", Kept(0), "as IP_PKTINFO").repeated(Unless(0)),
        row("IP_RECVTOS", IPPROTO_IP, libc::IP_RECVTOS, "t", Kept(0), "as IP_PKTINFO").repeated(Unless(0)),
        row("IP_HDRINCL", IPPROTO_IP, libc::IP_HDRINCL, "tui", Fixed(0), "as in Linux"),
        row("IP_MULTICAST_TTL", IPPROTO_IP, libc::IP_MULTICAST_TTL, "t", Fixed(1), "streams send to no groups"),
        row("IP_MULTICAST_IF", IPPROTO_IP, libc::IP_MULTICAST_IF, "t", Fixed(0), "as IP_MULTICAST_TTL"),
        row("IP_MULTICAST_LOOP", IPPROTO_IP, libc::IP_MULTICAST_LOOP, "t", Kept(1), "as IP_MULTICAST_TTL").repeated(Unless(1)),
        row("IP_MULTICAST_ALL", IPPROTO_IP, IP_MULTICAST_ALL, "t", Kept(1), "as IP_MULTICAST_TTL").repeated(Unless(1)),
        row("IP_RECVOPTS", IPPROTO_IP, 6, "tuir", Kept(0), "no packet has options").repeated(Unless(0)),
        row("IP_RETOPTS", IPPROTO_IP, 7, "tuir", Kept(0), "as IP_RECVOPTS").repeated(Unless(0)),
        row("IP_RECVERR_RFC4884", IPPROTO_IP, 26, "tuir", Kept(0), "errors come without extensions").repeated(Unless(0)),
        row("IP_MINTTL", IPPROTO_IP, 21, "tuir", Refused, "every member is one hop away").early(),
        row("IP_RECVORIGDSTADDR", IPPROTO_IP, 20, "tuir", Refused, "IP_PKTINFO tells the address").early(),
        row("IP_RECVFRAGSIZE", IPPROTO_IP, 25, "tuir", Refused, "datagrams do not tell in what fragments they came").early(),
        row("IP_CHECKSUM", IPPROTO_IP, 23, "tuir", Refused, "checksums are not told").early(),
        row("IP_PASSSEC", IPPROTO_IP, 18, "tuir", Refused, "as SO_PASSCRED").early(),
        row("IP_LOCAL_PORT_RANGE", IPPROTO_IP, 51, "tuir", Refused, "automatically chosen ports are 32768 to 60999").early(),
        row("IP_MSFILTER", IPPROTO_IP, 41, "tuir", Refused, "sources of groups are added and dropped one by one").early(),
        row("MCAST_MSFILTER", IPPROTO_IP, 48, "tuir", Refused, "as IP_MSFILTER").early(),
        row("IP_IPSEC_POLICY", IPPROTO_IP, 16, "tuir", Refused, "packets are encrypted by the overlay").early(),
        row("IP_XFRM_POLICY", IPPROTO_IP, 17, "tuir", Refused, "as IP_IPSEC_POLICY").early(),
        row("IP_TRANSPARENT", IPPROTO_IP, 19, "tuir", Refused, "foreign addresses cannot be bound"),
        row("IP_UNICAST_IF", IPPROTO_IP, 50, "tuir", Refused, "SO_BINDTODEVICE and IP_PKTINFO choose an interface"),
        row("IP_ROUTER_ALERT", IPPROTO_IP, 5, "tuir", Refused, "as IP_OPTIONS"),
        row("IP_NODEFRAG", IPPROTO_IP, 22, "tuir", Refused, "as IP_OPTIONS"),
        row("IP_PKTOPTIONS", IPPROTO_IP, 9, "tuir", Refused, "as IP_OPTIONS"),
        row("IP_PROTOCOL", IPPROTO_IP, 52, "tuir", Refused, "SO_PROTOCOL tells it"),
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
        row("IPV6_USE_MIN_MTU", IPPROTO_IPV6, IPV6_USE_MIN_MTU, "uir", Both, "63, which Linux does not have: with 1 datagrams over 1280 bytes leave in fragments, whatever the path takes; 0 and -1 (unless set) follow the path"),
        row("IPV6_PATHMTU", IPPROTO_IPV6, IPV6_PATHMTU, "uir", Get, "`ip6_mtuinfo`, of a connected socket"),
        row("IPV6_FREEBIND", IPPROTO_IPV6, libc::IPV6_FREEBIND, "tuir", Kept(0), "as IP_FREEBIND").repeated(Unless(0)),
        row("IPV6_RECVPKTINFO", IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, "t", Kept(0), "streams tell nothing of their packets").repeated(Unless(0)),
        row("IPV6_RECVHOPLIMIT", IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, "t", Kept(0), "as IPV6_RECVPKTINFO").repeated(Unless(0)),
        row("IPV6_RECVTCLASS", IPPROTO_IPV6, libc::IPV6_RECVTCLASS, "t", Kept(0), "as IPV6_RECVPKTINFO").repeated(Unless(0)),
        row("IPV6_RECVRTHDR", IPPROTO_IPV6, IPV6_RECVRTHDR, "t", Kept(0), "as IPV6_RECVPKTINFO").repeated(Unless(0)),
        row("IPV6_RECVHOPOPTS", IPPROTO_IPV6, IPV6_RECVHOPOPTS, "t", Kept(0), "as IPV6_RECVPKTINFO").repeated(Unless(0)),
        row("IPV6_RECVDSTOPTS", IPPROTO_IPV6, IPV6_RECVDSTOPTS, "t", Kept(0), "as IPV6_RECVPKTINFO").repeated(Unless(0)),
        row("IPV6_RECVPATHMTU", IPPROTO_IPV6, IPV6_RECVPATHMTU, "t", Kept(0), "as IPV6_RECVPKTINFO").repeated(Unless(0)),
        row("IPV6_DONTFRAG", IPPROTO_IPV6, libc::IPV6_DONTFRAG, "t", Kept(0), "segments are never cut").repeated(Unless(0)),
        row("IPV6_MULTICAST_LOOP", IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, "t", Kept(1), "streams send to no groups").repeated(Unless(1)),
        row("IPV6_MULTICAST_ALL", IPPROTO_IPV6, IPV6_MULTICAST_ALL, "t", Kept(1), "as IPV6_MULTICAST_LOOP").repeated(Unless(1)),
        row("IPV6_MULTICAST_HOPS", IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, "t", Fixed(1), "as IPV6_MULTICAST_LOOP"),
        row("IPV6_MULTICAST_IF", IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, "t", Fixed(0), "as IPV6_MULTICAST_LOOP"),
        row("IPV6_AUTOFLOWLABEL", IPPROTO_IPV6, 70, "tuir", Kept(1), "labels are the node's own choice").repeated(Unless(1)),
        row("IPV6_RECVERR_RFC4884", IPPROTO_IPV6, 31, "tuir", Kept(0), "errors come without extensions").repeated(Unless(0)),
        row("IPV6_MINHOPCOUNT", IPPROTO_IPV6, 73, "tuir", Refused, "every member is one hop away").early(),
        row("IPV6_RECVORIGDSTADDR", IPPROTO_IPV6, 74, "tuir", Refused, "IPV6_PKTINFO tells the address").early(),
        row("IPV6_RECVFRAGSIZE", IPPROTO_IPV6, 77, "tuir", Refused, "as IP_RECVFRAGSIZE").early(),
        row("MCAST_MSFILTER", IPPROTO_IPV6, 48, "tuir", Refused, "as IP_MSFILTER").early(),
        row("IPV6_IPSEC_POLICY", IPPROTO_IPV6, 34, "tuir", Refused, "as IP_IPSEC_POLICY").early(),
        row("IPV6_XFRM_POLICY", IPPROTO_IPV6, 35, "tuir", Refused, "as IP_IPSEC_POLICY").early(),
        row("IPV6_2292PKTINFO", IPPROTO_IPV6, 2, "tuir", Refused, "RFC 3542 has IPV6_RECVPKTINFO for it").early(),
        row("IPV6_2292HOPOPTS", IPPROTO_IPV6, 3, "tuir", Refused, "RFC 3542 has IPV6_RECVHOPOPTS for it").early(),
        row("IPV6_2292DSTOPTS", IPPROTO_IPV6, 4, "tuir", Refused, "RFC 3542 has IPV6_RECVDSTOPTS for it").early(),
        row("IPV6_2292RTHDR", IPPROTO_IPV6, 5, "tuir", Refused, "RFC 3542 has IPV6_RECVRTHDR for it").early(),
        row("IPV6_2292PKTOPTIONS", IPPROTO_IPV6, 6, "tuir", Refused, "RFC 3542 has none"),
        row("IPV6_2292HOPLIMIT", IPPROTO_IPV6, 8, "tuir", Refused, "RFC 3542 has IPV6_RECVHOPLIMIT for it").early(),
        row("IPV6_FLOWINFO", IPPROTO_IPV6, 11, "tuir", Refused, "labels are not told").early(),
        row("IPV6_FLOWINFO_SEND", IPPROTO_IPV6, 33, "tuir", Refused, "labels are the node's own choice").early(),
        row("IPV6_FLOWLABEL_MGR", IPPROTO_IPV6, 32, "tuir", Refused, "as IPV6_FLOWINFO_SEND"),
        row("IPV6_HDRINCL", IPPROTO_IPV6, 36, "tuir", Refused, "raw sockets send without an IPv6 header").early(),
        row("IPV6_JOIN_ANYCAST", IPPROTO_IPV6, 27, "tuir", Refused, "there are no anycast addresses").early(),
        row("IPV6_LEAVE_ANYCAST", IPPROTO_IPV6, 28, "tuir", Refused, "as IPV6_JOIN_ANYCAST"),
        row("IPV6_ADDR_PREFERENCES", IPPROTO_IPV6, 72, "tuir", Refused, "a member has one address in each network"),
        row("IPV6_TRANSPARENT", IPPROTO_IPV6, 75, "tuir", Refused, "as IP_TRANSPARENT"),
        row("IPV6_UNICAST_IF", IPPROTO_IPV6, 76, "tuir", Refused, "as IP_UNICAST_IF"),
        row("IPV6_ROUTER_ALERT", IPPROTO_IPV6, 22, "tuir", Refused, "as IP_OPTIONS"),
        row("IPV6_ROUTER_ALERT_ISOLATE", IPPROTO_IPV6, 30, "tuir", Refused, "as IP_OPTIONS"),
        row("IPV6_ADDRFORM", IPPROTO_IPV6, 1, "tuir", Refused, "a socket keeps its family"),
        row("IPV6_CHECKSUM", IPPROTO_IPV6, IPV6_CHECKSUM, "r", Both, "where the checksum is, or -1").repeated(Unless(-1)),
        row("IPV6_CHECKSUM", IPPROTO_RAW, IPV6_CHECKSUM, "r", Both, "as above"),
        row("ICMP6_FILTER", IPPROTO_ICMPV6, ICMP6_FILTER, "r", Both, "`icmp6_filter`").repeated(UnlessZeros(32)),
    ]
};

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    /// Row of the documentation, for all options that it says the same of.
    struct Line {
        names: Vec<&'static str>,
        sockets: String,
        access: &'static str,
        what: &'static str,
    }

    impl Line {
        fn new(row: &'static Row) -> Self {
            let sockets = ["t", "u", "i", "r"].into_iter().zip(["TCP", "UDP", "echo", "raw"]);
            let sockets: Vec<_> =
                sockets.filter(|(letter, _)| row.kinds.contains(letter)).map(|(_, name)| name).collect();
            let access = match row.access {
                Access::Both | Access::Application | Access::Kernel => "",
                Access::Kept(_) => "kept: ",
                Access::Ignored => "taken: ",
                Access::Fixed(_) => "only asked for: ",
                Access::Set => "only set: ",
                Access::Get => "only asked for: ",
                Access::Refused if row.is_refused_early => "refused at once: ",
                Access::Refused => "refused: ",
            };
            let sockets = if sockets.len() == 4 { "all".into() } else { sockets.join(", ") };
            Self { names: vec![row.name], sockets, access, what: row.what }
        }

        /// Returns true if another row says the same, or refers to an option here.
        fn is_said_by(&self, other: &Line) -> bool {
            let refers = other.what.strip_prefix("as ").is_some_and(|name| self.names.contains(&name));
            (&self.sockets, self.access) == (&other.sockets, other.access)
                && (refers || self.what == other.what)
        }
    }

    impl fmt::Display for Line {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "| `{}` | {} | {}{} |", self.names.join("`, `"), self.sockets, self.access, self.what)
        }
    }

    /// Returns the documentation's table.
    fn lines() -> Vec<String> {
        let mut lines: Vec<Line> = Vec::new();
        for new in TABLE.iter().map(Line::new) {
            match lines.iter_mut().find(|line| line.is_said_by(&new)) {
                Some(line) if line.names.contains(&new.names[0]) => {}
                Some(line) => line.names.extend(new.names),
                None => lines.push(new),
            }
        }
        lines.iter().map(Line::to_string).collect()
    }

    #[test]
    fn the_documentation_has_the_same_table() {
        let text = include_str!("../../../docs/reference/SOCKETS.md");
        let documented: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
        let known = lines();
        assert_eq!(documented, known, "\n{}", known.join("\n"));
    }

    #[test]
    fn the_methods_of_rust_are_about_options_that_streams_have() {
        let methods =
            [include_str!("../../../src/socket/options.rs"), include_str!("../../attached/src/stream.rs")];
        let words = |text: &'static str| text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let is_name = |word: &&str| word.starts_with("SO_") || word.starts_with("TCP_");
        for name in methods.into_iter().flat_map(words).filter(is_name) {
            let has_effect = |row: &Row| !matches!(row.access, Access::Kept(_) | Access::Refused);
            let row = TABLE.iter().find(|row| row.name == name && row.kinds.contains('t'));
            assert!(row.is_some_and(has_effect), "{name}");
        }
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
