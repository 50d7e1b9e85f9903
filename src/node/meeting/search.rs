//! Searches for peers in the DHT: their begin, repetition and end. Has no clock and does no I/O.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use peersock_dht::{NodeTail, Record, Target};
use peersock_overlay::{NetworkIndex, PublicIdentity};

use peersock_datapath::Want;

/// Time for the local network and the roots to find a peer before the DHT is asked.
const DHT_DELAY: Duration = Duration::from_millis(300);

/// Time after the last request for which a peer is searched for.
const DEMAND_LIFETIME: Duration = Duration::from_secs(60);

/// Interval of the checks for a session.
const SESSION_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Minimum and maximum of the backoff after a failed search.
const MIN_BACKOFF: Duration = Duration::from_secs(5);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Limit of simultaneous searches.
const MAX_SEARCHES: usize = 128;

/// Peers that are searched for.
#[derive(Default)]
pub(super) struct Searches {
    list: BTreeMap<(NetworkIndex, NodeTail), Search>,
}

struct Search {
    address: Ipv6Addr,
    identity: Option<PublicIdentity>,
    /// Time of the last request.
    wanted: Instant,
    /// Time at which the DHT is asked; `None` during a search.
    begin: Option<Instant>,
    look: Instant,
    in_vain: u32,
    record: Option<Record>,
    /// Time at which both sides begin to punch, if a knock has set it.
    start: Option<Instant>,
}

/// Action in the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Find a node and knock at it.
    Begin(NetworkIndex, Target),
    /// End the search and the knocks.
    End(NetworkIndex, Target),
}

impl Searches {
    /// Starts or prolongs a search, because a program wants a peer.
    pub(super) fn want(&mut self, now: Instant, want: Want) {
        let key = (want.network, NodeTail::of_address(&want.address));
        if !self.list.contains_key(&key) && self.list.len() >= MAX_SEARCHES {
            return;
        }
        let search = self.list.entry(key).or_insert_with(|| Search {
            address: want.address,
            identity: want.identity,
            wanted: now,
            begin: Some(now + DHT_DELAY),
            look: now + DHT_DELAY,
            in_vain: 0,
            record: None,
            start: None,
        });
        search.wanted = now;
        search.identity = search.identity.or(want.identity);
    }

    /// Stores a found record. Returns the time to begin punching, or `None` if its node is not wanted.
    pub(super) fn found(&mut self, now: Instant, network: NetworkIndex, record: &Record) -> Option<Instant> {
        let tail = NodeTail::of(&record.identity.node_id());
        let search = self.list.get_mut(&(network, tail))?;
        search.record = Some(record.clone());
        // A knock may already have set a common start of both sides.
        Some(search.start.filter(|start| *start > now).unwrap_or(now))
    }

    /// Notes that a knock was left, and that both sides begin at `start`. Returns the record of the node, if
    /// it was found.
    pub(super) fn knocked(
        &mut self,
        start: Instant,
        network: NetworkIndex,
        tail: NodeTail,
    ) -> Option<Record> {
        let search = self.list.get_mut(&(network, tail))?;
        search.start = Some(start);
        search.record.clone()
    }

    /// Schedules the next search, because one ended without a record.
    pub(super) fn not_found(&mut self, now: Instant, network: NetworkIndex, tail: NodeTail) {
        self.again(now, network, tail);
    }

    /// Schedules the next search, because no node answered the knocks.
    pub(super) fn knock_failed(&mut self, now: Instant, network: NetworkIndex, tail: NodeTail) {
        self.again(now, network, tail);
    }

    fn again(&mut self, now: Instant, network: NetworkIndex, tail: NodeTail) {
        let Some(search) = self.list.get_mut(&(network, tail)) else { return };
        if search.begin.is_none() {
            // The exponent is bounded, so that the power does not overflow.
            search.begin = Some(now + MAX_BACKOFF.min(MIN_BACKOFF * 2u32.pow(search.in_vain.min(8))));
            search.in_vain += 1;
        }
    }

    /// Returns the due actions; `is_met` returns true if there is a session.
    pub(super) fn drive(
        &mut self,
        now: Instant,
        is_met: impl Fn(NetworkIndex, Ipv6Addr) -> bool,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        self.list.retain(|(network, tail), search| {
            if search.next() > now {
                return true;
            }
            search.look = now + SESSION_CHECK_INTERVAL;
            let target = search.identity.map_or(Target::Address(*tail), Target::Node);
            if is_met(*network, search.address) || now >= search.wanted + DEMAND_LIFETIME {
                // A search that never began has nothing to end in the DHT.
                if search.begin.is_none() || search.in_vain > 0 {
                    steps.push(Step::End(*network, target));
                }
                return false;
            }
            if search.begin.is_some_and(|begin| begin <= now) {
                search.begin = None;
                steps.push(Step::Begin(*network, target));
            }
            true
        });
        steps
    }

