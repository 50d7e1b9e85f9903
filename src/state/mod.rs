//! State of a node on disk: one private directory per identity.
//!
//! ```text
//! peersock/             0700, yours
//!   lock                held (flock) by the process that uses the directory; holds its pid
//!   identity.key        0600, the secret seed (text, versioned)
//!   dht-nodes           0600, nodes of the DHT that have answered, for the next entry
//!   ID.network          0600, a managed network that was joined: its key, this node's credentials
//!   management.sock     0600, present while a node runs: `peersock status` asks it
//!   node.sock           0600, present while a shared node runs: programs attach to it
//! ```
//!
//! Files are replaced atomically, so a crash leaves the old or the new content, never a torn one. An existing
//! identity is never regenerated: a damaged or exposed file is an error that needs a person.

#[cfg(feature = "dht")]
mod dht_nodes;
mod error;
mod identity;
mod idle;
mod membership;
mod private;
mod socket;

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::node::Seed;
use crate::sync;
use peersock_overlay::{Identity, PublicIdentity};

pub use error::StateError;
pub use membership::MembershipRecord;
pub(crate) use membership::denial_word;
pub use private::read_secret_file;
pub(crate) use private::{
    check_directory, check_secret_file, check_trusted_file, read_large_secret_file, read_regular_secret_file,
    read_text_file, write_atomically,
};
pub use socket::DirectorySocket;
use socket::bind_private;

/// Interval of attempts to lock a directory.
const RETRY: Duration = Duration::from_millis(5);

const LOCK_FILE: &str = "lock";
const IDENTITY_FILE: &str = "identity.key";
const MANAGEMENT_SOCKET: &str = "management.sock";
const NODE_SOCKET: &str = "node.sock";

/// State directory, locked for this process as long as the value lives.
///
/// ```
/// use peersock::state::StateDir;
///
/// let place = tempfile::tempdir()?;
/// let state = StateDir::open(&place.path().join("peersock"))?;
/// let identity = state.identity()?; // created on first use …
/// assert_eq!(state.identity()?.node_id(), identity.node_id()); // … then read
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    /// Lock file. The kernel releases the lock when the last copy of this descriptor is closed, however the
    /// process ends.
    lock: Arc<File>,
    later: Option<Arc<Later>>,
}

/// Parts of a state directory that a node needs, opened before it starts.
#[derive(Debug)]
struct Later {
    seed: Seed,
    management: Mutex<Option<UnixListener>>,
    #[cfg(feature = "dht")]
    dht_nodes: Option<String>,
}

impl StateDir {
    /// Returns the default directory: `peersock` under `$XDG_STATE_HOME` (if that is an absolute path) or
    /// under `~/.local/state`.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::NoDefaultPath`] if neither is known.
    pub fn default_path() -> Result<PathBuf, StateError> {
        default_path_from(env::var_os("XDG_STATE_HOME").map(PathBuf::from), env::home_dir())
    }

