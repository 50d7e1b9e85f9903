//! Decisions about machines that want to join, as steps of one transaction.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use peersock_overlay::membership::{
    CLOCK_TOLERANCE, CertifyRequest, Code, Denial, Grant, MemberName, Question, Role, Serial, Tag, Token,
    UnixTime,
};
use peersock_overlay::{NodeId, Prefix, PublicIdentity};
use rand::CryptoRng;
use rand::RngExt as _;
use rusqlite::{Connection, OptionalExtension as _};

use crate::addresses::{self, Hints};
use crate::admin::{has_room, is_issuer, label};
use crate::clock;
use crate::controller::{Asked, bump_epoch, lock, raise_floor};
use crate::keys::Keys;
use crate::member::{self, FORGOTTEN, Member, Standing, join_tags, millis, span, to_mapped};
use crate::memory::{EPHEMERAL_LIFETIME, MARGIN, Memory};
use crate::pending;
use crate::program::{Additions, InviteFacts, ShownInvite, View};
use crate::settings::Settings;
use crate::spares;
use crate::store::{StoreError, Write};

/// Time after the last sign of an ephemeral member at which another one can take its name.
pub(crate) const SUCCESSION: Duration = Duration::from_secs(30);

/// Number of names with small numbers that are tried before random ones.
const SMALL_NUMBERS: u32 = 16;

/// Result of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The node is a member.
    Member,
    /// A person or program has to decide.
    Pending(Code),
    /// The node is refused.
    Denied(Denial),
}

/// Reason why a step fails.
#[derive(Debug)]
pub(crate) enum Fail {
    /// The node is refused; other questions of the transaction are not concerned.
    Denied(Denial),
    /// The store fails, and the transaction with it.
    Store(StoreError),
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Properties of a new member.
#[derive(Debug, Clone)]
pub(crate) struct Admission<'a> {
    pub(crate) identity: PublicIdentity,
    /// Name, if it is free; else a similar one.
    pub(crate) wish: Option<MemberName>,
    /// True if the member gets exactly the wished name, or nothing.
    pub(crate) is_name_fixed: bool,
    pub(crate) role: Role,
    pub(crate) tags: Vec<Tag>,
    pub(crate) claims: Vec<u8>,
    pub(crate) is_ephemeral: bool,
    pub(crate) outlive: Option<Duration>,
    pub(crate) description: &'a str,
    pub(crate) source: Option<IpAddr>,
    pub(crate) admitted_by: &'a str,
    /// Member whose name and addresses the new one takes over. It is removed.
    pub(crate) replaces: Option<NodeId>,
}

impl Admission<'_> {
    /// Returns an ordinary member without a wish.
    pub(crate) fn of(identity: &PublicIdentity) -> Self {
        Self {
            identity: *identity,
            wish: None,
            is_name_fixed: false,
            role: Role::Member,
            tags: Vec::new(),
            claims: Vec::new(),
            is_ephemeral: false,
            outlive: None,
            description: "",
            source: None,
            admitted_by: "",
            replaces: None,
        }
    }

    /// Gives the machine all that the member has which it replaces.
    pub(crate) fn take_over(&mut self, replaced: &Member) {
        let grant = &replaced.grant;
        (self.wish, self.is_name_fixed) = (Some(grant.name.clone()), true);
        (self.role, self.is_ephemeral, self.outlive) = (grant.role, grant.is_ephemeral, replaced.outlive);
        (self.tags, self.claims) = (grant.tags.clone(), grant.claims.clone());
        self.replaces = Some(grant.node);
    }
}

