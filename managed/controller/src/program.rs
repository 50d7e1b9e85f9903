//! The approval program: requests about which it is asked, and its decisions.
//!
//! A request opens a question. The caller takes questions with [`Controller::take_inquiries`], runs the
//! program and reports its decision, or its failure, with [`Controller::decide`]. Questions and decisions are
//! in memory only: after a restart the program is asked again when the machines ask again.
//!
//! Members come first, then machines with an invite, then strangers. Strangers never occupy all places, and
//! their requests are limited before (see [`crate::pending`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use peersock_overlay::membership::{Code, MemberName, Tag, UnixTime};
use peersock_overlay::{NodeId, PublicIdentity};
use rand::CryptoRng;

use crate::admin::{Change, ChangeError, check_texts};
use crate::admission::Admission;
use crate::controller::Controller;
use crate::member::{self, Member};
use crate::memory::Memory;
use crate::pending;
use crate::store::StoreError;

/// Number of programs that run at the same time.
pub const MAX_RUNNING: usize = 4;

/// Number of programs that run at the same time for machines without an invite.
const MAX_FOR_STRANGERS: usize = 2;

/// Number of members whose renewals wait for the program. Beyond it, members ask again later.
const MAX_WAITING_MEMBERS: usize = 256;

/// Time after which a machine that waits for the program shows its code, so that a person can decide.
const CODE_AFTER: Duration = Duration::from_secs(10);

/// Time after a failure at which the program is asked again about the same request.
const FAILURE_PAUSE: Duration = Duration::from_secs(60);

/// Time for which a request that the program leaves to a person is not put to it again.
const ASK_LIFETIME: Duration = Duration::from_secs(3600);

/// Time for which a permission counts.
const ALLOW_LIFETIME: Duration = Duration::from_secs(600);

/// Time for which a refusal counts.
const DENY_LIFETIME: Duration = Duration::from_secs(60);

/// Name of the program in the log and in members' rows.
const WHO: &str = "approval program";

/// Question to the approval program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// Public keys of the machine.
    pub identity: PublicIdentity,
    /// True if the machine is a member that wants another certificate.
    pub is_renewal: bool,
    /// Name of the member, name that the invite fixes, or name that the machine wishes.
    pub name: Option<MemberName>,
    /// Tags of the member, or of the invite.
    pub tags: Vec<Tag>,
    /// True if the machine is forgotten soon after it was last heard.
    pub is_ephemeral: bool,
    /// Description of the machine, from its request: at most 64 bytes without control characters.
    pub description: Box<str>,
    /// Address from which the machine was last heard, or has first asked.
    pub source: Option<IpAddr>,
    /// Code by which a person can approve the machine.
    pub code: Option<Code>,
    /// Invite that the machine shows. It is known, has not ended, and has a use left.
    pub invite: Option<ShownInvite>,
    /// Number of the question, because a machine can ask anew while the program runs.
    number: u64,
}

/// Invite that a machine shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownInvite {
    /// First eight digits of the token's hash, which name the invite.
    pub label: String,
    /// Person who has made it.
    pub made_by: String,
}

/// Decision of the approval program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The machine may join, or the member may have another certificate.
    Allow(Additions),
    /// As without a program: an invite admits, a person decides about others, and members stay members.
    Ask,
    /// The machine may not join, whatever invite it shows, or the member gets no certificate. For a minute
    /// the controller says so itself.
    Deny,
}

/// Properties that the program gives with a permission.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Additions {
    /// Wished name in place of the machine's own wish. It counts at a join, and not if the invite fixes one.
    pub name: Option<MemberName>,
    /// Tags besides those of the invite or the member.
    pub tags: Vec<Tag>,
    /// Tags that the machine does not get, or the member loses, also those that were just added.
    pub removed_tags: Vec<Tag>,
}

impl Additions {
    pub(crate) fn apply(&self, tags: &[Tag]) -> Vec<Tag> {
        member::changed(tags, &self.tags, &self.removed_tags)
    }
}

/// Invite of a request, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InviteFacts {
    pub(crate) hash: [u8; 32],
    pub(crate) shown: ShownInvite,
    pub(crate) name: Option<MemberName>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) is_ephemeral: bool,
}

#[derive(Debug)]
enum State {
    Due,
    Running,
    /// The program has failed.
    Failed {
        again: UnixTime,
    },
    /// A person decides.
    Left {
        again: UnixTime,
    },
    Allowed {
        until: UnixTime,
        additions: Additions,
    },
    Denied {
        until: UnixTime,
    },
}

