//! Shared code of `send` and `receive`: the progress line, codes as options, and texts.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use peersock_files::{Code, Entry, Kind, Manifest};

use crate::failure::{Failure, Outcome};
use crate::stdio;

/// Environment variable for the code of `receive`, because other users can see the command line.
pub(crate) const CODE_VARIABLE: &str = "PEERSOCK_CODE";

/// Environment variable for the code of `send`.
pub(crate) const SEND_CODE_VARIABLE: &str = "PEERSOCK_SEND_CODE";

/// Redraw interval of the line while no data moves.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum number of outermost entries that are named.
const MAX_NAMED_ENTRIES: usize = 8;

/// Progress line on stderr, if that is a terminal: bytes moved, rate, and remaining time.
pub(crate) struct Meter {
    bar: Mutex<Option<ProgressBar>>,
    is_shown: bool,
}

impl Meter {
    pub(crate) fn new(quiet: bool) -> Meter {
        Meter { bar: Mutex::default(), is_shown: !quiet && io::stderr().is_terminal() }
    }

    /// Adds to the number of bytes to move. The line appears with the first of them.
    pub(crate) fn expect(&self, bytes: u64) {
        if let (true, Ok(mut bar)) = (self.is_shown && bytes > 0, self.bar.lock()) {
            match &mut *bar {
                Some(bar) => bar.inc_length(bytes),
                none => *none = Some(new_bar(bytes)),
            }
        }
    }

    pub(crate) fn advance(&self, bytes: u64) {
        if let Ok(Some(bar)) = self.bar.lock().as_deref() {
            bar.inc(bytes);
        }
    }

    /// Removes the line, because the transfer has ended or starts again.
    pub(crate) fn clear(&self) {
        if let Some(bar) = self.bar.lock().ok().and_then(|mut bar| bar.take()) {
            bar.finish_and_clear();
        }
    }

    /// Prints a text above the line.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        match self.bar.lock().as_deref() {
            Ok(Some(bar)) => bar.suspend(|| stdio::note(text)),
            _ => stdio::note(text),
        }
    }
}

fn new_bar(bytes: u64) -> ProgressBar {
    let template = "{binary_bytes} of {binary_total_bytes}, {percent} %{rate}";
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    let bar = ProgressBar::new(bytes);
    bar.set_style(style.with_key("rate", |state: &ProgressState, line: &mut dyn fmt::Write| {
        // Before the first bytes there is no rate, and no remaining time.
        if state.per_sec() >= 1.0 {
            let (rate, left) = (HumanBytes(state.per_sec() as u64), HumanDuration(state.eta()));
            let _ = write!(line, ", {rate}/s, {left:#} left");
        }
    }));
    bar.enable_steady_tick(REDRAW_INTERVAL);
    bar
}

/// Parses a code of a command; typing errors are detected here, without contacting a peer.
pub(crate) fn parse_code(text: &str, of: &str) -> Outcome<Code> {
    text.parse().map_err(|error| {
        Failure::usage(
            format_args!("{error}"),
            format_args!(
                "give it as `{of}` has printed it: three groups of five; case and hyphens do not matter"
            ),
        )
    })
}

/// Returns the number of files and bytes, with names: `3 files, 1.2 MiB (photos, notes.txt)`.
pub(crate) fn summary(manifest: &Manifest) -> String {
    let (files, bytes) = (count(manifest.files().into(), "file"), HumanBytes(manifest.bytes()));
    format!("{files}, {bytes} ({})", first_of(manifest.outermost().map(shown)))
}

/// Returns a warning about files and links that `ls` does not show; `None` if there are none. Some of them
/// affect the user's programs (`.bashrc`, `.ssh/authorized_keys`).
pub(crate) fn hidden(manifest: &Manifest) -> Option<String> {
    let is_hidden = |entry: &&Entry| {
        !matches!(entry.kind, Kind::Folder) && entry.path.names().any(|name| name.starts_with('.'))
    };
    let entries: Vec<_> = manifest.entries().iter().filter(is_hidden).collect();
    let verbs = match entries.len() {
        0 => return None,
        1 => "has a name that begins with a dot, and is",
        _ => "have names that begin with a dot, and are",
    };
    let all = count(entries.len() as u64, "file");
    let names = first_of(entries.iter().map(|entry| entry.path.to_string()));
    Some(format!("{all} {verbs} not shown by `ls`: {names}"))
}

/// Returns the first names, and the number of further ones.
fn first_of(mut names: impl Iterator<Item = String>) -> String {
    let first: Vec<_> = names.by_ref().take(MAX_NAMED_ENTRIES).collect();
    match names.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Returns the path of an entry, with a trailing slash for a folder.
pub(crate) fn shown(entry: &Entry) -> String {
    match entry.kind {
        Kind::Folder => format!("{}/", entry.path),
        _ => entry.path.to_string(),
    }
}

pub(crate) fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// Returns the amount moved since `begin`, and its way: `2 files, 1.2 MiB in 0.5 s (direct)`.
pub(crate) fn moved(files: u32, bytes: u64, begin: Instant, way: Option<&str>) -> String {
    let seconds = begin.elapsed().as_secs_f64();
    let way = way.map(|way| format!(" ({way})")).unwrap_or_default();
    format!("{}, {} in {seconds:.1} s{way}", count(files.into(), "file"), HumanBytes(bytes))
}
