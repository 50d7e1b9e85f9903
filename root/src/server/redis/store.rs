//! What is written to Redis, and what is believed of what is read.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peersock_overlay::wire::{Entry, LookUpKey, Referral, Registration, RootRecord};
use peersock_overlay::{Identity, NodeId, PublicIdentity};
use redis::Pipeline;

use crate::server::clocks;
use crate::server::directory::DirectoryTraffic;

/// What all keys begin with; the number is of this layout.
const PREFIX: &str = "peersock:2";

/// A root's record, which is written every 30 s, ends after so many seconds.
const RECORD_LIFETIME: u64 = 90;

/// No claim lasts for more seconds than this: nodes ask for 600 s, and renew that before.
const MAX_LIFETIME: u32 = 86_400;

/// Digits of the time when a claim ends.
const ENDS: usize = 10;

/// Writes a claim for so many seconds, and takes out those that have ended: what roots have left that were
/// killed. Redis' own clock counts, so that roots need not agree on the time. A claim that lasts too long was
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

/// Reads some claims, and none that is no claim by its length: whoever may write to Redis can make fields and
/// values of any length. Nothing of those leaves Redis.
const READ_CLAIMS: &str = "\
local found = {}
for _, field in ipairs(redis.call('HRANDFIELD', KEYS[1], ARGV[1])) do
  if #field == tonumber(ARGV[2]) and redis.call('HSTRLEN', KEYS[1], field) == tonumber(ARGV[3]) then
    found[#found + 1] = field
    found[#found + 1] = redis.call('HGET', KEYS[1], field)
  end
end
return found";

/// A root's record is remembered for so long, that there is none for less, and so many of them.
const REMEMBERED_FOR: Duration = Duration::from_secs(10);
const MISSED_FOR: Duration = Duration::from_secs(1);
const MAX_RECORDS: usize = 256;

/// What is read of one key: more roots than this have no node of the same ID.
const MAX_READ: usize = 16;

/// Bytes of a claim's field and value.
const FIELD: usize = 64;
const VALUE: usize = ENDS + PublicIdentity::LEN + size_of::<u64>() + size_of::<u32>() + 64;

/// No record of a root has so many bytes.
const LONGEST_RECORD: usize = 1024;
const _: () = assert!(RootRecord::MAX_ENDPOINTS + PublicIdentity::LEN + 64 + 16 < LONGEST_RECORD);

/// The fields of a hash, in Redis' order, which is random.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// This root's view of the directory.
pub(super) struct Store {
    root: Arc<Identity>,
    id: NodeId,
    endpoints: String,
    /// Of other roots, with when they were read; `None` for those that are not there.
    records: Mutex<BTreeMap<NodeId, (Instant, Option<RootRecord>)>>,
}

/// Somebody who is said to be at a root.
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

    /// Asks for something that Redis answers whenever it answers at all, also if it takes no writes.
    pub(super) fn look(&self, pipeline: &mut Pipeline) {
        pipeline.cmd("EXISTS").arg(root_key(&self.id));
    }

    /// Writes where this root listens.
    pub(super) fn write_record(&self, pipeline: &mut Pipeline) {
        let time = clocks().1.as_secs();
        let Some(record) = RootRecord::sign(&self.root, time, &self.endpoints) else { return };
        let mut value = Vec::new();
        record.emit(&mut value);
        pipeline.cmd("SET").arg(root_key(&self.id)).arg(value).arg("EX").arg(RECORD_LIFETIME);
    }

    /// Takes it out.
    pub(super) fn remove_record(&self, pipeline: &mut Pipeline) {
        pipeline.cmd("DEL").arg(root_key(&self.id));
    }

    /// Writes that the node is at this root, for so many seconds.
    pub(super) fn write_node(&self, pipeline: &mut Pipeline, entry: &Entry, lifetime: u32) {
        let node = entry.identity.node_id();
        let command = pipeline.cmd("EVAL").arg(WRITE_CLAIM).arg(1).arg(node_key(&node));
        command.arg(self.field(&node)).arg(value(entry));
        command.arg(lifetime.clamp(1, MAX_LIFETIME)).arg(MAX_LIFETIME);
    }

    pub(super) fn remove_node(&self, pipeline: &mut Pipeline, node: &NodeId) {
        pipeline.cmd("HDEL").arg(node_key(node)).arg(self.field(node));
    }

    /// Asks who is there; one answer of [`Fields`].
    pub(super) fn ask(&self, pipeline: &mut Pipeline, key: &LookUpKey) {
        let command = pipeline.cmd("EVAL").arg(READ_CLAIMS).arg(1).arg(key_of(key));
        command.arg(MAX_READ).arg(FIELD).arg(VALUE);
    }

    /// Asks where a root listens; one answer, which is empty if nothing is there.
    pub(super) fn ask_record(&self, pipeline: &mut Pipeline, root: &NodeId) {
        // What is longer is cut off, and so no record.
        pipeline.cmd("GETRANGE").arg(root_key(root)).arg(0).arg(LONGEST_RECORD - 1);
    }

    /// What fields say, as far as it is about who was asked for, and not about this root, which knows better.
    pub(super) fn claims(&self, asked: &LookUpKey, fields: &Fields) -> Vec<Claim> {
        let claims = fields.iter().filter_map(|(field, value)| claim(field, value));
        claims.filter(|claim| asked.matches(&claim.identity.node_id()) && claim.root != self.id).collect()
    }

    /// Whether it is to be asked where the root listens.
    pub(super) fn is_unknown(&self, root: &NodeId) -> bool {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clocks().0;
        records.get(root).is_none_or(|known| is_old(known, now))
    }

    /// What Redis says of where a root listens, if anything. Only that root's own word counts.
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
        if records.len() >= MAX_RECORDS && !records.contains_key(root) {
            let oldest = records.iter().min_by_key(|(_, (at, _))| *at).map(|(root, _)| *root);
            oldest.and_then(|root| records.remove(&root));
        }
        records.insert(*root, (now, record));
    }

    /// The newest claim that its node has signed, at a root that is there: a root that has ended without a
    /// word leaves older ones.
    pub(super) fn choose(&self, mut claims: Vec<Claim>, traffic: &DirectoryTraffic) -> Option<Box<Referral>> {
        claims.sort_by_key(|claim| std::cmp::Reverse(claim.registration.sequence));
        claims.into_iter().find_map(|Claim { root, identity, registration }| {
            let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            let record = records.get(&root)?.1.clone()?;
            drop(records);
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

/// Whether what was read of a root is to be read again.
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

/// What is behind the time when the claim ends.
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

    /// A node at the second root, as the first one would read it.
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
        // When it ends only Redis looks at.
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
