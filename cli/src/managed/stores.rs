//! Stores of the networks whose controller this machine is.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use peersock::overlay::membership::{Head, Refusal};
use peersock::state::{MembershipRecord, StateDir, StateError, lock_file, read_identity_file};
use peersock::{NetworkId, RootSource};
use peersock_controller::{Controller, NoteError, Store, StoreError};

use crate::failure::{Failure, Outcome};

/// Folder of the stores in a state directory; the file of each is named by the network's ID.
const FOLDER: &str = "controllers";
const SUFFIX: &str = ".db";

/// Suffix of the file that the process locks which serves a network.
const LOCK_SUFFIX: &str = ".lock";

/// Suffix of the file with the roots by which a controller is found.
const ROOTS_SUFFIX: &str = ".roots";

/// Returns the path of a network's store.
pub(super) fn path_of(state: &Path, network: NetworkId) -> PathBuf {
    state.join(FOLDER).join(format!("{network}{SUFFIX}"))
}

/// Waits for the turn of this process to make a store in a state directory. It lasts until the result is
/// dropped.
pub(super) fn turn(state: &Path) -> Outcome<File> {
    // The directory itself, because the file that a node locks says who uses the directory.
    let directory = File::open(state)?;
    directory.lock()?;
    Ok(directory)
}

/// Returns true if the controller of a network is on this machine.
pub(crate) fn is_controller_of(state: &Path, network: NetworkId) -> bool {
    path_of(state, network).exists()
}

/// Returns the networks that have a store in a state directory.
pub(super) fn all(state: &Path) -> Outcome<Vec<NetworkId>> {
    let entries = match fs::read_dir(state.join(FOLDER)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Failure::new(
                format_args!("{}: {error}", state.join(FOLDER).display()),
                "check that the directory belongs to you",
            ));
        }
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ids: Vec<NetworkId> = names.filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Opens the controller of a network: the named one, or the only one.
pub(super) fn open(state: &Path, named: Option<&str>) -> Outcome<Controller> {
    let mut found = Vec::new();
    let mut failed = None;
    // A restored network has the name of the backup in its store, and may have another one here.
    let local = |named| super::named(state, named).ok().flatten().filter(|id| is_controller_of(state, *id));
    let meant = named.and_then(|named| super::parse_id(named).ok().or_else(|| local(named)));
    for id in all(state)? {
        let controller = match open_one(state, id) {
            Ok(controller) => controller,
            // A damaged store of another network does not prevent the use of this one.
            Err(failure) if named.is_some() => {
                failed = Some(failure);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let is_meant = |named| meant.map_or_else(|| controller.name() == named, |meant| meant == id);
        if named.is_none_or(is_meant) {
            found.push(controller);
        }
    }
    let names = || found.iter().map(Controller::name).collect::<Vec<_>>().join(", ");
    match (found.len(), named) {
        (1, _) => Ok(found.remove(0)),
        (0, Some(_)) if let Some(failure) = failed => Err(failure),
        (0, None) => Err(Failure::new(
            format_args!("no network has its controller in {}", state.display()),
            "make one with `peersock network create NAME`, or give another --state DIR",
        )),
        (0, Some(named)) => Err(Failure::new(
            format_args!("no network `{named}` has its controller in {}", state.display()),
            "make one with `peersock network create NAME`, or list those here with `peersock networks`",
        )),
        (_, None) => Err(Failure::usage(
            format_args!("several networks have their controller here: {}", names()),
            "name one with -n",
        )),
        (_, Some(named)) => Err(Failure::usage(
            format_args!("several networks here have the name `{named}`"),
            "give the network's ID to -n",
        )),
    }
}

/// Opens the controller of one network.
pub(super) fn open_one(state: &Path, id: NetworkId) -> Outcome<Controller> {
    let seed = read_identity_file(&state.join("identity.key"))?;
    let path = path_of(state, id);
    let opened = Store::open(&path).and_then(|store| Controller::open(store, &seed.0));
    let mut controller = opened.map_err(|error| store_failure(&path, &error))?;
    controller.watch_clock();
    // Somebody may have copied a backup over the store.
    controller.note_if_backup(super::now()).map_err(|error| store_failure(&path, &error))?;
    Ok(controller)
}

/// Returns the process that serves a network by its store, or was the last one to do so.
pub(super) fn served_by(state: &Path, network: NetworkId) -> Option<u32> {
    fs::read_to_string(lock_path(state, network)).ok()?.trim().parse().ok()
}

/// Removes all files of a network whose store this process has locked: with copies from before a migration,
/// which have its key, too.
pub(super) fn remove(state: &Path, network: NetworkId) -> Outcome {
    let folder = state.join(FOLDER);
    let begins = format!("{network}.");
    let entries = fs::read_dir(&folder)?
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&begins)));
    for entry in entries {
        fs::remove_file(entry.path()).map_err(|error| {
            Failure::new(
                format_args!("{}: {error}", entry.path().display()),
                "check that the directory belongs to you, and run the command again",
            )
        })?;
    }
    Ok(())
}

