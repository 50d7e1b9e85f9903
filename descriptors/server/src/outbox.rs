//! The node's end of an application's descriptor, from which it takes what the application has written.
//!
//! The kernel reports ECONNRESET to the application if this end is closed with something unread, and an end
//! of the stream otherwise. So the last byte that was taken stays there until the stream has ended in order:
//! whatever ends the node, a signal that cannot be caught included, the application cannot take it for the
//! end of what its peer has sent. Before the application writes anything it is a byte of what the library has
//! written when it connected or accepted.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use peersock_fd::{Errno, MAX_NAME, Name, RecvFlags};
use rustix::net::{RecvAncillaryBuffer, RecvMsg, ReturnFlags, sockopt};

/// Up to so many bytes are looked at before they are taken. That copies them twice and saves two system
/// calls.
const SHORT: usize = 4 << 10;

/// The node's end.
pub(crate) struct Outbox {
    fd: OwnedFd,
    front: Front,
    /// There was more than [`SHORT`] when something was taken last.
    is_long: bool,
    /// The application sends urgent bytes: the kernel then gives what is before one, and the rest by the next
    /// call.
    has_urgent: bool,
    /// Bytes that nobody took.
    discarded: usize,
    /// Bytes that are still to be taken, once the node ends: what is written later is written to a node that
    /// goes.
    due: Option<usize>,
}

/// What is first in the queue and not the application's, or not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Front {
    Nothing,
    /// One byte of the library's, which may still be coming.
    Expected,
    /// One byte, which is there and was taken already, or is the library's.
    Held,
    /// What the library writes, if the application has accepted by it: the name of this end. It says nothing
    /// else, because an application may accept by system calls of its own.
    Mark(String),
}

/// What was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// So many bytes, at least one; and whether there are more.
    Bytes(usize, bool),
    /// Nothing is there now.
    Nothing,
    /// A signal came, or only a byte that was the library's.
    Interrupted,
    /// The application writes no more.
    End,
    /// The application has closed its descriptor with something unread.
    Reset,
}

impl Outbox {
    /// Of a descriptor that the application has connected, and has written a byte to.
    pub(crate) fn of_connected(fd: OwnedFd) -> Self {
        Self::new(fd, Front::Expected)
    }

    /// Of a descriptor that the application accepts, and then may write this end's name to.
    pub(crate) fn of_accepted(fd: OwnedFd, name: &Name) -> Self {
        Self::new(fd, Front::Mark(name.to_string()))
    }

    fn new(fd: OwnedFd, front: Front) -> Self {
        // What an application sends as urgent by a call that nobody sees: out of the line the kernel would
        // count it among what is there, and not give it.
        if let Err(error) = sockopt::set_socket_oobinline(&fd, true) {
            tracing::debug!(%error, "urgent data would not be in line");
        }
        Self { fd, front, is_long: false, has_urgent: false, discarded: 0, due: None }
    }

    /// There is an urgent byte among what can be taken.
    pub(crate) fn note_urgent(&mut self) {
        self.has_urgent = true;
    }

    /// From now on only what the application has written until now counts.
    pub(crate) fn begin_drain(&mut self) {
        self.due = self.due.or_else(|| Some(self.waiting()));
    }

    /// Its descriptor.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Bytes that the application has written and nobody has taken.
    pub(crate) fn not_taken(&self) -> usize {
        self.waiting() + self.discarded
    }

    /// Bytes that can be taken.
    fn waiting(&self) -> usize {
        let there = self.there();
        let front = match &self.front {
            Front::Nothing => 0,
            Front::Expected | Front::Held => 1,
            Front::Mark(name) if there > 0 && self.begins_with(name) => name.len(),
            Front::Mark(_) => 0,
        };
        there.saturating_sub(front).min(self.due.unwrap_or(usize::MAX))
    }

    /// Whether that is what is first. Something must be there: the kernel would tell a reset, which it does
    /// once only.
    fn begins_with(&self, name: &str) -> bool {
        let mut buf = [0; MAX_NAME];
        let first = &mut buf[..name.len().min(MAX_NAME)];
        let peeked = rustix::net::recv(&self.fd, &mut *first, RecvFlags::DONTWAIT | RecvFlags::PEEK);
        matches!(peeked, Ok((length, _)) if length == name.len()) && first == name.as_bytes()
    }

