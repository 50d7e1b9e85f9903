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
        /// Packets received for a device that are not for this node, nor for what is behind it.
        pub(super) inner_not_for_device,
        /// Packets to or from a device that the network's ports do not allow.
        pub(super) device_port_refused,
        /// Packets from a device that are no IP packets.
        pub(super) device_malformed,
        /// Packets from a device whose source is no address of this node.
        pub(super) device_source_not_own,
        /// Packets received that were marked for congestion and cannot carry the mark.
        pub(super) inner_congested,
        /// Packets to send to addresses that belong to nobody.
        pub(super) out_no_route,
        /// Packets to send that waited too long for their destination to be found.
        pub(super) out_unreachable,
        /// Packets to send that are too big for the path and must not be cut.
        pub(super) out_too_big,
        /// Packets to send dropped because the queue of those that wait was full.
        pub(super) out_waiting_dropped,
        /// Peers that got no copy of a packet to a group because too many are in the network.
        pub(super) out_group_peers_skipped,
        /// Peers that got no copy of a packet to a group because they are not members of it.
        pub(super) out_group_peers_left,
        /// Times that the control lock was taken.
        pub(super) control_locked,
    }
}
