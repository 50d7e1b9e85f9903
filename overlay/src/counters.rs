peersock_primitives::counters! {
    /// Counts of one node's actions and drops since it started. Each counter only ever grows.
    pub struct Counters {
        /// Data packets dropped because they were too short or of another session.
        pub data_malformed,
        /// Data packets dropped because none of this node's keys made them.
        pub data_unauthentic,
        /// Authentic data packets dropped because they had been received before.
        pub data_replayed,
        /// Authentic data packets dropped because their counter is behind the replay window.
        pub data_too_old,
        /// Data packets dropped because their session is past its lifetime or erased.
        pub data_expired,
        /// Authentic data packets dropped because their sender has shown no credentials that count.
        pub data_not_admitted,
        /// Packets that were not sent because the session was past its lifetime or erased.
        pub seal_expired,

        /// Peers of managed networks whose credentials were accepted.
        pub peers_admitted,
        /// Peers of managed networks that were admitted and are no longer: revoked, or their credentials
        /// ended.
        pub peers_expelled,
        /// Credentials, heads and sets of peers that do not count.
        pub credentials_refused,
        /// Messages about credentials dropped because too many came from one peer.
        pub credentials_dropped,

        /// Datagrams dropped because their source address cannot be answered.
        pub bad_source,
        /// Datagrams dropped because they are truncated or no message of this protocol.
        pub unknown_message,
        /// Data packets for a session that does not exist.
        pub data_unknown_session,
        /// Answers sent to report an unknown session to the sender.
        pub unknown_session_sent,
        /// Answers received that report an unknown session.
        pub unknown_session_received,
        /// Messages not sent because the system gave no randomness for their keys or nonces.
        pub entropy_failures,
        /// Datagrams dropped because the queue to the driver was full or no socket reaches their destination.
        pub transmits_dropped,
        /// Events lost because the driver did not take them in time.
        pub events_lost,

        /// Handshake messages dropped because of their length or version.
        pub handshake_malformed,
        /// Handshake messages dropped because their sender does not know this node's ID.
        pub mac1_invalid,
        /// Handshake messages dropped because they were forged, altered or made with another network's key.
        pub handshake_unauthentic,
        /// Handshake messages dropped because too many arrived.
        pub handshakes_refused,
        /// Bytes of messages that were hashed, decrypted or compared with a network's tags before they proved
        /// authentic, counted once per operation. Of data packets, only dropped ones count: see
        /// [`SessionStats`](crate::SessionStats) for the others.
        pub bytes_tried,
        /// X25519 operations done in handshakes.
        pub handshake_x25519,
        /// Copies of an initiation dropped before they cost anything.
        pub initiations_replayed,
        /// Authentic initiations that were not newer than the last one of their sender.
        pub initiations_stale,
        /// Answers sent to report the newest timestamp to the sender of a stale initiation.
        pub stale_replies_sent,
        /// Answers received that report a newer timestamp: this node's clock has gone back since an earlier
        /// run.
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
        /// Responses and cookie replies without a matching initiation, or too late for it.
        pub responses_unexpected,
        /// Cookies demanded under load.
        pub cookies_sent,
        /// Cookies received from busy peers.
        pub cookies_received,
        /// Attempts to establish a session.
        pub attempts_started,
        /// Attempts that ended without a session.
        pub attempts_given_up,
        /// Sessions replaced because of their age.
        pub rekeys,

        /// Hellos and initiations from non-members, or for networks that are not joined.
        pub strangers_refused,
        /// Peers forgotten to make room for others.
        pub peers_evicted,
        /// Peers examined to find one to forget.
        pub eviction_steps,
        /// Peers forgotten after a long silence.
        pub peers_forgotten,
        /// Peers not added because there was no room.
        pub peers_refused,
        /// Times that a peer's identity was seen at two places.
        pub peers_at_two_places,
        /// Times that this node's own identity was seen elsewhere.
        pub own_identity_elsewhere,
        /// Hellos that showed a restart of a peer.
        pub restarts_noticed,
        /// ICMP errors (nothing listens there) for packets that this node has sent.
        pub refusals,
        /// Peers considered dead because of such ICMP errors.
        pub peers_refused_to_answer,

        /// Keepalives sent, including those that confirm a session.
        pub keepalives_sent,
        /// Keepalives received.
        pub keepalives_received,
        /// Probes sent to check that a peer with connections is still alive.
        pub liveness_probes_sent,
        /// Times that a peer left data unanswered for too long.
        pub silences,
        /// Messages that ended a session.
        pub closes_received,
        /// Control messages of a kind that this version does not know.
        pub control_unknown,
        /// Times that a peer's address changed.
        pub paths_moved,
        /// Times that a peer lost its session because its path did not answer and it was heard only
        /// elsewhere.
        pub paths_unproven,
        /// Challenges sent to verify that a peer receives at an address.
        pub challenges_sent,
        /// Answers that repeat no challenge of this node.
        pub answers_wrong,
        /// Messages with this node's addresses sent to peers that are reached through a root.
        pub candidates_sent,
        /// Messages with a peer's addresses received.
        pub candidates_received,
        /// Messages with a peer's addresses ignored because too many arrived or none was requested.
        pub candidates_refused,
        /// Searches for a direct path to a peer.
        pub punches_begun,
        /// Packets sent in such searches: challenges, and initiations to peers without a session.
        pub punches_sent,
        /// Answers to these challenges, and to challenges to or from many ports.
        pub punches_answered,
        /// Searches for a direct path to a peer by many ports.
        pub birthdays_begun,
        /// Packets sent in searches by many ports.
        pub birthday_probes_sent,
        /// Rounds in which this node and another one tried to connect to each other by TCP.
        pub tcp_punches_begun,
        /// TCP connections to or from other nodes.
        pub tcp_streams_opened,
        /// TCP connections from other nodes that were closed at once because there were too many.
        pub tcp_streams_refused,
        /// Messages on such connections that were dropped because their sender is not known yet.
        pub tcp_strangers_dropped,
        /// Path MTU probes sent.
        pub probes_sent,
        /// Times that a path stopped carrying datagrams of its size.
        pub black_holes,
        /// Times that a path was found to carry less than the minimum datagram size.
        pub paths_too_small,

        /// Relayed frames from no root of this node, or with a wrong token.
        pub relayed_unknown,
        /// Registration requests sent to roots.
        pub root_registrations_sent,
        /// Requests for vouchers of the other address family, sent to roots.
        pub root_vouchers_asked,
        /// Look-ups sent to roots.
        pub root_look_ups_sent,
        /// Nickname claims and queries sent to roots.
        pub root_nicknames_sent,
        /// Answers of roots dropped because they were not requested, or not signed by the node in question.
        pub root_answers_refused,
        /// Addresses of peers learned from roots.
        pub root_places_found,
        /// Referrals of roots: the node is at another root.
        pub root_referrals,
        /// Referrals not followed, because too many are followed already or no address is named.
        pub root_referrals_ignored,
        /// Notices of roots about a channel ignored because there were too many.
        pub root_notices_limited,
        /// Times that a root dropped frames because this node exceeded its relay rate.
        pub root_over_rate,

        /// Beacons sent, each copy counted.
        pub beacons_sent,
        /// Beacons received from other nodes.
        pub beacons_received,
        /// Beacons received that name a network of this node.
        pub beacons_matched,
        /// Hellos sent.
        pub hellos_sent,
        /// Hellos received for a network of this node.
        pub hellos_received,
        /// Hellos for no network of this node, or altered.
        pub hellos_unknown,
        /// Hellos dropped unread because too many arrived.
        pub hellos_limited,
        /// Beacons and hellos dropped because of their length or version.
        pub discovery_malformed,
    }
}
