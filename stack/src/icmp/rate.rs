//! Rate limits of outgoing errors (RFC 4443 2.4 (f), RFC 1812 4.3.2.8).

use std::net::IpAddr;
use std::sync::Mutex;

use crate::Config;
use crate::host::clock::{Time, since};
use crate::sync;
use peersock_primitives::Key;

/// Number of buckets that the destinations share.
const BUCKETS: usize = 256;

/// Limits of the whole stack and of each destination. The sharing of buckets by destinations is
/// unpredictable.
pub(crate) struct Rates {
    total: f64,
    each: f64,
    key: Key,
    state: Mutex<Buckets>,
}

struct Buckets {
    total: Bucket,
    each: Box<[Bucket; BUCKETS]>,
}

impl Rates {
    pub(crate) fn new(config: &Config, seed: &[u8; 32], time: Time) -> Self {
        let total = f64::from(config.icmp_errors_per_second);
        let each = f64::from(config.icmp_errors_per_prefix);
        let buckets = [Bucket { time, tokens: each }; BUCKETS];
        let state = Buckets { total: Bucket { time, tokens: total }, each: Box::new(buckets) };
        Self { total, each, key: Key::new(seed, "icmp rate"), state: Mutex::new(state) }
    }

    /// Returns true, and takes a token, if an error may go to `destination` (an address or a peer's
    /// representative) now.
    pub(super) fn allow(&self, time: Time, destination: IpAddr) -> bool {
        // Keyed, so that an attacker cannot choose a prefix that shares a victim's bucket.
        let which = self.key.digest(prefix(destination)) as usize % BUCKETS;
        let mut state = sync::lock(&self.state);
        let Buckets { total, each } = &mut *state;
        // Both buckets are checked before either is charged, so that a refused error costs nothing.
        let allowed = total.has_token(time, self.total) && each[which].has_token(time, self.each);
        if allowed {
            total.tokens -= 1.0;
            each[which].tokens -= 1.0;
        }
        allowed
    }
}

/// Returns the part of an address that identifies a node. A node may use all addresses of its /64 prefix.
fn prefix(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        // One site has a /64 at least, and could otherwise use up the whole rate with its addresses.
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

/// A token bucket with a capacity of one second's tokens.
#[derive(Clone, Copy)]
struct Bucket {
    time: Time,
    tokens: f64,
}

impl Bucket {
    fn has_token(&mut self, time: Time, rate: f64) -> bool {
        self.tokens = (self.tokens + since(time, self.time).as_secs_f64() * rate).min(rate);
        // Threads may pass times out of order.
        self.time = self.time.max(time);
        self.tokens >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(total: u32, each: u32) -> Rates {
        let config =
            Config { icmp_errors_per_second: total, icmp_errors_per_prefix: each, ..Config::default() };
        Rates::new(&config, &[1; 32], Time::from_secs(1))
    }

    #[test]
    fn the_rate_allows_a_burst_and_then_its_share() {
        let rates = rates(10, 100);
        let to = "10.0.0.1".parse().unwrap();
        let allowed = |time| (0..100).filter(|_| rates.allow(time, to)).count();
        assert_eq!(allowed(Time::from_secs(1)), 10);
        assert_eq!(allowed(Time::from_millis(1500)), 5);
        assert_eq!(allowed(Time::from_secs(60)), 10);
        assert_eq!(allowed(Time::from_secs(1)), 0, "a clock that goes back gives nothing");
    }

    #[test]
    fn one_destination_does_not_use_up_what_all_share() {
        let rates = rates(100, 10);
        let allowed = |to: &str| {
            let to = to.parse().unwrap();
            (0..50).filter(|_| rates.allow(Time::from_secs(1), to)).count()
        };
        assert_eq!(allowed("fd00::1"), 10);
        assert_eq!(allowed("fd00::2"), 0, "the same prefix");
        assert_eq!(allowed("fd00:0:0:1::1"), 10);
        assert_eq!(allowed("10.0.0.1"), 10);
    }
}
