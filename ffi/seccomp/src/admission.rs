//! Programs that one with the preloaded library starts, and that the library does not reach: static ones and
//! those of Go. The library has the process filtered before it starts such a program there, and its listener
//! comes here.
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
//! Once it is filtered the library reads and writes only: other calls would wait for somebody who answers
//! them. It cannot undo the filter, so whatever can be refused is refused before.
//!
//! The name is everybody's to connect to. Of another user nothing is read, and who has not proven anything
//! occupies no slot, only one place of a few, which he soon loses to those that come later.

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

/// Programs that are admitted at the same time, with what they have started; more cannot be started.
const MOST: usize = 512;

/// Connections that have not proven anything. Beyond it others wait until the one that came first has had its
/// time; then it goes.
const MOST_UNPROVEN: usize = 128;

/// That time: libraries prove it at once, but many may be started at once, too.
const GRACE: Duration = Duration::from_secs(1);

/// Threads that answer the calls of each.
const THREADS: usize = 2;

/// How long a library may take in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that wait for the thread that admits.
const BACKLOG: i32 = 128;

/// Starts the thread that admits programs; it ends when the supervisor does.
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

/// Finds out whether the kernel has listeners here: what is to be admitted is to have one, and cannot say why
/// it gets none.
fn probe() -> io::Result<()> {
    // A filter cannot be taken off, so it is a thread's that ends. It lets every call pass.
    let allow = [give(SECCOMP_RET_ALLOW)];
    let probing = thread::Builder::new().spawn(move || Listener::install(&allow).map(drop))?;
    probing.join().expect("installing a filter does not panic")
}

/// Who asks to be admitted, until that is proven.
struct Admission {
    shared: Arc<Shared>,
    socket: OwnedFd,
    /// The filter, as libraries are told it.
    program: Vec<u8>,
    /// Those that came first are first.
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
    /// When it was accepted.
    begin: Instant,
}

impl Admission {
    /// Waits until something happens, and sees to it; false at the end.
    fn step(&mut self) -> bool {
        let Some(ready) = self.wait() else { return false };
        let (connections, now) = (std::mem::take(&mut self.unproven), Instant::now());
        for (connection, is_ready) in connections.into_iter().zip(ready) {
            if is_ready {
                // Who is refused finds an end, and does not start the program.
                if let Err(error) = self.prove(connection) {
                    tracing::debug!(%error, "a program is not admitted");
                }
            } else if now < connection.begin + PATIENCE {
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
            if self.unproven.len() > MOST_UNPROVEN {
                self.unproven.pop_front();
            }
        }
        true
    }

    /// Until when no connection is accepted; `None` if one is.
    fn full_until(&self) -> Option<Instant> {
        let first = self.unproven.front().filter(|_| self.unproven.len() >= MOST_UNPROVEN)?;
        Some(first.begin + GRACE).filter(|until| Instant::now() < *until)
    }

    /// Waits for connections, and tells which of the unproven ones are ready; `None` at the end.
    fn wait(&self) -> Option<Vec<bool>> {
        let full_until = self.full_until();
        let wanted = if full_until.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.shared.stop.as_fd(), PollFlags::IN),
            PollFd::new(&self.socket, wanted),
        ];
        fds.extend(self.unproven.iter().map(|connection| PollFd::new(&connection.socket, PollFlags::IN)));
        let until = full_until.or_else(|| Some(self.unproven.front()?.begin + PATIENCE));
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

