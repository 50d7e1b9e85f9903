//! Counters of events, for operators of a node.

peersock_primitives::counters! {
    /// Counts of events since the stack was made.
    pub struct Counters {
        /// Packets and super-segments given to `receive`.
        pub(crate) ip_received,
        /// Dropped: no valid IP header or a length that does not fit.
        pub(crate) ip_malformed,
        /// Dropped: a wrong checksum, on an interface that verifies them.
        pub(crate) ip_checksum_errors,
        /// Dropped: IPv4 options that ask for a source route or are malformed.
        pub(crate) ip_options_refused,
        /// Dropped: IPv6 extension headers that are malformed, unknown or too many, or followed by nothing.
        pub(crate) ip_extension_headers,
        /// Dropped: an upper layer that nobody here takes, answered within the rate.
        pub(crate) ip_unknown_protocol,
        /// Fragments received.
        pub(crate) ip_fragments,
        /// Dropped: fragments that are malformed, overlap others or are too many.
        pub(crate) ip_fragments_refused,
        /// Fragments that `Stack::fragments` was to make.
        pub(crate) ip_fragments_sent,
        /// Packets whose fragments have all come.
        pub(crate) ip_reassembled,
        /// Bytes copied or compared to keep fragments, and copied to join them.
        pub(crate) ip_bytes_reassembled,
        /// Packets given up because fragments have not come in time.
        pub(crate) ip_reassembly_timeouts,
        /// Packets given up because their source, or all together, held too many fragments.
        pub(crate) ip_reassembly_evictions,
        /// Dropped: not addressed to this node.
        pub(crate) ip_not_local,
        /// Dropped: a source that is no unicast address.
        pub(crate) ip_bad_source,
        /// Dropped: a service port outside the network's range, or no answer to a datagram from such a port.
        pub(crate) port_not_allowed,
        /// Dropped: no valid TCP header.
        pub(crate) tcp_malformed,
        /// Connections opened by this node.
        pub(crate) tcp_connects,
        /// Connections opened by peers and handed to a listener.
        pub(crate) tcp_accepts,
        /// Handshakes completed, by either side.
        pub(crate) tcp_established,
        /// Connection attempts of this node that were refused.
        pub(crate) tcp_refused,
        /// Connections that a peer reset, or whose peer is gone.
        pub(crate) tcp_resets_received,
        /// Resets sent.
        pub(crate) tcp_resets_sent,
        /// Connections given up without an answer.
        pub(crate) tcp_timeouts,
        /// Data packets sent again, counted as super-segments.
        pub(crate) tcp_retransmits,
        /// Segments for no connection or listener, answered with a reset.
        pub(crate) tcp_no_socket,
        /// Dropped: SYNs, cookies that came back, and what followed them, because a listener's backlog was
        /// full.
        pub(crate) tcp_backlog_overflows,
        /// SYNs answered with a cookie because handshakes filled a listener's backlog.
        pub(crate) tcp_cookies_sent,
        /// Connections made from a cookie that came back.
        pub(crate) tcp_cookies_accepted,
        /// SYNs dropped because the stack holds as many flows as it may, or as many with that peer.
        pub(crate) tcp_flow_limit,
        /// Dropped: segments, or their ends, that no memory was left for.
        pub(crate) tcp_memory_refused,
        /// Bytes copied to keep data that came out of order and to put it in order, counted when it is, or by
        /// 64 KiB.
        pub(crate) tcp_bytes_reordered,
        /// Flows that lost what they had out of order because memory was short.
        pub(crate) tcp_memory_pruned,
        /// Flows reset because memory was short and their application did not read for long.
        pub(crate) tcp_memory_resets,
        /// Flows reset because memory was nearly used up and their application had closed them, with
        /// something left to deliver.
        pub(crate) tcp_memory_orphans,
        /// TIME-WAIT pairs taken over by a new connection.
        pub(crate) tcp_time_wait_reused,
        /// Dropped: no valid UDP header.
        pub(crate) udp_malformed,
        /// Datagrams queued for a socket.
        pub(crate) udp_received,
        /// Datagrams sent.
        pub(crate) udp_sent,
        /// Datagrams for no socket, answered with a port unreachable within the rate.
        pub(crate) udp_no_socket,
        /// Datagrams dropped because a socket's queue was full.
        pub(crate) udp_queue_overflows,
        /// Error reports dropped because a socket's error queue was full.
        pub(crate) error_queue_overflows,
        /// Packets queued for a raw socket.
        pub(crate) raw_received,
        /// Packets that raw sockets have sent.
        pub(crate) raw_sent,
        /// Packets dropped because a raw socket's queue was full.
        pub(crate) raw_queue_overflows,
        /// Dropped: no valid ICMP message.
        pub(crate) icmp_malformed,
        /// Echo requests answered.
        pub(crate) icmp_echo_requests,
        /// Echo replies queued for a socket.
        pub(crate) icmp_echo_replies,
        /// Replies dropped because a socket's queue was full.
        pub(crate) icmp_queue_overflows,
        /// ICMP errors that belong to a socket of this node.
        pub(crate) icmp_errors_received,
        /// Dropped: ICMP errors of a node that cannot have seen the packet it quotes.
        pub(crate) icmp_strangers,
        /// Packets that were too big and have lowered a path's MTU.
        pub(crate) path_mtu_reports,
        /// ICMP messages for no socket or of no interest.
        pub(crate) icmp_ignored,
        /// ICMP errors sent.
        pub(crate) icmp_errors_sent,
        /// ICMP errors not sent because of the rate.
        pub(crate) icmp_rate_limited,
    }
}
