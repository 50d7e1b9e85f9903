//! Questions to controllers: the request for credentials, its renewals, and look-ups of members.
//!
//! A question is repeated until a controller has answered, to the known controllers in turn. A member renews
//! its credentials long before they end, so a controller may be away for most of their lifetime. The times
//! are those of [`pace`].

mod members;
mod questions;
mod spare;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::Endpoint;
use super::networks::JoinedNetwork;
use super::peers::PeerState;
use crate::id::{NodeId, PublicIdentity};
use crate::link::{Event, Link, PeerKey, Reason, Timer};
use crate::membership::{Answer, Credentials, Denial, MemberName, NetworkKeys, Question, Token, pace};
use crate::network::{Membership, NetworkIndex, UsedMember};
use crate::session::Peer;
use crate::wire::MembershipMessage;

/// Time after which a node without credentials that count also looks for controllers that it does not know. A
/// member goes on with those that it has, so it does so after [`pace::FAST`].
const LOST: Duration = Duration::from_secs(2);

/// Time in which members ask for credentials by another key of the network. A controller answers 2,000 a
/// second.
const NEW_KEY_WITHIN: Duration = Duration::from_secs(30);

/// Time for which a look-up of a member is repeated.
const FIND_FOR: Duration = Duration::from_secs(5);

/// Time for which a look-up that found no member is not repeated.
const ABSENT_FOR: Duration = Duration::from_secs(2);

/// Time for which a machine that no controller knows is not looked for again because of its programs' names.
const NO_MACHINE_FOR: Duration = Duration::from_secs(60);

/// Time in which a node that has joined meets a controller if one can be reached.
const SETTLING: Duration = Duration::from_secs(5);

/// Time for which a spare that has just renewed its certificate asks no controller that it meets.
const ALONE_FOR: Duration = Duration::from_secs(600);

/// Maximum number of look-ups at a time.
const MAX_FINDS: usize = 64;

/// Number under which the request for credentials is kept among the questions.
const CERTIFY: u32 = 0;

/// Questions of one network that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Asking {
    open: BTreeMap<u32, Open>,
    /// Look-ups of the last minute for which there is no member, with the times of the answers.
    absent: VecDeque<(Vec<u8>, Instant)>,
    /// Controller that answered last, by its place in the list.
    preferred: usize,
    /// Time at which this node has last renewed its certificate by itself, as a spare, if no controller has
    /// answered since.
    alone_since: Option<Instant>,
    /// Issuer of credentials of this node that a peer calls revoked, until a controller has answered.
    doubted: Option<NodeId>,
    /// Last node of the network that was met because it may be a member.
    met: Option<PeerKey>,
    /// Number of nodes that are met at once if they are found before the next question.
    left_to_meet: usize,
    /// Number of nodes that follow them, one for each that turns out to be another member.
    left_to_follow: usize,
    /// Time of the join, or when the network's key became known.
    begun: Option<Instant>,
}

/// Question that is not answered yet.
#[derive(Debug)]
struct Open {
    /// Bytes of a look-up; the request for credentials is made anew each time.
    question: Option<Vec<u8>>,
    /// Random number that the answer has to repeat.
    id: u32,
    /// Peer that was asked last.
    asked: Option<PeerKey>,
    /// Members that were asked besides, of a look-up.
    members: Vec<PeerKey>,
    since: Instant,
    next: Instant,
    tries: u32,
}

impl Open {
    fn new(question: Option<Vec<u8>>, id: u32, next: Instant) -> Self {
        Self { question, id, asked: None, members: Vec::new(), since: next, next, tries: 0 }
    }

    /// Returns true if it is due, and no peer could be asked.
    fn waits(&self, now: Instant) -> bool {
        self.asked.is_none() && self.since <= now
    }
}

impl Asking {
    /// Returns true if a controller has said in this time that there is no such member.
    fn is_absent(&self, now: Instant, question: &[u8], within: Duration) -> bool {
        let is_meant = |(absent, at): &(Vec<u8>, Instant)| {
            absent == question && now.saturating_duration_since(*at) < within
        };
        self.absent.iter().any(is_meant)
    }
}

impl Endpoint {
    /// Begins to ask for credentials: at once without any, else when they are due for renewal.
    pub(super) fn begin_asking(&mut self, now: Instant, network: NetworkIndex) {
        if let Some(joined) = self.networks.get_mut(&network) {
            joined.asking.begun = Some(now);
        }
        self.plan_asking(now, network);
        self.tell_of_spare(now, network);
    }