    /// Looks whether the library has written, once something is there: all of that but one byte is taken.
    /// Whether that look has shown that nothing of the application's is there.
    fn settle(&mut self) -> bool {
        let Front::Mark(name) = &self.front else { return false };
        let there = self.there();
        if there == 0 {
            return true;
        }
        let is_all = there == name.len();
        self.front = match self.begins_with(name) {
            true => {
                let mut left = name.len() - 1;
                while left > 0 {
                    match rustix::net::recv(&self.fd, &mut [0; MAX_NAME][..left], RecvFlags::DONTWAIT) {
                        Ok((taken @ 1.., _)) => left -= taken,
                        Err(Errno::INTR) => {}
                        _ => break,
                    }
                }
                Front::Held
            }
            false => Front::Nothing,
        };
        is_all && self.front == Front::Held
    }

    /// Bytes that are there, those in front included.
    fn there(&self) -> usize {
        rustix::io::ioctl_fionread(&self.fd).unwrap_or(0) as usize
    }

    /// Takes what there is, as far as `buf` goes, which must not be empty. `ended` says that the kernel has
    /// told of the end.
    pub(crate) fn take(&mut self, buf: &mut [u8], ended: bool) -> Taken {
        let room = self.due.map_or(buf.len(), |due| due.min(buf.len()));
        let taken = self.take_due(&mut buf[..room], ended);
        if let (Some(due), Taken::Bytes(length, _)) = (&mut self.due, taken) {
            *due = due.saturating_sub(length);
        }
        taken
    }

    fn take_due(&mut self, buf: &mut [u8], ended: bool) -> Taken {
        // What comes after the look is news of its own.
        if self.settle() && !ended {
            return Taken::Nothing;
        }
        if self.front == Front::Held
            && !self.is_long
            && !self.has_urgent
            && !buf.is_empty()
            && let Some(taken) = self.take_short(buf)
        {
            return taken;
        }
        let waiting = self.waiting();
        self.is_long = waiting > SHORT;
        if waiting == 0 {
            return if ended { self.end() } else { Taken::Nothing };
        }
        let wanted = waiting.min(buf.len());
        // The last byte is read and stays.
        let is_rest = wanted == waiting;
        let read = if is_rest { wanted - 1 } else { wanted };
        let mut length = match self.receive(&mut buf[..read]) {
            Ok(length) => length,
            Err(error) => return self.nothing(error, ended),
        };
        if is_rest && length == read {
            let last = &mut buf[length..=length];
            match rustix::net::recv(&self.fd, last, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
                Ok((1, _)) => (self.front, length) = (Front::Held, length + 1),
                Err(error) if length == 0 => return self.nothing(error, ended),
                Ok(_) if length == 0 => return self.nothing(Errno::AGAIN, ended),
                _ => {}
            }
        }
        match length {
            // The byte in front was taken alone.
            0 => Taken::Interrupted,
            _ => Taken::Bytes(length, length < waiting),
        }
    }

    /// What it means that nothing could be taken where the kernel counts something. Whatever that is, it is
    /// not to be looked at again before there is news: that would never end.
    fn nothing(&mut self, error: Errno, ended: bool) -> Taken {
        match error {
            Errno::INTR => Taken::Interrupted,
            Errno::CONNRESET => Taken::Reset,
            _ if ended => self.end(),
            _ => Taken::Nothing,
        }
    }

