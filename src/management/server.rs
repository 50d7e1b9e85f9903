//! Server side of the management socket: one small thread, and one more for each probe.

use std::borrow::Cow;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::{IO_TIMEOUT, Refusal, Request, STOPPED, foreign_peer};
use crate::state::{DirectorySocket, StateDir};

/// Limit of a request line's length in bytes. The largest rules have 87,382 as text.
const MAX_REQUEST: usize = 96 << 10;

/// Stack size of the thread, small because serving needs little and an idle node should stay small.
const STACK: usize = 256 * 1024;

/// Limit of probes at once.
const MAX_PROBES: usize = 64;

/// Server that answers requests until dropped. It serves one request at a time, each bounded in size and
/// time. Probes and joins take longer, so each has a thread.
#[derive(Debug)]
pub(crate) struct ManagementServer {
    socket: Arc<DirectorySocket>,
    /// Write end of a pipe; closing it stops the thread.
    wake: Option<UnixStream>,
    /// Set when the server stops.
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ManagementServer {
    /// Listens in a state directory. `respond` returns the text that answers a request, or a reason for
    /// refusal. The server's thread calls it, and for probes the probe's thread.
    ///
    /// # Errors
    ///
    /// Fails if the Unix socket cannot be bound or the thread not started.
    pub(crate) fn start(
        state: &StateDir,
        respond: impl Fn(Request, &Client) -> Answer + Send + Sync + 'static,
    ) -> io::Result<ManagementServer> {
        let listener = state.bind_management()?;
        let path = StateDir::management_socket(state.path());
        let socket = Arc::new(DirectorySocket::of(path, listener));
        let accepting = Arc::clone(&socket);
        let (wake, stop) = UnixStream::pair()?;
        let ended = Arc::new(AtomicBool::new(false));
        let service =
            Service { respond: Arc::new(respond), ended: Arc::clone(&ended), probes: Arc::default() };
        let thread = thread::Builder::new()
            .name("peersock-manage".into())
            .stack_size(STACK)
            .spawn(move || serve(&accepting, &stop, &service))?;
        Ok(ManagementServer { socket, wake: Some(wake), ended, thread: Some(thread) })
    }
}

impl Drop for ManagementServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.socket.close();
        drop(self.wake.take());
        if let Some(thread) = self.thread.take()
            // The thread itself may drop the last reference to a node while it builds the status.
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// Answer to a request: a text, or the reason for refusal.
pub(crate) type Answer = Result<String, Cow<'static, str>>;

type Respond = dyn Fn(Request, &Client) -> Answer + Send + Sync;

/// Context in which requests are answered.
struct Service {
    respond: Arc<Respond>,
    ended: Arc<AtomicBool>,
    /// Number of probes that run.
    probes: Arc<AtomicUsize>,
}

/// A client that waits for an answer.
pub(crate) struct Client {
    stream: UnixStream,
    server_ended: Arc<AtomicBool>,
}

impl Client {
    /// Returns true if no client waits for the answer any more: the client has hung up, or the server has
    /// stopped.
    pub(crate) fn has_left(&self) -> bool {
        has_hung_up(&self.stream) || self.server_ended.load(Ordering::SeqCst)
    }

    /// Sends a line before the answer.
    ///
    /// # Errors
    /// Fails if the client does not read for [`IO_TIMEOUT`], or has hung up.
    pub(crate) fn tell(&self, line: &str) -> io::Result<()> {
        (&self.stream).write_all(format!("{line}\n").as_bytes())
    }

    fn send(mut self, answer: Answer) -> io::Result<()> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => serde_json::to_string(&Refusal::new(&error))?,
        };
        self.stream.write_all(answer.as_bytes())
    }
}