    /// Plans the request for credentials of a node that gets them from a controller. The others ask no
    /// controller.
    fn plan_asking(&mut self, now: Instant, network: NetworkIndex) {
        let Some(time) = self.network_time(now, network) else { return };
        let Some(membership) = self.membership(network).filter(|known| known.is_certified()) else {
            // At once, so that a program's machine can tell of it.
            self.keep_controller(now, network);
            return self.arm_heads(now, network);
        };
        let begun = membership.own().map(|own| own.admission.credentials().certificate().serial().time());
        let ends = membership.own().map(|own| own.admission.end());
        let at = match begun.zip(ends) {
            Some((begun, end)) => now + pace::first_renewal(time.since(begun), end.since(begun), self.draw()),
            None => now,
        };
        self.ask_for_credentials_at(now, network, at);
        self.arm_heads(now, network);
    }

    /// Makes this node a controller of a managed network that it has joined, or an ordinary member again.
    /// The sessions with its peers stay.
    ///
    /// A controller gets its own credentials by [`set_credentials`](Self::set_credentials) and does not ask
    /// for them. [`Event::Asked`] reports the questions of others only as long as this node is one. An
    /// ordinary member keeps the controller's last credentials, and renews them as any other.
    pub fn set_controller(&mut self, now: Instant, network: NetworkIndex, is_controller: bool) {
        let Some(membership) = self.membership_mut(network) else { return };
        if !membership.set_controller(is_controller) {
            return;
        }
        if let Some(joined) = self.networks.get_mut(&network) {
            joined.asking.open.remove(&CERTIFY);
        }
        self.plan_asking(now, network);
        self.keep_controller(now, network);
        self.arm_asking(now, network);
    }

    /// Asks for credentials soon if this node has none that count.
    pub(super) fn begin_renewal_if_own(&mut self, now: Instant, network: NetworkIndex) {
        if !self.is_certified_now(now, network) {
            self.ask_soon(now, network);
        }
    }

    /// Asks for other credentials within some seconds if this node's count by a former key of the network:
    /// members learn the last one from credentials alone.
    pub(super) fn renew_by_last_key(&mut self, now: Instant, network: NetworkIndex) {
        let Some(membership) = self.membership(network).filter(|known| known.is_certified()) else { return };
        let signer = membership.own().map(|own| own.admission.signer());
        if signer.is_none() || signer == membership.keys().map(NetworkKeys::last) {
            return;
        }
        let at = now + NEW_KEY_WITHIN.mul_f64(self.draw());
        let is_asked = self
            .networks
            .get(&network)
            .is_some_and(|joined| joined.asking.open.get(&CERTIFY).is_some_and(|open| open.next <= at));
        if !is_asked {
            self.ask_for_credentials_at(now, network, at);
        }
    }

    /// Returns true if this node has credentials that count.
    fn is_certified_now(&self, now: Instant, network: NetworkIndex) -> bool {
        let unix_time = self.core.clock.unix_time(now);
        self.membership(network).is_some_and(|membership| {
            let own = membership.own();
            own.is_some_and(|own| membership.verdict(&own.admission, unix_time).is_ok())
        })
    }

    /// Asks for credentials soon, unless that is about to happen.
    pub(super) fn ask_soon(&mut self, now: Instant, network: NetworkIndex) {
        if !self.membership(network).is_some_and(Membership::is_certified) {
            return;
        }
        // A question that waits goes on at its own pace. Each peer of a removed node says so anew, and the
        // question would begin again and again with its fast repetitions. A controller that comes back gets
        // it at once.
        let is_asked = self.networks.get(&network).is_some_and(|joined| {
            let open = joined.asking.open.get(&CERTIFY);
            open.is_some_and(|open| open.since <= now || open.next <= now + pace::FAST_PAUSE)
        });
        if !is_asked {
            let at = now + pace::FIRST_PAUSE.mul_f64(self.draw());
            self.ask_for_credentials_at(now, network, at);
        }
    }

    /// Asks the controllers for credentials now, with another invite or another wished name. Credentials that
    /// this node has count on. Does nothing for controllers and programs, which ask for none.
    pub fn ask_again(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        token: Option<Token>,
        name: Option<MemberName>,
    ) {
        let Some(membership) = self.membership_mut(network).filter(|known| known.is_certified()) else {
            return;
        };
        membership.change_request(token, name);
        self.ask_for_credentials_at(now, network, now);
    }

    /// Asks for other credentials soon, because a peer says that this node's are revoked. That may be so
    /// because their issuer's key is stolen, so other controllers are asked before the issuer.
    pub(super) fn replace_revoked(&mut self, now: Instant, network: NetworkIndex) {
        // Once a controller has said so itself, each peer's word would begin another search for all
        // controllers that are away. The request is repeated anyway, to the next controller first.
        if self.membership(network).is_some_and(Membership::is_removed) {
            return;
        }
        let own = self.membership(network).and_then(Membership::own);
        let issuer = own.map(|own| own.admission.issuer().node_id());
        if let Some(joined) = self.networks.get_mut(&network) {
            joined.asking.doubted = issuer;
        }
        self.ask_soon(now, network);
    }

