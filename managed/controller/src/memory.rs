//! The controller's memory: a copy of what renewals and lookups need, so that they touch no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use peersock_overlay::membership::{
    Answer, CLOCK_TOLERANCE, Certificate, CertifyRequest, Code, Credentials, Delegation, Denial, Head,
    MemberName, NetworkKey, NetworkKeys, Question, Revocations, Serial, SignedRules, Succession, Tag, Token,
    UnixTime, pace,
};
use peersock_overlay::{Identity, NetworkId, NodeId, PublicIdentity};
use rusqlite::{Connection, OptionalExtension};

use crate::clock::{Clock, UNWRITTEN};
use crate::heard;
use crate::member::{self, COLUMNS, Member, SecondRun, Standing};
use crate::program::{Program, View};
use crate::runs::{RunVerdict, Runs};
use crate::settings::{OnClone, Settings};
use crate::store::{Store, StoreError};

/// Time by which a certificate lasts longer than the time for which the network promises to go on without a
/// controller: members renew at some age, and when the controller is back they ask after some time.
pub const MARGIN: Duration = Duration::from_secs(3600);
const _: () = assert!(pace::RENEW_BY.as_secs() + pace::LONGEST_PAUSE.as_secs() <= MARGIN.as_secs());

/// Lifetime of an ephemeral member's certificate.
pub const EPHEMERAL_LIFETIME: Duration = Duration::from_secs(600);

/// Interval in which a machine that waits for approval asks.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The same while somebody probably sits before the machine.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// Time for which somebody sits before a machine that waits.
const ATTENDED: Duration = Duration::from_secs(600);

/// Shortest time between lines of the log about second runs of one member.
const SECOND_RUN_INTERVAL: Duration = Duration::from_secs(3600);

/// Age at which a head is signed again without a change.
const HEAD_MAX_AGE: Duration = Duration::from_secs(300);

/// Machine that waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Public keys.
    pub identity: PublicIdentity,
    /// Code that the machine shows as well.
    pub code: Code,
    /// Name that it wishes.
    pub name: Option<MemberName>,
    /// Description of the machine, from its request.
    pub description: Box<str>,
    /// Address from which it asked first.
    pub source: IpAddr,
    /// Time of the first request.
    pub first: UnixTime,
    /// Time of the last request.
    pub last: UnixTime,
}

pub(crate) struct Memory {
    pub(crate) identity: Identity,
    pub(crate) network: NetworkId,
    /// Keys of the network that are known here.
    pub(crate) keys: NetworkKeys,
    /// Number of successions before the key that has signed the delegation, and that may be sealed.
    pub(crate) links: usize,
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) delegation: Delegation,
    pub(crate) has_secret: bool,
    pub(crate) has_issued: bool,
    pub(crate) epoch: u64,
    /// Members with the right to renew certificates.
    pub(crate) spares: BTreeSet<NodeId>,
    /// Zero if pools do not rest.
    pub(crate) pools_rest_until: UnixTime,
    pub(crate) members: BTreeMap<NodeId, Member>,
    pub(crate) names: BTreeMap<MemberName, NodeId>,
    pub(crate) addresses: BTreeMap<IpAddr, NodeId>,
    pub(crate) pending: BTreeMap<NodeId, Waiting>,
    pub(crate) refused: BTreeSet<NodeId>,
    pub(crate) revoked: Revocations,
    /// Times of the removals that only other members and controllers have shown.
    pub(crate) heard: BTreeMap<NodeId, UnixTime>,
    pub(crate) tag_outlive: BTreeMap<Tag, Duration>,
    /// Members whose row lacks the last certificate or the last sign of life.
    pub(crate) dirty: BTreeSet<NodeId>,
    /// Revocations that do not reach a certificate which was signed while another process committed them.
    pub(crate) repairs: BTreeSet<NodeId>,
    /// Second runs that the next flush writes to the log.
    pub(crate) unlogged_runs: BTreeMap<NodeId, SecondRun>,
    /// Second run of each member that was the last one for the log.
    logged_runs: BTreeMap<NodeId, SecondRun>,
    /// Members that the next flush writes as held, because there are two runs of each.
    pub(crate) unwritten_holds: BTreeSet<NodeId>,
    pub(crate) program: Program,
    pub(crate) clock: Clock,
    /// Time until which nothing is issued because the store may be an old copy.
    pub(crate) unsettled_until: UnixTime,
    /// Time at which the store was restored from a backup; 0 if its members are known to be the newest.
    pub(crate) restored: UnixTime,
    /// Last time up to which a former key of this controller has signed certificates; 0 if it had none.
    pub(crate) rekeyed: UnixTime,
    /// Time until which those who were members then get no certificates, because removals may lack.
    pub(crate) renewals_rest_until: UnixTime,
    head: Option<Head>,
    /// Access rules as they were signed last.
    pub(crate) rules: Option<SignedRules>,
    change: i64,
    refused_change: i64,
}

