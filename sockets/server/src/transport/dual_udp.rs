//! UDP on both networks: an overlay socket, and a kernel socket bound to the same port.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock::attach::NodeHandle;
use peersock_fd::{Errno, Report, Route};
use peersock_primitives::sync;
use peersock_stack::{Error, GroupChange, InterfaceId, ReceivedHeaders, SendOptions, TrafficClass};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, sockopt};

use super::{Arrived, Transport};
use crate::addresses::canonical;
use crate::addresses::routes;
use crate::context::Context;
use crate::kernel_listener::EVENTS;
use crate::options::Options;
use crate::wakers::Key;
use peersock_datapath::GsoBatch;

/// Maximum age of the list of overlay addresses.
const ADDRESS_LIST_MAX_AGE: Duration = Duration::from_secs(1);

/// See the module. The node's epoll set reports events of the kernel socket.
pub(crate) struct Both {
    node: NodeHandle,
    overlay: Arc<dyn Transport>,
    kernel: Arc<OwnedFd>,
    /// True if IPv4 addresses must be mapped for it.
    is_ipv6: bool,
    /// Side that the next receive tries first, so that neither side starves.
    kernel_first: AtomicBool,
    state: Mutex<BothState>,
}

#[derive(Default)]
struct BothState {
    /// The side of the peer, if there is one. Nothing is received from the other side.
    connected: Option<Side>,
    routes: Option<(Instant, Vec<Route>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Overlay,
    Kernel,
}

impl Both {
    pub(crate) fn new(
        node: &NodeHandle,
        overlay: Arc<dyn Transport>,
        kernel: Arc<OwnedFd>,
    ) -> Result<Self, Errno> {
        let is_ipv6 = sockopt::socket_domain(&kernel)? == AddressFamily::INET6;
        let (node, kernel_first, state) = (node.clone(), AtomicBool::new(false), Mutex::default());
        Ok(Self { node, overlay, kernel, is_ipv6, kernel_first, state })
    }

    fn lock(&self) -> MutexGuard<'_, BothState> {
        sync::lock(&self.state)
    }

    /// Returns the side that an address belongs to. Multicast groups belong to the overlay.
    fn side_of(&self, ip: IpAddr) -> Side {
        let mut state = self.lock();
        let fresh = state.routes.as_ref().is_some_and(|(asked, _)| asked.elapsed() < ADDRESS_LIST_MAX_AGE);
        if !fresh {
            let networks = self.node.networks();
            state.routes = Some((Instant::now(), networks.iter().flat_map(routes).collect()));
        }
        let mut known = state.routes.iter().flat_map(|(_, routes)| routes);
        match ip.is_multicast() || known.any(|route| route.contains(ip)) {
            true => Side::Overlay,
            false => Side::Kernel,
        }
    }

    /// Converts an address for the kernel socket.
    fn for_kernel(&self, remote: SocketAddr) -> SocketAddr {
        match remote.ip() {
            IpAddr::V4(ip) if self.is_ipv6 => SocketAddr::new(ip.to_ipv6_mapped().into(), remote.port()),
            _ => remote,
        }
    }

    fn receive_from_kernel(&self, buf: &mut [u8]) -> Result<Arrived, Error> {
        loop {
            match rustix::net::recvfrom(&self.kernel, &mut *buf, RecvFlags::DONTWAIT) {
                Ok((_, length, from)) => {
                    let remote = from.and_then(|from| SocketAddr::try_from(from).ok());
                    let Some(remote) = remote else { continue };
                    return Ok(Arrived {
                        length: length.min(buf.len()),
                        remote: canonical(remote),
                        local: self.overlay.local().ip(),
                        interface: Arrived::OUTSIDE_INTERFACE,
                        hop_limit: 0,
                        traffic_class: TrafficClass(0),
                    });
                }
                Err(Errno::AGAIN) => return Err(Error::WouldBlock),
                Err(Errno::INTR) => {}
                Err(error) => return Err(meaning(error)),
            }
        }
    }
}

/// Converts a kernel error to an error of the stack.
fn meaning(error: Errno) -> Error {
    match error {
        Errno::CONNREFUSED => Error::ConnectionRefused,
        Errno::HOSTUNREACH => Error::HostUnreachable,
        Errno::NETUNREACH => Error::NetworkUnreachable,
        Errno::ACCESS | Errno::PERM => Error::PermissionDenied,
        Errno::MSGSIZE => Error::MessageSize,
        _ => Error::InvalidInput,
    }
}

