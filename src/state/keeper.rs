//! Records of a state directory for a process that may not open it any more.
//!
//! ```text
//! node   --> kind (1), length (4, big-endian), bytes
//! keeper --> result (4, big-endian): 0, or an errno; of a question for a record: its length (4), and the record
//! ```
//!
//! The bytes of kind 1 are a record, which replaces the last one of its network. Those of kinds 2 and 3 are
//! the ID of a network whose record is removed or asked for.
//!
//! Strangers can reach the node, and may have it in their hands. So no record changes a network's key. A name
//! that another network has had, and credentials without that key's signatures are left out: the next start
//! would trust them. Keys and names stay those of a network after its removal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use peersock_overlay::membership::{MemberName, NetworkKey};
use peersock_overlay::{NetworkId, NodeId};

use super::membership::{MAX_RECORD_BYTES, MAX_RECORDS, SUFFIX};
use super::{MembershipRecord, StateDir, StateError, sync};
use crate::config::network_id;

const KEEP: u8 = 1;
const FORGET: u8 = 2;
const READ: u8 = 3;

/// Result for what is no message, and for a record that may not be stored.
const REFUSED: i32 = libc::EINVAL;

/// Result where there is no record.
const ABSENT: i32 = libc::ENOENT;

/// Limit of roots of one record.
const MAX_ROOTS: usize = 64;

/// Time for a request. A keeper that takes longer is asked no more, because its answers would be those to
/// earlier questions.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Other process, which reads and stores records; `None` once it has failed.
#[derive(Debug)]
pub(super) struct Keeper(Mutex<Option<UnixStream>>);

impl Keeper {
    /// Waits until the other process can read the directory.
    pub(super) fn new(mut stream: UnixStream) -> io::Result<Keeper> {
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
        stream.read_exact(&mut [0; 4])?;
        Ok(Keeper(Mutex::new(Some(stream))))
    }

    /// Replaces the record of a network.
    pub(super) fn keep(&self, record: &MembershipRecord) -> io::Result<()> {
        self.ask(KEEP, record.to_json().as_bytes()).map(drop)
    }

    /// Removes the record of a network. Returns false if there was none.
    pub(super) fn forget(&self, network: NetworkId) -> io::Result<bool> {
        absent_or(self.ask(FORGET, network.to_string().as_bytes())).map(|removed| removed.is_some())
    }

    /// Returns the record of a network; `None` if there is none.
    pub(super) fn read(&self, network: NetworkId) -> io::Result<Option<MembershipRecord>> {
        let read = absent_or(self.ask(READ, network.to_string().as_bytes()))?;
        let record = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).ok();
            text.and_then(|text| MembershipRecord::from_json(&text)).ok_or(io::ErrorKind::InvalidData)
        };
        Ok(read.map(record).transpose()?)
    }

    fn ask(&self, kind: u8, bytes: &[u8]) -> io::Result<Vec<u8>> {
        if bytes.len() as u64 > MAX_RECORD_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut stream = sync::lock(&self.0);
        let asked = stream.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        match request(asked, kind, bytes) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Err(error) => {
                *stream = None;
                Err(error)
            }
        }
    }
}

/// Sends a message. Returns the answer, or the errno that it is.
fn request(mut stream: &UnixStream, kind: u8, bytes: &[u8]) -> io::Result<Result<Vec<u8>, i32>> {
    send(stream, &[kind], bytes)?;
    let mut result = [0; 4];
    stream.read_exact(&mut result)?;
    match i32::from_be_bytes(result) {
        0 if kind == READ => Ok(Ok(receive(stream)?)),
        0 => Ok(Ok(Vec::new())),
        errno => Ok(Err(errno)),
    }
}

fn absent_or(asked: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match asked {
        Err(error) if error.raw_os_error() == Some(ABSENT) => Ok(None),
        asked => asked.map(Some),
    }
}

/// Writes bytes with their length, after a head.
fn send(mut stream: &UnixStream, head: &[u8], bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[head, &length.to_be_bytes(), bytes].concat())
}

