//! Recovery words on the terminal: shown once, and read without being shown.

use std::fmt;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::sync::{Mutex, PoisonError};

use peersock_controller::RecoveryWords;
use rustix::fs::FileType;
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};
use crate::{signals, stdio};

/// Number of recovery words.
const WORDS: usize = 12;

/// Longest input in which recovery words are looked for, bytes.
const MAX_INPUT: u64 = 4096;

/// Advice if words cannot be shown.
pub(super) const GIVE_A_PLACE: &str = "give the command a terminal, or a file for its messages";

/// Shows words on stderr, after `lead`.
///
/// # Errors
/// Returns the reason if no person can read them.
pub(super) fn show(lead: &str, words: &RecoveryWords) -> Result<(), String> {
    let told = || -> io::Result<bool> {
        let (stderr, null) = (rustix::fs::fstat(io::stderr())?, rustix::fs::stat("/dev/null")?);
        // A closed stderr is this file, too.
        let is_device = FileType::from_raw_mode(stderr.st_mode).is_char_device();
        if is_device && stderr.st_rdev == null.st_rdev {
            return Ok(false);
        }
        let line = Zeroizing::new(format!("peersock: {lead}: {words}\n"));
        io::stderr().write_all(line.as_bytes()).map(|()| true)
    };
    match told() {
        Ok(true) => Ok(()),
        Ok(false) => Err("stderr is /dev/null".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads recovery words, which may be on several lines, up to the last one.
pub(super) fn read() -> Outcome<RecoveryWords> {
    let stdin = io::stdin();
    let hidden = match stdin.is_terminal() {
        true => {
            stdio::note(format_args!("type the {WORDS} recovery words, which are not shown:"));
            Some(Hidden::new()?)
        }
        false => None,
    };
    let mut input = stdin.lock().take(MAX_INPUT);
    // Of the largest size from the beginning, so that no part stays elsewhere in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_INPUT as usize));
    let count = |bytes: &[u8]| bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
    while count(&bytes) < WORDS && input.read_until(b'\n', &mut bytes)? > 0 {}
    drop(hidden);
    let no_words = |reason: &dyn fmt::Display| {
        Failure::usage(
            format_args!("these are no recovery words: {reason}"),
            "give the words that `peersock network create` or `rekey` has shown, on stdin",
        )
    };
    let text = str::from_utf8(&bytes).map_err(|_| no_words(&"the input is no text"))?;
    text.parse().map_err(|error| no_words(&error))
}

/// Modes of the terminal before it stopped to show what is typed, while it does so.
static MODES: Mutex<Option<Termios>> = Mutex::new(None);

/// Keeps the terminal from showing what is typed, until it is dropped or the program ends by a signal.
struct Hidden;

impl Hidden {
    fn new() -> io::Result<Hidden> {
        let modes = termios::tcgetattr(io::stdin())?;
        let mut silent = modes.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        *MODES.lock().unwrap_or_else(PoisonError::into_inner) = Some(modes);
        signals::end_with(|signal| {
            unhide();
            128 + signal
        })?;
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
        Ok(Hidden)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        unhide();
    }
}

/// Restores the terminal, once.
fn unhide() {
    if let Some(modes) = MODES.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that is gone shows nothing.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &modes);
    }
}
