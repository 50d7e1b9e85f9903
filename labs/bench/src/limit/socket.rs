//! A UDP socket with GSO and GRO.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
};

use super::datagram::SIZE;

/// Requested kernel buffer in bytes. Only root gets more than `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 16 << 20;
const SEND_BUFFER: usize = 4 << 20;
/// Maximum size of a UDP payload in bytes.
const MAX_BATCH: usize = 65507;

pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
        let socket = UdpSocket::bind(address)?;
        set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
            .or_else(|_| set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER))?;
        set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Socket { socket, state })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Returns the number of full datagrams that one system call may carry.
    pub(super) fn max_segments(&self) -> usize {
        self.state.max_gso_segments().min(MAX_BATCH / SIZE)
    }

    /// Sends one datagram, or one per `segment` bytes; waits while the socket is full.
    pub(super) fn send(&self, to: SocketAddr, contents: &[u8], segment: Option<usize>) -> io::Result<()> {
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size: segment, src_ip: None };
        loop {
            match self.state.try_send((&self.socket).into(), &transmit) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT, Duration::from_millis(10))?;
                }
                // An earlier datagram met a closed port; the next one may not.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                result => return result,
            }
        }
    }

    /// Waits for datagrams. Returns false after the timeout.
    pub(super) fn wait_readable(&self, time: Duration) -> io::Result<bool> {
        self.wait(PollFlags::IN, time)
    }

    fn wait(&self, events: PollFlags, time: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(time).map_err(io::Error::other)?;
        Ok(poll(&mut [PollFd::new(&self.socket, events)], Some(&timeout))? > 0)
    }
}

/// Reusable receive buffers.
pub(super) struct Inbox {
    buffers: Vec<Vec<u8>>,
    meta: Vec<RecvMeta>,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        let count = BATCH_SIZE.min(16);
        Inbox { buffers: vec![vec![0; 1 << 16]; count], meta: vec![RecvMeta::default(); count] }
    }

    /// Passes on the datagrams of one system call. Returns false if there were none.
    pub(super) fn receive(
        &mut self,
        socket: &Socket,
        mut each: impl FnMut(SocketAddr, &mut [u8]),
    ) -> io::Result<bool> {
        let mut slices: Vec<IoSliceMut<'_>> = self.buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let filled = match socket.state.recv((&socket.socket).into(), &mut slices, &mut self.meta) {
            Ok(count) => count,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => 0,
            Err(e) => return Err(e),
        };
        for (meta, buffer) in self.meta.iter().zip(&mut self.buffers).take(filled) {
            for datagram in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                each(meta.addr, datagram);
            }
        }
        Ok(filled > 0)
    }
}