/// Knowledge of decisions besides the transaction.
#[derive(Clone, Copy)]
pub(crate) enum Known<'a> {
    /// Memory of the controller. Steps lock it briefly.
    Memory(&'a Mutex<Memory>),
    /// Settings of a network that is being created, and has no members.
    New(&'a Settings),
}

impl Known<'_> {
    /// Returns true if a member of a restored store gets no certificate yet.
    fn rests(&self, now: UnixTime, member: &Member) -> bool {
        match self {
            Self::Memory(memory) => lock(memory).rests(now, member),
            Self::New(_) => false,
        }
    }

    fn member(&self, node: &NodeId) -> Option<Member> {
        match self {
            Self::Memory(memory) => lock(memory).members.get(node).cloned(),
            Self::New(_) => None,
        }
    }

    /// Returns the time of a removal that only other members and controllers have shown.
    fn removed_elsewhere(&self, node: &NodeId) -> Option<i64> {
        match self {
            Self::Memory(memory) => lock(memory).heard.get(node).copied().map(millis),
            Self::New(_) => None,
        }
    }

    fn is_own(&self, node: &NodeId) -> bool {
        matches!(self, Self::Memory(memory) if lock(memory).identity.node_id() == *node)
    }

    fn lifetime(&self, is_ephemeral: bool, outlive: Option<Duration>, tags: &[Tag]) -> Duration {
        match self {
            Self::Memory(memory) => lock(memory).lifetime_of(is_ephemeral, outlive, tags),
            Self::New(settings) => settings.outlive + MARGIN,
        }
    }

    fn lifetime_of(&self, member: &Member) -> Duration {
        self.lifetime(member.grant.is_ephemeral, member.outlive, &member.grant.tags)
    }

    /// Returns the pools from which a member gets an address now that it does not have yet.
    fn pools(&self, grant: &Grant) -> Vec<Prefix> {
        match self {
            Self::Memory(memory) => {
                let memory = lock(memory);
                if memory.pools_rest() { Vec::new() } else { memory.settings.lacked(grant).collect() }
            }
            Self::New(settings) => settings.lacked(grant).collect(),
        }
    }
}

/// One transaction that decides on machines.
pub(crate) struct Round<'a> {
    pub(crate) write: &'a Write<'a>,
    pub(crate) hints: &'a mut Hints,
    pub(crate) now: UnixTime,
    pub(crate) known: Known<'a>,
    pub(crate) keys: &'a Keys,
    pub(crate) rng: &'a mut dyn CryptoRng,
}

/// Returns true if the invite with this token replaces a member, and not by this node.
pub(crate) fn is_for_new_key(db: &Connection, token: &Token, node: &NodeId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM tokens WHERE hash = ?1 AND replaces IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM token_uses WHERE token = ?1 AND node = ?2)";
    Ok(db.query_row(sql, (token.hash(), node.as_bytes()), |_| Ok(())).optional()?.is_some())
}

/// Returns the invite of a token if a node that is no member can use it, and whether the node has used it
/// before.
fn usable(
    db: &Connection,
    known: Known<'_>,
    now: UnixTime,
    node: &NodeId,
    token: &Token,
) -> Result<(Invite, bool), Fail> {
    let denied = |reason| Err(Fail::Denied(reason));
    let hash = token.hash();
    let Some(invite) = Invite::read(db, &hash)? else { return denied(Denial::UnknownInvite) };
    let sql = "SELECT is_removed FROM token_uses WHERE token = ? AND node = ?";
    let used = db.query_row(sql, (hash, node.as_bytes()), |row| row.get::<_, bool>(0));
    let used = used.optional().map_err(StoreError::from)?;
    if used == Some(true) {
        return denied(Denial::Removed);
    }
    // A person who makes an invite after the decision wants the machine back, or does not know of it.
    if let Some((at, reason)) = decided(db, known, node)?
        && invite.made <= at
    {
        return denied(reason);
    }
    if millis(now) >= invite.ends {
        return denied(Denial::ExpiredInvite);
    }
    if used.is_none() && invite.used >= invite.uses {
        return denied(Denial::UsedInvite);
    }
    if invite.replaces == Some(*node) {
        return denied(Denial::KnownKey);
    }
    Ok((invite, used.is_some()))
}

