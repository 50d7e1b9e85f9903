//! One call that is answered: it is tried until there is a result, whenever there is a reason.
//!
//! A try waits only for the node's answer, which comes at once. Each try starts anew with the thread's
//! arguments, so nothing of the program is held between two tries.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use libc::{c_int, c_ulong, sockaddr, socklen_t};
use peersock_bsd::ephemeral::cookie_of_any_port;
use peersock_bsd::{self as bsd, Errno, Result, Sides, Socket, TimeLimit};
use peersock_fd::{Kind, SocketFlags, option_table};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::net::sockopt::{self, Timeout, socket_timeout};

use crate::Context;
use crate::address::{Address, Answer};
use crate::sets;
use crate::target::Target;

/// Maximum length of an option's value, bytes.
const MAX_VALUE: u32 = 4096;

/// Held while a connection is accepted, so that no other supervised call takes the connection. It also
/// protects the listener's blocking mode, which is changed temporarily.
static ACCEPTING: Mutex<()> = Mutex::new(());

/// A call, and the state of earlier tries.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) target: Target,
    /// True if its connection attempt was begun here, and goes on.
    connects: bool,
    /// The number of replaced descriptors at the time of the last try, see [`Waiting::note_replaced`].
    ///
    /// [`Waiting::note_replaced`]: crate::waiting::Waiting::note_replaced
    pub(crate) replaced: u64,
    /// The number of messages it has received, which it returns if no more come.
    pub(crate) received: i64,
    /// Its time limit, which only recvmmsg(2) has.
    pub(crate) limit: Option<TimeLimit>,
}

/// Result of a try.
#[derive(Debug)]
pub(crate) enum Step {
    /// The call returns this value.
    Value(i64),
    /// The call returns this as a new descriptor, with close-on-exec or not.
    Descriptor(OwnedFd, bool),
    /// The same for a connection, which is reset if the call cannot return it.
    Connection(OwnedFd, bool),
    /// The kernel must make the call. Its arguments may have changed meanwhile, so this is not a boundary for
    /// programs that try to evade it.
    GoOn,
    /// There is no result yet.
    Wait(Wait),
}

/// Condition for the next try.
#[derive(Debug)]
pub(crate) struct Wait {
    /// An epoll set that becomes readable when a try is useful; `None` if only time decides.
    ///
    /// A set does not keep its members open, so the socket closes when the program closes it or ends.
    pub(crate) on: Option<OwnedFd>,
    /// Inode of the socket in the set.
    pub(crate) inode: u64,
    /// Timeout of the whole call, and its error then.
    pub(crate) limit: Option<Duration>,
    pub(crate) overdue: Errno,
}

/// The descriptor that a call concerns.
#[derive(Debug)]
pub(crate) struct Local {
    fd: OwnedFd,
    number: RawFd,
    /// Inode of the socket that the descriptor referred to at first.
    inode: u64,
}

impl Local {
    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Returns the inode of the socket that the descriptor referred to at first.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Returns true if calls on it block.
    pub(crate) fn blocks(&self) -> Result<bool> {
        Ok(!rustix::fs::fcntl_getfl(&self.fd)?.contains(OFlags::NONBLOCK))
    }

    /// Returns SO_RCVTIMEO or SO_SNDTIMEO.
    pub(crate) fn timeout(&self, which: Timeout) -> Result<Option<Duration>> {
        socket_timeout(&self.fd, which)
    }

    /// Returns a wait until it is ready.
    pub(crate) fn wait(self, events: EventFlags, timeout: Timeout, overdue: Errno) -> Result<Step> {
        let limit = self.timeout(timeout)?;
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&set, &self.fd, EventData::new_u64(0), events)?;
        let inode = rustix::fs::fstat(&self.fd)?.st_ino;
        Ok(Step::Wait(Wait { on: Some(set), inode, limit, overdue }))
    }
}