#[derive(Debug)]
struct Question {
    number: u64,
    is_renewal: bool,
    invite: Option<InviteFacts>,
    since: UnixTime,
    /// True if the program has failed about it before, so that people see its code.
    has_failed: bool,
    state: State,
}

impl Question {
    fn is_stranger(&self) -> bool {
        !self.is_renewal && self.invite.is_none()
    }

    fn is_about(&self, is_renewal: bool, invite: Option<&[u8; 32]>) -> bool {
        self.is_renewal == is_renewal && self.invite.as_ref().map(|facts| &facts.hash) == invite
    }
}

/// State of a request, for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum View {
    /// The program has not answered yet.
    Open {
        /// True if people see the code meanwhile.
        shows_code: bool,
    },
    /// A person can decide, because the program leaves it to one, or fails.
    Left,
    Allowed(Additions),
    Denied,
}

/// Questions to the program and its decisions.
#[derive(Debug, Default)]
pub(crate) struct Program {
    is_set: bool,
    /// True after a failure. Then one program runs at a time, until one succeeds.
    is_failing: bool,
    last_number: u64,
    /// Numbers of the questions for which the program runs, and if they are strangers'. Their machines may
    /// have asked anew.
    running: BTreeMap<u64, bool>,
    questions: BTreeMap<NodeId, Question>,
}

impl Program {
    pub(crate) fn is_set(&self) -> bool {
        self.is_set
    }

    /// Returns the state of the request; `None` if it opens a question.
    pub(crate) fn view(
        &self,
        now: UnixTime,
        node: &NodeId,
        is_renewal: bool,
        invite: Option<&[u8; 32]>,
    ) -> Option<View> {
        let question = self.questions.get(node).filter(|question| question.is_about(is_renewal, invite))?;
        if !self.is_set {
            return None;
        }
        let shows_code = question.has_failed || now.since(question.since) >= CODE_AFTER;
        match &question.state {
            State::Due | State::Running => Some(View::Open { shows_code }),
            State::Failed { again } | State::Left { again } => (now < *again).then_some(View::Left),
            State::Allowed { until, additions } => (now < *until).then(|| View::Allowed(additions.clone())),
            State::Denied { until } => (now < *until).then_some(View::Denied),
        }
    }

    /// Returns the state of the request, and opens a question if the program has to be asked.
    pub(crate) fn consult(
        &mut self,
        now: UnixTime,
        node: &NodeId,
        is_renewal: bool,
        invite: Option<InviteFacts>,
    ) -> View {
        let hash = invite.as_ref().map(|facts| facts.hash);
        if let Some(view) = self.view(now, node, is_renewal, hash.as_ref()) {
            return view;
        }
        let is_waiting = |question: &&Question| question.is_renewal && matches!(question.state, State::Due);
        if is_renewal && self.questions.values().filter(is_waiting).count() >= MAX_WAITING_MEMBERS {
            return View::Left;
        }
        let before = self.questions.get(node).filter(|before| before.is_about(is_renewal, hash.as_ref()));
        let has_failed = before.is_some_and(|before| matches!(before.state, State::Failed { .. }));
        self.last_number += 1;
        let number = self.last_number;
        let state = State::Due;
        self.questions.insert(*node, Question { number, is_renewal, invite, since: now, has_failed, state });
        View::Open { shows_code: has_failed }
    }

    /// Returns true if the program has allowed the member another certificate.
    pub(crate) fn has_allowed(&self, now: UnixTime, node: &NodeId) -> bool {
        matches!(self.view(now, node, true, None), Some(View::Allowed(_)))
    }

    /// Notes a decision about a member that was made otherwise: a person has admitted it.
    pub(crate) fn note_allowed(&mut self, now: UnixTime, node: &NodeId) {
        self.last_number += 1;
        let state = State::Allowed { until: now.plus(ALLOW_LIFETIME), additions: Additions::default() };
        let number = self.last_number;
        self.questions.insert(
            *node,
            Question { number, is_renewal: true, invite: None, since: now, has_failed: false, state },
        );
    }

    /// Forgets decisions that have ended, and questions whose machine asks no more.
    fn prune(&mut self, now: UnixTime, is_asking: impl Fn(&NodeId, bool) -> bool) {
        self.questions.retain(|node, question| match &question.state {
            State::Allowed { until, .. } | State::Denied { until } => now < *until,
            _ => is_asking(node, question.is_renewal),
        });
    }