/// Returns the last decision against a node that is no member, and its time.
fn decided(db: &Connection, known: Known<'_>, node: &NodeId) -> Result<Option<(i64, Denial)>, StoreError> {
    let sql = "SELECT removed, copied FROM members WHERE node = ? AND state <> ?";
    let row = db.query_row(sql, (node.as_bytes(), FORGOTTEN), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    });
    let row = row.optional()?;
    let sql = "SELECT at FROM refused WHERE node = ?";
    let refused = db.query_row(sql, [node.as_bytes()], |row| row.get::<_, i64>(0)).optional()?;
    // A store that was restored lacks the time of a removal, or the whole member.
    let removed = row.map(|(removed, _)| removed).max(known.removed_elsewhere(node));
    let removed = removed.map(|at| (at, Denial::Removed));
    let copied = row.map(|(_, copied)| (copied, Denial::Cloned)).filter(|(copied, _)| *copied > 0);
    let refused = refused.map(|at| (at, Denial::Declined));
    Ok(removed.into_iter().chain(refused).chain(copied).max_by_key(|(at, _)| *at))
}

/// Returns why a node that is no member cannot use a token, without a transaction: others show spent ones
/// again and again.
pub(crate) fn refused_token(
    db: &Connection,
    memory: &Mutex<Memory>,
    now: UnixTime,
    node: &NodeId,
    token: &Token,
) -> Result<Option<Denial>, StoreError> {
    match usable(db, Known::Memory(memory), now, node, token) {
        Ok(_) => Ok(None),
        Err(Fail::Denied(reason)) => Ok(Some(reason)),
        Err(Fail::Store(error)) => Err(error),
    }
}

