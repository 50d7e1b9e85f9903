//! Failures of commands.
//!
//! A [`Failure`] cannot be created without a hint on what the user can do next. `texts` checks every text in
//! this program's source.

mod library;
#[cfg(test)]
mod texts;
#[cfg(test)]
mod variants;

use std::fmt::{self, Display};
use std::io;

pub use library::{ROOT_HINT, has_ended, roots_failure};

/// Result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Exit status of a filter whose reader disconnected (128 + SIGPIPE), as a shell reports it.
const OUTPUT_CLOSED: u8 = 141;

/// The reason why the program stops, with its exit status.
///
/// It prints as two lines: the message and the hint.
#[derive(Debug)]
pub struct Failure {
    /// 1 for a failed operation, 2 for an impossible request, 141 for closed output.
    status: u8,
    /// Text for stderr; empty for silence.
    message: String,
    /// `None` only if the message itself says what to do, as many texts of the library do.
    hint: Option<String>,
}

impl Failure {
    /// Creates a failure. `hint` says what to do about it: an imperative sentence, lower case, without a full
    /// stop.
    pub fn new(message: impl Display, hint: impl Display) -> Failure {
        Failure::with_status(1, message, hint)
    }

    /// Creates a failure for an impossible request; see [`Failure::new`].
    pub fn usage(message: impl Display, hint: impl Display) -> Failure {
        Failure::with_status(2, message, hint)
    }

    /// Creates a failure with a specific exit status; see [`Failure::new`].
    pub fn with_status(status: u8, message: impl Display, hint: impl Display) -> Failure {
        Failure { status, message: message.to_string(), hint: Some(hint.to_string()) }
    }

    /// Makes the failure of another process again.
    pub fn passed_on(status: u8, message: String, hint: Option<String>) -> Failure {
        Failure { status, message, hint }
    }

    /// Creates a failure that ends the program with `status` and without a message.
    pub fn silent(status: u8) -> Failure {
        Failure { status, message: String::new(), hint: None }
    }

    /// Creates the failure for output whose reader disconnected.
    pub fn output_closed() -> Failure {
        Failure::silent(OUTPUT_CLOSED)
    }

    /// Converts an output error for `map_err`: silence if the reader disconnected, as in a filter.
    pub fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::output_closed(),
            _ => Failure::new(
                format_args!("cannot write to stdout: {error}"),
                "check where the output goes: that it is open, and that the disk has room",
            ),
        }
    }

    /// Converts an input error for `map_err`.
    pub fn input(error: io::Error) -> Failure {
        Failure::new(
            format_args!("cannot read stdin: {error}"),
            "check where the input comes from, or give --receive-only",
        )
    }

    /// Converts an error of the operating system's random number generator.
    pub fn no_randomness(error: impl Display) -> Failure {
        Failure::new(
            format_args!("the system gives no random numbers: {error}"),
            "check that getrandom(2) is allowed here (a sandbox may forbid it)",
        )
    }

    /// Appends clauses to the hint.
    pub fn and(self, clauses: impl IntoIterator<Item = impl Display>) -> Failure {
        let clauses = clauses.into_iter().map(|clause| clause.to_string());
        let clauses: Vec<_> = self.hint.into_iter().chain(clauses).collect();
        Failure { hint: (!clauses.is_empty()).then(|| clauses.join("; ")), ..self }
    }

    /// Returns the exit status.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Returns true if the output's reader disconnected.
    pub fn is_output_closed(&self) -> bool {
        self.status == OUTPUT_CLOSED
    }

    /// Returns the message; empty for silence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the hint, if the message does not already say what to do.
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