    /// Chooses the questions that come next, and notes that the program is asked.
    fn take(&mut self) -> Vec<NodeId> {
        let strangers = self.running.values().filter(|is_stranger| **is_stranger).count();
        let limit = if self.is_failing { 1 } else { MAX_RUNNING };
        let mut room = limit.saturating_sub(self.running.len());
        let mut room_for_strangers = MAX_FOR_STRANGERS.saturating_sub(strangers);
        let mut due: Vec<_> = self
            .questions
            .iter()
            .filter(|(_, one)| matches!(one.state, State::Due))
            .map(|(node, one)| (!one.is_renewal, one.is_stranger(), one.number, *node))
            .collect();
        due.sort_unstable();
        let mut taken = Vec::new();
        for (_, is_stranger, number, node) in due {
            if room == 0 || (is_stranger && room_for_strangers == 0) {
                break;
            }
            room -= 1;
            room_for_strangers = room_for_strangers.saturating_sub(usize::from(is_stranger));
            self.running.insert(number, is_stranger);
            if let Some(question) = self.questions.get_mut(&node) {
                question.state = State::Running;
            }
            taken.push(node);
        }
        taken
    }

    fn close(&mut self, node: &NodeId, number: u64, state: Option<State>) {
        self.running.remove(&number);
        let Some(question) = self.questions.get_mut(node).filter(|one| one.number == number) else { return };
        match state {
            Some(state) => {
                question.has_failed |= matches!(state, State::Failed { .. });
                question.state = state;
            }
            None => drop(self.questions.remove(node)),
        }
    }
}

impl Memory {
    /// Returns the question of a machine, with what the controller knows of it.
    fn inquiry(&self, node: &NodeId) -> Option<Inquiry> {
        let question = self.program.questions.get(node)?;
        let number = question.number;
        if question.is_renewal {
            let member = self.members.get(node).filter(|member| member.is_member())?;
            return Some(Inquiry {
                identity: member.identity,
                is_renewal: true,
                name: Some(member.grant.name.clone()),
                tags: member.grant.tags.clone(),
                is_ephemeral: member.grant.is_ephemeral,
                description: member.description.clone(),
                source: member.source,
                code: None,
                invite: None,
                number,
            });
        }
        let (waiting, invite) = (self.pending.get(node)?, question.invite.as_ref());
        Some(Inquiry {
            identity: waiting.identity,
            is_renewal: false,
            name: invite.and_then(|invite| invite.name.clone()).or_else(|| waiting.name.clone()),
            tags: invite.map(|invite| invite.tags.clone()).unwrap_or_default(),
            is_ephemeral: invite.is_some_and(|invite| invite.is_ephemeral),
            description: waiting.description.clone(),
            source: Some(waiting.source),
            code: Some(waiting.code),
            invite: invite.map(|invite| invite.shown.clone()),
            number,
        })
    }
}

impl Controller {
    /// Sets if an approval program decides about machines that want to join, and about members that want
    /// another certificate. Default: false.
    pub fn set_approval_program(&mut self, is_set: bool) {
        self.memory().program.is_set = is_set;
    }

    /// Returns true if a machine that waits is not shown to people, because the program is expected to
    /// answer.
    pub fn awaits_program(&self, now: UnixTime, node: &NodeId) -> bool {
        let memory = self.memory();
        let question = memory.program.questions.get(node);
        question.is_some_and(|one| {
            let is_open = matches!(one.state, State::Due | State::Running);
            let is_soon = !one.has_failed && now.since(one.since) < CODE_AFTER;
            // With an invite, the machine is admitted at its next question.
            one.invite.is_some() && matches!(one.state, State::Allowed { .. }) || is_open && is_soon
        })
    }

    /// Returns the questions for which the program has to be run now. Each has to be reported to
    /// [`Self::decide`]; at most [`MAX_RUNNING`] are open.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if another process has committed something that cannot be read.
    pub fn take_inquiries(&mut self, now: UnixTime) -> Result<Vec<Inquiry>, StoreError> {
        let now = self.time(now);
        self.notice()?;
        let mut memory = self.memory();
        if !memory.program.is_set {
            return Ok(Vec::new());
        }
        let waiting: BTreeSet<NodeId> = memory.pending.keys().copied().collect();
        let questions = &memory.program.questions;
        let members: BTreeSet<NodeId> = questions
            .keys()
            .filter(|node| memory.members.get(*node).is_some_and(Member::is_member))
            .copied()
            .collect();
        memory.program.prune(now, |node, is_renewal| match is_renewal {
            true => members.contains(node),
            false => waiting.contains(node) && !members.contains(node),
        });
        let taken = memory.program.take();
        let mut inquiries = Vec::new();
        for node in taken {
            match memory.inquiry(&node) {
                Some(inquiry) => inquiries.push(inquiry),
                None => {
                    let gone = memory.program.questions.remove(&node);
                    gone.map(|question| memory.program.running.remove(&question.number));
                }
            }
        }
        Ok(inquiries)
    }