impl Memory {
    /// Loads everything.
    pub(crate) fn load(store: &Store, identity: Identity) -> Result<Self, StoreError> {
        let db = store.db();
        let stored = NetworkRow::read(db)?.ok_or(StoreError::Empty)?;
        let mut memory = Self {
            identity,
            network: stored.id,
            keys: stored.keys.clone(),
            links: stored.links,
            name: stored.name.clone(),
            settings: stored.settings.clone(),
            delegation: stored.delegation.clone(),
            has_secret: stored.has_secret,
            has_issued: stored.has_issued,
            epoch: u64::MAX,
            pools_rest_until: UnixTime::default(),
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            addresses: BTreeMap::new(),
            spares: BTreeSet::new(),
            pending: BTreeMap::new(),
            refused: BTreeSet::new(),
            revoked: Revocations::default(),
            heard: BTreeMap::new(),
            tag_outlive: BTreeMap::new(),
            dirty: BTreeSet::new(),
            repairs: BTreeSet::new(),
            unlogged_runs: BTreeMap::new(),
            logged_runs: BTreeMap::new(),
            unwritten_holds: BTreeSet::new(),
            program: Program::default(),
            clock: Clock::default(),
            unsettled_until: UnixTime::default(),
            restored: UnixTime::default(),
            rekeyed: UnixTime::default(),
            renewals_rest_until: UnixTime::default(),
            head: None,
            rules: None,
            change: -1,
            refused_change: -1,
        };
        let news = News::read(store, memory.known())?;
        memory.apply(news);
        memory.repairs.clear();
        Ok(memory)
    }

    /// Returns the numbers by which [`News::read`] knows what this memory lacks.
    pub(crate) fn known(&self) -> LastKnown {
        LastKnown { change: self.change, refused_change: self.refused_change, epoch: self.epoch }
    }

