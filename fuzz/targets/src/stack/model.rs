//! Model of the data a connection may deliver, without packets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::{Error, Flow, Ready};

use super::host::A;

/// Age at which a connection may have run into a timeout if the network was bad. The shortest timeout is
/// three times as long.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// One direction of a connection.
#[derive(Default)]
struct Stream {
    /// Bytes written and not read yet.
    pending: VecDeque<u8>,
    /// Number of bytes written so far, which determines the next byte.
    written: u32,
    /// True once the writer has finished the stream.
    shut: bool,
    /// True if a stranger may have added data, so that the model no longer knows the bytes.
    forged: bool,
}

/// One side of a connection.
#[derive(Default)]
struct End {
    flow: Option<Arc<Flow>>,
    read_shut: bool,
    closed: bool,
}

/// A connection with its ends in the order of hosts, and the data still owed to the readers.
pub(super) struct Connection {
    ends: [End; 2],
    /// Streams by the host that writes.
    streams: [Stream; 2],
    opened: Instant,
    /// True if the connection may fail, after an event for which TCP gives no guarantee.
    pub(super) excused: bool,
}

impl Connection {
    /// Makes a connection begun by host `side`.
    pub(super) fn new(side: usize, flow: Arc<Flow>, now: Instant) -> Self {
        let mut ends = [End::default(), End::default()];
        ends[side].flow = Some(flow);
        Self { ends, streams: Default::default(), opened: now, excused: false }
    }

    /// Returns the flow at host `side`, if the application has it.
    pub(super) fn flow(&self, side: usize) -> Option<&Arc<Flow>> {
        self.ends[side].flow.as_ref()
    }

    /// Returns true if `flow`, accepted by host `side`, is the other end of this connection.
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

    /// Drops the guarantees of a connection that has spent this much time on a bad network.
    pub(super) fn grow_old(&mut self, now: Instant) {
        self.excused |= now > self.opened + DELIVERY_TIMEOUT;
    }

    /// Records that a stranger's data may be mixed with host `side`'s data from now on.
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
                // An end that has closed resets the connection when more data comes.
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

    /// Closes one end. That must not lose any data the end has written, unless the end has unread data.
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

    /// Reads all available data at both ends.
    pub(super) fn read_all(&mut self, now: Instant) {
        for side in [A, 1 - A] {
            for _ in 0..64 {
                self.read(side, now, 4096, false);
            }
        }
    }

    /// Returns true if all data written for readers that still exist has been read.
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

/// Returns one byte of one of the two streams. The values reveal a shift or a mix-up.
fn byte(side: usize, at: u32) -> u8 {
    let hash = (at + 1).wrapping_mul(0x9e37_79b1).rotate_left(side as u32 * 7 + 5);
    (hash >> 24) as u8
}
