//! The program's side of an attachment.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use peersock::attach::{Linger, Patience};
use peersock::management::{connect_own, is_absent, is_stopped, with_short_path};
use peersock::state::StateDir;
use peersock::{Event, NetworkId, Status};
use peersock_fd::NodeTag;
use peersock_socket_server::{FdServer, Outstanding, Unclosed};

use crate::events::{EventQueue, EventReaders};
use crate::frame;
use crate::messages::{Ask, Joining, Network, Refusal, Reply, Wish, port_refusal};
use crate::seat::{Questions, SeatReply};
use crate::start::Launch;

/// Timeout of a start: another node may be ending meanwhile.
const START: Duration = Duration::from_secs(30);

/// Time after which a state directory that is in use, by a process without a socket, counts as another
/// program's. A node makes the socket as soon as it has the directory.
const SOCKET_SOON: Duration = Duration::from_secs(1);

/// Time after which the user is told of a wait.
const TELL: Duration = Duration::from_secs(2);

/// Intervals of attempts: the first, and the longest. Each attempt may start a process.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_millis(100);

/// Limit of nodes that are started and end without a word.
const MAX_STARTS: u32 = 5;

/// Limit of lines that wait to be told.
const MAX_WAITING: usize = 64;

/// Timeout of an answer, and of writing a message.
const ANSWER: Duration = Duration::from_secs(30);

/// Time beyond its limit for which the end of an attachment waits for an answer of the node.
pub const GRACE: Duration = Duration::from_secs(2);

/// Time without progress after which a program that continues waits no more.
const DROPPED: Duration = Duration::from_secs(5);

/// Polling interval of delivery.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Interval of the checks whether a wait for an answer is over.
const LOOK: Duration = Duration::from_millis(50);

/// Attachment of this program to the shared node.
///
/// Dropping it ends the program's sockets as [`Attached::detach`] does.
pub struct Attached {
    pub(crate) writer: Arc<Writer>,
    environment: String,
    tag: NodeTag,
    process: u32,
    public_key: String,
    networks: Vec<Network>,
    /// Answers, from the thread that reads. Held during a question.
    answers: Mutex<Receiver<Reply>>,
    events: Arc<EventReaders>,
    /// Questions to a controller in this program.
    pub(crate) questions: Arc<Questions>,
    has_ended: Arc<AtomicBool>,
}

/// Event of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A line for people.
    Note(String),
    /// A line of the node's log, as it is.
    Log(String),
    /// The node has ended. Its [tag](Attached::tag) identifies the sockets that it leaves.
    Lost(NodeTag),
}

/// Reason why a program is not attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The node does not serve the program.
    #[error("{}", .0.message)]
    Refused(Refusal),

    /// A process that shares no node uses the state directory.
    #[error(
        "state directory {} is in use by {}, which shares no node there",
        path.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// Path of the directory.
        path: PathBuf,
        /// Process that holds it, if known.
        holder: Option<u32>,
    },

    /// No node runs, and none may be started.
    #[error("no node runs that programs share")]
    Absent,

    /// The node's process, or a thread of this one, cannot be started.
    #[error("the node cannot be started: {0}")]
    Start(io::Error),

    /// The socket in the state directory cannot be used.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },

    /// An earlier node has not ended within the caller's limit.
    #[error("the node in {} is about to end, and has not ended in time", path.display())]
    Ending {
        /// Path of the state directory.
        path: PathBuf,
    },

    /// The node neither serves the program nor ends.
    #[error("the node in {} {}", path.display(), if *is_stopped { "is stopped" } else { "is busy" })]
    Silent {
        /// Path of the state directory.
        path: PathBuf,
        /// Process that uses the directory, if known.
        process: Option<u32>,
        /// True if the system says that a signal has stopped the process.
        is_stopped: bool,
    },
}

impl Attached {
    /// Returns true if a node listens for programs in a state directory, or another process might.
    pub fn is_offered(state: &Path) -> bool {
        let connected = with_short_path(&StateDir::node_socket(state), connect_own);
        connected.map_or_else(|error| !is_absent(&error), |_| true)
    }

