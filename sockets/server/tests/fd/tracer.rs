//! A child of this process into whose system calls ptrace(2) injects signals. The handler does nothing,
//! forks, or makes another call. The tracer also notes the requests that the child sends to its node.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use peersock_fd::{MAX_MESSAGE, Message, Socket, VERSION, decode};

use crate::child::Child;
use crate::requests::name_of;

/// Signal that marks the begin and the end of the interrupted part; the child raises it.
const END_SIGNAL: libc::c_int = libc::SIGUSR2;

/// The signal that interrupts; calls are not restarted.
const SIGNAL: libc::c_int = libc::SIGUSR1;

/// Maximum number of consecutive calls that get a signal.
const STORM_SIGNALS: usize = 8;

/// Number of requests of one kind in a run that get signals. A socket that replaces another repeats dozens of
/// options, each in the same way.
const MAX_RESTARTS: usize = 6;

/// The system calls by which the library asks the node about a socket.
const WAITING_CALLS: [libc::c_long; 7] = [
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_fstat,
    libc::SYS_getpid,
];

/// Time long enough for a node to answer, and for two to connect.
const SETTLE_TIME: Duration = Duration::from_millis(15);

/// The system calls that get a signal as they begin, relative to a given call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signals {
    /// The given call.
    One,
    /// The given call. If it is interrupted, the program continues only after the others have finished.
    OneThenWait,
    /// The given call and the next ones.
    Storm,
    /// The given call, and the handler forks.
    Fork(Forked),
    /// The given call, and the handler makes the [`again`](Steps::again) call of the program.
    Again,
}

/// Behavior of a child that is forked in the middle of a call. It has copies of all descriptors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Forked {
    /// Exits at once.
    Exits,
    /// Closes all descriptors, and exits only later.
    Closes,
    /// Asks the node about every socket, and exits.
    Uses,
}

/// The handler's action, in a child.
static HANDLED: OnceLock<Again> = OnceLock::new();

/// The number of times that the handler has run.
static HANDLED_COUNT: AtomicU32 = AtomicU32::new(0);

impl Signals {
    fn handling(self, again: Option<Again>) -> Again {
        match (self, again) {
            (Self::Fork(forked), _) => Box::new(move || forked.fork()),
            (Self::Again, Some(again)) => again,
            _ => Box::new(|| {}),
        }
    }
}

impl Forked {
    fn fork(self) {
        // The C library's fork(2) takes locks that the interrupted code may hold.
        // SAFETY: as fork(2), no pointers.
        if unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } != 0 {
            return;
        }
        match self {
            Self::Exits => {}
            // SAFETY: nothing in this child uses its descriptors afterwards.
            Self::Closes => unsafe {
                libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
                libc::usleep(5_000);
            },
            Self::Uses => use_all(),
        }
        // SAFETY: it ends the process and does not return.
        unsafe { libc::_exit(0) };
    }
}

/// Asks the node about every socket of this process.
pub(crate) fn use_all() {
    for number in 3..64 {
        // SAFETY: nothing closes descriptors meanwhile; the calls fail for missing ones.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        match Socket::of(fd) {
            Some(socket) => drop(socket.local_addr()),
            None => drop(rustix::net::getsockname(fd)),
        }
    }
}

/// A repeated call.
pub(crate) type Again = Box<dyn Fn() + Send + Sync>;

/// The work that the child repeats: it prepares, then runs the interrupted part and reports its result.
pub(crate) trait Steps {
    /// The value that [`interrupted`](Self::interrupted) works with.
    type Prepared;
    /// Prepares; never interrupted.
    fn prepare(&mut self) -> Self::Prepared;
    /// Runs the interrupted part.
    fn interrupted(&mut self, prepared: &mut Self::Prepared) -> String;
    /// Returns the visible state afterwards; never interrupted.
    fn after(&mut self, prepared: Self::Prepared) -> String;
    /// Returns the call to repeat in the middle of the interrupted part, if there is one.
    fn again(&self) -> Option<Again> {
        None
    }
}

