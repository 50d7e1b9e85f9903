//! A scene of two folders, and receipts between them over socket pairs.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use peersock_files::{
    Folder, Manifest, Observer, Options, Receipt, ReceiveError, SendError, Sent, Source, Stream, receive,
    send,
};
use tempfile::TempDir;

/// A source folder and a target folder.
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        for name in ["from", "to"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Scene { dir }
    }

    pub(crate) fn from(&self, path: &str) -> PathBuf {
        self.dir.path().join("from").join(path)
    }

    pub(crate) fn to(&self, path: &str) -> PathBuf {
        self.dir.path().join("to").join(path)
    }

    /// Writes a file in the source folder.
    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let path = self.from(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn source(&self, paths: &[&str]) -> Source {
        let paths: Vec<_> = paths.iter().map(|path| self.from(path)).collect();
        Source::scan(&paths).unwrap()
    }

    pub(crate) fn folder(&self) -> Folder {
        Folder::open(&self.to("")).unwrap()
    }

    /// Runs one receipt of a source over a socket pair.
    pub(crate) fn transfer(&self, source: &Source, options: Options) -> Outcome {
        let (here, there) = UnixStream::pair().unwrap();
        self.transfer_over(source, options, &Silent, here, there)
    }

    pub(crate) fn transfer_over<A: Stream + Sync, B: Stream + Sync>(
        &self,
        source: &Source,
        options: Options,
        observer: &dyn Observer,
        here: A,
        there: B,
    ) -> Outcome {
        thread::scope(|scope| {
            let sending = scope.spawn(move || send(&here, source, &Silent));
            let received = receive(&there, &self.folder(), options, observer);
            drop(there);
            (sending.join().unwrap(), received)
        })
    }

    /// Runs a receipt that succeeds.
    #[track_caller]
    pub(crate) fn received(&self, paths: &[&str]) -> Receipt {
        let (sent, received) = self.transfer(&self.source(paths), Options::default());
        let receipt = received.unwrap();
        assert_eq!(sent.unwrap(), Sent::Received { bytes: receipt.bytes, files: receipt.files });
        receipt
    }

    /// Fails unless both folders have the same content.
    #[track_caller]
    pub(crate) fn check_same(&self) {
        assert_eq!(tree(&self.from("")), tree(&self.to("")));
    }
}

pub(crate) type Outcome = (Result<Sent, SendError>, Result<Receipt, ReceiveError>);

pub(crate) struct Silent;

impl Observer for Silent {}

/// Returns all entries of a folder: path, kind, permissions, time, and content.
pub(crate) fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder_at) = left.pop() {
        for entry in fs::read_dir(&folder_at).unwrap().map(Result::unwrap) {
            let (path, metadata) = (entry.path(), fs::symlink_metadata(entry.path()).unwrap());
            let shown = path.strip_prefix(folder).unwrap().display().to_string();
            let time = (metadata.mtime(), metadata.mtime_nsec());
            let mode = metadata.permissions().mode() & 0o777;
            if metadata.is_symlink() {
                found.push(format!("{shown} -> {}", fs::read_link(&path).unwrap().display()));
            } else if metadata.is_dir() {
                found.push(format!("{shown}/ {mode:o} {time:?}"));
                left.push(path);
            } else {
                let hash = blake3::hash(&fs::read(&path).unwrap());
                found.push(format!("{shown} {mode:o} {time:?} {hash}"));
            }
        }
    }
    found.sort();
    found
}

/// Returns bytes without repetition.
pub(crate) fn content(length: usize, seed: u8) -> Vec<u8> {
    let mut content = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut content);
    content
}

/// A stream that breaks after `left` bytes have been read from it.
pub(crate) struct Breaking {
    pub(crate) stream: UnixStream,
    pub(crate) left: &'static AtomicU64,
}

impl Breaking {
    pub(crate) fn after(stream: UnixStream, bytes: u64) -> Breaking {
        Breaking { stream, left: Box::leak(Box::new(AtomicU64::new(bytes))) }
    }
}

impl Read for Breaking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if most == 0 && !buffer.is_empty() {
            let _ = self.stream.shutdown(Shutdown::Both);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let count = self.stream.read(&mut buffer[..most])?;
        self.left.fetch_sub(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Write for Breaking {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for Breaking {
    fn try_clone(&self) -> io::Result<Breaking> {
        Ok(Breaking { stream: self.stream.try_clone()?, left: self.left })
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_write_timeout(timeout)
    }
}

/// An observer that counts moved bytes, and calls `at_begin` before the transfer.
pub(crate) struct Noting<F> {
    pub(crate) moved: AtomicU64,
    pub(crate) at_begin: Mutex<Option<F>>,
}

impl<F: FnOnce() + Send> Noting<F> {
    pub(crate) fn new(at_begin: F) -> Noting<F> {
        Noting { moved: AtomicU64::new(0), at_begin: Mutex::new(Some(at_begin)) }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

impl<F: FnOnce() + Send> Observer for Noting<F> {
    fn announced(&self, _: &Manifest, _: u32) {
        if let Some(call) = self.at_begin.lock().unwrap().take() {
            call();
        }
    }

    fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }
}