    /// Takes over what commits have changed.
    pub(crate) fn apply(&mut self, news: News) {
        let NetworkRow {
            keys,
            links,
            name,
            settings,
            delegation,
            has_secret,
            has_issued,
            epoch,
            pools_rest_until,
            restored,
            served,
            rekeyed,
            ..
        } = news.network;
        // A store of an earlier version may have signed a delegation by a clock that was ahead.
        self.clock.note_written(served.max(delegation.serial().time().minus(UNWRITTEN)));
        if self.delegation != delegation {
            self.head = None;
        }
        (self.keys, self.links) = (keys, links);
        (self.name, self.settings, self.delegation) = (name, settings, delegation);
        (self.has_secret, self.has_issued, self.restored) = (has_secret, has_issued, restored);
        (self.pools_rest_until, self.tag_outlive) = (pools_rest_until, news.tag_outlive);
        self.rekeyed = rekeyed;
        if news.is_all {
            let members: BTreeSet<_> = news.members.iter().map(|(node, _)| *node).collect();
            let gone: Vec<_> = self.members.keys().filter(|node| !members.contains(*node)).copied().collect();
            gone.into_iter().for_each(|node| self.apply_member(node, None));
            let pending: BTreeSet<_> = news.pending.iter().map(|(node, _)| *node).collect();
            self.pending.retain(|node, _| pending.contains(node));
        }
        for (node, row) in news.members {
            self.apply_member(node, row);
        }
        for (node, row) in news.pending {
            let before = self.pending.remove(&node);
            if let Some(mut waiting) = row {
                // The store hears of the last request later.
                waiting.last = before.map_or(waiting.last, |before| waiting.last.max(before.last));
                self.pending.insert(node, waiting);
            }
        }
        if let Some(refused) = news.refused {
            self.refused = refused;
        }
        if let Some((revoked, heard)) = news.revoked {
            (self.revoked, self.heard, self.head) = (revoked, heard, None);
        }
        self.epoch = epoch;
        (self.change, self.refused_change) = (news.network.change, news.network.refused_change);
    }

    fn apply_member(&mut self, node: NodeId, row: Option<Member>) {
        let before = self.members.remove(&node);
        self.spares.remove(&node);
        if let Some(before) = &before {
            if self.names.get(&before.grant.name) == Some(&node) {
                self.names.remove(&before.grant.name);
            }
            for address in before.grant.addresses() {
                if self.addresses.get(&address) == Some(&node) {
                    self.addresses.remove(&address);
                }
            }
        }
        let Some(mut member) = row else {
            self.dirty.remove(&node);
            self.unwritten_holds.remove(&node);
            return;
        };
        if let Some(before) = before {
            // What renewals have changed is newer here than in the store.
            if before.floor < member.floor && before.serial >= member.floor {
                self.repairs.insert(node);
            }
            // Of copies, a person has decided that the one counts which asks next.
            if member.joined != before.joined {
                // An admission, also after a hold that was written just now. The clock may have been set.
                self.unwritten_holds.remove(&node);
            }
            let was_copied = before.copied != UnixTime::default() && member.is_member();
            let is_admitted_again = was_copied && !self.unwritten_holds.contains(&node);
            if !is_admitted_again && (before.seen >= member.seen || self.dirty.contains(&node)) {
                (member.seen, member.source) = (before.seen, before.source);
                (member.run, member.starts) = (before.run, before.starts);
            }
            (member.serial, member.ends) = (before.serial.max(member.serial), before.ends.max(member.ends));
            member.second_run = before.second_run;
            if !member.is_member() {
                self.unwritten_holds.remove(&node);
            } else if self.unwritten_holds.contains(&node) {
                (member.standing, member.copied) = (Standing::Held, before.copied);
            } else if is_admitted_again {
                member.runs = Some(Box::new(Runs::after_hold()));
            } else {
                member.runs = before.runs;
            }
        }
        if member.standing != Standing::Removed {
            self.names.insert(member.grant.name.clone(), node);
            self.addresses.extend(member.grant.addresses().map(|address| (address, node)));
        }
        if member.spare.is_some() {
            self.spares.insert(node);
        }
        self.members.insert(node, member);
    }

    /// Returns the successions that credentials show: those before the key that has signed the delegation.
    pub(crate) fn shown(&self) -> &[Succession] {
        &self.keys.successions()[..self.links]
    }

    /// Returns the key that has signed the delegation.
    fn signer(&self) -> &NetworkKey {
        self.shown().last().map_or(self.keys.first(), Succession::key)
    }

    /// Returns when the right to issue certificates ends: with the delegation, or the key that has signed it.
    pub(crate) fn right_end(&self) -> UnixTime {
        let end = self.delegation.end();
        self.keys.end_of(self.signer()).map_or(end, |of_key| of_key.min(end))
    }

    /// Returns true if the store has the last key of the network, as far as is known.
    pub(crate) fn has_last_key(&self) -> bool {
        self.has_secret && self.links == self.keys.successions().len()
    }