    fn ask_for_credentials_at(&mut self, now: Instant, network: NetworkIndex, at: Instant) {
        let id = u32::from_be_bytes(self.core.random());
        let Some(joined) = self.networks.get_mut(&network) else { return };
        joined.asking.open.insert(CERTIFY, Open::new(None, id, at));
        self.arm_asking(now, network);
    }

    /// Asks the controllers of a managed network for a member by name or address, and while none answers,
    /// members. [`Event::Answered`] has a controller's answer; without any in 5 s there is none. Returns
    /// false if a controller has just said that there is no such member, too many questions are open, or no
    /// node answers such questions in the network: in a static one, members answer for their programs alone.
    pub fn find_member(&mut self, now: Instant, network: NetworkIndex, question: &Question) -> bool {
        let id = u32::from_be_bytes(self.core.random());
        // As bytes, because equal questions have equal bytes, and only these are compared and sent.
        let bytes = question.to_bytes();
        let Some(joined) = self.networks.get_mut(&network) else { return false };
        let is_for_members =
            matches!(question, Question::FindProgram(..)) && joined.policy.programs().is_some();
        let is_certify = matches!(question, Question::Certify(_));
        if is_certify || joined.policy.membership().is_none() && !is_for_members {
            return false;
        }
        if joined.asking.is_absent(now, &bytes, ABSENT_FOR) {
            return false;
        }
        let open = &mut joined.asking.open;
        if open.values().any(|open| open.question.as_ref() == Some(&bytes)) {
            return true;
        }
        // The number of the question itself is free: questions are told apart by it.
        if open.len() > MAX_FINDS || open.contains_key(&id) || id == CERTIFY {
            return false;
        }
        open.insert(id, Open::new(Some(bytes), id, now));
        self.on_asking_timer(now, network);
        true
    }

    /// Asks for the nodes with a name, as [`find_member`](Self::find_member) does: for a member, or for a
    /// program by `label.machine`.
    ///
    /// A machine that this node has not met is only asked for if a controller can answer at once, the node
    /// has just joined, or it has used the machine, because most names with a dot are of the DNS.
    pub fn find_name(&mut self, now: Instant, network: NetworkIndex, name: &str) -> bool {
        let Some((label, machine)) = name.split_once('.') else {
            return name.parse().is_ok_and(|name| self.find_member(now, network, &Question::FindName(name)));
        };
        let (Ok(label), Ok(machine)) = (label.parse(), machine.parse::<MemberName>()) else { return false };
        let Some(joined) = self.networks.get(&network) else { return false };
        // The machine is known, so the name is no name of the DNS.
        if !joined.policy.nodes_named(machine.as_str()).is_empty() {
            return self.find_member(now, network, &Question::FindProgram(label, machine));
        }
        let question = Question::FindName(machine);
        let is_absent = joined.asking.is_absent(now, &question.to_bytes(), NO_MACHINE_FOR);
        let is_new = joined.asking.begun.is_some_and(|at| now.saturating_duration_since(at) < SETTLING);
        let is_used = || self.membership(network).is_some_and(|known| !known.leads(&question).is_empty());
        let may_be = !is_absent && (is_new || self.has_controller(network) || is_used());
        may_be && self.find_member(now, network, &question)
    }

    /// Returns true if a controller has just said that no node has this name, or no machine for a program of
    /// it. Without that, a name that is not known may be somebody's.
    pub fn is_name_absent(&self, now: Instant, network: NetworkIndex, name: &str) -> bool {
        let Some(joined) = self.networks.get(&network) else { return false };
        let is_absent =
            |question: Question, within| joined.asking.is_absent(now, &question.to_bytes(), within);
        let Some((label, machine)) = name.split_once('.') else {
            // A text that cannot be a member's name belongs to no member.
            return name.parse().map_or(true, |name| is_absent(Question::FindName(name), ABSENT_FOR));
        };
        let (Ok(label), Ok(machine)) = (label.parse(), machine.parse::<MemberName>()) else { return true };
        // It may have joined since.
        let is_met = !joined.policy.nodes_named(machine.as_str()).is_empty();
        !is_met && is_absent(Question::FindName(machine.clone()), NO_MACHINE_FOR)
            || is_absent(Question::FindProgram(label, machine), ABSENT_FOR)
    }

    /// Returns true if this node has a session with a controller of a managed network that decides.
    pub fn has_controller(&self, network: NetworkIndex) -> bool {
        let Some(joined) = self.networks.get(&network) else { return false };
        let deciding = joined.policy.membership().into_iter().flat_map(Membership::deciding);
        let known = deciding.filter_map(|one| joined.by_node.get(&one.node_id()));
        known.copied().any(|key| self.is_connected(key))
    }