/// Result of each run, and the names of the requests that the child has sent meanwhile.
pub(crate) type Seen = (Vec<String>, BTreeSet<&'static str>);

/// The number of times that each request was sent.
type Requests = BTreeMap<&'static str, usize>;

/// Makes a forked child do the steps with signals at the first system call, then at the second, and so on
/// through all calls.
pub(crate) fn trace(signals: Signals, mut steps: impl Steps) -> Seen {
    let mut traced = Traced::new(signals, &mut steps);
    let (mut seen, mut requests) = (Vec::new(), BTreeSet::new());
    loop {
        let (text, is_last) = traced.run(signals, seen.len(), &mut requests);
        seen.push(text);
        if is_last {
            return (seen, requests);
        }
    }
}

/// Like [`trace`], with a new child for each run, which connects to its node anew.
pub(crate) fn trace_anew(signals: Signals, mut steps: impl Steps) -> Seen {
    let (mut seen, mut requests) = (Vec::new(), BTreeSet::new());
    loop {
        let mut traced = Traced::new(signals, &mut steps);
        let (text, is_last) = traced.run(signals, seen.len(), &mut requests);
        seen.push(text);
        if is_last {
            return (seen, requests);
        }
    }
}

/// A traced child.
struct Traced {
    child: Child,
    told: PipeReader,
    /// The number of times that its handler has run.
    times: u32,
    memory: File,
}

impl Traced {
    fn new(signals: Signals, steps: &mut impl Steps) -> Self {
        let (told, mut tells) = std::io::pipe().expect("a pipe");
        let child = Child::new(|| run_child(signals, steps, &mut tells));
        drop(tells);
        child.wait_for_stop();
        ptrace(libc::PTRACE_SETOPTIONS, child.0, libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL);
        let memory = File::open(format!("/proc/{}/mem", child.0)).expect("it is our child");
        child.resume(libc::PTRACE_CONT, 0);
        Self { child, told, times: 0, memory }
    }

    /// Lets it do the steps with signals from its system call number `first` on. Returns their result, and
    /// true if there were not more calls.
    fn run(
        &mut self,
        signals: Signals,
        first: usize,
        requests: &mut BTreeSet<&'static str>,
    ) -> (String, bool) {
        self.child.run_to_mark();
        let mut sent = Requests::new();
        let calls = self.interrupt(signals, first, &mut sent);
        requests.extend(sent.into_keys());
        // The result comes before the next mark, to which the child runs now.
        let mut numbers = [[0; 4]; 2];
        self.child.resume(libc::PTRACE_CONT, 0);
        self.told.read_exact(numbers.as_flattened_mut()).expect("it lives");
        let [length, handled] = numbers.map(u32::from_ne_bytes);
        let mut text = vec![0; length as usize];
        self.told.read_exact(&mut text).expect("it lives");
        assert!(handled > self.times || first >= calls, "no signal came at call {first}");
        self.times = handled;
        (String::from_utf8(text).expect("text"), first >= calls)
    }

    /// Returns the request that the child is about to send with this message.
    fn request(&self, message: u64) -> Option<&'static str> {
        let number = |at: u64| {
            let mut bytes = [0; 8];
            self.memory.read_exact_at(&mut bytes, at).ok().map(|()| u64::from_ne_bytes(bytes))
        };
        // The pieces of a `msghdr`, and the place and length of an `iovec`.
        let piece = number(message + std::mem::offset_of!(libc::msghdr, msg_iov) as u64)?;
        let (place, length) = (number(piece)?, number(piece + 8)?);
        let mut bytes = vec![0; usize::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE)?];
        self.memory.read_exact_at(&mut bytes, place).ok()?;
        let message = decode::<Message>(&bytes).filter(|message| message.version == VERSION)?;
        Some(name_of(&message.request))
    }

    /// Lets it run until the next mark with signals from its system call number `first` on. Returns the
    /// number of its calls.
    fn interrupt(&self, signals: Signals, first: usize, requests: &mut Requests) -> usize {
        let child = &self.child;
        let mut calls = 0;
        let (mut has_signal, mut is_repeated) = (false, false);
        child.resume(libc::PTRACE_SYSCALL, 0);
        loop {
            let stopped_by = child.wait_for_stop();
            let mut passed_on = 0;
            match stopped_by {
                END_SIGNAL => return calls,
                stop if stop == libc::SIGTRAP | 0x80 => match child.call() {
                    Call::Begins(libc::SYS_rt_sigreturn, _) => {}
                    Call::Begins(number, message) => {
                        let request = match number {
                            libc::SYS_sendmsg => self.request(message),
                            _ => None,
                        };
                        if let Some(request) = request {
                            *requests.entry(request).or_insert(0) += 1;
                            is_repeated = requests[request] > MAX_RESTARTS;
                        }
                        if is_repeated && WAITING_CALLS.contains(&number) {
                            has_signal = false;
                            child.resume(libc::PTRACE_SYSCALL, 0);
                            continue;
                        }
                        has_signal = match signals {
                            Signals::One | Signals::OneThenWait | Signals::Fork(_) | Signals::Again => {
                                calls == first
                            }
                            Signals::Storm => (first..first + STORM_SIGNALS).contains(&calls),
                        };
                        if has_signal {
                            // SAFETY: no pointers.
                            unsafe { libc::syscall(libc::SYS_tgkill, child.0, child.0, SIGNAL) };
                        }
                        calls += 1;
                    }
                    Call::IsInterrupted if has_signal && matches!(signals, Signals::OneThenWait) => {
                        std::thread::sleep(SETTLE_TIME);
                    }
                    Call::IsInterrupted | Call::Ends => {}
                },
                other => passed_on = other,
            }
            child.resume(libc::PTRACE_SYSCALL, passed_on);
        }
    }
}