    /// Returns the time at which [`Self::drive`] is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.list.values().map(Search::next).min()
    }

    /// Restarts the running searches, because they were lost when the DHT was entered again.
    pub(super) fn restart(&mut self, now: Instant) {
        for search in self.list.values_mut() {
            search.begin = search.begin.or(Some(now));
        }
    }

    /// Drops the searches of a network that was left.
    pub(super) fn leave(&mut self, network: NetworkIndex) {
        self.list.retain(|(of, _), _| *of != network);
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}

impl Search {
    fn next(&self) -> Instant {
        self.begin.map_or(self.look, |begin| begin.min(self.look))
    }
}

#[cfg(test)]
mod tests {
    use peersock_overlay::{Contact, Identity, NetworkId};

    use super::*;

    const NETWORK: NetworkIndex = NetworkIndex(1);

    fn identity() -> PublicIdentity {
        *Identity::from_seed(&[1; 32]).public()
    }

    fn want(identity: Option<PublicIdentity>) -> Want {
        let network = NetworkId::ad_hoc(80..=80).expect("a port range");
        Want { network: NETWORK, address: network.address_of(&self::identity().node_id()), identity }
    }

    fn tail() -> NodeTail {
        NodeTail::of(&identity().node_id())
    }

    fn record() -> Record {
        Record {
            identity: identity(),
            sequence: 1,
            lifetime: 60,
            slots: 2,
            poll: 15,
            contact: Contact::default(),
        }
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_peer_that_is_found_at_once_is_not_looked_for() {
        let (mut searches, now) = (Searches::default(), now());
        searches.want(now, want(None));
        assert_eq!(searches.drive(now, |_, _| false), []);
        assert_eq!(searches.next(), Some(now + DHT_DELAY));
        assert_eq!(searches.drive(now + DHT_DELAY, |_, _| true), []);
        assert_eq!((searches.len(), searches.next()), (0, None));
    }

    #[test]
    fn a_search_ends_with_a_session_or_when_nobody_wants_the_peer() {
        let (mut searches, now) = (Searches::default(), now());
        let target = Target::Address(tail());
        searches.want(now, want(None));
        assert_eq!(searches.drive(now + DHT_DELAY, |_, _| false), [Step::Begin(NETWORK, target)]);
        assert_eq!(searches.drive(now + DHT_DELAY + SESSION_CHECK_INTERVAL, |_, _| false), [], "once");
        assert_eq!(
            searches.drive(now + 3 * SESSION_CHECK_INTERVAL, |_, _| true),
            [Step::End(NETWORK, target)]
        );
        searches.want(now, want(Some(identity())));
        let target = Target::Node(identity());
        assert_eq!(searches.drive(now + DHT_DELAY, |_, _| false), [Step::Begin(NETWORK, target)]);
        searches.want(now + DEMAND_LIFETIME / 2, want(None));
        assert_eq!(searches.drive(now + DEMAND_LIFETIME, |_, _| false), []);
        assert_eq!(searches.drive(now + 2 * DEMAND_LIFETIME, |_, _| false), [Step::End(NETWORK, target)]);
        assert_eq!(searches.len(), 0);
    }

    #[test]
    fn what_is_not_found_is_looked_for_less_and_less_often() {
        let (mut searches, mut now) = (Searches::default(), now());
        searches.want(now, want(None));
        now += DHT_DELAY;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            searches.want(now, want(None));
            assert_eq!(searches.drive(now, |_, _| false).len(), 1);
            searches.not_found(now, NETWORK, tail());
            searches.knock_failed(now, NETWORK, tail());
            let begin = searches.list[&(NETWORK, tail())].begin.expect("it begins again");
            pauses.push((begin - now).as_secs());
            now = begin;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn whoever_is_found_is_met_when_both_sides_begin() {
        let (mut searches, now) = (Searches::default(), now());
        assert_eq!(searches.found(now, NETWORK, &record()), None, "nobody wants it");
        searches.want(now, want(None));
        assert_eq!(searches.knocked(now + DHT_DELAY, NETWORK, tail()), None, "its place is not known yet");
        assert_eq!(searches.found(now, NETWORK, &record()), Some(now + DHT_DELAY));
        assert_eq!(searches.found(now + 2 * DHT_DELAY, NETWORK, &record()), Some(now + 2 * DHT_DELAY));
        assert_eq!(searches.knocked(now + 3 * DHT_DELAY, NETWORK, tail()), Some(record()));
    }

    #[test]
    fn their_number_is_bounded() {
        let (mut searches, now) = (Searches::default(), now());
        for n in 0..1000u16 {
            let address = Ipv6Addr::from(u128::from(n));
            searches.want(now, Want { network: NETWORK, address, identity: None });
        }
        assert_eq!(searches.len(), MAX_SEARCHES);
        searches.leave(NETWORK);
        assert_eq!(searches.len(), 0);
    }
}