impl Transport for Both {
    fn watch(&self, key: Key, context: &Context) {
        context.rewatch((*self.kernel).as_fd(), key, EVENTS);
    }

    fn local(&self) -> SocketAddr {
        if self.lock().connected == Some(Side::Kernel)
            && let Ok(local) = rustix::net::getsockname(&self.kernel)
            && let Ok(local) = SocketAddr::try_from(local)
        {
            return canonical(local);
        }
        self.overlay.local()
    }

    fn connect(&self, remote: Option<SocketAddr>, options: &SendOptions<'_>) -> Result<(), Error> {
        let side = remote.map(|remote| self.side_of(remote.ip()));
        if self.lock().connected == Some(Side::Kernel) {
            rustix::net::connect_unspec(&self.kernel).map_err(meaning)?;
        }
        self.lock().connected = None;
        match (side, remote) {
            (Some(Side::Kernel), Some(remote)) => {
                self.overlay.connect(None, options)?;
                rustix::net::connect(&self.kernel, &self.for_kernel(remote)).map_err(meaning)?;
            }
            _ => self.overlay.connect(remote, options)?,
        }
        self.lock().connected = side;
        Ok(())
    }

    fn check(&self, remote: SocketAddr, options: &SendOptions<'_>) -> Result<(), Error> {
        match self.side_of(remote.ip()) {
            Side::Overlay => self.overlay.check(remote, options),
            Side::Kernel => Ok(()),
        }
    }

    fn check_length(
        &self,
        remote: SocketAddr,
        length: usize,
        options: &SendOptions<'_>,
    ) -> Result<(), Error> {
        match self.side_of(remote.ip()) {
            Side::Overlay => self.overlay.check_length(remote, length, options),
            Side::Kernel => Ok(()),
        }
    }

    fn send(
        &self,
        remote: SocketAddr,
        data: &[u8],
        options: &SendOptions<'_>,
        gso: Option<&mut GsoBatch>,
    ) -> Result<(), Error> {
        if self.side_of(remote.ip()) == Side::Overlay {
            return self.overlay.send(remote, data, options, gso);
        }
        let remote = self.for_kernel(remote);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let send = || rustix::net::sendto(&self.kernel, data, flags, &remote).map(drop);
        match send() {
            // The error belongs to an earlier datagram.
            Err(Errno::CONNREFUSED) => send(),
            sent => sent,
        }
        .map_err(meaning)
    }

    fn receive(&self, buf: &mut [u8], headers: &mut ReceivedHeaders) -> Result<Arrived, Error> {
        let connected = self.lock().connected;
        let kernel_first = !self.kernel_first.fetch_not(Ordering::Relaxed);
        for side in if kernel_first { [Side::Kernel, Side::Overlay] } else { [Side::Overlay, Side::Kernel] } {
            loop {
                let received = match side {
                    Side::Overlay => self.overlay.receive(buf, headers),
                    Side::Kernel => {
                        headers.clear();
                        self.receive_from_kernel(buf)
                    }
                };
                match received {
                    Err(Error::WouldBlock) => break,
                    // A connected socket has only one peer.
                    _ if connected.is_some_and(|connected| connected != side) => {}
                    received => return received,
                }
            }
        }
        Err(Error::WouldBlock)
    }

    fn take_error(&self) -> Option<Error> {
        let of_kernel = || {
            let error = sockopt::socket_error(&self.kernel).ok()?.err()?;
            Some(meaning(error))
        };
        self.overlay.take_error().or_else(of_kernel)
    }

    fn take_report(&self) -> Option<Report> {
        self.overlay.take_report()
    }

    fn register(&self, waker: &Waker) {
        self.overlay.register(waker);
    }

    fn apply(&self, options: &Options) {
        self.overlay.apply(options);
        if let Some(limit) = options.receive_buffer() {
            // The system clamps excessive sizes.
            let _ = sockopt::set_socket_recv_buffer_size(&self.kernel, limit / 2);
        }
    }

    fn change_group(
        &self,
        interface: Option<InterfaceId>,
        group: IpAddr,
        change: GroupChange,
    ) -> Result<(), Error> {
        self.overlay.change_group(interface, group, change)
    }

    fn give_way(&self, port: u16) -> bool {
        self.overlay.give_way(port)
    }
}