    fn arm_asking(&mut self, now: Instant, network: NetworkIndex) {
        let next = self
            .networks
            .get(&network)
            .and_then(|joined| joined.asking.open.values().map(|open| open.next).min());
        match next {
            Some(at) => self.core.timers.set(Timer::Asking(network), at.max(now)),
            None => self.core.timers.clear(Timer::Asking(network)),
        }
    }

    pub(super) fn on_asking_timer(&mut self, now: Instant, network: NetworkIndex) {
        let Some(joined) = self.networks.get_mut(&network) else { return };
        joined.asking.open.retain(|_, open| {
            open.question.is_none() || now.saturating_duration_since(open.since) < FIND_FOR
        });
        let due: Vec<u32> =
            joined.asking.open.iter().filter(|(_, open)| open.next <= now).map(|(id, _)| *id).collect();
        for number in due {
            self.ask(now, network, number);
        }
        self.arm_asking(now, network);
    }

    /// Sends one question to the next controller that can be reached, or looks for ways to all.
    fn ask(&mut self, now: Instant, network: NetworkIndex, number: u32) {
        let asked = self.asked(network, number);
        let Some(joined) = self.networks.get(&network) else { return };
        let Some(open) = joined.asking.open.get(&number) else { return };
        let (tries, since, id) = (open.tries, open.since, open.id);
        let is_unanswered = now.saturating_duration_since(since) >= pace::FAST;
        if number == CERTIFY && is_unanswered && self.renew_own(now, network) {
            return;
        }
        let Some(joined) = self.networks.get(&network) else { return };
        let doubted = joined.asking.doubted.filter(|_| number == CERTIFY);
        // Any of them may be away or silent, so each has its turn. The first one has two, so that one lost
        // packet does not lead elsewhere. Who is away is looked for, and the next one is asked.
        let at = (tries as usize).saturating_sub(1);
        let in_turn = (0..asked.len()).map(|place| asked[(at + place) % asked.len()]);
        let waited = now.saturating_duration_since(since);
        // Others have their chance to be found, and then it is asked like any other.
        let is_doubted = |one: &PublicIdentity| waited < SETTLING && doubted == Some(one.node_id());
        let is_choice = !asked.iter().all(is_doubted);
        let in_turn = in_turn.filter(|one| !is_choice || !is_doubted(one));
        let keys: Vec<_> = in_turn.filter_map(|identity| self.peer_to_ask(now, network, identity)).collect();
        let connected = keys.iter().copied().find(|key| self.is_connected(*key));
        // No application waits for a renewal, so a controller that is away for long costs little.
        let is_patient = number == CERTIFY && waited >= pace::FAST;
        let reason = if is_patient { Reason::Hint } else { Reason::Traffic };
        // Those before one that can be asked are tried for a moment, because that one may answer the same for
        // hours.
        let of_others = if connected.is_some() { Reason::Hint } else { reason };
        for &key in keys.iter().take_while(|key| Some(**key) != connected) {
            self.seek_peer(now, key, of_others);
        }
        if let Some(key) = connected {
            let bytes = self.question_bytes(network, number);
            self.tell(now, key, &MembershipMessage::Question { id, bytes: &bytes });
        }
        // One that has just ended may still have a session.
        if number != CERTIFY && (connected.is_none() || tries > 0) {
            self.meet_used(now, network, number);
            self.ask_members(now, network, number);
        }
        // Peers that call its credentials revoked know an issuer that counts, and the only known one may have
        // another key now.
        let has_none = doubted.is_some() || !self.is_certified_now(now, network);
        let is_lost = waited >= LOST && number == CERTIFY && has_none;
        let is_away = connected.is_none() && (keys.is_empty() || number != CERTIFY || is_patient);
        if is_lost || is_away {
            // All controllers may be away, or may no longer be controllers. Members on the local networks say
            // themselves who they are. Any member knows the controller that has signed its certificate, which
            // may be a new one.
            self.solicit(now);
            if self.needs_credentials(network) {
                self.meet_anybody(now, network, reason);
            }
        }
        let is_first = number != CERTIFY && tries == 0;
        let pause = match connected {
            // A program waits, and members may know the answer if this controller has just ended.
            Some(_) if is_first => pace::FIRST_PAUSE / 2,
            _ => pace::pause(waited, tries > 0 && connected.is_some(), self.draw()),
        };
        if let Some(open) = self.open_question(network, number) {
            open.asked = connected;
            open.tries += u32::from(connected.is_some() || keys.is_empty());
            open.next = now + pause;
        }
    }

    /// Begins sessions with used members that had the name or address of a question. What they show then is
    /// the answer.
    fn meet_used(&mut self, now: Instant, network: NetworkIndex, number: u32) {
        let Some(joined) = self.networks.get(&network) else { return };
        let open = joined.asking.open.get(&number).and_then(|open| open.question.as_deref());
        let (Some(Ok(question)), Some(membership)) = (open.map(Question::parse), joined.policy.membership())
        else {
            return;
        };
        for identity in membership.leads(&question) {
            let Some(key) = self.peer_to_ask(now, network, identity) else { continue };
            if !self.is_connected(key) {
                self.seek_peer(now, key, Reason::Traffic);
            }
        }
    }

