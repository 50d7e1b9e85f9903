//! Local names of managed networks: no two networks of a directory have the same one, also while they are
//! joined or made at the same time.
//!
//! A claim is a lock on an empty file `.NAME.NETWORK.name`, which ends with its process. Commands that give
//! one network the same name share the lock. Who claims a name, or ends a claim, locks `.names` meanwhile.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use peersock_overlay::NetworkId;
use peersock_overlay::membership::MemberName;

use super::{StateDir, StateError, check_directory, create_private, open_for_lock};

/// End of the names of claims' files.
const SUFFIX: &str = ".name";

/// File that is locked while claims change.
const TURN: &str = ".names";

/// Place of the network in the name of a claim whose network has no ID yet.
const NEW: &str = "new";

/// Claim to a local name for a network, until dropped. Meanwhile no other network gets the name.
#[derive(Debug)]
#[must_use]
pub struct NameClaim {
    directory: PathBuf,
    path: PathBuf,
    file: File,
}

impl StateDir {
    /// Claims a local name for a network that is joined or made in the directory at `path`, which another
    /// process may use. It is created if it does not exist. Without a `network`, the claim is for one that
    /// has no ID yet.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::NameTaken`] if another network of the directory has the name, or a process that
    /// runs has claimed it for another one; the errors of [`StateDir::membership`]; otherwise
    /// [`StateError::Io`].
    pub fn claim_name(
        path: &Path,
        name: &MemberName,
        network: Option<NetworkId>,
    ) -> Result<NameClaim, StateError> {
        create_private(path)?;
        check_directory(path)?;
        let _turn = turn(path).map_err(StateError::io("lock", path))?;
        let taken = |network: Option<NetworkId>| StateError::NameTaken { name: name.clone(), network };
        // Before the records, because a claim may end while they are read, after its record is written.
        let own = file_name(name, network);
        for entry in fs::read_dir(path).map_err(StateError::io("read", path))? {
            let Ok(other) = entry.map_err(StateError::io("read", path))?.file_name().into_string() else {
                continue;
            };
            let Some((claimed, of)) = parse(&other).filter(|_| other != own) else { continue };
            let other = path.join(&other);
            match File::open(&other).map(|file| file.try_lock()) {
                // Its process has ended.
                Ok(Ok(())) => _ = fs::remove_file(&other),
                Ok(Err(_)) if claimed == name.as_str() => return Err(taken(of)),
                _ => {}
            }
        }
        // A damaged record of another network keeps no other out, and its name is not known.
        let records = Self::readable_memberships(path)?.0.into_iter();
        let mut others = records.filter(|record| Some(record.id) != network);
        if let Some(other) = others.find(|record| record.name.as_deref() == Some(name.as_str())) {
            return Err(taken(Some(other.id)));
        }
        let place = path.join(own);
        let file = open_for_lock(&place).map_err(StateError::io("create", &place))?;
        file.lock_shared().map_err(StateError::io("lock", &place))?;
        Ok(NameClaim { directory: path.to_owned(), path: place, file })
    }
}

impl NameClaim {
    /// Makes this the claim of a network that has got its ID.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::Io`].
    pub fn assign(&mut self, name: &MemberName, network: NetworkId) -> Result<(), StateError> {
        let _turn = turn(&self.directory).map_err(StateError::io("lock", &self.directory))?;
        let path = self.directory.join(file_name(name, Some(network)));
        fs::rename(&self.path, &path).map_err(StateError::io("rename", &self.path))?;
        self.path = path;
        Ok(())
    }
}

impl Drop for NameClaim {
    fn drop(&mut self) {
        // Others may have the same claim. A file that stays is removed by the next claim.
        if let Ok(_turn) = turn(&self.directory)
            && self.file.unlock().is_ok()
            && self.file.try_lock().is_ok()
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Waits for the turn of this process to change claims, until the result is dropped.
fn turn(directory: &Path) -> io::Result<File> {
    let turn = open_for_lock(&directory.join(TURN))?;
    turn.lock()?;
    Ok(turn)
}

fn file_name(name: &MemberName, network: Option<NetworkId>) -> String {
    let network = network.map_or_else(|| NEW.to_owned(), |id| id.to_string());
    format!(".{name}.{network}{SUFFIX}")
}

/// Returns the name and the network of a claim's file.
fn parse(file: &str) -> Option<(&str, Option<NetworkId>)> {
    let (name, network) = file.strip_prefix('.')?.strip_suffix(SUFFIX)?.split_once('.')?;
    match network {
        NEW => Some((name, None)),
        network => Some((name, Some(network.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use peersock_overlay::membership::NetworkSecret;

    use super::*;
    use crate::state::MembershipRecord;

    #[test]
    fn a_name_is_claimed_for_one_network_at_a_time() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("peersock");
        let (team, crew) = (name("team"), name("crew"));
        let [one, other] = ["7dc156211c9e24be", "e18a4c0277d19b3f"].map(|id| id.parse().ok());
        let claim = |name: &MemberName, network| StateDir::claim_name(&path, name, network);
        let first = claim(&team, one).expect("free");
        let again = claim(&team, one).expect("for the same network");
        drop(first);
        for network in [other, None] {
            let refused = claim(&team, network).expect_err("claimed");
            assert!(
                matches!(&refused, StateError::NameTaken { network, .. } if *network == one),
                "{refused}"
            );
        }
        let mut new = claim(&crew, None).expect("free");
        assert!(matches!(claim(&crew, one), Err(StateError::NameTaken { network: None, .. })));
        new.assign(&crew, one.expect("an ID")).expect("room");
        drop(claim(&crew, one).expect("for the same network"));
        assert!(matches!(claim(&crew, other), Err(StateError::NameTaken { network: Some(_), .. })));
        drop((again, new));
        assert_eq!(claims(&path), 0, "no file is left");
        // As a process leaves it that was killed.
        fs::write(path.join(".team.7dc156211c9e24be.name"), "").expect("room");
        drop(claim(&team, other).expect("free"));
        assert_eq!(claims(&path), 0, "no file is left");
    }

    #[test]
    fn a_network_that_has_the_name_keeps_it() {
        let place = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(&place.path().join("peersock")).expect("a state directory");
        let (team, id) = (name("team"), "7dc156211c9e24be".parse().expect("an ID"));
        let key = NetworkSecret::from_seed(&[1; 32]).public();
        let record = MembershipRecord { name: Some("team".into()), ..MembershipRecord::new(id, key) };
        state.keep_membership(&record).expect("room");
        let refused = StateDir::claim_name(state.path(), &team, None).expect_err("it has the name");
        assert_eq!(refused.to_string(), "network 7dc156211c9e24be has the name `team` on this machine");
        drop(StateDir::claim_name(state.path(), &team, Some(id)).expect("its own name"));
    }

    /// Returns the number of claims' files.
    fn claims(path: &Path) -> usize {
        let files = fs::read_dir(path).expect("a directory").flatten();
        files.filter(|file| file.file_name().to_string_lossy().ends_with(SUFFIX)).count()
    }

    fn name(text: &str) -> MemberName {
        text.parse().expect("a name")
    }
}
