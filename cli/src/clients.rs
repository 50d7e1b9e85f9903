//! `listen -k`: many clients at once, none of which waits for another.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use peersock::Network;
use peersock_proxy::serving::Owner;

use crate::admission::{Admission, Arrival, MAX_OF_PEER, MAX_SERVED, MAX_WAITING, MAX_WAITING_OF_PEER};
use crate::exec::Program;
use crate::failure::{Failure, Outcome};
use crate::line_limit::LineLimit;
use crate::managed;
use crate::member::Member;
use crate::names;
use crate::progress::Progress;
use crate::silence;
use crate::sockets::{Listener, Stream};
use crate::stdio::{self, Stdin};
use crate::stream::{self, AfterPeer, Input, Output};

/// Maximum length of a line in bytes. Longer ones are split, and other clients' lines may come between.
const LONGEST_LINE: usize = 64 * 1024;

/// Serves clients until listening fails, stdout is closed, or the machine is removed from the network.
pub(crate) fn serve(
    member: &Member,
    listeners: Vec<Listener>,
    service: Service,
    peer_timeout: Duration,
) -> Outcome {
    let server = Arc::new(Server {
        owner: member.owners(),
        network: member.network().clone(),
        service,
        failed: Mutex::default(),
        admission: Mutex::default(),
        watch: silence::Watch::start(member.heard(), peer_timeout, false)?,
    });
    let (ended, end) = mpsc::channel();
    let removed = ended.clone();
    managed::on_removal(member.network().id(), move |failure| drop(removed.send(failure)))?;
    for listener in listeners {
        let (server, ended) = (Arc::clone(&server), ended.clone());
        thread::Builder::new().name("accept".into()).spawn(move || {
            let failure = server.accept_all(&listener, &ended);
            let _ = ended.send(failure);
        })?;
    }
    Err(end.recv().expect("`ended` is still here"))
}

/// The other end of the clients' data.
pub(crate) enum Service {
    Streams(Streams),
    Program(Arc<Program>),
}

/// The standard streams, which all clients share.
pub(crate) struct Streams {
    stdin: Option<Stdin>,
    stdout: Mutex<File>,
    /// Number of clients being served, at all addresses.
    connected: AtomicUsize,
    turns: Arc<Turns>,
}

impl Streams {
    pub(crate) fn new(stdin: Option<Stdin>, stdout: File) -> Streams {
        let stdout = Mutex::new(stdout);
        Streams { stdin, stdout, connected: AtomicUsize::new(0), turns: Arc::default() }
    }

    fn serve(&self, stream: &Stream) -> Outcome {
        let turn = Turns::join(&self.turns);
        let input = match &self.stdin {
            Some(stdin) => Input::Stdin { stdin, turn: Some(turn) },
            None => Input::EmptyAtEnd,
        };
        let mut output = Lines::new(&self.stdout, &self.connected);
        stream::run(stream, &input, &mut output, AfterPeer::Stop, &Progress::none())
    }
}

struct Server {
    owner: Box<dyn Fn(IpAddr) -> Owner + Send + Sync>,
    network: Network,
    service: Service,
    /// Limit of the lines about programs that have failed.
    failed: Mutex<LineLimit>,
    admission: Mutex<Admission<Client>>,
    watch: silence::Watch,
}

/// Pause after a failure to accept that passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Returns true if later clients can be accepted in spite of the error.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::ECONNABORTED];
    error.raw_os_error().is_some_and(|errno| passing.contains(&errno))
}

/// An accepted connection.
struct Client {
    address: SocketAddr,
    // Dropped before the stream, because it holds a copy.
    _watched: silence::Watched,
    stream: Stream,
}

