//! Load measure and rate limits, which keep strangers' packets cheap.
//!
//! Everything here has a fixed size, whatever arrives. The same packets at the same times get the same
//! answers.
//!
//! An initiation with a valid MAC1 costs its receiver two X25519 operations before it knows anything about
//! the sender, and three more to answer. [`HandshakeLoad`] limits that. Once more initiations arrive than its
//! bucket refills, an initiation must carry a cookie (MAC2), which proves that its sender receives at its
//! source address. Then each source prefix has a bucket, and all of them share another. In addition each node
//! has a bucket at the address where it is reached, so that no attacker can end sessions by using up the
//! handshakes that their renewal needs: neither strangers with many addresses, nor peers at many addresses.
//!
//! A relayed message always comes from the root's address. So each relayed source has its bucket in front of
//! that of the root's prefix, and cannot use up the share of the root's other sources. Only the root names
//! the source. A root that makes up sources gets no more than its prefix has.

use std::time::{Duration, Instant};

use super::config::Limits;
use super::limiter::{Limiter, Sources};
use crate::bucket::{Bucket, Rate};
use crate::noise::Origin;
use crate::wire::Channel;

/// Decision about an initiation whose MAC1 is valid.
///
/// See [`HandshakeLoad`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The X25519 operations are worth their cost.
    Accept,
    /// The sender has to show a cookie first.
    DemandCookie,
    /// The initiation is dropped: its source, or all sources together, send too many even with cookies.
    Refuse,
}

/// Load measure that decides which handshake messages are worth a Diffie-Hellman operation.
///
/// ```
/// use std::net::SocketAddr;
/// use std::time::Instant;
/// use peersock_overlay::Limits;
/// use peersock_overlay::load::{Admission, HandshakeLoad};
///
/// # fn now() -> Instant { Instant::now() }
/// let (now, source): (_, SocketAddr) = (now(), "192.0.2.1:4000".parse()?);
/// let limits = Limits { handshake_burst: 1, ..Limits::default() };
/// let mut load = HandshakeLoad::new(&limits, 7, now);
/// assert_eq!(load.admit(source, now, || false, || false), Admission::Accept);
/// assert_eq!(load.admit(source, now, || false, || false), Admission::DemandCookie);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct HandshakeLoad {
    arrivals: Bucket,
    /// Number of tokens at which the arrivals count as calm (hysteresis).
    calm: u32,
    /// Earliest end of the loaded state.
    loaded_until: Option<Instant>,
    /// Budget for initiations with a valid cookie.
    proven: Limiter,
    /// Budget for cookie replies, per address and port. The sender is unproven, so with a budget per prefix a
    /// forger could use up that of the whole prefix. A reply costs some microseconds, so the common rate is
    /// high. It is shorter than the initiation it answers.
    cookie_replies: Limiter,
    /// Budget for responses that name a handshake of ours and fail to authenticate. Each costs two X25519
    /// operations. An attacker can make this node send it an initiation, and then forge answers.
    failed_responses: Limiter,
    relayed: Relayed,
}

/// Limits on one relayed source within its root's budget.
#[derive(Debug)]
struct Relayed {
    proven: Sources,
    cookie_replies: Sources,
    failed_responses: Sources,
}

/// Time after the last excess initiation for which the endpoint keeps asking for cookies.
const LOAD_HOLD: Duration = Duration::from_secs(1);