    /// Notes the members that this node has sent data to since the last call. Returns true if
    /// [`Membership::used`] has others than then, or one has another name or address.
    ///
    /// Call this every few seconds, because each call looks at all peers, and before the network is left.
    pub fn note_used(&mut self, network: NetworkIndex) -> bool {
        let Some(joined) = self.networks.get(&network).filter(|joined| joined.policy.membership().is_some())
        else {
            return false;
        };
        let since = joined.used_until;
        let sent = |(_, peer): (PeerKey, &PeerState)| {
            let handle = &peer.link.handle;
            let sent = handle.activity().last_data_sent().filter(|_| handle.is_admitted())?;
            // Times are rounded, so those of the last call are noted again.
            since.is_none_or(|since| sent >= since).then(|| (sent, Arc::clone(handle)))
        };
        let mut used: Vec<_> = self.peers.of_network(network).filter_map(sent).collect();
        used.sort_by_key(|(sent, _)| *sent);
        // The others would make room for these, one after the other.
        used.drain(..used.len().saturating_sub(UsedMember::MAX));
        let Some(joined) = self.networks.get_mut(&network) else { return false };
        joined.used_until = used.last().map(|(sent, _)| *sent).or(since);
        let Some(membership) = joined.policy.membership_mut() else { return false };
        for (_, handle) in used {
            membership.note_used(handle.id(), handle.identity());
        }
        membership.take_used_changed()
    }

    /// Returns the nodes that know the answer to a question, the preferred one first: the controllers, and
    /// before them a program's machine.
    fn asked(&self, network: NetworkIndex, number: u32) -> Vec<PublicIdentity> {
        let Some(joined) = self.networks.get(&network) else { return Vec::new() };
        let controllers = joined.policy.membership().map_or(&[][..], Membership::controllers);
        let look_up = joined.asking.open.get(&number).and_then(|open| open.question.as_deref());
        let machine = match look_up.map(Question::parse) {
            Some(Ok(Question::FindProgram(_, machine))) => {
                joined.policy.nodes_named(machine.as_str()).first().copied()
            }
            _ => None,
        };
        let known = machine.and_then(|node| self.peers.get(*joined.by_node.get(&node)?));
        let machine = known.map(|peer| *peer.link.handle.identity());
        let (first, preferred) = controllers.split_at(joined.asking.preferred.min(controllers.len()));
        // Spares behind those that decide. They know no more of others than any member, and admit no node.
        let is_spare = |one: &PublicIdentity| {
            joined.policy.membership().is_some_and(|known| known.is_spare(&one.node_id()))
        };
        let has_own = joined.policy.membership().is_some_and(|known| known.own().is_some());
        let mut asked = [preferred, first].concat();
        asked.sort_by_key(is_spare);
        asked.retain(|one| !is_spare(one) || number == CERTIFY && has_own);
        asked.splice(0..0, machine);
        asked
    }

