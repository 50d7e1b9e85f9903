//! The streams of a server: found by what requests call them, and what is left when they have ended.

use std::sync::Arc;

use peersock_fd::{SocketId, Which};

use super::connection_errors::{Ending, When};
use super::requester::id;
use super::state::{Entry, ServerState};
use super::stream::{Origin, Stream};
use super::wakers::Key;

impl ServerState {
    /// A stream has ended.
    pub(super) fn end_stream(&mut self, key: Key) {
        let Some(Entry::Stream(mut stream)) = self.remove(key) else { return };
        let is_draining = self.draining.is_some();
        let ending = stream.finish(is_draining);
        let id = self.forget_stream(&stream);
        match ending {
            Some(ending) => self.note_ending(id, &stream, ending),
            None if is_draining => self.delivering.add(Arc::clone(stream.connection.flow())),
            None => {}
        }
    }

    /// Remembers what has ended a stream, and what was lost.
    pub(super) fn note_ending(&mut self, id: SocketId, stream: &Stream, ending: Ending) {
        let is_draining = self.draining.is_some();
        let is_seen = !self.has_unseen_calls || stream.process() != rustix::process::getpid().as_raw_pid();
        let when = if is_draining { When::Draining } else { ending.when };
        let is_noticed = ending.is_noticed || !(is_seen || is_draining);
        self.endings.note(id, Ending { when, is_noticed, ..ending });
    }

    /// A call has told an application what has ended a connection, or does so now.
    pub(super) fn note_noticed(&mut self, which: Which) {
        match self.stream_mut(which) {
            Some(stream) => stream.note_noticed(),
            None => self.endings.note_noticed(id(which)),
        }
    }

    /// Forgets the socket of a stream that has ended.
    pub(super) fn forget_stream(&mut self, stream: &Stream) -> SocketId {
        match stream.origin {
            Origin::Opened(id) => {
                self.sockets.remove(id);
                id
            }
            Origin::Accepted(id) => {
                self.sockets.forget_accepted(id);
                id
            }
        }
    }

    /// The stream of a socket that is connected.
    pub(super) fn stream(&self, which: Which) -> Option<&Stream> {
        match self.entry(self.sockets.stream(which)?)? {
            Entry::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn stream_mut(&mut self, which: Which) -> Option<&mut Stream> {
        let key = self.sockets.stream(which)?;
        match self.entry_mut(key)? {
            Entry::Stream(stream) => Some(stream),
            _ => None,
        }
    }
}
