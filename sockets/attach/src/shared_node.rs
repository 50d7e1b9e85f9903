//! The shared node in a process that holds its sockets itself, such as a program in C or Python.

use std::env;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peersock::attach::Linger;
use peersock::overlay::{NodeId, PublicIdentity};
use peersock::settings::ROOTS_VARIABLE;
use peersock::{Event, JoinError, Network, NetworkId, Nickname, NodeBuilder, Status};
use peersock_fd::{NodeTag, Token};
use peersock_socket_server::{FdServer, Hosted, Resident, Unclosed};

use crate::client::{AttachError, Attached, GRACE, Told};
use crate::events::EventQueue;
use crate::messages::{self, Refusal, Setting, Wish};
use crate::nicknames::{self, NicknameRefusal};
use crate::program_node::{JoinFailure, NodeError};
use crate::start::Launch;
use crate::variables::{persist, wants_own_node};

/// The shared node as this process uses it.
///
/// The connection to the node is in threads with a separate descriptor table and without signals, as
/// [`Host`](peersock_socket_server::Host) has them. In a forked child every call fails with ENETDOWN at once;
/// sockets keep working there.
#[derive(Debug)]
pub(crate) struct SharedNode {
    /// Taken only by `drop`.
    hosted: Option<Arc<Hosted<Attachment>>>,
    about: About,
    /// Networks of this program, in the order of joining.
    networks: Mutex<Vec<(Network, messages::Network)>>,
}

/// First words of the node, and its end.
#[derive(Debug)]
struct About {
    tag: NodeTag,
    token: Token,
    environment: String,
    process: u32,
    public_key: String,
    has_ended: Arc<AtomicBool>,
}

/// The attachment, in its threads.
struct Attachment {
    attached: Arc<Attached>,
    /// Set once this process ends it.
    is_ending: Arc<AtomicBool>,
}

