use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// What one node has done and dropped since it started. Each counter only ever grows.
        ///
        /// ```
        /// use peersock_overlay::Counters;
        ///
        /// let counters = Counters::default();
        /// counters.data_replayed.increment();
        /// assert!(counters.snapshot().contains(&("data_replayed", 1)));
        /// ```
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])+ pub $name: Counter,)+
        }

        impl Counters {
            /// Every counter with its name, in the order of declaration.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }
        }
    };
}

counters! {
    /// Data packets dropped because they were too short or of another session.
    data_malformed,
    /// Data packets dropped because no key of ours made them.
    data_unauthentic,
    /// Authentic data packets dropped because they had been received before.
    data_replayed,
    /// Authentic data packets dropped because their counter is behind the replay window.
    data_too_old,
    /// Data packets dropped because their session is past its lifetime or erased.
    data_expired,
    /// Packets that were not sent because the session was past its lifetime or erased.
    seal_expired,

    /// Datagrams dropped because their source address cannot be answered.
    bad_source,
    /// Datagrams dropped because they are no message of this protocol, or cut off.
    unknown_message,
    /// Data packets for a session that does not exist.
    data_unknown_session,
    /// Answers to those, telling their sender.
    unknown_session_sent,
    /// Such answers received.
    unknown_session_received,
    /// Datagrams dropped because the queue to the driver was full or no socket reaches their destination.
    transmits_dropped,
    /// Events lost because the driver did not take them.
    events_lost,

    /// Handshake messages dropped because of their length or version.
    handshake_malformed,
    /// Handshake messages dropped because their sender does not know this node's ID.
    mac1_invalid,
    /// Handshake messages dropped because they were forged, altered or made with another network's key.
    handshake_unauthentic,
    /// Handshake messages dropped because too many came.
    handshakes_refused,
    /// Bytes of messages that were hashed, decrypted or compared with a network's tags before it was known whether they
    /// are authentic, counted as often as that was done. Of data packets only those that were dropped: see
    /// [`SessionStats`](crate::SessionStats) for the others.
    bytes_tried,
    /// X25519 operations done in handshakes.
    handshake_x25519,
    /// Copies of an initiation dropped before they cost anything.
    initiations_replayed,
    /// Authentic initiations that were not newer than the last one of their sender.
    initiations_stale,
    /// Answers to those, telling their sender the newest timestamp.
    stale_replies_sent,
    /// Such answers received: this node's clock went back since an earlier run.
    clock_behind,
    /// Initiations sent, each copy counted.
    initiations_sent,
    /// Initiations answered.
    handshakes_answered,
    /// Handshakes that this node began and that were completed.
    handshakes_initiated,
    /// Sessions that became usable.
    sessions_established,
    /// Sessions not begun because the session table is full.
    sessions_refused,
    /// Initiations without a data suite that this node has.
    suites_unsupported,
    /// Responses and cookie replies to no initiation of ours, or too late.
    responses_unexpected,
    /// Cookies demanded under load.
    cookies_sent,
    /// Cookies received from busy peers.
    cookies_received,
    /// Attempts to get a session.
    attempts_started,
    /// Attempts that ended without one.
    attempts_given_up,
    /// Sessions replaced because of their age.
    rekeys,

    /// Hellos and initiations of nodes that are no members, or for networks that are not joined.
    strangers_refused,
    /// Peers forgotten to make room for others.
    peers_evicted,
    /// Peers looked at to find those.
    eviction_steps,
    /// Peers forgotten because nothing was heard of them for long.
    peers_forgotten,
    /// Peers not taken in because there was no room.
    peers_refused,
    /// Times that a peer's identity was seen to be in use at two places.
    peers_at_two_places,
    /// Times that this node's own identity was seen in use elsewhere.
    own_identity_elsewhere,
    /// Hellos that showed that a peer has been restarted.
    restarts_noticed,
    /// ICMP errors that nobody listens where something was sent that this node has sent indeed.
    refusals,
    /// Peers taken for dead because of such errors.
    peers_refused_to_answer,

    /// Keepalives sent, those that confirm a session included.
    keepalives_sent,
    /// Keepalives received.
    keepalives_received,
    /// Times that a peer left data unanswered for too long.
    silences,
    /// Messages that ended a session.
    closes_received,
    /// Control messages of a kind that this version does not know.
    control_unknown,
    /// Times that a peer's address changed.
    paths_moved,
    /// Challenges sent: does the peer receive there?
    challenges_sent,
    /// Answers that repeat no challenge of this node's.
    answers_wrong,
    /// Path MTU probes sent.
    probes_sent,
    /// Times that a path stopped carrying datagrams of its size.
    black_holes,

    /// Beacons sent, each copy counted.
    beacons_sent,
    /// Beacons received from others.
    beacons_received,
    /// Beacons received that name a network of ours.
    beacons_matched,
    /// Hellos sent.
    hellos_sent,
    /// Hellos received of a network of ours.
    hellos_received,
    /// Hellos of no network of ours, or altered.
    hellos_unknown,
    /// Hellos not looked at because too many came.
    hellos_limited,
    /// Beacons and hellos dropped because of their length or version.
    discovery_malformed,
}

/// One counter. Increments from any thread are never lost; reading orders nothing.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