impl HandshakeLoad {
    /// Creates the load measure from the two limits on handshakes. `key` is random and secret.
    pub fn new(limits: &Limits, key: u64, now: Instant) -> Self {
        let (rate, burst) = (limits.handshakes_per_second, limits.handshake_burst);
        let proven = Rate::per_second(rate, rate);
        // Half, so that one prefix leaves room for others even when it attacks with valid cookies.
        let proven_source = Rate::per_second(rate / 2, rate / 2);
        let (failed, failed_source) = (Rate::per_second(500, 500), Rate::per_second(20, 40));
        let (replies, replies_source) = (Rate::per_second(20_000, 2000), Rate::per_second(200, 200));
        Self {
            arrivals: Bucket::new(Rate::per_second(rate, burst), now),
            calm: burst / 2,
            loaded_until: None,
            proven: Limiter::new(proven, proven_source, key, now),
            cookie_replies: Limiter::new(replies, replies_source, key, now),
            failed_responses: Limiter::new(failed, failed_source, key, now),
            relayed: Relayed {
                proven: Sources::new(Rate::per_second(10, 20), key, now),
                cookie_replies: Sources::new(Rate::per_second(20, 20), key, now),
                failed_responses: Sources::new(Rate::per_second(5, 10), key, now),
            },
        }
    }

    /// Requires cookies from the next initiations, because the processor is behind with the admitted ones.
    pub(super) fn note_behind(&mut self, now: Instant) {
        self.loaded_until = Some(now + LOAD_HOLD);
    }

    /// Returns true if the last admitted initiation needed a cookie.
    pub(super) fn asks_for_cookies(&self) -> bool {
        self.loaded_until.is_some()
    }

    /// Counts an arriving initiation. Returns true if initiations without a cookie must be turned away now.
    pub(super) fn is_loaded(&mut self, now: Instant) -> bool {
        // A margin between the two states keeps a rate near the limit from switching them all the time.
        let recovered = self.arrivals.has(self.calm, now);
        if !self.arrivals.take(now) {
            self.loaded_until = Some(now + LOAD_HOLD);
        }
        match self.loaded_until {
            Some(until) if now < until || !recovered => true,
            _ => {
                self.loaded_until = None;
                false
            }
        }
    }

    /// Decides about one initiation. Calls `has_cookie` only under load, and `take_known` only if there is no
    /// room for all, to take a token of the node that is reached at the source.
    pub fn admit(
        &mut self,
        origin: impl Into<Origin>,
        now: Instant,
        has_cookie: impl FnOnce() -> bool,
        take_known: impl FnOnce() -> bool,
    ) -> Admission {
        if !self.is_loaded(now) {
            return Admission::Accept;
        }
        let origin = origin.into();
        let (remote, relayed) = (origin.remote, &mut self.relayed);
        if has_cookie() {
            // The relayed source pays before its root, so that one source cannot use up the root's share.
            let may = relayed.proven.take_if_relayed(origin, now) && self.proven.take(remote.ip(), now);
            // A peer at its own address gets through in any case, so that a flood cannot end its session.
            return if may || take_known() { Admission::Accept } else { Admission::Refuse };
        }
        // Replies are limited too, because a forged source would get them.
        let may = relayed.cookie_replies.take_if_relayed(origin, now)
            && self.cookie_replies.take_address(remote, now);
        if may { Admission::DemandCookie } else { Admission::Refuse }
    }

    /// Returns true if another response may be tried to an initiation that has had `failed` forged answers.
    pub(super) fn may_try_response(&self, origin: impl Into<Origin>, failed: u8, now: Instant) -> bool {
        let origin = origin.into();
        let has = |sources: &Sources| origin.source().is_none_or(|source| sources.has(source, now));
        // The first response costs less than the initiation did, so strangers cannot use up the budget of
        // handshakes with others by it.
        failed == 0
            || has(&self.relayed.failed_responses) && self.failed_responses.has(origin.remote.ip(), now)
    }

    /// Counts a forged response that has cost its Diffie-Hellman operations.
    pub(super) fn note_failed_response(&mut self, origin: impl Into<Origin>, now: Instant) {
        let origin = origin.into();
        // A relayed forger must not use up the budget of the root that relays for others.
        if self.relayed.failed_responses.take_if_relayed(origin, now) {
            self.failed_responses.take(origin.remote.ip(), now);
        }
    }
}