    /// Returns the longest time for which a certificate that is issued now can last.
    pub(crate) fn longest_lifetime(&self) -> Duration {
        let of_members = self.members.values().filter_map(|member| member.outlive);
        let all = of_members.chain(self.tag_outlive.values().copied()).chain([self.settings.outlive]);
        all.max().unwrap_or_default() + MARGIN
    }

    /// Returns the time for which certificates of a member last.
    pub(crate) fn lifetime(&self, member: &Member) -> Duration {
        self.lifetime_of(member.grant.is_ephemeral, member.outlive, &member.grant.tags)
    }

    /// Returns the time for which certificates of a member with these properties last.
    pub(crate) fn lifetime_of(
        &self,
        is_ephemeral: bool,
        outlive: Option<Duration>,
        tags: &[Tag],
    ) -> Duration {
        if is_ephemeral {
            return EPHEMERAL_LIFETIME;
        }
        let of_tags = || tags.iter().filter_map(|tag| self.tag_outlive.get(tag)).min().copied();
        outlive.or_else(of_tags).unwrap_or(self.settings.outlive) + MARGIN
    }

    /// Answers a question from memory alone. `None` if the answer needs the store.
    pub(crate) fn answer(
        &mut self,
        now: UnixTime,
        peer: &PublicIdentity,
        source: IpAddr,
        question: &Question,
    ) -> Option<Answer> {
        let node = peer.node_id();
        let found = match question {
            Question::Certify(request) => return self.certify(now, &node, source, request),
            // Members only: others learn nothing about who is in the network.
            _ if !self.members.get(&node).is_some_and(Member::is_member) => None,
            Question::FindName(name) => self.names.get(name).copied(),
            Question::FindAddress(address) => self.addresses.get(address).copied(),
            // Programs are in no store; nodes that have a session with one answer.
            Question::FindProgram(..) => None,
        };
        Some(found.and_then(|node| self.find(now, node)).unwrap_or(Answer::Absent))
    }

    fn certify(
        &mut self,
        now: UnixTime,
        node: &NodeId,
        source: IpAddr,
        request: &CertifyRequest,
    ) -> Option<Answer> {
        let denied = |reason| Some(Answer::Denied { time: now, reason });
        let has_token = request.token.is_some();
        if self.clock.has_leapt() {
            return denied(Denial::Unavailable);
        }
        if let Some(member) = self.members.get(node) {
            return match member.standing {
                _ if now < self.unsettled_until => denied(Denial::Unavailable),
                Standing::Member if self.rests(now, member) => denied(Denial::Unavailable),
                Standing::Member if self.lacks_address(member) => None,
                Standing::Member => Some(self.renew(now, node, source, request)),
                Standing::Held | Standing::Removed if has_token => None,
                Standing::Held if member.copied != UnixTime::default() => denied(Denial::Cloned),
                Standing::Held | Standing::Removed => denied(Denial::Removed),
            };
        }
        if self.refused.contains(node) && !has_token {
            return denied(Denial::Declined);
        }
        if now < self.unsettled_until {
            return denied(Denial::Unavailable);
        }
        // A refusal of the program has ended the request, and a later one opens another.
        let hash = request.token.as_ref().map(Token::hash);
        let view = self.program.view(now, node, false, hash.as_ref());
        if view == Some(View::Denied) {
            return denied(Denial::Refused);
        }
        let waiting = self.pending.get_mut(node)?;
        waiting.last = waiting.last.max(now);
        let code = waiting.code;
        // The store says what an invite is.
        if has_token && !matches!(view, Some(View::Open { .. } | View::Left)) {
            return None;
        }
        Some(self.wait(now, node, request, code))
    }

