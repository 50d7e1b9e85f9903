//! Admission of programs that are started by a program with the preloaded library, but not reached by it:
//! static programs and those written in Go. Before the library starts such a program, it installs the filter
//! in that process and sends the listener here.
//!
//! ```text
//! library                                    launcher
//!    | ---- connects (Name::Programs) ---------> |  of which user, which process
//!    | <--- challenge, filter ------------------ |
//!    | ---- proof of the token, its socket ----> |  pidfd_getfd(2) of that socket
//!    | <--- one byte: it can be done ----------- |
//!    | seccomp(2): a listener                    |
//!    | ---- its number ------------------------> |  pidfd_getfd(2)
//!    | <--- one byte: calls are answered ------- |
//! ```
//!
//! Once filtered, the library only reads and writes, because other calls would wait for an answer. It cannot
//! undo the filter, so anything that can be refused is refused before.
//!
//! Any user can connect to the socket's name. The supervisor reads nothing from other users. A connection
//! without a proof occupies no slot, only one of a few places, which it soon loses to later ones.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libc::SECCOMP_RET_ALLOW;
use peersock_bsd::filter::give;
use peersock_bsd::{Errno, Result};
use peersock_fd::{Name, address, peer_credentials};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::PidfdGetfdFlags;
use seccompiler::BpfProgram;

use crate::filter;
use crate::listener::Listener;
use crate::supervisor::Shared;
use crate::target::peer_process;

/// Maximum number of programs admitted at the same time, each with the programs it has started.
const MAX_PROGRAMS: usize = 512;

/// Maximum number of connections without a proof. Beyond it others wait until the oldest has had its time;
/// then it is closed.
const MAX_UNPROVEN: usize = 128;

/// Minimum time for a connection to send its proof. Libraries send it at once, but many may start together.
const MIN_PROOF_TIME: Duration = Duration::from_secs(1);

/// Number of threads that answer each program's calls.
const THREADS: usize = 2;

/// Time limit of a library's whole admission.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Backlog of the admitting thread.
const BACKLOG: i32 = 128;

/// Starts the thread that admits programs; it ends with the supervisor.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let program = filter::program(shared.context.rules.only);
    let program = program.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    probe()?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &address(&Name::Programs(shared.context.rules.client.tag())))?;
    rustix::net::listen(&socket, BACKLOG)?;
    let (shared, program) = (Arc::clone(shared), text(&program));
    let mut admission =
        Admission { shared, socket, program, unproven: VecDeque::new(), admitted: Arc::default() };
    thread::Builder::new().name("programs".into()).spawn(move || while admission.step() {})?;
    Ok(())
}

/// Checks that the kernel has listeners here, because an admitted program needs one and cannot report why it
/// gets none.
fn probe() -> io::Result<()> {
    // A filter cannot be removed, so install it in a thread that ends. It allows every call.
    let allow = [give(SECCOMP_RET_ALLOW)];
    let probing = thread::Builder::new().spawn(move || Listener::install(&allow).map(drop))?;
    probing.join().expect("installing a filter does not panic")
}

/// Connections that wait for admission, until they have sent a proof.
struct Admission {
    shared: Arc<Shared>,
    socket: OwnedFd,
    /// The filter, in the form sent to libraries.
    program: Vec<u8>,
    /// The oldest first.
    unproven: VecDeque<Connection>,
    admitted: Arc<AtomicUsize>,
}

/// A library's connection.
struct Connection {
    socket: OwnedFd,
    /// The process, and its number here.
    process: OwnedFd,
    number: i32,
    challenge: u128,
    /// Time at which it was accepted.
    begin: Instant,
}

impl Admission {
    /// Waits for an event and handles it. Returns false at the end.
    fn step(&mut self) -> bool {
        let Some(ready) = self.wait() else { return false };
        let (connections, now) = (std::mem::take(&mut self.unproven), Instant::now());
        for (connection, is_ready) in connections.into_iter().zip(ready) {
            if is_ready {
                // A refused library finds the connection closed, and does not start the program.
                if let Err(error) = self.prove(connection) {
                    tracing::debug!(%error, "a program is not admitted");
                }
            } else if now < connection.begin + ADMISSION_TIMEOUT {
                self.unproven.push_back(connection);
            }
        }
        while self.full_until().is_none()
            && let Some(socket) = self.accept()
        {
            match self.greet(socket) {
                Ok(connection) => self.unproven.push_back(connection),
                Err(error) => tracing::debug!(%error, "a program is not admitted"),
            }
            if self.unproven.len() > MAX_UNPROVEN {
                self.unproven.pop_front();
            }
        }
        true
    }

    /// Returns the time until which no connection is accepted, or `None` if one is.
    fn full_until(&self) -> Option<Instant> {
        let first = self.unproven.front().filter(|_| self.unproven.len() >= MAX_UNPROVEN)?;
        Some(first.begin + MIN_PROOF_TIME).filter(|until| Instant::now() < *until)
    }

