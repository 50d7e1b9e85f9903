//! Calls of a program whose sockets start as kernel sockets. An overlay address turns the descriptor into an
//! overlay socket; for other addresses it stays a kernel socket.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

use libc::{c_int, sockaddr, socklen_t};
use peersock_fd::{Client, Errno, Request, Socket};

use crate::convert::replace_if;
use crate::kernel::{borrow, check, int_option};
use crate::{EpollSets, Result, Rules, Side, alongside, calls, copies, either, kernel, replace, replaced};

/// The rules, and the conversion of this process's descriptors to overlay sockets.
#[derive(Clone, Copy)]
pub struct Sides<'a> {
    /// The rules that assign sockets to networks.
    pub rules: &'a Rules,
    /// Opens an overlay socket like a descriptor, see [`counterpart`](crate::counterpart).
    pub counterpart: fn(&Client, RawFd) -> Result<OwnedFd>,
    /// Finds the epoll sets of a descriptor, which may be a kernel or an overlay socket.
    pub sets: fn(RawFd) -> EpollSets,
    /// True if the program's threads are this process's, and must be woken when their datagram socket becomes
    /// an overlay socket, see [`replaced`].
    pub wakes: bool,
}

/// Target of a call.
pub enum Chosen<'fd> {
    /// The kernel socket; the caller must make the call.
    Kernels,
    /// The overlay socket.
    Overlays(Socket<'fd>),
    /// The call is done: the socket is bound, or listens, on both networks, or may do so.
    Done,
}

/// Returns the overlay socket of a descriptor.
pub fn overlay<'fd>(fd: RawFd) -> Option<Socket<'fd>> {
    Socket::of(borrow(fd)?)
}

