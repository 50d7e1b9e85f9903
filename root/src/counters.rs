peersock_primitives::counters! {
    /// Counts of work that a root has done or dropped since it started. Each counter only ever grows.
    ///
    /// ```
    /// use peersock_root::Counters;
    ///
    /// let counters = Counters::default();
    /// counters.relayed.increment();
    /// assert!(counters.snapshot().contains(&("relayed", 1)));
    /// ```
    pub struct Counters {
        /// Datagrams that are no message a root reads.
        pub unknown_message,
        /// Datagrams whose source cannot be answered.
        pub bad_source,
        /// Answers not sent because their receiver has not shown that it receives, and they are longer than
        /// what came from there.
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
        /// Initiations dropped because too many came, or nobody else has room.
        pub handshakes_refused,
        /// Cookies demanded under load.
        pub cookies_sent,
        /// Initiations dropped because they were forged or altered.
        pub handshake_unauthentic,
        /// Initiations for a network, which a root has none of.
        pub strangers_refused,
        /// Authentic initiations that were not newer than the last one of their sender.
        pub initiations_stale,
        /// Initiations without a cipher that this root has.
        pub suites_unsupported,
        /// Initiations answered.
        pub handshakes_answered,
        /// Sessions that their node used.
        pub sessions_established,
        /// Nodes not taken in because there are too many, or too many of one source prefix.
        pub nodes_refused,
        /// Sessions forgotten to make room for other nodes: those of nodes that are not registered, and
        /// registrations of nodes that are not there any more.
        pub nodes_gave_way,

        /// Data packets for a session that does not exist.
        pub data_unknown_session,
        /// Data packets dropped because they were not authentic, or received before.
        pub data_dropped,
        /// Messages in a session that a root does not know.
        pub control_unknown,
        /// Messages from an address that their sender has not proven yet.
        pub from_unproven,
        /// Challenges sent: does the node receive there?
        pub challenges_sent,
        /// Answers that repeat no challenge.
        pub answers_wrong,
        /// Times that a node's address changed.
        pub paths_moved,
        /// Sessions that their node has closed.
        pub closes_received,

        /// Registrations taken, renewals included.
        pub registrations,
        /// Registrations refused: not signed, old, or without the access token.
        pub registrations_refused,
        /// Registrations dropped because too many came.
        pub registrations_limited,
        /// Registrations that ran out.
        pub registrations_expired,
        /// Vouchers given for an address besides the one that a node is registered at.
        pub vouchers,
        /// Questions for those dropped because too many came, or their sender is not registered.
        pub vouchers_refused,
        /// Nodes that were looked up.
        pub look_ups,
        /// Look-ups that found somebody.
        pub look_ups_found,
        /// Look-ups refused because their sender asks too much.
        pub look_ups_limited,
        /// Look-ups that the shared directory did not answer.
        pub look_ups_unanswered,
        /// Look-ups that were answered by naming another root.
        pub referrals,

        /// Claims of nicknames taken, renewals included.
        pub nicknames_claimed,
        /// Claims of nicknames that another node has.
        pub nicknames_taken,
        /// Claims of nicknames refused: not signed, late, of a node that is not registered, or too many.
        pub nicknames_refused,
        /// Claims of nicknames dropped because too many came.
        pub nicknames_limited,
        /// Nicknames that ran out.
        pub nicknames_expired,
        /// Nicknames that were looked up.
        pub nickname_look_ups,
        /// Of these, those that somebody has.
        pub nicknames_found,

        /// Frames passed on.
        pub relayed,
        /// Bytes in them, headers included.
        pub relayed_bytes,
        /// Frames dropped because their source is no registered node's, or their token is not its token.
        pub relay_unknown_source,
        /// Frames dropped because nobody has their channel.
        pub relay_no_channel,
        /// Frames dropped because their sender's budget was used up.
        pub relay_over_rate,
        /// Frames too short to hold anything.
        pub relay_malformed,

        /// STUN requests answered.
        pub stun_answered,
        /// STUN requests dropped: malformed, short, or too many.
        pub stun_dropped,
    }
}
