//! `listen --exec`: a program for each connection, as inetd starts one.
//!
//! The program's stdin and stdout are one end of a pair of Unix domain sockets, whose other end is relayed.
//! So the program can half-close, poll and wait as on any socket, with a node of this process or a shared
//! one. A descriptor of the shared node itself would show a reset as a regular end, because only peersock's
//! library asks the node why a connection has ended.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use data_encoding::HEXLOWER;
use peersock::PeerIdentity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Access;
use rustix::io::{FdFlags, fcntl_setfd, retry_on_intr};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process_group,
    set_parent_process_death_signal, setrlimit, waitid,
};

use crate::failure::{Failure, Outcome};
use crate::managed::INVITE_VARIABLE;
use crate::sockets::Stream;
use crate::{stdio, stream};

/// Size of reads and writes in bytes.
const BUFFER: usize = 64 * 1024;

/// Interval at which a connection is looked at while its peer has finished and the program writes nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Time that programs get to finish after Ctrl-C or SIGTERM, and in any case after their own SIGTERM.
const LINGER: Duration = Duration::from_secs(5);
const AFTER_SIGTERM: Duration = Duration::from_secs(3);

/// Limit of the wait for acknowledgments of a live peer.
const DELIVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// The variables that a program gets; those that were set before are removed, as they say nothing of the
/// peer.
const VARIABLES: [&str; 13] = [
    "PEERSOCK_PEER_NETWORK",
    "PEERSOCK_PEER_NODE",
    "PEERSOCK_PEER_MACHINE",
    "PEERSOCK_PEER_NAME",
    "PEERSOCK_PEER_LABEL",
    "PEERSOCK_PEER_TAGS",
    "PEERSOCK_PEER_CLAIMS",
    "PEERSOCK_PEER_GATEWAY",
    "PEERSOCK_PEER_ADDRESS",
    "PEERSOCK_PEER_PORT",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "REMOTE_HOST",
];

/// The program that serves connections, and the connections that it serves.
pub(crate) struct Program {
    path: PathBuf,
    words: Vec<OsString>,
    /// Limit of descriptors with which this command was started, and which the node raises for itself.
    descriptors: Rlimit,
    served: Mutex<Served>,
    changed: Condvar,
}

#[derive(Default)]
struct Served {
    entries: BTreeMap<u64, Entry>,
    last: u64,
    is_ending: bool,
    /// True once the programs that were left have got SIGTERM, and may have left their data incomplete.
    is_cut: bool,
}

struct Entry {
    /// The process. It is not waited for while it is here, so that its group keeps its number.
    process: Option<Pid>,
    has_ended: bool,
    is_told: bool,
    stream: Stream,
}

impl Entry {
    fn signal(&self, signal: Signal) {
        if let Some(process) = self.process {
            let _ = kill_process_group(process, signal);
        }
    }

    /// Sends SIGTERM, once.
    fn tell(&mut self) {
        if !self.is_told {
            self.signal(Signal::TERM);
        }
        self.is_told = true;
    }
}