impl SharedNode {
    /// Attaches to the node in a state directory. Starts one with `launch`, if given, if none runs. Returns
    /// `None` if no node that has the program's settings runs there or can be started.
    pub(crate) fn open(
        path: &Path,
        settings: &NodeBuilder,
        launch: Option<Launch>,
        has_unseen_calls: bool,
    ) -> Result<Option<SharedNode>, NodeError> {
        // Before anything is read for the node: a pipe with a token can be read once.
        if launch.is_none() && !Attached::is_offered(path) {
            return Ok(None);
        }
        let (path, wish) = (path.to_owned(), wish(settings, &[])?);
        let launch = launch.filter(|_| can_be_started(&wish));
        match Hosted::start(move || Attachment::open(&path, launch.as_ref(), wish, has_unseen_calls)) {
            Ok((hosted, about)) => {
                Ok(Some(SharedNode { hosted: Some(hosted), about, networks: Mutex::default() }))
            }
            // A node of this process that starts there has the better error, if it has one.
            Err(NodeError::Attach(AttachError::Absent | AttachError::Io { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn tag(&self) -> NodeTag {
        self.about.tag
    }

    pub(crate) fn token(&self) -> Token {
        self.about.token
    }

    pub(crate) fn environment(&self) -> &str {
        &self.about.environment
    }

    pub(crate) fn process(&self) -> u32 {
        self.about.process
    }

    pub(crate) fn is_here(&self) -> bool {
        self.hosted().is_here()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.about.has_ended.load(Ordering::SeqCst)
    }

    pub(crate) fn public_key(&self) -> io::Result<&str> {
        self.check_up()?;
        Ok(&self.about.public_key)
    }

    pub(crate) fn id(&self) -> io::Result<NodeId> {
        let key: PublicIdentity = self.public_key()?.parse().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(key.node_id())
    }

    pub(crate) fn note_unseen_calls(&self) -> io::Result<()> {
        self.ask(|attached| attached.note_unseen_calls())
    }

    pub(crate) fn join(&self, network: Network) -> Result<(), JoinFailure> {
        self.check_up()?;
        let mut networks = self.networks();
        if let Some((joined, _)) = networks.iter().find(|(joined, _)| joined.id() == network.id()) {
            // An invite and the ID lead to the same managed network.
            return Err(JoinFailure::Join(match *joined == network || network.id().is_managed() {
                true => JoinError::AlreadyJoined(network.id()),
                false => JoinError::JoinedOtherwise(network.id()),
            }));
        }
        let asked = network.clone();
        let joined = self.ask(move |attached| attached.join(&asked))?;
        let joined = joined.map_err(|refusal| refusal.map_or_else(|| down().into(), JoinFailure::Refused))?;
        networks.push((network, joined));
        Ok(())
    }

    pub(crate) fn leave(&self, network: NetworkId) -> io::Result<bool> {
        self.check_up()?;
        let mut networks = self.networks();
        let left = self.ask(move |attached| attached.leave(network))?.ok_or_else(down)?;
        networks.retain(|(joined, _)| joined.id() != network);
        Ok(left)
    }

    pub(crate) fn network_ids(&self) -> io::Result<Vec<NetworkId>> {
        self.check_up()?;
        Ok(self.networks().iter().map(|(network, _)| network.id()).collect())
    }

    /// Returns the node's addresses in a network; `None` if it is not joined.
    pub(crate) fn addresses(&self, network: NetworkId) -> io::Result<Option<Vec<IpAddr>>> {
        self.check_up()?;
        let networks = self.networks();
        let found = networks.iter().find(|(joined, _)| joined.id() == network);
        Ok(found.map(|(_, joined)| joined.addresses.clone()))
    }

    /// Waits until the node is a member of a network; returns `None` if this program has not joined it.
    pub(crate) fn wait_ready(&self, network: NetworkId, within: Duration) -> io::Result<Option<()>> {
        let known = self.addresses(network)?;
        if known.is_none() || !network.is_managed() {
            return Ok(known.map(drop));
        }
        let addresses = self.ask(move |attached| attached.wait_ready(network, within))??;
        if let Some((_, joined)) = self.networks().iter_mut().find(|(joined, _)| joined.id() == network) {
            joined.addresses = addresses;
        }
        Ok(Some(()))
    }

    /// Waits for the member with an address, in any network of this program.
    pub(crate) fn wait_peer(&self, address: IpAddr, within: Duration) -> io::Result<()> {
        self.ask(move |attached| attached.find(address, within))?
    }

    /// Asks the node about nicknames, in a thread that has the connection.
    pub(crate) fn ask_roots<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Attached) -> Result<T, NicknameRefusal> + Send + 'static,
    ) -> Result<T, NicknameRefusal> {
        self.ask(ask)?
    }

    pub(crate) fn release_nickname(&self, nickname: Nickname) -> io::Result<bool> {
        self.ask(move |attached| nicknames::release(attached, &nickname))?.ok_or_else(down)
    }

    /// Returns the events of the members of the program's networks from now on.
    pub(crate) fn events(&self) -> io::Result<Arc<EventQueue>> {
        self.ask(Attached::events)?.ok_or_else(down)
    }

    /// Returns a descriptor from which they can be read.
    pub(crate) fn event_socket(
        &self,
        encode: impl Fn(&Event) -> Vec<u8> + Send + 'static,
    ) -> io::Result<OwnedFd> {
        self.check_up()?;
        self.hosted().event_socket(|attached| attached.events().ok_or_else(down), encode)
    }

    /// Returns the status as JSON.
    pub(crate) fn status_text(&self) -> io::Result<String> {
        self.ask(|attached| attached.status())?.ok_or_else(down)
    }

    pub(crate) fn status(&self) -> io::Result<Status> {
        Ok(serde_json::from_str(&self.status_text()?)?)
    }

    /// Returns the reason why members cannot reach a listener at a port.
    pub(crate) fn port_refusal(&self, port: u16) -> io::Result<Option<String>> {
        self.check_up()?;
        let networks = self.networks();
        Ok(messages::port_refusal(networks.iter().map(|(_, joined)| joined), port))
    }

    pub(crate) fn stop(&self, linger: Duration) -> bool {
        self.is_here() && self.hosted().stop(Linger::Within(linger), Unclosed::Reset).is_none()
    }

    /// Returns the number of lost bytes, if anything was lost.
    pub(crate) fn finish(&self, linger: Linger) -> Option<u64> {
        if self.is_here() { self.hosted().finish(linger) } else { None }
    }

    pub(crate) fn give_up(&self) {
        self.hosted().give_up();
    }

    /// Fails in a forked child, before any lock is touched there, and once the node has ended.
    fn check_up(&self) -> io::Result<()> {
        match self.is_here() && !self.has_ended() {
            true => Ok(()),
            false => Err(down()),
        }
    }

    /// Asks the node in a thread that has the connection.
    fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&Attached) -> T + Send + 'static) -> io::Result<T> {
        self.check_up()?;
        let has_ended = Arc::clone(&self.about.has_ended);
        let ask = move |attached: &Arc<Attached>| {
            let answer = ask(attached);
            // A question may find it first.
            if attached.has_ended() {
                has_ended.store(true, Ordering::SeqCst);
            }
            answer
        };
        let answer = self.hosted().run_apart(ask)?;
        self.check_up()?;
        Ok(answer)
    }

    fn networks(&self) -> MutexGuard<'_, Vec<(Network, messages::Network)>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hosted(&self) -> &Hosted<Attachment> {
        self.hosted.as_ref().expect("only `drop` takes it")
    }
}

