//! A TCP connection on the standard streams: two threads, one for each direction.
//!
//! The directions end independently. The end of stdin becomes a FIN while data from the peer is still written
//! to stdout. After a FIN from the peer, stdin is still sent. The connection is done when both have ended and
//! the peer has acknowledged everything.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use crate::arrivals::Arriving;
use crate::clients::Turn;
use crate::failure::{Failure, Outcome};
use crate::member;
use crate::progress::Progress;
use crate::reach;
use crate::signals;
use crate::sockets::Stream;
use crate::stdio::{self, Canceller, Stdin, Token};

/// Size of reads and writes in bytes. It is large, so that a whole batch of packets is sent together.
const BUFFER: usize = 256 * 1024;

/// Delay after which the user is told that the program waits for the end of stdin.
const HINT_AFTER: Duration = Duration::from_secs(3);

/// Interval at which a connection is looked at while its peer has finished and stdin has not: then nothing is
/// read or written that would fail.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Time that the sending thread gets to notice that the connection has been given up.
const WAKE_AFTER: Duration = Duration::from_millis(200);

/// The handling of stdin when the peer has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterPeer {
    /// Stdin is sent to its end, because a half-closed connection still carries data the other way.
    Continue,
    /// No more is sent; the connection is done.
    Stop,
}

/// The data to send.
pub(crate) enum Input<'a> {
    /// No data. A FIN is sent after all received data is written, so the peer knows that it was.
    EmptyAtEnd,
    /// Stdin, once it is this connection's turn if several connections use it.
    Stdin { stdin: &'a Stdin, turn: Option<Turn> },
}

impl Input<'_> {
    pub(crate) fn is_stdin(&self) -> bool {
        matches!(self, Input::Stdin { .. })
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Input::Stdin { stdin, .. } if stdin.is_terminal())
    }

    fn turn(&self) -> Option<&Turn> {
        match self {
            Input::Stdin { turn, .. } => turn.as_ref(),
            Input::EmptyAtEnd => None,
        }
    }
}

/// The destination of received data.
pub(crate) trait Output {
    fn write(&mut self, bytes: &[u8]) -> Outcome;

    /// Handles the end of the data.
    fn end(&mut self) -> Outcome;
}

impl Output for &File {
    fn write(&mut self, bytes: &[u8]) -> Outcome {
        stdio::write_all(self, bytes).map_err(Failure::output)
    }

    fn end(&mut self) -> Outcome {
        Ok(())
    }
}

