//! The node's end of an application's descriptor, from which the node takes what the application has written.
//!
//! The kernel reports ECONNRESET to the application if this end is closed with unread data, and an end of the
//! stream otherwise. So the last byte taken stays there until the stream has ended in order. If the node dies
//! in any way, even by SIGKILL, the application cannot mistake that for the end of its peer's data. Before
//! the application writes anything, the held byte is one that the library wrote when it connected or
//! accepted.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use peersock_fd::{Errno, MAX_NAME, Name, RecvFlags};
use rustix::net::{RecvAncillaryBuffer, RecvMsg, ReturnFlags, sockopt};

/// Maximum number of bytes that are peeked before they are taken. Peeking copies them twice but saves two
/// system calls.
const PEEKED_BYTES: usize = 4 << 10;

/// The node's end.
pub(crate) struct Outbox {
    fd: OwnedFd,
    front: Front,
    /// True if more than [`PEEKED_BYTES`] bytes were pending at the last take.
    is_long: bool,
    /// True if the application sends urgent bytes. The kernel then returns the data before an urgent byte in
    /// one call, and the rest in the next.
    has_urgent: bool,
    /// Number of bytes discarded without being taken.
    discarded: usize,
    /// Number of bytes still to be taken once the node is ending. Data written later does not count.
    due: Option<usize>,
}

/// Bytes at the front of the queue that are not, or no longer, the application's.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Front {
    Nothing,
    /// One byte from the library, which may still arrive.
    Expected,
    /// One byte that is present, and was already taken or comes from the library.
    Held,
    /// The name of this end, if the library writes it when the application accepts. The library writes
    /// nothing if the application accepts by direct system calls.
    Mark(String),
}

/// Result of a take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The number of bytes taken, at least one; and whether there are more.
    Bytes(usize, bool),
    /// No data is there now.
    Nothing,
    /// A signal came, or there was only a byte from the library.
    Interrupted,
    /// The application has shut down its sending direction.
    End,
    /// The application has closed its descriptor with unread data.
    Reset,
}

impl Outbox {
    /// Creates the end of a descriptor that the application has connected, and has written a byte to.
    pub(crate) fn of_connected(fd: OwnedFd) -> Self {
        Self::new(fd, Front::Expected)
    }

    /// Creates the end of a descriptor that the application accepts, and to which it may then write this
    /// end's name.
    pub(crate) fn of_accepted(fd: OwnedFd, name: &Name) -> Self {
        Self::new(fd, Front::Mark(name.to_string()))
    }

    fn new(fd: OwnedFd, front: Front) -> Self {
        // Receive urgent bytes inline, because an application may send them by direct calls. Out of line, the
        // kernel would count such a byte as pending but never return it.
        if let Err(error) = sockopt::set_socket_oobinline(&fd, true) {
            tracing::debug!(%error, "urgent data would not be in line");
        }
        Self { fd, front, is_long: false, has_urgent: false, discarded: 0, due: None }
    }

    /// Notes that the pending data contains an urgent byte.
    pub(crate) fn note_urgent(&mut self) {
        self.has_urgent = true;
    }

    /// Limits what counts from now on to what the application has written so far.
    pub(crate) fn begin_drain(&mut self) {
        self.due = self.due.or_else(|| Some(self.waiting()));
    }

    /// Returns its descriptor.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Returns the number of bytes that the application has written and that were not taken.
    pub(crate) fn not_taken(&self) -> usize {
        self.waiting() + self.discarded
    }

    /// Returns the number of bytes that can be taken.
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

    /// Returns true if the queue begins with `name`. The queue must not be empty, because the kernel would
    /// then report a pending reset, which it does only once.
    fn begins_with(&self, name: &str) -> bool {
        let mut buf = [0; MAX_NAME];
        let first = &mut buf[..name.len().min(MAX_NAME)];
        let peeked = rustix::net::recv(&self.fd, &mut *first, RecvFlags::DONTWAIT | RecvFlags::PEEK);
        matches!(peeked, Ok((length, _)) if length == name.len()) && first == name.as_bytes()
    }

    /// Checks, once data is there, whether it begins with the library's mark, and takes all of the mark but
    /// one byte. Returns true if there is certainly no application data.
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

    /// Returns the number of pending bytes, including those in front.
    fn there(&self) -> usize {
        rustix::io::ioctl_fionread(&self.fd).unwrap_or(0) as usize
    }

