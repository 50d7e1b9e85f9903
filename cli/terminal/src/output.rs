//! What the program prints: results on stdout, everything else on stderr.

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

/// Prints lines of text to stdout, for commands that print a little. Styles in it are taken out where there
/// are no colours.
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

/// Has what is started from now on find those of the descriptors 0 to 2 closed that this program has found
/// closed.
pub fn leave_closed() -> io::Result<()> {
    for (_, fd) in (0..).zip(standard()).filter(|(number, _)| was_closed(*number)) {
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    Ok(())
}

/// A text of somebody else, such as the name of a process, on one line and without what terminals act upon.
pub fn escape(text: &str) -> String {
    escape_all_but(text, &[])
}

/// The same of a text that has lines.
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

/// Tells the person at the terminal something, in one write so that nobody reads half of it.
pub fn note(text: impl Display) {
    let line = format!("peersock: {}\n", escape_lines(&text.to_string()));
    // Without a stderr there is nobody to tell.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Says why the program stops; nothing for a silent failure.
pub fn report(failure: &Failure) {
    if failure.message().is_empty() {
        return;
    }
    // What the user has typed may stand in it.
    let message = escape_lines(failure.message());
    let hint = failure.hint().map(escape_lines);
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

/// Says why a command has failed, and returns the exit status of the program.
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

/// Rounds a number for JSON: what a measurement says, and no digits that only come from binary fractions.
pub fn round(number: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (number * scale).round() / scale
}

/// The number of stdout.
const STDOUT: u8 = 1;

/// A bit for each of the descriptors 0 to 2: whether it was closed when the program began.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

fn was_closed(number: u8) -> bool {
    CLOSED_AT_START.load(Ordering::Relaxed) & 1 << number != 0
}

/// The descriptors 0 to 2, in order.
fn standard() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Looks at the descriptors 0 to 2 before `main`: Rust's runtime puts /dev/null in the place of closed ones.
/// What is printed would then be lost without an error, and `peersock run` would give its program
/// what nobody has given it.
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
}
