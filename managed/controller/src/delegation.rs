//! The network's delegation to this controller: its bytes, its renewal, and warnings about its end.

use std::time::Duration;

use peersock_overlay::NetworkId;
use peersock_overlay::membership::{Delegation, NetworkSecret, Rights, Serial, UnixTime};

use crate::store::StoreError;

const DAY: Duration = Duration::from_secs(86_400);

/// Lifetime of a delegation when the controller has the network key and renews it.
pub const DELEGATION_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// Lifetime of a delegation when the network key is kept elsewhere.
pub const OFFLINE_DELEGATION_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

/// Days before the end at which warnings begin.
const WARNINGS: [u64; 5] = [1, 7, 14, 30, 60];

/// Signs a delegation of all rights.
pub(crate) fn sign(
    secret: &NetworkSecret,
    network: NetworkId,
    issuer: peersock_overlay::PublicIdentity,
    now: UnixTime,
    last: Option<Serial>,
    is_offline: bool,
) -> Delegation {
    let lifetime = if is_offline { OFFLINE_DELEGATION_LIFETIME } else { DELEGATION_LIFETIME };
    Delegation::sign(secret, network, issuer, Serial::next(now, last), lifetime, Rights::ALL)
}

/// Returns true if a third of the lifetime has passed.
pub(crate) fn is_due(delegation: &Delegation, now: UnixTime) -> bool {
    let begin = delegation.serial().time();
    now.since(begin) >= delegation.end().since(begin) / 3
}

/// Returns the days of the last warning that is due: 60, 30, 14, 7 or 1; 0 after the end.
pub(crate) fn warning(end: UnixTime, now: UnixTime) -> Option<u64> {
    let left = end.since(now);
    if left.is_zero() {
        return Some(0);
    }
    WARNINGS.into_iter().find(|days| left <= DAY * u32::try_from(*days).unwrap_or(u32::MAX))
}

/// Reads the bytes of a delegation in the store.
pub(crate) fn read(bytes: &[u8]) -> Result<Delegation, StoreError> {
    Delegation::parse(bytes).map_err(|_| StoreError::value("delegation"))
}

#[cfg(test)]
mod tests {
    use peersock_overlay::Identity;

    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

    fn signed(is_offline: bool) -> Delegation {
        let secret = NetworkSecret::from_seed(&[1; 32]);
        let network = NetworkId::new(7).expect("a managed ID");
        sign(&secret, network, *Identity::from_seed(&[2; 32]).public(), NOW, None, is_offline)
    }

    #[test]
    fn warnings_come_at_60_30_14_7_and_1_days() {
        let delegation = signed(false);
        let at = |days_left: u32| warning(delegation.end(), delegation.end().minus(DAY * days_left));
        let expected =
            [(90, None), (61, None), (60, Some(60)), (31, Some(60)), (30, Some(30)), (14, Some(14))];
        for (left, warned) in
            expected.into_iter().chain([(8, Some(14)), (7, Some(7)), (1, Some(1)), (0, Some(0))])
        {
            assert_eq!(at(left), warned, "{left} days");
        }
        assert!(!is_due(&delegation, NOW.plus(DAY * 29)) && is_due(&delegation, NOW.plus(DAY * 30)));
    }

    #[test]
    fn members_are_warned_with_the_controller_and_not_while_it_renews_by_itself() {
        let by_hand = signed(true);
        for days in [364, 61, 60, 30, 1, 0] {
            let then = by_hand.end().minus(DAY * days);
            assert_eq!(by_hand.is_ending(then), warning(by_hand.end(), then).is_some(), "{days} days");
        }
        let by_itself = signed(false);
        for (days, is_ending) in [(90, false), (60, false), (45, false), (44, true), (0, true)] {
            assert_eq!(by_itself.is_ending(by_itself.end().minus(DAY * days)), is_ending, "{days} days");
        }
    }
}