    /// Takes over the decision of the program. `None` is its failure: the machine waits for a person, and the
    /// member gets no certificate now. A decision about a machine that waits no more changes nothing.
    ///
    /// # Errors
    /// Returns a [`ChangeError`] if the decision cannot be followed, which counts as a failure.
    pub fn decide(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        inquiry: &Inquiry,
        decision: Option<Decision>,
    ) -> Result<(), ChangeError> {
        let now = self.time(now);
        let node = inquiry.identity.node_id();
        let has_failed = decision.is_none();
        let done = self.notice().map_err(ChangeError::from).and_then(|()| match decision {
            Some(decision) => self.follow(now, rng, inquiry, decision),
            None => Ok(Some(State::Failed { again: now.plus(FAILURE_PAUSE) })),
        });
        let (state, result) = match done {
            Ok(state) => (state, Ok(())),
            Err(error) => (Some(State::Failed { again: now.plus(FAILURE_PAUSE) }), Err(error)),
        };
        let mut memory = self.memory();
        memory.program.is_failing = has_failed;
        memory.program.close(&node, inquiry.number, state);
        result
    }

    /// Does what a decision says. Returns the new state of the question; `None` if there is none any more.
    fn follow(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        inquiry: &Inquiry,
        decision: Decision,
    ) -> Result<Option<State>, ChangeError> {
        let node = inquiry.identity.node_id();
        let (waiting, member, invite) = {
            let memory = self.memory();
            let question = memory.program.questions.get(&node).filter(|one| one.number == inquiry.number);
            let Some(question) = question else { return Ok(None) };
            let member = memory.members.get(&node).filter(|member| member.is_member()).cloned();
            (memory.pending.get(&node).cloned(), member, question.invite.clone())
        };
        let allowed = |additions| Some(State::Allowed { until: now.plus(ALLOW_LIFETIME), additions });
        match (inquiry.is_renewal, waiting, member) {
            (true, _, Some(member)) => match decision {
                Decision::Deny => Ok(Some(State::Denied { until: now.plus(DENY_LIFETIME) })),
                Decision::Ask => Ok(allowed(Additions::default())),
                Decision::Allow(additions) => {
                    if additions.apply(&member.grant.tags) != member.grant.tags {
                        // A tag that the program both adds and removes is removed.
                        let change = Change {
                            added_tags: additions.apply(&[]),
                            removed_tags: additions.removed_tags,
                            ..Change::default()
                        };
                        self.change_at(now, WHO, &node.to_string(), &change)?;
                    }
                    Ok(allowed(Additions::default()))
                }
            },
            (false, Some(waiting), None) => match (decision, invite) {
                (Decision::Deny, _) => {
                    self.write(|write, _| pending::remove(write, &node))?;
                    Ok(Some(State::Denied { until: now.plus(DENY_LIFETIME) }))
                }
                (Decision::Ask, None) => Ok(Some(State::Left { again: now.plus(ASK_LIFETIME) })),
                // A member has told of its removal while the program ran.
                (Decision::Allow(_), None) if self.memory().heard.contains_key(&node) => {
                    Ok(Some(State::Left { again: now.plus(ASK_LIFETIME) }))
                }
                (Decision::Ask, Some(_)) => Ok(allowed(Additions::default())),
                (Decision::Allow(additions), Some(invite)) => {
                    // The invite is used when the machine shows it again.
                    // The claims were checked when the invite was made.
                    check_texts(&additions.apply(&invite.tags), &[])?;
                    Ok(allowed(additions))
                }
                (Decision::Allow(additions), None) => {
                    let tags = additions.apply(&[]);
                    check_texts(&tags, &[])?;
                    let admission = Admission {
                        wish: additions.name.or(waiting.name),
                        tags,
                        description: &waiting.description,
                        source: Some(waiting.source),
                        admitted_by: WHO,
                        ..Admission::of(&waiting.identity)
                    };
                    // If a person has decided meanwhile, that counts.
                    self.admit_waiting(now, rng, &admission)?;
                    Ok(None)
                }
            },
            // A person has decided meanwhile, or the machine has given up.
            _ => Ok(None),
        }
    }
}