impl Sources {
    /// Takes a token of a relayed source; a direct source has no bucket here and always passes.
    fn take_if_relayed(&mut self, origin: Origin, now: Instant) -> bool {
        origin.source().is_none_or(|source| self.take(source, now))
    }
}

impl Origin {
    /// Returns the key that distinguishes relayed sources.
    fn source(&self) -> Option<(std::net::IpAddr, u16, Channel)> {
        let (ip, port) = (self.remote.ip().to_canonical(), self.remote.port());
        self.channel.map(|channel| (ip, port, channel))
    }
}

/// Limits on messages that anyone can send and that cost no Diffie-Hellman operation.
#[derive(Debug)]
pub(super) struct HintLimits {
    /// Beacons heard; each costs a hash per joined network. Per address and port, so that one socket does not
    /// use up the budget of others on the same local network.
    pub(super) beacons: Limiter,
    /// Hellos heard; each costs up to one decryption per joined network. Per address and port, which may be
    /// forged, because the nodes of a local network share a prefix.
    pub(super) hellos: Limiter,
    /// Hints from a peer's address that a session is unknown. They cost little, so the common rate is high
    /// and peers at many addresses do not use up the budget of others.
    pub(super) unknown_heard: Limiter,
    /// ICMP errors for a peer's address; the same holds for these.
    pub(super) refusals: Limiter,
    /// Hints sent that a session is unknown.
    pub(super) unknown_sent: Limiter,
}

