//! Storing records for a process that may not write into its state directory any more.
//!
//! ```text
//! node   --> kind (1), length (4, big-endian), bytes
//! keeper --> result (4, big-endian): 0, or an errno
//! ```
//!
//! The bytes of kind 1 are a record, which replaces the last one of its network. Those of kind 2 are the ID of
//! a network whose record is removed.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;

use peersock_overlay::NetworkId;

use super::membership::{MAX_RECORD_BYTES, MAX_RECORDS};
use super::{MembershipRecord, StateDir, StateError, sync};

const KEEP: u8 = 1;
const FORGET: u8 = 2;

/// Result for what is no message, and for one record too many.
const REFUSED: u32 = libc::EINVAL as u32;

/// Other process, which stores records.
#[derive(Debug)]
pub(super) struct Keeper(Mutex<UnixStream>);

impl Keeper {
    pub(super) fn new(stream: UnixStream) -> Keeper {
        Keeper(Mutex::new(stream))
    }

    /// Replaces the record of a network.
    pub(super) fn keep(&self, record: &MembershipRecord) -> io::Result<()> {
        self.ask(KEEP, record.to_json().as_bytes())
    }

    /// Removes the record of a network.
    pub(super) fn forget(&self, network: NetworkId) -> io::Result<()> {
        self.ask(FORGET, network.to_string().as_bytes())
    }

    fn ask(&self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut stream = sync::lock(&self.0);
        stream.write_all(&[&[kind][..], &length.to_be_bytes(), bytes].concat())?;
        let mut result = [0; 4];
        stream.read_exact(&mut result)?;
        match u32::from_be_bytes(result) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno.cast_signed())),
        }
    }
}

impl StateDir {
    /// Stores records of managed networks in the directory at `path`, for a node of another process with
    /// [`StateDir::for_later`], until that process ends or closes its end of the stream.
    ///
    /// # Errors
    ///
    /// Returns the errors of the stream. Errors of the directory go to the node.
    pub fn keep_for(path: &Path, mut stream: UnixStream) -> io::Result<()> {
        loop {
            let mut kind = [0];
            if stream.read(&mut kind)? == 0 {
                return Ok(());
            }
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let length = u32::from_be_bytes(length);
            if u64::from(length) > MAX_RECORD_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut bytes = vec![0; length as usize];
            stream.read_exact(&mut bytes)?;
            let result = match serve(path, kind[0], &bytes) {
                Ok(()) => 0,
                Err(StateError::Io { source, .. }) => {
                    source.raw_os_error().map_or(REFUSED, i32::cast_unsigned)
                }
                Err(_) => REFUSED,
            };
            stream.write_all(&result.to_be_bytes())?;
        }
    }
}

fn serve(path: &Path, kind: u8, bytes: &[u8]) -> Result<(), StateError> {
    let refused = || StateError::io("write", path)(io::ErrorKind::InvalidData.into());
    let text = std::str::from_utf8(bytes).map_err(|_| refused())?;
    match kind {
        KEEP => {
            // Only what parses is stored, because the node is the one that strangers can reach.
            let record = MembershipRecord::from_json(text).ok_or_else(refused)?;
            let is_known = StateDir::membership_file(path, record.id).exists();
            if !is_known && StateDir::memberships(path)?.len() >= MAX_RECORDS {
                return Err(refused());
            }
            record.write(path)
        }
        FORGET => StateDir::remove_record(path, text.parse().map_err(|_| refused())?).map(drop),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::super::membership::tests::record;
    use super::*;

    #[test]
    fn another_process_stores_and_removes_records() {
        let place = tempfile::tempdir().unwrap();
        let first = record();
        let state = StateDir::open(place.path()).unwrap();
        state.keep_membership(&first).unwrap();
        let (mine, its) = UnixStream::pair().unwrap();
        let path = place.path().to_owned();
        let keeper = thread::spawn(move || StateDir::keep_for(&path, its));
        let state = state.for_later(mine).unwrap();
        assert_eq!(state.kept_membership(first.id).unwrap().as_ref(), Some(&first));
        let mut second = first.clone();
        second.starts += 1;
        state.keep_membership(&second).unwrap();
        assert_eq!(state.kept_membership(first.id).unwrap().as_ref(), Some(&second));
        assert_eq!(StateDir::membership(place.path(), first.id).unwrap().as_ref(), Some(&second));
        assert!(state.forget_membership(first.id).unwrap());
        assert!(!state.forget_membership(first.id).unwrap());
        assert_eq!(state.kept_membership(first.id).unwrap(), None);
        assert_eq!(StateDir::membership(place.path(), first.id).unwrap(), None);
        // Its errors are those of the directory.
        fs::remove_dir_all(place.path()).unwrap();
        let error = state.keep_membership(&first).unwrap_err();
        assert!(matches!(&error, StateError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound));
        drop(state);
        keeper.join().unwrap().unwrap();
    }

    /// The node's process may be in the hands of a stranger.
    #[test]
    fn only_records_are_stored_and_no_more_than_a_directory_may_have() {
        let place = tempfile::tempdir().unwrap();
        let (mut mine, its) = UnixStream::pair().unwrap();
        let path = place.path().to_owned();
        let keeper = thread::spawn(move || StateDir::keep_for(&path, its));
        let mut ask = |kind: u8, text: &[u8]| {
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            mine.write_all(&[&[kind][..], &length, text].concat()).unwrap();
            let mut result = [0; 4];
            mine.read_exact(&mut result).unwrap();
            u32::from_be_bytes(result) == 0
        };
        let whole = record().to_json();
        assert!(!ask(KEEP, b"{}") && !ask(KEEP, &whole.as_bytes()[1..]) && !ask(KEEP, b"\xff"));
        assert!(!ask(FORGET, b"../identity.key") && !ask(FORGET, b"lock") && !ask(7, b"") && !ask(KEEP, b""));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        let others = (0..=MAX_RECORDS as u64).map(|number| {
            let id = NetworkId::new(0x8056_c2e2_1c00_0000 + number).unwrap().to_string();
            let mut other = MembershipRecord::new(id.parse().unwrap(), record().key);
            other.name = Some(format!("n{number}"));
            other.to_json()
        });
        let kept: Vec<_> = others.map(|other| ask(KEEP, other.as_bytes())).collect();
        assert!(kept[..MAX_RECORDS].iter().all(|kept| *kept) && !kept[MAX_RECORDS]);
        mine.write_all(&[KEEP, 255, 255, 255, 255]).unwrap();
        assert_eq!(keeper.join().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