    /// Answers a machine that is on the list of those that wait.
    pub(crate) fn wait(
        &mut self,
        now: UnixTime,
        node: &NodeId,
        request: &CertifyRequest,
        code: Code,
    ) -> Answer {
        let begun = self.pending.get(node).map_or(now, |waiting| waiting.first);
        let pause = if now.since(begun) < ATTENDED { RETRY_SOON } else { RETRY_AFTER };
        let pending = Answer::Pending { time: now, retry_after: pause.as_secs() as u32, code };
        // A removed machine comes back by a person's decision alone: an approval, or a later invite.
        let is_for_people = request.token.is_none() && self.heard.contains_key(node);
        if !self.program.is_set() || is_for_people {
            return pending;
        }
        let view = match &request.token {
            Some(token) => self.program.view(now, node, false, Some(&token.hash())),
            None => Some(self.program.consult(now, node, false, None)),
        };
        match view {
            // It asks again in a second.
            Some(View::Open { shows_code: false }) => {
                Answer::Denied { time: now, reason: Denial::Unavailable }
            }
            _ => pending,
        }
    }

    /// Gives a member another certificate, or says why not.
    pub(crate) fn renew(
        &mut self,
        now: UnixTime,
        node: &NodeId,
        source: IpAddr,
        request: &CertifyRequest,
    ) -> Answer {
        let denied = |reason| Answer::Denied { time: now, reason };
        let Some(member) = self.members.get_mut(node) else { return denied(Denial::Unavailable) };
        if let RunVerdict::Refused { is_copy } = member.judge_run(now, source, request) {
            let second = SecondRun { kept: member.source, refused: source, at: now };
            if is_copy {
                self.note_second_run(node, second);
            }
            return denied(Denial::Cloned);
        }
        self.dirty.insert(*node);
        if self.program.is_set() {
            if member.lacks_first_certificate() {
                // The admission is a decision, and the answer may be lost.
                self.program.note_allowed(now, node);
            }
            match self.program.consult(now, node, true, None) {
                View::Allowed(_) => {}
                View::Denied => return denied(Denial::Refused),
                View::Open { .. } => return denied(Denial::Unavailable),
                View::Left => return denied(Denial::Undecided),
            }
        }
        match self.issue(now, node) {
            Some((credentials, lifetime)) => {
                let renew_after = pace::RENEW_BY.min(lifetime / 3).as_secs();
                let renew_after = u32::try_from(renew_after).unwrap_or(u32::MAX);
                let (credentials, spare) = (Box::new(credentials), self.right_of(now, node));
                Answer::Certified { time: now, renew_after, credentials, spare }
            }
            None => denied(Denial::Unavailable),
        }
    }

    /// Notes that sessions have shown two runs of a member, one at each address.
    pub(crate) fn note_both(&mut self, now: UnixTime, node: &NodeId, places: [IpAddr; 2]) {
        let member = self.members.get_mut(node).filter(|member| member.is_member());
        if let Some((kept, refused)) = member.and_then(|member| member.note_both(now, places)) {
            self.note_second_run(node, SecondRun { kept, refused, at: now });
        }
    }

    /// Notes a second run of a member, and holds the member if the settings say so. The log has one line of
    /// it, and of other addresses one in an hour at most, because who has a copy can choose them.
    fn note_second_run(&mut self, node: &NodeId, second: SecondRun) {
        let is_held = self.settings.on_clone == OnClone::RefuseBoth && *node != self.identity.node_id();
        let last = self.logged_runs.get(node);
        let is_news = |last: &SecondRun| {
            last.addresses() != second.addresses() && second.at.since(last.at) >= SECOND_RUN_INTERVAL
        };
        // Each hold follows a decision of a person, so these lines are few.
        if is_held || last.is_none_or(is_news) {
            self.logged_runs.insert(*node, second);
            self.unlogged_runs.insert(*node, second);
        }
        if let Some(member) = self.members.get_mut(node) {
            member.second_run = Some(Box::new(second));
            if is_held {
                (member.standing, member.copied) = (Standing::Held, second.at);
                self.unwritten_holds.insert(*node);
            }
        }
    }

