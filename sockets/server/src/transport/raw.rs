//! Raw sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use peersock::attach::{NodeHandle, Waited};
use peersock_fd::Report;
use peersock_primitives::wait::Interest;
use peersock_stack::{Error, GroupChange, InterfaceId, RawOptions, RawSocket, ReceivedHeaders, SendOptions};

use super::{Arrived, MAX_QUOTED_BYTES, Transport, mtu_to, reachable, report};
use crate::options::Options;
use peersock_datapath::{GsoBatch, SocketState};

/// See the module.
pub(super) struct Raw {
    node: NodeHandle,
    socket: Arc<RawSocket>,
}

impl Raw {
    pub(super) fn open(
        node: &NodeHandle,
        local: SocketAddr,
        protocol: u8,
        options: &Options,
    ) -> Result<Self, Error> {
        let scope = node.scope_within(local.ip(), options.interface())?;
        let stack = node.datapath().stack();
        let socket = stack.raw_open(scope, local.is_ipv6(), protocol, RawOptions::default())?;
        node.add_socket(&socket);
        let raw = Self { node: node.clone(), socket };
        raw.socket.bind(local.ip())?;
        Ok(raw)
    }
}

impl Transport for Raw {
    fn local(&self) -> SocketAddr {
        let local = self.socket.local();
        let peer = self.socket.peer().filter(|_| local.is_unspecified());
        let route = peer.and_then(|_| self.socket.route(None, &SendOptions::default()).ok());
        SocketAddr::new(route.map_or(local, |route| route.source), 0)
    }

    fn connect(&self, remote: Option<SocketAddr>, options: &SendOptions<'_>) -> Result<(), Error> {
        if let Some(remote) = remote {
            self.socket.route(Some(remote.ip()), options)?;
        }
        self.socket.connect(remote.map(|remote| remote.ip()))
    }

    fn check(&self, remote: SocketAddr, options: &SendOptions<'_>) -> Result<(), Error> {
        let route = self.socket.route(Some(remote.ip()), options)?;
        reachable(&self.node, route.interface, remote.ip(), options)
    }

    fn check_length(
        &self,
        remote: SocketAddr,
        length: usize,
        options: &SendOptions<'_>,
    ) -> Result<(), Error> {
        let route = self.socket.route(Some(remote.ip()), options)?;
        let mtu = mtu_to(&self.node, route.interface, remote.ip(), options);
        self.socket.check_length(&route, length, options, mtu)
    }

    fn send(
        &self,
        remote: SocketAddr,
        data: &[u8],
        options: &SendOptions<'_>,
        _: Option<&mut GsoBatch>,
    ) -> Result<(), Error> {
        self.node.datapath().send_raw(Instant::now(), &self.socket, Some(remote.ip()), data, options)
    }

    fn receive(&self, buf: &mut [u8], headers: &mut ReceivedHeaders) -> Result<Arrived, Error> {
        let received = self.socket.recv_with_headers(buf, headers)?;
        Ok(Arrived::new(&received, SocketAddr::new(received.source.ip(), 0)))
    }

    fn take_error(&self) -> Option<Error> {
        self.socket.take_error()
    }

    fn take_report(&self) -> Option<Report> {
        let mut quoted = [0; MAX_QUOTED_BYTES];
        self.socket.recv_error(&mut quoted).ok().map(|found| report(&found, &quoted))
    }

    fn register(&self, waker: &Waker) {
        Waited::waiters(&*self.socket).register(Interest::Read, waker);
    }

    fn apply(&self, options: &Options) {
        let ip = options.ip_for(self.socket.local().is_ipv4());
        options.receive_buffer().into_iter().for_each(|limit| self.socket.set_receive_buffer(limit));
        let largest = options.largest_packet(self.local().is_ipv4());
        SocketState::of(self.socket.context()).set_largest_packet(largest);
        let own = options.raw(RawOptions { ip, ..self.socket.options() });
        if let Err(error) = self.socket.set_options(own) {
            tracing::debug!(%error, "options of a raw socket were refused");
        }
    }

    fn change_group(
        &self,
        interface: Option<InterfaceId>,
        group: IpAddr,
        change: GroupChange,
    ) -> Result<(), Error> {
        self.socket.change_group(interface, group, change)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.socket.close();
    }
}
