//! An application's connection to the request socket, and its authorization.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use peersock_fd::{
    Credentials, Errno, MAX_MESSAGE, Message, Reply, Request, SendFlags, SocketId, Token, Which, decode,
    encode, receive,
};
use peersock_stack::Flow;

use crate::context::Context;
use crate::passed_fds;
use crate::wakers::Key;

/// Maximum number of connections of other users that have not shown the token. Beyond it the oldest go;
/// processes with the token show it at once.
const MAX_STRANGERS: usize = 64;

/// Owner of everything from users that this user namespace does not know.
const OVERFLOW_UID: u32 = 65534;

/// An application's connection to the request socket.
pub(crate) struct Requester {
    fd: OwnedFd,
    /// Credentials of the process that connected.
    owner: Credentials,
    /// True if the process runs as the node's user or root, or has shown the token.
    is_trusted: bool,
    /// A connection that the application is about to close, see [`Request::Hold`].
    held: Option<Arc<Flow>>,
    /// The connection attempt whose outcome it has asked for, and perhaps received.
    awaited: Option<Key>,
}

/// Data received from a requester.
pub(crate) enum Received {
    /// A message, if it can be parsed, and a descriptor that came along.
    Message(Option<Message>, Option<OwnedFd>),
    /// No message is there now.
    Nothing,
    /// The application has closed its end, or is not authorized.
    End,
}

impl Requester {
    /// Wraps an accepted connection.
    pub(crate) fn new(fd: OwnedFd, credentials: Credentials) -> Self {
        let own = rustix::process::geteuid().as_raw();
        let is_own = credentials.uid == own && own != OVERFLOW_UID;
        let is_trusted = is_own || credentials.uid == 0;
        if is_trusted {
            passed_fds::accept(fd.as_fd());
        }
        Self { fd, owner: credentials, is_trusted, held: None, awaited: None }
    }

    /// Returns true if it needs no token, or has shown it.
    pub(crate) fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Returns the credentials of the process that connected.
    pub(crate) fn owner(&self) -> Credentials {
        self.owner
    }

    /// Receives the next message.
    pub(crate) fn receive(&mut self, context: &mut Context) -> Received {
        if !self.is_trusted {
            match passed_fds::has_some(self.fd.as_fd()) {
                Ok(false) => {}
                Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
                Ok(true) | Err(_) => return Received::End,
            }
        }
        let buf = &mut context.buf[..MAX_MESSAGE];
        let (length, fd) = match receive(self.fd.as_fd(), buf) {
            Ok((0, _)) => return Received::End,
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
            Err(_) => return Received::End,
        };
        let message = decode::<Message>(&buf[..length]);
        if !self.is_trusted && message.as_ref().is_some_and(|message| is_same(message.token, context.token)) {
            self.is_trusted = true;
            passed_fds::accept(self.fd.as_fd());
        }
        let is_challenge = |message: &Message| matches!(message.request, Request::Prove(_));
        if !self.is_trusted && !message.as_ref().is_some_and(is_challenge) {
            // None of its later messages will be answered.
            let _ = self.send(&Reply::Failed(libc::EPERM));
            return Received::End;
        }
        Received::Message(message, fd)
    }

    pub(crate) fn send(&self, reply: &Reply) -> Result<(), Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::send(&self.fd, &encode(reply), flags).map(drop)
    }

    /// Holds a connection that the application is about to close, because it may be gone when the application
    /// asks about it.
    pub(crate) fn hold(&mut self, flow: Option<Arc<Flow>>) {
        self.held = flow;
    }

    /// Records the attempt that it waits for.
    pub(crate) fn set_awaited(&mut self, attempt: Key) {
        self.awaited = Some(attempt);
    }

    /// Takes the attempt that it has waited for last.
    pub(crate) fn take_awaited(&mut self) -> Option<Key> {
        self.awaited.take()
    }

    pub(crate) fn take_held(&mut self) -> Option<Arc<Flow>> {
        self.held.take()
    }

    /// Ends the connection.
    pub(crate) fn close(self) {
        if !self.is_trusted {
            passed_fds::close_apart(self.fd);
        }
    }
}

/// The most recent connections that had to show the token, oldest first.
#[derive(Default)]
pub(crate) struct Strangers(VecDeque<Key>);

impl Strangers {
    /// Adds a connection. Returns the oldest if there are too many.
    pub(crate) fn add(&mut self, key: Key) -> Option<Key> {
        self.0.push_back(key);
        if self.0.len() > MAX_STRANGERS { self.0.pop_front() } else { None }
    }
}

/// Compares with the token in constant time.
fn is_same(shown: Token, token: Token) -> bool {
    use subtle::ConstantTimeEq;
    shown.0.to_le_bytes().ct_eq(&token.0.to_le_bytes()).into()
}

/// Returns the ID of the socket that a request is about.
pub(crate) fn id(which: Which) -> SocketId {
    match which {
        Which::Opened(socket) => socket.id,
        Which::Accepted(id) => id,
    }
}

pub(crate) fn failed(error: Errno) -> Reply {
    Reply::Failed(error.raw_os_error())
}
