//! Listening Unix sockets in a state directory, and their files.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::management::with_short_path;
use crate::sync;

/// Interval of checks whether the file is still there. inotify(7) would need no checks, but the end of a
/// killed process waits for its instances, and programs would learn later that their node has ended.
const CHECK_INTERVAL: Timespec = match cfg!(test) {
    true => Timespec { tv_sec: 0, tv_nsec: 20_000_000 },
    false => Timespec { tv_sec: 10, tv_nsec: 0 },
};

/// Listening socket of a process that holds the directory's lock.
///
/// If something removes its file, such as a cleaner of old files, the socket is made again within ten
/// seconds. Clients could not connect to it otherwise, and the directory would be in use.
#[derive(Debug)]
pub struct DirectorySocket {
    path: PathBuf,
    /// Device and inode of the directory, if it could be examined.
    directory: Option<(u64, u64)>,
    /// Held by the thread that accepts.
    listener: Mutex<UnixListener>,
    /// Taken at the end.
    file: Mutex<Option<SocketFile>>,
}

impl DirectorySocket {
    /// Takes a listener at a path.
    pub(crate) fn of(path: PathBuf, listener: UnixListener) -> DirectorySocket {
        let (directory, file) = (file_id(folder(&path)), Mutex::new(Some(SocketFile::of(path.clone()))));
        DirectorySocket { path, directory, listener: Mutex::new(listener), file }
    }

    /// Waits for a connection, or returns `None` once `stop` is readable.
    ///
    /// # Errors
    /// Errors of poll(2) and accept(2).
    pub fn accept(&self, stop: Option<BorrowedFd<'_>>) -> io::Result<Option<UnixStream>> {
        let mut listener = sync::lock(&self.listener);
        loop {
            let mut fds = vec![PollFd::new(&*listener, PollFlags::IN)];
            fds.extend(stop.iter().map(|stop| PollFd::new(stop, PollFlags::IN)));
            match poll(&mut fds, Some(&CHECK_INTERVAL)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let is_ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
            let (is_asked, is_over) = (is_ready(fds.first()), is_ready(fds.get(1)));
            drop(fds);
            match () {
                () if is_over => return Ok(None),
                () if is_asked => return listener.accept().map(|(stream, _)| Some(stream)),
                () => {}
            }
            if let Some(new) = self.made_again() {
                *listener = new;
            }
        }
    }

    /// Removes the file, after which no client can connect.
    pub fn close(&self) {
        drop(sync::lock(&self.file).take());
    }

    /// Makes the socket again if its file is missing.
    fn made_again(&self) -> Option<UnixListener> {
        // Held, so that no socket appears after the end.
        let mut file = sync::lock(&self.file);
        let is_missing =
            fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        // Another process may have made a directory of the same name, and hold its lock.
        let is_same = self.directory.is_some() && file_id(folder(&self.path)) == self.directory;
        if file.is_none() || !is_missing || !is_same {
            return None;
        }
        match listen_private(&self.path) {
            Ok(listener) => {
                *file = Some(SocketFile::of(self.path.clone()));
                tracing::info!("{} was removed, and is made again", self.path.display());
                Some(listener)
            }
            Err(error) => {
                tracing::warn!("{} was removed, and cannot be made again: {error}", self.path.display());
                None
            }
        }
    }
}

/// File of a socket, removed when this is dropped. If the directory was removed and made again, another
/// process may have put a socket in its place, which stays.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode, if the file could be examined.
    id: Option<(u64, u64)>,
}

impl SocketFile {
    /// Takes the file at a path.
    fn of(path: PathBuf) -> SocketFile {
        let id = file_id(&path);
        SocketFile { path, id }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && file_id(&self.path) == self.id {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a Unix socket that belongs to this user alone, in a locked directory.
pub(super) fn bind_private(path: &Path) -> io::Result<UnixListener> {
    // This process holds the directory's lock, so an existing socket belongs to a process that is gone.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    listen_private(path)
}

fn listen_private(path: &Path) -> io::Result<UnixListener> {
    let listener = with_short_path(path, |path| UnixListener::bind(path))?;
    // bind(2) applies the umask, which may let other users connect.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_socket_whose_file_is_removed_is_made_again_until_its_end() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("test.sock");
        let socket = Arc::new(DirectorySocket::of(path.clone(), bind_private(&path).unwrap()));
        let (wake, stop) = UnixStream::pair().unwrap();
        let accepting = Arc::clone(&socket);
        let accepting = thread::spawn(move || {
            use std::os::fd::AsFd as _;
            let mut count = 0;
            while let Some(_stream) = accepting.accept(Some(stop.as_fd())).unwrap() {
                count += 1;
            }
            count
        });
        for _ in 0..3 {
            UnixStream::connect(&path).unwrap();
            fs::remove_file(&path).unwrap();
            while !path.exists() {
                thread::yield_now();
            }
            // No other user may connect, as before.
            while fs::metadata(&path).unwrap().mode() & 0o777 != 0o600 {
                thread::yield_now();
            }
        }
        socket.close();
        assert!(!path.exists());
        drop(wake);
        let count = accepting.join().unwrap();
        assert!(count <= 3 && !path.exists(), "{count}");
    }
}
