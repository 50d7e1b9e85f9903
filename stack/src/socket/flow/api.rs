//! Calls of the application and of the driver.

use std::any::Any;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::{Egress, Flow};
use crate::host::clock::Time;
use crate::tcp::{Connection, Written, header_len};
use crate::{Error, InterfaceId, Ready, State, SuperSegment};

/// Maximum number of pieces that [`Flow::read_with`] shows.
pub const PIECES: usize = 32;

impl Flow {
    /// Returns the interface of the connection.
    pub fn interface(&self) -> InterfaceId {
        self.interface.id
    }

    /// Returns the local address and port.
    pub fn local(&self) -> SocketAddr {
        self.key.local(self.v4)
    }

    /// Returns the peer's address and port.
    pub fn remote(&self) -> SocketAddr {
        self.key.remote(self.v4)
    }

    /// Returns the state of the connection.
    pub fn state(&self) -> State {
        self.lock().state()
    }

    /// Returns the current readiness. Takes no lock.
    pub fn readiness(&self) -> Ready {
        Ready::from_bits(self.ready.load(Ordering::Acquire))
    }

    /// Queues the part of `data` that fits; returns the number of bytes.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] while the queue is full or during the handshake, [`Error::BrokenPipe`] after
    /// sending was shut down or the connection has ended. The error that ended the connection is returned
    /// once.
    pub fn write(&self, now: Instant, data: &[u8]) -> Result<usize, Error> {
        self.write_with(now, data.len(), |connection| connection.write(data))
    }