    /// Opens and locks a state directory; creates it, with mode 0700, if it does not exist. If a shared node
    /// in the background holds it that no program uses any more, this ends that node and waits for its end.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::InUse`] if another process, or another value in this one, has it open;
    /// [`StateError::WritableByOthers`] or [`StateError::ForeignOwner`] if another user could put files into
    /// it; [`StateError::WrongKind`] if it is not a directory; otherwise [`StateError::Io`].
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        create_private(path)?;
        check_directory(path)?;
        // Absolute, because the process may change its working directory later.
        let path = path.canonicalize().map_err(StateError::io("examine", path))?;
        let lock = match lock(&path) {
            Err(StateError::InUse { .. }) if idle::is_leaving(&Self::node_socket(&path)) => lock_soon(&path)?,
            lock => lock?,
        };
        Ok(StateDir { path, lock: Arc::new(lock), later: None })
    }

    /// Reads the identity and binds the management socket now. A node started with
    /// [`IdentitySource::Opened`](crate::IdentitySource::Opened) has both, even if the process has switched
    /// to a user without access to the directory. Such a node stores nothing else there, and leaves the
    /// socket's file behind at its end.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`StateDir::identity`], and [`StateError::Io`] if the socket cannot be made.
    pub fn for_later(mut self) -> Result<StateDir, StateError> {
        let seed = Seed(*self.seed()?);
        let listener = self.bind_management();
        let listener = listener.map_err(StateError::io("make", &Self::management_socket(&self.path)))?;
        let management = Mutex::new(Some(listener));
        #[cfg(feature = "dht")]
        let dht_nodes = self.dht_nodes();
        self.later = Some(Arc::new(Later {
            seed,
            management,
            #[cfg(feature = "dht")]
            dht_nodes,
        }));
        Ok(self)
    }

    /// Returns the management socket; makes it unless [`StateDir::for_later`] has done so.
    pub(crate) fn bind_management(&self) -> io::Result<UnixListener> {
        if let Some(listener) = self.later.as_ref().and_then(|later| sync::lock(&later.management).take()) {
            return Ok(listener);
        }
        bind_private(&Self::management_socket(&self.path))
    }

    /// Makes the socket at which programs attach to the node. It belongs to this user alone.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::Io`].
    pub fn bind_node_socket(&self) -> Result<DirectorySocket, StateError> {
        let path = Self::node_socket(&self.path);
        let listener = bind_private(&path).map_err(StateError::io("make", &path))?;
        Ok(DirectorySocket::of(path, listener))
    }

    /// Returns the path of the socket at which programs attach to the node that uses the directory at `path`.
    pub fn node_socket(path: &Path) -> PathBuf {
        path.join(NODE_SOCKET)
    }

    /// Gives the directory up, before the last copy of this value is dropped. For the end of a process in
    /// which a node still exists, which must have been shut down.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::Io`].
    pub fn unlock(&self) -> Result<(), StateError> {
        self.lock.unlock().map_err(StateError::io("unlock", &self.path))
    }

    /// Returns the absolute path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the identity, or creates one from the operating system's randomness if there is none yet.
    ///
    /// # Errors
    ///
    /// Returns [`StateError::Exposed`] or [`StateError::ForeignOwner`] if the file is not private to this
    /// user, [`StateError::Malformed`] or [`StateError::TooNew`] if it cannot be parsed, otherwise
    /// [`StateError::Io`]. An existing file is never overwritten.
    pub fn identity(&self) -> Result<Identity, StateError> {
        if let Some(later) = &self.later {
            return Ok(Identity::from_seed(&later.seed.0));
        }
        Ok(Identity::from_seed(&*self.seed()?))
    }

    /// Reads the identity's seed, or generates it.
    fn seed(&self) -> Result<identity::Seed, StateError> {
        if let Some(seed) = read_seed(&self.path)? {
            return Ok(seed);
        }
        let path = self.path.join(IDENTITY_FILE);
        let seed = identity::generate().map_err(StateError::io("draw randomness for", &path))?;
        write_atomically(&self.path, IDENTITY_FILE, identity::emit(&seed).as_bytes())?;
        Ok(seed)
    }

    /// Returns the public part of the identity in a directory that may be in use by another process; `None`
    /// if the directory or the identity does not exist yet. Takes no lock and creates nothing.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`StateDir::identity`], and [`StateError::WritableByOthers`] or
    /// [`StateError::ForeignOwner`] if another user could put files into the directory.
    pub fn peek_identity(path: &Path) -> Result<Option<PublicIdentity>, StateError> {
        Ok(Self::identity_beside(path)?.map(|identity| *identity.public()))
    }

    /// Returns the identity in a directory that another process uses; `None` if there is none yet.
    pub(crate) fn identity_beside(path: &Path) -> Result<Option<Identity>, StateError> {
        let identity = read_seed(path)?.map(|seed| Identity::from_seed(&seed));
        if identity.is_some() {
            // Otherwise another user could rename a different file of this user to the identity's name.
            check_directory(path)?;
        }
        Ok(identity)
    }

    /// Returns the path of the socket on which the node that uses the directory at `path` answers
    /// [`crate::management`] requests.
    pub fn management_socket(path: &Path) -> PathBuf {
        path.join(MANAGEMENT_SOCKET)
    }
}

