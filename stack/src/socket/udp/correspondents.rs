//! Destinations of a socket in a network that restricts ports: their answers are accepted at any port.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::InterfaceId;
use crate::host::clock::{Time, since};

/// Silence after which a correspondent may no longer answer, until it is sent something (RFC 4787 REQ-5
/// advises five minutes for NATs).
const SILENCE_TIMEOUT: Duration = Duration::from_secs(300);

/// Number of entries in each of the two generations.
const MAX_PER_GENERATION: usize = 2048;

type Correspondent = (InterfaceId, SocketAddr);

/// Remote addresses and ports to which a socket has sent. The oldest destinations are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Correspondents {
    /// Time of the last datagram sent to each, or of its last answer.
    recent: BTreeMap<Correspondent, Time>,
    older: BTreeMap<Correspondent, Time>,
}

impl Correspondents {
    /// Notes a datagram to `destination`. All members of a group may answer from its port.
    pub(super) fn note(&mut self, now: Time, interface: InterfaceId, destination: SocketAddr) {
        let group = destination.ip().is_multicast();
        // The members of a group answer from their own addresses, so any address may answer.
        let whom = if group { anybody_at(destination) } else { destination };
        // Dropping a whole generation bounds memory without a search for the oldest entry.
        if self.recent.len() >= MAX_PER_GENERATION && !self.recent.contains_key(&(interface, whom)) {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert((interface, whom), now);
    }

    /// Returns true if `source` may answer now, and notes its answer.
    pub(super) fn expects(&mut self, now: Time, interface: InterfaceId, source: SocketAddr) -> bool {
        let mut answers = |whom: SocketAddr| {
            let key = (interface, whom);
            let Some(last) = self.recent.get_mut(&key).or_else(|| self.older.get_mut(&key)) else {
                return false;
            };
            let expected = since(now, *last) < SILENCE_TIMEOUT;
            if expected {
                *last = now;
            }
            expected
        };
        answers(source) || answers(anybody_at(source))
    }
}

/// Returns the unspecified address of the family, with the same port.
fn anybody_at(address: SocketAddr) -> SocketAddr {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(any, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: InterfaceId = InterfaceId(1);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_was_sent_to_may_answer_until_he_has_been_silent() {
        let mut known = Correspondents::default();
        let (peer, second) = (at("[fd00::b]:80"), Time::from_secs);
        assert!(!known.expects(second(1), NET, peer));
        known.note(second(1), NET, peer);
        for other in ["[fd00::b]:81", "[fd00::c]:80"] {
            assert!(!known.expects(second(1), NET, at(other)));
        }
        assert!(!known.expects(second(1), InterfaceId(2), peer));
        for time in [1, 300, 599, 898] {
            assert!(known.expects(second(time), NET, peer), "{time}");
        }
        assert!(!known.expects(second(1198), NET, peer));
        known.note(second(1198), NET, peer);
        assert!(known.expects(second(1198), NET, peer));
    }

    #[test]
    fn who_never_answers_is_a_stranger_after_a_while_too() {
        let mut known = Correspondents::default();
        let (peer, second) = (at("[fd00::b]:80"), Time::from_secs);
        known.note(second(1), NET, peer);
        assert!(!known.expects(second(301), NET, peer));
        known.note(second(400), NET, peer);
        known.note(second(600), NET, peer);
        assert!(known.expects(second(800), NET, peer));
    }

    #[test]
    fn all_members_of_a_group_may_answer_from_its_port() {
        let mut known = Correspondents::default();
        known.note(Time::from_secs(1), NET, at("239.1.2.3:5353"));
        assert!(known.expects(Time::from_secs(1), NET, at("10.0.0.7:5353")));
        assert!(!known.expects(Time::from_secs(1), NET, at("10.0.0.7:5354")));
        assert!(!known.expects(Time::from_secs(1), NET, at("[fd00::b]:5353")));
    }

    #[test]
    fn a_bounded_number_is_remembered_and_the_latest_are() {
        let mut known = Correspondents::default();
        let peer = |number: usize| SocketAddr::new(Ipv4Addr::from_bits(number as u32).into(), 80);
        let count = 3 * MAX_PER_GENERATION + 5;
        (0..count).for_each(|number| known.note(Time::from_secs(1), NET, peer(number)));
        assert!(known.recent.len() + known.older.len() <= 2 * MAX_PER_GENERATION);
        assert!((count - MAX_PER_GENERATION..count).all(|number| known.expects(
            Time::from_secs(1),
            NET,
            peer(number)
        )));
        assert!(!known.expects(Time::from_secs(1), NET, peer(0)));
    }
}
