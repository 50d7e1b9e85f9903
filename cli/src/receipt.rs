//! Progress and failures of a receipt, whose sender is found by a code or is a member of a network.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use peersock_files::{Kind, Manifest, Observer, Receipt, ReceiveError, WireError};

use crate::failure::{Failure, Outcome};
use crate::files::{Meter, count, hidden, moved, shown, summary};
use crate::signals;
use crate::stdio;

/// Interval of looks at the way of the data.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Number of existing bytes whose comparison takes long enough to be announced.
const LONG_COMPARISON: u64 = 1 << 30;

/// Finds the way of the sender's data.
type Look = Box<dyn Fn() -> Option<&'static str> + Send + Sync>;

/// Receipt of one sender's files, in all attempts.
pub(crate) struct Account {
    /// Words for the sender, if it has a name, with a space before.
    whose: String,
    is_list: bool,
    quiet: bool,
    pub(crate) meter: Meter,
    begin: Instant,
    is_announced: AtomicBool,
    /// Bytes of all files, received or not.
    announced: AtomicU64,
    has_begun: AtomicBool,
    /// Number of files that were not there when the first attempt began.
    files: OnceLock<u32>,
    /// Error that prevented printing the list.
    unprinted: Mutex<Option<Failure>>,
    /// Bytes received in all attempts.
    moved: AtomicU64,
    /// Existing bytes that were read for comparison.
    compared: AtomicU64,
    look: Look,
    /// Way of the data when it was last looked at.
    way: Mutex<(Instant, Option<&'static str>)>,
}

impl Account {
    /// `is_list` is true if only a list is wanted, and `quiet` if only errors are. `sender` is the sender's
    /// name, if it has one.
    pub(crate) fn new(sender: Option<&str>, is_list: bool, quiet: bool, look: Look) -> Account {
        Account {
            whose: sender.map(|sender| format!(" from {sender}")).unwrap_or_default(),
            is_list,
            quiet,
            meter: Meter::new(quiet),
            begin: Instant::now(),
            is_announced: AtomicBool::new(false),
            announced: AtomicU64::new(0),
            has_begun: AtomicBool::new(false),
            files: OnceLock::new(),
            unprinted: Mutex::default(),
            moved: AtomicU64::new(0),
            compared: AtomicU64::new(0),
            look,
            way: Mutex::new((Instant::now(), None)),
        }
    }

    /// Returns the number of bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Tells what has been received.
    pub(crate) fn conclude(&self, receipt: &Receipt) -> Outcome {
        if let Some(failure) = self.unprinted.lock().expect("no panic under this lock").take() {
            return Err(failure);
        }
        if self.quiet || self.is_list {
            return Ok(());
        }
        // Files that an earlier attempt of this run has received are not there already.
        let files = self.files.get().copied().unwrap_or_default().max(receipt.files);
        let there = match (receipt.there + receipt.files).saturating_sub(files) {
            0 => String::new(),
            there => format!("; {} there already", count(there.into(), "file")),
        };
        // The sender may have left already.
        let way = (self.look)().or(self.way().1);
        let moved = moved(files, self.received(), self.begin, way);
        stdio::note(format_args!("received {moved}{}{there}; all is verified", self.whose));
        Ok(())
    }

    fn way(&self) -> MutexGuard<'_, (Instant, Option<&'static str>)> {
        self.way.lock().expect("no panic under this lock")
    }

    /// Looks at the way of the data, now and then.
    fn look_at_way(&self) {
        let mut way = self.way();
        if way.1.is_none() || way.0.elapsed() >= LOOK_INTERVAL {
            *way = (Instant::now(), (self.look)().or(way.1));
        }
    }
}

impl Observer for Account {
    fn announced(&self, manifest: &Manifest, left_out: u32) {
        self.announced.store(manifest.bytes(), Ordering::Relaxed);
        if self.is_announced.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.is_list {
            *self.unprinted.lock().expect("no panic under this lock") = stdio::print(list(manifest)).err();
        } else if !self.quiet {
            stdio::note(format_args!("receives {}{}", summary(manifest), self.whose));
            hidden(manifest).into_iter().for_each(stdio::note);
        }
        if left_out > 0 {
            let entries = if left_out == 1 { "1 entry" } else { &format!("{left_out} entries") };
            stdio::note(format_args!("the sender has left out {entries}, and has listed them there"));
        }
    }

