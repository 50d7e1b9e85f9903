//! Managed networks that the node has joined, as kept for its next start: one file for each.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use peersock_overlay::membership::{
    CertifyRequest, Credentials, Denial, Head, MemberName, NetworkKey, NetworkKeys, Revocations, Serial,
    SignedRules, Spare, Succession, UnixTime,
};
use peersock_overlay::{ManagedNetwork, NetworkId, PublicIdentity, UsedMember};
use serde::{Deserialize, Serialize};

use crate::config::RootSource;

use super::{StateDir, StateError, check_directory, read_large_secret_file, write_atomically};

/// End of the names of such files; the network's ID precedes it.
pub(super) const SUFFIX: &str = ".network";

/// Number of records that are read from one directory.
pub(super) const MAX_RECORDS: usize = 64;

/// Managed network as a node keeps it: the pinned key, the node's credentials, and what it has learned.
/// Credentials are no secret, since they prove nothing without the node's identity.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MembershipRecord {
    /// ID of the network.
    pub id: NetworkId,
    /// Local name of the network on this machine.
    pub name: Option<String>,
    /// First key of the network. Another key with the same ID is never accepted once it is here.
    pub key: NetworkKey,
    /// Successions that lead from that key to the present one. No other ones are accepted once they are here.
    pub successions: Vec<Succession>,
    /// Credentials of this node; `None` while a controller has not admitted it.
    pub credentials: Option<Credentials>,
    /// Last word of a controller, if it was that this machine is no member: [`Denial::Removed`] or
    /// [`Denial::Declined`].
    pub denied: Option<Denial>,
    /// Nodes that are known to be controllers.
    pub controllers: Vec<PublicIdentity>,
    /// Newest known head of each issuer, with the bytes of its set as they were signed.
    pub revocations: Vec<(Head, Arc<[u8]>)>,
    /// Revocations besides these, which issuers have signed before.
    pub others: Revocations,
    /// Newest known statement of each issuer about access rules.
    pub rules: Vec<SignedRules>,
    /// Members that nodes with this directory have used, the last one at the end. They lead to members by
    /// name while no controller answers, and prove nothing.
    pub used: Vec<UsedMember>,
    /// Newest time that a controller has signed and this machine's clock had reached.
    pub signed_time: UnixTime,
    /// Milliseconds by which this machine's clock is behind the controllers'; negative if it is ahead.
    pub clock_offset: i64,
    /// Right of this node to renew others' certificates while no controller answers.
    pub spare: Option<Spare>,
    /// Number of starts of nodes with this directory in the network.
    pub starts: u64,
    /// Name that this machine wishes to have.
    pub wish: Option<MemberName>,
    /// Roots at which the network's members meet. They may have access tokens, which are secret.
    pub roots: Vec<RootSource>,
}

/// Form of a record on disk: JSON, with bytes as base64url.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    network: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    key: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    successions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<String>,
    #[serde(default)]
    controllers: Vec<String>,
    #[serde(default)]
    revocations: Vec<StoredSet>,
    /// In parts, since several sets together may be larger than one may be.
    #[serde(default)]
    others: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    /// Read one by one, because a mistake in one must not cost the record.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    used: serde_json::Value,
    signed_time: u64,
    #[serde(default)]
    clock_offset: i64,
    /// Read for itself, because a mistake in it must not cost the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spare: Option<String>,
    starts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    wish: Option<String>,
    #[serde(default)]
    roots: Vec<String>,
}

/// Member that a node has used, on disk.
#[derive(Serialize, Deserialize)]
struct StoredMember {
    name: String,
    key: String,
    serial: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<Ipv6Addr>,
}

impl StoredMember {
    fn of(member: &UsedMember) -> StoredMember {
        StoredMember {
            name: member.name.to_string(),
            key: member.identity.to_string(),
            serial: member.serial.as_u64(),
            ipv4: member.ipv4,
            ipv6: member.ipv6,
        }
    }

    fn parse(value: serde_json::Value) -> Option<UsedMember> {
        let stored: StoredMember = serde_json::from_value(value).ok()?;
        let (name, identity) = (stored.name.parse().ok()?, stored.key.parse().ok()?);
        let serial = Serial::from_u64(stored.serial);
        Some(UsedMember { name, identity, ipv4: stored.ipv4, ipv6: stored.ipv6, serial })
    }
}