impl Round<'_> {
    /// Decides on one question.
    pub(crate) fn decide(&mut self, asked: &Asked) -> Result<Outcome, StoreError> {
        let Question::Certify(request) = &asked.question else {
            return Ok(Outcome::Denied(Denial::Unavailable));
        };
        let write = self.write;
        match write.attempt(|| self.decide_request(asked, request)) {
            Ok(outcome) => Ok(outcome),
            Err(Fail::Denied(reason)) => Ok(Outcome::Denied(reason)),
            Err(Fail::Store(error)) => Err(error),
        }
    }

    fn decide_request(&mut self, asked: &Asked, request: &CertifyRequest) -> Result<Outcome, Fail> {
        let node = asked.peer.node_id();
        let sql = "SELECT state, copied FROM members WHERE node = ? AND state <> ?";
        let row = self.write.one(sql, (node.as_bytes(), FORGOTTEN), |row| {
            Ok((row.get::<_, u8>(0)?, row.get::<_, i64>(1)?))
        })?;
        if let Some((0, _)) = row {
            if let Some(token) = &request.token
                && is_for_new_key(self.write.db(), token, &node)?
            {
                return Err(Fail::Denied(Denial::KnownKey));
            }
            // Another question of this batch, or another process, has admitted it; or it lacks an address.
            complete(self.write, self.hints, self.known, &node)?;
            return Ok(Outcome::Member);
        }
        if let Some(token) = &request.token {
            return self.use_token(asked, request, token);
        }
        let sql = "SELECT 1 FROM refused WHERE node = ?";
        let is_refused = self.write.one(sql, [node.as_bytes()], |_| Ok(()))?.is_some();
        match row {
            Some((_, copied)) if copied > 0 => Err(Fail::Denied(Denial::Cloned)),
            Some(_) => Err(Fail::Denied(Denial::Removed)),
            None if is_refused => Err(Fail::Denied(Denial::Declined)),
            None => self.wait(asked, request),
        }
    }

    fn wait(&self, asked: &Asked, request: &CertifyRequest) -> Result<Outcome, Fail> {
        match self.known {
            Known::Memory(memory) => {
                pending::insert(self.write, self.now, asked, request, memory, self.keys).map(Outcome::Pending)
            }
            Known::New(_) => Err(Fail::Denied(Denial::Unavailable)),
        }
    }

    fn use_token(&mut self, asked: &Asked, request: &CertifyRequest, token: &Token) -> Result<Outcome, Fail> {
        let (write, now) = (self.write, millis(self.now));
        let (node, hash) = (asked.peer.node_id(), token.hash());
        let denied = |reason| Err(Fail::Denied(reason));
        let (invite, is_used) = usable(write.db(), self.known, self.now, &node, token)?;
        let admitted_by = format!("invite {}", label(&hash));
        let mut admission = Admission {
            wish: invite.name.clone(),
            is_name_fixed: invite.name.is_some(),
            role: invite.role,
            tags: invite.tags,
            claims: invite.claims,
            is_ephemeral: invite.is_ephemeral,
            outlive: invite.outlive,
            description: &request.description,
            source: Some(asked.source),
            admitted_by: &admitted_by,
            ..Admission::of(&asked.peer)
        };
        // Again by the same machine: the member that it has replaced is gone.
        let replaced = invite.replaces.filter(|_| !is_used);
        // As it is now; one that is forgotten is as it was when the invite was made.
        if let Some(replaced) = replaced.and_then(|replaced| self.known.member(&replaced)) {
            admission.take_over(&replaced);
        }
        let additions = match self.ask_program(&hash, &invite.made_by, &admission) {
            View::Allowed(additions) => additions,
            View::Denied => return denied(Denial::Refused),
            View::Open { .. } | View::Left => return self.wait(asked, request),
        };
        if !is_used {
            let sql = "INSERT INTO token_uses (token, node, at) VALUES (?, ?, ?)";
            write.run(sql, (hash, node.as_bytes(), now))?;
            write.run("UPDATE tokens SET used = used + 1 WHERE hash = ?", [hash])?;
        }
        admission.wish = admission.wish.or(additions.name.clone()).or_else(|| request.name.clone());
        admission.tags = additions.apply(&admission.tags);
        self.admit(&admission)?;
        // Members would take no head, and so hear of no removal at all.
        if admission.replaces.is_some() && !has_room(write)? {
            return denied(Denial::Unavailable);
        }
        Ok(Outcome::Member)
    }

    /// Returns what the approval program says about a machine with an invite. Without a program, the invite
    /// decides alone.
    fn ask_program(&self, hash: &[u8; 32], made_by: &str, admission: &Admission<'_>) -> View {
        let Known::Memory(memory) = self.known else { return View::Allowed(Additions::default()) };
        let mut memory = lock(memory);
        if !memory.program.is_set() {
            return View::Allowed(Additions::default());
        }
        let facts = InviteFacts {
            hash: *hash,
            shown: ShownInvite { label: label(hash), made_by: made_by.to_owned() },
            name: admission.wish.clone(),
            tags: admission.tags.clone(),
            is_ephemeral: admission.is_ephemeral,
        };
        memory.program.consult(self.now, &admission.identity.node_id(), false, Some(facts))
    }

    /// Makes a node a member, or a member again, and removes its request.
    pub(crate) fn admit(&mut self, admission: &Admission<'_>) -> Result<MemberName, Fail> {
        let (write, now) = (self.write, self.now);
        let node = admission.identity.node_id();
        let mut grant = Grant::new(node, fallback_name(&node));
        grant.tags = member::sorted(admission.tags.clone());
        grant.claims.clone_from(&admission.claims);
        (grant.role, grant.is_ephemeral) = (admission.role, admission.is_ephemeral);
        grant.validate().map_err(|_| Fail::Denied(Denial::Refused))?;

        let replaced = admission.replaces.filter(|old| *old != node);
        if let Some(old) = &replaced {
            self.hand_over(old, &node)?;
        }
        let (name, is_fixed) = self.wish_of(admission, &node)?;
        let name = self.name_for(&node, name, is_fixed, admission.is_ephemeral)?;
        for pool in self.known.pools(&grant) {
            addresses::assign(write, self.hints, &pool, &node, name.as_str())?
                .ok_or(Fail::Denied(Denial::NoAddress))?;
        }
        let sql = "SELECT max(coalesce((SELECT min_serial FROM revocations WHERE node = ?1), 0),
            coalesce((SELECT min_serial FROM heard WHERE node = ?1), 0))";
        let floor = write.one(sql, [node.as_bytes()], |row| row.get::<_, i64>(0))?.unwrap_or(0);
        let lifetime = self.known.lifetime(admission.is_ephemeral, admission.outlive, &grant.tags);
        write.run(
            "INSERT INTO members (node, identity, state, name, role, is_ephemeral, tags, claims, outlive, floor,
                serial, ends, seen, run, starts, source, description, admitted_by, joined, removed, changed)
                VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, 0, 0, ?12, ?13, ?14, ?15, 0, ?16)
                ON CONFLICT (node) DO UPDATE SET state = 0, name = ?3, role = ?4, is_ephemeral = ?5, tags = ?6,
                claims = ?7, outlive = ?8, floor = max(floor, ?9), serial = max(serial, ?10), ends = max(ends, ?11),
                description = ?13, admitted_by = ?14, joined = ?15, removed = 0,
                seen = iif(copied > 0, 0, seen), starts = iif(copied > 0, 0, starts), copied = 0, changed = ?16",
            rusqlite::params![
                node.as_bytes(),
                admission.identity.to_bytes(),
                name.as_str(),
                admission.role as u8,
                admission.is_ephemeral,
                join_tags(&grant.tags),
                admission.claims,
                admission.outlive.map(span),
                floor,
                // An upper bound of the certificate that follows, in case that nothing is written later.
                millis(now).max(floor),
                millis(now.plus(lifetime)),
                admission.source.map(to_mapped),
                admission.description,
                admission.admitted_by,
                millis(now),
                write.change,
            ],
        )?;
        let was_refused = write.run("DELETE FROM refused WHERE node = ?", [node.as_bytes()])? > 0;
        pending::remove(write, &node)?;
        write.run(
            "UPDATE network SET has_issued = max(has_issued, ?1),
                refused_change = iif(?2, change, refused_change)",
            (admission.admitted_by != CREATE, was_refused),
        )?;
        let (action, what) = match replaced {
            Some(old) => ("replace", format!("{name} {old} {node}")),
            None => ("admit", format!("{name} {node}")),
        };
        write.log(millis(now), admission.admitted_by, action, &what)?;
        Ok(name)
    }

    /// Returns the name for a new member, and true if it gets no other. A node that was a member keeps its
    /// name.
    fn wish_of(&self, admission: &Admission<'_>, node: &NodeId) -> Result<(MemberName, bool), StoreError> {
        let sql = "SELECT name FROM members WHERE node = ?";
        let earlier = self.write.one(sql, [node.as_bytes()], |row| row.get::<_, String>(0))?;
        match (&admission.wish, earlier) {
            (Some(wish), _) if admission.is_name_fixed => Ok((wish.clone(), true)),
            (_, Some(earlier)) => Ok((member::read_name(&earlier)?, false)),
            (wish, None) => Ok((wish.clone().unwrap_or_else(|| fallback_name(node)), false)),
        }
    }

    /// Removes a member, unless it is none any more, and gives another node its addresses, unless they are
    /// reserved for others now.
    fn hand_over(&mut self, old: &NodeId, new: &NodeId) -> Result<(), Fail> {
        let write = self.write;
        // A removal of a controller would end the certificates that it has issued.
        if self.known.is_own(old) || is_issuer(write.db(), old)? {
            return Err(Fail::Denied(Denial::Refused));
        }
        let Some(replaced) = self.known.member(old) else { return Ok(()) };
        let lifetime = self.known.lifetime_of(&replaced);
        // Another machine may have replaced it after the backup, and holds its name and addresses.
        if self.known.rests(self.now, &replaced) {
            return Err(Fail::Denied(Denial::Unavailable));
        }
        if replaced.standing != Standing::Removed {
            remove(write, self.now, &replaced, lifetime)?;
            bump_epoch(write)?;
        }
        // Members that have not heard of a removal may accept the node at the addresses that it had itself.
        let mut nobody = [0; 32];
        self.rng.fill_bytes(&mut nobody);
        write.run(
            "UPDATE addresses SET node = ?2, until = coalesce(until, ?3) WHERE node = ?1",
            (new.as_bytes(), nobody, millis(self.now.plus(2 * lifetime))),
        )?;
        let both = (old.as_bytes(), new.as_bytes());
        write.run("UPDATE reservations SET node = ?2 WHERE node = ?1", both)?;
        write.run(
            "UPDATE addresses SET node = ?2, until = NULL WHERE node = ?1 AND address NOT IN
                (SELECT address FROM reservations WHERE node IS NOT ?2 AND name IS NOT ?3)",
            (old.as_bytes(), new.as_bytes(), replaced.grant.name.as_str()),
        )?;
        Ok(())
    }

    /// Returns the wished name if it is free, or a similar one.
    fn name_for(
        &mut self,
        node: &NodeId,
        wish: MemberName,
        is_fixed: bool,
        is_ephemeral: bool,
    ) -> Result<MemberName, Fail> {
        let Some(holder) = holder_of(self.write, &wish, node)? else { return Ok(wish) };
        let old = self.known.member(&holder).filter(|old| {
            // The time of its admission counts as a sign of life.
            let heard = old.seen.max(old.joined);
            is_ephemeral
                && old.grant.is_ephemeral
                && self.now.since(heard) >= SUCCESSION
                && old.grant.name == wish
        });
        if let Some(old) = old {
            // It gets another name, and stays a member, because it may come back.
            let other = self.numbered(&wish, node)?;
            self.write.run(
                "UPDATE members SET name = ?2, changed = ?3 WHERE node = ?1",
                (holder.as_bytes(), other.as_str(), self.write.change),
            )?;
            revoke(self.write, self.now, &old, self.known.lifetime_of(&old))?;
            bump_epoch(self.write)?;
            return Ok(wish);
        }
        if is_fixed {
            return Err(Fail::Denied(Denial::NameTaken));
        }
        Ok(self.numbered(&wish, node)?)
    }

    fn numbered(&mut self, wish: &MemberName, node: &NodeId) -> Result<MemberName, StoreError> {
        for number in 2..SMALL_NUMBERS {
            let name = wish.numbered(number);
            if holder_of(self.write, &name, node)?.is_none() {
                return Ok(name);
            }
        }
        // Random, because a walk over the numbers of 10,000 equal machines would be long.
        loop {
            let name = wish.numbered(self.rng.random_range(1_000..100_000_000));
            if holder_of(self.write, &name, node)?.is_none() {
                return Ok(name);
            }
        }
    }
}