    fn begins(&self, bytes: u64, files: u32) {
        let _ = self.files.set(files);
        self.look_at_way();
        let here = self.announced.load(Ordering::Relaxed).saturating_sub(bytes);
        if here > 0 && bytes > 0 && !self.has_begun.swap(true, Ordering::Relaxed) && !self.quiet {
            self.meter.note(format_args!("continuing: {} are here already", HumanBytes(here)));
        }
        self.meter.expect(bytes);
    }

    fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.look_at_way();
        self.meter.advance(bytes);
    }

    fn compared(&self, bytes: u64) {
        let before = self.compared.fetch_add(bytes, Ordering::Relaxed);
        let is_long = before < LONG_COMPARISON && before + bytes >= LONG_COMPARISON;
        if is_long && !self.quiet {
            self.meter.note("reading existing files, to continue with those that are the same");
        }
    }
}

/// Returns the failure of a receipt. `resume` is the advice after the connection has broken.
pub(crate) fn failure(error: &ReceiveError, resume: &str) -> Failure {
    signals::leave_to_cleanup();
    match error {
        ReceiveError::Wire(WireError::Stream(_)) => Failure::new(
            format_args!("{}", broken(error)),
            format_args!("received data is kept: give the same command again to continue; {resume}"),
        ),
        ReceiveError::Wire(WireError::Version(_)) => {
            Failure::new(format_args!("{error}"), "install the same version of peersock on both machines")
        }
        ReceiveError::Wire(_) => Failure::new(
            format_args!("the sender has sent invalid data: {error}"),
            "ask the sender which program it uses; only verified data was kept",
        ),
        ReceiveError::Sender { .. } => Failure::new(
            format_args!("{error}"),
            "ask the sender to check it; then give the same command again: received data is kept",
        ),
        ReceiveError::Silent(_) => Failure::new(
            format_args!("{error}"),
            "ask the sender whether the program still runs there; then give the same command again: \
                 received data is kept",
        ),
        ReceiveError::Conflicts { .. } => Failure::new(
            format_args!("nothing was received: {error}"),
            "give --to DIR with another folder, or --overwrite to replace what is there",
        ),
        ReceiveError::Room { needed, free } => Failure::new(
            format_args!(
                "the disk has room for {}, and {} are still to be received",
                HumanBytes(*free),
                HumanBytes(*needed)
            ),
            "make room, or give --to DIR on another disk; then give the same command again",
        ),
        ReceiveError::Local { source, .. } if source.kind() == ErrorKind::ResourceBusy => Failure::new(
            format_args!("{error}"),
            "wait until the other program has ended, or give --to DIR with another folder; then give the \
                 same command again to continue",
        ),
        ReceiveError::Hash { .. } => Failure::new(
            format_args!("{error}"),
            "give the same command again; if it fails again, check the disks and memory of both machines",
        ),
        _ => Failure::new(
            format_args!("{error}"),
            "check the disk and who may write to the folder, then give the same command again to \
                 continue",
        ),
    }
}

/// Returns the words for a connection that broke.
pub(crate) fn broken(error: &ReceiveError) -> String {
    match error {
        ReceiveError::Wire(WireError::Stream(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            "the connection broke: the sender has closed it".to_owned()
        }
        ReceiveError::Wire(WireError::Stream(error)) => format!("the connection broke: {error}"),
        error => error.to_string(),
    }
}

/// Returns a line for each entry, with its size and path.
fn list(manifest: &Manifest) -> String {
    let line = |entry: &peersock_files::Entry| match &entry.kind {
        Kind::Link { target } => format!("{:>12}  {} -> {}", "link", entry.path, target.as_str()),
        Kind::Folder => format!("{:>12}  {}", "folder", shown(entry)),
        _ => format!("{:>12}  {}", entry.size(), entry.path),
    };
    manifest.entries().iter().map(line).collect::<Vec<_>>().join("\n")
}