    /// A connection that waits.
    fn accept(&self) -> Option<OwnedFd> {
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(socket) => return Some(socket),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => {
                    // There will be descriptors again.
                    thread::sleep(Duration::from_millis(10));
                    return None;
                }
            }
        }
    }

    /// Tells a library of the user that may ask what it has to prove, and the filter.
    fn greet(&self, socket: OwnedFd) -> io::Result<Connection> {
        let credentials = peer_credentials(socket.as_fd())?;
        let own = rustix::process::geteuid().as_raw();
        // Of another PID namespace nobody knows which process it is.
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

    /// Takes a library's proof, and has a thread go on.
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
        // What the system does not let us do with this one it does not with the listener, either.
        drop(self.fetch(number)?);
        send(&self.socket, &[1])?;
        let left = PATIENCE.saturating_sub(self.begin.elapsed()).max(Duration::from_millis(1));
        set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
        let mut number = [0; 4];
        receive(&self.socket, &mut number, RecvFlags::empty())?;
        let listener = Listener::of(self.fetch(RawFd::from_ne_bytes(number))?)?;
        shared.supervised.add(self.number);
        send(&self.socket, &[1])?;
        Ok(listener)
    }

    /// A descriptor like one of the process's.
    fn fetch(&self, number: RawFd) -> Result<OwnedFd> {
        rustix::process::pidfd_getfd(&self.process, number, PidfdGetfdFlags::empty())
    }
}

/// One of the programs that are admitted.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// `None` if there are too many.
    fn take(admitted: &Arc<AtomicUsize>) -> Option<Self> {
        let slot = Self(Arc::clone(admitted));
        // Dropped, it is given back.
        (admitted.fetch_add(1, Ordering::Relaxed) < MOST).then_some(slot)
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

/// How many instructions the filter has, and those, in the form that seccomp(2) takes.
fn text(program: &BpfProgram) -> Vec<u8> {
    let mut bytes = (program.len() as u32).to_ne_bytes().to_vec();
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes
}

/// Sends a piece without waiting: the other end has room for all of it, or does not read.
fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let sent = rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    if sent == bytes.len() { Ok(()) } else { Err(denied()) }
}

/// Receives a piece as the library sends it: all at once, and nothing before it was asked for.
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

    /// Admits programs, without a node.
    fn supervisor(tag: NodeTag) -> Supervisor {
        let supervisor = Supervisor::new(Rules::new(Client::new(tag, TOKEN), "admits"), None).unwrap();
        supervisor.admit().unwrap();
        supervisor
    }

    /// As the library connects.
    fn connect(tag: NodeTag) -> OwnedFd {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        rustix::net::connect(&socket, &address(&Name::Programs(tag))).unwrap();
        socket
    }

    /// The challenge, with the filter read.
    fn challenge(socket: &OwnedFd) -> u128 {
        let program = text(&filter::program(false).unwrap());
        let mut hello = vec![0; 16 + program.len()];
        let (_, received) = rustix::net::recv(socket, &mut *hello, RecvFlags::WAITALL).unwrap();
        assert_eq!((received, &hello[16..]), (hello.len(), &*program));
        u128::from_ne_bytes(*hello.first_chunk().unwrap())
    }

    /// What is answered; nothing at the end.
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
        // And no file is a listener.
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
        let silent: Vec<_> = (0..2 * MOST_UNPROVEN).map(|_| connect(tag)).collect();
        let socket = connect(tag);
        let proof = admission_proof(TOKEN, challenge(&socket));
        assert_eq!(answer(&socket, socket.as_raw_fd(), proof), [1]);
        // All were accepted before it, and those that came first had to go.
        let is_open = |socket: &&OwnedFd| {
            challenge(socket);
            let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            rustix::net::recv(socket, &mut [0_u8; 1], look).is_err_and(|error| error == Errno::AGAIN)
        };
        let open = silent.iter().filter(is_open).count();
        assert!(open <= MOST_UNPROVEN, "{open} are still open");
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
        let mut slots: Vec<_> = (0..MOST).map(|_| Slot::take(&admitted).unwrap()).collect();
        assert!(Slot::take(&admitted).is_none() && Slot::take(&admitted).is_none());
        slots.pop();
        slots.push(Slot::take(&admitted).unwrap());
        assert!(Slot::take(&admitted).is_none());
        drop(slots);
        assert_eq!(admitted.load(Ordering::Relaxed), 0);
    }
}
