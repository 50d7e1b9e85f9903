//! `listen -k`: many clients at once, of whom none waits for another.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use peersock::blocking::{TcpListener, TcpStream};

use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::stdio::Stdin;
use crate::stream::{self, AfterPeer, Input, Output};

/// Clients that are served at once, for each address that is listened on; more wait to be accepted.
const MOST_CLIENTS: usize = 256;

/// A line that is longer is written in parts, between which other clients' lines may come.
const LONGEST_LINE: usize = 64 * 1024;

/// Serves clients until nobody can connect any more, or nobody reads stdout.
pub(crate) fn serve(
    listeners: Vec<TcpListener>,
    stdin: Option<Stdin>,
    stdout: File,
    peer_timeout: Duration,
) -> Outcome {
    let (stdout, connected) = (Mutex::new(stdout), AtomicUsize::new(0));
    let server = Arc::new(Server { stdin, stdout, connected, turns: Arc::default(), peer_timeout });
    let (ended, end) = mpsc::channel();
    for listener in listeners {
        let (server, ended) = (Arc::clone(&server), ended.clone());
        thread::spawn(move || {
            let failure = server.accept_all(&listener, &ended);
            let _ = ended.send(failure);
        });
    }
    Err(end.recv().expect("`ended` is still here"))
}

struct Server {
    stdin: Option<Stdin>,
    stdout: Mutex<File>,
    /// Clients that are being served, at all addresses.
    connected: AtomicUsize,
    turns: Arc<Turns>,
    peer_timeout: Duration,
}

impl Server {
    /// Serves each client of a listener on a thread of its own; gives the reason why there are no more.
    fn accept_all(self: &Arc<Self>, listener: &TcpListener, ended: &Sender<Failure>) -> Failure {
        let places = Arc::new(Places::default());
        loop {
            let place = places.take(MOST_CLIENTS);
            let (stream, client) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => return no_more_clients(&error),
            };
            tracing::info!(%client, "connected");
            let (server, ended) = (Arc::clone(self), ended.clone());
            // A thread that cannot be started drops the connection.
            let serving = thread::Builder::new().name("client".into()).spawn(move || {
                let _place = place;
                server.serve_one(&stream, client, &ended);
            });
            if let Err(error) = serving {
                tracing::warn!(%client, %error, "there is no thread for this client");
            }
        }
    }

    fn serve_one(&self, stream: &TcpStream, client: SocketAddr, ended: &Sender<Failure>) {
        let turn = Turns::join(&self.turns);
        let input = match &self.stdin {
            Some(stdin) => Input::Stdin { stdin, turn: Some(turn) },
            None => Input::EmptyAtEnd,
        };
        let mut output = Lines::new(&self.stdout, &self.connected);
        let served = stream::watch(stream, self.peer_timeout)
            .and_then(|()| stream::run(stream, &input, &mut output, AfterPeer::Stop, &Progress::none()));
        match served {
            Ok(()) => tracing::info!(%client, "finished"),
            Err(failure) if failure.is_output_closed() => {
                let _ = ended.send(failure);
            }
            Err(failure) => tracing::warn!(%client, "{}", failure.message()),
        }
    }
}

fn no_more_clients(error: &io::Error) -> Failure {
    Failure::new(
        format_args!("nobody can connect any more: {error}"),
        "start the command again: the node has ended",
    )
}

/// Whole lines of one client on the stdout of all. As long as nobody else is connected, whatever comes is
/// written at once.
struct Lines<'a> {
    stdout: &'a Mutex<File>,
    connected: &'a AtomicUsize,
    /// The beginning of a line.
    pending: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(stdout: &'a Mutex<File>, connected: &'a AtomicUsize) -> Lines<'a> {
        connected.fetch_add(1, Ordering::Relaxed);
        Lines { stdout, connected, pending: Vec::new() }
    }

    fn put(&self, parts: [&[u8]; 2]) -> Outcome {
        let mut stdout = self.stdout.lock().expect("no panic under this lock");
        parts.into_iter().try_for_each(|part| stdout.write_all(part)).map_err(Failure::output)
    }
}

impl Output for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> Outcome {
        let mut whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let is_alone = self.connected.load(Ordering::Relaxed) == 1;
        if is_alone || self.pending.len() + bytes.len() - whole > LONGEST_LINE {
            whole = bytes.len();
        }
        if whole > 0 {
            self.put([&self.pending, &bytes[..whole]])?;
            self.pending.clear();
        }
        self.pending.extend_from_slice(&bytes[whole..]);
        Ok(())
    }

    fn end(&mut self) -> Outcome {
        self.put([&self.pending, &[]])?;
        self.pending.clear();
        Ok(())
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who sends stdin: the client that has been connected longest.
#[derive(Default)]
struct Turns {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<u64>,
    last: u64,
}

/// One client's place in the queue for stdin; left when dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    number: u64,
}

impl Turns {
    fn join(turns: &Arc<Turns>) -> Turn {
        let mut queue = turns.lock();
        queue.last += 1;
        let number = queue.last;
        queue.waiting.push_back(number);
        Turn { turns: Arc::clone(turns), number }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic under this lock")
    }
}

impl Turn {
    /// Waits for the client's turn; `false` if it has left the queue.
    pub(crate) fn wait(&self) -> bool {
        let mut queue = self.turns.lock();
        while queue.waiting.contains(&self.number) {
            if queue.waiting.front() == Some(&self.number) {
                return true;
            }
            queue = self.turns.changed.wait(queue).expect("no panic under this lock");
        }
        false
    }

    /// Lets the next one have its turn.
    pub(crate) fn leave(&self) {
        self.turns.lock().waiting.retain(|number| *number != self.number);
        self.turns.changed.notify_all();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How many clients are being served.
#[derive(Default)]
struct Places {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// One client's place, given back when dropped.
struct Place(Arc<Places>);

impl Places {
    /// Waits until fewer than `most` are taken.
    fn take(self: &Arc<Self>, most: usize) -> Place {
        let taken = self.taken.lock().expect("no panic under this lock");
        let is_full = |taken: &mut usize| *taken >= most;
        *self.freed.wait_while(taken, is_full).expect("no panic under this lock") += 1;
        Place(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.taken.lock().expect("no panic under this lock") -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[test]
    fn lines_of_several_clients_stay_whole() {
        let stdout = Mutex::new(tempfile::tempfile().unwrap());
        let connected = AtomicUsize::new(0);
        let lines = || Lines::new(&stdout, &connected);
        let (mut first, mut second) = (lines(), lines());
        first.write(b"one ").unwrap();
        second.write(b"a\nb").unwrap();
        first.write(b"line\nand").unwrap();
        first.end().unwrap();
        second.write(&[b'x'; LONGEST_LINE]).unwrap();
        drop((first, second));
        lines().write(b"part").unwrap();
        let mut text = String::new();
        let mut file = stdout.into_inner().unwrap();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("a\none line\nandb{}part", "x".repeat(LONGEST_LINE)));
    }

    #[test]
    fn stdin_is_sent_to_who_is_connected_longest_and_then_to_the_next() {
        let turns = Arc::default();
        let (first, second, third) = (Turns::join(&turns), Turns::join(&turns), Turns::join(&turns));
        assert!(first.wait());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| third.wait());
            second.leave();
            assert!(!second.wait());
            drop(first);
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn a_place_is_free_again_when_its_client_has_gone() {
        let places = Arc::new(Places::default());
        let taken = places.take(1);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(places.take(1)));
            drop(taken);
            waiting.join().unwrap();
        });
        assert_eq!(*places.taken.lock().unwrap(), 0);
    }
}