    /// Returns true if a peer can be told something now.
    pub(super) fn is_connected(&self, key: PeerKey) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.link.has_confirmed_session())
    }

    /// Returns true if a node can be told something now.
    pub(super) fn is_node_connected(&self, joined: &JoinedNetwork, node: &NodeId) -> bool {
        joined.by_node.get(node).is_some_and(|key| self.is_connected(*key))
    }

    /// Sends look-ups at once that wait for somebody to ask, because a member has just admitted this node.
    pub(super) fn hurry_look_ups(&mut self, now: Instant, network: NetworkIndex) {
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let waits = |open: &&mut Open| open.question.is_some() && open.members.is_empty() && open.waits(now);
        joined.asking.open.values_mut().filter(waits).for_each(|open| open.next = now);
        self.arm_asking(now, network);
    }

    /// Sends the questions at once that wait for a session with this controller.
    pub(super) fn hurry_questions(&mut self, now: Instant, key: PeerKey) {
        let Some(handle) = self.peers.get(key).map(|peer| &peer.link.handle) else { return };
        let (network, node) = (handle.network(), *handle.id());
        let is_controller = self
            .membership(network)
            .is_some_and(|known| known.controllers().iter().any(|controller| controller.node_id() == node));
        if !is_controller {
            return;
        }
        let is_spare = self.is_spare_at(network, &node);
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let waiting = joined.asking.open.values_mut().filter(|open| open.waits(now));
        waiting.for_each(|open| open.next = now);
        let alone_since = joined.asking.alone_since.filter(|_| !is_spare);
        // Not with each session, because the controller's program may have ended, and its node may not.
        match alone_since.is_some_and(|since| now.saturating_duration_since(since) >= ALONE_FOR) {
            true => self.ask_for_credentials_at(now, network, now),
            false => self.arm_asking(now, network),
        }
    }

    fn open_question(&mut self, network: NetworkIndex, number: u32) -> Option<&mut Open> {
        self.networks.get_mut(&network)?.asking.open.get_mut(&number)
    }

    fn question_bytes(&self, network: NetworkIndex, number: u32) -> Vec<u8> {
        let Some(joined) = self.networks.get(&network) else { return Vec::new() };
        let look_up = joined.asking.open.get(&number).and_then(|open| open.question.clone());
        look_up.unwrap_or_else(|| {
            let request = joined.policy.membership().map(Membership::request).cloned().unwrap_or_default();
            Question::Certify(request).to_bytes()
        })
    }

    /// Keeps a session with a controller, by which revocations come at once. A program also keeps one with
    /// its machine's node, which tells others of it.
    pub(super) fn keep_controller(&mut self, now: Instant, network: NetworkIndex) {
        let Some(membership) = self.membership(network).filter(|known| !known.is_controller()) else {
            return;
        };
        let machine: Vec<_> = membership.machine().copied().into_iter().collect();
        let controllers = membership.deciding().copied().collect();
        for identities in [machine, controllers] {
            self.keep_one(now, network, &identities);
        }
    }

    /// Begins sessions with these nodes, unless one of them has a session.
    pub(super) fn keep_one(&mut self, now: Instant, network: NetworkIndex, identities: &[PublicIdentity]) {
        // One is enough: controllers hear of each other's removals, and members pass them on.
        let known = |one: &PublicIdentity| self.networks.get(&network)?.by_node.get(&one.node_id()).copied();
        if identities.iter().filter_map(known).any(|key| self.is_connected(key)) {
            return;
        }
        for &identity in identities {
            let Some(key) = self.peer_to_ask(now, network, identity) else { continue };
            self.seek_peer(now, key, Reason::Hint);
        }
    }

    /// Begins sessions with members to which this node may be unknown, so that they learn that it is a
    /// controller now. Its roots and the local networks are searched for them. Returns those that have no
    /// session yet, of the first [`MAX_VISITS`](Self::MAX_VISITS); none if this node is no controller.
    pub fn visit_members(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        members: &[PublicIdentity],
    ) -> Vec<Arc<Peer>> {
        if !self.membership(network).is_some_and(Membership::is_controller) {
            return Vec::new();
        }
        let mut sought = Vec::new();
        for &identity in members.iter().take(Self::MAX_VISITS) {
            let Some(key) = self.peer_to_ask(now, network, identity) else { continue };
            let Some(peer) = self.peers.get(key).filter(|peer| !peer.link.has_confirmed_session()) else {
                continue;
            };
            sought.push(Arc::clone(&peer.link.handle));
            self.seek_peer(now, key, Reason::Hint);
        }
        if !sought.is_empty() {
            self.solicit(now);
        }
        sought
    }

    /// Maximum number of members that one call of [`visit_members`](Self::visit_members) looks for.
    pub const MAX_VISITS: usize = 32;

    /// Begins a session with a peer, and looks up a way to it.
    fn seek_peer(&mut self, now: Instant, key: PeerKey, reason: Reason) {
        self.link(now, key, |link, cx| link.attempt(cx, reason));
        self.look_up_peer(now, key);
    }

    /// Returns the peer that is this controller or machine, which becomes one if it is none yet. `None` if
    /// that is this node, or its address is another's.
    fn peer_to_ask(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        identity: PublicIdentity,
    ) -> Option<PeerKey> {
        let node = identity.node_id();
        if let Some(&key) = self.networks.get(&network)?.by_node.get(&node) {
            return Some(key);
        }
        if node == self.own_id {
            return None;
        }
        let key = self.add_peer(now, network, identity, None)?;
        self.link(now, key, Link::announce);
        Some(key)
    }

    /// Begins sessions with known nodes of the network, of which some may be members. All have their turn, so
    /// that nodes which do not answer hide no others.
    fn meet_anybody(&mut self, now: Instant, network: NetworkIndex, reason: Reason) {
        if let Some(joined) = self.networks.get_mut(&network) {
            (joined.asking.left_to_meet, joined.asking.left_to_follow) = (MEET_AT_ONCE, MEET_IN_TURN);
        }
        self.meet_some(now, network, reason);
    }

    /// Meets as many known nodes as may be met now.
    fn meet_some(&mut self, now: Instant, network: NetworkIndex, reason: Reason) {
        let idle = self
            .peers
            .of_network(network)
            .filter(|(_, peer)| !peer.link.has_confirmed_session() && !peer.link.is_connecting());
        let mut idle: Vec<_> = idle.map(|(key, _)| key).collect();
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let next = idle.iter().position(|key| joined.asking.met < Some(*key)).unwrap_or(0);
        idle.rotate_left(next);
        idle.truncate(joined.asking.left_to_meet);
        joined.asking.met = idle.last().copied().or(joined.asking.met);
        joined.asking.left_to_meet -= idle.len();
        for key in idle {
            self.link(now, key, |link, cx| link.attempt(cx, reason));
        }
    }

    /// Meets the next node in place of one that has shown its name, while that is not the one that is looked
    /// for.
    pub(super) fn meet_next(&mut self, now: Instant, network: NetworkIndex) {
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let is_missing = |open: &Open| match open.question.as_deref().map(Question::parse) {
            Some(Ok(Question::FindName(name))) => joined.policy.nodes_named(name.as_str()).is_empty(),
            // Who has no controller for long meets few.
            None => false,
            Some(_) => true,
        };
        let is_missing = joined.asking.open.values().any(|open| open.waits(now) && is_missing(open));
        if is_missing && joined.asking.left_to_follow > 0 {
            joined.asking.left_to_follow -= 1;
            joined.asking.left_to_meet = (joined.asking.left_to_meet + 1).min(MEET_AT_ONCE);
            self.meet_some(now, network, Reason::Traffic);
        }
    }

    /// Returns true if a node that was just found is to be met, because a question waits for somebody to ask.
    /// Only a session shows the node's name. Few nodes are met before the question is repeated.
    pub(super) fn is_to_meet(&mut self, now: Instant, network: NetworkIndex) -> bool {
        let Some(joined) = self.networks.get_mut(&network) else { return false };
        let asking = &mut joined.asking;
        let is_to_meet = asking.left_to_meet > 0 && asking.open.values().any(|open| open.waits(now));
        asking.left_to_meet -= usize::from(is_to_meet);
        is_to_meet
    }

    /// Returns a random number from 0 to 1.
    fn draw(&mut self) -> f64 {
        self.core.rng.random_range(0.0..1.0)
    }

    /// Handles a controller's answer.
    pub(super) fn on_answer(&mut self, now: Instant, key: PeerKey, id: u32, bytes: &[u8]) {
        let Some(peer) = self.peers.get(key) else { return };
        let handle = peer.link.handle.clone();
        let network = handle.network();
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let is_asked = |open: &Open| open.asked == Some(key) || open.members.contains(&key);
        let asked = joined.asking.open.iter().find(|(_, open)| open.id == id && is_asked(open));
        let Some((number, is_member)) = asked.map(|(number, open)| (*number, open.asked != Some(key))) else {
            return;
        };
        let Ok(answer) = Answer::parse(bytes) else {
            return self.core.counters.control_unknown.increment();
        };
        if is_member {
            if !self.may_judge(now, key) {
                return;
            }
            return self.on_members_answer(now, network, number, &answer);
        }
        let (node, unix_time) = (*handle.id(), self.core.clock.unix_time(now));
        if joined.policy.programs().is_some() {
            let is_absent = match &answer {
                Answer::Program { identity, certificate } => {
                    !self.on_found_program(now, network, identity, certificate)
                }
                _ => true,
            };
            self.end_question(now, network, number, is_absent);
            return self.arm_asking(now, network);
        }
        let Some(membership) = joined.policy.membership_mut() else { return };
        let is_controller = membership.controllers().iter().any(|controller| controller.node_id() == node);
        if answer == Answer::Absent && !is_controller {
            // A machine's node may just have started, and then a controller may know more.
            if let Some(open) = joined.asking.open.get_mut(&number).filter(|open| open.tries == 1) {
                (open.tries, open.next) = (2, now);
            }
            return self.arm_asking(now, network);
        }
        if let Err(refusal) = membership.hear(&node, &self.own_id, &answer, unix_time) {
            // The question is repeated, to another controller if there is one.
            tracing::info!(peer = %handle.logged(), %refusal, "an answer does not count");
            return self.core.counters.credentials_refused.increment();
        }
        match &answer {
            // Without the invite, the next question is that of a member that renews its credentials.
            Answer::Denied { reason: Denial::KnownKey, .. } => membership.forget_token(),
            Answer::Denied { reason: Denial::Unavailable | Denial::Undecided, .. } => {}
            // Denials of other questions say nothing about the invite, because it was not shown with them.
            Answer::Denied { .. } if number == CERTIFY => membership.note_refused(),
            _ => {}
        }
        let is_spare = membership.is_spare(&node);
        // A spare may follow a wrong clock, and no other answer would correct it.
        let time = answer.time().filter(|_| !is_spare);
        let was_wrong = time.is_some_and(|time| membership.set_clock(unix_time, &node, time));
        let place = membership.controllers().iter().position(|controller| controller.node_id() == node);
        // One that does not renew this node's credentials may lack something that the next one knows. A
        // person may have taken a removal back at another one.
        let refuses = number == CERTIFY
            && match &answer {
                Answer::Denied { reason: Denial::Removed, .. } => true,
                Answer::Pending { .. } | Answer::Denied { .. } => membership.own().is_some(),
                _ => false,
            };
        let place = place.map(|place| place + usize::from(refuses));
        if number == CERTIFY {
            joined.asking.doubted = None;
            joined.asking.alone_since = joined.asking.alone_since.filter(|_| is_spare);
        }
        joined.asking.preferred = place.unwrap_or(joined.asking.preferred);
        if was_wrong {
            self.ask_to_show_again(now, network);
        }
        let next = match &answer {
            Answer::Certified { credentials, renew_after, spare, .. } if number == CERTIFY => {
                let accepted = self.set_credentials(now, network, credentials);
                if let Err(refusal) = accepted {
                    tracing::warn!(%refusal, "a controller's answer is no certificate of this node");
                    return;
                }
                if !is_spare {
                    self.set_spare(now, network, spare.as_deref());
                }
                Some(pace::renewal(Duration::from_secs((*renew_after).into()), self.draw()))
            }
            Answer::Pending { retry_after, .. } if number == CERTIFY => {
                Some(Duration::from_secs(u64::from(*retry_after).clamp(1, 3600)))
            }
            // A controller that has just started decides soon.
            Answer::Denied { reason: Denial::Unavailable, .. } if number == CERTIFY => {
                Some(UNAVAILABLE_PAUSE + UNAVAILABLE_PAUSE.mul_f64(self.draw()))
            }
            Answer::Denied { reason, .. } if number == CERTIFY => {
                if *reason == Denial::Removed {
                    self.set_removed(network, true);
                    // Only a thief's key may say so, and members' credentials name other controllers.
                    self.meet_anybody(now, network, Reason::Hint);
                }
                Some(DENIED_PAUSE + DENIED_PAUSE.mul_f64(self.draw()))
            }
            Answer::Found { identity, credentials } if number != CERTIFY => {
                self.on_found_member(now, network, identity, credentials);
                None
            }
            Answer::Absent if number != CERTIFY => None,
            _ => return,
        };
        let is_absent = answer == Answer::Absent;
        self.core.emit(Event::Answered(handle, Box::new(answer)));
        let fresh = u32::from_be_bytes(self.core.random());
        self.end_question(now, network, number, is_absent);
        if let (Some(joined), Some(pause)) = (self.networks.get_mut(&network), next) {
            joined.asking.open.insert(CERTIFY, Open::new(None, fresh, now + pause));
        }
        self.arm_asking(now, network);
    }

    /// Ends a question that was answered.
    fn end_question(&mut self, now: Instant, network: NetworkIndex, number: u32, is_absent: bool) {
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let answered = joined.asking.open.remove(&number);
        if let (true, Some(question)) = (is_absent, answered.and_then(|open| open.question)) {
            if let (Some(membership), Ok(asked)) =
                (joined.policy.membership_mut(), Question::parse(&question))
            {
                membership.forget_used(&asked);
            }
            // Once only, because the list is short and programs repeat their questions.
            joined.asking.absent.retain(|(absent, _)| *absent != question);
            joined.asking.absent.truncate(MAX_FINDS - 1);
            joined.asking.absent.push_front((question, now));
        }
    }

    /// Makes a member that a controller has named a peer. It has to show its credentials itself.
    fn on_found_member(
        &mut self,
        now: Instant,
        network: NetworkIndex,
        identity: &PublicIdentity,
        credentials: &Credentials,
    ) {
        let (node, unix_time) = (identity.node_id(), self.core.clock.unix_time(now));
        let Some(joined) = self.networks.get_mut(&network) else { return };
        let Some(membership) = joined.policy.membership_mut() else { return };
        if node == self.own_id || membership.note_found(&node, credentials, unix_time).is_err() {
            return;
        }
        self.add_found(now, network, identity);
    }

    /// Makes a member a peer whose credentials were noted.
    fn add_found(&mut self, now: Instant, network: NetworkIndex, identity: &PublicIdentity) {
        let Some(joined) = self.networks.get(&network) else { return };
        let known = joined.by_node.get(&identity.node_id()).copied();
        let Some(key) = known.or_else(|| self.add_peer(now, network, *identity, None)) else { return };
        if let Some(handle) = self.peers.get(key).map(|peer| peer.link.handle.clone()) {
            self.follow_addresses(now, &handle);
        }
        self.link(now, key, Link::announce);
    }
}

/// Pause after a controller could not decide.
const UNAVAILABLE_PAUSE: Duration = Duration::from_secs(1);

/// Pause after a denial, which another decision of a person may change.
const DENIED_PAUSE: Duration = Duration::from_secs(60);

/// Number of nodes that a node without a known controller meets at a time.
const MEET_AT_ONCE: usize = 8;

/// Number of nodes that it meets after them until it repeats a question: each once another one has answered.
const MEET_IN_TURN: usize = 64;
