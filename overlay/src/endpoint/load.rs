//! Load measure and rate limits: what keeps strangers' packets cheap.
//!
//! Everything here has a fixed size, whatever arrives, and the same packets at the same times get the same answers.
//!
//! A handshake initiation with a valid MAC1 costs its receiver two X25519 operations before it knows anything about
//! the sender, and three more to answer. [`HandshakeLoad`] decides when that is no longer given away: once more
//! initiations arrive than its bucket refills, an initiation must carry a cookie (MAC2), which proves that its sender
//! receives at its source address; and then each source prefix has its own bucket, and all of them together another.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::config::Limits;

/// A token bucket, as the generic cell rate algorithm: all it remembers is when it will be full again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    full_at: Instant,
    limit: Rate,
}

/// How often something may happen, and how many times at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    interval: Duration,
    burst: u32,
}

impl Rate {
    /// `times` per second; at least one.
    pub(super) fn per_second(times: u32, burst: u32) -> Self {
        Self::every(Duration::from_secs(1) / times.max(1), burst)
    }

    pub(super) fn every(interval: Duration, burst: u32) -> Self {
        Self { interval, burst }
    }
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(limit: Rate, now: Instant) -> Self {
        Self { full_at: now, limit }
    }

    /// Takes one token if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let has_one = self.has_one(now);
        if has_one {
            self.full_at = self.full_at.max(now) + self.limit.interval;
        }
        has_one
    }

    pub(super) fn has_one(&self, now: Instant) -> bool {
        self.limit.burst > 0 && self.missing(now) <= self.limit.interval * (self.limit.burst - 1)
    }

    /// Whether at least half of the burst is available.
    pub(super) fn is_half_full(&self, now: Instant) -> bool {
        self.missing(now) <= self.limit.interval * (self.limit.burst / 2)
    }

    /// The time that it takes to fill up.
    fn missing(&self, now: Instant) -> Duration {
        self.full_at.saturating_duration_since(now)
    }
}

/// One bucket per source prefix (IPv4 /24, IPv6 /56) in a table of fixed size.
///
/// Prefixes that fall into the same slot share its bucket; which do is keyed by the endpoint's seed.
#[derive(Debug)]
pub(super) struct PrefixLimiter {
    slots: Box<[Bucket]>,
    key: u64,
}

const PREFIX_SLOTS: usize = 1024;

impl PrefixLimiter {
    pub(super) fn new(limit: Rate, key: u64, now: Instant) -> Self {
        Self { slots: vec![Bucket::new(limit, now); PREFIX_SLOTS].into_boxed_slice(), key }
    }

    /// Takes one token from the bucket of `source`'s prefix.
    pub(super) fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        let slot = self.slot(source);
        self.slots[slot].take(now)
    }

    fn slot(&self, source: IpAddr) -> usize {
        let prefix = match source {
            IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => u64::from(address.to_bits() >> 8),
                None => ((address.to_bits() >> 72) as u64) | 1 << 63,
            },
        };
        // splitmix64's finaliser over the keyed prefix: enough that a sender cannot aim at another's slot.
        let mut hash = prefix.wrapping_add(self.key);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9 ^ (self.key | 1));
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (hash ^ (hash >> 31)) as usize % PREFIX_SLOTS
    }
}

/// What to do with an initiation whose MAC1 is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Spend the X25519 operations.
    Accept,
    /// Ask for a cookie.
    DemandCookie,
    /// Ignore it: its source, or everyone together, sends too many even with cookies.
    Refuse,
}

/// Decides which handshake messages are worth a Diffie-Hellman operation.
#[derive(Debug)]
pub(super) struct HandshakeLoad {
    arrivals: Bucket,
    /// Under load until the arrivals bucket has recovered to half (hysteresis), and at least this long.
    loaded_until: Option<Instant>,
    proven: Bucket,
    proven_sources: PrefixLimiter,
    cookie_replies: Bucket,
    cookie_reply_sources: PrefixLimiter,
    failed_responses: Bucket,
}

/// How long the endpoint keeps asking for cookies after the last excess initiation.
const LOAD_HOLD: Duration = Duration::from_secs(1);

/// Initiations with a valid cookie, per source prefix.
const PROVEN_PER_SECOND: u32 = 20;
const PROVEN_BURST: u32 = 40;

/// Cookie replies, which cost some microseconds each: to everyone, so that a flood from forged addresses does not use
/// them up, and per source prefix, so that one source does not.
const COOKIE_REPLIES_PER_SECOND: u32 = 20_000;
const COOKIE_REPLY_BURST: u32 = 2000;
const SOURCE_COOKIE_REPLIES_PER_SECOND: u32 = 40;
const SOURCE_COOKIE_REPLY_BURST: u32 = 40;

/// Responses that name a handshake of ours and fail to authenticate. Each costs two X25519 operations; only someone
/// who saw the initiation knows its index.
const FAILED_RESPONSES_PER_SECOND: u32 = 10;
const FAILED_RESPONSE_BURST: u32 = 20;