/// Connects an input and an output with a stream until both directions have ended.
pub(crate) fn run(
    stream: &Stream,
    input: &Input<'_>,
    output: &mut dyn Output,
    after_peer: AfterPeer,
    progress: &Progress,
) -> Outcome {
    let arriving = Arriving::start(stream)?;
    let (canceller, token) = Canceller::new()?;
    let (finished, sender_finished) = mpsc::channel::<()>();
    let turn = input.turn();
    let cancel = || {
        canceller.cancel();
        turn.inspect(|turn| turn.leave());
    };
    thread::scope(|scope| {
        let sending = thread::Builder::new().name("send".into()).spawn_scoped(scope, move || {
            // Dropped at the end, which the receiving thread waits for.
            let _finished = finished;
            let sent = match input {
                Input::Stdin { stdin, turn } => send(stream, stdin, turn.as_ref(), &token, progress),
                // `finish` sends the FIN.
                Input::EmptyAtEnd => Ok(()),
            };
            turn.inspect(|turn| turn.leave());
            if sent.is_err() {
                give_up(stream);
                // Stops receiving, because further data is useless.
                let _ = stream.shutdown(Shutdown::Read);
            }
            sent
        });
        let sender = match sending {
            Ok(sender) => sender,
            Err(error) => {
                cancel();
                // Resets the connection, because the end of an empty stream might look like an answer.
                give_up(stream);
                return Err(Failure::from(error));
            }
        };
        let mut arriving = Some(arriving);
        let received = receive(stream, output, progress, &mut arriving);
        let is_enough = after_peer == AfterPeer::Stop || input.is_terminal();
        if !is_enough && sender_finished.try_recv() == Err(TryRecvError::Empty) {
            // A signal cuts stdin off and resets the peer, so there is nothing more to wait for.
            arriving = None;
        }
        let received = received.and_then(|()| match is_enough {
            true => Ok(()),
            false => await_stdin(stream, &sender_finished),
        });
        match &received {
            Ok(()) if is_enough => {
                cancel();
                if sender_finished.recv_timeout(WAKE_AFTER) == Err(RecvTimeoutError::Timeout) {
                    // The thread is blocked in a write without room, or waits for the end of the process; a
                    // signal waits for neither.
                    arriving = None;
                }
            }
            Ok(()) => {}
            Err(_) => {
                cancel();
                give_up(stream);
                if sender_finished.recv_timeout(WAKE_AFTER) == Err(RecvTimeoutError::Timeout) {
                    // Ends a write that waits for room in vain.
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
        let sent = sender.join().expect("the sending thread does not panic");
        // An error of receiving comes first, because it may have caused the failed write.
        received.and(sent).and_then(|()| finish(stream, arriving))
    })
}

/// Waits for the end of stdin after the peer has finished, as long as the connection lasts.
fn await_stdin(stream: &Stream, sender_finished: &mpsc::Receiver<()>) -> Outcome {
    let (begun, mut is_told) = (Instant::now(), false);
    while sender_finished.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        if let Some(error) = stream.broken() {
            return Err(broken(stream, &error));
        }
        if !is_told && begun.elapsed() >= HINT_AFTER {
            is_told = true;
            tracing::warn!("the peer has finished; waiting for the end of stdin (see --receive-only)");
        }
    }
    Ok(())
}

/// Sends the input until its end or cancellation.
fn send(
    mut stream: &Stream,
    stdin: &Stdin,
    turn: Option<&Turn>,
    token: &Token,
    progress: &Progress,
) -> Outcome {
    if turn.is_some_and(|turn| !turn.wait()) {
        return Ok(());
    }
    let mut buffer = vec![0; BUFFER];
    loop {
        match stdin.read(&mut buffer, token).map_err(Failure::input)? {
            None => return Ok(()),
            Some(0) => return finish_sending(stream),
            Some(count) => {
                stream.write_all(&buffer[..count]).map_err(|error| broken(stream, &error))?;
                progress.sent(count);
            }
        }
    }
}

/// Sends a FIN, unless that was done before.
pub(crate) fn finish_sending(stream: &Stream) -> Outcome {
    match stream.shutdown(Shutdown::Write) {
        // Both directions have ended. `finish` determines if the peer received everything.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other.map_err(|error| broken(stream, &error)),
    }
}

/// Ends sending and waits until the peer has acknowledged everything. Waits indefinitely for a live peer; a
/// silent one is given up after a while.
fn finish(stream: &Stream, arriving: Option<Arriving>) -> Outcome {
    finish_sending(stream)?;
    let delivered = stream.wait_delivered();
    drop(arriving);
    delivered.map_err(|error| broken(stream, &error))
}

/// Makes the connection end with a reset, because the peer must not consider it complete.
fn give_up(stream: &Stream) {
    let _ = stream.give_up();
}

/// Writes received data. `arriving` is dropped when a signal need not wait for more data.
fn receive(
    mut stream: &Stream,
    output: &mut dyn Output,
    progress: &Progress,
    arriving: &mut Option<Arriving>,
) -> Outcome {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                output.end()?;
                arriving.as_ref().inspect(|arriving| arriving.set_written());
                return Ok(());
            }
            Ok(count) => {
                progress.received(count);
                output.write(&buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                output.end()?;
                *arriving = None;
                return Err(broken(stream, &error));
            }
        }
    }
}

/// Returns the failure of a broken connection, with the number of bytes that were not acknowledged.
pub(crate) fn broken(stream: &Stream, error: &io::Error) -> Failure {
    // Leaves to the cleanup if a signal has ended the node, because sent data may still arrive.
    signals::leave_to_cleanup();
    let lost = match stream.unacked() {
        0 => String::new(),
        bytes => format!("; {bytes} bytes were not acknowledged"),
    };
    match error.kind() {
        io::ErrorKind::ConnectionReset => Failure::new(
            format_args!("the connection broke: the peer has reset it{lost}"),
            "check why the program at the other end has given up, and send again",
        ),
        io::ErrorKind::BrokenPipe => Failure::new(
            format_args!("the connection broke: the peer has closed it without reading everything{lost}"),
            "check why the program at the other end has ended early, and send again",
        ),
        io::ErrorKind::TimedOut => Failure::new(
            format_args!("the connection broke: the peer does not answer any more{lost}"),
            "check that the other machine runs and can be reached; --peer-timeout SECONDS waits longer",
        ),
        io::ErrorKind::NetworkDown if stream.is_shared() => {
            member::node_has_ended(&format!("the connection broke{lost}"))
        }
        _ if reach::is_too_small(error) => reach::carries_too_little("the connection broke", &lost),
        _ => Failure::new(
            format_args!("the connection broke: {error}{lost}"),
            "check that the program at the other end still runs, and start again",
        ),
    }
}