    /// Takes pending data into `buf`, which must not be empty. `ended` means that the kernel has reported the
    /// end.
    pub(crate) fn take(&mut self, buf: &mut [u8], ended: bool) -> Taken {
        let room = self.due.map_or(buf.len(), |due| due.min(buf.len()));
        let taken = self.take_due(&mut buf[..room], ended);
        if let (Some(due), Taken::Bytes(length, _)) = (&mut self.due, taken) {
            *due = due.saturating_sub(length);
        }
        taken
    }

    fn take_due(&mut self, buf: &mut [u8], ended: bool) -> Taken {
        // Data that arrives after this look causes another event.
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
        self.is_long = waiting > PEEKED_BYTES;
        if waiting == 0 {
            return if ended { self.end() } else { Taken::Nothing };
        }
        let wanted = waiting.min(buf.len());
        // The last byte is read but stays in the queue.
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
            // Only the byte in front was taken.
            0 => Taken::Interrupted,
            _ => Taken::Bytes(length, length < waiting),
        }
    }

    /// Returns the result when the kernel counts pending bytes but returns none. It must not lead to another
    /// attempt before the next event, which would loop forever.
    fn nothing(&mut self, error: Errno, ended: bool) -> Taken {
        match error {
            Errno::INTR => Taken::Interrupted,
            Errno::CONNRESET => Taken::Reset,
            _ if ended => self.end(),
            _ => Taken::Nothing,
        }
    }

    /// Takes the bytes behind the held byte if they are few. Returns `None` if they are many, or none.
    fn take_short(&mut self, buf: &mut [u8]) -> Option<Taken> {
        let room = buf.len().min(PEEKED_BYTES);
        let seen = self.receive_with_front(&mut buf[..room], RecvFlags::PEEK).ok()?;
        // If descriptors are among the data, the kernel shows only the bytes before them.
        if seen.bytes < 2 || seen.bytes > room || seen.flags.contains(ReturnFlags::CTRUNC) {
            return None;
        }
        let length = seen.bytes - 1;
        // Receive the same again, except for the last byte, which is held from now on.
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

    /// Receives the bytes behind the byte in front, which is released.
    ///
    /// # Errors
    /// Errors of recv(2); EAGAIN if there is nothing, not even the byte in front.
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

    /// Receives and discards the byte in front, and receives what follows it.
    fn receive_with_front(&self, buf: &mut [u8], flags: RecvFlags) -> Result<RecvMsg, Errno> {
        let mut front = [0];
        let mut slices = [IoSliceMut::new(&mut front), IoSliceMut::new(buf)];
        let flags = RecvFlags::DONTWAIT | flags;
        rustix::net::recvmsg(&self.fd, &mut slices, &mut RecvAncillaryBuffer::default(), flags)
    }

    /// Returns the kind of the end that has been reached.
    fn end(&mut self) -> Taken {
        // The kernel reports neither while a byte is there. It reports an error in another way.
        match sockopt::socket_error(&self.fd) {
            Ok(Err(Errno::CONNRESET)) => Taken::Reset,
            _ => Taken::End,
        }
    }

    /// Releases the held byte, so that closing is an orderly end. Returns false if the caller must try again.
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

    /// Makes the close that follows an orderly end. An application that accepts at this moment can no longer
    /// write a mark that would be left unread.
    pub(crate) fn end_in_order(&mut self) {
        if let Front::Mark(_) = self.front {
            let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Read);
        }
        self.release();
    }

    /// Returns true if closing now would be a reset to the application, because data is unread.
    pub(crate) fn is_reset_on_close(&self) -> bool {
        self.there() > 0
    }

    /// Returns true if the application has not accepted the connection yet, as far as the library reports it.
    pub(crate) fn awaits_accept(&self) -> bool {
        matches!(self.front, Front::Mark(_)) && self.there() == 0
    }

    /// Discards all pending data but one byte.
    pub(crate) fn discard(&mut self, buf: &mut [u8]) {
        self.settle();
        // Nothing has been seen so far. Data that arrives meanwhile may be the library's; the next call
        // checks.
        if let Front::Mark(_) = self.front {
            return;
        }
        let before = self.waiting();
        let mut left = self.there().saturating_sub(1);
        while left > 0 {
            let room = left.min(buf.len());
            match rustix::net::recv(&self.fd, &mut buf[..room], RecvFlags::DONTWAIT) {
                // The bytes left were never taken.
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