    /// Signs a certificate. `None` if the delegation has ended or is for another node, or the store has
    /// failed for long.
    pub(crate) fn issue(&mut self, now: UnixTime, node: &NodeId) -> Option<(Credentials, Duration)> {
        let member = self.members.get(node).filter(|member| member.is_member())?;
        let (serial, lifetime) = (member.next_serial(now), self.lifetime(member));
        if !self.clock.allows(serial, member.floor) {
            return None;
        }
        if *self.delegation.issuer() != *self.identity.public() || self.right_end() <= now {
            return None;
        }
        // A certificate does not last longer than the right to issue it.
        let lifetime = lifetime.min(self.right_end().since(serial.time()));
        let credentials = self.sign(member, serial, lifetime)?;
        let member = self.members.get_mut(node)?;
        (member.serial, member.ends) = (serial, member.ends.max(serial.time().plus(lifetime)));
        self.dirty.insert(*node);
        Some((credentials, lifetime))
    }

    fn sign(&self, member: &Member, serial: Serial, lifetime: Duration) -> Option<Credentials> {
        let mut grant = member.grant.clone();
        self.settings.set_prefixes(&mut grant);
        let certificate = Certificate::sign(&self.identity, self.network, grant, serial, lifetime).ok()?;
        let credentials = Credentials::new(*self.keys.first(), self.delegation.clone(), certificate);
        Some(credentials.with_successions(self.shown()))
    }

    /// Returns the current credentials of another member.
    fn find(&mut self, now: UnixTime, node: NodeId) -> Option<Answer> {
        let member = self.members.get(&node).filter(|member| member.is_member())?;
        let (identity, has_ended) = (member.identity, member.ends <= now);
        // A spare may have renewed it.
        let may_be_renewed = member.ends != UnixTime::default()
            && !member.grant.is_ephemeral
            && now >= self.unsettled_until
            && self.has_spares();
        if has_ended && !may_be_renewed {
            return None;
        }
        let credentials = if member.serial < member.floor || has_ended {
            let is_undecided = self.program.is_set() && !self.program.has_allowed(now, &node);
            if self.rests(now, member) || is_undecided || self.clock.has_leapt() {
                return None;
            }
            // The last certificate does not count, because it has ended, or a tag or the name has changed.
            self.issue(now, &node)?.0
        } else {
            // The same signature as before: the content has not changed, and Ed25519 has no randomness.
            let left = member.ends.since(member.serial.time());
            self.sign(member, member.serial, left.min(self.lifetime(member)))?
        };
        Some(Answer::Found { identity, credentials: Box::new(credentials) })
    }

    /// Returns true if a member of a restored store gets no certificate yet.
    pub(crate) fn rests(&self, now: UnixTime, member: &Member) -> bool {
        now < self.renewals_rest_until && member.joined < self.restored
    }

    /// Returns true if no address is given out yet, because members may have addresses that a store which was
    /// restored lacks. A steady clock ends that.
    pub(crate) fn pools_rest(&self) -> bool {
        self.pools_rest_until != UnixTime::default()
    }

    /// Returns true if the member gets an address of a pool that it does not have yet.
    pub(crate) fn lacks_address(&self, member: &Member) -> bool {
        !self.pools_rest() && self.settings.lacked(&member.grant).next().is_some()
    }

    /// Returns the signed head of the current revocations. It is signed again when it is 5 minutes old.
    pub(crate) fn head(&mut self, now: UnixTime) -> (Head, Revocations) {
        // Members count entries up to the head's time only, and serials can be ahead of the clock.
        let highest = self.revoked.iter().map(|(_, entry)| entry.min_serial.as_u64()).max().unwrap_or(0);
        let time = now.max(UnixTime::from_millis(highest.saturating_sub(1)));
        if let Some(head) = self.head.as_ref().filter(|head| time.since(head.time()) < HEAD_MAX_AGE)
            && head.time() <= time.plus(CLOCK_TOLERANCE / 2)
        {
            return (head.clone(), self.revoked.clone());
        }
        let delegation = self.delegation.clone();
        let head = Head::sign(&self.identity, delegation, self.network, self.epoch, time, &self.revoked);
        self.head = Some(head.clone());
        (head, self.revoked.clone())
    }
}

