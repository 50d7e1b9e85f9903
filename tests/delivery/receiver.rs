//! The receiver of a scenario, on any kind of blocking stream. Tests of several crates include this file.

use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::process::Signal;

use super::scenario::{Scenario, Step};

/// Stream operations that a receiver needs.
pub(crate) trait Stream: Read {
    fn peek(&self, buf: &mut [u8]) -> io::Result<usize>;
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
    /// Sets SO_LINGER to zero.
    fn reset_on_close(&self) -> io::Result<()>;
}

impl Stream for peersock::blocking::TcpStream {
    fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.peek(buf)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }

    fn reset_on_close(&self) -> io::Result<()> {
        self.set_linger(Some(Duration::ZERO))
    }
}

/// Runs the steps, and returns the bytes read. `accept` waits for the sender. `listener` is dropped where the
/// scenario says so, after a message through `connected`.
pub(crate) fn receive<L, S: Stream>(
    scenario: &Scenario,
    size: usize,
    listener: L,
    connected: &Receiver<()>,
    accept: impl FnOnce(&L) -> io::Result<S>,
) -> Vec<u8> {
    let mut got = Vec::new();
    let mut accept = Some(accept);
    let mut stream = None;
    for step in &scenario.steps {
        match step {
            Step::Refuse => return got,
            Step::Unlisten => {
                // A sender that has already failed sends no message.
                let _ = connected.recv();
                return got;
            }
            Step::Accept => {
                let accept = accept.take().expect("one connection");
                stream = Some(accept(&listener).expect("accept"));
            }
            _ => {}
        }
        let Some(open) = &mut stream else { continue };
        match step {
            Step::See => {
                open.peek(&mut [0]).expect("something comes");
            }
            Step::Read(amount) => {
                let mut part = vec![0; amount.of(size)];
                open.read_exact(&mut part).expect("the sender has written that");
                got = part;
            }
            Step::End => {
                open.read_to_end(&mut got).expect("the sender's end");
            }
            Step::ShutdownWrite => open.shutdown(Shutdown::Write).expect("shutdown"),
            Step::ShutdownRead => open.shutdown(Shutdown::Read).expect("shutdown"),
            Step::Reset => {
                open.reset_on_close().expect("SO_LINGER");
                stream = None;
            }
            Step::Close => stream = None,
            Step::Killed => end_process(Signal::KILL),
            Step::Stopped => end_process(Signal::STOP),
            _ => {}
        }
    }
    got
}

/// Sends a signal that ends or stops this process, which only runs a receiver.
fn end_process(signal: Signal) -> ! {
    rustix::process::kill_process(rustix::process::getpid(), signal).expect("it may do that to itself");
    // The signal may reach other threads first, and the connection must not be closed meanwhile.
    loop {
        std::thread::park();
    }
}
