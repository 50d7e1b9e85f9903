//! Blocking sockets of a [`Node`](super::Node).

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use peersock_stack::{Error, Flow, Listener, Ready};

use super::node::Shared;

/// A connection of the stack. Dropping it closes it.
pub struct Socket {
    shared: Arc<Shared>,
    flow: Arc<Flow>,
}

/// A listening socket of the stack.
pub struct Acceptor {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
}

impl Socket {
    pub(super) fn new(shared: Arc<Shared>, flow: Arc<Flow>) -> Self {
        Self { shared, flow }
    }

    pub(super) fn wait_connected(&self) -> io::Result<()> {
        self.pump();
        self.shared.wait(|| {
            let ready = self.flow.readiness();
            if let Some(error) = self.flow.take_error() {
                return Some(Err(error.into()));
            }
            ready.contains(Ready::CONNECTED).then_some(Ok(()))
        })?
    }

    /// Returns the flow itself.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Writes as much as fits, without waiting.
    /// Errors: `WouldBlock` if there is no room, or the error that ended the connection.
    pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        let written = self.flow.write(Instant::now(), data);
        self.pump();
        written.map_err(io::Error::from)
    }

    /// Writes urgent data, without waiting.
    /// Fails as [`try_write`](Self::try_write) does.
    pub fn try_write_urgent(&self, data: &[u8]) -> io::Result<usize> {
        let written = self.flow.write_urgent(Instant::now(), data);
        self.pump();
        written.map_err(io::Error::from)
    }

    /// Sends the end after the written data.
    /// Fails if the connection has ended.
    pub fn shutdown_write(&self) -> io::Result<()> {
        let result = self.flow.shutdown_write(Instant::now());
        self.pump();
        result.map_err(io::Error::from)
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.flow.set_reset_on_close(true);
    }

    fn pump(&self) {
        self.shared.pump(&self.flow);
        self.shared.wake();
    }

    fn until_done(&self, mut attempt: impl FnMut() -> Result<usize, Error>) -> io::Result<usize> {
        let done = self.shared.wait(|| match attempt() {
            Err(Error::WouldBlock) => None,
            done => Some(done),
        })?;
        self.pump();
        done.map_err(io::Error::from)
    }
}

impl Read for &Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.until_done(|| self.flow.read(Instant::now(), buf))
    }
}

impl Write for &Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.until_done(|| self.flow.write(Instant::now(), data))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.flow.close(Instant::now());
        // During a panic, a second panic would abort the program.
        if !std::thread::panicking() {
            self.pump();
        }
    }
}

impl Acceptor {
    pub(super) fn new(shared: Arc<Shared>, listener: Arc<Listener>) -> Self {
        Self { shared, listener }
    }

    /// Waits for the next connection.
    /// Errors: `TimedOut` if none comes for half a minute.
    pub fn accept(&self) -> io::Result<Socket> {
        let flow = self.shared.wait(|| self.listener.accept(Instant::now()).ok())?;
        Ok(Socket::new(self.shared.clone(), flow))
    }

    /// Returns the local address.
    pub fn local(&self) -> SocketAddr {
        self.listener.local()
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.listener.close(Instant::now());
    }
}
