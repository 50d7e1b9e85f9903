//! Settings of a network, which are in its store.

use std::net::IpAddr;
use std::time::Duration;

use peersock_overlay::membership::Grant;
use peersock_overlay::{NetworkId, Prefix};
use rusqlite::Row;

use crate::store::StoreError;

/// Shortest and longest time for which a network goes on without a controller.
pub const OUTLIVE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3600)..=Duration::from_secs(30 * 86_400);

/// Decision about a member of which two runs are there at the same time, as of a copied state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnClone {
    /// The older run gets certificates while it is heard, and the other one none.
    #[default]
    KeepOlder,
    /// Neither run gets a certificate: the member is held until a person decides.
    RefuseBoth,
}

/// Settings of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Time for which members go on without a controller, in [`OUTLIVE`]. A revoked member that no revocation
    /// reaches also stays one for that long. Certificates last for an hour more, because they are renewed at
    /// that age. Default: 23 h.
    pub outlive: Duration,
    /// Addresses for members besides their self-certifying ones, of IPv4. Default: none.
    pub ipv4: Option<Prefix>,
    /// The same of IPv6. Default: none.
    pub ipv6: Option<Prefix>,
    /// True if ephemeral members get an IPv4 address as well. Default: false, because many short-lived
    /// members exhaust a small pool.
    pub ephemeral_ipv4: bool,
    /// Decision about copies of members. Default: [`OnClone::KeepOlder`].
    pub on_clone: OnClone,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            outlive: Duration::from_secs(23 * 3600),
            ipv4: None,
            ipv6: None,
            ephemeral_ipv4: false,
            on_clone: OnClone::KeepOlder,
        }
    }
}

impl Settings {
    /// Returns true if all values are in their ranges, for a network with this ID.
    pub fn is_valid_in(&self, network: NetworkId) -> bool {
        // Addresses of that prefix follow from keys.
        let own = network.certified_prefix();
        self.is_valid() && !self.ipv6.is_some_and(|pool| overlap(&pool, &own))
    }

    fn is_valid(&self) -> bool {
        let is_pool = |pool: Option<Prefix>, is_ipv4| {
            // The lengths that certificates can say.
            let least = if is_ipv4 { 8 } else { 16 };
            pool.is_none_or(|pool| {
                pool.address().is_ipv4() == is_ipv4 && pool.length() >= least && !is_special(&pool)
            })
        };
        OUTLIVE.contains(&self.outlive) && is_pool(self.ipv4, true) && is_pool(self.ipv6, false)
    }

    /// Reads the five columns from `at` on.
    pub(crate) fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        let pool = |at| {
            let text = row.get::<_, Option<String>>(at)?;
            text.map(|text| read_prefix(&text).ok_or_else(|| StoreError::value("pool"))).transpose()
        };
        let settings = Self {
            outlive: Duration::from_millis(row.get(at)?),
            ipv4: pool(at + 1)?,
            ipv6: pool(at + 2)?,
            ephemeral_ipv4: row.get(at + 3)?,
            on_clone: match row.get::<_, u8>(at + 4)? {
                0 => OnClone::KeepOlder,
                1 => OnClone::RefuseBoth,
                _ => return Err(StoreError::value("setting")),
            },
        };
        if settings.is_valid() { Ok(settings) } else { Err(StoreError::value("setting")) }
    }

    /// Sets the lengths of the prefixes that have all members' addresses. An address of a former pool has
    /// none.
    pub(crate) fn set_prefixes(&self, grant: &mut Grant) {
        let length = |pool: Option<Prefix>, address: IpAddr| {
            pool.filter(|pool| pool.contains(address)).map(|pool| pool.length())
        };
        let of_ipv4 = grant.ipv4.and_then(|address| length(self.ipv4, address.into()));
        let of_ipv6 = grant.ipv6.and_then(|address| length(self.ipv6, address.into()));
        (grant.ipv4_length, grant.ipv6_length) = (of_ipv4.unwrap_or(32), of_ipv6.unwrap_or(128));
    }

    /// Returns the pools from which a member gets an address and has none yet.
    pub(crate) fn lacked(&self, grant: &Grant) -> impl Iterator<Item = Prefix> {
        let wants_ipv4 = grant.ipv4.is_none() && (!grant.is_ephemeral || self.ephemeral_ipv4);
        let ipv4 = self.ipv4.filter(|_| wants_ipv4);
        ipv4.into_iter().chain(self.ipv6.filter(|_| grant.ipv6.is_none()))
    }
}

/// Returns true if a pool has addresses that no member can have.
fn is_special(pool: &Prefix) -> bool {
    // This network, loopback, multicast and reserved; unspecified and mapped, link-local, multicast.
    let special = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8"];
    special.into_iter().filter_map(read_prefix).any(|special| overlap(&special, pool))
}

/// Returns true if two prefixes have addresses in common.
pub(crate) fn overlap(one: &Prefix, other: &Prefix) -> bool {
    one.contains(other.address()) || other.contains(one.address())
}

fn read_prefix(text: &str) -> Option<Prefix> {
    let (address, length) = text.split_once('/')?;
    Prefix::new(address.parse::<IpAddr>().ok()?, length.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_have_no_special_addresses() {
        let network = NetworkId::new(0x8056_c2e2_1c00_0001).expect("a managed ID");
        let is_valid = |text: &str| {
            let pool = read_prefix(text);
            let (ipv4, ipv6) = pool.into_iter().partition::<Vec<_>, _>(|pool| pool.address().is_ipv4());
            let (ipv4, ipv6) = (ipv4.first().copied(), ipv6.first().copied());
            Settings { ipv4, ipv6, ..Settings::default() }.is_valid_in(network)
        };
        for good in
            ["10.0.0.0/8", "192.168.1.0/24", "100.64.0.0/10", "fd00:1::/64", "2001:db8::/128", "9.9.9.9/32"]
        {
            assert!(is_valid(good), "{good}");
        }
        let own = network.certified_prefix().to_string();
        for bad in [
            "0.0.0.0/0",
            "127.0.0.0/16",
            "224.0.0.0/8",
            "8.0.0.0/7",
            "255.255.255.0/24",
            "::/0",
            "::ffff:0:0/96",
            &own,
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
        for outlive in
            [OUTLIVE.start().saturating_sub(Duration::from_secs(1)), Duration::from_secs(31 * 86_400)]
        {
            assert!(!Settings { outlive, ..Settings::default() }.is_valid_in(network));
        }
    }
}
