//! The calls of the application and of the driver.

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

/// The most pieces that [`Flow::read_with`] shows.
pub const PIECES: usize = 32;

impl Flow {
    /// The interface it goes over.
    pub fn interface(&self) -> InterfaceId {
        self.interface.id
    }

    /// The own address and port.
    pub fn local(&self) -> SocketAddr {
        self.key.local(self.v4)
    }

    /// The peer's address and port.
    pub fn remote(&self) -> SocketAddr {
        self.key.remote(self.v4)
    }

    /// The connection's state.
    pub fn state(&self) -> State {
        self.lock().state()
    }

    /// What can be done without waiting. Takes no lock.
    pub fn readiness(&self) -> Ready {
        Ready::from_bits(self.ready.load(Ordering::Acquire))
    }

    /// Queues what fits of `data` and says how many bytes that were.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] while the queue is full or the handshake is under way,
    /// [`Error::BrokenPipe`] after sending was shut down or the connection has ended, and once the
    /// error that ended it.
    pub fn write(&self, now: Instant, data: &[u8]) -> Result<usize, Error> {
        self.write_with(now, data.len(), |connection| connection.write(data))
    }

    /// As [`write`](Self::write), with the data in several buffers, one after another.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub fn write_vectored(&self, now: Instant, buffers: &[IoSlice<'_>]) -> Result<usize, Error> {
        let len = buffers.iter().map(|buffer| buffer.len()).sum();
        self.write_with(now, len, |connection| {
            let mut queued = 0;
            for buffer in buffers {
                let fits = connection.write(buffer);
                queued += fits;
                if fits < buffer.len() {
                    break;
                }
            }
            queued
        })
    }

    /// As [`write`](Self::write) of `len` bytes, with `queue` for what the connection does.
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
        inner.waiting.get_or_insert(time);
        if queued < len || left == 0 {
            inner.was_full = true;
            self.publish(&mut inner);
        }
        if queued == 0 && len > 0 { Err(Error::WouldBlock) } else { Ok(queued) }
    }

    /// Takes received data; `Ok(0)` means that the peer has sent all it will.
    ///
    /// When the connection was reset, what had arrived in order before can still be read; then comes
    /// the error, once, and after that the end.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] while nothing is there, else what ended the connection.
    pub fn read(&self, now: Instant, buf: &mut [u8]) -> Result<usize, Error> {
        let (mut inner, time) = self.lock_at(now);
        if buf.is_empty() || inner.read_shut {
            return Ok(0);
        }
        if let Some(connection) = inner.connection.as_mut().filter(|connection| connection.readable() > 0) {
            let urgent = connection.urgent_left() > 0;
            let len = connection.read(time, buf);
            if connection.readable() == 0 {
                self.refresh(&mut inner, time);
            } else if urgent {
                self.publish(&mut inner);
            }
            return Ok(len);
        }
        self.nothing_to_read(&mut inner)
    }

    /// Shows received data to `take` where it lies, in order, in at most [`PIECES`] pieces. `take` says how
    /// many bytes it has used, and these are then gone. Otherwise as [`read`](Self::read): the flow's lock is
    /// held meanwhile.
    ///
    /// # Errors
    /// As [`read`](Self::read).
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
        let used = take(&pieces[..count]);
        connection.consume(time, used);
        if connection.readable() == 0 {
            self.refresh(&mut inner, time);
        } else if urgent {
            self.publish(&mut inner);
        }
        Ok(used)
    }

    /// Copies received data and leaves it there; otherwise as [`read`](Self::read).
    ///
    /// # Errors
    /// As [`read`](Self::read).
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
        // What broke after the peer's FIN concerns writing: to a reader the connection has ended in order, as
        // in Linux.
        if !inner.ended
            && let Some(error) = inner.error.take()
        {
            self.publish(inner);
            return Err(error);
        }
        if inner.ended || !inner.linked { Ok(0) } else { Err(Error::WouldBlock) }
    }

    /// Sends FIN after the queue: SHUT_WR.
    ///
    /// # Errors
    /// [`Error::NotConnected`] before the handshake is done and after the connection has ended.
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

    /// Makes every read return the end, and throws away what comes: SHUT_RD. The peer is not told before the
    /// connection is [closed](Self::close): that resets it if anything was thrown away. With sending shut
    /// down too, what comes resets it at once, as in Linux.
    ///
    /// # Errors
    /// [`Error::NotConnected`] before the handshake is done and after the connection has ended.
    pub fn shutdown_read(&self, now: Instant) -> Result<(), Error> {
        let (mut inner, time) = self.lock_at(now);
        if inner.state().is_connecting() {
            return Err(Error::NotConnected);
        }
        inner.live().ok_or(Error::NotConnected)?;
        inner.read_shut = true;
        inner.discard();
        self.refresh(&mut inner, time);
        Ok(())
    }

    /// Lets the connection go on without the application: FIN after the queue, TIME-WAIT, gone.
    ///
    /// If received data was not read or was thrown away, or the socket is set to
    /// [reset](Self::set_reset_on_close), the peer gets a reset at once instead (RFC 2525 2.17). A handshake
    /// under way is given up.
    pub fn close(&self, now: Instant) {
        let (mut inner, time) = self.lock_at(now);
        inner.orphaned = true;
        inner.error = None;
        inner.write_shut = true;
        inner.heard = inner.heard.max(time);
        inner.waiting = inner.waiting.map(|_| time);
        let reset = inner.readable() > 0 || inner.discarded || inner.reset_on_close;
        match inner.state() {
            State::SynSent => self.unlink(&mut inner),
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

    /// Takes nothing more from the peer. What has arrived can still be read. If the peer has ended its
    /// side, that is everything: nothing changes, and `true` is returned. Otherwise the connection is reset
    /// at once, so that the peer's application takes nothing for delivered that comes after this, and reads
    /// fail with [`Error::ConnectionAborted`] when what had arrived is read.
    pub fn stop_receiving(&self, now: Instant) -> bool {
        let (mut inner, time) = self.lock_at(now);
        if !inner.ended {
            self.abort_at(&mut inner, time, Error::ConnectionAborted);
        }
        inner.ended
    }

    /// Resets the connection. Pending reads and writes fail with [`Error::ConnectionAborted`].
    pub fn abort(&self, now: Instant) {
        self.abort_because(now, Error::ConnectionAborted);
    }

    /// Resets the connection; `error` is what this end is told.
    pub(super) fn abort_because(&self, now: Instant, error: Error) {
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
        match inner.state() {
            State::SynSent | State::TimeWait => self.unlink(inner),
            _ => self.reset(inner),
        }
        self.refresh(inner, time);
    }

    /// Ends the connection because of something below it, without a word to the peer.
    pub fn fail(&self, now: Instant, error: Error) {
        let (mut inner, time) = self.lock_at(now);
        if inner.linked {
            self.kill(&mut inner, error);
            self.refresh(&mut inner, time);
        }
    }

    /// What ended the connection, if it was not reported yet: SO_ERROR.
    pub fn take_error(&self) -> Option<Error> {
        let mut inner = self.lock();
        let error = inner.error.take();
        self.publish(&mut inner);
        error
    }

    /// Bytes queued and never sent.
    pub fn unsent(&self) -> usize {
        self.lock().live().map_or(0, |connection| connection.unsent())
    }

    /// Bytes queued and not acknowledged, unsent ones included: SIOCOUTQ. Zero when all has arrived; after a
    /// [loss](Self::delivery) what is left for ever.
    pub fn unacked(&self) -> usize {
        let mut inner = self.lock();
        match inner.loss() {
            Some(loss) => loss.unacked as usize,
            None => inner.live().map_or(0, |connection| connection.unacked()),
        }
    }

    /// Bytes sent and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.lock().live().map_or(0, |connection| connection.in_flight())
    }

    /// How long something sent has waited for an acknowledgement while nothing came from the peer at all;
    /// `None` if nothing waits. More than a round trip or two is a sign that the path is broken. A peer that
    /// has no room, and is asked more and more rarely whether it has, is silent from the last question on if
    /// it has not answered that.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        let (inner, time) = self.lock_at(now);
        let waiting = inner.waiting?;
        let since = inner.silent_since(waiting);
        let has_lasted = |since| if time > since { (time - since).into() } else { Duration::ZERO };
        Some(since.map_or(Duration::ZERO, has_lasted))
    }

    /// Bytes that [`write`](Self::write) would take now.
    pub fn writable(&self) -> usize {
        self.lock().live().map_or(0, |connection| connection.writable())
    }

    /// Bytes that can be read: FIONREAD.
    pub fn readable(&self) -> usize {
        self.lock().readable()
    }

    /// Writes at most one super-segment to `buf`, which must hold [`MAX_PACKET`](crate::MAX_PACKET)
    /// bytes. Call it until it returns `None`: nothing to send now, and the flow's timer is set.
    pub fn egress(&self, now: Instant, limits: &Egress, buf: &mut [u8]) -> Option<SuperSegment> {
        let time = self.shared.clock.time(now);
        // Mostly it is clear after the last super-segment that this call will find nothing.
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

    /// The limits with what routers have said about the path.
    fn lower(&self, limits: &Egress) -> Egress {
        if !self.shared.path_mtus.any() {
            return *limits;
        }
        let (local, remote) = self.endpoints();
        let reported = self.shared.path_mtus.find(self.interface.id, remote.ip());
        let segment = reported.map_or(usize::MAX, |mtu| mtu - header_len(local));
        Egress { segment: limits.segment.min(segment), ..*limits }
    }

    /// Whether [`egress`](Self::egress) has something to send.
    pub fn has_output(&self, now: Instant) -> bool {
        let (mut inner, time) = self.lock_at(now);
        !inner.is_held && inner.live().is_some_and(|connection| connection.has_output(time))
    }

    /// Whether small writes leave at once: TCP_NODELAY.
    pub fn nodelay(&self) -> bool {
        self.lock().live().is_some_and(|connection| connection.nodelay())
    }

    /// Sets TCP_NODELAY.
    pub fn set_nodelay(&self, on: bool) {
        if let Some(connection) = self.lock().live() {
            connection.set_nodelay(on);
        }
    }

    /// Sets TCP_USER_TIMEOUT (RFC 5482): how long an acknowledgement may take, `None` for
    /// [`Config::user_timeout`](crate::Config::user_timeout). The next [`egress`](Self::egress) sets the
    /// timer.
    pub fn set_user_timeout(&self, timeout: Option<Duration>) {
        let mut inner = self.lock();
        if inner.cold.is_some() || timeout.is_some() {
            inner.cold().user_timeout = timeout;
            inner.apply_probing();
        }
    }

    /// Makes [`close`](Self::close) reset the connection: SO_LINGER with zero. To linger otherwise, wait
    /// for [`unacked`](Self::unacked) to become zero.
    pub fn set_reset_on_close(&self, on: bool) {
        self.lock().reset_on_close = on;
    }

    /// Says that the application has made use of all that was taken out of this flow. If nothing is left in
    /// it, a reset tells the peer so (text in the reset, RFC 9293 3.5.3), to whom it is no
    /// [loss](Self::delivery) then. That something was taken out does not say it: whoever has taken it may
    /// have passed it on, or may fail to.
    pub fn set_all_read(&self) {
        self.lock().said_read = true;
    }

    /// The driver's own state for this socket.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.context
    }
}
