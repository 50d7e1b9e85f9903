//! Records written to Redis, and the checks of records read.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peersock_overlay::wire::{Entry, LookUpKey, Referral, Registration, RootRecord};
use peersock_overlay::{Identity, NodeId, PublicIdentity};
use redis::Pipeline;

use crate::server::clocks;
use crate::server::directory::DirectoryTraffic;

/// Prefix of all keys; the number is the version of this layout.
const PREFIX: &str = "peersock:2";

/// Lifetime of a root's record in seconds. It is written every 30 s.
const RECORD_LIFETIME: u64 = 90;

/// Limit of a claim's lifetime in seconds: nodes ask for 600 s, and renew earlier.
const MAX_LIFETIME: u32 = 86_400;

/// Number of digits of the time when a claim ends.
const ENDS: usize = 10;

/// Script that writes a claim for a number of seconds, and removes expired claims, which killed roots have
/// left. Redis' clock counts, so that roots need not agree on the time. A claim with too long a lifetime was
/// written when that clock was wrong.
const WRITE_CLAIM: &str = "\
local now = tonumber(redis.call('TIME')[1])
local last = now + ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], string.format('%010d', last) .. ARGV[2])
local claims = redis.call('HGETALL', KEYS[1])
for at = 1, #claims, 2 do
  local ends = tonumber(string.sub(claims[at + 1], 1, 10))
  if ends == nil or ends <= now or ends > now + ARGV[4] then
    redis.call('HDEL', KEYS[1], claims[at])
  elseif ends > last then
    last = ends
  end
end
redis.call('EXPIREAT', KEYS[1], last)";