    /// Does the same as [`write`](Self::write) with several buffers, one after another.
    /// Fails as [`write`](Self::write) does.
    pub fn write_vectored(&self, now: Instant, buffers: &[IoSlice<'_>]) -> Result<usize, Error> {
        let len = buffers.iter().map(|buffer| buffer.len()).sum();
        self.write_with(now, len, |connection| {
            let mut queued = 0;
            for buffer in buffers {
                let fits = connection.write(buffer);
                queued += fits;
                // A gap would corrupt the stream, so no later buffer may follow a partial write.
                if fits < buffer.len() {
                    break;
                }
            }
            queued
        })
    }

    /// Writes `len` bytes as [`write`](Self::write) does; `queue` passes them to the connection.
    pub(super) fn write_with(
        &self,
        now: Instant,
        len: usize,
        queue: impl FnOnce(&mut Connection) -> usize,
    ) -> Result<usize, Error> {
        let (mut inner, time) = self.lock_at(now);
        if let Some(error) = inner.error.take() {
            self.publish(&mut inner);
            return Err(error);
        }
        if inner.write_shut {
            return Err(Error::BrokenPipe);
        }
        match inner.state() {
            State::SynSent | State::SynReceived => return Err(Error::WouldBlock),
            State::Established | State::CloseWait => {}
            _ => return Err(Error::BrokenPipe),
        }
        let (queued, left) = inner.live().map_or((0, 0), |connection| {
            let queued = queue(connection);
            (queued, connection.writable())
        });
        // Unsent data counts as waiting, because a blocked path may prevent even its transmission.
        inner.waiting.get_or_insert(time);
        // A queue that is exactly full counts, too, because the next write would block.
        if queued < len || left == 0 {
            inner.was_full = true;
            self.publish(&mut inner);
        }
        if queued == 0 && len > 0 { Err(Error::WouldBlock) } else { Ok(queued) }
    }

    /// Takes received data; `Ok(0)` means that the peer has sent everything.
    ///
    /// After a reset, data that had arrived in order before can still be read. Then the error is returned
    /// once, and after it the end.
    /// Errors: [`Error::WouldBlock`] while no data is available, else the error that ended the connection.
    pub fn read(&self, now: Instant, buf: &mut [u8]) -> Result<usize, Error> {
        let (mut inner, time) = self.lock_at(now);
        if buf.is_empty() || inner.read_shut {
            return Ok(0);
        }
        if let Some(connection) = inner.connection.as_mut().filter(|connection| connection.readable() > 0) {
            let urgent = connection.urgent_left() > 0;
            let len = connection.read(time, buf);
            // With its queue empty, an ended connection can be freed.
            if connection.readable() == 0 {
                self.refresh(&mut inner, time);
            } else if urgent {
                // The read may have passed the urgent mark.
                self.publish(&mut inner);
            }
            return Ok(len);
        }
        self.nothing_to_read(&mut inner)
    }

    /// Shows received data in place to `take`, in order, in at most [`PIECES`] pieces. `take` returns the
    /// number of bytes used, which are then removed. The flow's lock is held meanwhile. Otherwise it behaves
    /// as [`read`](Self::read).
    /// Fails as [`read`](Self::read) does.
    pub fn read_with(&self, now: Instant, take: impl FnOnce(&[&[u8]]) -> usize) -> Result<usize, Error> {
        let (mut inner, time) = self.lock_at(now);
        if inner.read_shut {
            return Ok(0);
        }
        let Some(connection) = inner.connection.as_mut().filter(|connection| connection.readable() > 0)
        else {
            return self.nothing_to_read(&mut inner);
        };
        let mut pieces: [&[u8]; PIECES] = [&[]; PIECES];
        let mut count = 0;
        for (slot, piece) in pieces.iter_mut().zip(connection.pieces()) {
            (*slot, count) = (piece, count + 1);
        }
        let urgent = connection.urgent_left() > 0;
        // Under the lock, so that no other reader consumes the same bytes.
        let used = take(&pieces[..count]);
        connection.consume(time, used);
        if connection.readable() == 0 {
            self.refresh(&mut inner, time);
        } else if urgent {
            self.publish(&mut inner);
        }
        Ok(used)
    }

    /// Copies received data without removing it. Otherwise it behaves as [`read`](Self::read).
    /// Fails as [`read`](Self::read) does.
    pub fn peek(&self, _now: Instant, buf: &mut [u8]) -> Result<usize, Error> {
        let mut inner = self.lock();
        if buf.is_empty() || inner.read_shut {
            return Ok(0);
        }
        match inner.connection.as_mut().filter(|connection| connection.readable() > 0) {
            Some(connection) => Ok(connection.peek(buf)),
            None => self.nothing_to_read(&mut inner),
        }
    }

    fn nothing_to_read(&self, inner: &mut super::Inner) -> Result<usize, Error> {
        // An error after the peer's FIN concerns writing; a reader sees an orderly end, as in Linux.
        if !inner.ended
            && let Some(error) = inner.error.take()
        {
            self.publish(inner);
            return Err(error);
        }
        if inner.ended || !inner.linked { Ok(0) } else { Err(Error::WouldBlock) }
    }

    /// Sends FIN after the queued data: SHUT_WR.
    /// Errors: [`Error::NotConnected`] during the handshake and after the end of the connection.
    pub fn shutdown_write(&self, now: Instant) -> Result<(), Error> {
        let (mut inner, time) = self.lock_at(now);
        if inner.state().is_connecting() {
            return Err(Error::NotConnected);
        }
        let connection = inner.live().ok_or(Error::NotConnected)?;
        connection.shutdown();
        inner.write_shut = true;
        self.refresh(&mut inner, time);
        Ok(())
    }

    /// Makes every read return the end, and discards arriving data: SHUT_RD. The peer learns nothing until
    /// the connection is [closed](Self::close), which resets it if data was discarded.
    ///
    /// If sending was shut down too, arriving data resets the connection once the FIN is sent, as in Linux.
    /// Data that had arrived before keeps its place, because room for more would only bring that reset before
    /// the peer has the queued data.
    /// Errors: [`Error::NotConnected`] during the handshake and after the end of the connection.
    pub fn shutdown_read(&self, now: Instant) -> Result<(), Error> {
        let (mut inner, time) = self.lock_at(now);
        if inner.state().is_connecting() {
            return Err(Error::NotConnected);
        }
        inner.live().ok_or(Error::NotConnected)?;
        inner.read_shut = true;
        match inner.write_shut && !inner.ended {
            true => inner.hold(),
            false => inner.discard(),
        }
        self.refresh(&mut inner, time);
        Ok(())
    }

    /// Lets the connection finish without the application: FIN after the queue, TIME-WAIT, removal.
    ///
    /// The peer gets a reset at once instead in three cases: received data was not read, or was discarded, or
    /// the socket is set to [reset](Self::set_reset_on_close) (RFC 2525 2.17). A handshake in progress is
    /// given up.
    pub fn close(&self, now: Instant) {
        let (mut inner, time) = self.lock_at(now);
        inner.orphaned = true;
        inner.error = None;
        inner.write_shut = true;
        // The timeouts of an orphaned connection start at the close, not at the last segment.
        inner.heard = inner.heard.max(time);
        inner.waiting = inner.waiting.map(|_| time);
        let reset = inner.is_reset_on_close();
        match inner.state() {
            // In SYN-SENT the peer has no connection that needs a reset.
            State::SynSent => self.unlink(&mut inner),
            // The peer believes to be connected, or will in a moment.
            State::SynReceived => self.reset(&mut inner),
            _ if reset => self.reset(&mut inner),
            _ => {
                if let Some(connection) = inner.live() {
                    connection.shutdown();
                }
                self.note_orphan(&mut inner);
            }
        }
        self.refresh(&mut inner, time);
    }

    /// Returns true if [`close`](Self::close) would reset the connection now.
    pub fn is_reset_on_close(&self) -> bool {
        self.lock().is_reset_on_close()
    }

    /// Stops receiving. Data that has arrived can still be read. If the peer has ended its side, that data is
    /// complete: nothing changes, and `true` is returned. Otherwise the connection is reset at once, so that
    /// the peer's application does not believe that later data was delivered. Reads fail with
    /// [`Error::ConnectionAborted`] once the arrived data is read.
    pub fn stop_receiving(&self, now: Instant) -> bool {
        let (mut inner, time) = self.lock_at(now);
        // Data may still come, which no program will read. The peer learns it now and not by a full window.
        if !inner.ended {
            self.abort_at(&mut inner, time, Error::ConnectionAborted);
        }
        inner.ended
    }

    /// Resets the connection. Pending reads and writes fail with [`Error::ConnectionAborted`].
    pub fn abort(&self, now: Instant) {
        self.abort_because(now, Error::ConnectionAborted);
    }

    /// Resets the connection; `error` is the local error.
    pub(crate) fn abort_because(&self, now: Instant, error: Error) {
        let (mut inner, time) = self.lock_at(now);
        self.abort_at(&mut inner, time, error);
    }

    fn abort_at(&self, inner: &mut super::Inner, time: Time, error: Error) {
        if !inner.linked {
            return;
        }
        if !inner.orphaned {
            inner.error = Some(error);
        }
        // In SYN-SENT and TIME-WAIT no reset is sent (RFC 9293 3.10.5).
        match inner.state() {
            State::SynSent | State::TimeWait => self.unlink(inner),
            _ => self.reset(inner),
        }
        self.refresh(inner, time);
    }

    /// Returns true if the peer has opened the connection.
    pub(crate) fn is_accepted(&self) -> bool {
        self.lock().is_accepted
    }

    /// Ends the connection because of a failure below it, without sending anything to the peer.
    pub fn fail(&self, now: Instant, error: Error) {
        let (mut inner, time) = self.lock_at(now);
        if inner.linked {
            self.kill(&mut inner, error);
            self.refresh(&mut inner, time);
        }
    }

    /// Returns the error that ended the connection, if not reported yet: SO_ERROR.
    pub fn take_error(&self) -> Option<Error> {
        let mut inner = self.lock();
        let error = inner.error.take();
        self.publish(&mut inner);
        error
    }

    /// Returns the bytes queued and never sent.
    pub fn unsent(&self) -> usize {
        self.lock().live().map_or(0, |connection| connection.unsent())
    }

    /// Returns the bytes queued and not acknowledged, unsent bytes included: SIOCOUTQ. Zero when everything
    /// has arrived; after a [loss](Self::delivery) it stays at the lost amount.
    pub fn unacked(&self) -> usize {
        let mut inner = self.lock();
        match inner.loss() {
            Some(loss) => loss.unacked as usize,
            None => inner.live().map_or(0, |connection| connection.unacked()),
        }
    }

    /// Returns the bytes sent and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.lock().live().map_or(0, |connection| connection.in_flight())
    }