impl Program {
    /// Finds a program, whose words begin with its name or path. From now on, no program that this process
    /// starts inherits other descriptors than 0, 1 and 2.
    pub(crate) fn find(words: &[OsString]) -> Outcome<Program> {
        let (name, _) = words.split_first().expect("the parser asks for one");
        let path = lookup(name).ok_or_else(|| {
            Failure::usage(
                format_args!("there is no program `{}` to execute", name.display()),
                "give the path of a program, or install it where PATH leads; --exec and its words come last",
            )
        })?;
        keep_descriptors()?;
        Ok(Program {
            path,
            words: words.to_vec(),
            descriptors: getrlimit(Resource::Nofile),
            served: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Serves a connection: returns when the program has ended, and the peer has its data.
    pub(crate) fn serve(self: &Arc<Self>, stream: &Stream, client: SocketAddr) -> Outcome {
        let (own, number, mut child) = self.start(stream, client).inspect_err(|_| {
            // Resets the connection, because the end of an empty stream might look like an answer.
            let _ = stream.give_up();
        })?;
        let relayed = self.relay(stream, &own, number);
        if let Some(entry) = self.lock().entries.get_mut(&number) {
            // Once it is waited for, its number may be that of another process.
            entry.process = None;
        }
        let served = relayed.and(self.check(child.wait().ok()));
        if served.is_err() {
            let _ = stream.give_up();
        }
        self.lock().entries.remove(&number);
        self.changed.notify_all();
        served
    }

    /// Starts the program. Returns the other end of its stdin and stdout.
    fn start(&self, stream: &Stream, client: SocketAddr) -> Outcome<(UnixStream, u64, Child)> {
        let (own, stdin) = UnixStream::pair()?;
        own.set_read_timeout(Some(LOOK_INTERVAL))?;
        let stdout = stdin.try_clone()?;
        let mut command = Command::new(&self.path);
        command.arg0(&self.words[0]).args(&self.words[1..]);
        command.stdin(OwnedFd::from(stdin)).stdout(OwnedFd::from(stdout));
        // The program has its own process group, so that Ctrl-C leaves it time to finish, and SIGTERM reaches
        // what it has started.
        command.process_group(0);
        for name in VARIABLES.into_iter().chain([INVITE_VARIABLE]) {
            command.env_remove(name);
        }
        command.envs(variables(client, stream.peer().as_ref()));
        prepare(&mut command, self.descriptors);
        let stream = stream.try_clone()?;
        // Under the lock, so that the end of the command finds each program that was started.
        let mut served = self.lock();
        if served.is_ending {
            return Err(ending());
        }
        let child = command.spawn().map_err(|error| {
            Failure::new(
                format_args!("`{}` cannot be executed: {error}", self.path.display()),
                "check its permissions, its first line, and the limits of processes and descriptors",
            )
        })?;
        served.last += 1;
        let number = served.last;
        let process = Pid::from_raw(child.id().cast_signed());
        served.entries.insert(number, Entry { process, has_ended: false, is_told: false, stream });
        Ok((own, number, child))
    }

    fn relay(self: &Arc<Self>, stream: &Stream, own: &UnixStream, number: u64) -> Outcome {
        let [has_peer_ended, is_broken, is_unread] = [(); 3].map(|()| AtomicBool::new(false));
        thread::scope(|scope| {
            let waiting = thread::Builder::new().spawn_scoped(scope, move || self.watch(number));
            let watcher = waiting.inspect_err(|_| self.end_process(number, own))?;
            let receiving = thread::Builder::new().spawn_scoped(scope, || {
                let received = receive(stream, own, &has_peer_ended, &is_unread);
                if received.is_err() {
                    is_broken.store(true, Ordering::SeqCst);
                    // Before the end of its stdin, which would look like the regular end.
                    self.end_process(number, own);
                    let _ = own.shutdown(Shutdown::Both);
                }
                received
            });
            let receiver = receiving.inspect_err(|_| self.end_process(number, own))?;
            let sent =
                send(stream, own, &has_peer_ended, &is_unread).and_then(|()| match self.lock().is_cut {
                    true => Err(ending()),
                    // An end before the reset would look as if the program had read everything.
                    false if is_unread.load(Ordering::SeqCst) => Ok(()),
                    false => stream::finish_sending(stream),
                });
            if sent.is_err() {
                self.end_process(number, own);
                let _ = own.shutdown(Shutdown::Both);
            }
            watcher.join().expect("the watcher does not panic");
            let finished = sent.and_then(|()| deliver(stream, &has_peer_ended, &is_unread));
            // Ends a read that waits for a peer who has not finished, which the program has not waited for.
            let is_received = has_peer_ended.load(Ordering::SeqCst) || is_broken.load(Ordering::SeqCst);
            if !is_received {
                let _ = stream.shutdown(Shutdown::Read);
            }
            // Ends a write to a process that the program has left behind.
            let _ = own.shutdown(Shutdown::Both);
            let received = receiver.join().expect("the receiver does not panic");
            if is_unread.load(Ordering::SeqCst) {
                let _ = stream.give_up();
            }
            // After the program's end, the state of what it has not read is not an error.
            finished.and(if is_received { received } else { Ok(()) })
        })
    }

    /// Waits for the end of the program, and leaves it a zombie.
    fn watch(&self, number: u64) {
        let Some(process) = self.lock().entries.get(&number).and_then(|entry| entry.process) else { return };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let waited = retry_on_intr(|| waitid(WaitId::Pid(process), options));
        if let Some(entry) = self.lock().entries.get_mut(&number) {
            entry.has_ended = true;
            if waited.is_err() {
                // The process that started this command has left SIGCHLD ignored, so there is no zombie.
                entry.process = None;
            }
        }
        self.changed.notify_all();
    }

    /// Returns the failure of a program that says that it has failed.
    fn check(&self, status: Option<ExitStatus>) -> Outcome {
        // The process that started this command may have left SIGCHLD ignored; then the system tells no
        // status.
        let Some(status) = status.filter(|status| !status.success()) else { return Ok(()) };
        let name = self.words[0].display();
        Err(match (status.code(), status.signal()) {
            (Some(code), _) => Failure::new(
                format_args!("`{name}` has ended with status {code}"),
                "look what it says on stderr",
            ),
            (None, signal) => Failure::new(
                format_args!("`{name}` was ended by signal {}", signal.unwrap_or_default()),
                "look what it says on stderr, and who has sent the signal",
            ),
        })
    }

    /// Ends the program and all in its group by SIGTERM, or by SIGKILL after [`AFTER_SIGTERM`]. Returns once
    /// it has ended, and all that it has started have closed their ends of the connection.
    fn end_process(&self, number: u64, own: &UnixStream) {
        let until = Instant::now() + AFTER_SIGTERM;
        let mut served = self.lock();
        served.entries.get_mut(&number).into_iter().for_each(Entry::tell);
        let runs = |served: &mut Served| served.entries.get(&number).is_some_and(|entry| !entry.has_ended);
        let waited = self.changed.wait_timeout_while(served, AFTER_SIGTERM, runs);
        let has_ended = !waited.expect("no panic under this lock").1.timed_out();
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("it is some seconds");
        // POLLHUP comes unasked.
        let closed = retry_on_intr(|| poll(&mut [PollFd::new(own, PollFlags::empty())], Some(&left)));
        if !has_ended || closed != Ok(1) {
            self.lock().entries.get(&number).into_iter().for_each(|entry| entry.signal(Signal::KILL));
        }
    }

    /// Ends serving: programs get [`LINGER`] to finish, then SIGTERM, and SIGKILL after [`AFTER_SIGTERM`].
    /// Their peers are reset.
    pub(crate) fn end(&self) {
        self.lock().is_ending = true;
        let open = self.lock().entries.len();
        if open == 0 {
            return;
        }
        let programs = if open == 1 { "1 program runs".to_owned() } else { format!("{open} programs run") };
        stdio::note(format_args!(
            "{programs} still, for {} s at most; one more signal ends this command at once",
            LINGER.as_secs()
        ));
        if self.wait_ended(LINGER) {
            return;
        }
        let mut served = self.lock();
        served.is_cut = true;
        for entry in served.entries.values_mut() {
            entry.tell();
            let _ = entry.stream.give_up();
        }
        drop(served);
        self.wait_ended(AFTER_SIGTERM);
        self.lock().entries.values().for_each(|entry| entry.signal(Signal::KILL));
    }

    /// Waits until no program is left; returns false after the timeout.
    fn wait_ended(&self, within: Duration) -> bool {
        let is_busy = |served: &mut Served| !served.entries.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), within, is_busy);
        !waited.expect("no panic under this lock").1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, Served> {
        self.served.lock().expect("no panic under this lock")
    }
}

fn ending() -> Failure {
    Failure::new("the command is ending", "start the command again")
}

/// Makes no program inherit the descriptors that this command has inherited. This command opens all its own
/// ones so.
#[allow(unsafe_code)]
fn keep_descriptors() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|number| *number > 2) else { continue };
        // SAFETY: the descriptor is borrowed for this call alone. It is not closed in the meantime,
        // because the process has no other thread yet.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    Ok(())
}

