//! One connection and the application's descriptor for it: bytes from the one to the other, in both directions.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;

use peersock_fd::{Errno, RecvFlags, SendFlags, SocketId};
use peersock_stack::{PIECES, Ready};
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags};
use rustix::net::{SendAncillaryBuffer, sockopt};

use super::app_end;
use super::options::Options;
use super::ready;
use super::server::News;
use crate::socket::Connection;
use crate::wait::Interest;

/// How often a stream goes on at once before others have their turn.
const ROUNDS: usize = 4;

/// What the kernel shall tell of an application's descriptor.
pub(super) const EVENTS: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A socket connected.
    Opened(SocketId),
    /// A listener accepted it.
    Accepted(SocketId),
}

/// A connection with an application.
pub(super) struct Stream {
    pub(super) connection: Connection,
    pub(super) origin: Origin,
    pub(super) options: Options,
    /// Connected to the application's descriptor.
    unix: OwnedFd,
    /// A process that has the application's descriptor, most likely.
    process: i32,
    waker: Waker,
    entry: Arc<ready::Entry>,
    /// As far as we know, the descriptor has something to read, and room.
    readable: bool,
    writable: bool,
    /// The application sends no more.
    ended: bool,
    /// What the application has written by now is taken to the last byte.
    draining: bool,
    /// The application has closed its descriptor.
    hung_up: bool,
    /// Nothing more comes from the application, or goes to it.
    outward: Way,
    inward: Way,
    /// What was read from the application and did not fit.
    left: Vec<u8>,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Its end has been passed on.
    Ended,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It waits for news.
    Waits,
    /// It could go on, but others shall have their turn.
    HasMore,
    /// It is over.
    Ended,
}

/// How far a direction came.
enum Progress {
    /// As far as it goes for now.
    Blocked,
    /// There may be more.
    More,
    /// The connection is broken.
    Broken(io::Error),
}

impl Stream {
    pub(super) fn new(
        connection: Connection,
        origin: Origin,
        options: Options,
        unix: OwnedFd,
        process: i32,
        (waker, entry): (Waker, Arc<ready::Entry>),
    ) -> Self {
        Self {
            connection,
            origin,
            options,
            unix,
            process,
            waker,
            entry,
            readable: true,
            writable: true,
            ended: false,
            draining: false,
            hung_up: false,
            outward: Way::Open,
            inward: Way::Open,
            left: Vec::new(),
        }
    }

    /// Moves what there is, up to a bound. With `drain`, what the application has not written by now does not count.
    pub(super) fn pump(&mut self, news: News, buf: &mut [u8], drain: bool) -> Outcome {
        self.entry.begin();
        self.draining |= drain;
        // News of what was written before the drain may not have been taken yet.
        self.readable |= news.readable || drain;
        self.writable |= news.writable;
        self.ended |= news.ended;
        self.hung_up |= news.hung_up;
        let mut last = (Progress::More, Progress::More);
        for _ in 0..ROUNDS {
            // What has arrived before the connection broke is still delivered, and reading it tells the error then.
            let broken =
                self.inward == Way::Open && self.connection.flow().readiness().contains(Ready::ERROR);
            let outward = if broken { self.discard(buf) } else { self.pump_out(buf) };
            let inward = if self.hung_up { Progress::Blocked } else { self.pump_in() };
            last = (outward, inward);
            if !matches!(last, (Progress::More, _) | (_, Progress::More)) {
                break;
            }
        }
        match last {
            (Progress::Broken(error), _) | (_, Progress::Broken(error)) => {
                tracing::debug!(remote = ?self.connection.peer_addr().ok(), %error, "a connection broke");
                // Who has seen the end in order gets no other.
                if !self.hung_up && self.inward == Way::Open {
                    app_end::poison(self.unix.as_fd(), self.process);
                }
                Outcome::Ended
            }
            (Progress::More, _) | (_, Progress::More) => Outcome::HasMore,
            // All that the application has written is on its way.
            _ if drain && !self.readable && self.left.is_empty() => Outcome::Ended,
            _ if self.hung_up && self.outward == Way::Ended => Outcome::Ended,
            // What it has written waits for a peer who may be waiting for it to read.
            _ if self.hung_up && self.has_unread() => {
                self.connection.flow().set_reset_on_close(true);
                Outcome::Ended
            }
            _ => Outcome::Waits,
        }
    }