/// Gives a member the addresses that it lacks, if the pools have some.
pub(crate) fn complete(
    write: &Write<'_>,
    hints: &mut Hints,
    known: Known<'_>,
    node: &NodeId,
) -> Result<(), StoreError> {
    let Some(member) = known.member(node) else { return Ok(()) };
    for pool in known.pools(&member.grant) {
        addresses::assign(write, hints, &pool, node, member.grant.name.as_str())?;
    }
    let sql = "UPDATE members SET changed = ?2 WHERE node = ?1";
    write.run(sql, (node.as_bytes(), write.change))?;
    Ok(())
}

/// Origin of the controller's own node, in the column `admitted_by`.
pub(crate) const CREATE: &str = "create";

/// Removes a member: from its next look on, no certificate of it counts.
pub(crate) fn remove(
    write: &Write<'_>,
    now: UnixTime,
    member: &Member,
    lifetime: Duration,
) -> Result<(), StoreError> {
    let node = member.grant.node;
    revoke(write, now, member, lifetime)?;
    write.run(
        "UPDATE members SET state = 2, removed = ?2, copied = 0, spare = NULL, changed = ?3 WHERE node = ?1",
        (node.as_bytes(), decided_at(write, now)?, write.change),
    )?;
    // A member that no revocation reaches may use the address until its certificate ends.
    let rest = 2 * if member.grant.is_ephemeral { EPHEMERAL_LIFETIME } else { lifetime };
    let rest = millis(now.plus(rest)).max(spares::end(write)?);
    write
        .run("UPDATE addresses SET until = ?2 WHERE node = ?1 AND until IS NULL", (node.as_bytes(), rest))?;
    write.run("UPDATE token_uses SET is_removed = 1 WHERE node = ?", [node.as_bytes()])?;
    // Invites that the member itself has made. A person of the same name keeps theirs.
    write.run("DELETE FROM tokens WHERE made_by = ?", [node.to_string()])?;
    Ok(())
}