/// The row about the network.
#[derive(Debug, Clone)]
pub(crate) struct NetworkRow {
    change: i64,
    refused_change: i64,
    purged: i64,
    name: String,
    id: NetworkId,
    keys: NetworkKeys,
    links: usize,
    settings: Settings,
    delegation: Delegation,
    has_secret: bool,
    has_issued: bool,
    epoch: u64,
    pools_rest_until: UnixTime,
    restored: UnixTime,
    served: UnixTime,
    rekeyed: UnixTime,
}

impl NetworkRow {
    fn read(db: &Connection) -> Result<Option<Self>, StoreError> {
        let mut statement = db.prepare(
            "SELECT change, refused_change, name, id, key, delegation, sealed IS NOT NULL, has_issued, epoch,
                pools_rest_until, outlive, pool4, pool6, ephemeral_ipv4, on_clone, purged, restored,
                successions, links, served, rekeyed FROM network",
        )?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let id = NetworkId::new(row.get::<_, i64>(3)?.cast_unsigned());
        let id = id.map_err(|_| StoreError::value("network ID"))?;
        let key = NetworkKey::from_bytes(row.get(4)?).map_err(|_| StoreError::value("network key"))?;
        let keys = read_keys(id, key, &row.get::<_, Vec<u8>>(17)?)?;
        let links: usize = row.get(18)?;
        if links > keys.successions().len() {
            return Err(StoreError::value("number of successions"));
        }
        Ok(Some(Self {
            change: row.get(0)?,
            refused_change: row.get(1)?,
            name: row.get(2)?,
            id,
            keys,
            links,
            delegation: crate::delegation::read(&row.get::<_, Vec<u8>>(5)?)?,
            has_secret: row.get(6)?,
            has_issued: row.get(7)?,
            epoch: row.get(8)?,
            pools_rest_until: UnixTime::from_millis(row.get(9)?),
            settings: Settings::read(row, 10)?,
            purged: row.get(15)?,
            restored: UnixTime::from_millis(row.get(16)?),
            served: UnixTime::from_millis(row.get(19)?),
            rekeyed: UnixTime::from_millis(row.get(20)?),
        }))
    }
}

/// Reads the keys of a network: the first one, and the successions behind it.
fn read_keys(id: NetworkId, first: NetworkKey, bytes: &[u8]) -> Result<NetworkKeys, StoreError> {
    let wrong = || StoreError::value("succession of network keys");
    let links: Result<Vec<_>, _> = bytes.chunks(Succession::LEN).map(Succession::parse).collect();
    let links = links.map_err(|_| wrong())?;
    let keys = NetworkKeys::new(first).extended(id, &links).map_err(|_| wrong())?;
    if keys.successions() == links { Ok(keys) } else { Err(wrong()) }
}

/// Rows that commits have changed since the last one that a memory knows.
pub(crate) struct News {
    network: NetworkRow,
    /// True if these are all rows, because some have been deleted.
    is_all: bool,
    members: Vec<(NodeId, Option<Member>)>,
    pending: Vec<(NodeId, Option<Waiting>)>,
    refused: Option<BTreeSet<NodeId>>,
    revoked: Option<(Revocations, BTreeMap<NodeId, UnixTime>)>,
    tag_outlive: BTreeMap<Tag, Duration>,
}

/// Numbers by which [`News::read`] knows what a memory lacks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastKnown {
    change: i64,
    refused_change: i64,
    epoch: u64,
}