impl Call {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, connects: false, replaced: 0, received: 0, limit: None }
    }

    /// Tries to make the call. A failure here that is not the program's appears to it as EIO, because it must
    /// not wait forever.
    /// Fails with the call's error.
    pub(crate) fn attempt(&mut self, context: &Context) -> Result<Step> {
        // Read this before the try looks at its descriptor.
        self.replaced = context.waiting.count_replaced();
        catch_unwind(AssertUnwindSafe(|| self.try_it(context))).unwrap_or(Err(Errno::IO))
    }

    fn try_it(&mut self, context: &Context) -> Result<Step> {
        let only = context.rules.only;
        if context.images.is_preloaded(self.target.notice.thread) {
            // The library has taken the program's calls, so this call is the library's own or the C library
            // resolver's.
            let is_refused = only && self.target.notice.number == libc::SYS_socket;
            return if is_refused { Err(Errno::AFNOSUPPORT) } else { Ok(Step::GoOn) };
        }
        match self.target.notice.number {
            libc::SYS_socket => self.socket(context),
            libc::SYS_connect => self.connect(context),
            libc::SYS_bind => self.bind(context),
            libc::SYS_listen => self.listen(context),
            libc::SYS_accept => self.accept(0),
            libc::SYS_accept4 => self.accept(self.target.int(3)),
            libc::SYS_getsockname => self.getsockname(context),
            libc::SYS_getpeername => self.name(&self.local()?, |socket| socket.peer_addr()),
            libc::SYS_getsockopt => self.getsockopt(),
            libc::SYS_setsockopt => self.setsockopt(),
            libc::SYS_shutdown => self.shutdown(context),
            libc::SYS_ioctl if self.request() == libc::TIOCOUTQ => self.unacknowledged(),
            libc::SYS_ioctl => self.interface_request(context),
            libc::SYS_sendto => self.sendto(context),
            libc::SYS_recvfrom => self.recvfrom(context),
            libc::SYS_sendmsg => self.sendmsg(context),
            libc::SYS_recvmsg => self.recvmsg(context),
            libc::SYS_sendmmsg => self.sendmmsg(context),
            libc::SYS_recvmmsg => self.recvmmsg(context),
            _ => Ok(Step::GoOn),
        }
    }

    /// Returns the request of ioctl(2). The kernel and the filter use its low 32 bits only.
    pub(crate) fn request(&self) -> c_ulong {
        c_ulong::from(self.target.word(1) as u32)
    }

    /// Returns the descriptor named by the first argument.
    pub(crate) fn local(&self) -> Result<Local> {
        let number = self.target.int(0);
        let fd = self.target.fd(number)?;
        let inode = rustix::fs::fstat(&fd)?.st_ino;
        Ok(Local { fd, number, inode })
    }

    /// Replaces the thread's descriptor if our copy refers to another socket now, and its copies in the same
    /// process.
    pub(crate) fn settle(&self, context: &Context, local: &Local) -> Result<()> {
        if rustix::fs::fstat(&local.fd)?.st_ino == local.inode {
            return Ok(());
        }
        let old = self.target.fd(local.number);
        let was_overlay = old.is_ok_and(|old| bsd::overlay(old.as_raw_fd()).is_some());
        let thread = self.target.notice.thread;
        let copies = sets::copies(thread, local.inode).into_iter().filter(|copy| *copy != local.number);
        for number in copies.chain([local.number]) {
            let sets = sets::find(thread, number, local.inode);
            context.sets.remove(thread, number, &sets);
            // Another thread may have reused the number for another file meanwhile.
            let is_it = number == local.number || sets::is_socket(thread, number, local.inode);
            let put = if is_it { self.target.put(local.fd.as_fd(), number) } else { Ok(()) };
            context.sets.add(thread, number, sets);
            // A missing copy does not matter.
            if number == local.number {
                put?;
            }
        }
        // Calls on kernel sockets wait in the kernel.
        if was_overlay {
            context.waiting.note_replaced(local.inode);
        }
        Ok(())
    }

    fn socket(&self, context: &Context) -> Result<Step> {
        let (domain, kind, protocol) = (self.target.int(0), self.target.int(1), self.target.int(2));
        let opened = match context.sides().socket(domain, kind, protocol) {
            Err(_) if !context.rules.only => return Ok(Step::GoOn),
            opened => opened?,
        };
        // SAFETY: it was just opened, and no other code knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(opened) };
        // The thread opens a kernel socket itself, because it may lack our privileges.
        match bsd::overlay(opened) {
            Some(_) => Ok(Step::Descriptor(fd, kind & libc::SOCK_CLOEXEC != 0)),
            None => Ok(Step::GoOn),
        }
    }

    fn connect(&mut self, context: &Context) -> Result<Step> {
        let local = self.local()?;
        let address = Address::read(&self.target, self.target.word(1), self.target.int(2))?;
        if !address.is_internets() && bsd::overlay(local.raw()).is_none() {
            return Ok(Step::GoOn);
        }
        let Some(socket) = self.by_remote(context, &local, &address)? else { return Ok(Step::GoOn) };
        // The peer may have reset the connection meanwhile. As in Linux the next call says so.
        if self.connects && socket.has_connected()? {
            return Ok(Step::Value(0));
        }
        // SAFETY: the address is as long as the given length.
        let remote = unsafe { bsd::read_remote(&socket, address.pointer(), address.length()) }?;
        let at_once = match remote {
            None if socket.kind() == Kind::Stream => Some(bsd::dissolve(&socket, |_| Vec::new())),
            Some(remote) if bsd::has_failed(&socket) => {
                Some(bsd::connect_to(&socket, remote, |_| Vec::new()))
            }
            _ => None,
        };
        if let Some(done) = at_once {
            self.settle(context, &local)?;
            return done.map(|()| Step::Value(0));
        }
        let pending = |error: &Errno| matches!(*error, Errno::INPROGRESS | Errno::ALREADY);
        let socket = bsd::receiving(&socket, |_| Vec::new())?;
        self.settle(context, &local)?;
        // Check this first: while the node reports a refusal, it makes calls on non-blocking descriptors
        // block briefly.
        let blocks = self.connects || local.blocks()?;
        match socket.begin_connect(remote) {
            Err(error) if pending(&error) && socket.kind() == Kind::Stream && blocks => {
                // A second call for an attempt that goes on says so when its time is over.
                let overdue = if self.connects { Errno::INPROGRESS } else { error };
                self.connects = true;
                local.wait(EventFlags::OUT, Timeout::Send, overdue)
            }
            Err(error) => {
                // Unlike an AF_UNIX socket, a TCP socket may try again.
                if self.connects || bsd::ends_attempt(&socket, error) {
                    let _ = bsd::renew(&socket, |_| Vec::new());
                    self.settle(context, &local)?;
                }
                Err(error)
            }
            Ok(()) => Ok(Step::Value(0)),
        }
    }

    /// Returns the overlay socket that a descriptor is, or becomes because of an address. Returns `None` for
    /// a kernel socket.
    pub(crate) fn by_remote<'fd>(
        &self,
        context: &Context,
        local: &Local,
        address: &Address,
    ) -> Result<Option<Socket<'fd>>> {
        // SAFETY: the address is as long as the given length.
        let socket = unsafe { context.sides().by_remote(local.raw(), address.pointer(), address.length()) };
        self.settle(context, local)?;
        socket
    }

    fn bind(&self, context: &Context) -> Result<Step> {
        let local = self.local()?;
        let address = Address::read(&self.target, self.target.word(1), self.target.int(2))?;
        if !address.is_internets() && bsd::overlay(local.raw()).is_none() {
            return Ok(Step::GoOn);
        }
        let sides = context.sides();
        // SAFETY: the address is as long as the given length.
        let bound = unsafe { sides.bind(local.raw(), address.pointer(), address.length()) };
        self.settle(context, &local)?;
        let bound = bound?;
        // The kernel reports a wrong address.
        let address = address.get().ok().flatten();
        if let Some(cookie) = address.and_then(|address| cookie_of_any_port(local.raw(), address)) {
            context.any_ports.lock().unwrap_or_else(PoisonError::into_inner).note(cookie);
        }
        if let Some(bound) = bound {
            return Ok(Step::Value(bound.into()));
        }
        sides.vacate(address)?;
        Ok(Step::GoOn)
    }

    fn listen(&self, context: &Context) -> Result<Step> {
        let local = self.local()?;
        if bsd::overlay(local.raw()).is_none() && !bsd::is_candidate(local.raw()) {
            return Ok(Step::GoOn);
        }
        let listens = context.sides().listen(local.raw(), self.target.int(1));
        self.settle(context, &local)?;
        listens.map(|value| Step::Value(value.into()))
    }

    fn accept(&self, flags: c_int) -> Result<Step> {
        let local = self.local()?;
        let Some(socket) = bsd::overlay(local.raw()) else { return Ok(Step::GoOn) };
        let known = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let flags = SocketFlags::from_bits(flags as u32).filter(|flags| known.contains(*flags));
        let flags = flags.ok_or(Errno::INVAL)?;
        if socket.kind() != Kind::Stream {
            return Err(Errno::OPNOTSUPP);
        }
        // Check this first, as in Linux: an accepted connection without a free number would be lost.
        if !self.target.has_free_number() {
            return Err(Errno::MFILE);
        }
        // A socket that does not listen never becomes ready.
        if !sockopt::socket_acceptconn(&local.fd)? {
            return Err(socket.accept_error(Errno::INVAL));
        }
        // Lock before checking the mode, because a listener is briefly non-blocking while another call
        // accepts.
        let accepting = ACCEPTING.lock().unwrap_or_else(PoisonError::into_inner);
        let (fd, peer) = match local.blocks()? {
            false => socket.accept(flags)?,
            true if is_ready(&local)? => accept_now(&local, &socket, flags)?,
            true => return local.wait(EventFlags::IN, Timeout::Recv, Errno::AGAIN),
        };
        drop(accepting);
        if self.target.word(1) != 0 {
            self.tell(peer)?;
        }
        Ok(Step::Connection(fd, flags.contains(SocketFlags::CLOEXEC)))
    }

    fn getsockname(&self, context: &Context) -> Result<Step> {
        let local = self.local()?;
        self.tell_port(context, &local)?;
        self.name(&local, |socket| socket.local_addr())
    }

    /// Handles a program's query for a socket's address: a UDP socket that was bound to any port is on both
    /// networks from now on.
    fn tell_port(&self, context: &Context, local: &Local) -> Result<()> {
        let known = || context.any_ports.lock().unwrap_or_else(PoisonError::into_inner);
        if !known().is_empty()
            && let Some(cookie) = bsd::kernel::cookie(local.raw())
            && known().take(cookie)
        {
            // If the overlay has no room for it, it stays reachable from the system's network.
            let _ = context.sides().share(local.raw());
            self.settle(context, local)?;
        }
        Ok(())
    }

    fn name(&self, local: &Local, name: impl FnOnce(&Socket<'_>) -> Result<SocketAddr>) -> Result<Step> {
        let Some(socket) = bsd::overlay(local.raw()) else { return Ok(Step::GoOn) };
        // As in Linux, a socket without a name reports that before it checks the pointers.
        let name = name(&socket)?;
        self.tell(name)?;
        Ok(Step::Value(0))
    }

    /// Writes an address to the location in the second and third argument.
    fn tell(&self, address: SocketAddr) -> Result<()> {
        let mut answer = Answer::read(&self.target, self.target.word(1), self.target.word(2))?;
        let to = answer.pointers();
        // SAFETY: the answer has as much room as given.
        unsafe { bsd::write_address(address, to.address, to.length) }?;
        answer.write(&self.target)
    }

    fn getsockopt(&self) -> Result<Step> {
        let local = self.local()?;
        let Some(socket) = bsd::overlay(local.raw()) else { return Ok(Step::GoOn) };
        let (value_at, length_at) = (self.target.word(3), self.target.word(4));
        let room = self.target.read_u32(length_at)?;
        if i32::try_from(room).is_err() {
            return Err(Errno::INVAL);
        }
        let mut length: socklen_t = room.min(MAX_VALUE);
        let mut value = vec![0; length as usize];
        let (to, at) = (value.as_mut_ptr().cast(), &raw mut length);
        // SAFETY: the value has as much room as the given length.
        let done = unsafe { bsd::getsockopt(&socket, self.target.int(1), self.target.int(2), to, at) }?;
        self.target.write(value_at, &value[..(length as usize).min(value.len())])?;
        self.target.write(length_at, &length.to_ne_bytes())?;
        Ok(Step::Value(done.into()))
    }

    fn setsockopt(&self) -> Result<Step> {
        let local = self.local()?;
        let (level, name) = (self.target.int(1), self.target.int(2));
        let socket = bsd::overlay(local.raw());
        if socket.is_none() && !option_table::is_refused_early(level, name) {
            return Ok(Step::GoOn);
        }
        let length = u32::try_from(self.target.int(4)).map_err(|_| Errno::INVAL)?;
        if length > MAX_VALUE {
            return Err(Errno::INVAL);
        }
        let mut value = vec![0; length as usize];
        // A null pointer is not always the first error to report.
        let from = match self.target.word(3) {
            0 => std::ptr::null(),
            at => {
                self.target.read(at, &mut value)?;
                value.as_ptr().cast()
            }
        };
        let Some(socket) = socket else {
            // SAFETY: the value is as long as the given length.
            let is_refused = unsafe { bsd::is_refused_early(local.raw(), level, name, from, length) };
            return if is_refused { Err(Errno::NOPROTOOPT) } else { Ok(Step::GoOn) };
        };
        // SAFETY: the value is as long as the given length.
        let done = unsafe { bsd::setsockopt(&socket, level, name, from, length) }?;
        Ok(Step::Value(done.into()))
    }

    fn shutdown(&self, context: &Context) -> Result<Step> {
        let local = self.local()?;
        let Some(socket) = bsd::overlay(local.raw()) else { return Ok(Step::GoOn) };
        let done = bsd::shutdown_with(&socket, self.target.int(1), |_| Vec::new());
        self.settle(context, &local)?;
        done.map(|value| Step::Value(value.into()))
    }

    /// Handles SIOCOUTQ of a stream.
    fn unacknowledged(&self) -> Result<Step> {
        let local = self.local()?;
        let Some(socket) = bsd::overlay(local.raw()).filter(|socket| socket.kind() == Kind::Stream) else {
            return Ok(Step::GoOn);
        };
        self.target.write(self.target.word(2), &bsd::unacknowledged(&socket)?.to_ne_bytes())?;
        Ok(Step::Value(0))
    }
}

/// Buffer for an address that a call returns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pointers {
    pub(crate) address: *mut sockaddr,
    pub(crate) length: *mut socklen_t,
}

impl Context {
    /// Returns the rules for turning this process's descriptors into overlay sockets; [`Call::settle`]
    /// updates the thread's.
    pub(crate) fn sides(&self) -> Sides<'_> {
        Sides { rules: &self.rules, counterpart: bsd::counterpart, sets: |_| Vec::new(), wakes: false }
    }
}

fn is_ready(local: &Local) -> Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(local.fd.as_fd(), PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::event::poll(&mut fds, Some(&now))? > 0)
}

/// Accepts on a ready listener without ever blocking, because an unsupervised process may have taken the
/// connection. Other processes may see the listener non-blocking for this moment, which is the lesser evil.
fn accept_now(local: &Local, socket: &Socket<'_>, flags: SocketFlags) -> Result<(OwnedFd, SocketAddr)> {
    let usual = rustix::fs::fcntl_getfl(&local.fd)?;
    rustix::fs::fcntl_setfl(&local.fd, usual | OFlags::NONBLOCK)?;
    let accepted = socket.accept(flags);
    rustix::fs::fcntl_setfl(&local.fd, usual)?;
    accepted
}
