peersock_primitives::counters! {
    /// Counts of work that a root has done or dropped since it started. Each counter only ever grows.
    pub struct Counters {
        /// Datagrams that are no message a root reads.
        pub unknown_message,
        /// Datagrams whose source cannot be answered.
        pub bad_source,
        /// Answers not sent because they are longer than the request and the receiver has not proven that it
        /// receives.
        pub unpaid,
        /// Answers not sent because the queue to the driver was full.
        pub transmits_dropped,
        /// Messages not sent because the system gave no randomness for them.
        pub entropy_failures,

        /// Initiations dropped because of their length or version.
        pub handshake_malformed,
        /// Initiations dropped because their sender does not know this root's ID.
        pub mac1_invalid,
        /// Copies of an initiation dropped before they cost anything.
        pub initiations_replayed,
        /// Initiations dropped because too many came, or there was no room for another node.
        pub handshakes_refused,
        /// Cookies demanded under load.
        pub cookies_sent,
        /// Initiations dropped because they were forged or altered.
        pub handshake_unauthentic,
        /// Initiations for a network; a root has no networks.
        pub strangers_refused,
        /// Authentic initiations that were not newer than the last one of their sender.
        pub initiations_stale,
        /// Initiations without a cipher that this root has.
        pub suites_unsupported,
        /// Initiations answered.
        pub handshakes_answered,
        /// Sessions that their node used.
        pub sessions_established,
        /// Nodes refused because there are too many, in all or of one source prefix.
        pub nodes_refused,
        /// Sessions forgotten to make room for other nodes: sessions of unregistered nodes, and registrations
        /// of nodes that are gone.
        pub nodes_gave_way,

        /// Data packets for a session that does not exist.
        pub data_unknown_session,
        /// Data packets dropped because they were not authentic, or received before.
        pub data_dropped,
        /// Messages in a session of a kind that a root does not know.
        pub control_unknown,
        /// Messages from an address that the sender has not proven yet.
        pub from_unproven,
        /// Challenges sent to verify that a node receives at an address.
        pub challenges_sent,
        /// Answers that repeat no challenge.
        pub answers_wrong,
        /// Times that a node's address changed.
        pub paths_moved,
        /// Sessions that their node has closed.
        pub closes_received,

        /// Registrations accepted, renewals included.
        pub registrations,
        /// Registrations refused: not signed, old, or without the access token.
        pub registrations_refused,
        /// Registrations dropped because too many arrived.
        pub registrations_limited,
        /// Registrations that expired.
        pub registrations_expired,
        /// Vouchers issued for an additional address of a registered node.
        pub vouchers,
        /// Voucher requests dropped because too many arrived, or the sender is not registered.
        pub vouchers_refused,
        /// Look-ups of nodes.
        pub look_ups,
        /// Look-ups that found a node.
        pub look_ups_found,
        /// Look-ups refused because the sender asks too often.
        pub look_ups_limited,
        /// Look-ups that the shared directory did not answer.
        pub look_ups_unanswered,
        /// Look-ups answered with a referral to another root.
        pub referrals,

        /// Nickname claims accepted, renewals included.
        pub nicknames_claimed,
        /// Nickname claims refused because another node has the nickname.
        pub nicknames_taken,
        /// Nickname claims refused: not signed, late, too many, or from a node that is not registered.
        pub nicknames_refused,
        /// Nickname claims dropped because too many arrived.
        pub nicknames_limited,
        /// Nicknames that expired.
        pub nicknames_expired,
        /// Look-ups of nicknames.
        pub nickname_look_ups,
        /// Look-ups of nicknames that found a node.
        pub nicknames_found,

        /// Frames relayed.
        pub relayed,
        /// Bytes in relayed frames, headers included.
        pub relayed_bytes,
        /// Frames dropped because they come from no registered node, or with a wrong token.
        pub relay_unknown_source,
        /// Frames dropped because their channel does not exist.
        pub relay_no_channel,
        /// Frames dropped because the sender's relay budget was used up.
        pub relay_over_rate,
        /// Frames dropped because they are too short.
        pub relay_malformed,

        /// STUN requests answered.
        pub stun_answered,
        /// STUN requests dropped: malformed, short, or too many.
        pub stun_dropped,
    }
}