/// Set of revocations that an issuer has signed, on disk.
#[derive(Serialize, Deserialize)]
struct StoredSet {
    head: String,
    set: String,
}

const VERSION: u32 = 1;

/// Length of the largest set of revocations in bytes.
const LARGEST_SET: usize = Revocations::MAX_ENTRIES * Revocations::ENTRY_LEN;

/// Maximum length of a record. Eight issuers' largest sets, and as many other revocations, take 10 MiB.
pub(super) const MAX_RECORD_BYTES: u64 = 16 << 20;

/// Words for [`MembershipRecord::denied`].
const DENIALS: [(Denial, &str); 2] = [(Denial::Removed, "removed"), (Denial::Declined, "denied")];

impl MembershipRecord {
    /// Creates a record of a network of which only the key is known.
    pub fn new(id: NetworkId, key: NetworkKey) -> MembershipRecord {
        MembershipRecord {
            id,
            name: None,
            key,
            successions: Vec::new(),
            credentials: None,
            denied: None,
            controllers: Vec::new(),
            revocations: Vec::new(),
            others: Revocations::default(),
            rules: Vec::new(),
            used: Vec::new(),
            signed_time: UnixTime::default(),
            clock_offset: 0,
            spare: None,
            starts: 0,
            wish: None,
            roots: Vec::new(),
        }
    }

    /// Returns the word for [`denied`](Self::denied): `removed` or `denied`.
    pub fn denial(&self) -> Option<&'static str> {
        self.denied.and_then(denial_word)
    }

    /// Returns the known keys of the network.
    pub fn keys(&self) -> NetworkKeys {
        let first = NetworkKeys::new(self.key);
        first.extended(self.id, &self.successions).unwrap_or(first)
    }

    /// Returns the network for a node. `request` is its request for credentials.
    pub fn network(&self, request: CertifyRequest) -> ManagedNetwork {
        ManagedNetwork {
            key: Some(self.key),
            successions: self.successions.clone(),
            // Those of a machine that was removed only delay its request for new ones, and one that has an
            // invite may have been removed without hearing of it.
            credentials: self
                .credentials
                .clone()
                .filter(|_| self.denied.is_none() && request.token.is_none()),
            request,
            controllers: self.controllers.clone(),
            revocations: self.revocations.clone(),
            others: self.others.clone(),
            rules: self.rules.clone(),
            used: self.used.clone(),
            signed_time: self.signed_time,
            clock_offset: self.clock_offset,
            spare: self.spare.clone(),
            ..ManagedNetwork::new(self.id)
        }
    }

    /// Writes the record in place of the last one in the directory at `path`.
    pub(super) fn write(&self, path: &Path) -> Result<(), StateError> {
        let text = self.to_json();
        if text.len() as u64 > MAX_RECORD_BYTES {
            let file = StateDir::membership_file(path, self.id);
            return Err(StateError::io("write", &file)(io::ErrorKind::FileTooLarge.into()));
        }
        write_atomically(path, &format!("{}{SUFFIX}", self.id), text.as_bytes())
    }

    pub(super) fn to_json(&self) -> String {
        let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let stored = Stored {
            version: VERSION,
            network: self.id.to_string(),
            name: self.name.clone(),
            key: self.key.to_string(),
            successions: self.successions.iter().map(|one| encode(&one.to_bytes())).collect(),
            credentials: self.credentials.as_ref().map(|one| encode(&one.to_bytes())),
            denied: self.denial().map(str::to_owned),
            controllers: self.controllers.iter().map(ToString::to_string).collect(),
            revocations: self
                .revocations
                .iter()
                .map(|(head, set)| StoredSet { head: encode(&head.to_bytes()), set: encode(set) })
                .collect(),
            others: self.others.to_bytes().chunks(LARGEST_SET).map(encode).collect(),
            rules: self.rules.iter().map(|signed| encode(signed.bytes())).collect(),
            used: match newest(&self.used) {
                [] => serde_json::Value::Null,
                used => serde_json::to_value(used.iter().map(StoredMember::of).collect::<Vec<_>>())
                    .expect("strings and numbers can be written"),
            },
            signed_time: self.signed_time.as_millis(),
            clock_offset: self.clock_offset,
            spare: self.spare.as_ref().map(|spare| encode(&spare.to_bytes())),
            starts: self.starts,
            wish: self.wish.as_ref().map(ToString::to_string),
            roots: self.roots.iter().map(|root| root.to_portable().to_string()).collect(),
        };
        serde_json::to_string_pretty(&stored).expect("strings and numbers can be written")
    }

    pub(super) fn from_json(text: &str) -> Option<MembershipRecord> {
        let stored: Stored = serde_json::from_str(text).ok()?;
        let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let credentials = match &stored.credentials {
            Some(text) => Some(Credentials::parse(&decode(text)?).ok()?),
            None => None,
        };
        let (key, id) = (stored.key.parse().ok()?, stored.network.parse().ok()?);
        let successions: Option<Vec<_>> =
            stored.successions.iter().map(|one| Succession::parse(&decode(one)?).ok()).collect();
        // A key that is lost must not come back unnoticed, so all have to be right.
        let keys = NetworkKeys::new(key).extended(id, &successions?).ok()?;
        let mut revocations = Vec::new();
        for one in &stored.revocations {
            let (head, set) = (Head::parse(&decode(&one.head)?).ok()?, decode(&one.set)?);
            head.read_set(&set)?;
            revocations.push((head, set.into()));
        }
        let mut others = Revocations::default();
        for part in &stored.others {
            others.merge(&Revocations::parse(&decode(part)?).ok()?);
        }
        // A record without its rules would leave the machine open, so all have to be right.
        let rules: Option<Vec<_>> =
            stored.rules.iter().map(|one| SignedRules::parse(decode(one)?.into()).ok()).collect();
        let controllers: Option<Vec<_>> = stored.controllers.iter().map(|one| one.parse().ok()).collect();
        let roots: Vec<RootSource> =
            stored.roots.iter().filter_map(|root| RootSource::parse_list(root).ok()).flatten().collect();
        (stored.version == VERSION).then_some(MembershipRecord {
            id,
            name: stored.name,
            key,
            successions: keys.successions().to_vec(),
            credentials,
            denied: stored
                .denied
                .and_then(|word| DENIALS.iter().find(|(_, known)| *known == word).map(|(denial, _)| *denial)),
            controllers: controllers?,
            revocations,
            others,
            rules: rules?,
            used: read_used(stored.used, id),
            signed_time: UnixTime::from_millis(stored.signed_time),
            clock_offset: stored.clock_offset,
            spare: stored.spare.and_then(|text| Spare::parse(&decode(&text)?).ok()),
            starts: stored.starts,
            wish: stored.wish.and_then(|wish| wish.parse().ok()),
            roots,
        })
    }
}