impl Drop for SharedNode {
    fn drop(&mut self) {
        if !self.is_here() {
            // In a forked child, locks inside may be held forever.
            std::mem::forget(self.hosted.take());
        } else if let Some(lost) = self.hosted().stop(Linger::Drop, Unclosed::Reset) {
            peersock::attach::say_loss(lost);
        }
    }
}

impl Attachment {
    fn open(
        path: &Path,
        launch: Option<&Launch>,
        wish: Wish,
        has_unseen_calls: bool,
    ) -> Result<(Attachment, About), NodeError> {
        let [is_ending, has_ended] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (ends, ended) = (Arc::clone(&is_ending), Arc::clone(&has_ended));
        let tell = move |told| {
            let is_lost = matches!(told, Told::Lost(_));
            ended.fetch_or(is_lost, Ordering::SeqCst);
            if !is_lost || !ends.load(Ordering::SeqCst) {
                log(told);
            }
        };
        let attached = Arc::new(Attached::open(path, launch, wish, tell)?);
        if has_unseen_calls {
            attached.note_unseen_calls();
        }
        let token = FdServer::parse_environment(attached.environment());
        let (tag, token) = token.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let (process, state) = (attached.process(), path.display());
        tracing::info!(process, "this program shares the node in {state}");
        let about = About {
            tag,
            token,
            environment: attached.environment().to_owned(),
            process,
            public_key: attached.public_key().to_owned(),
            has_ended,
        };
        Ok((Attachment { attached, is_ending }, about))
    }
}

impl Attached {
    /// Attaches to the node in the state directory of these settings, for the program's networks. Starts one
    /// by the installed program if none runs. The log has what the node says; its end ends the program's
    /// sockets.
    ///
    /// # Errors
    /// [`AttachError::Absent`] if no node runs and none can be started, the identity is not that of a state
    /// directory, or `PEERSOCK_OWN_NODE` is set. Otherwise see [`NodeError`].
    pub fn of(settings: &NodeBuilder, networks: &[Network]) -> Result<Attached, NodeError> {
        let shared = settings.state_path()?.filter(|_| !wants_own_node());
        let path = shared.ok_or(AttachError::Absent)?;
        let launch = Launch::installed(&path);
        if launch.is_none() && !Attached::is_offered(&path) {
            return Err(AttachError::Absent.into());
        }
        let wish = wish(settings, networks)?;
        let launch = launch.filter(|_| can_be_started(&wish));
        Ok(Attached::open(&path, launch.as_ref(), wish, log)?)
    }
}

/// Logs an event of an attachment. Sockets of a node that has ended end.
fn log(told: Told) {
    match told {
        Told::Note(note) => tracing::info!("{note}"),
        Told::Log(line) => tracing::warn!("of the shared node: {line}"),
        Told::Lost(tag) => {
            tracing::warn!("the node that programs share has ended, so this program has no network");
            FdServer::end_sockets_of(tag);
        }
    }
}

impl Resident for Attachment {
    type Shared = Arc<Attached>;

    fn shared(&self) -> &Arc<Attached> {
        &self.attached
    }

