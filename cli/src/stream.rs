//! A TCP connection and the standard streams: two threads, one for each direction.
//!
//! Each direction ends on its own. The end of stdin becomes a FIN while data from the peer is still written
//! to stdout; a FIN from the peer leaves stdin being sent. The connection is done when both have ended.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use peersock::blocking::TcpStream;

use crate::failure::{Failure, Outcome};
use crate::stdio::{Canceller, Stdin, Token};

/// Bytes that are read and written at once. Large, so that a whole batch of packets leaves together.
const BUFFER: usize = 256 * 1024;

/// After this time somebody who waits for the end of stdin is told what the program waits for.
const HINT_AFTER: Duration = Duration::from_secs(3);

/// How long the sending thread may take to notice that the connection has been given up.
const WAKE_AFTER: Duration = Duration::from_millis(200);

/// What to do with stdin when the peer has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterPeer {
    /// Send it to its end: a half-closed connection still carries data the other way.
    Continue,
    /// Nothing more; the connection is done.
    Stop,
}

/// Connects stdin (or an empty input) and stdout with a stream until both directions have ended.
pub(crate) fn run(
    stream: &TcpStream,
    stdin: Option<&Stdin>,
    stdout: &File,
    after_peer: AfterPeer,
) -> Outcome {
    let (canceller, token) = Canceller::new()?;
    let (finished, sender_finished) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            // Dropped at the end, which is what the receiving thread waits for.
            let _finished = finished;
            match stdin {
                Some(stdin) => send(stream, stdin, &token),
                None => finish_sending(stream),
            }
        });
        let received = receive(stream, stdout);
        match &received {
            Ok(()) if after_peer == AfterPeer::Stop || stdin.is_some_and(Stdin::is_terminal) => {
                canceller.cancel();
            }
            Ok(()) => {
                if sender_finished.recv_timeout(HINT_AFTER) == Err(RecvTimeoutError::Timeout) {
                    tracing::warn!(
                        "the peer has finished; waiting for the end of stdin (see --receive-only)"
                    );
                }
            }
            Err(_) => {
                canceller.cancel();
                // A connection that is given up ends with a reset: the peer must not take it for complete.
                let _ = stream.set_linger(Some(Duration::ZERO));
                if sender_finished.recv_timeout(WAKE_AFTER) == Err(RecvTimeoutError::Timeout) {
                    // It waits for room that nobody is going to make.
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
        let sent = sender.join().expect("the sending thread does not panic");
        // What came in says more than a write that failed because of it.
        received.and(sent).and_then(|()| finish_sending(stream))
    })
}

/// Sends the input up to its end, or until that is cancelled.
fn send(mut stream: &TcpStream, stdin: &Stdin, token: &Token) -> Outcome {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = stdin.read(&mut buffer, token);
        match read.map_err(|error| Failure::new(format_args!("cannot read stdin: {error}")))? {
            None => return Ok(()),
            Some(0) => return finish_sending(stream),
            Some(count) => stream.write_all(&buffer[..count]).map_err(|error| {
                Failure::new(format_args!("the peer does not take what stdin sends: {error}"))
            })?,
        }
    }
}

/// Sends a FIN, unless that was done before.
fn finish_sending(stream: &TcpStream) -> Outcome {
    match stream.shutdown(Shutdown::Write) {
        // The peer has closed the whole connection in the meantime, having had everything it wanted.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => Ok(other?),
    }
}

fn receive(mut stream: &TcpStream, mut stdout: &File) -> Outcome {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => stdout.write_all(&buffer[..count]).map_err(Failure::output)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::new(format_args!("the connection broke: {error}"))),
        }
    }
}
