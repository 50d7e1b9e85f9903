//! Counts of what happened, for people who look after a node.

use std::sync::atomic::{AtomicU64, Ordering};

/// One event count. Relaxed: it orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn bump(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, events: u64) {
        self.0.fetch_add(events, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($name:ident: $doc:literal,)*) => {
        /// Counts of events since the stack was made.
        ///
        #[doc = "| name | counts |\n|---|---|"]
        $(#[doc = concat!("| `", stringify!($name), "` | ", $doc, " |")])*
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $doc] pub(crate) $name: Counter,)*
        }

        impl Counters {
            /// Every counter's name and value, in the order of the table above.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.value()),)*]
            }
        }
    };
}

counters! {
    ip_received: "packets and super-segments given to `receive`",
    ip_malformed: "dropped: no valid IP header or a length that does not fit",
    ip_checksum_errors: "dropped: a wrong checksum, on an interface that verifies them",
    ip_options_refused: "dropped: IPv4 options that ask for a source route or are malformed",
    ip_extension_headers: "dropped: IPv6 extension headers that are malformed, unknown or too many, or followed by nothing",
    ip_unknown_protocol: "dropped: an upper layer that nobody here takes, answered within the rate",
    ip_fragments: "fragments received",
    ip_fragments_refused: "dropped: fragments that are malformed, overlap others or are too many",
    ip_fragments_sent: "fragments that `Stack::fragments` was to make",
    ip_reassembled: "packets whose fragments have all come",
    ip_bytes_reassembled: "bytes copied or compared to keep fragments, and copied to join them",
    ip_reassembly_timeouts: "packets given up because fragments have not come in time",
    ip_reassembly_evictions: "packets given up because their source, or all together, held too many fragments",
    ip_not_local: "dropped: not addressed to this node",
    ip_bad_source: "dropped: a source that is no unicast address",
    port_not_allowed: "dropped: a service port outside the network's range, or no answer to a datagram from such a port",
    tcp_malformed: "dropped: no valid TCP header",
    tcp_connects: "connections opened by this node",
    tcp_accepts: "connections opened by peers and handed to a listener",
    tcp_established: "handshakes completed, by either side",
    tcp_refused: "connection attempts of this node that were refused",
    tcp_resets_received: "connections that a peer reset, or whose peer is gone",
    tcp_resets_sent: "resets sent",
    tcp_timeouts: "connections given up without an answer",
    tcp_retransmits: "data packets sent again, counted as super-segments",
    tcp_no_socket: "segments for no connection or listener, answered with a reset",
    tcp_backlog_overflows: "dropped: SYNs, cookies that came back, and what followed them, because a listener's backlog was full",
    tcp_cookies_sent: "SYNs answered with a cookie because handshakes filled a listener's backlog",
    tcp_cookies_accepted: "connections made from a cookie that came back",
    tcp_flow_limit: "SYNs dropped because the stack holds as many flows as it may, or as many with that peer",
    tcp_memory_refused: "dropped: segments, or their ends, that no memory was left for",
    tcp_bytes_reordered: "bytes copied to keep data that came out of order and to put it in order, counted when it is, or by 64 KiB",
    tcp_memory_pruned: "flows that lost what they had out of order because memory was short",
    tcp_memory_resets: "flows reset because memory was short and their application did not read for long",
    tcp_time_wait_reused: "TIME-WAIT pairs taken over by a new connection",
    udp_malformed: "dropped: no valid UDP header",
    udp_received: "datagrams queued for a socket",
    udp_sent: "datagrams sent",
    udp_no_socket: "datagrams for no socket, answered with a port unreachable within the rate",
    udp_queue_overflows: "datagrams dropped because a socket's queue was full",
    error_queue_overflows: "error reports dropped because a socket's error queue was full",
    raw_received: "packets queued for a raw socket",
    raw_sent: "packets that raw sockets have sent",
    raw_queue_overflows: "packets dropped because a raw socket's queue was full",
    icmp_malformed: "dropped: no valid ICMP message",
    icmp_echo_requests: "echo requests answered",
    icmp_echo_replies: "echo replies queued for a socket",
    icmp_queue_overflows: "replies dropped because a socket's queue was full",
    icmp_errors_received: "ICMP errors that belong to a socket of this node",
    icmp_strangers: "dropped: ICMP errors of a node that cannot have seen the packet it quotes",
    path_mtu_reports: "packets that were too big and have lowered a path's MTU",
    icmp_ignored: "ICMP messages for no socket or of no interest",
    icmp_errors_sent: "ICMP errors sent",
    icmp_rate_limited: "ICMP errors not sent because of the rate",
}
