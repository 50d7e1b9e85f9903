//! Pipes: connections and UDP sockets of the overlay that live in the server, each with a name.
//!
//! Received data goes into queues: one for all messages, and one for each subscription. Taking a message,
//! reading a stream, and relaying all take from a queue, so that nothing is lost between them.

mod echo;
mod listeners;
mod open;
mod receive;
mod send;
mod table;
mod take;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use peersock::PeerIdentity;
use peersock_pipe::queue::{Budget, Limits, Queued};
use peersock_proxy::Protocol;
use peersock_proxy::serving::{Datagrams as Socket, Owner, Writing};
use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};
use tokio::task::AbortHandle;

use crate::limits::{
    MAX_NAME_BYTES, MAX_PATTERN_BYTES, MAX_PATTERN_MEMORY_BYTES, MAX_QUEUED_BYTES, MAX_QUEUED_MESSAGES,
    MAX_SUBSCRIPTIONS, MESSAGE_OVERHEAD_BYTES,
};
use crate::problem::{Kind, Problem};
pub(crate) use listeners::Listeners;
pub(crate) use open::{addresses_of, open, open_port, parse_target};
use send::Sender;
pub(crate) use table::Pipes;
use table::Reserved;
pub(crate) use take::{Reading, Taken};

/// The name of the queue of all messages; the others belong to subscriptions.
pub(crate) const ALL_MESSAGES: &str = "";

/// A pipe.
pub(crate) struct Pipe {
    pub(crate) name: String,
    pub(crate) local: SocketAddr,
    /// The remote end; `None` for a UDP socket that takes datagrams from all members.
    pub(crate) remote: Option<SocketAddr>,
    /// The member at the other end of a connection.
    peer: Option<PeerIdentity>,
    /// The member that has opened the pipe by connecting to a listener.
    owner: Option<Owner>,
    opened: Instant,
    sender: Sender,
    /// Held while data is sent that must not be interleaved.
    turn: Arc<AsyncMutex<()>>,
    /// Number of bodies and messages that are being sent or have broken off.
    unfinished: AtomicUsize,
    received: AtomicU64,
    sent: AtomicU64,
    queues: Mutex<Queues>,
    /// Notified when the pipe was closed here.
    closed: Notify,
    /// Notified when a message was taken.
    room: Notify,
    /// True while a stream, a relay or a WebSocket reads it.
    is_read: AtomicBool,
    /// The tasks that fill the queues.
    receivers: Mutex<Receivers>,
}

/// The tasks that fill the queues of a pipe.
#[derive(Default)]
struct Receivers {
    tasks: Vec<AbortHandle>,
    /// Dropped to tell a connection's task that the pipe was closed.
    open: Option<oneshot::Sender<Infallible>>,
}

impl Receivers {
    /// Ends the tasks. Without a `failure` a connection's task continues, so that the other end gets the sent
    /// data.
    fn end(&mut self, failure: bool) {
        let goes_on = self.open.take().is_some() && !failure;
        let tasks = std::mem::take(&mut self.tasks);
        if !goes_on {
            tasks.iter().for_each(AbortHandle::abort);
        }
    }
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Counted from 1 in each pipe.
    pub(crate) number: u64,
    pub(crate) from: SocketAddr,
    pub(crate) data: Bytes,
}

impl Queued for Message {
    fn cost(&self) -> usize {
        self.data.len() + MESSAGE_OVERHEAD_BYTES
    }
}

type Queue = peersock_pipe::queue::Queue<Message, ()>;

/// A queue of the messages in which a pattern is found, or of all messages.
struct Subscription {
    pattern: Option<Regex>,
    queue: Arc<Queue>,
}

impl Subscription {
    fn new(pattern: Option<Regex>, budget: &Budget) -> Subscription {
        let (budget, what) = (Some(budget.clone()), "the queue of a pipe");
        let limits = Limits { messages: MAX_QUEUED_MESSAGES, bytes: MAX_QUEUED_BYTES, budget, what };
        Subscription { pattern, queue: Arc::new(Queue::new(limits)) }
    }

    fn is_for(&self, message: &Message) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&message.data))
    }
}

struct Queues {
    by_name: BTreeMap<String, Subscription>,
    /// Number of messages so far.
    count: u64,
    end: Option<End>,
    budget: Budget,
}

/// Reasons for the end of incoming data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The other end sends no more, and all its data has arrived.
    Complete,
    /// The connection was reset, or has failed otherwise.
    Broken(String),
    /// The pipe was closed here.
    Closed,
}

