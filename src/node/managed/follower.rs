//! The thread of a managed network: it checks keys, writes what is learned, and tells callers that wait.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use peersock_datapath::{Heard, JoinedNetwork, Subscription};
use peersock_overlay::membership::{Answer, Credentials, Denial, NetworkKey, Refusal, Serial};
use peersock_overlay::{Event, Membership, NodeId, UsedMember};
use peersock_stack::Batch;

use super::super::Inner;
use super::super::machine::Machine;
use super::super::seat::MemberQuestion;
use super::kept::Kept;
use super::{Shared, Standing};
use crate::config::network_id;
use crate::state::{MembershipRecord, denial_word};
use crate::sync;

/// Interval at which the thread looks whether its network is still joined.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Interval at which the controller of an invite is looked for, and the number of such looks. The interval
/// grows after them, because all nodes of the local network answer each look.
const SEEK_INTERVAL: Duration = Duration::from_secs(1);
const EARLY_SEEKS: u32 = 20;

/// Longest interval at which the controller of an invite is looked for.
const MAX_SEEK_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum interval of writes because of other used members alone, once there are as many as are kept.
const FULL_LIST_INTERVAL: Duration = Duration::from_secs(600);

/// Number of wrong keys that are remembered, so that a stranger cannot make this node stretch one again.
const MAX_REFUTED: usize = 64;

/// Shortest time between two keys that are stretched.
const STRETCH_INTERVAL: Duration = Duration::from_secs(1);

/// Follows a managed network that was joined, until it is left or the node ends.
pub(in super::super) fn start(
    node: &Arc<Inner>,
    network: &JoinedNetwork,
    events: Arc<Subscription>,
    record: Option<MembershipRecord>,
    guide: Option<Ipv6Addr>,
) {
    // Other networks have no membership to follow.
    let Some(starts) = node.driver.datapath.membership(network.index, Membership::starts) else { return };
    let network = network.clone();
    let is_wanted = node.state.as_ref().is_some_and(|state| state.has_membership(network.id));
    let kept = Kept::new(network.clone(), record, starts, is_wanted);
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
        serial: None,
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
    /// Serial of the certificate at the last look.
    serial: Option<Serial>,
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
            Event::Answered(peer, answer) => self.on_answer(peer.id(), answer),
            Event::RevocationsChanged(_) | Event::RulesChanged(_) => {
                sync::lock(&self.shared.kept).note_revocations()
            }
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

    fn on_answer(&mut self, from: &NodeId, answer: &Answer) {
        match answer {
            Answer::Certified { .. } => {
                if let Some(node) = self.node.upgrade() {
                    let datapath = &node.driver.datapath;
                    let is_spare = datapath.membership(self.network.index, |known| known.is_spare(from));
                    self.shared.set_granted(&node, is_spare != Some(true));
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

    /// Keeps this node's certificate, and the members that it uses. They are written when one is new or has
    /// another name; the order in which they were used goes with other writes.
    fn note_used(&mut self) {
        // Each look takes the control lock and sees all peers, and events can be many.
        if self.used_at.elapsed() < CHECK_INTERVAL {
            return;
        }
        self.used_at = Instant::now();
        let Some(node) = self.node.upgrade() else { return };
        let datapath = &node.driver.datapath;
        // A spare renews its certificate itself, of which no answer tells.
        let own = |known: &Membership| Some(known.credentials()?.certificate().serial());
        let serial = datapath.membership(self.network.index, own).flatten();
        if std::mem::replace(&mut self.serial, serial) != serial {
            sync::lock(&self.shared.kept).is_stale = true;
        }
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