impl LastKnown {
    /// Returns true if no later commit has changed the network.
    pub(crate) fn is_last(&self, db: &Connection) -> Result<bool, StoreError> {
        let sql = "SELECT change FROM network";
        Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))? == self.change)
    }
}

impl News {
    /// Reads it in one transaction, so that it is the state after one commit.
    pub(crate) fn read(store: &Store, known: LastKnown) -> Result<Self, StoreError> {
        let db = store.db();
        db.execute_batch("BEGIN")?;
        let news = Self::read_rows(db, known);
        db.execute_batch("ROLLBACK")?;
        news
    }

    /// Reads it in the transaction of the connection.
    pub(crate) fn read_rows(db: &Connection, known: LastKnown) -> Result<Self, StoreError> {
        let network = NetworkRow::read(db)?.ok_or(StoreError::Empty)?;
        // What the commit before had marked as gone is known then.
        let is_all = known.change < network.purged - 1;
        let change = if is_all { -1 } else { known.change };
        let mut statement =
            db.prepare(&format!("SELECT {COLUMNS} FROM members m WHERE m.changed > ? ORDER BY m.changed"))?;
        let mut rows = statement.query([change])?;
        let mut members = Vec::new();
        while let Some(row) = rows.next()? {
            members.push(Member::read(row)?);
        }
        let refused =
            (network.refused_change != known.refused_change).then(|| read_refused(db)).transpose()?;
        let revoked = match network.epoch != known.epoch {
            true => Some((heard::published(db)?, heard::times(db)?)),
            false => None,
        };
        let mut statement = db.prepare("SELECT tag, outlive FROM tag_settings")?;
        let mut rows = statement.query([])?;
        let mut tag_outlive = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let tag = row.get::<_, String>(0)?.parse().map_err(|_| StoreError::value("tag"))?;
            tag_outlive.insert(tag, Duration::from_millis(row.get(1)?));
        }
        Ok(Self {
            network,
            is_all,
            members,
            pending: read_pending(db, change)?,
            refused,
            revoked,
            tag_outlive,
        })
    }
}

fn read_pending(db: &Connection, change: i64) -> Result<Vec<(NodeId, Option<Waiting>)>, StoreError> {
    let mut statement = db.prepare(
        "SELECT identity, code, name, description, source, first, last, is_gone FROM pending
            WHERE changed > ?",
    )?;
    let mut rows = statement.query([change])?;
    let mut pending = Vec::new();
    while let Some(row) = rows.next()? {
        let identity = member::read_identity(row.get(0)?)?;
        if row.get(7)? {
            pending.push((identity.node_id(), None));
            continue;
        }
        let code = row.get::<_, String>(1)?.parse().map_err(|_| StoreError::value("code"))?;
        let name = row.get::<_, Option<String>>(2)?.map(|name| member::read_name(&name)).transpose()?;
        let waiting = Waiting {
            identity,
            code,
            name,
            description: row.get(3)?,
            source: member::from_mapped(row.get(4)?),
            first: UnixTime::from_millis(row.get(5)?),
            last: UnixTime::from_millis(row.get(6)?),
        };
        pending.push((identity.node_id(), Some(waiting)));
    }
    Ok(pending)
}

fn read_refused(db: &Connection) -> Result<BTreeSet<NodeId>, StoreError> {
    let mut statement = db.prepare("SELECT node FROM refused")?;
    let mut rows = statement.query([])?;
    let mut refused = BTreeSet::new();
    while let Some(row) = rows.next()? {
        refused.insert(NodeId::from_bytes(row.get(0)?));
    }
    Ok(refused)
}

/// Returns the time until which the store's last commit forbids to issue.
pub(crate) fn unsettled_until(db: &Connection) -> Result<UnixTime, StoreError> {
    let until = db.query_row("SELECT unsettled_until FROM network", [], |row| row.get(0)).optional()?;
    Ok(UnixTime::from_millis(until.unwrap_or(0)))
}