/// Returns the members of a list that count.
fn newest<T>(used: &[T]) -> &[T] {
    &used[used.len().saturating_sub(UsedMember::MAX)..]
}

/// Reads the members that were used. Those with a mistake are left out: they are found in other ways.
fn read_used(stored: serde_json::Value, network: NetworkId) -> Vec<UsedMember> {
    let list = match stored {
        serde_json::Value::Null => return Vec::new(),
        serde_json::Value::Array(list) => list,
        _ => {
            tracing::warn!(%network, "the kept members of a network are no list, and not used");
            return Vec::new();
        }
    };
    let counting = newest(&list);
    let used: Vec<_> = counting.iter().cloned().filter_map(StoredMember::parse).collect();
    if used.len() < list.len() {
        tracing::warn!(%network, "kept members of a network are damaged or too many, and not used");
    }
    used
}

/// Returns the word for a controller's decision that lasts; `None` for others.
pub(crate) fn denial_word(denial: Denial) -> Option<&'static str> {
    DENIALS.iter().find(|(known, _)| *known == denial).map(|(_, word)| *word)
}

impl StateDir {
    /// Returns the record of a managed network in the directory at `path`, which another process may use;
    /// `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::MalformedRecord`] if the file is damaged, the errors of [`StateDir::identity`]
    /// if it is not private, otherwise [`StateError::Io`].
    pub fn membership(path: &Path, network: NetworkId) -> Result<Option<MembershipRecord>, StateError> {
        let file = Self::membership_file(path, network);
        let text = match read_large_secret_file(&file, MAX_RECORD_BYTES) {
            Ok(text) => text,
            Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        check_directory(path)?;
        match MembershipRecord::from_json(&text).filter(|record| record.id == network) {
            Some(record) => Ok(Some(record)),
            None => Err(StateError::MalformedRecord { path: file }),
        }
    }

    /// Returns the path of the record of a managed network in the directory at `path`.
    pub(crate) fn membership_file(path: &Path, network: NetworkId) -> PathBuf {
        path.join(format!("{network}{SUFFIX}"))
    }

    /// Returns all records of managed networks in the directory at `path`, in the order of their IDs.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`StateDir::membership`].
    pub fn memberships(path: &Path) -> Result<Vec<MembershipRecord>, StateError> {
        let (records, damaged) = Self::readable_memberships(path)?;
        damaged.into_iter().next().map_or(Ok(records), Err)
    }

    /// Returns the records of managed networks as [`StateDir::memberships`] does, and why others cannot be
    /// read.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::Io`] if the directory itself cannot be read.
    pub fn readable_memberships(path: &Path) -> Result<(Vec<MembershipRecord>, Vec<StateError>), StateError> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            Err(error) => return Err(StateError::io("read", path)(error)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<NetworkId> =
            names.filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok()).take(MAX_RECORDS).collect();
        ids.sort_unstable();
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for id in ids {
            match StateDir::membership(path, id) {
                Ok(record) => records.extend(record),
                Err(error) => damaged.push(error),
            }
        }
        Ok((records, damaged))
    }