    /// Attaches to the node in a state directory. Starts one with `launch`, if given, if none runs. A thread
    /// passes events to `tell`.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn open(
        state: &Path,
        launch: Option<&Launch>,
        wish: Wish,
        tell: impl Fn(Told) + Send + Sync + 'static,
    ) -> Result<Attached, AttachError> {
        Attached::open_within(state, launch, wish, START, tell)
    }

    /// Attaches as [`Attached::open`] does, but waits for an earlier node that ends no longer than `within`,
    /// and no longer than 30 seconds.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn open_within(
        state: &Path,
        launch: Option<&Launch>,
        wish: Wish,
        within: Duration,
        tell: impl Fn(Told) + Send + Sync + 'static,
    ) -> Result<Attached, AttachError> {
        // A program has often one thread only until the attachment starts others.
        peersock_fd::prepare_high_numbers();
        let path = StateDir::node_socket(state);
        let (begun, ask) = (Instant::now(), Ask::Attach(wish));
        let (mut in_use_since, mut retry, mut lost_starts) = (None, FIRST_RETRY, 0);
        let mut is_told = false;
        while begun.elapsed() < START {
            let (stream, is_started) = match with_short_path(&path, connect_own) {
                Ok(stream) => (stream, false),
                // Too many wait for a node that is busy or stopped.
                Err(error) if is_timeout(&error) => continue,
                Err(error) if is_absent(&error) => {
                    let launch = launch.ok_or(AttachError::Absent)?;
                    (launch.start().map_err(AttachError::Start)?, true)
                }
                Err(source) => return Err(AttachError::Io { path, source }),
            };
            match first_answer(stream, &ask) {
                Ok((stream, Reply::Attached { environment, process, public_key, networks })) => {
                    let place = Place { environment, process, public_key, networks };
                    return Attached::begin(stream, place, tell).map_err(AttachError::Start);
                }
                Ok((_, Reply::Refused(refusal))) => return Err(AttachError::Refused(refusal)),
                Ok((_, Reply::InUse { holder })) => {
                    let since = *in_use_since.get_or_insert_with(Instant::now);
                    let is_own = holder == Some(std::process::id());
                    if is_own || since.elapsed() > SOCKET_SOON {
                        return Err(AttachError::InUse { path: state.into(), holder });
                    }
                }
                // The directory of a node that ends is in use for a moment, which does not count.
                Ok((_, Reply::Ending)) if begun.elapsed() < within => in_use_since = None,
                Ok((_, Reply::Ending)) => return Err(AttachError::Ending { path: state.into() }),
                Ok(_) => return Err(AttachError::Io { path, source: io::ErrorKind::InvalidData.into() }),
                // The node was killed, or has just ended.
                Err(error) if has_gone(&error) => {
                    lost_starts += u32::from(is_started);
                    if lost_starts == MAX_STARTS {
                        return Err(AttachError::Start(error));
                    }
                }
                // The program is none that starts a node.
                Err(error) if is_timeout(&error) && is_started => return Err(AttachError::Start(error)),
                Err(error) if is_timeout(&error) => break,
                Err(source) => return Err(AttachError::Io { path, source }),
            }
            if begun.elapsed() > TELL && !is_told {
                is_told = true;
                tell(Told::Note(
                    "waiting for the node that programs share, which is about to end".to_owned(),
                ));
            }
            thread::sleep(retry);
            retry = LAST_RETRY.min(retry * 2);
        }
        let process = StateDir::user_of(state);
        let is_stopped = process.is_some_and(is_stopped);
        Err(AttachError::Silent { path: state.into(), process, is_stopped })
    }

    fn begin(
        stream: UnixStream,
        place: Place,
        tell: impl Fn(Told) + Send + Sync + 'static,
    ) -> io::Result<Attached> {
        let (answer, answers) = mpsc::channel();
        let (events, waiting) = mpsc::sync_channel(MAX_WAITING);
        let tell = Arc::new(tell);
        let tell_of_lines = Arc::clone(&tell);
        let telling = move || waiting.iter().for_each(|told| tell_of_lines(told));
        thread::Builder::new().name("told".into()).spawn(telling)?;
        let (writing, is_closed) = (Mutex::default(), AtomicBool::new(false));
        let writer = Arc::new(Writer { stream: stream.try_clone()?, writing, is_closed });
        let (tag, _) = FdServer::parse_environment(&place.environment).ok_or(io::ErrorKind::InvalidData)?;
        let helper = Helper::start(tag, Arc::clone(&writer))?;
        let (mut reading, ending) = (stream, Arc::clone(&writer));
        let has_ended = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&has_ended);
        let event_readers = Arc::<EventReaders>::default();
        let readers = Arc::clone(&event_readers);
        let questions = Arc::<Questions>::default();
        let asked = Arc::clone(&questions);
        let reader = move || {
            while let Ok(Some(reply)) = frame::read(&mut reading) {
                match reply {
                    // Dropped while no thread reads them, so that answers do not wait for people.
                    Reply::Note(note) => drop(events.try_send(Told::Note(note))),
                    Reply::Log(line) => drop(events.try_send(Told::Log(line))),
                    Reply::Event(event) => readers.pass(&event),
                    Reply::Seat(SeatReply::Asked(questions)) => asked.pass(questions),
                    Reply::Show { .. } | Reply::Break => helper.help(reply),
                    reply => drop(answer.send(reply)),
                }
            }
            ended.store(true, Ordering::SeqCst);
            readers.end();
            asked.end();
            // Before the event, so that no thread waits for an answer once the end is known.
            drop(answer);
            // In this thread, because a line may wait for a reader of standard error.
            if !ending.is_closed.load(Ordering::SeqCst) {
                tell(Told::Lost(tag));
            }
        };
        thread::Builder::new().name("attached".into()).spawn(reader)?;
        let (answers, Place { environment, process, public_key, networks }) = (Mutex::new(answers), place);
        let events = event_readers;
        Ok(Attached {
            writer,
            environment,
            tag,
            process,
            public_key,
            networks,
            answers,
            events,
            questions,
            has_ended,
        })
    }

    /// Returns the value of the variable `PEERSOCK_NODE` for processes that use the program's sockets. It
    /// contains a secret.
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// Returns the tag that identifies the program's sockets.
    pub fn tag(&self) -> NodeTag {
        self.tag
    }

    /// Returns the node's process.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Returns the node's public key, as the file of a static network lists it.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Returns the program's first networks, in the order of the request.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// Returns the reason why members cannot reach a listener at a port in the first networks.
    pub fn port_refusal(&self, port: u16) -> Option<String> {
        port_refusal(self.networks.iter(), port)
    }

    /// Returns true once the node has ended, or the program is detached.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Returns the number of connections that processes have made to the program's server; `None` if the node
    /// has ended, or has not answered before `is_over`.
    pub fn contacts(&self, is_over: impl Fn() -> bool) -> Option<u64> {
        match self.question_unless(&Ask::Contacts, is_over) {
            Some(Reply::Contacts(count)) => Some(count),
            _ => None,
        }
    }

    /// Declares that the library does not see the calls on this program's sockets.
    pub fn note_unseen_calls(&self) {
        let _ = self.question(&Ask::UnseenCalls);
    }

    /// Begins the delivery of what the program has sent: its connections end in order.
    pub fn begin_drain(&self) {
        self.begin_drain_with(Unclosed::Finish);
    }

    /// Begins the delivery, with a choice for connections that are open.
    pub fn begin_drain_with(&self, unclosed: Unclosed) {
        self.say(&Ask::Drain(unclosed));
    }

    /// Returns the events of the members of the program's networks from now on; `None` if the node has ended.
    pub(crate) fn events(&self) -> Option<Arc<EventQueue>> {
        let (queue, has_to_ask) = self.events.add();
        match !has_to_ask || matches!(self.question(&Ask::Events), Some(Reply::Done)) {
            true => Some(queue),
            false => None,
        }
    }

    /// Asks for one more network.
    ///
    /// # Errors
    /// The node's refusal; `None` if the node has ended.
    pub fn join(&self, network: &peersock::Network) -> Result<Network, Option<Refusal>> {
        match self.question(&Ask::Join(Joining::new(network))) {
            Some(Reply::Joined(network)) => Ok(network),
            Some(Reply::Refused(refusal)) => Err(Some(refusal)),
            _ => Err(None),
        }
    }

    /// Gives up a network. Returns true if the program had it; `None` if the node has ended.
    pub fn leave(&self, network: NetworkId) -> Option<bool> {
        match self.question(&Ask::Leave(network.to_string())) {
            Some(Reply::Left(had)) => Some(had),
            _ => None,
        }
    }

    /// Returns the node's status as JSON, with the members of the program's networks; `None` if the node has
    /// ended.
    pub fn status(&self) -> Option<String> {
        match self.question(&Ask::Status) {
            Some(Reply::Status(status)) => Some(status),
            _ => None,
        }
    }

    /// Returns the [status](Self::status), parsed.
    ///
    /// # Errors
    /// `NetworkDown` if the node has ended; `InvalidData`.
    pub fn read_status(&self) -> io::Result<Status> {
        Ok(serde_json::from_str(&self.status().ok_or(io::ErrorKind::NetworkDown)?)?)
    }

    /// Passes future events about members of the program's networks to `take`, until it returns false or the
    /// node has ended. It must not block, because answers wait meanwhile.
    ///
    /// # Errors
    /// `NetworkDown` if the node has ended.
    pub fn subscribe(&self, take: impl FnMut(&Event) -> bool + Send + 'static) -> io::Result<()> {
        let has_to_ask = self.events.add_taker(Box::new(take)).ok_or(io::ErrorKind::NetworkDown)?;
        match !has_to_ask || matches!(self.question(&Ask::Events), Some(Reply::Done)) {
            true => Ok(()),
            false => Err(io::ErrorKind::NetworkDown.into()),
        }
    }

    /// Returns the data that is not delivered yet, or never will be; `None` if the node has ended, or has not
    /// answered before `is_over`.
    pub fn outstanding(&self, is_over: impl Fn() -> bool) -> Option<Outstanding> {
        match self.question_unless(&Ask::Outstanding, is_over) {
            Some(Reply::Outstanding(outstanding)) => Some(outstanding),
            _ => None,
        }
    }

    /// Waits for the delivery of what the program has sent, which has [begun](Attached::begin_drain_with).
    /// Returns the number of lost bytes, if anything is lost.
    pub fn deliver(&self, linger: Linger) -> Option<u64> {
        let begun = Instant::now();
        let mut patience = Patience::new(linger, begun);
        loop {
            let asked = Instant::now();
            let is_over = || match linger {
                Linger::Within(time) => begun.elapsed() >= time.saturating_add(GRACE),
                Linger::Drop => asked.elapsed() >= DROPPED,
                // The limit of any answer.
                _ => false,
            };
            // Without a node nothing more arrives, and it is unknown what has arrived.
            let Some(left) = self.outstanding(is_over) else { return Some(0) };
            if patience.is_over(Instant::now(), &left.remaining()) {
                return left.loss();
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Ends the attachment, and waits until the node has ended the program's sockets; if this was its last
    /// program, until it has ended itself. Waits for 30 seconds at most, and no longer than until `is_over`.
    pub fn detach(&self, is_over: impl Fn() -> bool) {
        self.say(&Ask::Detach);
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        while answer(&answers, &is_over).is_some() {}
        // A node that has not answered is not waited for again.
        self.writer.close();
    }

    /// Asks and waits for the answer.
    pub(crate) fn question(&self, ask: &Ask) -> Option<Reply> {
        self.question_unless(ask, || false)
    }

    /// Asks and waits for the answer, until `is_over`. Without an answer, the attachment ends.
    fn question_unless(&self, ask: &Ask, is_over: impl Fn() -> bool) -> Option<Reply> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        self.writer.write(ask).ok()?;
        let answer = answer(&answers, is_over);
        if answer.is_none() {
            // A late answer must not count as that of the next question.
            self.writer.close();
        }
        answer
    }

    /// Sends a message without an answer. If the node has ended, the thread that reads says so.
    fn say(&self, ask: &Ask) {
        let _ = self.writer.write(ask);
    }
}

impl fmt::Debug for Attached {
    /// Leaves out the environment, which contains a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.writer.is_closed.store(true, Ordering::SeqCst);
        // The node has left the state directory afterwards, if this was its last program.
        self.detach(|| false);
    }
}