    /// Takes what there is behind the byte that is held, if it is little: `None` if it is not, or nothing.
    fn take_short(&mut self, buf: &mut [u8]) -> Option<Taken> {
        let room = buf.len().min(SHORT);
        let seen = self.receive_with_front(&mut buf[..room], RecvFlags::PEEK).ok()?;
        // With descriptors among it, the kernel shows what is before them only.
        if seen.bytes < 2 || seen.bytes > room || seen.flags.contains(ReturnFlags::CTRUNC) {
            return None;
        }
        let length = seen.bytes - 1;
        // The same again, but for the last byte, which is held from now on.
        match self.receive_with_front(&mut buf[..length - 1], RecvFlags::empty()) {
            Ok(taken) if taken.bytes == length => Some(Taken::Bytes(length, false)),
            Ok(RecvMsg { bytes: taken @ 1.., .. }) => {
                self.front = Front::Nothing;
                Some(if taken > 1 { Taken::Bytes(taken - 1, true) } else { Taken::Interrupted })
            }
            Err(Errno::INTR) => Some(Taken::Interrupted),
            _ => None,
        }
    }

    /// Receives what is behind the byte in front, which is let go of.
    ///
    /// # Errors
    /// Those of recv(2); EAGAIN if nothing is there, not even that byte.
    fn receive(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        if matches!(self.front, Front::Nothing | Front::Mark(_)) {
            if buf.is_empty() {
                return Ok(0);
            }
            return match rustix::net::recv(&self.fd, buf, RecvFlags::DONTWAIT)?.0 {
                0 => Err(Errno::AGAIN),
                length => Ok(length),
            };
        }
        let received = self.receive_with_front(buf, RecvFlags::empty())?;
        let length = received.bytes.checked_sub(1).ok_or(Errno::AGAIN)?;
        self.front = Front::Nothing;
        Ok(length)
    }

    /// Receives the byte in front, which goes nowhere, and what is behind it.
    fn receive_with_front(&self, buf: &mut [u8], flags: RecvFlags) -> Result<RecvMsg, Errno> {
        let mut front = [0];
        let mut slices = [IoSliceMut::new(&mut front), IoSliceMut::new(buf)];
        let flags = RecvFlags::DONTWAIT | flags;
        rustix::net::recvmsg(&self.fd, &mut slices, &mut RecvAncillaryBuffer::default(), flags)
    }

    /// What the end is like, which has come.
    fn end(&mut self) -> Taken {
        // As long as a byte is there the kernel tells neither. An error it tells in another way.
        match sockopt::socket_error(&self.fd) {
            Ok(Err(Errno::CONNRESET)) => Taken::Reset,
            _ => Taken::End,
        }
    }

    /// Lets go of the byte that is held: from now on closing is an end in order. False if it has to be tried
    /// again.
    pub(crate) fn release(&mut self) -> bool {
        self.settle();
        if matches!(self.front, Front::Expected | Front::Held) {
            let taken = rustix::net::recv(&self.fd, &mut [0; 1], RecvFlags::DONTWAIT);
            if taken == Err(Errno::INTR) {
                return false;
            }
            self.front = Front::Nothing;
        }
        true
    }

    /// Makes closing it, which follows, an end in order. An application that accepts just now writes nothing
    /// any more that would be left unread.
    pub(crate) fn end_in_order(&mut self) {
        if let Front::Mark(_) = self.front {
            let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Read);
        }
        self.release();
    }

    /// Whether closing it now is a reset to the application, because something is unread.
    pub(crate) fn is_reset_on_close(&self) -> bool {
        self.there() > 0
    }

    /// Whether the application has not accepted it yet, as far as the library would have said so.
    pub(crate) fn awaits_accept(&self) -> bool {
        matches!(self.front, Front::Mark(_)) && self.there() == 0
    }

    /// Throws away what there is but for one byte.
    pub(crate) fn discard(&mut self, buf: &mut [u8]) {
        self.settle();
        // Nothing has come so far. What comes meanwhile may be the library's: the next call finds out.
        if let Front::Mark(_) = self.front {
            return;
        }
        let before = self.waiting();
        let mut left = self.there().saturating_sub(1);
        while left > 0 {
            let room = left.min(buf.len());
            match rustix::net::recv(&self.fd, &mut buf[..room], RecvFlags::DONTWAIT) {
                // What is left was never taken.
                Ok((length, _)) if length > 0 => (self.front, left) = (Front::Nothing, left - length),
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        let discarded = before.saturating_sub(self.waiting());
        self.discarded += discarded;
        self.due = self.due.map(|due| due.saturating_sub(discarded));
    }
}

impl AsFd for Outbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