    /// Stores the record of a managed network in place of the last one.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::Io`].
    pub fn keep_membership(&self, record: &MembershipRecord) -> Result<(), StateError> {
        let Some(later) = &self.later else { return record.write(&self.path) };
        let path = Self::membership_file(&self.path, record.id);
        later.keeper.keep(record).map_err(StateError::io("write", &path))
    }

    /// Returns the record of a managed network, as [`StateDir::membership`] does.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`StateDir::membership`].
    pub fn kept_membership(&self, network: NetworkId) -> Result<Option<MembershipRecord>, StateError> {
        let Some(later) = &self.later else { return StateDir::membership(&self.path, network) };
        // Read anew, because commands of the machine may have written it meanwhile.
        let path = Self::membership_file(&self.path, network);
        later.keeper.read(network).map_err(StateError::io("read", &path))
    }

    /// Returns true if there is a record of a managed network, or something else with its name.
    pub(crate) fn has_membership(&self, network: NetworkId) -> bool {
        match &self.later {
            Some(_) => !matches!(self.kept_membership(network), Ok(None)),
            None => Self::membership_file(&self.path, network).exists(),
        }
    }

    /// Stores the first record of a managed network in a directory that another process may use. That process
    /// must not know the network yet. Returns false if there is a record.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`StateDir::membership`].
    pub fn keep_first_membership(path: &Path, record: &MembershipRecord) -> Result<bool, StateError> {
        if StateDir::membership(path, record.id)?.is_some() {
            return Ok(false);
        }
        check_directory(path)?;
        record.write(path)?;
        Ok(true)
    }

    /// Removes the record of a managed network. Returns false if there was none.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::Io`].
    pub fn forget_membership(&self, network: NetworkId) -> Result<bool, StateError> {
        let Some(later) = &self.later else { return Self::remove_record(&self.path, network) };
        let path = Self::membership_file(&self.path, network);
        later.keeper.forget(network).map_err(StateError::io("remove", &path))
    }