/// Makes a program have this limit of descriptors, and get SIGTERM when this command is killed.
#[allow(unsafe_code)]
fn prepare(command: &mut Command, descriptors: Rlimit) {
    let prepare = move || {
        // The thread that starts the program waits for its end.
        set_parent_process_death_signal(Some(Signal::TERM))?;
        Ok(setrlimit(Resource::Nofile, descriptors)?)
    };
    // SAFETY: the closure makes two system calls, takes no lock and allocates nothing, as signal-safety(7)
    // demands after a fork.
    unsafe { command.pre_exec(prepare) };
}

/// Passes data of the peer on until its end, or until the program reads no more.
fn receive(
    mut stream: &Stream,
    mut own: &UnixStream,
    has_peer_ended: &AtomicBool,
    is_unread: &AtomicBool,
) -> Outcome {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                has_peer_ended.store(true, Ordering::SeqCst);
                // Fails if the program has ended.
                let _ = own.shutdown(Shutdown::Write);
                return Ok(());
            }
            // The program reads no more, but may still write. The peer has to wait, as on any socket.
            Ok(count) if own.write_all(&buffer[..count]).is_err() => {
                is_unread.store(true, Ordering::SeqCst);
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(stream::broken(stream, &error)),
        }
    }
}

/// Passes the program's data on until it, and all that it has started, write no more.
fn send(
    mut stream: &Stream,
    mut own: &UnixStream,
    has_peer_ended: &AtomicBool,
    is_unread: &AtomicBool,
) -> Outcome {
    let mut buffer = vec![0; BUFFER];
    loop {
        match own.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                stream.write_all(&buffer[..count]).map_err(|error| stream::broken(stream, &error))?
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nothing else would show that a peer has gone that has finished before.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let looks = has_peer_ended.load(Ordering::SeqCst);
                if let Some(error) = looks.then(|| stream.broken()).flatten() {
                    return Err(stream::broken(stream, &error));
                }
            }
            // The program has ended without reading everything.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                is_unread.store(true, Ordering::SeqCst);
                return Ok(());
            }
            Err(error) => return Err(Failure::from(error)),
        }
    }
}

