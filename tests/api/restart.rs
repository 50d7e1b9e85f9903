//! A server that is killed and restarted, with the same identity and port, while requests are made. Each
//! request is answered correctly or fails soon, and requests succeed once the server is back. For comparison,
//! the same with kernel sockets.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{IdentitySource, Interfaces, Network, Node};

use crate::common::{PATIENCE, member, network, pattern};
use crate::process::{self, Process};

/// Number of times the server is killed.
const RESTARTS: usize = 4;

/// Number of requests that succeed before and after each restart.
const REQUESTS_PER_START: usize = 20;

/// Timeout of a client for a connection, and for the next bytes of an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Length of an answer in bytes: several round trips, so that some are under way when the server is killed.
const ANSWER: usize = 300_000;

#[test]
fn requests_are_answered_or_fail_while_their_server_is_restarted() {
    let network = network();
    let (node, _joined) = member(network);
    let state = tempfile::tempdir().expect("a directory");
    let start = |_| Process::start(SERVER, &format!("{network} {}", state.path().display()));
    let failures = play(start, |address| {
        let stream = TcpStream::connect_timeout_on(&node, &address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(stream)
    });
    for (error, took) in failures {
        // A shorter answer would mean an end that looks complete.
        assert_ne!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
        assert!(took < 5 * TIMEOUT, "{error} after {took:?}");
    }
}

#[test]
fn the_kernel_s_requests_are_answered_or_fail_while_their_server_is_restarted() {
    let start = |before: Option<SocketAddr>| {
        let address = before.unwrap_or_else(|| "127.0.0.1:0".parse().expect("an address"));
        Process::start(SERVER, &format!("kernel {address}"))
    };
    // The kernel may end a killed process's connections in order, so a short answer counts as a failure here.
    play(start, |address| {
        let stream = std::net::TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(stream)
    });
}

/// Makes requests while the server is killed and restarted repeatedly. Returns the failures and their
/// durations. `start` gets the server's previous address.
fn play<S: Read + Write>(
    start: impl Fn(Option<SocketAddr>) -> Process,
    connect: impl Fn(SocketAddr) -> io::Result<S> + Sync,
) -> Vec<(io::Error, Duration)> {
    let mut server = start(None);
    let address = server.address;
    let client = Client::default();
    thread::scope(|scope| {
        let _end = End(&client);
        scope.spawn(|| client.work(|| connect(address)));
        for _ in 0..RESTARTS {
            client.wait_for_answers();
            server.kill();
            server = start(Some(address));
            assert_eq!(server.address, address, "it is the same server");
        }
        client.wait_for_answers();
    });
    let failures = client.failures.into_inner().expect("no panic under this lock");
    let longest = failures.iter().map(|(_, took)| *took).max().unwrap_or_default();
    eprintln!("{} answers, longest failure {longest:?}", client.answers.into_inner());
    for (error, took) in &failures {
        eprintln!("{error} after {took:?}");
    }
    failures
}

/// Client that makes one request after another.
#[derive(Default)]
struct Client {
    /// Number of correct answers.
    answers: AtomicUsize,
    failures: Mutex<Vec<(io::Error, Duration)>>,
    is_done: AtomicBool,
}

impl Client {
    fn work<S: Read + Write>(&self, connect: impl Fn() -> io::Result<S>) {
        for number in 0u8.. {
            if self.is_done.load(Ordering::Relaxed) {
                return;
            }
            let began = Instant::now();
            match connect().and_then(|stream| request(stream, number)) {
                Ok(()) => drop(self.answers.fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    self.failures().push((error, began.elapsed()));
                    // A refused port would be refused again at once.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    fn failures(&self) -> MutexGuard<'_, Vec<(io::Error, Duration)>> {
        self.failures.lock().expect("no panic under this lock")
    }

    /// Waits until more requests have succeeded, including some made after this call.
    fn wait_for_answers(&self) {
        let deadline = Instant::now() + PATIENCE;
        let wanted = self.answers.load(Ordering::Relaxed) + REQUESTS_PER_START;
        while self.answers.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "requests hang or fail: {:?}", self.failures());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Guard that stops the client, also if the test fails.
struct End<'a>(&'a Client);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_done.store(true, Ordering::Relaxed);
    }
}

fn request(mut stream: impl Read + Write, number: u8) -> io::Result<()> {
    stream.write_all(&[number])?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.len() < ANSWER {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} bytes only", answer.len())));
    }
    assert!(answer == pattern(number, ANSWER), "the answer to another request");
    Ok(())
}

const SERVER: &str = "restart::server_of_the_others";

/// Runs the server. Without an order it does nothing.
#[test]
fn server_of_the_others() {
    let Some(order) = process::order() else { return };
    let (first, second) = order.split_once(' ').expect("two words");
    if first == "kernel" {
        // Connections of other processes may keep the port for a moment.
        let deadline = Instant::now() + PATIENCE;
        let listener = loop {
            match std::net::TcpListener::bind(second) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(10));
        };
        process::say(listener.local_addr().expect("an address"));
        return serve(|| Ok(listener.accept()?.0));
    }
    let identity = IdentitySource::StateDir(second.into());
    let node = Node::builder().identity(identity).interfaces(Interfaces::Loopback).start().expect("a node");
    let network = Network::ad_hoc(first.parse().expect("a network ID"));
    let joined = node.join(network).expect("joined");
    let listener = TcpListener::bind_on(&node, (joined.address(), 1000)).expect("a port");
    process::say(listener.local_addr().expect("an address"));
    serve(|| Ok(listener.accept()?.0));
}

/// Answers requests until this process is killed, or until long after the parent should have done so.
fn serve<S: Read + Write>(accept: impl Fn() -> io::Result<S>) {
    let end = Instant::now() + 5 * PATIENCE;
    while Instant::now() < end {
        let mut stream = accept().expect("a connection");
        let mut number = [0];
        // Errors of a client that has given up do not concern the server.
        let _ = stream.read_exact(&mut number).and_then(|()| stream.write_all(&pattern(number[0], ANSWER)));
    }
}