/// Keeps the roots by which a controller is found, for its invites.
pub(super) fn keep_roots(state: &Path, network: NetworkId, roots: &[RootSource]) -> io::Result<()> {
    let path = roots_path(state, network);
    let text: String = roots.iter().map(|root| format!("{root}\n")).collect();
    if fs::read_to_string(&path).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    // The controller alone writes here, so one name is enough.
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

/// Returns the roots by which a controller is found, as it was started last.
pub(super) fn roots(state: &Path, network: NetworkId) -> Vec<RootSource> {
    let text = fs::read_to_string(roots_path(state, network)).unwrap_or_default();
    RootSource::parse_list(&text).unwrap_or_default()
}

fn roots_path(state: &Path, network: NetworkId) -> PathBuf {
    state.join(FOLDER).join(format!("{network}{ROOTS_SUFFIX}"))
}

fn lock_path(state: &Path, network: NetworkId) -> PathBuf {
    state.join(FOLDER).join(format!("{network}{LOCK_SUFFIX}"))
}

/// Makes this process the only one that serves a network by its store, as long as the result lives.
pub(super) fn lock(state: &Path, network: NetworkId, name: &str) -> Outcome<File> {
    lock_file(&lock_path(state, network)).map_err(|error| {
        let StateError::InUse { holder, .. } = error else { return error.into() };
        let (by, hint) = match holder {
            Some(process) => (format!("process {process}"), format!("end it first (`kill {process}`)")),
            None => ("another process".to_owned(), "end it first".to_owned()),
        };
        Failure::new(format_args!("network {name} is already served by {by}"), hint)
    })
}

/// Tells a controller of the network's keys that its machine has learned as a member.
pub(super) fn learn_keys(state: &Path, controller: &mut Controller) -> Outcome {
    match StateDir::membership(state, controller.network())? {
        Some(record) => note_keys(controller, &record),
        None => Ok(()),
    }
}

/// Tells a controller of the network's keys in the record of its machine.
pub(super) fn note_keys(controller: &mut Controller, record: &MembershipRecord) -> Outcome {
    if record.key != controller.key() {
        return Ok(());
    }
    match controller.note_keys(super::now(), &record.successions) {
        Ok(_) => Ok(()),
        Err(NoteError::Refused(Refusal::OtherSuccession)) => Err(Failure::new(
            format_args!("this machine has learned another key of network {} than its controller", record.id),
            "make another network with `peersock network create`: somebody else has the key of this one",
        )),
        Err(error) => Err(Failure::new(
            format_args!("the controller does not learn the network's key: {error}"),
            "check the disk and the store's owner, and try again",
        )),
    }
}

/// Tells a controller of the removals that its machine has kept as a member. Returns the heads that count.
pub(super) fn note_heads(controller: &mut Controller, record: &MembershipRecord) -> Vec<Head> {
    let mut noted = Vec::new();
    for (head, set) in &record.revocations {
        match controller.note_head(super::now(), head, set) {
            Ok(_) => noted.push(head.clone()),
            Err(error) => tracing::debug!(%error, "kept revocations are not taken over"),
        }
    }
    noted
}

/// Returns the failure of a store, by the path that the person knows.
pub(super) fn store_failure(path: &Path, error: &StoreError) -> Failure {
    let reason = match error {
        StoreError::File { reason, .. } => reason.clone(),
        error => error.to_string(),
    };
    Failure::new(
        format_args!("{}: {reason}", path.display()),
        "check the disk and the file's owner; if a controller's store is damaged, move its file away, and \
         run `peersock network restore NAME --backup FILE` with the last backup",
    )
}
