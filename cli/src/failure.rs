//! How a command ends when it does not end well.

use std::error::Error;
use std::fmt::Display;
use std::io;

use peersock::StartError;
use peersock::state::StateError;

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why the program stops, and with which exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 1: it did not work, 2: it was asked for something impossible, 141: nobody reads our output any more.
    pub(crate) status: u8,
    /// For stderr; empty for silence.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(message: impl Display) -> Failure {
        Failure { status: 1, message: message.to_string() }
    }

    pub(crate) fn usage(message: impl Display) -> Failure {
        Failure { status: 2, message: message.to_string() }
    }

    /// What a shell reports for a filter whose reader went away (128 + SIGPIPE).
    pub(crate) fn output_closed() -> Failure {
        Failure { status: 141, message: String::new() }
    }

    /// For `map_err` on our own output: silence if the reader went away, as a filter should.
    pub(crate) fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::output_closed(),
            _ => Failure::new(format_args!("cannot write to stdout: {error}")),
        }
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        match state_error(&error) {
            Some(StateError::InUse { .. } | StateError::NoDefaultPath) => {
                Failure::new(format_args!("{error}\nhint: give `--state DIR` or `--ephemeral`"))
            }
            _ => Failure::new(error),
        }
    }
}

/// The trouble with the state directory that may be behind an error.
fn state_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a StateError> {
    match error.downcast_ref() {
        Some(StartError::State(error)) => Some(error),
        _ => error.downcast_ref(),
    }
}