impl HandshakeLoad {
    pub(super) fn new(limits: &Limits, key: u64, now: Instant) -> Self {
        let (rate, burst) = (limits.handshakes_per_second, limits.handshake_burst);
        let proven_source = Rate::per_second(PROVEN_PER_SECOND, PROVEN_BURST);
        let cookie_replies = Rate::per_second(COOKIE_REPLIES_PER_SECOND, COOKIE_REPLY_BURST);
        let cookie_sources = Rate::per_second(SOURCE_COOKIE_REPLIES_PER_SECOND, SOURCE_COOKIE_REPLY_BURST);
        let failed_responses = Rate::per_second(FAILED_RESPONSES_PER_SECOND, FAILED_RESPONSE_BURST);
        Self {
            arrivals: Bucket::new(Rate::per_second(rate, burst), now),
            loaded_until: None,
            proven: Bucket::new(Rate::per_second(rate.saturating_mul(2), burst.saturating_mul(2)), now),
            proven_sources: PrefixLimiter::new(proven_source, key, now),
            cookie_replies: Bucket::new(cookie_replies, now),
            cookie_reply_sources: PrefixLimiter::new(cookie_sources, key, now),
            failed_responses: Bucket::new(failed_responses, now),
        }
    }

    /// Counts the arrival of an initiation and says whether those without a cookie must be turned away now.
    pub(super) fn is_loaded(&mut self, now: Instant) -> bool {
        let recovered = self.arrivals.is_half_full(now);
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

    /// Decides about one initiation; `has_cookie` is only asked under load.
    pub(super) fn admit(
        &mut self,
        source: IpAddr,
        now: Instant,
        has_cookie: impl FnOnce() -> bool,
    ) -> Admission {
        if !self.is_loaded(now) {
            return Admission::Accept;
        }
        if has_cookie() {
            let admitted = self.proven_sources.take(source, now) && self.proven.take(now);
            return if admitted { Admission::Accept } else { Admission::Refuse };
        }
        let answered = self.cookie_reply_sources.take(source, now) && self.cookie_replies.take(now);
        if answered { Admission::DemandCookie } else { Admission::Refuse }
    }

    /// Whether another response may be tried; see [`Self::note_failed_response`].
    pub(super) fn may_try_response(&self, now: Instant) -> bool {
        self.failed_responses.has_one(now)
    }

    /// A response cost its Diffie-Hellman operations and was forged.
    pub(super) fn note_failed_response(&mut self, now: Instant) {
        self.failed_responses.take(now);
    }
}

/// Limits on messages that anyone can send and that cost no Diffie-Hellman operation.
#[derive(Debug)]
pub(super) struct HintLimits {
    /// Beacons heard: each costs a hash per joined network.
    pub(super) beacons: Bucket,
    /// Hellos heard: each costs up to one decryption per joined network.
    pub(super) hellos: Bucket,
    /// Hints heard that a session is unknown: each costs a search through the peers.
    pub(super) unknown_heard: Bucket,
    unknown_sent: Bucket,
    unknown_sources: PrefixLimiter,
}

impl HintLimits {
    pub(super) fn new(key: u64, now: Instant) -> Self {
        Self {
            beacons: Bucket::new(Rate::per_second(500, 500), now),
            hellos: Bucket::new(Rate::per_second(500, 500), now),
            unknown_heard: Bucket::new(Rate::per_second(50, 50), now),
            unknown_sent: Bucket::new(Rate::per_second(100, 100), now),
            unknown_sources: PrefixLimiter::new(Rate::per_second(10, 20), key, now),
        }
    }

    /// Whether `source` may be told that we do not know its session.
    pub(super) fn may_tell_unknown(&mut self, source: IpAddr, now: Instant) -> bool {
        self.unknown_sources.take(source, now) && self.unknown_sent.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    const LIMITS: Limits = Limits { peers_per_network: 1, handshakes_per_second: 100, handshake_burst: 50 };
    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn bucket_refills_at_its_rate_and_never_beyond_its_burst() {
        let start = instant();
        let mut bucket = Bucket::new(Rate::per_second(10, 3), start);
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert!(!bucket.take(start + Duration::from_millis(99)));
        assert!(bucket.take(start + Duration::from_millis(100)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..5).filter(|_| bucket.take(later)).count(), 3);
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_gives_no_tokens() {
        let start = instant() + Duration::from_secs(10);
        let mut bucket = Bucket::new(Rate::per_second(1000, 1), start);
        assert!(bucket.take(start));
        assert!(!bucket.take(start - Duration::from_secs(5)));
        assert!(!bucket.take(start));
    }

    #[test]
    fn prefixes_have_their_own_budget() {
        let start = instant();
        let mut limiter = PrefixLimiter::new(Rate::per_second(1, 1), 7, start);
        assert!(limiter.take(SOURCE, start));
        assert!(!limiter.take("192.0.2.77".parse().unwrap(), start));
        assert!(!limiter.take("::ffff:192.0.2.9".parse().unwrap(), start));
        assert!(limiter.take("198.51.100.1".parse().unwrap(), start));
    }

    #[test]
    fn a_flood_turns_cookies_on_until_it_is_over() {
        let start = instant();
        let mut load = HandshakeLoad::new(&LIMITS, 7, start);
        let accepted = (0..1000).filter(|_| load.admit(SOURCE, start, || false) == Admission::Accept).count();
        assert_eq!(accepted, 50);
        assert_eq!(load.admit(SOURCE, start, || true), Admission::Accept);
        // Sustained at ten times the rate, none without a cookie gets through any more.
        for ms in 0..3000 {
            assert_ne!(load.admit(SOURCE, start + Duration::from_millis(ms), || false), Admission::Accept);
        }
        let calm = start + Duration::from_secs(5);
        assert_eq!(load.admit(SOURCE, calm, || false), Admission::Accept);
    }

    #[test]
    fn cookies_do_not_buy_an_unlimited_share() {
        let start = instant();
        let mut load = HandshakeLoad::new(&LIMITS, 7, start);
        let accepted = (0..1000).filter(|_| load.admit(SOURCE, start, || true) == Admission::Accept).count();
        assert_eq!(accepted, 50 + PROVEN_BURST as usize);
    }
}