impl HintLimits {
    pub(super) fn new(key: u64, now: Instant) -> Self {
        let limiter = |all, all_burst, source, source_burst| {
            let (all, source) = (Rate::per_second(all, all_burst), Rate::per_second(source, source_burst));
            Limiter::new(all, source, key, now)
        };
        Self {
            // A budget for all senders alone would let one flooder keep all others from meeting.
            beacons: limiter(4000, 2000, 20, 50),
            hellos: limiter(5000, 1000, 200, 500),
            unknown_heard: limiter(20_000, 10_000, 20, 20),
            refusals: limiter(20_000, 10_000, 200, 100),
            unknown_sent: limiter(500, 200, 20, 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::testing::instant;

    const LIMITS: Limits = Limits {
        peers_per_network: 1,
        handshakes_per_second: 100,
        handshake_burst: 50,
        forget_after: Duration::from_secs(600),
    };
    const SOURCE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 4000);

    #[test]
    fn a_clock_that_stands_still_or_steps_back_gives_no_tokens() {
        let start = instant() + Duration::from_secs(10);
        let mut bucket = Bucket::new(Rate::per_second(1000, 1), start);
        assert!(bucket.take(start));
        assert!(!bucket.take(start - Duration::from_secs(5)));
        assert!(!bucket.take(start));
    }

    #[test]
    fn a_flood_turns_cookies_on_until_it_is_over() {
        let start = instant();
        let mut load = HandshakeLoad::new(&LIMITS, 7, start);
        let mut admit = |at, has_cookie| load.admit(SOURCE, at, || has_cookie, || false);
        let accepted = (0..1000).filter(|_| admit(start, false) == Admission::Accept).count();
        assert_eq!(accepted, 50);
        assert_eq!(admit(start, true), Admission::Accept);
        // Sustained at ten times the rate, no initiation without a cookie gets through any more.
        for ms in 0..3000 {
            assert_ne!(admit(start + Duration::from_millis(ms), false), Admission::Accept);
        }
        let calm = start + Duration::from_secs(5);
        assert_eq!(admit(calm, false), Admission::Accept);
    }

    #[test]
    fn cookies_do_not_buy_an_unlimited_share() {
        let start = instant();
        let mut load = HandshakeLoad::new(&LIMITS, 7, start);
        let mut admit = || load.admit(SOURCE, start, || true, || false);
        let accepted = (0..1000).filter(|_| admit() == Admission::Accept).count();
        // The burst without cookies, and half of the rate with cookies for one prefix.
        assert_eq!(accepted, 50 + 50);
    }

    #[test]
    fn forged_addresses_of_a_prefix_leave_its_nodes_their_cookies() {
        let start = instant();
        let mut load = HandshakeLoad::new(&LIMITS, 7, start);
        for n in 0u32..20_000 {
            let [.., host, a, b] = n.to_be_bytes();
            let forged = SocketAddr::from(([192, 0, 2, host ^ a], u16::from_be_bytes([a, b])));
            let at = start + Duration::from_micros(100) * n;
            load.admit(forged, at, || false, || false);
        }
        let end = start + Duration::from_secs(2);
        assert_eq!(load.admit(SOURCE, end, || false, || false), Admission::DemandCookie);
    }

    #[test]
    fn strangers_with_many_addresses_leave_known_peers_what_is_theirs() {
        let start = instant();
        let mut load = HandshakeLoad::new(&LIMITS, 7, start);
        for n in 0u32..100_000 {
            let [.., a, b, c] = n.to_be_bytes();
            load.admit(SocketAddr::from(([a, b, c, 1], 4000)), start, || true, || false);
        }
        let mut admit = |source, is_known| load.admit(source, start, || true, || is_known);
        assert_eq!(admit(SOURCE, false), Admission::Refuse);
        assert_eq!(admit(SOURCE, true), Admission::Accept);
    }

    #[test]
    fn the_first_response_to_an_initiation_is_read_whatever_others_forge() {
        let start = instant();
        let mut load = HandshakeLoad::new(&LIMITS, 7, start);
        for n in 0u32..100_000 {
            let [.., a, b, c] = n.to_be_bytes();
            load.note_failed_response(SocketAddr::from(([a, b, c, 1], 4000)), start);
        }
        assert!(load.may_try_response(SOURCE, 0, start));
        assert!(!load.may_try_response(SOURCE, 1, start));
        // One source gets 20 a second, after 40 at once.
        let mut load = HandshakeLoad::new(&LIMITS, 7, start);
        let forged = (0..1000).filter(|_| {
            let may = load.may_try_response(SOURCE, 1, start);
            load.note_failed_response(SOURCE, start);
            may
        });
        assert_eq!(forged.count(), 40);
        assert!(load.may_try_response(SocketAddr::from(([198, 51, 100, 1], 4000)), 1, start));
    }

    #[test]
    fn a_relayed_source_uses_up_its_own_and_a_root_that_makes_up_sources_no_more_than_one_prefix_has() {
        let start = instant();
        let limits = Limits { handshakes_per_second: 1000, handshake_burst: 1000, ..LIMITS };
        let from = |channel| Origin { remote: SOURCE, channel: Some(Channel(channel)) };
        for has_cookie in [true, false] {
            let mut load = HandshakeLoad::new(&limits, 7, start);
            while load.admit(SOURCE, start, || false, || false) == Admission::Accept {}
            let mut admitted = |channel, times| {
                let admit = |_| load.admit(from(channel), start, || has_cookie, || false);
                let admissions = (0..times).map(admit);
                admissions.filter(|admission| *admission != Admission::Refuse).count()
            };
            assert_eq!(admitted(1, 1000), 20, "with a cookie: {has_cookie}");
            assert_eq!(admitted(2, 1), 1);
            let made_up: usize = (3..1000).map(|channel| admitted(channel, 1)).sum();
            // One prefix gets half of the handshakes with cookies, and 200 cookie replies.
            let most = if has_cookie { 500 } else { 200 };
            assert!((most - 30..most).contains(&made_up), "{made_up}");
        }
        let mut load = HandshakeLoad::new(&limits, 7, start);
        (0..1000).for_each(|_| load.note_failed_response(from(1), start));
        assert!(!load.may_try_response(from(1), 1, start) && load.may_try_response(from(2), 1, start));
        (3..1000).for_each(|channel| load.note_failed_response(from(channel), start));
        assert!(!load.may_try_response(from(2), 1, start) && load.may_try_response(from(2), 0, start));
    }
}
