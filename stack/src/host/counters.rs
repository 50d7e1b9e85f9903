//! Counters of events, for operators of a node.

peersock_primitives::counters! {
    /// Counts of events since the stack was made.
    pub struct Counters {
        /// Packets and super-segments given to `receive`.
        pub(crate) ip_received,
        /// Dropped packets without a valid IP header, or with a wrong length.
        pub(crate) ip_malformed,
        /// Dropped packets with a wrong checksum, on an interface that verifies checksums.
        pub(crate) ip_checksum_errors,
        /// Dropped packets with IPv4 options that are malformed or ask for a source route.
        pub(crate) ip_options_refused,
        /// Dropped packets with IPv6 extension headers that are malformed, unknown, too many, or followed by
        /// nothing.
        pub(crate) ip_extension_headers,
        /// Dropped packets of an unknown upper-layer protocol; they are answered within the rate limit.
        pub(crate) ip_unknown_protocol,
        /// Fragments received.
        pub(crate) ip_fragments,
        /// Dropped fragments that are malformed, overlap others or are too many.
        pub(crate) ip_fragments_refused,
        /// Fragments to be made by `Stack::fragments`.
        pub(crate) ip_fragments_sent,
        /// Packets whose fragments have all arrived.
        pub(crate) ip_reassembled,
        /// Bytes copied or compared to keep fragments, and copied to join them.
        pub(crate) ip_bytes_reassembled,
        /// Packets given up because fragments did not arrive in time.
        pub(crate) ip_reassembly_timeouts,
        /// Packets given up because one source, or all together, held too many fragments.
        pub(crate) ip_reassembly_evictions,
        /// Dropped packets that are not addressed to this node.
        pub(crate) ip_not_local,
        /// Dropped packets whose source is not a unicast address.
        pub(crate) ip_bad_source,
        /// Dropped packets for a service port outside the network's range, and datagrams from such a port
        /// that answer nothing.
        pub(crate) port_not_allowed,
        /// Dropped packets without a valid TCP header.
        pub(crate) tcp_malformed,
        /// Connections opened by this node.
        pub(crate) tcp_connects,
        /// Connections opened by peers and handed to a listener.
        pub(crate) tcp_accepts,
        /// Handshakes completed, by either side.
        pub(crate) tcp_established,
        /// Connection attempts of this node that were refused.
        pub(crate) tcp_refused,
        /// Connections that a peer has reset, or whose peer is gone.
        pub(crate) tcp_resets_received,
        /// Resets sent.
        pub(crate) tcp_resets_sent,
        /// Connections given up without an answer.
        pub(crate) tcp_timeouts,
        /// Data packets retransmitted, counted as super-segments.
        pub(crate) tcp_retransmits,
        /// Segments for no connection or listener, answered with a reset.
        pub(crate) tcp_no_socket,
        /// Dropped SYNs, returned cookies and later segments, because a listener's backlog was full.
        pub(crate) tcp_backlog_overflows,
        /// SYNs answered with a cookie because handshakes filled a listener's backlog.
        pub(crate) tcp_cookies_sent,
        /// Connections made from a returned cookie.
        pub(crate) tcp_cookies_accepted,
        /// SYNs dropped because the stack, or the peer, has reached its maximum number of flows.
        pub(crate) tcp_flow_limit,
        /// Dropped segments, or ends of segments, because memory was exhausted.
        pub(crate) tcp_memory_refused,
        /// Bytes copied to keep out-of-order data and to put it in order, counted when it is in order, or per
        /// 64 KiB.
        pub(crate) tcp_bytes_reordered,
        /// Flows that lost their out-of-order data because memory was short.
        pub(crate) tcp_memory_pruned,
        /// Flows reset because memory was short and the application had not read for long.
        pub(crate) tcp_memory_resets,
        /// Flows with undelivered data reset because memory was nearly exhausted and the application had
        /// closed them.
        pub(crate) tcp_memory_orphans,
        /// Connections ended because the peer is removed from its network.
        pub(crate) tcp_barred,
        /// TIME-WAIT pairs taken over by a new connection.
        pub(crate) tcp_time_wait_reused,
        /// Dropped packets without a valid UDP header.
        pub(crate) udp_malformed,
        /// Datagrams queued for a socket.
        pub(crate) udp_received,
        /// Datagrams sent.
        pub(crate) udp_sent,
        /// Datagrams for no socket, answered with a port unreachable within the rate limit.
        pub(crate) udp_no_socket,
        /// Datagrams dropped because a socket's queue was full.
        pub(crate) udp_queue_overflows,
        /// Error reports dropped because a socket's error queue was full.
        pub(crate) error_queue_overflows,
        /// Packets queued for a raw socket.
        pub(crate) raw_received,
        /// Packets sent by raw sockets.
        pub(crate) raw_sent,
        /// Packets dropped because a raw socket's queue was full.
        pub(crate) raw_queue_overflows,
        /// Dropped packets without a valid ICMP message.
        pub(crate) icmp_malformed,
        /// Echo requests answered.
        pub(crate) icmp_echo_requests,
        /// Echo replies queued for a socket.
        pub(crate) icmp_echo_replies,
        /// Echo replies dropped because a socket's queue was full.
        pub(crate) icmp_queue_overflows,
        /// ICMP errors that belong to a socket of this node.
        pub(crate) icmp_errors_received,
        /// Dropped ICMP errors from a node that cannot have seen the quoted packet.
        pub(crate) icmp_strangers,
        /// Reports of packets that were too big, which lowered a path's MTU.
        pub(crate) path_mtu_reports,
        /// ICMP messages that are for no socket or irrelevant.
        pub(crate) icmp_ignored,
        /// ICMP errors sent.
        pub(crate) icmp_errors_sent,
        /// ICMP errors not sent because of the rate limit.
        pub(crate) icmp_rate_limited,
    }
}
