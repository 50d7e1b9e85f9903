//! What the program prints: results on stdout, everything else on stderr.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Failure, Outcome};
use crate::style::{self, ERROR, HINT};

/// Prints lines of text to stdout, for commands that print a little. Styles in it are taken out where there
/// are no colours.
pub(crate) fn print(text: impl Display) -> Outcome {
    check_open()?;
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::output)
}

/// Fails if this program was started without a stdout.
pub(crate) fn check_open() -> Outcome {
    match CLOSED_AT_START.load(Ordering::Relaxed) {
        true => Err(Failure::output(rustix::io::Errno::BADF.into())),
        false => Ok(()),
    }
}

/// Tells the person at the terminal something, in one write so that nobody reads half of it.
pub(crate) fn note(text: impl Display) {
    let line = format!("peersock: {text}\n");
    // Without a stderr there is nobody to tell.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Says why the program stops; nothing for a silent failure.
pub(crate) fn report(failure: &Failure) {
    if failure.message().is_empty() {
        return;
    }
    let text = match style::is_on(&io::stderr()) {
        true => {
            let hint = failure.hint().map(|hint| format!("\n{HINT}hint:{HINT:#} {hint}"));
            format!("{ERROR}peersock:{ERROR:#} {}{}\n", failure.message(), hint.unwrap_or_default())
        }
        false => format!("peersock: {failure}\n"),
    };
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Rounds a number for JSON: what a measurement says, and no digits that only come from binary fractions.
pub(crate) fn round(number: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (number * scale).round() / scale
}

/// Whether descriptor 1 was closed when the program began.
static CLOSED_AT_START: AtomicBool = AtomicBool::new(false);

/// Looks at descriptor 1 before `main`: Rust's runtime puts /dev/null in the place of a closed one, and then
/// what is printed would be lost without an error.
#[used]
#[allow(unsafe_code)]
// SAFETY: the section holds pointers to functions of this type, which the C library calls before `main`. This
// one makes a system call and writes to an atomic variable; it needs nothing that Rust's runtime sets up.
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = look_at_stdout;

extern "C" fn look_at_stdout() {
    CLOSED_AT_START.store(rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err(), Ordering::Relaxed);
}
