//! Load measure and rate limits: what keeps strangers' packets cheap.
//!
//! Everything here has a fixed size, whatever arrives, and the same packets at the same times get the same
//! answers.
//!
//! A handshake initiation with a valid MAC1 costs its receiver two X25519 operations before it knows anything
//! about the sender, and three more to answer. [`HandshakeLoad`] decides when that is no longer given away:
//! once more initiations arrive than its bucket refills, an initiation must carry a cookie (MAC2), which
//! proves that its sender receives at its source address; and then each source prefix has its own bucket, and
//! all of them together another. Beside these each node has a bucket of its own at the address at which it is
//! reached, so that nobody ends sessions by using up what their renewal needs: neither strangers with many
//! addresses, nor those who are peers at many.
//!
//! What a root relays comes from the root's address, whoever sent it. So each relayed source has a bucket of
//! its own in front of the one of the root's prefix: it cannot use up what the others of the root have. Which
//! source it is only the root says. A root that makes up sources gets no more than its prefix has.

use std::time::{Duration, Instant};

use super::config::Limits;
use super::limiter::{Limiter, Sources};
use crate::bucket::{Bucket, Rate};
use crate::noise::Origin;
use crate::wire::Channel;

/// What to do with an initiation whose MAC1 is valid.
///
/// See [`HandshakeLoad`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Spend the X25519 operations.
    Accept,
    /// Ask for a cookie.
    DemandCookie,
    /// Ignore it: its source, or everyone together, sends too many even with cookies.
    Refuse,
}

/// Decides which handshake messages are worth a Diffie-Hellman operation.
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
    /// Tokens at which the arrivals have calmed down (hysteresis).
    calm: u32,
    /// Under load until then at least.
    loaded_until: Option<Instant>,
    /// Initiations with a valid cookie.
    proven: Limiter,
    /// Cookie replies, for each address and port: nobody has shown yet that he receives there, so who forges
    /// addresses would use up what all of a prefix may have. They cost some microseconds each; the common
    /// rate is high for the same reason. They are shorter than what they answer.
    cookie_replies: Limiter,
    /// Responses that name a handshake of ours and fail to authenticate. Each costs two X25519 operations.
    /// Anybody can make this node send him an initiation, and then forge answers to it.
    failed_responses: Limiter,
    relayed: Relayed,
}

/// What one relayed source may use up of what its root has.
#[derive(Debug)]
struct Relayed {
    proven: Sources,
    cookie_replies: Sources,
    failed_responses: Sources,
}

/// How long the endpoint keeps asking for cookies after the last excess initiation.
const LOAD_HOLD: Duration = Duration::from_secs(1);

impl HandshakeLoad {
    /// Uses the two limits on handshakes. `key` is random and kept secret.
    pub fn new(limits: &Limits, key: u64, now: Instant) -> Self {
        let (rate, burst) = (limits.handshakes_per_second, limits.handshake_burst);
        let proven = Rate::per_second(rate, rate);
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

    /// The processor does not keep up with what was admitted: the next ones must have a cookie.
    pub(super) fn note_behind(&mut self, now: Instant) {
        self.loaded_until = Some(now + LOAD_HOLD);
    }

    /// Returns true if an initiation that was admitted last had a cookie.
    pub(super) fn asks_for_cookies(&self) -> bool {
        self.loaded_until.is_some()
    }

    /// Counts the arrival of an initiation and says whether those without a cookie must be turned away now.
    pub(super) fn is_loaded(&mut self, now: Instant) -> bool {
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

    /// Decides about one initiation. Only under load it is asked whether it `has_cookie`, and if there is no
    /// room for all, whether `take_known` takes a token of the node that is reached at the source.
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
            let may = relayed.proven.take_if_relayed(origin, now) && self.proven.take(remote.ip(), now);
            return if may || take_known() { Admission::Accept } else { Admission::Refuse };
        }
        let may = relayed.cookie_replies.take_if_relayed(origin, now)
            && self.cookie_replies.take_address(remote, now);
        if may { Admission::DemandCookie } else { Admission::Refuse }
    }

    /// Whether another response may be tried that answers an initiation to which so many answers were forged.
    ///
    /// The first one always is: it costs less than the initiation did, so whatever strangers do, they use up
    /// nothing that the handshakes with others need.
    pub(super) fn may_try_response(&self, origin: impl Into<Origin>, failed: u8, now: Instant) -> bool {
        let origin = origin.into();
        let has = |sources: &Sources| origin.source().is_none_or(|source| sources.has(source, now));
        failed == 0
            || has(&self.relayed.failed_responses) && self.failed_responses.has(origin.remote.ip(), now)
    }

    /// A response cost its Diffie-Hellman operations and was forged.
    pub(super) fn note_failed_response(&mut self, origin: impl Into<Origin>, now: Instant) {
        let origin = origin.into();
        if self.relayed.failed_responses.take_if_relayed(origin, now) {
            self.failed_responses.take(origin.remote.ip(), now);
        }
    }
}

impl Sources {
    /// Takes a token of a relayed source; any other has no bucket here.
    fn take_if_relayed(&mut self, origin: Origin, now: Instant) -> bool {
        origin.source().is_none_or(|source| self.take(source, now))
    }
}

impl Origin {
    /// What tells a relayed source from others.
    fn source(&self) -> Option<(std::net::IpAddr, u16, Channel)> {
        let (ip, port) = (self.remote.ip().to_canonical(), self.remote.port());
        self.channel.map(|channel| (ip, port, channel))
    }
}

/// Limits on messages that anyone can send and that cost no Diffie-Hellman operation.
#[derive(Debug)]
pub(super) struct HintLimits {
    /// Beacons heard: each costs a hash per joined network. Those of one socket do not use up what others on
    /// the same local network have.
    pub(super) beacons: Limiter,
    /// Hellos heard: each costs up to one decryption per joined network. For each address and port, which may
    /// be forged: those of a local network share a prefix.
    pub(super) hellos: Limiter,
    /// Hints heard that a session is unknown, from where a peer is. They cost little, so the common rate is
    /// high: peers at many addresses do not use up what others may say.
    pub(super) unknown_heard: Limiter,
    /// Errors heard that nobody listens where a peer is; the same is true of them.
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
        // Sustained at ten times the rate, none without a cookie gets through any more.
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
        // From one place 20 a second, after 40 at once.
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
