//! One interface to both ends of a connection, so that every case is written once for both directions.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use peersock_stack_lab::kernel::Socket;
use rustix::net::sockopt;

/// A connected kernel or stack socket.
pub(crate) trait End: Send + Sync {
    /// Waits for data; returns 0 at the end.
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes part of the data, and waits if necessary.
    fn send(&self, data: &[u8]) -> io::Result<usize>;

    /// Sends a FIN.
    fn shut(&self) -> io::Result<()>;

    /// Ends the connection with a reset.
    fn reset(self: Box<Self>);

    fn set_nodelay(&self);
}

impl End for TcpStream {
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn shut(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn reset(self: Box<Self>) {
        sockopt::set_socket_linger(&*self, Some(std::time::Duration::ZERO)).expect("a socket");
    }

    fn set_nodelay(&self) {
        TcpStream::set_nodelay(self, true).expect("a socket");
    }
}

impl End for Socket {
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(buf)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(data)
    }

    fn shut(&self) -> io::Result<()> {
        self.shutdown_write()
    }

    fn reset(self: Box<Self>) {
        Socket::reset(*self);
    }

    fn set_nodelay(&self) {
        self.flow().set_nodelay(true);
    }
}

/// Writes all of `data`, in pieces of the lengths that `pieces` returns.
pub(crate) fn send_all(end: &dyn End, mut data: &[u8], mut pieces: impl FnMut() -> usize) {
    while !data.is_empty() {
        let len = pieces().min(data.len());
        let sent = end.send(&data[..len]).expect("the connection stands");
        data = &data[sent..];
    }
}

/// Reads to the end, and compares the data with `expected`.
pub(crate) fn receive_all(end: &dyn End, expected: &[u8]) {
    let mut buf = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let len = end.receive(&mut buf).expect("the connection stands");
        if len == 0 {
            assert_eq!(at, expected.len(), "the end came at {at} of {}", expected.len());
            return;
        }
        assert!(at + len <= expected.len(), "more than was sent");
        assert!(buf[..len] == expected[at..at + len], "wrong bytes between {at} and {}", at + len);
        at += len;
    }
}

/// Returns bytes that depend on the seed alone.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut random = peersock_stack_lab::Random::new(seed);
    (0..len.div_ceil(8)).flat_map(|_| random.number().to_le_bytes()).take(len).collect()
}
