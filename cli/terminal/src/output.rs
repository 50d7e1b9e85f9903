//! The program's output: results on stdout, everything else on stderr.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};

use peersock_primitives::is_deceptive;
use rustix::io::FdFlags;

use crate::failure::{Failure, Outcome};
use crate::signals;
use crate::style::{self, ERROR, HINT};

/// Prints text to stdout, for commands with little output. Removes styles if there are no colours.
pub fn print(text: impl Display) -> Outcome {
    check_open()?;
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::output)
}

/// Fails if this program was started without a stdout.
pub fn check_open() -> Outcome {
    match was_closed(STDOUT) {
        true => Err(Failure::output(rustix::io::Errno::BADF.into())),
        false => Ok(()),
    }
}

/// Makes processes started from now on see the descriptors 0 to 2 closed if this program found them closed.
pub fn leave_closed() -> io::Result<()> {
    for (_, fd) in (0..).zip(standard()).filter(|(number, _)| was_closed(*number)) {
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    Ok(())
}

/// Escapes foreign text, such as a process's name: one line, without characters that terminals act on.
pub fn escape(text: &str) -> String {
    escape_all_but(text, &[])
}

/// Escapes a text as [`escape`] does, but keeps line feeds and tabs.
pub fn escape_lines(text: &str) -> String {
    escape_all_but(text, &['\n', '\t'])
}

fn escape_all_but(text: &str, kept: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in text.chars() {
        match is_deceptive(one) && !kept.contains(&one) {
            true => escaped.extend(one.escape_default()),
            false => escaped.push(one),
        }
    }
    escaped
}

/// Longest text of an error in characters. What a user has typed may be longer.
const LONGEST: usize = 1000;

/// Shortens the text of an error in its middle: its beginning says what it is about, its end what is wrong.
pub fn shorten(text: &str) -> Cow<'_, str> {
    let left_out = text.chars().count().saturating_sub(LONGEST);
    let at = |count| text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
    match left_out {
        0 => Cow::Borrowed(text),
        _ => {
            let (head, tail) = (&text[..at(LONGEST / 2)], &text[at(LONGEST / 2 + left_out)..]);
            Cow::Owned(format!("{head} … {left_out} characters … {tail}"))
        }
    }
}

/// Prints a message on stderr, in one write so that readers never see part of a line.
pub fn note(text: impl Display) {
    let line = format!("peersock: {}\n", escape_lines(&text.to_string()));
    // A failure is ignored, because there is no other output.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Prints why the program stops; nothing for a silent failure.
pub fn report(failure: &Failure) {
    if failure.message().is_empty() {
        return;
    }
    // Escapes and shortens the texts, because they may contain user input.
    let shown = |text: &str| escape_lines(&shorten(text));
    let message = shown(failure.message());
    let hint = failure.hint().map(shown);
    let text = match style::is_on(&io::stderr()) {
        true => {
            let hint = hint.map(|hint| format!("\n{HINT}hint:{HINT:#} {hint}"));
            format!("{ERROR}peersock:{ERROR:#} {message}{}\n", hint.unwrap_or_default())
        }
        false => {
            let hint = hint.map(|hint| format!("\nhint: {hint}"));
            format!("peersock: {message}{}\n", hint.unwrap_or_default())
        }
    };
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Reports a command's failure, and returns the program's exit status.
pub fn end(outcome: Outcome) -> ExitCode {
    signals::leave_to_cleanup();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::from(failure.status())
        }
    }
}

/// Rounds a number for JSON, which removes digits that only come from binary fractions.
pub fn round(number: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (number * scale).round() / scale
}

/// Number of stdout's descriptor.
const STDOUT: u8 = 1;

/// Bit mask of the descriptors 0 to 2 that were closed at the start of the program.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

fn was_closed(number: u8) -> bool {
    CLOSED_AT_START.load(Ordering::Relaxed) & 1 << number != 0
}

/// Returns the descriptors 0 to 2, in order.
fn standard() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Constructor that checks the descriptors 0 to 2 before `main`, because Rust's runtime opens /dev/null in
/// place of closed ones. Output would then be lost without an error, and `peersock run` would pass these to
/// its program.
#[used]
#[allow(unsafe_code)]
// SAFETY: the section holds pointers to functions of this type, which the C library calls before `main`. This
// one makes system calls and writes to an atomic variable; it needs nothing that Rust's runtime sets up.
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STANDARD: extern "C" fn() = look_at_standard;

extern "C" fn look_at_standard() {
    let is_closed = |fd: BorrowedFd<'_>| rustix::io::fcntl_getfd(fd).is_err();
    let bits = (0..).zip(standard()).map(|(number, fd)| u8::from(is_closed(fd)) << number);
    CLOSED_AT_START.store(bits.fold(0, |all, bit| all | bit), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_told_nothing_by_names() {
        assert_eq!(escape("a\u{1b}[31m\n\u{9b}é"), "a\\u{1b}[31m\\n\\u{9b}é");
        assert_eq!(escape_lines("a\r\n\tb"), "a\\r\n\tb");
        assert_eq!(escape("a\u{202e}b\u{200b}\u{feff}\u{e0041}"), "a\\u{202e}b\\u{200b}\\u{feff}\\u{e0041}");
    }

    #[test]
    fn a_long_text_is_shortened_in_its_middle() {
        let text = |count| format!("`{}` is no port", "é".repeat(count));
        let longest = LONGEST - text(0).len();
        assert_eq!(shorten(&text(longest)), text(longest));
        let short = shorten(&text(70_000)).into_owned();
        assert!(short.starts_with("`éé") && short.ends_with("éé` is no port"), "{short}");
        let left_out = 70_000 - longest;
        assert!(short.contains(&format!("é … {left_out} characters … é")), "{short}");
        assert_eq!(short.chars().filter(|one| *one == 'é').count(), longest);
    }
}