impl End {
    fn problem(&self, name: &str) -> Problem {
        match self {
            End::Complete => Kind::Ended.because(format_args!(
                "the other end of pipe {name} sends no more, and all its messages were taken; close the pipe \
                 when you have sent everything, too"
            )),
            End::Broken(why) => Kind::Ended.because(format_args!(
                "pipe {name} has broken, and all earlier messages were taken: {why}; close it and open \
                 another one"
            )),
            End::Closed => Kind::Ended.because(format_args!("pipe {name} was closed")),
        }
    }
}

impl Pipe {
    fn new(
        reserved: &Reserved,
        sender: Sender,
        ends: (SocketAddr, Option<SocketAddr>),
        peer: Option<PeerIdentity>,
    ) -> Pipe {
        let budget = reserved.budget();
        let by_name = BTreeMap::from([(ALL_MESSAGES.to_owned(), Subscription::new(None, &budget))]);
        Pipe {
            name: reserved.name().to_owned(),
            local: ends.0,
            remote: ends.1,
            peer,
            owner: reserved.owner(),
            opened: Instant::now(),
            sender,
            turn: Arc::default(),
            unfinished: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            queues: Mutex::new(Queues { by_name, count: 0, end: None, budget }),
            closed: Notify::new(),
            room: Notify::new(),
            is_read: AtomicBool::new(false),
            receivers: Mutex::default(),
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self.sender {
            Sender::Tcp(_) => Protocol::Tcp,
            Sender::Udp(_) => Protocol::Udp,
        }
    }

    /// Checks that the pipe is a connection.
    pub(crate) fn check_stream(&self) -> Result<(), Problem> {
        match self.protocol() {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => Err(Kind::WrongProtocol.because(format_args!(
                "pipe {} has datagrams and no stream: use its messages, or its WebSocket",
                self.name
            ))),
        }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().expect("no panic under this lock")
    }

    /// Adds a queue for future messages in which a pattern is found.
    pub(crate) fn subscribe(&self, name: &str, pattern: &str) -> Result<(), Problem> {
        let pattern = parse_pattern(pattern)?;
        let mut queues = self.queues();
        if queues.by_name.contains_key(name) {
            return Err(Kind::NameTaken.because(format_args!(
                "pipe {} has a subscription {name}: remove it, or take another name",
                self.name
            )));
        }
        if queues.by_name.len() > MAX_SUBSCRIPTIONS {
            return Err(Kind::TooMany.because(format_args!(
                "pipe {} has {MAX_SUBSCRIPTIONS} subscriptions, and has no more: remove one",
                self.name
            )));
        }
        let subscription = Subscription::new(Some(pattern), &queues.budget);
        if queues.end.is_some() {
            subscription.queue.end(());
        }
        queues.by_name.insert(name.to_owned(), subscription);
        Ok(())
    }

    /// Removes a subscription with its queued messages.
    pub(crate) fn unsubscribe(&self, name: &str) -> Result<(), Problem> {
        let removed = if name == ALL_MESSAGES { None } else { self.queues().by_name.remove(name) };
        let removed = removed.ok_or_else(|| no_subscription(&self.name, name))?;
        removed.queue.end(());
        removed.queue.clear();
        self.room.notify_waiters();
        Ok(())
    }

    /// Returns true if no data can come or go any more, and no message waits.
    fn is_over(&self) -> bool {
        let queues = self.queues();
        let is_broken = match &queues.end {
            None => false,
            Some(End::Complete) => self.sender.has_ended(),
            Some(_) => true,
        };
        is_broken && queues.by_name.values().all(|one| one.queue.is_empty())
    }

    /// Marks the start of data that the other end must not take for complete before [`Pipe::whole`].
    pub(crate) fn begin(&self) {
        self.unfinished.fetch_add(1, Ordering::SeqCst);
    }

    /// Marks the end of that data.
    pub(crate) fn whole(&self) {
        self.unfinished.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns true if data that was begun is incomplete.
    fn is_torn(&self) -> bool {
        self.unfinished.load(Ordering::SeqCst) > 0
    }

    /// Returns the number of bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Closes the pipe. Sent data is still delivered, or, with `reset`, both ends get an error.
    pub(crate) async fn close(&self, reset: bool) {
        // Reset if a body is incomplete, because the other end must not take its part for complete.
        let reset = reset || self.is_torn();
        self.receivers.lock().expect("no panic under this lock").end(reset);
        self.end(End::Closed);
        self.closed.notify_waiters();
        self.sender.close(reset).await;
    }

    fn end(&self, end: End) {
        let mut queues = self.queues();
        if queues.end.is_none() || end == End::Closed {
            queues.end = Some(end);
        }
        queues.by_name.values().for_each(|one| one.queue.end(()));
        drop(queues);
        self.room.notify_waiters();
    }

    /// Returns the pipe's description for clients.
    pub(crate) fn describe(&self) -> Value {
        let queues = self.queues();
        let (state, error) = match &queues.end {
            None => ("open", None),
            Some(End::Complete) => ("ended", None),
            Some(End::Broken(why)) => ("broken", Some(why.clone())),
            Some(End::Closed) => ("closed", None),
        };
        let queue = |name: &str, one: &Subscription| {
            json!({
                "name": name,
                "pattern": one.pattern.as_ref().map(Regex::as_str),
                "messages": one.queue.len(),
                "bytes": one.queue.bytes(),
                "dropped": one.queue.dropped(),
                "waiting": one.queue.waiting(),
            })
        };
        let named = queues.by_name.iter().filter(|(name, _)| *name != ALL_MESSAGES);
        let subscriptions: Vec<_> = named.map(|(name, one)| queue(name, one)).collect();
        json!({
            "name": &self.name,
            "protocol": self.protocol().to_string(),
            "local": self.local.to_string(),
            "remote": self.remote.map(|at| at.to_string()),
            "peer": &self.peer,
            "state": state,
            "error": error,
            "sending": !self.sender.has_ended(),
            "age_s": self.opened.elapsed().as_secs_f64(),
            "sent_bytes": self.sent(),
            "received_bytes": self.received.load(Ordering::Relaxed),
            "queue": queue(ALL_MESSAGES, &queues.by_name[ALL_MESSAGES]),
            "subscriptions": subscriptions,
        })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let is_torn = self.is_torn();
        self.receivers.get_mut().expect("no panic under this lock").end(is_torn);
        if is_torn {
            self.sender.reset();
        }
    }
}

/// Parses the name of a pipe, a subscription or a listener: letters, digits and `_.-`.
pub(crate) fn parse_name(text: &str) -> Result<String, Problem> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_name = (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_plain);
    // Clients would resolve these names away in a URL.
    if is_name && !matches!(text, "." | "..") {
        return Ok(text.to_owned());
    }
    Err(Kind::BadRequest.because(format_args!(
        "a name has 1 to {MAX_NAME_BYTES} letters, digits and signs of _.- and nothing else"
    )))
}

/// Compiles a regular expression with bounded memory and time.
pub(crate) fn parse_pattern(text: &str) -> Result<Regex, Problem> {
    let wrong = |why: &dyn std::fmt::Display| {
        Kind::BadRequest.because(format_args!("the regular expression cannot be used: {why}"))
    };
    if text.len() > MAX_PATTERN_BYTES {
        return Err(wrong(&format_args!("it has more than {MAX_PATTERN_BYTES} bytes")));
    }
    let mut builder = RegexBuilder::new(text);
    builder.size_limit(MAX_PATTERN_MEMORY_BYTES).dfa_size_limit(MAX_PATTERN_MEMORY_BYTES);
    builder.build().map_err(|error| wrong(&error))
}

fn no_subscription(pipe: &str, name: &str) -> Problem {
    Kind::NoSubscription.because(format_args!("pipe {pipe} has no subscription {name}: make it first"))
}

/// The UDP sockets of a pipe.
struct Datagrams {
    /// One connected socket, or one for each local address.
    sockets: Vec<Socket>,
    is_connected: bool,
}

/// The sending half of a connection; `None` once it was ended.
type Half = AsyncMutex<Option<Writing>>;

/// Returns the text of a connection's error.
fn why(error: &io::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_url_can_have() {
        for name in ["a", "con_name", "A-1.b", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(parse_name(name).expect(name), name);
        }
        for name in ["", ".", "..", "a/b", "a b", "a%20b", "\u{e9}", "a\0", &"x".repeat(MAX_NAME_BYTES + 1)] {
            assert_eq!(parse_name(name).map_err(|problem| problem.kind()), Err(Kind::BadRequest), "{name}");
        }
    }

    #[test]
    fn patterns_are_bounded() {
        assert!(parse_pattern("[hH]e[l]+o").expect("it is one").is_match(b"say hello"));
        assert!(parse_pattern("").expect("it is one").is_match(b"\xff"));
        for pattern in ["(", "x{1000}{1000}", &"x".repeat(MAX_PATTERN_BYTES + 1)] {
            let problem = parse_pattern(pattern).expect_err(pattern);
            assert_eq!(problem.kind(), Kind::BadRequest, "{problem}");
        }
    }
}