fn run_child(signals: Signals, steps: &mut impl Steps, tells: &mut impl Write) {
    extern "C" fn handle(_: libc::c_int) {
        HANDLED_COUNT.fetch_add(1, Ordering::Relaxed);
        HANDLED.get().inspect(|handled| handled());
    }
    HANDLED.get_or_init(|| signals.handling(steps.again()));
    // SAFETY: the handler takes no lock and no heap memory; all bytes of the struct may be zero. Its children
    // need no wait. The others take no pointers.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handle as *const () as usize;
        libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut());
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        libc::raise(libc::SIGSTOP);
    }
    // Its parent ends it.
    loop {
        let mut prepared = steps.prepare();
        mark();
        let seen = steps.interrupted(&mut prepared);
        mark();
        let seen = format!("{seen}; {}", steps.after(prepared));
        let numbers = [seen.len() as u32, HANDLED_COUNT.load(Ordering::Relaxed)].map(u32::to_ne_bytes);
        tells.write_all(&[numbers.as_flattened(), seen.as_bytes()].concat()).expect("it is listened to");
    }
}

fn mark() {
    // SAFETY: no pointers. The tracer suppresses the signal.
    unsafe { libc::raise(END_SIGNAL) };
}

impl Child {
    /// Returns the signal by which it has stopped; with 0x80 it is at a system call.
    fn wait_for_stop(&self) -> libc::c_int {
        let mut status = 0;
        // SAFETY: the pointer is to a live variable.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) };
        assert!(waited == self.0 && libc::WIFSTOPPED(status), "it has ended: {status:#x}");
        libc::WSTOPSIG(status)
    }

    fn resume(&self, how: libc::c_uint, signal: libc::c_int) {
        ptrace(how, self.0, signal);
    }

    /// Lets it run until the next mark.
    fn run_to_mark(&self) {
        loop {
            match self.wait_for_stop() {
                END_SIGNAL => return,
                other => self.resume(libc::PTRACE_CONT, other),
            }
        }
    }

    fn call(&self) -> Call {
        let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
        // SAFETY: the pointer is to a live variable of the given size; what the kernel does not write of it
        // is zero, which all its fields may be.
        let info = unsafe {
            let size = size_of::<libc::ptrace_syscall_info>();
            libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.0, size, info.as_mut_ptr());
            info.assume_init()
        };
        // SAFETY: `op` determines the valid field.
        unsafe {
            match info.op {
                libc::PTRACE_SYSCALL_INFO_ENTRY => {
                    Call::Begins(info.u.entry.nr as libc::c_long, info.u.entry.args[1])
                }
                // EINTR, and errors that become EINTR where calls are not restarted.
                libc::PTRACE_SYSCALL_INFO_EXIT if [-4, -512, -514, -516].contains(&info.u.exit.sval) => {
                    Call::IsInterrupted
                }
                _ => Call::Ends,
            }
        }
    }
}

/// The end of a system call at which a child is stopped.
enum Call {
    /// The number of the call, and its second argument.
    Begins(libc::c_long, u64),
    IsInterrupted,
    Ends,
}

fn ptrace(request: libc::c_uint, child: libc::pid_t, data: libc::c_int) {
    // SAFETY: none of the requests made here has a pointer.
    let result = unsafe { libc::ptrace(request, child, 0, libc::c_long::from(data)) };
    assert_eq!(result, 0, "ptrace: {}", std::io::Error::last_os_error());
}

/// Returns true if children may be traced here.
pub(crate) fn is_allowed(test: &str) -> bool {
    // SAFETY: as in `trace`; no pointers but one to a live variable.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::_exit(i32::from(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) != 0));
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        status
    };
    if status != 0 {
        eprintln!("SKIP {test}: processes may not be traced here");
    }
    status == 0
}