/// Returns the time of an invite that is made now: after all removals and denials that were decided before,
/// also where the time then was ahead of this one.
pub(crate) fn made_at(write: &Write<'_>, now: UnixTime) -> Result<i64, StoreError> {
    let sql = "SELECT max(coalesce((SELECT max(max(removed, copied)) FROM members), 0),
        coalesce((SELECT max(at) FROM refused), 0))";
    let decided = write.one(sql, [], |row| row.get::<_, i64>(0))?;
    Ok(millis(now).max(decided.unwrap_or(0).saturating_add(1)))
}

/// Returns the time of a removal or denial that is decided now: at least that of each invite that was made
/// before.
pub(crate) fn decided_at(write: &Write<'_>, now: UnixTime) -> Result<i64, StoreError> {
    let made = write.one("SELECT coalesce(max(made), 0) FROM tokens", [], |row| row.get::<_, i64>(0))?;
    Ok(millis(now).max(made.unwrap_or(0)))
}

/// Makes all certificates of a member void that have been issued. [`bump_epoch`] has to follow.
pub(crate) fn revoke(
    write: &Write<'_>,
    now: UnixTime,
    member: &Member,
    lifetime: Duration,
) -> Result<(), StoreError> {
    // Above the clock as well: a crash may have lost the note of the last certificate.
    // Above the last floor, too: the process that serves may have signed there, and raises a higher one.
    let above_floor = clock::beyond(member.floor, now);
    let above_clock = Serial::from_u64(now.as_millis().saturating_add(1));
    let floor = member.next_serial(now).max(above_clock).max(above_floor);
    let until = member.ends.max(now.plus(lifetime)).plus(CLOCK_TOLERANCE);
    raise_floor(write, &member.grant.node, floor, until)
}