/// Reads bytes with their length.
fn receive(mut stream: &UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if u64::from(length) > MAX_RECORD_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl StateDir {
    /// Reads and stores records of managed networks in the directory at `path`, for a node of another process
    /// with [`StateDir::for_later`], until that process ends or closes its end of the stream.
    ///
    /// # Errors
    ///
    /// Returns the errors of the stream, and of the directory at the beginning. Later ones of the directory
    /// go to the node.
    pub fn keep_for(path: &Path, mut stream: UnixStream) -> io::Result<()> {
        let mut keeping = Keeping::begin(path).map_err(io::Error::other)?;
        // The other side waits for it.
        stream.write_all(&[0; 4])?;
        loop {
            let mut kind = [0];
            if stream.read(&mut kind)? == 0 {
                return Ok(());
            }
            let bytes = receive(&stream)?;
            match keeping.serve(kind[0], &bytes) {
                Ok(record) if kind[0] == READ => send(&stream, &[0; 4], &record)?,
                Ok(_) => stream.write_all(&[0; 4])?,
                Err(errno) => stream.write_all(&errno.to_be_bytes())?,
            }
        }
    }

    /// Returns the folder in the directory at `path` with the files of static networks, each `NAME.toml`.
    pub fn static_networks(path: &Path) -> PathBuf {
        path.join("networks")
    }
}

/// Directory, and the part of it that the node may not change.
struct Keeping<'a> {
    path: &'a Path,
    own: Option<NodeId>,
    /// Key of each network that was ever there.
    keys: BTreeMap<NetworkId, NetworkKey>,
    /// Local names, with the networks that have had them.
    names: BTreeSet<(String, NetworkId)>,
}

impl Keeping<'_> {
    fn begin(path: &Path) -> Result<Keeping<'_>, StateError> {
        let mut keeping = Keeping { path, own: None, keys: BTreeMap::new(), names: BTreeSet::new() };
        StateDir::memberships(path)?.iter().for_each(|record| keeping.note(record));
        Ok(keeping)
    }

    fn note(&mut self, record: &MembershipRecord) {
        self.keys.insert(record.id, record.key);
        self.names.extend(record.name.clone().map(|name| (name, record.id)));
    }

    /// Returns the record that is asked for, nothing, or an errno.
    fn serve(&mut self, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, i32> {
        let text = str::from_utf8(bytes).map_err(|_| REFUSED)?;
        if kind == KEEP {
            // Only what parses is stored.
            let mut record = MembershipRecord::from_json(text).ok_or(REFUSED)?;
            self.limit(&mut record)?;
            record.write(self.path).map_err(|error| errno_of(&error))?;
            self.note(&record);
            return Ok(Vec::new());
        }
        let network = text.parse().map_err(|_| REFUSED)?;
        match kind {
            FORGET => match StateDir::remove_record(self.path, network) {
                Ok(true) => Ok(Vec::new()),
                Ok(false) => Err(ABSENT),
                Err(error) => Err(errno_of(&error)),
            },
            READ => {
                let record = StateDir::membership(self.path, network).map_err(|error| errno_of(&error))?;
                Ok(record.ok_or(ABSENT)?.to_json().into_bytes())
            }
            _ => Err(REFUSED),
        }
    }

    /// Refuses a record of another network than its key's, and takes out what it may not have. The rest is
    /// worth keeping.
    fn limit(&mut self, record: &mut MembershipRecord) -> Result<(), i32> {
        match self.keys.get(&record.id) {
            Some(key) if *key == record.key => {}
            Some(_) => return Err(REFUSED),
            None => {
                let is_its = network_id(&record.key).is_ok_and(|id| id == Some(record.id));
                if !is_its || self.count()? >= MAX_RECORDS {
                    return Err(REFUSED);
                }
            }
        }
        // The newest ones stay.
        let surplus = record.roots.len().saturating_sub(MAX_ROOTS);
        record.roots.drain(..surplus);
        // The identity may be made later than this process.
        self.own = self.own.or_else(|| Some(StateDir::peek_identity(self.path).ok().flatten()?.node_id()));
        let (keys, own) = (record.keys(), self.own);
        record.credentials = record.credentials.take().filter(|credentials| {
            own.is_some_and(|own| credentials.authenticate_by(&keys, record.id, &own).is_ok())
        });
        let id = record.id;
        record.name = record.name.take().filter(|name| self.may_have(id, name));
        Ok(())
    }

    /// Returns true if a network may have a local name: it has had it, or no other one ever did.
    fn may_have(&self, network: NetworkId, name: &str) -> bool {
        let is_free = !self.names.iter().any(|(known, _)| known == name)
            && !StateDir::static_networks(self.path).join(format!("{name}.toml")).exists();
        name.parse::<MemberName>().is_ok() && (is_free || self.names.contains(&(name.to_owned(), network)))
    }

    /// Returns the number of records.
    fn count(&self) -> Result<usize, i32> {
        let entries = fs::read_dir(self.path).map_err(|error| error.raw_os_error().unwrap_or(REFUSED))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.ends_with(SUFFIX)).count())
    }
}

