//! Sockets to use again.
//!
//! A new buffer of 4 MiB is cheap as long as the allocator gets it from the operating system, but not
//! once it starts to keep freed ones and has to clear them. Short connections use little of theirs, so
//! theirs are kept.

use std::sync::{Mutex, PoisonError};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};

use super::Settings;

/// The most sockets that wait to be used again.
const LIMIT: usize = 64;

/// The most bytes that a connection may have moved for its buffers to be kept, so that a full pool
/// holds at most 8 MiB of touched memory.
const TOUCHED: usize = 64 << 10;

/// Keeps sockets with buffers of one size, the stack's default.
pub(crate) struct Pool {
    sizes: (usize, usize),
    idle: Mutex<Vec<(SocketSet<'static>, SocketHandle)>>,
}

impl Pool {
    pub(crate) fn new(send_buffer: usize, receive_buffer: usize) -> Self {
        Self { sizes: (send_buffer, receive_buffer), idle: Mutex::default() }
    }

    /// A socket with empty buffers of these sizes.
    pub(super) fn take(&self, send: usize, receive: usize) -> (SocketSet<'static>, SocketHandle) {
        let idle = if self.sizes == (send, receive) { self.lock().pop() } else { None };
        idle.unwrap_or_else(|| {
            let buffer = |len: usize| SocketBuffer::new(vec![0; len]);
            let mut sockets = SocketSet::new(Vec::with_capacity(1));
            let handle = sockets.add(Socket::new(buffer(receive), buffer(send)));
            (sockets, handle)
        })
    }

    /// Keeps a socket that has moved `touched` bytes (`None`: too many) if there is room.
    pub(super) fn put(
        &self,
        mut sockets: SocketSet<'static>,
        handle: SocketHandle,
        settings: &Settings,
        touched: Option<usize>,
    ) {
        let fits = self.sizes == (settings.send_buffer, settings.receive_buffer);
        if !fits || touched.is_none_or(|bytes| bytes > TOUCHED) {
            return;
        }
        let socket = sockets.get_mut::<Socket>(handle);
        socket.abort();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < LIMIT {
            idle.push((sockets, handle));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(SocketSet<'static>, SocketHandle)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