    /// Returns the time for which sent data has waited for an acknowledgement while the peer was silent;
    /// `None` if nothing waits. More than a round trip or two indicates a broken path. A peer without room is
    /// probed ever more rarely; it counts as silent from an unanswered probe on.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        let (inner, time) = self.lock_at(now);
        let waiting = inner.waiting?;
        let since = inner.silent_since(waiting);
        let has_lasted = |since| if time > since { (time - since).into() } else { Duration::ZERO };
        Some(since.map_or(Duration::ZERO, has_lasted))
    }

    /// Returns the bytes that [`write`](Self::write) would accept now.
    pub fn writable(&self) -> usize {
        self.lock().live().map_or(0, |connection| connection.writable())
    }

    /// Returns the bytes that can be read: FIONREAD.
    pub fn readable(&self) -> usize {
        self.lock().readable()
    }

    /// Writes at most one super-segment to `buf`, which must hold [`MAX_PACKET`](crate::MAX_PACKET) bytes.
    /// Call it until it returns `None`: then there is nothing to send, and the flow's timer is set.
    pub fn egress(&self, now: Instant, limits: &Egress, buf: &mut [u8]) -> Option<SuperSegment> {
        let time = self.shared.clock.time(now);
        // The last super-segment usually leaves nothing to send, so the call that confirms it skips the lock.
        if self.quiet.load(Ordering::Relaxed) == time.total_micros() {
            return None;
        }
        let mut inner = self.lock_to_fetch();
        let time = inner.pass(time);
        if inner.is_held {
            return None;
        }
        let connection = inner.live()?;
        let before = connection.retransmits();
        let emitted = connection.emit(time, &self.lower(limits), self.endpoints(), buf);
        let rest = emitted.as_ref().and_then(|_| connection.rest(time));
        let again = connection.retransmits() - before;
        if again > 0 {
            self.shared.counters.tcp_retransmits.add(again);
        }
        if let Some(due) = rest {
            self.arm_for(&mut inner, time, due);
            self.quiet.store(time.total_micros(), Ordering::Relaxed);
        } else if emitted.is_none() || inner.state() == State::Closed {
            self.refresh(&mut inner, time);
            self.arm(&mut inner, time);
        }
        drop(inner);
        let Written { len, header_len, segment } = emitted?;
        Some(SuperSegment::new(&buf[..len], header_len, segment, limits.checksums))
    }

    /// Returns the limits, lowered by MTUs that routers have reported.
    fn lower(&self, limits: &Egress) -> Egress {
        // Most nodes have no reports, and then need no look-up per packet.
        if !self.shared.path_mtus.any() {
            return *limits;
        }
        let (local, remote) = self.endpoints();
        let reported = self.shared.path_mtus.find(self.interface.id, remote.ip());
        let segment = reported.map_or(usize::MAX, |mtu| mtu - header_len(local));
        Egress { segment: limits.segment.min(segment), ..*limits }
    }

    /// Returns true if [`egress`](Self::egress) has something to send.
    pub fn has_output(&self, now: Instant) -> bool {
        let (mut inner, time) = self.lock_at(now);
        !inner.is_held && inner.live().is_some_and(|connection| connection.has_output(time))
    }

    /// Returns true if small writes leave at once: TCP_NODELAY.
    pub fn nodelay(&self) -> bool {
        self.lock().live().is_some_and(|connection| connection.nodelay())
    }

    /// Sets TCP_NODELAY.
    pub fn set_nodelay(&self, on: bool) {
        if let Some(connection) = self.lock().live() {
            connection.set_nodelay(on);
        }
    }

    /// Sets TCP_USER_TIMEOUT (RFC 5482): the maximum wait for an acknowledgement, `None` for
    /// [`Config::user_timeout`](crate::Config::user_timeout). The next [`egress`](Self::egress) sets the
    /// timer.
    pub fn set_user_timeout(&self, timeout: Option<Duration>) {
        let mut inner = self.lock();
        // A flow with only default settings allocates no `Cold`.
        if inner.cold.is_some() || timeout.is_some() {
            inner.cold().user_timeout = timeout;
            inner.apply_probing();
        }
    }

    /// Makes [`close`](Self::close) reset the connection: SO_LINGER with zero. For a positive linger time,
    /// wait for [`unacked`](Self::unacked) to become zero.
    pub fn set_reset_on_close(&self, on: bool) {
        self.lock().reset_on_close = on;
    }

    /// Declares that the application has used everything taken out of this flow. If no data is left, a reset
    /// tells the peer so (text in the reset, RFC 9293 3.5.3), and the peer counts no [loss](Self::delivery).
    /// Reading alone proves nothing, because the reader may have passed the data on, or may fail to.
    pub fn set_all_read(&self) {
        self.lock().said_read = true;
    }

    /// Returns the driver's own state for this socket.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.context
    }
}
