//! A UDP socket on the standard streams: each line of stdin becomes one datagram, and each received datagram
//! is written to stdout unchanged.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::member;
use crate::reach;
use crate::sockets::Datagrams;
use crate::stdio::{self, Canceller, Stdin, Token};

/// Maximum size of a datagram; longer lines are split. Small enough for every path.
const MAX_DATAGRAM: usize = 1024;

/// The senders whose datagrams are shown, and the destination of stdin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Partner {
    /// Only this address.
    Fixed(SocketAddr),
    /// The first sender, and no other from then on.
    First,
    /// All senders; stdin goes to the latest.
    Latest,
}

/// Connects stdin and stdout with a socket until no datagram has arrived for `idle`, counted from the later
/// of the end of stdin and the last datagram. `None` means forever. Returns true if no datagram has arrived
/// since the last one was sent.
pub(crate) fn run(
    socket: &Datagrams,
    stdin: Option<&Stdin>,
    stdout: &File,
    partner: Partner,
    idle: Option<Duration>,
) -> Outcome<bool> {
    let exchange = Exchange {
        socket,
        stdout,
        idle,
        follow_latest: matches!(partner, Partner::Latest),
        state: Mutex::new(ExchangeState {
            partner: match partner {
                Partner::Fixed(address) => Some(address),
                Partner::First | Partner::Latest => None,
            },
            input_ended: stdin.is_none().then(Instant::now),
            is_unanswered: false,
            stopped: false,
        }),
        changed: Condvar::new(),
    };
    let (canceller, token) = Canceller::new()?;
    thread::scope(|scope| {
        let exchange = &exchange;
        let send =
            |stdin| thread::Builder::new().spawn_scoped(scope, move || exchange.send_lines(stdin, token));
        let sender = stdin.map(send).transpose()?;
        let received = exchange.receive();
        exchange.update(|state| state.stopped = true);
        canceller.cancel();
        let sent = sender.map_or(Ok(()), |sender| sender.join().expect("the sending thread does not panic"));
        received.and(sent)
    })?;
    Ok(exchange.lock().is_unanswered)
}

struct Exchange<'a> {
    socket: &'a Datagrams,
    stdout: &'a File,
    idle: Option<Duration>,
    follow_latest: bool,
    state: Mutex<ExchangeState>,
    changed: Condvar,
}

struct ExchangeState {
    partner: Option<SocketAddr>,
    /// Time at which stdin ended.
    input_ended: Option<Instant>,
    is_unanswered: bool,
    stopped: bool,
}

impl Exchange<'_> {
    fn receive(&self) -> Outcome {
        /// Interval of checks for the end of stdin while no datagram arrives.
        const STDIN_POLL_INTERVAL: Duration = Duration::from_millis(100);
        let mut buffer = vec![0; 65_536];
        let mut last = Instant::now();
        self.socket.set_read_timeout(
            self.idle.map(|idle| idle.clamp(Duration::from_millis(1), STDIN_POLL_INTERVAL)),
        )?;
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((count, sender)) => {
                    if self.accepts(sender) {
                        last = Instant::now();
                        stdio::write_all(self.stdout, &buffer[..count]).map_err(Failure::output)?;
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(refused_or(error)),
            }
            if let (Some(idle), Some(ended)) = (self.idle, self.lock().input_ended)
                && last.max(ended).elapsed() >= idle
            {
                return Ok(());
            }
        }
    }

    /// Returns true if the datagrams of `sender` are wanted; makes it the partner if there is none yet.
    fn accepts(&self, sender: SocketAddr) -> bool {
        let mut state = self.lock();
        match state.partner {
            Some(partner) if partner == sender => {
                state.is_unanswered = false;
                true
            }
            Some(_) if !self.follow_latest => false,
            _ => {
                state.partner = Some(sender);
                self.changed.notify_all();
                true
            }
        }
    }

    fn send_lines(&self, stdin: &Stdin, token: Token) -> Outcome {
        let mut lines = Lines::default();
        let mut buffer = vec![0; 64 * 1024];
        // Leaves input unread until a partner exists.
        while self.partner().is_some() {
            let read = stdin.read(&mut buffer, &token);
            match read.map_err(Failure::input)? {
                None => return Ok(()),
                Some(0) => {
                    self.send(lines.rest())?;
                    break;
                }
                Some(count) => lines.push(&buffer[..count], |line| self.send(line))?,
            }
        }
        self.update(|state| state.input_ended = Some(Instant::now()));
        Ok(())
    }

    fn send(&self, datagram: &[u8]) -> Outcome {
        let Some(partner) = self.partner().filter(|_| !datagram.is_empty()) else { return Ok(()) };
        self.update(|state| state.is_unanswered = true);
        self.socket.send_to(datagram, partner).map_err(refused_or)?;
        Ok(())
    }

    /// Waits for a partner; returns `None` once the exchange has stopped.
    fn partner(&self) -> Option<SocketAddr> {
        let mut state = self.lock();
        while state.partner.is_none() && !state.stopped {
            state = self.changed.wait(state).expect("no panic under this lock");
        }
        state.partner.filter(|_| !state.stopped)
    }

    fn update(&self, change: impl FnOnce(&mut ExchangeState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ExchangeState> {
        self.state.lock().expect("no panic under this lock")
    }
}

fn refused_or(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::new(
            "nothing listens on that UDP port",
            "start `peersock listen --udp` there, or check the port",
        ),
        io::ErrorKind::NetworkDown => member::node_has_ended("the exchange broke"),
        _ if reach::is_too_small(&error) => reach::carries_too_little("datagrams do not arrive", ""),
        _ => Failure::new(
            format_args!("the exchange broke: {error}"),
            "check that the program at the other end still runs, and start again",
        ),
    }
}

/// Splits a byte stream into datagrams: after each line feed, and where a line exceeds [`MAX_DATAGRAM`].
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], mut send: impl FnMut(&[u8]) -> Outcome) -> Outcome {
        while !bytes.is_empty() {
            let room = MAX_DATAGRAM - self.pending.len();
            let window = &bytes[..bytes.len().min(room)];
            let line_end = window.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let taken = line_end.unwrap_or(window.len());
            self.pending.extend_from_slice(&window[..taken]);
            bytes = &bytes[taken..];
            if line_end.is_some() || self.pending.len() == MAX_DATAGRAM {
                send(&self.pending)?;
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// Returns the bytes after the last line feed.
    fn rest(&self) -> &[u8] {
        &self.pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_datagrams_however_they_are_read() {
        let long = "x".repeat(2 * MAX_DATAGRAM + 3);
        let text = format!("one\n\n{long}\nlast");
        let wanted = vec![
            "one\n".to_owned(),
            "\n".to_owned(),
            "x".repeat(MAX_DATAGRAM),
            "x".repeat(MAX_DATAGRAM),
            "xxx\n".to_owned(),
            "last".to_owned(),
        ];
        for step in [1, 2, 7, 1023, 1024, 1025, text.len()] {
            let mut lines = Lines::default();
            let mut sent = Vec::new();
            for chunk in text.as_bytes().chunks(step) {
                lines
                    .push(chunk, |line| {
                        sent.push(line.to_vec());
                        Ok(())
                    })
                    .unwrap();
            }
            sent.push(lines.rest().to_vec());
            let sent: Vec<_> = sent.into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
            assert_eq!(sent, wanted, "read {step} bytes at a time");
        }
    }
}
