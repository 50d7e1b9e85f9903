//! MTUs of paths as reported by ICMP (RFC 1191, RFC 8201); `icmp/errors` decides which reports are believed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::host::clock::{Time, after};
use crate::sync;
use crate::{InterfaceId, Stack};

/// Lifetime of a report: RFC 8201 section 4 advises ten minutes before a larger size is tried.
const REPORT_LIFETIME: Duration = Duration::from_secs(600);
/// Maximum number of destinations. A new report replaces the oldest.
const MAX_DESTINATIONS: usize = 4096;

/// Minimum MTU of every IPv6 link (RFC 8200 section 5).
const MIN_MTU_V6: usize = 1280;
/// Minimum for IPv4, because every host accepts this size (RFC 791 3.1).
const MIN_MTU_V4: usize = 576;

const NEVER: i64 = i64::MAX;

/// MTUs of paths that are smaller than their first link's.
pub(crate) struct PathMtus {
    entries: Mutex<BTreeMap<(InterfaceId, IpAddr), Entry>>,
    len: AtomicUsize,
    /// Time at which the first report expires, microseconds; readable without the lock.
    next: AtomicI64,
}

struct Entry {
    mtu: usize,
    expires: Time,
}

impl Default for PathMtus {
    fn default() -> Self {
        Self { entries: Mutex::default(), len: AtomicUsize::new(0), next: AtomicI64::new(NEVER) }
    }
}

impl PathMtus {
    /// Returns true if there are any reports. Takes no lock.
    pub(crate) fn any(&self) -> bool {
        self.len.load(Ordering::Acquire) > 0
    }

    /// Returns the MTU reported for the path to `destination`, bytes of an IP packet. Usually takes no lock.
    pub(crate) fn find(&self, interface: InterfaceId, destination: IpAddr) -> Option<usize> {
        if !self.any() {
            return None;
        }
        self.lock().get(&(interface, destination)).map(|entry| entry.mtu)
    }

    /// Processes a report about a packet of `len` bytes. Returns true if it changes anything.
    pub(crate) fn report(
        &self,
        time: Time,
        (interface, destination): (InterfaceId, IpAddr),
        reported: usize,
        len: usize,
    ) -> bool {
        let mtu = match destination {
            // A smaller value is forged or wrong, and would only cost performance (RFC 8201 section 4).
            IpAddr::V6(_) if reported < MIN_MTU_V6 => return false,
            IpAddr::V6(_) => reported,
            IpAddr::V4(_) if reported == 0 => plateau(len),
            // A forged report must not force tiny packets (RFC 5927 section 7).
            IpAddr::V4(_) => reported.max(MIN_MTU_V4),
        };
        let mut entries = self.lock();
        let key = (interface, destination);
        // ICMP never raises an MTU, because a late report may be older than the known one; only expiry does.
        if entries.get(&key).is_some_and(|known| known.mtu <= mtu) {
            return false;
        }
        if entries.len() >= MAX_DESTINATIONS
            && let Some(oldest) = entries.iter().min_by_key(|(_, entry)| entry.expires).map(|(key, _)| *key)
        {
            entries.remove(&oldest);
        }
        entries.insert(key, Entry { mtu, expires: after(time, REPORT_LIFETIME) });
        self.publish(&entries);
        true
    }

    /// Returns the time at which [`expire`](Self::expire) next has something to do. Takes no lock.
    pub(crate) fn next(&self) -> Option<Time> {
        match self.next.load(Ordering::Acquire) {
            NEVER => None,
            micros => Some(Time::from_micros(micros)),
        }
    }

    /// Removes expired reports.
    pub(crate) fn expire(&self, time: Time) {
        if self.next().is_some_and(|next| next <= time) {
            let mut entries = self.lock();
            entries.retain(|_, entry| entry.expires > time);
            self.publish(&entries);
        }
    }

    fn publish(&self, entries: &BTreeMap<(InterfaceId, IpAddr), Entry>) {
        // Published beside the lock, because each packet asks whether any report exists.
        let next = entries.values().map(|entry| entry.expires.total_micros()).min();
        self.next.store(next.unwrap_or(NEVER), Ordering::Release);
        self.len.store(entries.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(InterfaceId, IpAddr), Entry>> {
        sync::lock(&self.entries)
    }
}

/// Returns the probable MTU of a router that reports no size (RFC 1191 section 7).
fn plateau(len: usize) -> usize {
    let plateaus = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006];
    plateaus.into_iter().find(|&plateau| plateau < len).unwrap_or(MIN_MTU_V4)
}

impl Stack {
    /// Returns the MTU of the path to `destination`, bytes of an IP packet, if an ICMP error has reported
    /// less than the first link's MTU. Reports expire after ten minutes. They are accepted only from the
    /// destination itself or this node, about packets that a socket of this stack could have sent. They never
    /// go below 1280 bytes (IPv6) or 576 (IPv4).
    pub fn path_mtu(&self, interface: InterfaceId, destination: IpAddr) -> Option<usize> {
        self.shared.path_mtus.find(interface, destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: InterfaceId = InterfaceId(1);

    #[test]
    fn reports_lower_the_mtu_for_ten_minutes() {
        let mtus = PathMtus::default();
        let to = (NET, "fd00::1".parse().unwrap());
        let report = |at, mtu| mtus.report(Time::from_secs(at), to, mtu, 1500);
        assert_eq!(mtus.find(NET, to.1), None);
        assert!(report(1, 1400));
        assert!(!report(2, 1450), "an increase");
        assert!(!report(2, 1279), "less than every link takes");
        assert!(report(3, 1280));
        assert_eq!(mtus.find(NET, to.1), Some(1280));
        assert_eq!(mtus.find(InterfaceId(2), to.1), None);
        assert_eq!(mtus.next(), Some(Time::from_secs(603)));
        mtus.expire(Time::from_secs(602));
        assert_eq!(mtus.find(NET, to.1), Some(1280));
        mtus.expire(Time::from_secs(603));
        assert_eq!((mtus.find(NET, to.1), mtus.next()), (None, None));
    }

    #[test]
    fn old_routers_and_liars_of_ipv4() {
        for (reported, len, expected) in [(0, 1500, 1492), (0, 1492, 1006), (0, 600, 576), (68, 1500, 576)] {
            let mtus = PathMtus::default();
            let to = "10.0.0.1".parse().unwrap();
            assert!(mtus.report(Time::from_secs(1), (NET, to), reported, len));
            assert_eq!(mtus.find(NET, to), Some(expected));
        }
    }

    #[test]
    fn the_number_of_destinations_is_bounded() {
        let mtus = PathMtus::default();
        for host in 0..5000u32 {
            mtus.report(
                Time::from_millis(1000 + i64::from(host)),
                (NET, IpAddr::V4(host.into())),
                1000,
                1500,
            );
        }
        assert_eq!(mtus.lock().len(), MAX_DESTINATIONS);
        assert_eq!(mtus.find(NET, IpAddr::V4(0.into())), None);
        assert_eq!(mtus.find(NET, IpAddr::V4(4999.into())), Some(1000));
    }
}
