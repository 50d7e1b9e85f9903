//! The node's end of an application's descriptor, from which it takes what the application has written.
//!
//! The kernel reports ECONNRESET to the application if this end is closed with something unread, and an end
//! of the stream otherwise. So the last byte that was taken stays there until the stream has ended in order:
//! whatever ends the node, a signal that cannot be caught included, the application cannot take it for the
//! end of what its peer has sent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use peersock_fd::{Errno, RecvFlags};

/// The node's end.
pub(super) struct Outbox {
    fd: OwnedFd,
    /// The first byte that is there was taken already.
    is_held: bool,
    /// Bytes that nobody took.
    discarded: usize,
}

/// What was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many bytes, at least one; and whether there are more.
    Bytes(usize, bool),
    /// Nothing is there now.
    Nothing,
    /// A signal came.
    Interrupted,
    /// The application writes no more.
    End,
    /// The application has closed its descriptor with something unread.
    Reset,
}

impl Outbox {
    /// Of a descriptor from which nothing was taken yet.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, is_held: false, discarded: 0 }
    }

    /// Bytes that the application has written and nobody has taken.
    pub(super) fn not_taken(&self) -> usize {
        self.waiting() + self.discarded
    }

    /// Bytes that can be taken.
    fn waiting(&self) -> usize {
        self.there().saturating_sub(self.is_held.into())
    }

    /// Bytes that are there, the one that is held included.
    fn there(&self) -> usize {
        rustix::io::ioctl_fionread(&self.fd).unwrap_or(0) as usize
    }

    /// Takes what there is, as far as `buf` goes, which must not be empty. `ended` says that the kernel has
    /// told of the end.
    pub(super) fn take(&mut self, buf: &mut [u8], ended: bool) -> Taken {
        let waiting = self.waiting();
        if waiting == 0 {
            return if ended { self.end() } else { Taken::Nothing };
        }
        if self.is_held && !self.release() {
            return Taken::Interrupted;
        }
        let wanted = waiting.min(buf.len());
        let is_rest = wanted == waiting;
        let read = if is_rest { wanted - 1 } else { wanted };
        let mut length = 0;
        if read > 0 {
            match rustix::net::recv(&self.fd, &mut buf[..read], RecvFlags::DONTWAIT) {
                Ok((taken, _)) => length = taken,
                Err(_) => return Taken::Interrupted,
            }
        }
        if is_rest && length == read {
            let last = &mut buf[length..=length];
            match rustix::net::recv(&self.fd, last, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
                Ok((1, _)) => (self.is_held, length) = (true, length + 1),
                _ if length == 0 => return Taken::Interrupted,
                _ => {}
            }
        }
        Taken::Bytes(length, length < waiting)
    }

    /// What the end is like, which has come.
    fn end(&mut self) -> Taken {
        // As long as a byte is there the kernel tells neither. An error it tells in another way.
        match rustix::net::sockopt::socket_error(&self.fd) {
            Ok(Err(Errno::CONNRESET)) => Taken::Reset,
            _ => Taken::End,
        }
    }

    /// Lets go of the byte that is held: from now on closing is an end in order. False if it has to be tried
    /// again.
    pub(super) fn release(&mut self) -> bool {
        if self.is_held {
            let taken = rustix::net::recv(&self.fd, &mut [0; 1], RecvFlags::DONTWAIT);
            self.is_held = taken == Err(Errno::INTR);
        }
        !self.is_held
    }

    /// Whether closing it now is a reset to the application, because something is unread.
    pub(super) fn is_reset_on_close(&self) -> bool {
        self.there() > 0
    }

    /// Throws away what there is but for one byte.
    pub(super) fn discard(&mut self, buf: &mut [u8]) {
        let before = self.waiting();
        let mut left = self.there().saturating_sub(1);
        while left > 0 {
            let room = left.min(buf.len());
            match rustix::net::recv(&self.fd, &mut buf[..room], RecvFlags::DONTWAIT) {
                // What is left was never taken.
                Ok((length, _)) if length > 0 => (self.is_held, left) = (false, left - length),
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        self.discarded += before.saturating_sub(self.waiting());
    }
}

impl AsFd for Outbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