impl Server {
    /// Accepts clients of a listener and serves each on a separate thread; returns the reason for stopping.
    fn accept_all(self: &Arc<Self>, listener: &Listener, ended: &Sender<Failure>) -> Failure {
        let (mut waiting, mut refused) = (LineLimit::default(), LineLimit::default());
        loop {
            let (stream, address) = match listener.accept() {
                Ok(accepted) => accepted,
                // Descriptors or memory are short for a moment, or the client has gone.
                Err(error) if is_passing(&error) => {
                    tracing::debug!(%error, "a client was not accepted");
                    thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
                Err(error) => return no_more_clients(&error),
            };
            tracing::info!(client = %address, "connected");
            let _watched = match self.watch.add(&stream, address.ip()) {
                Ok(watched) => watched,
                Err(error) => {
                    tracing::warn!(client = %address, %error, "the connection cannot be watched");
                    continue;
                }
            };
            let peer = (self.owner)(address.ip());
            let arrival = self.admission().arrive(peer, Client { address, _watched, stream });
            match arrival {
                Arrival::Served(client) => self.start(peer, client, ended),
                Arrival::Waits => {
                    self.tell_limit(
                        &mut waiting,
                        address,
                        format_args!(
                            "waits for its turn: {MAX_OF_PEER} of one peer are served at once, and \
                             {MAX_SERVED} of all"
                        ),
                    );
                }
                Arrival::Refused(client) => {
                    // Resets the connection, because the end of an empty stream might look like an answer.
                    let _ = client.stream.give_up();
                    self.tell_limit(
                        &mut refused,
                        address,
                        format_args!(
                            "is refused: {MAX_WAITING_OF_PEER} of one peer wait already, or {MAX_WAITING} \
                             of all; try again when some have ended, or listen at another port, too"
                        ),
                    );
                }
            }
        }
    }

    /// Reports now and then the connections that are not served at once.
    fn tell_limit(&self, limit: &mut LineLimit, client: SocketAddr, what: fmt::Arguments<'_>) {
        let line = || format!("a connection of {} {what}", names::called(&self.network, client.ip()));
        if let Some(line) = limit.pass(Instant::now(), line) {
            stdio::note(line);
        }
    }

    /// Serves a client on a new thread, which then continues with waiting clients.
    fn start(self: &Arc<Self>, peer: Owner, client: Client, ended: &Sender<Failure>) {
        let (server, ended) = (Arc::clone(self), ended.clone());
        let address = client.address;
        // A second handle of the connection, because the closure is dropped if no thread starts.
        let stream = client.stream.try_clone();
        let serving = thread::Builder::new().name("client".into()).spawn(move || {
            let mut next = Some((peer, client));
            while let Some((peer, client)) = next {
                server.serve_one(&client, &ended);
                drop(client);
                next = server.admission().leave(peer);
            }
        });
        if let Err(error) = serving {
            tracing::warn!(client = %address, %error, "there is no thread for this client");
            // Resets the connection, because the end of an empty stream might look like an answer.
            let reset = |stream: &Stream| {
                let _ = stream.give_up();
            };
            stream.iter().for_each(reset);
            // Resets waiting clients that would be next, because there is no thread for them either.
            let mut next = self.admission().leave(peer);
            while let Some((peer, client)) = next {
                reset(&client.stream);
                drop(client);
                next = self.admission().leave(peer);
            }
        }
    }

    fn admission(&self) -> MutexGuard<'_, Admission<Client>> {
        self.admission.lock().expect("no panic under this lock")
    }

    fn serve_one(&self, client: &Client, ended: &Sender<Failure>) {
        let (stream, client) = (&client.stream, client.address);
        let served = match &self.service {
            Service::Streams(streams) => streams.serve(stream),
            Service::Program(program) => program.serve(stream, client),
        };
        match (served, &self.service) {
            (Ok(()), _) => tracing::info!(%client, "finished"),
            (Err(failure), Service::Streams(_)) if failure.is_output_closed() => {
                let _ = ended.send(failure);
            }
            (Err(failure), Service::Streams(_)) => stdio::note(format_args!("warning: {client}: {failure}")),
            (Err(failure), Service::Program(_)) => {
                let mut limit = self.failed.lock().expect("no panic under this lock");
                let called = || names::called(&self.network, client.ip());
                let line = limit.pass(Instant::now(), || format!("warning: {}: {failure}", called()));
                line.into_iter().for_each(stdio::note);
            }
        }
    }
}

fn no_more_clients(error: &io::Error) -> Failure {
    Failure::new(
        format_args!("no client can connect any more: {error}"),
        "start the command again, unless the machine has left the network: the node has ended otherwise",
    )
}

/// Whole lines of one client on the shared stdout. A client that is alone is written through at once.
struct Lines<'a> {
    stdout: &'a Mutex<File>,
    connected: &'a AtomicUsize,
    /// Beginning of a line.
    pending: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(stdout: &'a Mutex<File>, connected: &'a AtomicUsize) -> Lines<'a> {
        connected.fetch_add(1, Ordering::Relaxed);
        Lines { stdout, connected, pending: Vec::new() }
    }

    fn put(&self, parts: [&[u8]; 2]) -> Outcome {
        let stdout = self.stdout.lock().expect("no panic under this lock");
        parts.into_iter().try_for_each(|part| stdio::write_all(&stdout, part)).map_err(Failure::output)
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

/// The turns of clients for stdin: the client connected longest sends it.
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

/// A client's place in the queue for stdin; dropping it leaves the queue.
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
    /// Waits for the client's turn; returns false if it has left the queue.
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

    /// Leaves the queue, so that the next client has its turn.
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[test]
    fn a_lack_of_descriptors_passes_and_the_end_of_the_node_does_not() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::ECONNABORTED] {
            assert!(is_passing(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::ENETDOWN, libc::EINVAL, libc::EBADF] {
            assert!(!is_passing(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        assert!(!is_passing(&io::ErrorKind::NetworkDown.into()));
    }

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
}
