//! Managed networks of a node: this thread checks network keys, keeps what is learned in the state directory,
//! tells those who wait for an admission, and passes questions to a controller.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::slice;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use peersock_datapath::{Heard, JoinedNetwork, Subscription};
use peersock_overlay::membership::{
    Answer, Code, Credentials, Denial, Grant, Head, MemberName, NetworkKey, Question, Refusal, Revocations,
    Token, UnixTime,
};
use peersock_overlay::{
    Event, JoinError, ManagedNetwork, Membership, NetworkConfig, NetworkId, PublicIdentity, UsedMember,
};
use peersock_stack::Batch;

use super::machine::Machine;
use super::seat::{Holder, MemberQuestion};
use super::{Inner, Joined};
use crate::config::network_id;
use crate::management::JoinRequest;
use crate::state::{MembershipRecord, StateDir, denial_word};
use crate::sync;

/// Interval at which the thread looks whether its network is still joined.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Interval at which the controller of an invite is looked for, and the number of such looks. The interval
/// grows after them, because all nodes of the local network answer each look.
const SEEK_INTERVAL: Duration = Duration::from_secs(1);
const EARLY_SEEKS: u32 = 20;

/// Longest interval at which the controller of an invite is looked for.
const MAX_SEEK_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum interval of writes because of newer times alone.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// Minimum interval of writes because of newer revocations. An issuer's stolen key may sign many.
const REVOCATIONS_WRITE_INTERVAL: Duration = Duration::from_millis(500);

/// Minimum interval of writes because of other used members alone, once there are as many as are kept.
const FULL_LIST_INTERVAL: Duration = Duration::from_secs(600);

/// Number of wrong keys that are remembered, so that a stranger cannot make this node stretch one again.
const MAX_REFUTED: usize = 64;

/// Shortest time between two keys that are stretched.
const STRETCH_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait of the end of a node for a write of the thread.
const ENDING: Duration = Duration::from_secs(5);

/// Standing of a node in a managed network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// No controller has answered yet.
    Asking,
    /// A person has to approve this node; both sides see the code.
    Pending(Code),
    /// A controller refuses this node. It asks again later.
    Denied(Denial),
    /// A member has refused this node's credentials, and no controller has renewed them yet.
    Refused(Refusal),
    /// The node is a member.
    Member,
}

impl Standing {
    /// Returns true once a controller has decided. It can decide otherwise later.
    pub(super) fn is_decided(&self) -> bool {
        match self {
            Self::Member => true,
            Self::Denied(reason) => *reason != Denial::Unavailable,
            Self::Asking | Self::Pending(_) | Self::Refused(_) => false,
        }
    }
}

impl Standing {
    /// Returns the standing as another process of this user reads it.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Asking => "asking".to_owned(),
            Self::Pending(code) => format!("pending {code}"),
            Self::Denied(reason) => format!("denied {}", reason.code()),
            Self::Refused(reason) => format!("refused {}", reason.code()),
            Self::Member => "member".to_owned(),
        }
    }

    /// Reads what [`to_text`](Self::to_text) returns. Reasons of later versions are still reasons.
    pub(crate) fn from_text(text: &str) -> Option<Standing> {
        let number = |text: &str| text.parse::<u8>().ok().filter(|code| *code > 0);
        Some(match text.split_once(' ') {
            None if text == "asking" => Self::Asking,
            None if text == "member" => Self::Member,
            Some(("pending", code)) => Self::Pending(code.parse().ok()?),
            Some(("denied", code)) => {
                Self::Denied(Denial::from_code(number(code)?).unwrap_or(Denial::Refused))
            }
            Some(("refused", code)) => {
                Self::Refused(Refusal::from_code(number(code)?).unwrap_or(Refusal::Unauthentic))
            }
            _ => return None,
        })
    }
}

/// Says it for people, as the end of a sentence about a network.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asking => f.write_str("no controller has answered this node"),
            Self::Pending(code) => write!(f, "somebody has to approve this node, code {code}"),
            Self::Denied(reason) => write!(f, "the controller does not admit this node: {reason}"),
            Self::Refused(reason) => write!(f, "members refuse this node: {reason}"),
            Self::Member => f.write_str("this node is a member"),
        }
    }
}

/// State of a node's membership in a managed network.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MembershipStatus {
    /// Standing of the node.
    pub standing: Standing,
    /// Network key, once it is known.
    pub key: Option<NetworkKey>,
    /// Content of this node's certificate.
    pub grant: Option<Grant>,
    /// End of this node's credentials.
    pub end: Option<UnixTime>,
    /// Time by which the network judges now.
    pub time: UnixTime,
    /// Known controllers.
    pub controllers: Vec<PublicIdentity>,
    /// Time since a controller has answered in this run of the node.
    pub heard: Option<Duration>,
    /// Epoch and time of the revocations that were signed last.
    pub revocations: Option<(u64, UnixTime)>,
    /// True once a controller itself has told this run of the node its newest revocations.
    pub is_up_to_date: bool,
}

/// State that the thread shares with callers.
pub(super) struct Shared {
    progress: Mutex<Progress>,
    kept: Mutex<Kept>,
    changed: Condvar,
    /// Tasks that wait for an admission.
    wakers: Mutex<Vec<Waker>>,
    pub(super) seat: Holder,
    /// Local name of the network. It is apart from the record, which is locked while it is written to disk.
    local_name: Mutex<Option<String>>,
}