    /// Waits for connections, and returns which of the unproven ones are ready, or `None` at the end.
    fn wait(&self) -> Option<Vec<bool>> {
        let full_until = self.full_until();
        let wanted = if full_until.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.shared.stop.as_fd(), PollFlags::IN),
            PollFd::new(&self.socket, wanted),
        ];
        fds.extend(self.unproven.iter().map(|connection| PollFd::new(&connection.socket, PollFlags::IN)));
        let until = full_until.or_else(|| Some(self.unproven.front()?.begin + ADMISSION_TIMEOUT));
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
        let is_over = self.shared.stopped.load(Ordering::Relaxed);
        (!is_over).then(|| fds[2..].iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    /// Accepts a waiting connection.
    fn accept(&self) -> Option<OwnedFd> {
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(socket) => return Some(socket),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => {
                    // Descriptors will be free again later.
                    thread::sleep(Duration::from_millis(10));
                    return None;
                }
            }
        }
    }

    /// Sends an authorized user's library the challenge to prove, and the filter.
    fn greet(&self, socket: OwnedFd) -> io::Result<Connection> {
        let credentials = peer_credentials(socket.as_fd())?;
        let own = rustix::process::geteuid().as_raw();
        // The process is unknown if it is in another PID namespace.
        if ![0, own].contains(&credentials.uid) || credentials.pid <= 0 {
            return Err(denied());
        }
        let process = peer_process(socket.as_fd(), credentials.pid)?;
        let mut challenge = [0; 16];
        getrandom::fill(&mut challenge).map_err(io::Error::other)?;
        send(&socket, &[&challenge, &*self.program].concat())?;
        let challenge = u128::from_ne_bytes(challenge);
        Ok(Connection { socket, process, number: credentials.pid, challenge, begin: Instant::now() })
    }

    /// Receives a library's proof, and starts a thread for the rest.
    fn prove(&self, connection: Connection) -> io::Result<()> {
        let mut answer = [0; 20];
        receive(&connection.socket, &mut answer, RecvFlags::DONTWAIT)?;
        let (number, proof) = answer.split_first_chunk::<4>().ok_or_else(denied)?;
        let proof = proof.first_chunk().map(|proof| u128::from_ne_bytes(*proof)).ok_or_else(denied)?;
        let (shared, number) = (Arc::clone(&self.shared), RawFd::from_ne_bytes(*number));
        if !shared.context.rules.client.is_proven(connection.challenge, proof) {
            return Err(denied());
        }
        let slot = Slot::take(&self.admitted).ok_or_else(|| io::Error::other("there are too many"))?;
        thread::Builder::new().name("program's calls".into()).spawn(move || {
            let _slot = slot;
            match connection.admit(&shared, number) {
                Ok(listener) => shared.serve(&Arc::new(listener), THREADS),
                Err(error) => tracing::debug!(%error, "a program is not admitted"),
            }
        })?;
        Ok(())
    }
}

impl Connection {
    /// Takes the listener of a process, in which its end of the connection has a `number`.
    fn admit(self, shared: &Shared, number: RawFd) -> io::Result<Listener> {
        // Test first: if the system denies copying this descriptor, it will deny the listener, too.
        drop(self.fetch(number)?);
        send(&self.socket, &[1])?;
        let left = ADMISSION_TIMEOUT.saturating_sub(self.begin.elapsed()).max(Duration::from_millis(1));
        set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
        let mut number = [0; 4];
        receive(&self.socket, &mut number, RecvFlags::empty())?;
        let listener = Listener::of(self.fetch(RawFd::from_ne_bytes(number))?)?;
        shared.supervised.add(self.number);
        send(&self.socket, &[1])?;
        Ok(listener)
    }

    /// Returns a copy of one of the process's descriptors.
    fn fetch(&self, number: RawFd) -> Result<OwnedFd> {
        rustix::process::pidfd_getfd(&self.process, number, PidfdGetfdFlags::empty())
    }
}

/// The slot of an admitted program.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// Takes a slot. Returns `None` if there are too many programs.
    fn take(admitted: &Arc<AtomicUsize>) -> Option<Self> {
        let slot = Self(Arc::clone(admitted));
        // Dropping the slot gives it back.
        (admitted.fetch_add(1, Ordering::Relaxed) < MAX_PROGRAMS).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn denied() -> io::Error {
    io::Error::from(io::ErrorKind::PermissionDenied)
}

/// Returns the number of the filter's instructions, followed by the instructions in the form that seccomp(2)
/// takes.
fn text(program: &BpfProgram) -> Vec<u8> {
    let mut bytes = (program.len() as u32).to_ne_bytes().to_vec();
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes
}

/// Sends a message without waiting, because the other end has room for all of it, or does not read.
fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let sent = rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    if sent == bytes.len() { Ok(()) } else { Err(denied()) }
}

