//! Counters of what the data path drops between the cores, and of how often it asks control.

peersock_primitives::counters! {
    /// Packets that were dropped between the overlay and the stack, and how often the control lock was taken.
    pub struct DatapathCounters {
        /// Packets received whose source address their peer does not own.
        pub(super) inner_source_not_owned,
        /// Packets received that are malformed, or messages of an unknown kind.
        pub(super) inner_malformed,
        /// Packets received for a network that this node is not in.
        pub(super) inner_no_network,
        /// Packets received for a device that are neither for this node nor for the address blocks behind it.
        pub(super) inner_not_for_device,
        /// Packets to or from a device on ports that the network does not allow.
        pub(super) device_port_refused,
        /// Packets from a device that are not IP packets.
        pub(super) device_malformed,
        /// Packets from a device whose source is not an address of this node.
        pub(super) device_source_not_own,
        /// Packets received with a congestion mark that cannot carry the mark further.
        pub(super) inner_congested,
        /// Packets received that the network's rules refuse.
        pub(super) rules_refused_in,
        /// Packets and connections to send that the network's rules refuse.
        pub(super) rules_refused_out,
        /// Packets to send to addresses of no member.
        pub(super) out_no_route,
        /// Packets to send that waited too long for the destination to be found.
        pub(super) out_unreachable,
        /// Packets to send that are too big for the path and must not be fragmented.
        pub(super) out_too_big,
        /// Packets to send that were dropped because the queue of waiting packets was full.
        pub(super) out_waiting_dropped,
        /// Peers that got no copy of a multicast packet because the network has too many peers.
        pub(super) out_group_peers_skipped,
        /// Peers that got no copy of a multicast packet because they are not in the group.
        pub(super) out_group_peers_left,
        /// Times that the control lock was taken.
        pub(super) control_locked,
    }
}