/// Returns true if a descriptor is an IPv4 or IPv6 kernel socket that the overlay supports.
pub fn is_candidate(fd: RawFd) -> bool {
    let option = |name| int_option(fd, libc::SOL_SOCKET, name);
    let has_family = matches!(option(libc::SO_DOMAIN), Some(libc::AF_INET | libc::AF_INET6));
    let kinds = [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
    let is_raw = option(libc::SO_TYPE) == Some(libc::SOCK_RAW);
    has_family && (is_raw || option(libc::SO_PROTOCOL).is_some_and(|protocol| kinds.contains(&protocol)))
}

/// Returns the address that a kernel socket is bound to.
pub fn bound(fd: RawFd) -> Option<SocketAddr> {
    let address = rustix::net::getsockname(borrow(fd)?).ok()?;
    SocketAddr::try_from(address).ok()
}

impl Sides<'_> {
    /// Opens a socket, as socket(2) does. Where only the overlay is allowed, all Internet sockets are overlay
    /// sockets.
    /// Fails with the errors of socket(2).
    pub fn socket(&self, domain: c_int, kind: c_int, protocol: c_int) -> Result<c_int> {
        let overlay = || crate::socket(&self.rules.client, domain, kind, protocol);
        let is_internet = matches!(domain, libc::AF_INET | libc::AF_INET6);
        if is_internet && self.rules.only {
            return overlay();
        }
        // SAFETY: no pointers.
        match check(unsafe { peersock_fd::syscall!(libc::SYS_socket, domain, kind, protocol) }) {
            // Unprivileged users can ping members even where the system denies them echo sockets.
            Err(error @ (Errno::PERM | Errno::ACCESS)) if is_internet => overlay().map_err(|_| error),
            opened => opened.map(|fd| fd as c_int),
        }
    }

    /// Binds a socket, as bind(2) does. Returns `None` for a kernel socket, which the caller must bind itself
    /// because it may have other privileges.
    /// Fails with the errors of bind(2), and of [`convert`](crate::convert()).
    ///
    /// # Safety
    /// As bind(2).
    pub unsafe fn bind(
        &self,
        fd: RawFd,
        address: *const sockaddr,
        length: socklen_t,
    ) -> Result<Option<c_int>> {
        // The kernel socket reports a wrong address.
        // SAFETY: the caller's.
        let local = unsafe { crate::read_address(address, length) }.ok().flatten();
        match self.by_local(fd, local)? {
            Chosen::Kernels => Ok(None),
            Chosen::Done => Ok(Some(0)),
            Chosen::Overlays(socket) => {
                // SAFETY: the caller's.
                unsafe { calls::bind_with(&socket, address, length, self.sets) }.map(Some)
            }
        }
    }

    /// Chooses the target of bind(2) to `local`, which is `None` for a wrong address.
    /// Fails with the errors of bind(2), and of [`convert`](crate::convert()).
    pub fn by_local<'fd>(&self, fd: RawFd, local: Option<SocketAddr>) -> Result<Chosen<'fd>> {
        let side_of = |local| self.rules.of_local(local);
        if let Some(local) = local
            && overlay(fd).is_none()
            && bound(fd).is_some_and(|bound| bound.port() == 0)
            && is_candidate(fd)
        {
            let Self { rules, counterpart, sets, .. } = *self;
            match side_of(local) {
                Side::Both if is_udp(fd) => {
                    alongside::bind_datagrams(rules, fd, local, counterpart, sets)?;
                    return Ok(Chosen::Done);
                }
                // If that fails, the kernel call returns the reason.
                Side::Overlay
                    if is_any(local)
                        && (is_stream(fd) || is_udp(fd))
                        && alongside::bind_to_any(&rules.client, fd, local).is_ok() =>
                {
                    return Ok(Chosen::Done);
                }
                _ => {}
            }
        }
        let chosen = self.choose(fd, || match local {
            // A client without a particular address: a later connect, send or listen decides.
            Some(local) if is_any(local) => Side::Kernel,
            Some(local) => match side_of(local) {
                // It is not known yet if the stream will listen.
                Side::Both if is_stream(fd) => Side::Kernel,
                // It is bound already, which the kernel reports.
                Side::Both if is_udp(fd) => Side::Kernel,
                side => side,
            },
            None => Side::Kernel,
        });
        Ok(chosen?.map_or(Chosen::Kernels, Chosen::Overlays))
    }

    /// Makes a kernel UDP socket bound to a wildcard address an overlay socket too, at the same port. It
    /// stays a kernel socket if the rules say so, or if it is connected.
    /// Fails with the errors of bind(2) on the overlay, and of [`convert`](crate::convert()).
    pub fn share(&self, fd: RawFd) -> Result<()> {
        let Some(local) = bound(fd).filter(|local| local.port() != 0 && local.ip().is_unspecified()) else {
            return Ok(());
        };
        let is_connected = || borrow(fd).is_some_and(|fd| rustix::net::getpeername(fd).is_ok());
        let any = SocketAddr::new(local.ip(), 0);
        if self.rules.of_local(any) != Side::Overlay || !is_udp(fd) || is_connected() {
            return Ok(());
        }
        alongside::share_datagrams(self.rules, fd, local, self.counterpart, self.sets)
    }

    /// Calls bind(2) of the kernel for a socket that [`bind`](Self::bind) has left to it. The port may belong
    /// to a closed socket that the node still has.
    /// Fails with the errors of bind(2).
    ///
    /// # Safety
    /// As bind(2).
    pub unsafe fn bind_kernels(
        &self,
        fd: RawFd,
        address: *const sockaddr,
        length: socklen_t,
    ) -> Result<c_int> {
        // SAFETY: the caller's.
        let bind = || unsafe { kernel::bind(fd, address, length) };
        match bind() {
            Err(Errno::ADDRINUSE) => {
                // SAFETY: the caller's.
                self.vacate(unsafe { crate::read_address(address, length) }?)?;
                bind()
            }
            result => result,
        }
    }

    /// Makes the node forget closed sockets that are bound to the address of a socket of both networks.
    /// Errors: ENETDOWN if the node has ended.
    pub fn vacate(&self, local: Option<SocketAddr>) -> Result<()> {
        match local {
            Some(local) if self.rules.of_local(local) == Side::Both => {
                alongside::vacate(&self.rules.client, local.port())
            }
            _ => Ok(()),
        }
    }

    /// Listens, as listen(2) does.
    /// Fails with the errors of listen(2) on either network, and of [`convert`](crate::convert()).
    pub fn listen(&self, fd: RawFd, backlog: c_int) -> Result<c_int> {
        match self.by_listen(fd, backlog)? {
            Chosen::Kernels => either::listen(None, fd, backlog),
            Chosen::Overlays(socket) => calls::listen_with(&socket, backlog, self.sets),
            Chosen::Done => Ok(0),
        }
    }

    /// Chooses the target of listen(2). A socket of both networks listens then, with this backlog.
    /// Errors: like [`listen`](Self::listen).
    pub fn by_listen<'fd>(&self, fd: RawFd, backlog: c_int) -> Result<Chosen<'fd>> {
        let local = bound(fd).unwrap_or_else(|| SocketAddr::from(([0; 4], 0)));
        if overlay(fd).is_none()
            && is_stream(fd)
            && is_candidate(fd)
            && self.rules.of_local(local) == Side::Both
        {
            alongside::listen(self.rules, fd, local, backlog, self.counterpart, self.sets)?;
            return Ok(Chosen::Done);
        }
        let suits = Cell::new(true);
        let asked = |port| {
            suits.set(self.rules.client.ask(Request::MayListen(port)) != Err(Errno::ACCESS));
            suits.get()
        };
        let Some(socket) = self.choose_if(fd, || self.rules.of_local(local), asked)? else {
            return Ok(Chosen::Kernels);
        };
        // The program may know the port already. A port that no network allows was chosen automatically, so
        // do not keep it.
        if suits.get() && local.port() != 0 && socket.local_addr()?.port() == 0 {
            socket.bind(local)?;
        }
        Ok(Chosen::Overlays(socket))
    }

    /// Returns the socket for a call with a remote address, or `None` for a kernel socket.
    ///
    /// # Errors
    /// ENETUNREACH or ENETDOWN if the address belongs to no network, and errors of
    /// [`convert`](crate::convert()).
    ///
    /// # Safety
    /// As [`read_address`](crate::read_address).
    pub unsafe fn by_remote<'fd>(
        &self,
        fd: RawFd,
        address: *const sockaddr,
        length: socklen_t,
    ) -> Result<Option<Socket<'fd>>> {
        // The kernel reports a wrong address itself.
        // SAFETY: the caller's.
        self.towards(fd, unsafe { crate::read_address(address, length) }.ok().flatten())
    }

    /// Like [`by_remote`](Self::by_remote); `remote` is `None` for a wrong address.
    /// Errors: like [`by_remote`](Self::by_remote).
    pub fn towards<'fd>(&self, fd: RawFd, remote: Option<SocketAddr>) -> Result<Option<Socket<'fd>>> {
        self.choose(fd, || remote.map_or(Side::Kernel, |remote| self.rules.of_remote(remote)))
    }

    /// Turns `fd` into an overlay socket, see [`convert`](crate::convert()).
    /// Errors: like [`convert`](crate::convert()).
    pub fn convert(&self, fd: RawFd) -> Result<()> {
        replace(fd, &(self.counterpart)(&self.rules.client, fd)?, self.sets)
    }

    /// Turns the descriptor into an overlay socket if it belongs there. Fails if it belongs to no network.
    fn choose<'fd>(&self, fd: RawFd, side: impl FnOnce() -> Side) -> Result<Option<Socket<'fd>>> {
        self.choose_if(fd, side, |_| true)
    }

    /// Does the same. The overlay keeps a port chosen by the kernel if `suits` accepts it.
    fn choose_if<'fd>(
        &self,
        fd: RawFd,
        side: impl FnOnce() -> Side,
        suits: impl FnOnce(u16) -> bool,
    ) -> Result<Option<Socket<'fd>>> {
        if let Some(socket) = overlay(fd) {
            return Ok(Some(socket));
        }
        // Query the descriptor last, because most addresses belong to the kernel.
        match side() {
            Side::Kernel => Ok(None),
            _ if !is_candidate(fd) => Ok(None),
            Side::Nowhere(error) => Err(error),
            Side::Overlay | Side::Both => {
                let identity = copies::identity(fd);
                let local = bound(fd).filter(|local| local.port() != 0 && local.ip().is_unspecified());
                let local = local.filter(|local| suits(local.port()));
                let old = self.wakes.then(|| replaced::keep(fd)).flatten();
                let new = (self.counterpart)(&self.rules.client, fd);
                let replaced = new.and_then(|new| replace_if(fd, identity, old.as_ref(), &new, self.sets));
                if let Err(error) = replaced {
                    // Another thread may have been faster.
                    return overlay(fd).map(Some).ok_or(error);
                }
                let socket = overlay(fd);
                if let (Some(socket), Some(local)) = (&socket, local) {
                    // The program may know the port. If the overlay's port is taken, any port is used.
                    let _ = socket.bind(local);
                }
                if let Some(old) = old {
                    replaced::wake(&old);
                }
                Ok(socket)
            }
        }
    }
}

/// Returns true if a bind address is unspecific: any port of a wildcard address.
pub fn is_any(local: SocketAddr) -> bool {
    local.port() == 0 && local.ip().is_unspecified()
}

fn is_udp(fd: RawFd) -> bool {
    int_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL) == Some(libc::IPPROTO_UDP)
}

fn is_stream(fd: RawFd) -> bool {
    int_option(fd, libc::SOL_SOCKET, libc::SO_TYPE) == Some(libc::SOCK_STREAM)
}