struct Progress {
    standing: Standing,
    heard: Option<Instant>,
    /// Set while a member says that this node was revoked, and no controller has said so or renewed its
    /// credentials since.
    is_doubted: bool,
    /// True once a controller has told its newest revocations, and they are kept.
    is_up_to_date: bool,
    /// True once the thread has ended, which then holds no part of the node.
    has_ended: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            standing: Standing::Asking,
            heard: None,
            is_doubted: false,
            is_up_to_date: false,
            has_ended: false,
        }
    }
}

/// Record of a network in the state directory, as the node keeps it.
struct Kept {
    network: JoinedNetwork,
    /// `None` until the network's key is known.
    record: Option<MembershipRecord>,
    /// Number of this run of the identity in the network.
    starts: u64,
    written: Option<Instant>,
    /// True once the record is on disk, or a controller has admitted the node or lets it wait. A refused
    /// request leaves nothing.
    is_wanted: bool,
    /// True if the record on disk lacks something.
    is_stale: bool,
    /// True if it lacks revocations that no write was tried for.
    lacks_revocations: bool,
    /// True if the last write has failed.
    has_failed: bool,
    /// True once a controller has told its newest revocations.
    is_up_to_date: bool,
    /// True after the last write.
    is_closed: bool,
}

impl Kept {
    /// Brings the record up to date with the overlay. Returns true if the node has credentials.
    fn update(&mut self, node: &Inner) -> bool {
        node.driver.datapath.note_used(self.network.index);
        let read = node.driver.datapath.membership(self.network.index, |known| {
            let credentials = known.credentials().cloned();
            (
                credentials,
                known.controllers().to_vec(),
                known.heads().cloned().collect(),
                (known.other_revocations(), known.used().cloned().collect()),
                (known.signed_time(), known.clock_offset()),
                known.keys().cloned(),
                known.is_up_to_date(),
            )
        });
        let Some((credentials, controllers, revocations, others, times, keys, is_up_to_date)) = read else {
            return false;
        };
        self.is_up_to_date = is_up_to_date;
        let (has_credentials, (signed_time, clock_offset)) = (credentials.is_some(), times);
        let (others, used) = others;
        let first = keys.as_ref().map(|keys| *keys.first());
        if let Some(record) = self.record.take().or_else(|| Some(self.new_record(first?))) {
            let credentials = credentials.or_else(|| record.credentials.clone());
            let successions = keys.map(|keys| keys.successions().to_vec());
            self.record = Some(MembershipRecord {
                successions: successions.unwrap_or_else(|| record.successions.clone()),
                credentials,
                controllers,
                revocations,
                others,
                used,
                signed_time,
                clock_offset,
                ..record
            });
        }
        has_credentials
    }

    fn local_name(&self) -> Option<String> {
        self.record.as_ref()?.name.clone()
    }

    fn new_record(&self, key: NetworkKey) -> MembershipRecord {
        MembershipRecord { starts: self.starts, ..MembershipRecord::new(self.network.id, key) }
    }

    /// Makes the next write due at once.
    fn hurry(&mut self) {
        (self.is_stale, self.written) = (true, None);
    }

    /// Notes that the overlay has newer revocations, or that a controller has confirmed them.
    fn note_revocations(&mut self) {
        (self.is_stale, self.lacks_revocations) = (true, true);
        // Who joins waits for the first ones.
        if !self.is_up_to_date {
            self.written = None;
        }
    }

    /// Returns true once the newest revocations of a controller are kept, as far as this node keeps anything.
    fn has_kept_revocations(&self, node: &Inner) -> bool {
        self.is_up_to_date && (node.state.is_none() || !self.is_stale)
    }

    /// Returns the time until a write of revocations is due, if they lack on disk.
    fn revocations_due_in(&self) -> Option<Duration> {
        let since = self.written.map_or(Duration::MAX, |at| at.elapsed());
        (self.lacks_revocations && !self.is_closed).then(|| REVOCATIONS_WRITE_INTERVAL.saturating_sub(since))
    }

    fn write_if_due(&mut self, node: &Inner) {
        let pause = if self.lacks_revocations { REVOCATIONS_WRITE_INTERVAL } else { WRITE_INTERVAL };
        let is_soon = self.written.is_some_and(|at| at.elapsed() < pause);
        if !self.is_stale || is_soon || self.is_closed {
            return;
        }
        // Once only, because a full disk would be written to again and again.
        self.lacks_revocations = false;
        self.is_wanted |= self.update(node);
        let (Some(state), Some(record), true) = (&node.state, &self.record, self.is_wanted) else { return };
        self.written = Some(Instant::now());
        let kept = state.keep_membership(record);
        self.has_failed = kept.is_err();
        match kept {
            Ok(()) => self.is_stale = false,
            Err(error) => tracing::warn!(%error, "a managed network is not kept for the next start"),
        }
    }
}

impl Shared {
    fn new(kept: Kept) -> Shared {
        Shared {
            progress: Mutex::default(),
            local_name: Mutex::new(kept.local_name()),
            kept: Mutex::new(kept),
            changed: Condvar::new(),
            wakers: Mutex::default(),
            seat: Holder::default(),
        }
    }