    fn end(self, linger: Linger, unclosed: Unclosed, wait: impl FnOnce()) -> Option<u64> {
        let attached = &self.attached;
        if attached.has_ended() {
            wait();
            // It is unknown what has arrived.
            return Some(0);
        }
        self.is_ending.store(true, Ordering::SeqCst);
        let is_reset = unclosed == Unclosed::Reset;
        attached.begin_drain_with(unclosed);
        let lost = attached.deliver(linger);
        let detaching = Instant::now();
        attached.detach(|| detaching.elapsed() >= GRACE);
        if is_reset {
            // The node may not be allowed to reach this process.
            FdServer::end_sockets_of(attached.tag());
        }
        wait();
        lost
    }
}

/// Returns true if a node can be started that has the program's settings. One that is no option is a setting
/// that only a node in this process has.
fn can_be_started(wish: &Wish) -> bool {
    wish.settings.iter().all(|setting| setting.option.starts_with("--"))
}

/// Returns the needs of this program, with its first networks.
fn wish(settings: &NodeBuilder, networks: &[Network]) -> Result<Wish, NodeError> {
    let of_files = networks.iter().flat_map(|network| network.roots().to_vec());
    let named = settings.named_roots()?;
    let mut wish = Wish::new(program_name());
    wish.lacks_settings = true;
    // A variable that is set and empty names no root, in place of those of the file.
    wish.lacks_roots = named.is_empty() && env::var_os(ROOTS_VARIABLE).is_none();
    let roots = named.into_iter().chain(of_files);
    wish.networks = networks.iter().map(|network| network.to_portable().to_string()).collect();
    wish.roots = roots.map(|root| root.to_portable().to_string()).collect();
    wish.settings = Setting::named_by(settings)?;
    wish.persist = persist()?;
    Ok(wish)
}

/// Returns the name of this program without its folder.
fn program_name() -> String {
    let line = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let word = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

fn down() -> io::Error {
    io::Error::from_raw_os_error(libc::ENETDOWN)
}

/// Returns a refusal in one line.
pub(crate) fn refusal_text(refusal: &Refusal) -> String {
    match &refusal.hint {
        Some(hint) => format!("{}; {hint}", refusal.message),
        None => refusal.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;
    use std::thread;

    use peersock::state::StateDir;
    use peersock::{IdentitySource, Node};

    use super::*;
    use crate::Connection;
    use crate::messages::Reply;

    /// Attaches to a node that answers nothing more. Its connection comes with it.
    fn attached(place: &Path) -> (SharedNode, Connection) {
        let listener = UnixListener::bind(StateDir::node_socket(place)).expect("a free name");
        let (keep, kept) = mpsc::channel();
        thread::spawn(move || {
            // The first connection only asks whether a node listens.
            for (stream, _) in (0..2).map(|_| listener.accept().expect("a connection")) {
                let connection = Connection::new(stream).expect("a program of this user");
                let Ok(_wish) = connection.wish() else { continue };
                let environment = "0000002a:00000000000000000000000000000007".to_owned();
                let (public_key, networks) = (String::new(), Vec::new());
                connection
                    .send(&Reply::Attached { environment, process: 0, public_key, networks })
                    .expect("room");
                let _ = keep.send(connection);
            }
        });
        let settings = Node::builder().identity(IdentitySource::StateDir(place.to_owned()));
        let shared = SharedNode::open(place, &settings, None, false).expect("no refusal").expect("a node");
        (shared, kept.recv().expect("a connection"))
    }

    #[test]
    fn the_end_of_a_program_does_not_wait_for_a_stopped_node() {
        let place = tempfile::tempdir().expect("room");
        let (shared, _connection) = attached(place.path());
        let begun = Instant::now();
        assert!(!shared.stop(Duration::ZERO), "nobody knows what has arrived");
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_a_program_has_sent_by_a_node_that_died_may_be_lost() {
        for is_finished in [false, true] {
            let place = tempfile::tempdir().expect("room");
            let (shared, connection) = attached(place.path());
            drop(connection);
            let begun = Instant::now();
            while !shared.has_ended() {
                assert!(begun.elapsed() < Duration::from_secs(60), "the end is not noticed");
                thread::sleep(Duration::from_millis(2));
            }
            match is_finished {
                true => assert_eq!(shared.finish(Linger::Exit), Some(0)),
                false => assert!(!shared.stop(Duration::ZERO)),
            }
        }
    }
}