fn errno_of(error: &StateError) -> i32 {
    match error {
        StateError::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => libc::EFBIG,
        StateError::Io { source, .. } => source.raw_os_error().unwrap_or(REFUSED),
        _ => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use peersock_overlay::membership::{NetworkSecret, UnixTime};

    use super::super::membership::tests::record;
    use super::*;

    /// Returns a directory with the record of a network, whose key makes no ID, and its keeper.
    fn kept() -> (tempfile::TempDir, MembershipRecord, UnixStream, thread::JoinHandle<io::Result<()>>) {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        state.identity().unwrap();
        let first = MembershipRecord { credentials: None, ..record() };
        state.keep_membership(&first).unwrap();
        let (mine, its) = UnixStream::pair().unwrap();
        let path = place.path().to_owned();
        let keeper = thread::spawn(move || StateDir::keep_for(&path, its));
        (place, first, mine, keeper)
    }

    #[test]
    fn another_process_reads_stores_and_removes_records() {
        let (place, first, mine, keeper) = kept();
        let state = StateDir::open(place.path()).unwrap().for_later(mine).unwrap();
        assert_eq!(state.kept_membership(first.id).unwrap().as_ref(), Some(&first));
        let mut second = first.clone();
        second.starts += 1;
        state.keep_membership(&second).unwrap();
        assert_eq!(StateDir::membership(place.path(), first.id).unwrap().as_ref(), Some(&second));
        // A command of the machine may write, too.
        second.starts += 1;
        second.write(place.path()).unwrap();
        assert_eq!(state.kept_membership(first.id).unwrap().as_ref(), Some(&second));
        assert!(state.forget_membership(first.id).unwrap());
        assert!(!state.forget_membership(first.id).unwrap());
        assert_eq!(state.kept_membership(first.id).unwrap(), None);
        assert!(!state.has_membership(first.id));
        assert_eq!(StateDir::membership(place.path(), first.id).unwrap(), None);
        // Its errors are those of the directory.
        fs::remove_dir_all(place.path()).unwrap();
        let unnamed = MembershipRecord { name: None, ..first };
        let error = state.keep_membership(&unnamed).unwrap_err();
        assert!(matches!(&error, StateError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound));
        drop(state);
        keeper.join().unwrap().unwrap();
    }

    #[test]
    fn a_keeper_that_has_ended_is_an_error_at_once() {
        let (place, first, mine, keeper) = kept();
        mine.shutdown(std::net::Shutdown::Write).unwrap();
        keeper.join().unwrap().unwrap();
        let state = StateDir::open(place.path()).unwrap().for_later(mine).unwrap();
        assert!(state.keep_membership(&first).is_err() && state.kept_membership(first.id).is_err());
        drop(state);
        // One that cannot read the directory does not begin.
        fs::write(StateDir::membership_file(place.path(), first.id), "{").unwrap();
        let (mine, its) = UnixStream::pair().unwrap();
        assert!(StateDir::keep_for(place.path(), its).is_err());
        assert!(StateDir::open(place.path()).unwrap().for_later(mine).is_err());
    }

    /// The node's process may be in the hands of a stranger.
    #[test]
    fn only_records_that_change_no_key_and_no_other_name_are_stored() {
        let (place, first, mine, keeper) = kept();
        (&mine).read_exact(&mut [0; 4]).unwrap();
        let ask = |kind: u8, bytes: &[u8]| request(&mine, kind, bytes).unwrap().map(drop);
        let keep = |record: &MembershipRecord| ask(KEEP, record.to_json().as_bytes());
        let read = |id: NetworkId| StateDir::membership(place.path(), id).unwrap().expect("a record");
        let whole = first.to_json();
        for bytes in [b"{}".as_slice(), &whole.as_bytes()[1..], b"\xff", b""] {
            assert_eq!(ask(KEEP, bytes), Err(REFUSED));
        }
        for text in ["../identity.key", "lock", ""] {
            assert_eq!(
                (ask(FORGET, text.as_bytes()), ask(READ, text.as_bytes())),
                (Err(REFUSED), Err(REFUSED))
            );
        }
        assert_eq!(ask(7, first.id.to_string().as_bytes()), Err(REFUSED));
        let key = NetworkSecret::from_seed(&[9; 32]).public();
        let others_key =
            MembershipRecord { key, successions: Vec::new(), revocations: Vec::new(), ..first.clone() };
        assert_eq!(keep(&others_key), Err(REFUSED));
        let id: NetworkId = "8056c2e21c000007".parse().unwrap();
        assert_eq!(keep(&MembershipRecord::new(id, key)), Err(REFUSED), "another network's key");
        assert_eq!(read(first.id), first);
        // Credentials of another node, a name that is none, and too many roots.
        let many = vec![record().roots[0].clone(); 2 * MAX_ROOTS];
        let bad = MembershipRecord { name: Some("../team".into()), roots: many, ..record() };
        assert_eq!(keep(&bad), Ok(()));
        let kept = read(first.id);
        assert_eq!((kept.credentials, kept.name, kept.roots.len()), (None, None, MAX_ROOTS));
        // A name stays that of the network which has had it, also after its removal, and so does the key.
        assert_eq!(ask(FORGET, first.id.to_string().as_bytes()), Ok(()));
        assert_eq!(ask(FORGET, first.id.to_string().as_bytes()), Err(ABSENT));
        let real = network_id(&key).unwrap().expect("most keys make one");
        let folder = StateDir::static_networks(place.path());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("office.toml"), "").unwrap();
        for (name, kept) in [("team", None), ("office", None), ("other", Some("other"))] {
            let named = MembershipRecord { name: Some(name.into()), ..MembershipRecord::new(real, key) };
            assert_eq!(keep(&named), Ok(()));
            assert_eq!(read(real).name.as_deref(), kept, "{name}");
        }
        assert_eq!(keep(&others_key), Err(REFUSED));
        assert_eq!(keep(&MembershipRecord { signed_time: UnixTime::default(), ..first.clone() }), Ok(()));
        assert_eq!(read(first.id).name, first.name);
        send(&mine, &[KEEP, 255, 255, 255], b"").unwrap();
        assert_eq!(keeper.join().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    /// Else a keeper would open what the node names.
    #[test]
    fn roots_of_a_record_are_texts_and_no_files() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("roots");
        fs::write(&file, "dns:example.org").unwrap();
        let named = format!("@{}", file.display());
        let text = record().to_json().replace("dns:example.org", &named);
        assert!(text.contains(&named));
        assert_eq!(MembershipRecord::from_json(&text).expect("a record").roots, []);
    }

    #[test]
    fn a_record_that_could_not_be_read_again_is_not_written() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        let root = record().roots[0].clone();
        let large = MembershipRecord { roots: vec![root; 2_000_000], ..record() };
        let error = state.keep_membership(&large).unwrap_err();
        assert!(
            matches!(&error, StateError::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge)
        );
        assert_eq!(StateDir::memberships(place.path()).unwrap(), []);
    }
}