/// Returns true if the other end of a Unix socket is closed. An end that has closed only its half still
/// reads.
pub fn has_hung_up(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Place of a probe among those that run at once.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(probes: &Arc<AtomicUsize>) -> Option<Slot> {
        if probes.fetch_add(1, Ordering::SeqCst) >= MAX_PROBES {
            probes.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        Some(Slot(Arc::clone(probes)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve(socket: &DirectorySocket, stop: &UnixStream, service: &Service) {
    loop {
        let accepted = match socket.accept(Some(stop.as_fd())) {
            Ok(Some(stream)) => answer(stream, service),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        if let Err(error) = accepted {
            tracing::debug!(%error, "management request failed");
            // Without free file descriptors, the pending connection would keep poll from waiting.
            if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}

fn answer(mut stream: UnixStream, service: &Service) -> io::Result<()> {
    // Between bind(2) and chmod(2) another user may have connected.
    if foreign_peer(&stream)?.is_some() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    let request = read_request(&mut stream)?;
    let client = Client { stream, server_ended: Arc::clone(&service.ended) };
    match Request::parse(&request) {
        None => client.send(Err("unknown request".into())),
        Some(request @ (Request::Probe(_) | Request::Join(_))) => probe(client, request, service),
        Some(request) => {
            let answer = (service.respond)(request, &client);
            client.send(answer)
        }
    }
}

/// Answers a request that takes time on a separate thread, so that it delays no other one.
fn probe(client: Client, request: Request, service: &Service) -> io::Result<()> {
    let Some(slot) = Slot::take(&service.probes) else { return client.send(Err(TOO_MANY.into())) };
    let respond = Arc::clone(&service.respond);
    // With the usual stack, because a thread that waits for packets also works on them.
    let spawned = thread::Builder::new().name("peersock-probe".into()).spawn(move || {
        let _slot = slot;
        let answer = match client.server_ended.load(Ordering::SeqCst) {
            true => Err(STOPPED.into()),
            false => respond(request, &client),
        };
        if let Err(error) = client.send(answer) {
            tracing::debug!(%error, "probe was not answered");
        }
    });
    // Without a thread, the client sees the end of the connection.
    spawned.map(drop)
}

/// Refusal of a probe too many.
const TOO_MANY: &str = "it has too many probes to do, try again later";

/// Reads a line within [`IO_TIMEOUT`] in total.
fn read_request(stream: &mut UnixStream) -> io::Result<String> {
    // A slow client must not keep others waiting by sending a byte now and then.
    let until = Instant::now() + IO_TIMEOUT;
    let (mut request, mut piece) = (Vec::new(), [0; 256]);
    while request.len() < MAX_REQUEST && !request.contains(&b'\n') {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => request.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let line = request.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8(line.to_vec()).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::management::{ManagementError, request, status};

    #[test]
    fn a_running_node_answers_and_a_stopped_one_is_told_apart() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        let server = ManagementServer::start(&state, |_, _| Ok("{\"fine\": true}".into())).unwrap();
        let socket = StateDir::management_socket(place.path());
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        for _ in 0..3 {
            assert_eq!(request(place.path(), "status").unwrap(), "{\"fine\": true}");
        }
        for nonsense in [
            "nonsense",
            "",
            "status now",
            "status peers=",
            "status peers=1 2",
            "status peers=-1",
            "prometheus 1",
            "ping",
            "ping network=ff00500050000000",
            "reach network=ff00500050000000 address=fd00::1 timeout=1 size=1",
        ] {
            let Err(ManagementError::Refused { error, version }) = request(place.path(), nonsense) else {
                panic!("{nonsense:?} is understood")
            };
            assert_eq!(
                (error.as_str(), version.as_deref()),
                ("unknown request", Some(env!("CARGO_PKG_VERSION")))
            );
        }
        drop(server);
        assert!(!socket.exists());
        assert!(matches!(request(place.path(), "status"), Err(ManagementError::NotRunning { .. })));
    }

    #[test]
    fn what_a_killed_process_leaves_behind_does_not_stand_in_the_way() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        drop(UnixListener::bind(StateDir::management_socket(place.path())).unwrap());
        assert!(matches!(request(place.path(), "status"), Err(ManagementError::NotRunning { .. })));
        let _server = ManagementServer::start(&state, |_, _| Ok("{}".into())).unwrap();
        assert_eq!(request(place.path(), "status").unwrap(), "{}");
    }

    #[test]
    fn a_path_longer_than_a_socket_address_works() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("long".repeat(40));
        let state = StateDir::open(&path).unwrap();
        let _server = ManagementServer::start(&state, |_, _| Ok("{}".into())).unwrap();
        assert_eq!(request(&path, "status").unwrap(), "{}");
    }

    #[test]
    fn a_client_that_says_nothing_and_leaves_does_no_harm() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        let _server = ManagementServer::start(&state, |_, _| Ok("{}".into())).unwrap();
        let socket = StateDir::management_socket(place.path());
        drop(UnixStream::connect(&socket).unwrap());
        UnixStream::connect(&socket).unwrap().write_all(&[b'x'; 100_000]).ok();
        assert_eq!(request(place.path(), "status").unwrap(), "{}");
    }

    #[test]
    fn a_client_that_drips_holds_up_others_for_a_while_only() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        let _server = ManagementServer::start(&state, |_, _| Ok("{}".into())).unwrap();
        let mut slow = UnixStream::connect(StateDir::management_socket(place.path())).unwrap();
        // Until the server closes the connection, which further bytes do not delay.
        while slow.write_all(b"x").is_ok() {
            thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(request(place.path(), "status").unwrap(), "{}");
    }

    #[test]
    fn requests_say_how_many_peers_are_wanted_and_the_answer_is_bounded() {
        let peers = |line| match Request::parse(line)? {
            Request::Status { peers } => Some(peers),
            _ => None,
        };
        assert_eq!(peers("status\n"), Some(10_000));
        assert_eq!(peers("status peers=50\n"), Some(50));
        assert_eq!(peers("status peers=99999999"), Some(10_000));
        assert_eq!(Request::parse("prometheus peers=7\n"), Some(Request::Prometheus { peers: 7 }));
        assert_eq!(Request::parse("prometheus\n"), Some(Request::Prometheus { peers: 10_000 }));
    }

    const REACH: &str = "reach network=ff00500050000000 address=fd00::1 timeout=60000";

    /// Sends a request line, and leaves the answer to be read.
    fn begin(place: &std::path::Path, line: &str) -> UnixStream {
        let mut stream = UnixStream::connect(StateDir::management_socket(place)).unwrap();
        writeln!(stream, "{line}").unwrap();
        stream
    }

    fn wait_until(is_so: impl Fn() -> bool) {
        let until = Instant::now() + std::time::Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < until, "this takes too long");
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn many_probes_delay_nobody_are_bounded_and_end_with_their_clients() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        let running = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&running);
        let _server = ManagementServer::start(&state, move |request, client| {
            if matches!(request, Request::Probe(_)) {
                counted.fetch_add(1, Ordering::SeqCst);
                while !client.has_left() {
                    thread::sleep(std::time::Duration::from_millis(5));
                }
                counted.fetch_sub(1, Ordering::SeqCst);
            }
            Ok("{}".into())
        })
        .unwrap();
        let mut clients: Vec<_> = (0..MAX_PROBES).map(|_| begin(place.path(), REACH)).collect();
        wait_until(|| running.load(Ordering::SeqCst) == MAX_PROBES);
        assert_eq!(request(place.path(), "status").unwrap(), "{}");
        let refused = request(place.path(), REACH).unwrap_err();
        assert!(matches!(&refused, ManagementError::Refused { error, .. } if error == TOO_MANY), "{refused}");
        // A client that writes on, or closes its half only, still waits.
        clients[0].write_all(b"more").unwrap();
        clients[1].shutdown(std::net::Shutdown::Write).unwrap();
        drop(clients.split_off(2));
        wait_until(|| running.load(Ordering::SeqCst) == 2);
        let next = begin(place.path(), REACH);
        wait_until(|| running.load(Ordering::SeqCst) == 3);
        drop((clients, next));
        wait_until(|| running.load(Ordering::SeqCst) == 0);
    }

    #[test]
    fn a_server_that_stops_ends_its_probes() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        let running = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&running);
        let server = ManagementServer::start(&state, move |_, client| {
            counted.fetch_add(1, Ordering::SeqCst);
            while !client.has_left() {
                thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(STOPPED.into())
        })
        .unwrap();
        let client = begin(place.path(), REACH);
        wait_until(|| running.load(Ordering::SeqCst) == 1);
        drop(server);
        let mut answer = String::new();
        BufReader::new(client).read_to_string(&mut answer).unwrap();
        assert!(answer.contains(STOPPED), "{answer}");
    }

    #[test]
    fn a_node_of_the_first_version_is_asked_in_its_own_words() {
        let place = tempfile::tempdir().unwrap();
        let old = UnixListener::bind(StateDir::management_socket(place.path())).unwrap();
        let server = thread::spawn(move || {
            for _ in 0..3 {
                let (mut stream, _) = old.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let answer =
                    if line == "status\n" { "{\"old\": 1}" } else { "{\"error\": \"unknown request\"}" };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(status(place.path(), 50).unwrap(), "{\"old\": 1}");
        let refused = request(place.path(), "something newer").unwrap_err();
        assert_eq!(refused.to_string(), "the running node refuses: unknown request");
        server.join().unwrap();
    }

    #[test]
    fn an_answer_that_cannot_be_given_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        let _server = ManagementServer::start(&state, |_, _| Err("the node has stopped".into())).unwrap();
        let refused = status(place.path(), 1).unwrap_err().to_string();
        assert!(refused.contains("the node has stopped") && refused.contains("version"), "{refused}");
    }
}
