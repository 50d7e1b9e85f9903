//! Data from the connection to the application.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use peersock_fd::{Errno, SendFlags};
use peersock_primitives::wait::Interest;
use peersock_stack::PIECES;
use rustix::net::SendAncillaryBuffer;

use super::{Progress, Stream, Way};

/// Time for which the peer's end is held back beyond two round trips, and maximum in total. A peer on a busy
/// machine may take a while to refuse data.
const END_HOLD_TIME: Duration = Duration::from_millis(500);
const MAX_END_HOLD_TIME: Duration = Duration::from_secs(1);

impl Stream {
    /// Moves data from the connection to the application.
    pub(super) fn pump_in(&mut self) -> Progress {
        if self.to_application == Way::Ended || !self.writable {
            return Progress::Blocked;
        }
        let mut shown = 0;
        let mut sent = Ok(0);
        let unix = &self.unix;
        let read = self.connection.read_with(|pieces| {
            shown = pieces.iter().map(|piece| piece.len()).sum();
            let mut slices = [IoSlice::new(&[]); PIECES];
            for (slice, piece) in slices.iter_mut().zip(pieces) {
                *slice = IoSlice::new(piece);
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let slices = &slices[..pieces.len()];
            sent = rustix::net::sendmsg(unix, slices, &mut SendAncillaryBuffer::default(), flags);
            sent.unwrap_or(0)
        });
        match (read, sent) {
            // The error that ended the connection is known already. After the peer's own end it concerns
            // writing only.
            (Ok(0), Ok(_)) if shown == 0 && self.broken().is_some_and(|error| error != Errno::PIPE) => {
                Progress::Broken
            }
            (Ok(0), Ok(_)) if shown == 0 && self.broken.is_none() && self.holds_back_end() => {
                Progress::Blocked
            }
            (Ok(0), Ok(_)) if shown == 0 => {
                self.to_application = Way::Ended;
                // The application may have closed it meanwhile.
                let _ = rustix::net::shutdown(&self.unix, rustix::net::Shutdown::Write);
                Progress::Blocked
            }
            (Ok(_), Ok(sent)) => {
                self.is_untouched &= sent == 0;
                self.moved.received += sent as u64;
                if sent == shown { Progress::More } else { self.wait_for_room() }
            }
            (Ok(_), Err(Errno::AGAIN)) => self.wait_for_room(),
            (Ok(_), Err(Errno::INTR)) => Progress::More,
            // SHUT_RD, or the application closes it. Received data stays unread, as in Linux: the peer waits
            // once the window is full, and closing is a reset. Room for more would go on as long as it sends.
            (Ok(_), Err(_)) => {
                self.to_application = Way::Ended;
                Progress::Blocked
            }
            (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked(Interest::Read, error)
            }
            (Err(error), _) => self.break_by(&error),
        }
    }

    /// Notes that the application's descriptor is full. The application may not read for long, and learns of
    /// a reset all the same.
    fn wait_for_room(&mut self) -> Progress {
        self.writable = false;
        if self.broken.is_some() { Progress::Blocked } else { self.wait_for(Interest::Error) }
    }

    /// Returns true while the peer's end is withheld from the application. If the peer does not read data in
    /// flight, a reset follows in about a round trip, and after the end no call would report it.
    fn holds_back_end(&mut self) -> bool {
        let flow = self.connection.flow();
        let now = Instant::now();
        let until = *self.end_until.get_or_insert_with(|| {
            let round_trip = flow.info().and_then(|info| info.rtt).unwrap_or_default();
            now + (2 * round_trip + END_HOLD_TIME).min(MAX_END_HOLD_TIME)
        });
        // An event for data that the application has just written may still be pending.
        let is_waiting = flow.unacked() > 0 || self.not_taken() > 0;
        self.holds_end = is_waiting && !self.draining && now < until;
        self.holds_end
    }
}
