//! How a command ends when it does not end well.
//!
//! A [`Failure`] cannot be made without a hint: what the person in front of the terminal can do next. `texts`
//! checks every text that stands in this program's source.

mod library;
#[cfg(test)]
mod texts;
#[cfg(test)]
mod variants;

use std::fmt::{self, Display};
use std::io;

pub use library::{ROOT_HINT, has_ended, roots_failure};

/// What a command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// The exit status of a filter whose reader went away (128 + SIGPIPE), as a shell reports it.
const OUTPUT_CLOSED: u8 = 141;

/// Why the program stops, and with which exit status.
///
/// It prints as two lines: what went wrong, and the hint.
#[derive(Debug)]
pub struct Failure {
    /// 1: it did not work, 2: it was asked for something impossible, 141: nobody reads our output any more.
    status: u8,
    /// For stderr; empty for silence.
    message: String,
    /// `None` only where the message itself says what to do, as many texts of the library do.
    hint: Option<String>,
}

impl Failure {
    /// It did not work. `hint` says what to do about it: an imperative sentence, lower case, without a full
    /// stop.
    pub fn new(message: impl Display, hint: impl Display) -> Failure {
        Failure::with_status(1, message, hint)
    }

    /// The command asks for something impossible; see [`Failure::new`].
    pub fn usage(message: impl Display, hint: impl Display) -> Failure {
        Failure::with_status(2, message, hint)
    }

    /// As [`Failure::new`], with an exit status of its own.
    pub fn with_status(status: u8, message: impl Display, hint: impl Display) -> Failure {
        Failure { status, message: message.to_string(), hint: Some(hint.to_string()) }
    }

    /// Ends the program with `status` and without a word.
    pub fn silent(status: u8) -> Failure {
        Failure { status, message: String::new(), hint: None }
    }

    /// The reader of our output went away.
    pub fn output_closed() -> Failure {
        Failure::silent(OUTPUT_CLOSED)
    }

    /// For `map_err` on our own output: silence if the reader went away, as a filter should.
    pub fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::output_closed(),
            _ => Failure::new(
                format_args!("cannot write to stdout: {error}"),
                "check where the output goes: that it is open, and that the disk has room",
            ),
        }
    }

    /// For `map_err` on our input.
    pub fn input(error: io::Error) -> Failure {
        Failure::new(
            format_args!("cannot read stdin: {error}"),
            "check where the input comes from, or give --receive-only",
        )
    }

    /// The operating system's random number generator failed.
    pub fn no_randomness(error: impl Display) -> Failure {
        Failure::new(
            format_args!("the system gives no random numbers: {error}"),
            "check that getrandom(2) is allowed here (a sandbox may forbid it)",
        )
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Whether the reader of our output went away.
    pub fn is_output_closed(&self) -> bool {
        self.status == OUTPUT_CLOSED
    }

    /// What went wrong; empty for silence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, if the message does not say that itself.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}
