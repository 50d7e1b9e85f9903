//! The streams of a server: lookup for requests, undelivered data, and records of ended ones.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Reply, SocketId, Which};
use peersock_stack::Flow;

use crate::Unclosed;
use crate::connection_errors::{Ending, When};
use crate::requester::id;
use crate::so_linger::WAKE_ONLY;
use crate::state::{Entry, ServerState, is_reset_if_open};
use crate::stream::{Origin, Stream};
use crate::undelivered::Outstanding;
use crate::wakers::Key;

impl ServerState {
    /// Ends a stream.
    pub(crate) fn end_stream(&mut self, key: Key) {
        let Some(Entry::Stream(mut stream)) = self.remove(key) else { return };
        // Many connections end in the minute after which it would expire.
        if let Some(until) = stream.delivering_until() {
            self.context.clear_timer(until, key);
        }
        if let Some(watch) = stream.watch() {
            self.context.closings.unwatch(watch);
        }
        let is_draining = self.draining.is_some();
        if stream.broken().is_some() && self.context.resets.launcher().is_some() {
            // A copy of the descriptor may stay open until the launcher has answered.
            self.context.unwatch(stream.as_fd());
        }
        let ending = stream.finish(is_draining, &self.context.resets);
        let id = self.forget_stream(&stream);
        match ending {
            Some(ending) => self.note_ending(id, &stream, ending),
            None if is_draining => {
                self.delivering.add(Arc::clone(stream.connection.flow()));
                // The process exits, and one of its threads may write until then.
                if matches!(self.draining, Some(Unclosed::FinishOnly(_))) && !stream.is_closed() {
                    self.kept.push(stream.into_fd());
                }
            }
            None => {}
        }
    }

    /// Watches the closing of a descriptor whose receiving direction is about to be shut down.
    pub(crate) fn watch_shut_down(&mut self, which: Which, fd: Option<OwnedFd>) -> Result<(), Errno> {
        let fd = fd.ok_or(Errno::BADF)?;
        let Self { context, entries, sockets, .. } = self;
        let key = sockets.stream(which).ok_or(Errno::NOTCONN)?;
        let Some(Entry::Stream(stream)) = entries.get_mut(&key) else { return Err(Errno::NOTCONN) };
        if !stream.is_of(fd.as_fd()) {
            return Err(Errno::INVAL);
        }
        // SO_LINGER of zero: both ends are a reset.
        if stream.watch().is_none()
            && !stream.options.resets_on_close()
            && let Some(watch) = context.closings.watch(id(which), fd.as_fd())
        {
            stream.note_watched(watch);
        }
        Ok(())
    }

    /// Records the cause of a stream's end, and its losses.
    pub(crate) fn note_ending(&mut self, id: SocketId, stream: &Stream, ending: Ending) {
        let is_draining = self.draining.is_some();
        let is_seen = !self.has_unseen_calls || stream.process() != self.context.launcher();
        let when = if is_draining { When::Draining } else { ending.when };
        // No call can have reported a break that came after the application had closed the connection.
        let is_taken_as_noticed = !is_seen && ending.when == When::Open && !is_draining;
        let is_noticed = ending.is_noticed || is_taken_as_noticed;
        self.endings.note(Instant::now(), id, Ending { when, is_noticed, ..ending });
    }

    /// Notes that a call has told an application what has ended a connection, or does so now.
    pub(crate) fn note_noticed(&mut self, which: Which) {
        match self.stream_mut(which) {
            Some(stream) => stream.note_noticed(),
            None => self.endings.note_noticed(id(which)),
        }
    }

    /// Forgets the socket of a stream that has ended.
    pub(crate) fn forget_stream(&mut self, stream: &Stream) -> SocketId {
        if let Some(peer) = stream.connection.described() {
            self.ended_peers.note(stream.origin.id(), peer);
        }
        match stream.origin {
            Origin::Opened(id) => {
                self.remove_socket(id);
                id
            }
            Origin::Accepted { id, .. } => {
                self.sockets.forget_accepted(id);
                id
            }
        }
    }

    /// Returns the stream of a connected socket.
    pub(crate) fn stream(&self, which: Which) -> Option<&Stream> {
        match self.entry(self.sockets.stream(which)?)? {
            Entry::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    pub(crate) fn stream_mut(&mut self, which: Which) -> Option<&mut Stream> {
        let key = self.sockets.stream(which)?;
        match self.entry_mut(key)? {
            Entry::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// Returns the connection of a socket that is about to be closed, because it may be gone when the
    /// application asks about it.
    pub(crate) fn flow_of(&self, which: Which) -> Option<Arc<Flow>> {
        self.stream(which).map(|stream| Arc::clone(stream.connection.flow()))
    }

    /// Answers the applications that have waited in close(2) long enough.
    pub(crate) fn check_lingering(&mut self) {
        if self.lingering.is_empty() {
            return;
        }
        self.forget_closed();
        let now = Instant::now();
        let Self { lingering, entries, sockets, endings, .. } = self;
        let is_closed = |which| match entries.get(&sockets.stream(which)?)? {
            Entry::Stream(stream) => Some(stream.is_closed()),
            _ => None,
        };
        let ended = lingering.take_ended(now, |which| (is_closed(which), endings.loss(id(which))));
        for (requester, which, reply) in ended {
            if matches!(reply, Reply::Failed(_)) {
                self.note_noticed(which);
            }
            self.reply(requester, &reply);
        }
        if let Some(look) = self.lingering.next_look(now) {
            self.context.set_timer(look, WAKE_ONLY);
        }
    }

    /// Notes the undelivered data of closed connections.
    pub(crate) fn note_closing(&mut self) {
        let closing = self.context.node().map(|node| node.closing()).unwrap_or_default();
        closing.into_iter().for_each(|flow| self.delivering.add(flow));
    }

    /// Returns the data that has not arrived now.
    pub(crate) fn undelivered(&mut self) -> Outstanding {
        self.delivering.look();
        let now = Instant::now();
        let (closed, broken) = (self.delivering.lost(), self.endings.lost_at_drain());
        let before = self.endings.lost_before();
        let mut found = Outstanding {
            lost: closed.connections + broken.connections,
            lost_bytes: closed.bytes + broken.bytes,
            lost_before: before.connections,
            lost_before_bytes: before.bytes,
            ..Outstanding::default()
        };
        let mut silence = None;
        let streams = self.entries.values().filter_map(|entry| match entry {
            // It is about to be reset.
            Entry::Stream(stream) if is_reset_if_open(&self.draining, stream) && stream.is_delivered() => {
                None
            }
            Entry::Stream(stream) => Some((stream.connection.flow(), stream.not_taken())),
            _ => None,
        });
        // The application knows that it is connected. It may have closed its descriptor before that arrived
        // here.
        let coming = |entry: &&Entry| matches!(entry, Entry::Connecting(one) if one.is_standing());
        found.ends = self.entries.values().filter(coming).count();
        for (flow, not_taken) in streams.chain(self.delivering.flows().map(|flow| (flow, 0))) {
            let bytes = (flow.unacked() + not_taken) as u64;
            let round_trip = flow.info().and_then(|info| info.rtt).unwrap_or_default();
            found.round_trip = found.round_trip.max(round_trip);
            if bytes == 0 {
                found.ends += 1;
                continue;
            }
            found.waiting += bytes;
            let heard = flow.silence(now).unwrap_or_default();
            silence = Some(silence.map_or(heard, |least: Duration| least.min(heard)));
        }
        found.silence = silence.unwrap_or_default();
        found
    }
}