/// Reads an identity's secret seed from a file in the form of state directories.
///
/// # Errors
///
/// Returns the errors of [`StateDir::identity`]; [`StateError::Io`] if the file does not exist.
pub fn read_identity_file(path: &Path) -> Result<Seed, StateError> {
    let text = read_secret_file(path)?;
    Ok(Seed(*identity::parse(path, &text)?))
}

/// Writes an identity's secret seed to a new file of mode 0600, in the form of state directories.
///
/// # Errors
///
/// Returns [`StateError::Io`], with `AlreadyExists` if the file exists, because none is ever overwritten.
pub fn write_identity_file(path: &Path, seed: &Seed) -> Result<(), StateError> {
    let text = identity::emit(&zeroize::Zeroizing::new(seed.0));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(StateError::io("create", path))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // A partial identity must not look like a whole one.
        let _ = fs::remove_file(path);
        StateError::io("write", path)(error)
    })
}

fn default_path_from(state_home: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf, StateError> {
    // The XDG base directory specification requires relative paths to be ignored.
    let base = match state_home {
        Some(path) if path.is_absolute() => path,
        _ => home.filter(|home| home.is_absolute()).ok_or(StateError::NoDefaultPath)?.join(".local/state"),
    };
    Ok(base.join("peersock"))
}

fn create_private(path: &Path) -> Result<(), StateError> {
    if let Some(parent) = path.parent() {
        // The parents are ordinary directories of the user; only the last one belongs to peersock and is
        // restricted.
        fs::create_dir_all(parent).map_err(StateError::io("create", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(StateError::io("create", path)(error))
        }
        _ => Ok(()),
    }
}

/// Locks a file and writes this process's ID into it. The file is made, with mode 0600, if it does not exist.
/// The lock lasts until the result is dropped, or the process ends.
///
/// # Errors
///
/// Returns [`StateError::InUse`] with the file's path if another process has the lock, otherwise
/// [`StateError::Io`].
pub fn lock_file(path: &Path) -> Result<File, StateError> {
    // Never truncated on opening, because the content is the holder's pid until this process holds the lock.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StateError::io("open", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&mut file).take(16).read_to_string(&mut pid);
            return Err(StateError::InUse { path: path.into(), holder: pid.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(StateError::io("lock", path)(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(StateError::io("write", path))?;
    Ok(file)
}

fn lock(directory: &Path) -> Result<File, StateError> {
    lock_file(&directory.join(LOCK_FILE)).map_err(|error| match error {
        StateError::InUse { holder, .. } => StateError::InUse { path: directory.into(), holder },
        error => error,
    })
}

/// Locks a directory that its holder is about to leave.
fn lock_soon(directory: &Path) -> Result<File, StateError> {
    let begun = Instant::now();
    loop {
        match lock(directory) {
            Err(StateError::InUse { .. }) if begun.elapsed() < idle::WITHIN => thread::sleep(RETRY),
            locked => return locked,
        }
    }
}

fn read_seed(directory: &Path) -> Result<Option<identity::Seed>, StateError> {
    let path = directory.join(IDENTITY_FILE);
    match read_regular_secret_file(&path) {
        Ok(text) => identity::parse(&path, &text).map(Some),
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
            Err(StateError::Malformed { path, what: "it is not text" })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    #[test]
    fn a_secret_comes_through_a_pipe_that_others_cannot_write_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let read = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| fs::write(&path, "secret").unwrap());
                read_secret_file(&path)
            })
        };
        assert_eq!(*read(0o600).unwrap(), "secret");
        assert!(matches!(read(0o622), Err(StateError::Exposed { .. })));
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn first_use_creates_a_private_directory_and_identity_and_the_next_reads_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b/peersock");
        assert_eq!(StateDir::peek_identity(&path).unwrap().map(|id| id.node_id()), None);

        let state = StateDir::open(&path).unwrap();
        let id = state.identity().unwrap().node_id();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(IDENTITY_FILE)), 0o600);
        drop(state);

        assert_eq!(StateDir::open(&path).unwrap().identity().unwrap().node_id(), id);
        assert_eq!(StateDir::peek_identity(&path).unwrap().unwrap().node_id(), id);
    }

    #[test]
    fn a_second_holder_is_refused_by_name_until_the_first_lets_go() {
        let place = tempfile::tempdir().unwrap();
        let first = StateDir::open(place.path()).unwrap();
        let error = StateDir::open(place.path()).unwrap_err();
        assert!(
            matches!(&error, StateError::InUse { holder: Some(pid), .. } if *pid == std::process::id()),
            "{error}"
        );
        assert!(error.to_string().contains("ephemeral"), "{error}");
        drop(first);
        StateDir::open(place.path()).unwrap();
    }

    #[test]
    fn what_was_opened_before_is_there_though_the_directory_is_not_any_more() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let state = StateDir::open(&path).unwrap().for_later().unwrap();
        let id = state.identity().unwrap().node_id();
        assert_eq!(StateDir::peek_identity(&path).unwrap().unwrap().node_id(), id);
        let listener = state.bind_management().unwrap();
        std::os::unix::net::UnixStream::connect(StateDir::management_socket(&path)).unwrap();
        listener.accept().unwrap();
        let copy = state.clone();
        drop(state);
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse { .. })));
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(copy.identity().unwrap().node_id(), id);
    }

    #[test]
    fn an_exposed_or_damaged_identity_is_an_error_and_stays_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        state.identity().unwrap();
        let file = place.path().join(IDENTITY_FILE);

        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(state.identity().unwrap_err(), StateError::Exposed { mode: 0o644, .. }));

        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "peersock-identity 1 torn").unwrap();
        assert!(matches!(state.identity().unwrap_err(), StateError::Malformed { .. }));
        assert_eq!(fs::read_to_string(&file).unwrap(), "peersock-identity 1 torn");

        fs::write(&file, b"\xff\xfe\0garbage").unwrap();
        let error = state.identity().unwrap_err();
        assert!(matches!(error, StateError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let error = StateDir::open(place.path()).unwrap_err();
        assert!(matches!(error, StateError::WritableByOthers { mode: 0o770, .. }), "{error}");
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    #[test]
    fn an_identity_is_not_taken_from_a_directory_that_others_may_write_to() {
        let place = tempfile::tempdir().unwrap();
        StateDir::open(place.path()).unwrap().identity().unwrap();
        let peek = |mode| {
            fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
            StateDir::peek_identity(place.path())
        };
        // Others may list the files, because files with secrets are refused if others can read them.
        for mode in [0o700, 0o755] {
            assert!(peek(mode).unwrap().is_some());
            StateDir::open(place.path()).unwrap();
        }
        for mode in [0o777, 0o775, 0o757, 0o1777] {
            let error = peek(mode).unwrap_err();
            assert!(matches!(error, StateError::WritableByOthers { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains("chmod 700"), "{error}");
        }
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("peersock");
        fs::write(&path, "").unwrap();
        assert!(matches!(StateDir::open(&path).unwrap_err(), StateError::WrongKind { .. }));
    }

    #[test]
    fn default_path_follows_the_xdg_specification() {
        let path = |state: Option<&str>, home: Option<&str>| {
            default_path_from(state.map(PathBuf::from), home.map(PathBuf::from)).ok()
        };
        assert_eq!(path(Some("/s"), Some("/h")), Some("/s/peersock".into()));
        assert_eq!(path(None, Some("/h")), Some("/h/.local/state/peersock".into()));
        assert_eq!(path(Some("relative"), Some("/h")), Some("/h/.local/state/peersock".into()));
        assert_eq!(path(Some(""), None), None);
    }
}