/// First answer of a node that serves the program.
struct Place {
    environment: String,
    process: u32,
    public_key: String,
    networks: Vec<Network>,
}

/// The stream to the node.
#[derive(Debug)]
pub(crate) struct Writer {
    stream: UnixStream,
    /// Held while a message is written, because several threads write.
    writing: Mutex<()>,
    /// Set once this process ends the attachment.
    is_closed: AtomicBool,
}

impl Writer {
    pub(crate) fn write(&self, ask: &Ask) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = frame::write(&mut &self.stream, ask);
        if written.is_err() {
            // A message may have been cut, so that nothing later could be read.
            self.close();
        }
        written
    }

    /// Ends the stream. The thread that reads, which has another descriptor of it, ends as well.
    fn close(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Thread that helps the node with the descriptors of this process's programs, because the system may allow
/// that to their ancestor alone.
struct Helper(mpsc::Sender<Reply>);

impl Helper {
    fn start(tag: NodeTag, writer: Arc<Writer>) -> io::Result<Helper> {
        let (sender, asked) = mpsc::channel();
        let help = move || {
            for reply in asked {
                if let Some(answer) = answer_to(&reply, tag) {
                    let _ = writer.write(&answer);
                }
            }
        };
        thread::Builder::new().name("helper".into()).spawn(help)?;
        Ok(Helper(sender))
    }

    fn help(&self, reply: Reply) {
        let _ = self.0.send(reply);
    }
}

/// Does what the node asks for.
fn answer_to(reply: &Reply, tag: NodeTag) -> Option<Ask> {
    match reply {
        Reply::Show { number, shown } => {
            Some(Ask::Shown { number: *number, is_shown: FdServer::show_reset(shown) })
        }
        Reply::Break => {
            FdServer::break_sockets_of(tag);
            Some(Ask::Broken)
        }
        _ => None,
    }
}

/// Waits for an answer; `None` after [`ANSWER`], once `is_over`, or if the node has ended.
fn answer(answers: &Receiver<Reply>, is_over: impl Fn() -> bool) -> Option<Reply> {
    let until = Instant::now() + ANSWER;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match answers.recv_timeout(LOOK.min(left)) {
            Err(RecvTimeoutError::Timeout) if left > LOOK && !is_over() => {}
            answer => return answer.ok(),
        }
    }
}