/// Waits until the peer has acknowledged everything.
fn deliver(stream: &Stream, has_peer_ended: &AtomicBool, is_unread: &AtomicBool) -> Outcome {
    let has_both_ended = has_peer_ended.load(Ordering::SeqCst) && !is_unread.load(Ordering::SeqCst);
    let delivered = match has_both_ended {
        true => stream.wait_delivered(),
        false => stream.wait_acknowledged(DELIVERY),
    };
    delivered.map_err(|error| stream::broken(stream, &error))
}

/// Returns the variables about the peer.
fn variables(client: SocketAddr, peer: Option<&PeerIdentity>) -> Vec<(&'static str, String)> {
    let (address, port) = (client.ip().to_string(), client.port().to_string());
    let mut variables = vec![
        ("PEERSOCK_PEER_ADDRESS", address.clone()),
        ("PEERSOCK_PEER_PORT", port.clone()),
        // As systemd's units with `Accept=yes`.
        ("REMOTE_ADDR", address),
        ("REMOTE_PORT", port),
    ];
    let Some(peer) = peer else { return variables };
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let of_peer = [
        ("PEERSOCK_PEER_NETWORK", Some(peer.network.to_string())),
        ("PEERSOCK_PEER_NODE", Some(peer.node.to_string())),
        ("PEERSOCK_PEER_MACHINE", Some(peer.machine.to_string())),
        ("PEERSOCK_PEER_NAME", peer.name.clone()),
        ("PEERSOCK_PEER_LABEL", peer.label.clone()),
        ("PEERSOCK_PEER_TAGS", some(peer.tags.join(","))),
        ("PEERSOCK_PEER_CLAIMS", some(HEXLOWER.encode(&peer.claims))),
        ("PEERSOCK_PEER_GATEWAY", peer.gateway.then(|| "1".to_owned())),
    ];
    variables.extend(of_peer.into_iter().filter_map(|(name, value)| Some((name, value?))));
    variables
}

/// Finds a program as a shell does.
fn lookup(name: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &Path| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    if name.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| !name.is_empty() && is_program(path))
}
