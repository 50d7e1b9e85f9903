//! Programs that one with the preloaded library starts, and that the library does not reach: static ones and
//! those of Go. The library has the process filtered before it starts such a program there, and its listener
//! comes here.
//!
//! ```text
//! library                                    launcher
//!    | ---- connects (Name::Programs) ---------> |
//!    | <--- challenge, filter ------------------ |
//!    | seccomp(2): a listener                    |
//!    | ---- its number, proof of the token ----> |  pidfd_getfd(2)
//!    | <--- one byte: calls are answered ------- |
//! ```
//!
//! The library reads and writes only: other calls would wait for somebody who answers them.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use peersock_bsd::{Errno, Result};
use peersock_fd::{Name, address, peer_credentials};
use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use seccompiler::BpfProgram;

use crate::filter;
use crate::listener::Listener;
use crate::supervisor::Shared;

/// Programs that are admitted at the same time, with what they have started; more cannot be started.
const MOST: usize = 512;

/// Threads that answer the calls of each.
const THREADS: usize = 2;

/// How long a library may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that wait for the thread that admits.
const BACKLOG: i32 = 128;

/// Starts the thread that admits programs; it ends when the supervisor does.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let program = filter::program(shared.context.rules.only);
    let program = Arc::new(program.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &address(&Name::Programs(shared.context.rules.client.tag())))?;
    rustix::net::listen(&socket, BACKLOG)?;
    let (shared, admitted) = (Arc::clone(shared), Arc::new(AtomicUsize::new(0)));
    thread::Builder::new().name("programs".into()).spawn(move || {
        while let Some(connection) = next(&shared, &socket) {
            // Who is refused here finds an end, and does not start the program.
            if admitted.fetch_add(1, Ordering::Relaxed) >= MOST {
                admitted.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (shared, program, counted) =
                (Arc::clone(&shared), Arc::clone(&program), Arc::clone(&admitted));
            let spawned = thread::Builder::new().name("program's calls".into()).spawn(move || {
                match admit(&shared, connection, &program) {
                    Ok(listener) => serve(&shared, &Arc::new(listener)),
                    Err(error) => tracing::debug!(%error, "a program is not admitted"),
                }
                counted.fetch_sub(1, Ordering::Relaxed);
            });
            if spawned.is_err() {
                admitted.fetch_sub(1, Ordering::Relaxed);
            }
        }
    })?;
    Ok(())
}

/// The next connection; `None` at the end.
fn next(shared: &Shared, socket: &OwnedFd) -> Option<OwnedFd> {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(shared.stop.as_fd(), PollFlags::IN),
            PollFd::new(socket, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return None,
            Ok(_) => {}
        }
        if shared.stopped.load(Ordering::Relaxed) {
            return None;
        }
        match rustix::net::accept_with(socket, SocketFlags::CLOEXEC) {
            Ok(connection) => return Some(connection),
            // There will be descriptors again.
            Err(Errno::MFILE | Errno::NFILE) => thread::sleep(Duration::from_millis(10)),
            Err(_) => {}
        }
    }
}

/// Gives a library the filter, and takes the listener of its process.
fn admit(shared: &Shared, connection: OwnedFd, program: &BpfProgram) -> io::Result<Listener> {
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    for direction in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&connection, direction, Some(PATIENCE))?;
    }
    // Of another PID namespace nobody knows which process it is.
    let process = Pid::from_raw(peer_credentials(connection.as_fd())?.pid).ok_or_else(denied)?;
    let mut challenge = [0; 16];
    getrandom::fill(&mut challenge).map_err(io::Error::other)?;
    write_all(&connection, &hello(challenge, program))?;
    let mut answer = [0; 20];
    read_exact(&connection, &mut answer)?;
    let (number, proof) = answer.split_first_chunk::<4>().ok_or_else(denied)?;
    let wanted = shared.context.rules.client.prove(u128::from_ne_bytes(challenge));
    if proof != wanted.to_ne_bytes() {
        return Err(denied());
    }
    let number = RawFd::from_ne_bytes(*number);
    let handle = rustix::process::pidfd_open(process, PidfdFlags::empty())?;
    let listener = rustix::process::pidfd_getfd(&handle, number, PidfdGetfdFlags::empty())?;
    let listener = Listener::of(listener)?;
    shared.supervised.add(process.as_raw_pid());
    write_all(&connection, &[1])?;
    Ok(listener)
}

/// What a library is told first: the challenge, how many instructions the filter has, and those, in the form
/// that seccomp(2) takes.
fn hello(challenge: [u8; 16], program: &BpfProgram) -> Vec<u8> {
    let mut bytes = challenge.to_vec();
    bytes.extend((program.len() as u32).to_ne_bytes());
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes
}

/// Answers the calls of a program until it and all that it has started have ended.
fn serve(shared: &Shared, listener: &Arc<Listener>) {
    let receiving = Mutex::default();
    thread::scope(|scope| {
        for _ in 1..THREADS {
            scope.spawn(|| shared.answer(listener, &receiving));
        }
        shared.answer(listener, &receiving);
    });
}

fn write_all(socket: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let written = rustix::net::send(socket, bytes, rustix::net::SendFlags::NOSIGNAL)?;
        bytes = &bytes[written..];
    }
    Ok(())
}

fn read_exact(socket: &OwnedFd, mut room: &mut [u8]) -> Result<()> {
    while !room.is_empty() {
        match rustix::io::read(socket, &mut *room)? {
            0 => return Err(Errno::CONNRESET),
            read => room = &mut room[read..],
        }
    }
    Ok(())
}