/// Sends the first message, and waits for the answer. The limit of writing stays.
fn first_answer(stream: UnixStream, ask: &Ask) -> io::Result<(UnixStream, Reply)> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    frame::write(&mut &stream, ask)?;
    let reply = frame::read(&mut &stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    stream.set_read_timeout(None)?;
    Ok((stream, reply))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn has_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::Connection;

    /// Answers the first messages of programs, and keeps the last connection until `last` has handled it.
    fn node(place: &Path, answers: Vec<Reply>, last: impl FnOnce(Connection) + Send + 'static) {
        let listener = UnixListener::bind(StateDir::node_socket(place)).expect("a free name");
        thread::spawn(move || {
            let mut connections = answers.into_iter().map(|answer| {
                let (stream, _) = listener.accept().expect("a connection");
                let connection = Connection::new(stream).expect("a program of this user");
                connection.wish().expect("the first message");
                connection.send(&answer).expect("room");
                connection
            });
            last(connections.by_ref().last().expect("an answer"));
        });
    }

    #[test]
    fn attempts_become_rare_while_a_node_ends() {
        let place = tempfile::tempdir().expect("room");
        let refusal = Refusal { status: 1, message: "the last answer".to_owned(), hint: None };
        let answers = (0..20).map(|_| Reply::Ending).chain([Reply::Refused(refusal)]).collect();
        node(place.path(), answers, drop);
        let begun = Instant::now();
        let refused =
            Attached::open(place.path(), None, Wish::new("test"), |_| {}).expect_err("it is refused");
        assert_eq!(refused.to_string(), "the last answer");
        // 5, 10, 20, 40 and 80 ms, and 15 times 100 ms. A slow machine takes longer.
        assert!(begun.elapsed() >= Duration::from_millis(1655), "{:?}", begun.elapsed());
    }

    /// The node reads nothing, as if it were stopped.
    #[test]
    fn a_wait_for_a_node_that_does_not_answer_ends_when_it_is_over() {
        let place = tempfile::tempdir().expect("room");
        let environment = "0000002a:00000000000000000000000000000007".to_owned();
        let attached =
            Reply::Attached { environment, process: 0, public_key: String::new(), networks: Vec::new() };
        let (keep, kept) = mpsc::channel();
        node(place.path(), vec![attached], move |connection| drop(keep.send(connection)));
        let attached = Attached::open(place.path(), None, Wish::new("test"), |_| {}).expect("it is attached");
        let kept = kept.recv().expect("a connection");
        let begun = Instant::now();
        let is_over = || begun.elapsed() > Duration::from_millis(100);
        assert!(attached.outstanding(is_over).is_none());
        // A late answer is no later question's.
        let _ = kept.send(&Reply::Contacts(7));
        assert_eq!(attached.contacts(is_over), None);
        attached.detach(is_over);
        drop(attached);
        assert!(begun.elapsed() < ANSWER, "{:?}", begun.elapsed());
    }
}