    /// From the application to the connection.
    fn pump_out(&mut self, buf: &mut [u8]) -> Progress {
        if self.outward == Way::Ended {
            return Progress::Blocked;
        }
        if !self.left.is_empty() {
            match self.connection.write(&self.left) {
                Ok(written) => drop(self.left.drain(..written)),
                Err(error) => return self.blocked(Interest::Write, error),
            }
        }
        if !self.readable || !self.left.is_empty() {
            return Progress::Blocked;
        }
        if let Err(error) = self.connection.is_ready(Interest::Write) {
            let progress = self.blocked(Interest::Write, error);
            // It may have become writable before we were registered.
            if self.connection.is_ready(Interest::Write).is_err() {
                return progress;
            }
        }
        // When nothing fits it is because the connection has ended: then writing tells why.
        let room = self.connection.flow().writable().clamp(1, buf.len());
        match rustix::net::recv(&self.unix, &mut buf[..room], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.outward = Way::Ended;
                // SO_LINGER of zero: nothing but the reset tells the peer, which would take an end before it for all there
                // is.
                if self.options.resets_on_close() && self.is_closed() {
                    self.hung_up = true;
                    return Progress::Blocked;
                }
                match self.connection.shutdown(Shutdown::Write) {
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => Progress::Broken(error),
                    _ => Progress::Blocked,
                }
            }
            Ok((length, _)) => match self.connection.write(&buf[..length]) {
                Ok(written) => {
                    self.left.extend_from_slice(&buf[written..length]);
                    // Where less was there than asked for, the descriptor tells when there is more.
                    self.readable = length == room || self.ended || self.draining;
                    // The next turn finds out what the rest waits for.
                    if self.readable || !self.left.is_empty() { Progress::More } else { Progress::Blocked }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.left.extend_from_slice(&buf[..length]);
                    self.blocked(Interest::Write, error)
                }
                Err(error) => Progress::Broken(error),
            },
            Err(Errno::AGAIN) => {
                self.readable = false;
                Progress::Blocked
            }
            Err(Errno::INTR) => Progress::More,
            // The application has closed it and not read all there was: RFC 2525 2.17.
            Err(_) => {
                self.connection.flow().set_reset_on_close(true);
                (self.outward, self.hung_up) = (Way::Ended, true);
                Progress::Blocked
            }
        }
    }

    /// The connection is broken: what the application has written goes nowhere, and it is told so when it writes more,
    /// however long it takes to read what has come.
    fn discard(&mut self, buf: &mut [u8]) -> Progress {
        let unread = rustix::io::ioctl_fionread(&self.unix).unwrap_or(0) as usize;
        if unread > 0 {
            let _ = rustix::net::shutdown(&self.unix, rustix::net::Shutdown::Read);
        }
        // A byte is left, which makes the descriptor's end a reset.
        let mut left = unread.saturating_sub(1);
        while left > 0 {
            let room = left.min(buf.len());
            match rustix::net::recv(&self.unix, &mut buf[..room], RecvFlags::DONTWAIT) {
                Ok((length, _)) if length > 0 => left -= length,
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        Progress::Blocked
    }

    /// Whether the application has closed its descriptor, and not only ended its direction.
    pub(super) fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.unix, PollFlags::empty())];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        self.hung_up
            || rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    /// Whether something has come that the application, which has closed its descriptor, will not read: as TCP does, the
    /// connection is reset then (RFC 1122 4.2.2.13). Asks to be told of what comes later.
    fn has_unread(&self) -> bool {
        if self.inward == Way::Ended {
            return false;
        }
        self.connection.waiters().register(Interest::Read, &self.waker);
        self.connection.flow().readable() > 0
            || sockopt::socket_error(&self.unix) == Ok(Err(Errno::CONNRESET))
    }

    /// From the connection to the application.
    fn pump_in(&mut self) -> Progress {
        if self.inward == Way::Ended || !self.writable {
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
            (Ok(0), Ok(_)) if shown == 0 => {
                self.inward = Way::Ended;
                // It may have closed it meanwhile.
                let _ = rustix::net::shutdown(&self.unix, rustix::net::Shutdown::Write);
                Progress::Blocked
            }
            (Ok(_), Ok(sent)) => {
                self.writable = sent == shown;
                if self.writable { Progress::More } else { Progress::Blocked }
            }
            (Ok(_), Err(Errno::AGAIN)) => {
                self.writable = false;
                Progress::Blocked
            }
            (Ok(_), Err(Errno::INTR)) => Progress::More,
            // SHUT_RD, or it is closed: what comes is thrown away.
            (Ok(_), Err(_)) => {
                self.inward = Way::Ended;
                let _ = self.connection.shutdown(Shutdown::Read);
                Progress::Blocked
            }
            (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {
                let progress = self.blocked(Interest::Read, error);
                match self.connection.is_ready(Interest::Read) {
                    Ok(()) => Progress::More,
                    Err(_) => progress,
                }
            }
            (Err(error), _) => Progress::Broken(error),
        }
    }

    /// Asks to be told when a direction of the connection goes on.
    fn blocked(&self, interest: Interest, error: io::Error) -> Progress {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Progress::Broken(error);
        }
        self.connection.waiters().register(interest, &self.waker);
        Progress::Blocked
    }
}