    /// Writes what the node has learned, before it leaves the network. Nothing is written after that.
    pub(super) fn close(&self, node: &Inner) {
        let mut kept = sync::lock(&self.kept);
        kept.hurry();
        kept.write_if_due(node);
        kept.is_closed = true;
    }

    /// Takes over the network's key, whose stretched hash is the ID, unless a key is known. Returns false if
    /// another one is known.
    fn set_key(&self, node: &Inner, key: NetworkKey) -> bool {
        let mut kept = sync::lock(&self.kept);
        if let Some(record) = &kept.record {
            return record.key == key;
        }
        tracing::info!(network = %kept.network.id, %key, "the network's key is known from now on");
        kept.record = Some(kept.new_record(key));
        kept.hurry();
        let index = kept.network.index;
        drop(kept);
        node.driver.datapath.set_network_key(Instant::now(), index, key, &mut Batch::default());
        node.driver.kick();
        true
    }

    /// Makes this node a member by new credentials, which are written first: a crash must not lose what a
    /// controller has granted, and who hears of it reads the record next.
    fn set_granted(&self, node: &Inner, is_heard: bool) {
        let mut kept = sync::lock(&self.kept);
        if let Some(record) = &mut kept.record {
            record.denied = None;
        }
        kept.hurry();
        kept.write_if_due(node);
        drop(kept);
        self.set(Standing::Member, is_heard);
    }

    fn set(&self, standing: Standing, is_heard: bool) {
        let mut progress = sync::lock(&self.progress);
        progress.standing = standing;
        if is_heard {
            (progress.heard, progress.is_doubted) = (Some(Instant::now()), false);
        }
        drop(progress);
        self.changed.notify_all();
        sync::lock(&self.wakers).drain(..).for_each(Waker::wake);
    }

    /// Waits for the end of the thread, for a time at most.
    pub(super) fn wait_ended(&self) {
        let progress = sync::lock(&self.progress);
        drop(sync::wait_timeout_while(&self.changed, progress, ENDING, |now| !now.has_ended));
    }

    fn set_heard(&self) {
        sync::lock(&self.progress).heard = Some(Instant::now());
    }

    fn set_up_to_date(&self) {
        let before = std::mem::replace(&mut sync::lock(&self.progress).is_up_to_date, true);
        if !before {
            self.changed.notify_all();
        }
    }

    fn set_doubted(&self) {
        sync::lock(&self.progress).is_doubted = true;
    }

    /// Returns a word for the standing, as of [`NetworkStatus::standing`](super::NetworkStatus::standing).
    pub(super) fn word(&self) -> &'static str {
        let progress = sync::lock(&self.progress);
        match &progress.standing {
            Standing::Denied(Denial::Cloned) => "copied",
            Standing::Denied(reason) => denial_word(*reason).unwrap_or("asking"),
            standing if progress.is_doubted || matches!(standing, Standing::Refused(_)) => "refused",
            Standing::Pending(_) => "pending",
            Standing::Member => "member",
            _ => "asking",
        }
    }

    /// Returns the time since a controller has answered in this run of the node.
    pub(super) fn heard(&self) -> Option<Duration> {
        sync::lock(&self.progress).heard.map(|at| at.elapsed())
    }

    /// Returns true once a controller has said that the node is no member any more.
    fn is_removed(&self) -> bool {
        sync::lock(&self.progress).standing == Standing::Denied(Denial::Removed)
    }

    /// Returns true once the node is a member; else `waker` is woken by the next change.
    pub(super) fn poll_member(&self, waker: &Waker) -> bool {
        // Kept first, so that no change in between is missed.
        sync::lock(&self.wakers).push(waker.clone());
        sync::lock(&self.progress).standing == Standing::Member
    }
}

/// Completes the description of a managed network by the state directory, and checks its key. Returns the
/// record that the node keeps from now on.
pub(super) fn complete(
    config: &mut NetworkConfig,
    state: Option<&StateDir>,
) -> Result<Option<MembershipRecord>, JoinError> {
    config.validate()?;
    let NetworkConfig::Managed(network) = config else { return Ok(None) };
    let id = network.id;
    let kept = match state.map(|state| state.kept_membership(id)) {
        Some(Ok(record)) => record,
        Some(Err(error)) => {
            tracing::warn!(%error, "what was kept of a managed network is not used");
            None
        }
        None => None,
    };
    match (&network.key, &kept) {
        // Pinned at the first join: a second network with the same ID is somebody's attack.
        (Some(key), Some(kept)) if *key != kept.key => return Err(JoinError::OtherKey(id)),
        (Some(_), Some(_)) | (None, _) => {}
        (Some(key), None) => check_key(key, id)?,
    }
    let mut request = network.request.clone();
    request.run = random();
    // After a machine has left the network and joined it again, the number is larger than before, too.
    let unix_time = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    // In milliseconds, because that may happen within a second.
    let first = u64::try_from(unix_time.as_millis()).unwrap_or_default();
    request.starts = kept.as_ref().map_or(first, |kept| kept.starts + 1);
    if let Some(kept) = &kept {
        request.name = request.name.or_else(|| kept.wish.clone());
    }
    if request.name.is_none() {
        request.name = MemberName::cleaned(&crate::sys::host_name());
    }
    if request.description.is_empty() {
        request.description = crate::sys::description();
    }
    let key = network.key.or(kept.as_ref().map(|kept| kept.key));
    let record = kept
        .or_else(|| key.map(|key| MembershipRecord::new(id, key)))
        .map(|record| MembershipRecord { starts: request.starts, wish: request.name.clone(), ..record });
    if let Some(record) = &record {
        let known = record.network(request);
        let credentials = network.credentials.take().or(known.credentials.clone());
        let is_controller = network.is_controller;
        **network = ManagedNetwork { credentials, is_controller, ..known };
    } else {
        network.request = request;
    }
    Ok(record)
}