    pub(super) fn remove_record(path: &Path, network: NetworkId) -> Result<bool, StateError> {
        let path = Self::membership_file(path, network);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StateError::io("remove", &path)(error)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use peersock_overlay::Identity;
    use peersock_overlay::membership::{
        Certificate, Delegation, Grant, NetworkSecret, Revocation, Rights, Serial,
    };

    use serde_json::json;

    use super::*;

    /// Returns a record in which everything is set.
    pub(in super::super) fn record() -> MembershipRecord {
        let (secret, id) = (NetworkSecret::from_seed(&[1; 32]), "e18a4c0277d19b3f".parse().expect("an ID"));
        let (issuer, node) = (Identity::from_seed(&[2; 32]), Identity::from_seed(&[3; 32]));
        let serial = Serial::next(UnixTime::from_millis(1_800_000_000_000), None);
        let day = Duration::from_secs(86_400);
        let delegation = Delegation::sign(&secret, id, *issuer.public(), serial, day, Rights::ALL);
        let grant = Grant::new(node.node_id(), "alpha".parse().expect("a name"));
        let certificate = Certificate::sign(&issuer, id, grant, serial, day).expect("a good grant");
        let mut set = Revocations::default();
        // A stolen key may sign a serial after the head's time, which counts up to that only.
        let later = Serial::from_u64(serial.as_u64() + 1_000_000);
        set.add(issuer.node_id(), Revocation { min_serial: later, until: serial.time() });
        // As much as issuers can sign, and more than one set may have.
        let entry = |n: u32| {
            let mut bytes = [7; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            let entry = Revocation { min_serial: serial, until: serial.time() };
            (peersock_overlay::NodeId::from_bytes(bytes), entry)
        };
        let others = (0..=Revocations::MAX_ENTRIES as u32).map(entry).collect();
        set.merge(&(1..Revocations::MAX_ENTRIES as u32).map(entry).collect());
        let heads = [&issuer, &node].map(|signer| {
            let delegation = Delegation::sign(&secret, id, *signer.public(), serial, day, Rights::ALL);
            Head::sign(signer, delegation, id, 3, serial.time(), &set)
        });
        let right = Delegation::sign(&secret, id, *node.public(), serial, day, Rights::RENEWALS);
        let spare = Spare::new(right, day);
        let next = NetworkSecret::from_seed(&[4; 32]).public();
        let used = |seed: u8| UsedMember {
            name: format!("m{seed}").parse().expect("a name"),
            identity: *Identity::from_seed(&[seed; 32]).public(),
            ipv4: seed.is_multiple_of(2).then(|| [10, 0, 0, seed].into()),
            ipv6: seed.is_multiple_of(3).then(|| [0xfd00, 0, 0, 0, 0, 0, 0, seed.into()].into()),
            serial,
        };
        MembershipRecord {
            used: (10..10 + UsedMember::MAX as u8).map(used).collect(),
            successions: vec![Succession::sign(&secret, id, next, serial.time())],
            name: Some("team".into()),
            credentials: Some(Credentials::new(secret.public(), delegation, certificate)),
            denied: Some(Denial::Removed),
            controllers: vec![*issuer.public()],
            revocations: heads.map(|head| (head, set.to_bytes().into())).into(),
            others,
            signed_time: serial.time(),
            starts: 7,
            spare: Some(spare),
            wish: Some("alpha".parse().expect("a name")),
            roots: vec!["dns:example.org".parse().expect("a root")],
            ..MembershipRecord::new(id, secret.public())
        }
    }

    #[test]
    fn another_identity_has_no_credentials_of_the_last_one() {
        let place = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(&place.path().join("peersock")).expect("a state directory");
        let (record, first) = (record(), state.identity().expect("room").node_id());
        state.keep_membership(&record).expect("room");
        let key = fs::read_to_string(state.path().join("identity.key")).expect("a file");
        let next = state.rekey().expect("room").node_id();
        assert_eq!(state.identity().expect("a file").node_id(), next);
        assert_ne!(first, next);
        let kept = StateDir::membership(state.path(), record.id).expect("readable");
        assert_eq!(kept, Some(MembershipRecord { credentials: None, denied: None, spare: None, ..record }));
        let seed = key.split_whitespace().last().expect("a seed");
        for file in fs::read_dir(state.path()).expect("a directory") {
            let path = file.expect("a file").path();
            let content = fs::read(&path).expect("a file");
            assert!(!String::from_utf8_lossy(&content).contains(seed), "{}", path.display());
        }
        // A file that cannot be written leaves what is there.
        fs::create_dir(state.path().join(".identity.key.new")).expect("room");
        assert!(state.rekey().is_err());
        assert_eq!(state.identity().expect("a file").node_id(), next);
    }

    #[test]
    fn records_are_read_as_written_and_damage_is_an_error() {
        let place = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(&place.path().join("peersock")).expect("a state directory");
        let (record, path) = (record(), state.path().to_owned());
        assert!(matches!(StateDir::membership(&path, record.id), Ok(None)));
        state.keep_membership(&record).expect("room");
        let plain = MembershipRecord::new("1000000000000001".parse().expect("an ID"), record.key);
        state.keep_membership(&plain).expect("room");
        let read = StateDir::memberships(&path).expect("both");
        assert_eq!(read, [plain, record.clone()]);
        let file = path.join("e18a4c0277d19b3f.network");
        let text = fs::read_to_string(&file).expect("a file");
        for damaged in [&text[..text.len() / 2], "", "{}", &text.replace("e18a", "e18b")] {
            fs::write(&file, damaged).expect("room");
            let refused = StateDir::membership(&path, record.id);
            assert!(matches!(refused, Err(StateError::MalformedRecord { .. })), "{damaged}");
        }
        assert!(state.forget_membership(record.id).expect("removable"));
        assert!(!state.forget_membership(record.id).expect("nothing to do"));
    }

    /// Returns the text of a record on disk, with other used members in it.
    fn with_used(record: &MembershipRecord, used: serde_json::Value) -> String {
        let mut stored: serde_json::Value = serde_json::from_str(&record.to_json()).expect("its own text");
        stored["used"] = used;
        stored.to_string()
    }

    #[test]
    fn used_members_that_are_damaged_or_too_many_cost_no_record() {
        let record = MembershipRecord { revocations: Vec::new(), others: Revocations::default(), ..record() };
        let read = |used| MembershipRecord::from_json(&with_used(&record, used)).expect("the rest is right");
        let good =
            serde_json::from_str::<serde_json::Value>(&record.to_json()).expect("JSON")["used"].clone();
        assert_eq!(read(good.clone()), record);
        // The text of earlier versions has none.
        let bare = MembershipRecord { used: Vec::new(), ..record.clone() };
        assert_eq!(read(serde_json::Value::Null), bare);
        assert!(!bare.to_json().contains("used"));
        for damaged in [json!("m1"), json!({}), json!(7), json!([]), json!([null, 1, "x", {}, [[[]]]])] {
            assert_eq!(read(damaged), bare);
        }
        let one = good[0].clone();
        for (field, value) in [
            ("name", json!("../../etc")),
            ("name", json!("a".repeat(64))),
            ("name", json!(null)),
            ("key", json!("AAAA")),
            ("key", json!("A".repeat(86))),
            ("serial", json!(-1)),
            ("serial", json!("soon")),
            ("ipv4", json!("fd00::1")),
            ("ipv6", json!("10.0.0.1")),
        ] {
            let mut damaged = one.clone();
            damaged[field] = value;
            let read = read(json!([damaged, good[1]]));
            assert_eq!(read.used, record.used[1..2], "{field}");
        }
        // A field of a later version is no damage.
        let mut later = one.clone();
        later["later"] = json!([1]);
        assert_eq!(read(json!([later])).used, record.used[..1]);
        // Of too many, the last ones count, and no more are ever written.
        let mut many = vec![one; 20_000];
        many.extend(good.as_array().expect("a list").clone());
        assert_eq!(read(json!(many)), record);
        let used = [&record.used[..], &record.used[..]].concat();
        let text = MembershipRecord { used, ..record.clone() }.to_json();
        assert_eq!(MembershipRecord::from_json(&text), Some(record));
    }

    #[test]
    fn used_members_take_little_room_on_disk() {
        let (full, longest) = (record(), "a".repeat(MemberName::MAX_LEN));
        let used = full.used.iter().map(|one| UsedMember {
            name: longest.parse().expect("a name"),
            ipv4: Some([255; 4].into()),
            ipv6: Some([0xffff; 8].into()),
            serial: Serial::from_u64(u64::MAX),
            ..one.clone()
        });
        let used = MembershipRecord { used: used.collect(), ..full.clone() }.to_json();
        let none = MembershipRecord { used: Vec::new(), ..full }.to_json();
        let took = used.len() - none.len();
        assert!(took <= 12 << 10, "{took} bytes");
    }

    #[test]
    fn a_record_that_others_can_change_is_not_read() {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let place = tempfile::tempdir().expect("a directory");
        let (record, state) = (record(), StateDir::open(place.path()).expect("a state directory"));
        state.keep_membership(&record).expect("room");
        let file = StateDir::membership_file(state.path(), record.id);
        let mode = || fs::metadata(&file).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        let read = || StateDir::membership(state.path(), record.id);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).expect("its own file");
        assert!(matches!(read(), Err(StateError::Exposed { .. })));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its own file");
        if chown(&file, Some(12_345), None).is_err() {
            eprintln!("only root can give a file to another user, so that is not tried");
            return;
        }
        assert!(matches!(read(), Err(StateError::ForeignOwner { .. })));
    }
}