/// Receives a message as the library sends it: in one piece, and never unasked.
fn receive(socket: &OwnedFd, piece: &mut [u8], flags: RecvFlags) -> io::Result<()> {
    let (_, received) = rustix::net::recv(socket, &mut *piece, flags)?;
    if received == piece.len() { Ok(()) } else { Err(denied()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use peersock_bsd::{Client, Rules};
    use peersock_fd::{NodeTag, Token, admission_proof, proof};

    use super::*;
    use crate::Supervisor;

    const TOKEN: Token = Token(0x70c3);

    /// Starts a supervisor that admits programs, without a node.
    fn supervisor(tag: NodeTag) -> Supervisor {
        let supervisor = Supervisor::new(Rules::new(Client::new(tag, TOKEN), "admits"), None).unwrap();
        supervisor.admit().unwrap();
        supervisor
    }

    /// Connects as the library does.
    fn connect(tag: NodeTag) -> OwnedFd {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        rustix::net::connect(&socket, &address(&Name::Programs(tag))).unwrap();
        socket
    }

    /// Reads the challenge and the filter.
    fn challenge(socket: &OwnedFd) -> u128 {
        let program = text(&filter::program(false).unwrap());
        let mut hello = vec![0; 16 + program.len()];
        let (_, received) = rustix::net::recv(socket, &mut *hello, RecvFlags::WAITALL).unwrap();
        assert_eq!((received, &hello[16..]), (hello.len(), &*program));
        u128::from_ne_bytes(*hello.first_chunk().unwrap())
    }

    /// Sends a proof and returns the answer; nothing at the end.
    fn answer(socket: &OwnedFd, number: RawFd, proof: u128) -> Vec<u8> {
        let said = [&number.to_ne_bytes()[..], &proof.to_ne_bytes()].concat();
        rustix::net::send(socket, &said, SendFlags::NOSIGNAL).unwrap();
        read(socket)
    }

    fn read(socket: &OwnedFd) -> Vec<u8> {
        let mut byte = [0];
        let read = rustix::io::read(socket, &mut byte).unwrap_or(0);
        byte[..read].to_vec()
    }

    #[test]
    fn what_a_node_proves_to_everybody_admits_nobody() {
        let tag = NodeTag(0xad01);
        let _supervisor = supervisor(tag);
        let others: [fn(u128) -> u128; 3] =
            [|challenge| proof(TOKEN, challenge), |challenge| admission_proof(Token(1), challenge), |_| 0];
        for other in others {
            let socket = connect(tag);
            let proof = other(challenge(&socket));
            assert_eq!(answer(&socket, socket.as_raw_fd(), proof), []);
        }
        let socket = connect(tag);
        let proof = admission_proof(TOKEN, challenge(&socket));
        assert_eq!(answer(&socket, socket.as_raw_fd(), proof), [1]);
        // A file that is not a listener is refused.
        rustix::net::send(&socket, &socket.as_raw_fd().to_ne_bytes(), SendFlags::NOSIGNAL).unwrap();
        assert_eq!(read(&socket), []);
    }

    #[test]
    fn a_process_whose_descriptors_cannot_be_had_is_refused_before_it_is_filtered() {
        let tag = NodeTag(0xad02);
        let _supervisor = supervisor(tag);
        let socket = connect(tag);
        let proof = admission_proof(TOKEN, challenge(&socket));
        assert_eq!(answer(&socket, RawFd::MAX, proof), []);
    }

    #[test]
    fn who_proves_nothing_keeps_nobody_out() {
        let tag = NodeTag(0xad03);
        let _supervisor = supervisor(tag);
        let silent: Vec<_> = (0..2 * MAX_UNPROVEN).map(|_| connect(tag)).collect();
        let socket = connect(tag);
        let proof = admission_proof(TOKEN, challenge(&socket));
        assert_eq!(answer(&socket, socket.as_raw_fd(), proof), [1]);
        // All were accepted before it, and the oldest were closed.
        let is_open = |socket: &&OwnedFd| {
            challenge(socket);
            let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            rustix::net::recv(socket, &mut [0_u8; 1], look).is_err_and(|error| error == Errno::AGAIN)
        };
        let open = silent.iter().filter(is_open).count();
        assert!(open <= MAX_UNPROVEN, "{open} are still open");
    }

    #[test]
    fn a_name_that_somebody_has_is_told() {
        let tag = NodeTag(0xad04);
        let first = supervisor(tag);
        assert_eq!(first.admit().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn programs_that_have_ended_make_room_for_others() {
        let admitted = Arc::default();
        let mut slots: Vec<_> = (0..MAX_PROGRAMS).map(|_| Slot::take(&admitted).unwrap()).collect();
        assert!(Slot::take(&admitted).is_none() && Slot::take(&admitted).is_none());
        slots.pop();
        slots.push(Slot::take(&admitted).unwrap());
        assert!(Slot::take(&admitted).is_none());
        drop(slots);
        assert_eq!(admitted.load(Ordering::Relaxed), 0);
    }
}