/// Checks that the stretched hash of a key is a network's ID, which takes some tenths of a second.
pub(super) fn check_key(key: &NetworkKey, id: NetworkId) -> Result<(), JoinError> {
    match network_id(key) {
        Ok(of_key) if of_key == Some(id) => Ok(()),
        Ok(_) => Err(JoinError::WrongKey(id)),
        Err(error) => {
            tracing::warn!(%error, "the key of a managed network cannot be checked");
            Err(JoinError::WrongKey(id))
        }
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness a copied state directory is not noticed, and nothing else.
    let _ = getrandom::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

/// Follows a managed network that was joined, until it is left or the node ends.
pub(super) fn start(
    node: &Arc<Inner>,
    network: &JoinedNetwork,
    events: Arc<Subscription>,
    record: Option<MembershipRecord>,
    guide: Option<Ipv6Addr>,
) {
    // Other networks have no membership to follow.
    let Some(starts) = node.driver.datapath.membership(network.index, Membership::starts) else { return };
    let network = network.clone();
    let kept = Kept {
        network: network.clone(),
        record,
        starts,
        written: None,
        is_wanted: node.state.as_ref().is_some_and(|state| state.has_membership(network.id)),
        is_stale: true,
        lacks_revocations: false,
        has_failed: false,
        is_up_to_date: false,
        is_closed: false,
    };
    let shared = Arc::new(Shared::new(kept));
    sync::lock(&node.managed).insert(network.id, Arc::clone(&shared));
    let node = Arc::downgrade(node);
    let mut follower = Follower {
        node,
        network,
        shared,
        refuted: BTreeSet::new(),
        stretched: None,
        seen: None,
        guide,
        seek_at: None,
        seeks: 0,
        used_at: Instant::now(),
        lacks_used: false,
        used_kept: None,
    };
    follower.update();
    let ending = Ending(Arc::clone(&follower.shared));
    let started = thread::Builder::new().name("peersock-member".into()).spawn(move || {
        let _ending = ending;
        while !events.is_over() {
            let heard = events.next_or_change(follower.next_look());
            if !follower.is_joined() {
                return;
            }
            if let Heard::Event(event) = heard {
                follower.note(&event);
            }
            follower.renew_beside();
            follower.note_used();
            follower.write_if_due();
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "a managed network is not kept up to date");
    }
}

/// Tells of the thread's end when dropped.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        sync::lock(&self.0.progress).has_ended = true;
        self.0.changed.notify_all();
    }
}

struct Follower {
    node: Weak<Inner>,
    network: JoinedNetwork,
    shared: Arc<Shared>,
    /// Keys whose stretched hash is not the network's ID.
    refuted: BTreeSet<NetworkKey>,
    stretched: Option<Instant>,
    /// Time at which the machine's node wrote the record that this program has read last.
    seen: Option<SystemTime>,
    /// Address of the controller that an invite names, until a controller has answered.
    guide: Option<Ipv6Addr>,
    /// Time of the next look for it, and the number of looks so far.
    seek_at: Option<Instant>,
    seeks: u32,
    /// Time of the last look for members that are used.
    used_at: Instant,
    /// True if the record on disk lacks some of them.
    lacks_used: bool,
    /// Time at which a write was asked for because of them.
    used_kept: Option<Instant>,
}

/// Returns the pause after a look for a controller.
fn pause_after(seeks: u32) -> Duration {
    let doublings = seeks.saturating_sub(EARLY_SEEKS).min(6);
    (SEEK_INTERVAL * (1 << doublings)).min(MAX_SEEK_INTERVAL)
}

impl Follower {
    /// Does what is due, and returns the time until the next call.
    fn next_look(&mut self) -> Duration {
        let due = sync::lock(&self.shared.kept).revocations_due_in();
        due.unwrap_or(Duration::MAX).min(self.seek_controller())
    }

    /// Looks for the controller that the invite names. Its session shows it to be one, and roots and the DHT
    /// know the way to it. Returns the time until the next call.
    fn seek_controller(&mut self) -> Duration {
        let is_asking = sync::lock(&self.shared.progress).standing == Standing::Asking;
        let Some((address, node)) = self.guide.filter(|_| is_asking).zip(self.node.upgrade()) else {
            self.guide = None;
            return CHECK_INTERVAL;
        };
        let (now, datapath) = (Instant::now(), &node.driver.datapath);
        if self.seek_at.is_some_and(|at| now < at) {
            return SEEK_INTERVAL;
        }
        self.seek_at = Some(now + pause_after(self.seeks));
        self.seeks = self.seeks.saturating_add(1);
        let _ = datapath.find(now, &self.network, address.into());
        datapath.want_peer(now, &self.network, address.into(), &mut Batch::default());
        SEEK_INTERVAL
    }

    fn is_joined(&self) -> bool {
        let Some(node) = self.node.upgrade() else { return false };
        node.driver.datapath.network(self.network.id).is_some_and(|now| now.index == self.network.index)
    }

    fn note(&mut self, event: &Event) {
        if event.peer().network() != self.network.index {
            return;
        }
        match event {
            Event::KeyClaimed(_, key) => self.check_key(*key),
            Event::Answered(_, answer) => self.on_answer(answer),
            Event::RevocationsChanged(_) => sync::lock(&self.shared.kept).note_revocations(),
            // At once, because a second successor is refused by what is on the disk.
            Event::KeyChanged(_) => sync::lock(&self.shared.kept).hurry(),
            Event::RefusedBy(_, refusal) => {
                if *refusal == Refusal::Revoked {
                    self.shared.set_doubted();
                }
                let is_member = sync::lock(&self.shared.progress).standing == Standing::Member;
                // One member's word; controllers decide.
                if !is_member {
                    self.shared.set(Standing::Refused(*refusal), false);
                }
            }
            Event::Asked(peer, number, question) => {
                let question = MemberQuestion::new(&self.node, peer, *number, question.clone());
                self.shared.seat.ask(question);
            }
            _ => {}
        }
    }

    /// Compares a key that a node claims with the network's ID, which takes some tenths of a second.
    fn check_key(&mut self, key: NetworkKey) {
        let is_soon = self.stretched.is_some_and(|at| at.elapsed() < STRETCH_INTERVAL);
        if sync::lock(&self.shared.kept).record.is_some() || self.refuted.contains(&key) || is_soon {
            return;
        }
        self.stretched = Some(Instant::now());
        match network_id(&key) {
            Ok(id) if id == Some(self.network.id) => {
                if let Some(node) = self.node.upgrade() {
                    self.shared.set_key(&node, key);
                }
            }
            Ok(_) => {
                tracing::warn!(network = %self.network.id, "a node claims a key that is not the network's");
                if self.refuted.len() >= MAX_REFUTED {
                    self.refuted.pop_first();
                }
                self.refuted.insert(key);
            }
            Err(error) => tracing::warn!(%error, "the network's key cannot be checked"),
        }
    }

    fn on_answer(&mut self, answer: &Answer) {
        match answer {
            Answer::Certified { .. } => {
                if let Some(node) = self.node.upgrade() {
                    self.shared.set_granted(&node, true);
                }
            }
            Answer::Pending { code, .. } => {
                let mut kept = sync::lock(&self.shared.kept);
                if !std::mem::replace(&mut kept.is_wanted, true) {
                    kept.hurry();
                }
                drop(kept);
                self.write_if_due();
                self.shared.set(Standing::Pending(*code), true);
            }
            Answer::Denied { reason, .. } => {
                // Kept, so that the next program is told at once.
                if denial_word(*reason).is_some() {
                    let mut kept = sync::lock(&self.shared.kept);
                    if let Some(record) = &mut kept.record {
                        record.denied = Some(*reason);
                        kept.hurry();
                    }
                    drop(kept);
                    self.write_if_due();
                }
                // A certificate that has not ended counts on. The node asks again.
                match matches!(reason, Denial::Unavailable | Denial::Undecided) && self.has_credentials() {
                    true => self.shared.set_heard(),
                    false => self.shared.set(Standing::Denied(*reason), true),
                }
            }
            Answer::Found { .. } | Answer::Program { .. } | Answer::Absent => {}
        }
    }

    /// Returns true if the node's credentials have not ended.
    fn has_credentials(&self) -> bool {
        let Some(node) = self.node.upgrade() else { return false };
        let datapath = &node.driver.datapath;
        let unix_time = datapath.unix_time(Instant::now());
        let read =
            |known: &Membership| known.credentials().is_some_and(|own| known.time(unix_time) < own.end());
        datapath.membership(self.network.index, read).unwrap_or(false)
    }

    /// Brings the record up to date with the overlay.
    fn update(&self) {
        let Some(node) = self.node.upgrade() else { return };
        let has_credentials = sync::lock(&self.shared.kept).update(&node);
        if has_credentials && sync::lock(&self.shared.progress).standing == Standing::Asking {
            self.shared.set(Standing::Member, false);
        }
    }

    /// Keeps the members that this node uses. They are written when one is new or has another name; the order
    /// in which they were used goes with other writes.
    fn note_used(&mut self) {
        // Each look takes the control lock and sees all peers, and events can be many.
        if self.used_at.elapsed() < CHECK_INTERVAL {
            return;
        }
        self.used_at = Instant::now();
        let Some(node) = self.node.upgrade() else { return };
        let datapath = &node.driver.datapath;
        self.lacks_used |= datapath.note_used(self.network.index);
        // A node that sends to more members than are kept would write with each look.
        let count = datapath.membership(self.network.index, |known| known.used().len()).unwrap_or(0);
        let rests = self.used_kept.is_some_and(|at| at.elapsed() < FULL_LIST_INTERVAL);
        if self.lacks_used && !(rests && count >= UsedMember::MAX) {
            (self.lacks_used, self.used_kept) = (false, Some(Instant::now()));
            sync::lock(&self.shared.kept).is_stale = true;
        }
    }

    fn write_if_due(&self) {
        // Not held for longer, because the directory has to be free once the node has ended.
        if let Some(node) = self.node.upgrade() {
            let mut kept = sync::lock(&self.shared.kept);
            kept.write_if_due(&node);
            let is_up_to_date = kept.has_kept_revocations(&node);
            drop(kept);
            if is_up_to_date {
                self.shared.set_up_to_date();
            }
        }
    }

    /// Follows the machine beside whose node this one is: shows credentials with its newest certificate, and
    /// tells what a controller has decided about it.
    fn renew_beside(&mut self) {
        let Some(node) = self.node.upgrade() else { return };
        let Some(machine) = &node.machine else { return };
        let (network, datapath) = (self.network.clone(), &node.driver.datapath);
        // By the clock of this node, to which the correction by controllers belongs. Members would refuse
        // what is signed by a clock that was set meanwhile, because the correction would count twice.
        let unix_time = datapath.unix_time(Instant::now());
        let read = |known: &Membership| (known.time(unix_time), known.credentials().cloned());
        let Some((now, own)) = datapath.membership(network.index, read) else { return };
        if let Some(own) = &own
            && datapath.has_controller(network.index)
        {
            machine.renew_in_place(network.id, own, now);
        }
        let process = own.as_ref().and_then(Credentials::process);
        let written = machine.written(network.id);
        if written == self.seen && !Machine::is_due(process, now) {
            return;
        }
        self.seen = written;
        // Without a record the machine has left the network, and the program's certificate ends soon.
        let Ok(Some(record)) = machine.record(network.id) else { return };
        if let Some(reason) = record.denied {
            if reason == Denial::Removed {
                datapath.set_removed(Instant::now(), network.index, &mut Batch::default());
                node.driver.kick();
            }
            return self.shared.set(Standing::Denied(reason), true);
        }
        let mut batch = Batch::default();
        datapath.set_clock_offset(Instant::now(), network.index, record.clock_offset, &mut batch);
        let now = datapath.membership(network.index, |known| known.time(unix_time)).unwrap_or(now);
        let is_same = own.as_ref().map(Credentials::certificate)
            == record.credentials.as_ref().map(Credentials::certificate);
        if is_same && !Machine::is_due(process, now) {
            return;
        }
        let Some(credentials) = machine.credentials(&record, &node.identity.node_id(), now) else { return };
        match datapath.set_credentials(Instant::now(), network.index, &credentials, &mut batch) {
            Ok(()) => {
                node.driver.kick();
                self.update();
                self.shared.set(Standing::Member, true);
            }
            Err(error) => tracing::warn!(%error, "the machine's certificate cannot be shown"),
        }
    }
}

/// Longest wait for a controller's answer about a name. Programs wait for names.
const NAME_WAIT: Duration = Duration::from_millis(800);

/// Interval of the checks for that answer.
const NAME_POLL: Duration = Duration::from_millis(5);

/// Networks by the names that this machine, or one of its programs, gives them.
pub(crate) type LocalNames = BTreeMap<MemberName, NetworkId>;

/// Networks in which a name is looked up, and local names beside those of managed networks.
pub(crate) type Among<'a> = (&'a [JoinedNetwork], &'a LocalNames);

/// Returns a name without the dot at its end, which stands for the root of the DNS.
fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Returns the network that a name ends with, by its local name or ID, and the name before it: `alpha.team`
/// is the member `alpha` of `team`, whichever other member has a program with the label `alpha`.
pub(crate) fn of_network<'a, 'b>(
    node: &Inner,
    name: &'a str,
    (networks, names): Among<'b>,
) -> Option<(&'a str, &'b JoinedNetwork)> {
    let (member, end) = without_root(name).rsplit_once('.')?;
    let id = end.parse().ok();
    let managed = sync::lock(&node.managed);
    let named = end.to_ascii_lowercase().parse::<MemberName>().ok().and_then(|end| names.get(&end).copied());
    let is_called = |network: &&JoinedNetwork| {
        let has_name = |shared: &Arc<Shared>| {
            let local = sync::lock(&shared.local_name);
            local.as_deref().is_some_and(|local| local.eq_ignore_ascii_case(end))
        };
        [id, named].contains(&Some(network.id)) || managed.get(&network.id).is_some_and(has_name)
    };
    networks.iter().find(is_called).map(|network| (member, network))
}

/// Returns the addresses of the members with a name in these networks, as far as this node knows them.
pub(crate) fn known_addresses(node: &Inner, name: &str, among: Among<'_>) -> Vec<IpAddr> {
    let found = |name, networks: &[JoinedNetwork]| {
        let is_meant = |id| networks.iter().any(|network| network.id == id);
        node.driver.datapath.addresses_named(Instant::now(), name, is_meant)
    };
    match of_network(node, name, among) {
        Some((member, network)) => found(member, slice::from_ref(network)),
        None => found(without_root(name), among.0),
    }
}

/// Does the same. Of a managed network, asks the controller for a member that this node has not met, and
/// waits for its answer.
pub(crate) fn addresses_named(node: &Inner, name: &str, among: Among<'_>) -> Vec<IpAddr> {
    let begun = Instant::now();
    loop {
        let found = known_addresses(node, name, among);
        if !found.is_empty() || begun.elapsed() >= NAME_WAIT || !search_name(node, name, among) {
            return found;
        }
        thread::sleep(NAME_POLL);
    }
}

/// Asks the controllers of managed networks for the member or program with a name, if one may have it.
/// Returns false once they have said that none has it.
pub(crate) fn search_name(node: &Inner, name: &str, among: Among<'_>) -> bool {
    // This name is every machine's.
    if without_root(name).eq_ignore_ascii_case("localhost") {
        return false;
    }
    let (now, mut batch) = (Instant::now(), Batch::default());
    let mut ask =
        |name, network: &JoinedNetwork| node.driver.datapath.find_name(now, network.index, name, &mut batch);
    match of_network(node, name, among) {
        Some((member, network)) => ask(member, network),
        // All are asked.
        None => among.0.iter().filter(|network| ask(without_root(name), network)).count() > 0,
    }
}

/// Returns true if a controller has just said that no member has this name in the network with which it ends.
pub(crate) fn is_name_absent(node: &Inner, name: &str, among: Among<'_>) -> bool {
    of_network(node, name, among).is_some_and(|(member, network)| {
        node.driver.datapath.is_name_absent(Instant::now(), network.index, member)
    })
}

impl Joined {
    pub(super) fn shared(&self) -> Option<Arc<Shared>> {
        sync::lock(&self.node().inner.managed).get(&self.id()).cloned()
    }

    /// Returns an error once a controller has said that this node is no member any more.
    pub(super) fn check_not_removed(&self) -> io::Result<()> {
        match self.shared().is_some_and(|shared| shared.is_removed()) {
            true => {
                let message =
                    format!("this machine was removed from network {} by its controller", self.id());
                Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
            }
            false => Ok(()),
        }
    }

    /// Returns the state of this node's membership; `None` if the network is no managed one.
    pub fn membership(&self) -> Option<MembershipStatus> {
        let shared = self.shared()?;
        let standing = sync::lock(&shared.progress).standing.clone();
        let heard = shared.heard();
        let unix_time = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let read = |known: &Membership| MembershipStatus {
            standing,
            key: known.key().copied(),
            grant: known.credentials().map(|own| own.certificate().grant().clone()),
            end: known.credentials().map(Credentials::end),
            time: known.time(unix_time),
            controllers: known.controllers().to_vec(),
            heard,
            revocations: known.newest_head().map(|head| (head.epoch(), head.time())),
            is_up_to_date: known.is_up_to_date(),
        };
        self.node().inner.driver.datapath.membership(self.index(), read)
    }

    /// Waits until this node is a member of the managed network, and returns its standing then, or when
    /// `timeout` has passed. Returns at once in other networks, whose members need no admission. `told` hears
    /// each change while this waits.
    ///
    /// # Errors
    /// Returns `NetworkDown` if the network was left.
    pub fn wait_admitted(&self, timeout: Duration, told: impl FnMut(&Standing)) -> io::Result<Standing> {
        self.wait_standing(timeout, told, |standing| *standing == Standing::Member)
    }

    /// Waits until a controller has told this run of the node its newest revocations, and the node has kept
    /// them, or until `timeout` has passed. Returns false in that case: this node may then accept a member
    /// that was removed before. Returns true at once in networks without a controller.
    ///
    /// # Errors
    /// Returns `NetworkDown` if the network was left.
    pub fn wait_up_to_date(&self, timeout: Duration) -> io::Result<bool> {
        if self.shared().is_none() {
            return Ok(true);
        }
        self.wait_word(timeout, |_| (), |_, is_up_to_date| is_up_to_date).map(|word| word.1)
    }

    /// Waits until a controller has answered in this run of the node, for a time at most.
    pub(super) fn wait_heard(&self, timeout: Duration) {
        let Some(shared) = self.shared() else { return };
        let progress = sync::lock(&shared.progress);
        drop(sync::wait_timeout_while(&shared.changed, progress, timeout, |now| now.heard.is_none()));
    }

    /// Waits like [`wait_admitted`](Joined::wait_admitted), but until `is_wanted`.
    pub(super) fn wait_standing(
        &self,
        timeout: Duration,
        told: impl FnMut(&Standing),
        is_wanted: impl Fn(&Standing) -> bool,
    ) -> io::Result<Standing> {
        self.wait_word(timeout, told, |standing, _| is_wanted(standing)).map(|word| word.0)
    }

    /// Does the same where it also matters whether the node has kept a controller's newest revocations.
    /// Returns that, too.
    pub(super) fn wait_word(
        &self,
        timeout: Duration,
        mut told: impl FnMut(&Standing),
        is_wanted: impl Fn(&Standing, bool) -> bool,
    ) -> io::Result<(Standing, bool)> {
        let Some(shared) = self.shared() else { return Ok((Standing::Member, true)) };
        let deadline = Instant::now().checked_add(timeout);
        let mut last = Standing::Asking;
        let mut progress = sync::lock(&shared.progress);
        loop {
            if progress.standing != last {
                last = progress.standing.clone();
                drop(progress);
                told(&last);
                progress = sync::lock(&shared.progress);
                continue;
            }
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            let is_up_to_date = progress.is_up_to_date;
            if is_wanted(&last, is_up_to_date) || left.is_zero() {
                return Ok((last, is_up_to_date));
            }
            drop(progress);
            self.check_joined()?;
            progress = sync::lock(&shared.progress);
            let pause = left.min(Duration::from_millis(500));
            let is_same = |now: &mut Progress| now.standing == last && now.is_up_to_date == is_up_to_date;
            progress = sync::wait_timeout_while(&shared.changed, progress, pause, is_same);
        }
    }

    /// Fixes the network's key, which an invite has, if the network was joined by its ID alone.
    ///
    /// # Errors
    /// Returns [`JoinError::OtherKey`] if another key is known, and [`JoinError::WrongKey`].
    pub(super) fn set_key(&self, key: NetworkKey) -> Result<(), JoinError> {
        let known = self.node().inner.driver.datapath.membership(self.index(), |known| known.key().copied());
        let is_known = match known.flatten() {
            Some(known) => known == key,
            None => {
                check_key(&key, self.id())?;
                self.shared().is_none_or(|shared| shared.set_key(&self.node().inner, key))
            }
        };
        if is_known { Ok(()) } else { Err(JoinError::OtherKey(self.id())) }
    }

    /// Asks the controllers again, with another invite or wished name, unless this node is a member.
    pub(super) fn ask_again(&self, token: Option<Token>, wish: Option<MemberName>) {
        let Some(shared) = self.shared().filter(|shared| shared.word() != "member") else { return };
        if let (Some(record), Some(wish)) = (&mut sync::lock(&shared.kept).record, &wish) {
            record.wish = Some(wish.clone());
        }
        // The last word was about the earlier request.
        shared.set(Standing::Asking, false);
        let (now, mut batch) = (Instant::now(), Batch::default());
        let inner = &self.node().inner;
        inner.driver.datapath.ask_again(now, self.index(), (token, wish), &mut batch);
        inner.driver.kick();
    }

    /// Keeps the names and roots of a request in the state directory, with the membership: once a controller
    /// has admitted this node, or lets it wait.
    pub fn keep_names(&self, request: &JoinRequest) {
        let Some(shared) = self.shared() else { return };
        let mut kept = sync::lock(&shared.kept);
        if kept.record.as_mut().is_some_and(|record| request.note_in(record)) {
            *sync::lock(&shared.local_name) = kept.local_name();
            kept.hurry();
        }
        // The person who asks may have made room on a disk that was full.
        if kept.has_failed {
            kept.hurry();
        }
        kept.write_if_due(&self.node().inner);
    }

    /// Replaces this node's credentials, which the network's controller at this node has made.
    ///
    /// # Errors
    /// Returns the reason if they are not this node's, another issuer has made them, or they have ended.
    pub fn set_credentials(&self, credentials: &Credentials) -> Result<(), Refusal> {
        self.check_own(credentials)?;
        let (now, mut batch) = (Instant::now(), Batch::default());
        let inner = &self.node().inner;
        inner.driver.datapath.set_credentials(now, self.index(), credentials, &mut batch)?;
        inner.driver.kick();
        if let Some(shared) = self.shared() {
            shared.set_granted(inner, false);
        }
        Ok(())
    }

    /// Spreads revocations that the network's controller at this node has signed.
    ///
    /// # Errors
    /// Returns the reason if they do not count.
    pub fn set_revocations(&self, head: &Head, set: &Revocations) -> Result<(), Refusal> {
        let (now, mut batch) = (Instant::now(), Batch::default());
        let inner = &self.node().inner;
        inner.driver.datapath.set_revocations(now, self.index(), head, set, &mut batch)?;
        inner.driver.kick();
        Ok(())
    }

    /// Begins sessions with members to which the network's controller at this node may be unknown, because it
    /// has another key now. Looks for the first [`MAX_VISITS`](peersock_overlay::Endpoint::MAX_VISITS) of
    /// them.
    pub fn visit_members(&self, members: &[PublicIdentity]) {
        let (now, mut batch) = (Instant::now(), Batch::default());
        let inner = &self.node().inner;
        inner.driver.datapath.visit_members(now, self.index(), members, &mut batch);
        inner.driver.kick();
    }

    /// Returns the newest head of each issuer that this node knows, with the bytes of its set.
    pub fn revocations(&self) -> Vec<(Head, Arc<[u8]>)> {
        let read = |known: &Membership| known.heads().cloned().collect();
        self.node().inner.driver.datapath.membership(self.index(), read).unwrap_or_default()
    }

    /// Asks the network's controllers for a member. The member then can be reached, by its name and
    /// addresses, if there is one. Returns false if the question cannot be asked now.
    pub fn find_member(&self, question: &Question) -> bool {
        let inner = &self.node().inner;
        let (now, mut batch) = (Instant::now(), Batch::default());
        let asked = inner.driver.datapath.find_member(now, self.index(), question, &mut batch);
        inner.driver.kick();
        asked
    }
}
