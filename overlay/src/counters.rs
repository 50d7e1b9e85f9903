peersock_primitives::counters! {
    /// Counts of one node's actions and drops since it started. Each counter only ever grows.
    ///
    /// ```
    /// use peersock_overlay::Counters;
    ///
    /// let counters = Counters::default();
    /// counters.data_replayed.increment();
    /// assert!(counters.snapshot().contains(&("data_replayed", 1)));
    /// ```
    pub struct Counters {
        /// Data packets dropped because they were too short or of another session.
        pub data_malformed,
        /// Data packets dropped because no key of ours made them.
        pub data_unauthentic,
        /// Authentic data packets dropped because they had been received before.
        pub data_replayed,
        /// Authentic data packets dropped because their counter is behind the replay window.
        pub data_too_old,
        /// Data packets dropped because their session is past its lifetime or erased.
        pub data_expired,
        /// Packets that were not sent because the session was past its lifetime or erased.
        pub seal_expired,

        /// Datagrams dropped because their source address cannot be answered.
        pub bad_source,
        /// Datagrams dropped because they are no message of this protocol, or cut off.
        pub unknown_message,
        /// Data packets for a session that does not exist.
        pub data_unknown_session,
        /// Answers to those, telling their sender.
        pub unknown_session_sent,
        /// Such answers received.
        pub unknown_session_received,
        /// Messages not sent because the system gave no randomness for their keys or nonces.
        pub entropy_failures,
        /// Datagrams dropped because the queue to the driver was full or no socket reaches their destination.
        pub transmits_dropped,
        /// Events lost because the driver did not take them.
        pub events_lost,

        /// Handshake messages dropped because of their length or version.
        pub handshake_malformed,
        /// Handshake messages dropped because their sender does not know this node's ID.
        pub mac1_invalid,
        /// Handshake messages dropped because they were forged, altered or made with another network's key.
        pub handshake_unauthentic,
        /// Handshake messages dropped because too many came.
        pub handshakes_refused,
        /// Bytes of messages that were hashed, decrypted or compared with a network's tags before it was
        /// known whether they are authentic, counted as often as that was done. Of data packets only those
        /// that were dropped: see [`SessionStats`](crate::SessionStats) for the others.
        pub bytes_tried,
        /// X25519 operations done in handshakes.
        pub handshake_x25519,
        /// Copies of an initiation dropped before they cost anything.
        pub initiations_replayed,
        /// Authentic initiations that were not newer than the last one of their sender.
        pub initiations_stale,
        /// Answers to those, telling their sender the newest timestamp.
        pub stale_replies_sent,
        /// Such answers received: this node's clock went back since an earlier run.
        pub clock_behind,
        /// Initiations sent, each copy counted.
        pub initiations_sent,
        /// Initiations answered.
        pub handshakes_answered,
        /// Handshakes that this node began and that were completed.
        pub handshakes_initiated,
        /// Sessions that became usable.
        pub sessions_established,
        /// Sessions not begun because the session table is full.
        pub sessions_refused,
        /// Initiations without a data suite that this node has.
        pub suites_unsupported,
        /// Responses and cookie replies to no initiation of ours, or too late.
        pub responses_unexpected,
        /// Cookies demanded under load.
        pub cookies_sent,
        /// Cookies received from busy peers.
        pub cookies_received,
        /// Attempts to get a session.
        pub attempts_started,
        /// Attempts that ended without one.
        pub attempts_given_up,
        /// Sessions replaced because of their age.
        pub rekeys,

        /// Hellos and initiations of nodes that are no members, or for networks that are not joined.
        pub strangers_refused,
        /// Peers forgotten to make room for others.
        pub peers_evicted,
        /// Peers looked at to find those.
        pub eviction_steps,
        /// Peers forgotten because nothing was heard of them for long.
        pub peers_forgotten,
        /// Peers not taken in because there was no room.
        pub peers_refused,
        /// Times that a peer's identity was seen to be in use at two places.
        pub peers_at_two_places,
        /// Times that this node's own identity was seen in use elsewhere.
        pub own_identity_elsewhere,
        /// Hellos that showed that a peer has been restarted.
        pub restarts_noticed,
        /// ICMP errors that nobody listens where something was sent that this node has sent indeed.
        pub refusals,
        /// Peers taken for dead because of such errors.
        pub peers_refused_to_answer,

        /// Keepalives sent, those that confirm a session included.
        pub keepalives_sent,
        /// Keepalives received.
        pub keepalives_received,
        /// Probes sent to see whether a peer with connections is still there.
        pub liveness_probes_sent,
        /// Times that a peer left data unanswered for too long.
        pub silences,
        /// Messages that ended a session.
        pub closes_received,
        /// Control messages of a kind that this version does not know.
        pub control_unknown,
        /// Times that a peer's address changed.
        pub paths_moved,
        /// Times that a peer lost its session because it was heard only elsewhere than at its path, which did
        /// not answer.
        pub paths_unproven,
        /// Challenges sent: does the peer receive there?
        pub challenges_sent,
        /// Answers that repeat no challenge of this node's.
        pub answers_wrong,
        /// Messages sent to peers that are reached through a root: where this node is.
        pub candidates_sent,
        /// The same of peers, received.
        pub candidates_received,
        /// Those not heeded, because too many came or nobody had asked.
        pub candidates_refused,
        /// Searches for a direct way to a peer.
        pub punches_begun,
        /// Packets sent in them: challenges, and initiations to peers without a session.
        pub punches_sent,
        /// Answers to those challenges, or to those to or from many ports.
        pub punches_answered,
        /// Searches for a direct way to a peer by many ports.
        pub birthdays_begun,
        /// Packets sent in them.
        pub birthday_probes_sent,
        /// Rounds in which this node and another one tried to connect to each other by TCP.
        pub tcp_punches_begun,
        /// TCP connections to or from other nodes.
        pub tcp_streams_opened,
        /// TCP connections from others that were closed at once, because there were too many.
        pub tcp_streams_refused,
        /// Messages on such connections that were dropped, because nothing has shown whose it is.
        pub tcp_strangers_dropped,
        /// Path MTU probes sent.
        pub probes_sent,
        /// Times that a path stopped carrying datagrams of its size.
        pub black_holes,
        /// Times that a path was found to carry less than the least size of its datagrams.
        pub paths_too_small,

        /// Relayed frames that came from no root of this node's, or with a wrong token.
        pub relayed_unknown,
        /// Requests to be registered, sent to roots.
        pub root_registrations_sent,
        /// Questions for vouchers of the other address family, sent to roots.
        pub root_vouchers_asked,
        /// Look-ups sent to roots.
        pub root_look_ups_sent,
        /// Claims of nicknames, and questions for them, sent to roots.
        pub root_nicknames_sent,
        /// Answers of roots dropped because nobody had asked, or they were not what the node in question has
        /// signed.
        pub root_answers_refused,
        /// Places of peers learned from roots.
        pub root_places_found,
        /// Times that a root has said that a node is at another one.
        pub root_referrals,
        /// Of these, those not followed: too many others are, or no address is named.
        pub root_referrals_ignored,
        /// Notices of roots about a channel, not heeded because there were too many.
        pub root_notices_limited,
        /// Times that a root dropped frames because it relays no more for this node.
        pub root_over_rate,

        /// Beacons sent, each copy counted.
        pub beacons_sent,
        /// Beacons received from others.
        pub beacons_received,
        /// Beacons received that name a network of ours.
        pub beacons_matched,
        /// Hellos sent.
        pub hellos_sent,
        /// Hellos received of a network of ours.
        pub hellos_received,
        /// Hellos of no network of ours, or altered.
        pub hellos_unknown,
        /// Hellos not looked at because too many came.
        pub hellos_limited,
        /// Beacons and hellos dropped because of their length or version.
        pub discovery_malformed,
    }
}
