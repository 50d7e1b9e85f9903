//! What a connection may deliver, as a model that knows no packets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::{Error, Flow, Ready};

use super::host::A;

/// A connection this old may have run into a timeout if the network was bad; the shortest is three times as
/// long.
const PATIENCE: Duration = Duration::from_secs(20);

/// One direction of a connection.
#[derive(Default)]
struct Stream {
    /// Written and not read yet.
    pending: VecDeque<u8>,
    /// Bytes written so far; the next byte follows from it.
    written: u32,
    /// The writer has said that no more comes.
    shut: bool,
    /// A stranger may have added to it: nothing is known of its bytes any more.
    forged: bool,
}

/// One side of a connection.
#[derive(Default)]
struct End {
    flow: Option<Arc<Flow>>,
    read_shut: bool,
    closed: bool,
}

/// A connection, its ends in the order of hosts, and what it owes to the readers.
pub(super) struct Connection {
    ends: [End; 2],
    /// By the host that writes.
    streams: [Stream; 2],
    opened: Instant,
    /// It may fail from now on: something happened for which TCP gives no guarantee.
    pub(super) excused: bool,
}

impl Connection {
    /// A connection that host `side` has begun.
    pub(super) fn new(side: usize, flow: Arc<Flow>, now: Instant) -> Self {
        let mut ends = [End::default(), End::default()];
        ends[side].flow = Some(flow);
        Self { ends, streams: Default::default(), opened: now, excused: false }
    }

    /// The flow at host `side`, if it is the application's.
    pub(super) fn flow(&self, side: usize) -> Option<&Arc<Flow>> {
        self.ends[side].flow.as_ref()
    }

    /// Whether `flow`, accepted by host `side`, is the other end of this connection.
    pub(super) fn accept(&mut self, side: usize, flow: &Arc<Flow>) -> bool {
        let mine = self.ends[side].flow.is_none()
            && self.ends[1 - side]
                .flow
                .as_ref()
                .is_some_and(|other| (other.local(), other.remote()) == (flow.remote(), flow.local()));
        if mine {
            self.ends[side].flow = Some(flow.clone());
        }
        mine
    }

    /// Forgets the guarantees of a connection on which so much time has passed on a bad network.
    pub(super) fn grow_old(&mut self, now: Instant) {
        self.excused |= now > self.opened + PATIENCE;
    }

    /// What host `side` writes may be mixed with a stranger's data from now on.
    pub(super) fn forge(&mut self, side: usize) {
        self.streams[side].forged = true;
    }

    pub(super) fn write(&mut self, side: usize, now: Instant, len: usize, urgent: bool) {
        let End { flow: Some(flow), closed: false, .. } = &self.ends[side] else { return };
        let stream = &mut self.streams[side];
        let data: Vec<u8> = (0..len as u32).map(|at| byte(side, stream.written + at)).collect();
        let ready = flow.readiness();
        let result = if urgent { flow.write_urgent(now, &data) } else { flow.write(now, &data) };
        match result {
            Ok(written) => {
                assert!(!stream.shut && written <= len);
                stream.pending.extend(&data[..written]);
                stream.written += written as u32;
                // Whoever has closed his end resets the connection when more comes.
                self.excused |= written > 0 && self.ends[1 - side].closed;
            }
            Err(Error::WouldBlock) => assert!(!ready.contains(Ready::WRITABLE), "{ready:?}"),
            Err(Error::BrokenPipe) if stream.shut => {}
            Err(error) => self.failed(side, error),
        }
    }

    pub(super) fn read(&mut self, side: usize, now: Instant, len: usize, peek: bool) {
        let End { flow: Some(flow), closed: false, read_shut } = &self.ends[side] else { return };
        let stream = &mut self.streams[1 - side];
        let mut buf = vec![0; len];
        let ready = flow.readiness();
        let urgent = flow.urgent_left() > 0 && !read_shut;
        assert_eq!(ready.contains(Ready::URGENT), urgent, "{ready:?}");
        let result = if peek { flow.peek(now, &mut buf) } else { flow.read(now, &mut buf) };
        if result != Err(Error::WouldBlock) && len > 0 {
            assert!(ready.contains(Ready::READABLE), "{ready:?}");
        }
        match result {
            Ok(0) => {
                let complete = stream.shut && stream.pending.is_empty();
                assert!(len == 0 || *read_shut || self.excused || complete, "{} left", stream.pending.len());
            }
            Ok(_) if stream.forged => {}
            Ok(read) => {
                assert!(read <= stream.pending.len(), "more than was written");
                assert!(
                    stream.pending.iter().zip(&buf[..read]).all(|(sent, got)| sent == got),
                    "other bytes"
                );
                if !peek {
                    stream.pending.drain(..read);
                }
            }
            Err(Error::WouldBlock) => assert!(!ready.contains(Ready::READABLE), "{ready:?}"),
            Err(error) => self.failed(side, error),
        }
    }

    pub(super) fn shutdown_write(&mut self, side: usize, now: Instant) {
        let End { flow: Some(flow), closed: false, .. } = &self.ends[side] else { return };
        if flow.shutdown_write(now).is_ok() {
            self.streams[side].shut = true;
        }
    }

    pub(super) fn shutdown_read(&mut self, side: usize, now: Instant) {
        let End { flow: Some(flow), closed: false, read_shut } = &mut self.ends[side] else { return };
        *read_shut |= flow.shutdown_read(now).is_ok();
    }

    /// Closes one end. Nothing that it has written may be lost by that, unless there is something that it did
    /// not read.
    pub(super) fn close(&mut self, side: usize, now: Instant) {
        let End { flow: Some(flow), closed, .. } = &mut self.ends[side] else { return };
        let connected = flow.readiness().contains(Ready::CONNECTED);
        flow.close(now);
        *closed = true;
        self.streams[side].shut = true;
        self.excused |= !connected || !self.streams[1 - side].pending.is_empty();
    }

    pub(super) fn abort(&mut self, side: usize, now: Instant) {
        if let Some(flow) = self.flow(side) {
            flow.abort(now);
            self.excused = true;
        }
    }

    /// Reads all there is at both ends.
    pub(super) fn read_all(&mut self, now: Instant) {
        for side in [A, 1 - A] {
            for _ in 0..64 {
                self.read(side, now, 4096, false);
            }
        }
    }

    /// Whether everything that was written for a reader who is still there has been read.
    pub(super) fn is_complete(&self) -> bool {
        let arrived = |side: usize| {
            let reader = &self.ends[1 - side];
            self.streams[side].pending.is_empty() || reader.closed || reader.read_shut
        };
        self.excused || (arrived(0) && arrived(1))
    }

    fn failed(&mut self, side: usize, error: Error) {
        assert!(self.excused, "host {side}: {error}");
    }
}

/// Each byte of the two streams, so that a shift or a mix-up shows.
fn byte(side: usize, at: u32) -> u8 {
    let hash = (at + 1).wrapping_mul(0x9e37_79b1).rotate_left(side as u32 * 7 + 5);
    (hash >> 24) as u8
}