/// Returns the name of a member that has no usable wish.
fn fallback_name(node: &NodeId) -> MemberName {
    let text = format!("node-{}", hex(&node.as_bytes()[..4]));
    text.parse().expect("hex digits are letters and digits")
}

/// Returns the other member that has the name.
pub(crate) fn holder_of(
    write: &Write<'_>,
    name: &MemberName,
    node: &NodeId,
) -> Result<Option<NodeId>, StoreError> {
    let sql = "SELECT node FROM members WHERE name = ? AND state < 2 AND node <> ?";
    Ok(write.one(sql, (name.as_str(), node.as_bytes()), |row| row.get(0))?.map(NodeId::from_bytes))
}

/// An invite in the store.
struct Invite {
    uses: i64,
    used: i64,
    made: i64,
    made_by: String,
    ends: i64,
    name: Option<MemberName>,
    role: Role,
    tags: Vec<Tag>,
    claims: Vec<u8>,
    is_ephemeral: bool,
    outlive: Option<Duration>,
    replaces: Option<NodeId>,
}

impl Invite {
    fn read(db: &Connection, hash: &[u8; 32]) -> Result<Option<Self>, StoreError> {
        let mut statement = db.prepare(
            "SELECT uses, made, ends, name, role, tags, is_ephemeral, outlive, replaces, used, made_by, claims
                FROM tokens WHERE hash = ?",
        )?;
        let mut rows = statement.query([hash])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let name = row.get::<_, Option<String>>(3)?;
        Ok(Some(Self {
            uses: row.get(0)?,
            used: row.get(9)?,
            made: row.get(1)?,
            made_by: row.get(10)?,
            ends: row.get(2)?,
            name: name.map(|name| member::read_name(&name)).transpose()?,
            role: member::read_role(row.get(4)?)?,
            tags: member::read_tags(&row.get::<_, String>(5)?)?,
            claims: row.get(11)?,
            is_ephemeral: row.get(6)?,
            outlive: row.get::<_, Option<u64>>(7)?.map(Duration::from_millis),
            replaces: row.get::<_, Option<[u8; 32]>>(8)?.map(NodeId::from_bytes),
        }))
    }
}

/// Returns lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