/// Script that reads some claims, and skips fields and values of another length, because an attacker with
/// write access can store any length. Those never leave Redis.
const READ_CLAIMS: &str = "\
local found = {}
for _, field in ipairs(redis.call('HRANDFIELD', KEYS[1], ARGV[1])) do
  if #field == tonumber(ARGV[2]) and redis.call('HSTRLEN', KEYS[1], field) == tonumber(ARGV[3]) then
    found[#found + 1] = field
    found[#found + 1] = redis.call('HGET', KEYS[1], field)
  end
end
return found";

/// Cache times of a root's record and of a missing record, and the limit of cached records.
const REMEMBERED_FOR: Duration = Duration::from_secs(10);
const MISSED_FOR: Duration = Duration::from_secs(1);
const MAX_RECORDS: usize = 256;

/// Limit of claims read per key; no more roots have a node of the same ID.
const MAX_READ: usize = 16;

/// Size in bytes of a claim's field and value.
const FIELD: usize = 64;
const VALUE: usize = ENDS + PublicIdentity::LEN + size_of::<u64>() + size_of::<u32>() + 64;

/// Size limit in bytes of a root's record; no valid record reaches it.
const LONGEST_RECORD: usize = 1024;
const _: () = assert!(RootRecord::MAX_ENDPOINTS + PublicIdentity::LEN + 64 + 16 < LONGEST_RECORD);

/// Fields of a hash, in Redis' random order.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// View of the directory from this root.
pub(super) struct Store {
    root: Arc<Identity>,
    id: NodeId,
    endpoints: String,
    /// Records of other roots, with the time of reading; `None` for a missing record.
    records: Mutex<BTreeMap<NodeId, (Instant, Option<RootRecord>)>>,
}

/// Node that is claimed to be at a root.
pub(super) struct Claim {
    pub(super) root: NodeId,
    identity: PublicIdentity,
    registration: Registration,
}

impl Store {
    pub(super) fn new(root: Arc<Identity>, endpoints: &str) -> io::Result<Self> {
        if RootRecord::sign(&root, 0, endpoints).is_none() {
            let error = format!("more than {} bytes of endpoints", RootRecord::MAX_ENDPOINTS);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let id = root.node_id();
        Ok(Self { root, id, endpoints: endpoints.to_owned(), records: Mutex::default() })
    }

    /// Adds a command that Redis answers whenever it answers at all, even if it takes no writes.
    pub(super) fn look(&self, pipeline: &mut Pipeline) {
        pipeline.cmd("EXISTS").arg(root_key(&self.id));
    }

    /// Adds the command that writes this root's endpoints.
    pub(super) fn write_record(&self, pipeline: &mut Pipeline) {
        let time = clocks().1.as_secs();
        let Some(record) = RootRecord::sign(&self.root, time, &self.endpoints) else { return };
        let mut value = Vec::new();
        record.emit(&mut value);
        pipeline.cmd("SET").arg(root_key(&self.id)).arg(value).arg("EX").arg(RECORD_LIFETIME);
    }

    /// Adds the command that removes this root's record.
    pub(super) fn remove_record(&self, pipeline: &mut Pipeline) {
        pipeline.cmd("DEL").arg(root_key(&self.id));
    }

    /// Adds the command that registers the node at this root, for `lifetime` seconds.
    pub(super) fn write_node(&self, pipeline: &mut Pipeline, entry: &Entry, lifetime: u32) {
        let node = entry.identity.node_id();
        let command = pipeline.cmd("EVAL").arg(WRITE_CLAIM).arg(1).arg(node_key(&node));
        command.arg(self.field(&node)).arg(value(entry));
        // At 0 the script would remove its own claim at once.
        command.arg(lifetime.clamp(1, MAX_LIFETIME)).arg(MAX_LIFETIME);
    }

    pub(super) fn remove_node(&self, pipeline: &mut Pipeline, node: &NodeId) {
        pipeline.cmd("HDEL").arg(node_key(node)).arg(self.field(node));
    }

    /// Adds a question for a node; its answer is one [`Fields`].
    pub(super) fn ask(&self, pipeline: &mut Pipeline, key: &LookUpKey) {
        let command = pipeline.cmd("EVAL").arg(READ_CLAIMS).arg(1).arg(key_of(key));
        command.arg(MAX_READ).arg(FIELD).arg(VALUE);
    }

    /// Adds a question for a root's endpoints; the answer is empty if there is no record.
    pub(super) fn ask_record(&self, pipeline: &mut Pipeline, root: &NodeId) {
        // A longer value is cut off, and so fails to parse.
        pipeline.cmd("GETRANGE").arg(root_key(root)).arg(0).arg(LONGEST_RECORD - 1);
    }

    /// Parses claims about the requested node at other roots.
    pub(super) fn claims(&self, asked: &LookUpKey, fields: &Fields) -> Vec<Claim> {
        let claims = fields.iter().filter_map(|(field, value)| claim(field, value));
        // Claims of this root are left out, because its own table is newer.
        claims.filter(|claim| asked.matches(&claim.identity.node_id()) && claim.root != self.id).collect()
    }

    /// Returns true if the root's record must be read.
    pub(super) fn is_unknown(&self, root: &NodeId) -> bool {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clocks().0;
        records.get(root).is_none_or(|known| is_old(known, now))
    }

    /// Caches a root's record, or its absence. Only a record signed by that root counts.
    pub(super) fn note_record(&self, root: &NodeId, value: &[u8], traffic: &DirectoryTraffic) {
        let parsed = (!value.is_empty()).then(|| RootRecord::parse(value).ok());
        let record = parsed.clone().flatten().filter(|one| one.identity.node_id() == *root && one.verify());
        if parsed.is_some() && record.is_none() {
            traffic.directory_forged.increment();
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clocks().0;
        if records.len() >= MAX_RECORDS {
            records.retain(|_, known| !is_old(known, now));
        }
        // Forged claims can name any number of roots, so the cache stays bounded.
        if records.len() >= MAX_RECORDS && !records.contains_key(root) {
            let oldest = records.iter().min_by_key(|(_, (at, _))| *at).map(|(root, _)| *root);
            oldest.and_then(|root| records.remove(&root));
        }
        records.insert(*root, (now, record));
    }

    /// Returns the newest claim signed by its node, at a root whose record exists. Killed roots leave older
    /// claims.
    pub(super) fn choose(&self, mut claims: Vec<Claim>, traffic: &DirectoryTraffic) -> Option<Box<Referral>> {
        claims.sort_by_key(|claim| std::cmp::Reverse(claim.registration.sequence));
        claims.into_iter().find_map(|Claim { root, identity, registration }| {
            let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            let record = records.get(&root)?.1.clone()?;
            drop(records);
            // Verified last and without the lock, because a signature check is the most expensive step.
            let is_signed = registration.verify(&identity, &root);
            if !is_signed {
                traffic.directory_forged.increment();
            }
            is_signed.then(|| Box::new(Referral { identity, registration, root: record }))
        })
    }

    fn field(&self, node: &NodeId) -> Vec<u8> {
        [&self.id.as_bytes()[..], node.as_bytes()].concat()
    }
}

/// Returns true if a cached record must be read again.
fn is_old((at, record): &(Instant, Option<RootRecord>), now: Instant) -> bool {
    let lasts = if record.is_some() { REMEMBERED_FOR } else { MISSED_FOR };
    now.saturating_duration_since(*at) >= lasts
}

fn root_key(root: &NodeId) -> String {
    format!("{PREFIX}:root:{}", hex(root.as_bytes()))
}

fn node_key(node: &NodeId) -> String {
    format!("{PREFIX}:node:{}", hex(&node.as_bytes()[..10]))
}

fn key_of(key: &LookUpKey) -> String {
    match key {
        LookUpKey::Prefix(prefix) => format!("{PREFIX}:node:{}", hex(prefix)),
        LookUpKey::Id(node) => node_key(node),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Encodes the part of a claim after its expiry time.
pub(super) fn value(entry: &Entry) -> Vec<u8> {
    let Registration { sequence, lifetime, signature } = &entry.registration;
    let identity = entry.identity.to_bytes();
    [&identity[..], &sequence.to_be_bytes(), &lifetime.to_be_bytes(), signature].concat()
}

fn claim(field: &[u8], value: &[u8]) -> Option<Claim> {
    let root = NodeId::from_bytes(*field.first_chunk()?);
    let (identity, rest) = value.get(ENDS..)?.split_first_chunk()?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (lifetime, rest) = rest.split_first_chunk()?;
    let registration = Registration {
        sequence: u64::from_be_bytes(*sequence),
        lifetime: u32::from_be_bytes(*lifetime),
        signature: *rest.first_chunk()?,
    };
    Some(Claim { root, identity: PublicIdentity::from_bytes(identity).ok()?, registration })
}

#[cfg(test)]
mod tests {
    use peersock_overlay::wire::Channel;

    use super::*;

    fn identity(seed: u8) -> Identity {
        Identity::from_seed(&[seed; 32])
    }

    fn store(seed: u8) -> Store {
        Store::new(Arc::new(identity(seed)), "192.0.2.1:7420").expect("it is short")
    }

    /// Returns a node at the second root, as the first one would read it.
    fn written() -> (Fields, LookUpKey) {
        let (node, at) = (identity(1), store(3));
        let registration = Registration::sign(&node, &at.id, 7, 600);
        let entry = Entry { identity: *node.public(), channel: Channel(1), registration };
        let claim = [&b"1900000000"[..], &value(&entry)].concat();
        (vec![(at.field(&node.node_id()), claim)], LookUpKey::Id(node.node_id()))
    }

    fn read(fields: &Fields, key: &LookUpKey, record: Option<&RootRecord>) -> (Option<Box<Referral>>, u64) {
        let (reader, traffic) = (store(2), DirectoryTraffic::default());
        let claims = reader.claims(key, fields);
        let mut bytes = Vec::new();
        record.iter().for_each(|record| record.emit(&mut bytes));
        for claim in &claims {
            assert!(reader.is_unknown(&claim.root));
            reader.note_record(&claim.root, &bytes, &traffic);
            assert!(!reader.is_unknown(&claim.root));
        }
        (reader.choose(claims, &traffic), traffic.directory_forged.get())
    }

    #[test]
    fn what_is_written_is_found_and_nothing_that_was_altered() {
        let (good, key) = written();
        let record = RootRecord::sign(&identity(3), 1, "192.0.2.1:7420").expect("it is short");
        let (found, _) = read(&good, &key, Some(&record));
        assert!(found.is_some_and(|found| found.verify() && found.root == record));
        assert_eq!(read(&good, &key, None), (None, 0), "the root is not there");
        for at in 0..good[0].0.len() / 2 {
            let mut fields = good.clone();
            fields[0].0[at] ^= 1;
            assert_eq!(read(&fields, &key, Some(&record)).0, None, "field, byte {at}");
        }
        // The expiry time is only checked by Redis, so the loop skips it.
        for at in ENDS..good[0].1.len() {
            let mut fields = good.clone();
            fields[0].1[at] ^= 1;
            assert_eq!(read(&fields, &key, Some(&record)).0, None, "value, byte {at}");
            fields[0].1.truncate(at);
            assert_eq!(read(&fields, &key, Some(&record)).0, None, "{at} bytes");
        }
        assert_eq!([good[0].0.len(), good[0].1.len()], [FIELD, VALUE], "what is read");
        for forged in
            [RootRecord { time: 2, ..record.clone() }, RootRecord::sign(&identity(9), 1, "").unwrap()]
        {
            assert_eq!(read(&good, &key, Some(&forged)), (None, 1));
        }
    }

    #[test]
    fn a_root_does_not_believe_what_is_said_of_itself() {
        let (fields, key) = written();
        assert!(store(3).claims(&key, &fields).is_empty());
        assert!(store(2).claims(&LookUpKey::Id(identity(9).node_id()), &fields).is_empty());
        assert_eq!(store(2).claims(&key, &fields).len(), 1);
    }
}
