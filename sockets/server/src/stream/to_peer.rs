//! Data from the application to the connection.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;

use peersock_primitives::wait::Interest;
use peersock_stack::Flow;

use super::{Progress, Stream, Way};
use crate::outbox::Taken;

/// Maximum number of written bytes that wait for the data of other streams in the same turn.
const MAX_DEFERRED_BYTES: usize = 4 << 10;

impl Stream {
    /// Moves data from the application to the connection.
    pub(super) fn pump_out(&mut self, buf: &mut [u8], unsent: &mut Vec<Arc<Flow>>) -> Progress {
        if self.to_peer == Way::Ended {
            return Progress::Blocked;
        }
        if !self.left.is_empty() {
            match self.connection.write(&self.left) {
                Ok(written) => drop(self.left.drain(..written)),
                Err(error) => return self.blocked(Interest::Write, error),
            }
            if !self.left.is_empty() {
                // The next turn finds out what blocks the rest.
                return Progress::More;
            }
        }
        if !self.readable {
            return Progress::Blocked;
        }
        if let Err(error) = self.connection.is_ready(Interest::Write) {
            return self.blocked(Interest::Write, error);
        }
        // If nothing fits, the connection has ended, and writing returns the cause.
        let room = self.connection.flow().writable().clamp(1, buf.len());
        match self.unix.take(&mut buf[..room], self.ended) {
            Taken::End if self.is_closed() => {
                // Closing the connection sends its end, or a reset if data is unread. An end before the reset
                // would look like the end of the data.
                (self.to_peer, self.hung_up) = (Way::Ended, true);
                Progress::Blocked
            }
            Taken::End => {
                self.to_peer = Way::Ended;
                let how = if self.shut_down_with.is_some() { Shutdown::Both } else { Shutdown::Write };
                match self.connection.shutdown(how) {
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => self.break_by(&error),
                    _ => Progress::Blocked,
                }
            }
            Taken::Bytes(length, has_more) => match self.write(&buf[..length], unsent) {
                Ok(written) => {
                    self.moved.sent += length as u64;
                    self.left.extend_from_slice(&buf[written..length]);
                    // If that was all, the descriptor reports when there is more.
                    self.readable = has_more || self.ended || self.draining;
                    // The next turn finds out what blocks the rest.
                    if self.readable || !self.left.is_empty() { Progress::More } else { Progress::Blocked }
                }
                Err(error) => {
                    self.left.extend_from_slice(&buf[..length]);
                    self.blocked(Interest::Write, error)
                }
            },
            Taken::Nothing => {
                self.readable = false;
                Progress::Blocked
            }
            Taken::Interrupted => Progress::More,
            // The application has closed it with unread data: RFC 2525 2.17.
            Taken::Reset => {
                self.left_unread = true;
                self.connection.flow().set_reset_on_close(true);
                (self.to_peer, self.hung_up) = (Way::Ended, true);
                Progress::Blocked
            }
        }
    }

    /// Writes to the connection. Short data is not sent yet, so that it leaves by one call with the data of
    /// other streams in the same turn.
    fn write(&self, data: &[u8], unsent: &mut Vec<Arc<Flow>>) -> io::Result<usize> {
        if data.len() > MAX_DEFERRED_BYTES {
            return self.connection.write(data);
        }
        let written = self.connection.write_unsent(data)?;
        unsent.push(Arc::clone(self.connection.flow()));
        Ok(written)
    }

    /// Discards what the application writes to a broken connection. The application gets an error when it
    /// writes more, even if it reads received data slowly.
    pub(super) fn discard(&mut self, buf: &mut [u8]) -> Progress {
        // Do this first: once there is room the application would write into it.
        if self.unix.is_reset_on_close() {
            let _ = rustix::net::shutdown(&self.unix, rustix::net::Shutdown::Read);
        }
        self.unix.discard(buf);
        Progress::Blocked
    }
}
