//! Machines that wait for a decision, and limits against strangers that fill the list.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use peersock_overlay::NodeId;
use peersock_overlay::membership::{CertifyRequest, Code, Denial, UnixTime};

use crate::admission::Fail;
use crate::controller::{Asked, lock};
use crate::keys::Keys;
use crate::member::{millis, to_mapped};
use crate::memory::{Memory, RETRY_AFTER, Waiting};
use crate::store::{StoreError, Write};

/// Maximum number of machines that wait.
pub(crate) const MAX_PENDING: usize = 1_000;

/// Maximum number of new requests from one prefix in a minute.
const MAX_PER_MINUTE: u32 = 10;

/// Maximum number of prefixes that are counted. Beyond it, all others share one counter.
const MAX_PREFIXES: usize = 4_096;

const MINUTE: Duration = Duration::from_secs(60);

/// Counters of new requests by source prefix: /24 of IPv4, /56 of IPv6.
#[derive(Debug, Default)]
pub(crate) struct SourceLimits {
    since: UnixTime,
    counts: BTreeMap<[u8; 7], u32>,
    others: u32,
}

impl SourceLimits {
    /// Counts a new request; false if its prefix has had too many in this minute.
    pub(crate) fn admits(&mut self, now: UnixTime, source: IpAddr) -> bool {
        // Also after the clock was set back.
        if now.since(self.since) >= MINUTE || now < self.since {
            *self = Self { since: now, ..Self::default() };
        }
        let has_room = self.counts.len() < MAX_PREFIXES;
        let prefix = prefix(source);
        let count = match self.counts.get_mut(&prefix) {
            Some(count) => count,
            None if has_room => self.counts.entry(prefix).or_insert(0),
            None => &mut self.others,
        };
        *count = count.saturating_add(1);
        *count <= MAX_PER_MINUTE
    }
}

fn prefix(source: IpAddr) -> [u8; 7] {
    match source.to_canonical() {
        // Under a prefix of IPv6 that is not assigned.
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            [0, 0, 0, 4, a, b, c]
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, ..] = v6.octets();
            [a, b, c, d, e, f, g]
        }
    }
}

/// Adds a machine to the list, or returns the code that it already has.
pub(crate) fn insert(
    write: &Write<'_>,
    now: UnixTime,
    asked: &Asked,
    request: &CertifyRequest,
    memory: &Mutex<Memory>,
    keys: &Keys,
) -> Result<Code, Fail> {
    let node = asked.peer.node_id();
    let read = |text: String| text.parse::<Code>().map_err(|_| Fail::Denied(Denial::Unavailable));
    let known =
        write.one("SELECT code FROM pending WHERE node = ? AND is_gone = 0", [node.as_bytes()], |row| {
            row.get::<_, String>(0)
        })?;
    if let Some(code) = known {
        return read(code);
    }
    let count = write
        .one("SELECT count(*) FROM pending WHERE is_gone = 0", [], |row| row.get::<_, usize>(0))?
        .unwrap_or(0);
    if count >= MAX_PENDING {
        let dropped = choose_dropped(now, &lock(memory).pending, asked.source);
        let dropped = dropped.ok_or(Fail::Denied(Denial::TooMany))?;
        if !remove(write, &dropped)? {
            // Another request of the same batch has taken the place.
            return Err(Fail::Denied(Denial::TooMany));
        }
    }
    for attempt in 0.. {
        let code = keys.code(&node, attempt);
        let is_new = write.try_run(
            "INSERT INTO pending (node, identity, code, name, description, source, first, last, is_gone, changed)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, 0, ?8)
                ON CONFLICT (node) DO UPDATE SET code = ?3, name = ?4, description = ?5, source = ?6, first = ?7,
                last = ?7, is_gone = 0, changed = ?8",
            (
                node.as_bytes(),
                asked.peer.to_bytes(),
                code.to_string(),
                request.name.as_ref().map(|name| name.as_str()),
                &request.description,
                to_mapped(asked.source),
                millis(now),
                write.change,
            ),
        )?;
        if is_new {
            return Ok(code);
        }
    }
    Err(Fail::Denied(Denial::TooMany))
}

/// Removes a machine from the list; false if it is not there.
pub(crate) fn remove(write: &Write<'_>, node: &NodeId) -> Result<bool, StoreError> {
    let sql = "UPDATE pending SET is_gone = 1, changed = ?2 WHERE node = ?1 AND is_gone = 0";
    Ok(write.run(sql, (node.as_bytes(), write.change))? > 0)
}

/// Returns the machine that makes room: the one that has not asked for longest. If all still ask, one of the
/// prefix that has most, so that one stranger with many keys does not displace others.
fn choose_dropped(now: UnixTime, pending: &BTreeMap<NodeId, Waiting>, newcomer: IpAddr) -> Option<NodeId> {
    let (oldest, waiting) = pending.iter().min_by_key(|(_, waiting)| waiting.last)?;
    if now.since(waiting.last) >= 2 * RETRY_AFTER {
        return Some(*oldest);
    }
    let mut counts: BTreeMap<[u8; 7], usize> = BTreeMap::new();
    pending.values().for_each(|waiting| *counts.entry(prefix(waiting.source)).or_default() += 1);
    let (fullest, most) = counts.iter().max_by_key(|(_, count)| **count)?;
    let own = counts.get(&prefix(newcomer)).copied().unwrap_or(0);
    let mut of_fullest = pending.iter().filter(|(_, waiting)| prefix(waiting.source) == *fullest);
    if *most > own + 1 { of_fullest.next().map(|(node, _)| *node) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_ten_new_requests_in_a_minute() {
        let mut limits = SourceLimits::default();
        let now = UnixTime::from_millis(1_800_000_000_000);
        let admitted = |limits: &mut SourceLimits, at, source: &str| {
            let source = source.parse().expect("an address");
            (0..12).filter(|_| limits.admits(at, source)).count()
        };
        assert_eq!(admitted(&mut limits, now, "203.0.113.9"), 10);
        assert_eq!(admitted(&mut limits, now, "203.0.113.200"), 0, "the same /24");
        assert_eq!(admitted(&mut limits, now, "203.0.114.9"), 10);
        assert_eq!(admitted(&mut limits, now, "2001:db8:0:ff::1"), 10);
        assert_eq!(admitted(&mut limits, now, "2001:db8:0:1::1"), 0, "the same /56");
        assert_eq!(admitted(&mut limits, now, "2001:db8:0:100::1"), 10);
        let later = now.plus(MINUTE);
        assert_eq!(admitted(&mut limits, later, "203.0.113.9"), 10);
        // The number of counters is bounded.
        for n in 0..10_000_u32 {
            limits.admits(later, IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes()));
        }
        assert_eq!(limits.counts.len(), MAX_PREFIXES);
        assert_eq!(admitted(&mut limits, later, "198.51.100.1"), 0, "all others share one");
    }
}
