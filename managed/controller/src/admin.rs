//! Changes that people make.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use peersock_overlay::membership::{
    Code, Denial, InvalidGrant, MemberName, Revocations, Role, Tag, Token, UnixTime,
};
use peersock_overlay::{NodeId, PublicIdentity};
use rand::CryptoRng;
use rusqlite::Connection;
use thiserror::Error;

use crate::addresses::{self, Hints};
use crate::admission::{self, Admission, Fail, Known, Round, hex};
use crate::controller::{Controller, bump_epoch};
use crate::member::{self, Member, Standing, join_tags, millis, span, to_mapped};
use crate::memory::{Memory, Waiting};
use crate::settings::{OUTLIVE, Settings};
use crate::store::{StoreError, Write};

/// Number of hexadecimal digits that name a node, at least.
pub const MIN_NODE_DIGITS: usize = 6;

/// Maximum number of keys that a person has refused. Beyond it, the oldest is forgotten.
const MAX_REFUSED: i64 = 1_000;

/// Number of members that one removal may concern without a word that confirms it.
const FREE_REMOVALS: usize = 3;

/// Properties of an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteOptions {
    /// Number of machines that it admits. Default: 1.
    pub uses: u32,
    /// Time for which it admits them. Default: 1 h.
    pub lifetime: Duration,
    /// Name that the machine gets; without it, the machine wishes one.
    pub name: Option<MemberName>,
    /// Right to administer the network.
    pub role: Role,
    /// Tags.
    pub tags: Vec<Tag>,
    /// Bytes for programs.
    pub claims: Vec<u8>,
    /// True if the members are forgotten soon after they were last heard.
    pub is_ephemeral: bool,
    /// Time for which the members go on without a controller, in [`OUTLIVE`](crate::OUTLIVE).
    pub outlive: Option<Duration>,
    /// Member that the machine replaces, which is removed then. The machine takes over its addresses, and its
    /// name, role, tags, claims and times instead of those here. Such an invite has one use.
    pub replaces: Option<NodeId>,
}

impl Default for InviteOptions {
    fn default() -> Self {
        Self {
            uses: 1,
            lifetime: Duration::from_secs(3600),
            name: None,
            role: Role::Member,
            tags: Vec::new(),
            claims: Vec::new(),
            is_ephemeral: false,
            outlive: None,
            replaces: None,
        }
    }
}

impl InviteOptions {
    /// Returns these options with the properties of a member, for the machine that replaces it.
    fn like(&self, member: &Member) -> Self {
        let grant = &member.grant;
        Self {
            name: Some(grant.name.clone()),
            role: grant.role,
            tags: grant.tags.clone(),
            claims: grant.claims.clone(),
            is_ephemeral: grant.is_ephemeral,
            outlive: member.outlive,
            ..self.clone()
        }
    }
}

/// Invite in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// First eight digits of its token's hash, which name it.
    pub label: String,
    /// Person who has made it.
    pub made_by: String,
    /// Number of machines that it admits.
    pub uses: u32,
    /// Number of machines that it has admitted.
    pub used: u32,
    /// Time at which it ends.
    pub ends: UnixTime,
    /// Name that the machine gets.
    pub name: Option<MemberName>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// Bytes for programs.
    pub claims: Vec<u8>,
    /// True if the members are forgotten soon after they were last heard.
    pub is_ephemeral: bool,
    /// Member that the machine replaces.
    pub replaces: Option<NodeId>,
    /// True if that one is removed, and another member has its name, so that no machine can take it over.
    pub is_blocked: bool,
}

impl Invite {
    /// Returns the label of the invite with a token.
    pub fn label_of(token: &Token) -> String {
        label(&token.hash())
    }

    /// Returns the number of machines that it still admits, if it has not ended.
    pub fn left(&self) -> u32 {
        self.uses.saturating_sub(self.used)
    }
}

/// Returns the label of an invite by its token's hash.
pub(crate) fn label(hash: &[u8; 32]) -> String {
    hex(&hash[..4])
}

/// Properties that a person gives a machine with the approval.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Approval {
    /// Name. It is refused if it is taken. Without it, the machine's wish counts, or its earlier name.
    pub name: Option<MemberName>,
    /// Right to administer the network.
    pub role: Role,
    /// Tags.
    pub tags: Vec<Tag>,
    /// Bytes for programs.
    pub claims: Vec<u8>,
    /// True if the member is forgotten soon after it was last heard.
    pub is_ephemeral: bool,
    /// Time for which the member goes on without a controller.
    pub outlive: Option<Duration>,
    /// Member that the machine replaces, which is removed. The machine takes over its addresses, name, role,
    /// tags, claims and times, instead of the ones here.
    pub replaces: Option<NodeId>,
}

/// Change of a member. Each `None` leaves a property as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Name. It is refused if it is taken.
    pub name: Option<MemberName>,
    /// Right to administer the network.
    pub role: Option<Role>,
    /// All tags.
    pub tags: Option<Vec<Tag>>,
    /// Bytes for programs.
    pub claims: Option<Vec<u8>>,
    /// Time for which the member goes on without a controller; the inner `None` is the tags' or network's.
    pub outlive: Option<Option<Duration>>,
}

/// Member for which an address is reserved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A node.
    Node(NodeId),
    /// The member with a name. The reservation follows the member when its name changes.
    Name(MemberName),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node:.12}"),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Reason why a change is not made. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// No member or request has this name, code, address or key.
    #[error("nothing in the network is called \"{0}\"")]
    NotFound(String),
    /// No member or request has this name, and it has too few digits for a node ID.
    #[error(
        "nothing in the network is called \"{0}\", and a node ID needs {MIN_NODE_DIGITS} digits at least"
    )]
    FewDigits(String),
    /// Several keys begin with these digits, or one does and another member has them as its name.
    #[error("\"{0}\" can mean several nodes")]
    Ambiguous(String),
    /// The change concerns more than a quarter of all members, and was not confirmed.
    #[error("this would remove {count} of {of} members")]
    Mass {
        /// Number of members that would be removed.
        count: usize,
        /// Number of all members.
        of: usize,
    },
    /// The store was restored, and renews no certificates yet; those that the member has issued would be
    /// void. It was not confirmed.
    #[error("members would be out until renewals begin, because {0} has issued their certificates")]
    Restored(MemberName),
    /// Without this member, no one could administer the network.
    #[error("this is the network's last administrator")]
    LastAdmin,
    /// The controller's own node stays a member.
    #[error("this is the controller's own node")]
    OwnNode,
    /// The removal of a member that may issue certificates, or has issued some, would make these void.
    #[error("{0} is a controller, or was one")]
    Issuer(MemberName),
    /// Another member has the name.
    #[error("another member has the name {0}")]
    NameTaken(MemberName),
    /// Another machine has replaced the removed member, or has its name.
    #[error("that key is removed, and another machine has taken over {0}")]
    Replaced(MemberName),
    /// The pool has no free address.
    #[error("the network has no free address")]
    NoAddress,
    /// The address belongs to no pool.
    #[error("the address {0} is in no pool of the network")]
    NotInPool(IpAddr),
    /// No member can have the address: the network's own one, or the broadcast address.
    #[error("the address {0} is the first or the last one of its pool, which nobody has")]
    Unassignable(IpAddr),
    /// Another member has the address.
    #[error("the address {0} belongs to member {1}")]
    AddressTaken(IpAddr, MemberName),
    /// There is a reservation of the address.
    #[error("the address {0} is reserved for {1} already")]
    Reserved(IpAddr, Holder),
    /// There is no reservation of the address.
    #[error("the address {0} is not reserved")]
    NotReserved(IpAddr),
    /// The content does not fit into a certificate.
    #[error(transparent)]
    Grant(#[from] InvalidGrant),
    /// A number is out of its range.
    #[error("the value of {0} is out of its range")]
    Range(&'static str),
    /// More revocations than members accept would be in force.
    #[error("more than {max} revocations would be in force", max = Revocations::MAX_ENTRIES)]
    TooManyRevocations,
    /// The store may be an old copy, and no member has shown the newest revocations yet.
    #[error("the controller has not heard from members yet whether its store is the newest")]
    Unsettled,
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Fail> for ChangeError {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Store(error) => Self::Store(error),
            Fail::Denied(Denial::NoAddress) => Self::NoAddress,
            Fail::Denied(Denial::Unavailable) => Self::Unsettled,
            Fail::Denied(_) => Self::Range("the approval"),
        }
    }
}

impl Controller {
    /// Makes an invite. The token is in the store as a hash only, so it is shown once.
    ///
    /// # Errors
    /// Returns a [`ChangeError`] for values that are out of range, and if the store fails.
    pub fn invite(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        who: &str,
        options: &InviteOptions,
    ) -> Result<Token, ChangeError> {
        let now = self.time(now);
        if options.uses == 0 || options.uses > 1 && options.replaces.is_some() {
            return Err(ChangeError::Range("the number of uses"));
        }
        check_outlive(options.outlive)?;
        self.notice()?;
        let replaced = self.find_replaced(options.replaces)?;
        let options = &replaced.map_or_else(|| options.clone(), |replaced| options.like(&replaced));
        let tags = member::sorted(options.tags.clone());
        check_texts(&tags, &options.claims)?;
        let mut bytes = [0; Token::LEN];
        rng.fill_bytes(&mut bytes);
        let token = Token::from_bytes(bytes);
        let hash = token.hash();
        self.write(|write, _| {
            write.run(
                "INSERT INTO tokens (hash, uses, made, made_by, ends, name, role, tags, is_ephemeral, outlive, replaces,
                    claims) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    hash,
                    options.uses,
                    admission::made_at(write, now)?,
                    who,
                    millis(now.plus(options.lifetime)),
                    options.name.as_ref().map(|name| name.as_str()),
                    options.role as u8,
                    join_tags(&tags),
                    options.is_ephemeral,
                    options.outlive.map(span),
                    options.replaces.as_ref().map(|node| *node.as_bytes()),
                    &options.claims,
                ),
            )?;
            write.log(millis(now), who, "invite", &label(&hash))?;
            Ok::<_, ChangeError>(())
        })?;
        Ok(token)
    }

    /// Ends an invite, by the first eight digits of its token's hash, which the log and members show.
    ///
    /// # Errors
    /// Returns [`ChangeError::NotFound`] if there is none.
    pub fn end_invite(&mut self, now: UnixTime, who: &str, invite: &str) -> Result<(), ChangeError> {
        let now = self.time(now);
        self.write(|write, _| {
            // The process that serves may count from an earlier time, and never from before the store's.
            let sql = "UPDATE tokens SET ends = min(ends, ?2, (SELECT served FROM network))
                WHERE lower(hex(substr(hash, 1, 4))) = lower(?1)";
            if write.run(sql, (invite, millis(now)))? == 0 {
                return Err(ChangeError::NotFound(invite.to_owned()));
            }
            write.log(millis(now), who, "end invite", invite)?;
            Ok(())
        })
    }

    /// Returns the invites, those that end first first. An invite that has ended stays for 30 days.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        let mut statement = self.store.db().prepare(
            "SELECT lower(hex(substr(hash, 1, 4))), made_by, uses, tokens.ends,
                coalesce(old.name, tokens.name), tokens.tags, tokens.is_ephemeral, used, replaces, tokens.claims,
                coalesce(old.state, 2) = 2 AND EXISTS (SELECT 1 FROM members other
                    WHERE other.name = coalesce(old.name, tokens.name) AND other.state < 2 AND replaces IS NOT NULL)
                FROM tokens LEFT JOIN members old ON old.node = replaces ORDER BY tokens.ends",
        )?;
        let mut rows = statement.query([])?;
        let mut invites = Vec::new();
        while let Some(row) = rows.next()? {
            let name = row.get::<_, Option<String>>(4)?;
            invites.push(Invite {
                label: row.get(0)?,
                made_by: row.get(1)?,
                uses: row.get(2)?,
                ends: UnixTime::from_millis(row.get(3)?),
                name: name.map(|name| member::read_name(&name)).transpose()?,
                tags: member::read_tags(&row.get::<_, String>(5)?)?,
                is_ephemeral: row.get(6)?,
                used: row.get(7)?,
                replaces: row.get::<_, Option<[u8; 32]>>(8)?.map(NodeId::from_bytes),
                claims: row.get(9)?,
                is_blocked: row.get(10)?,
            });
        }
        Ok(invites)
    }

    /// Returns the reserved addresses and for whom they are.
    ///
    /// # Errors
    /// Returns a [`StoreError`].
    pub fn reservations(&self) -> Result<Vec<(IpAddr, Holder)>, StoreError> {
        let mut statement =
            self.store.db().prepare("SELECT address, node, name FROM reservations ORDER BY address")?;
        let mut rows = statement.query([])?;
        let mut reservations = Vec::new();
        while let Some(row) = rows.next()? {
            reservations.push((member::from_mapped(row.get(0)?), read_holder(row.get(1)?, row.get(2)?)?));
        }
        Ok(reservations)
    }

    /// Returns all members, held nodes and removed nodes, in the order of their node IDs.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if another process has committed something that cannot be read.
    pub fn members(&mut self) -> Result<Vec<Member>, StoreError> {
        self.notice()?;
        Ok(self.memory().members.values().cloned().collect())
    }

    /// Returns the machines that wait for a decision, those that asked first first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if another process has committed something that cannot be read.
    pub fn pending(&mut self) -> Result<Vec<Waiting>, StoreError> {
        self.notice()?;
        let mut waiting: Vec<_> = self.memory().pending.values().cloned().collect();
        waiting.sort_by_key(|waiting| waiting.first);
        Ok(waiting)
    }

    /// Returns the member that has this name or address, or whose node ID begins with these digits (at least
    /// six). Removed nodes are found by their IDs. A text that is the name of one member and the beginning of
    /// another one's ID leads to neither.
    ///
    /// # Errors
    /// Returns [`ChangeError::NotFound`] or [`ChangeError::Ambiguous`].
    pub fn find(&self, subject: &str) -> Result<Member, ChangeError> {
        let memory = self.memory();
        let by_name = subject.parse::<MemberName>().ok().and_then(|name| memory.names.get(&name));
        let by_address = || memory.addresses.get(&subject.parse().ok()?);
        let by_digits = find_key(memory.members.keys(), subject);
        let node = match (by_name.or_else(by_address), by_digits) {
            // Members choose their names, and one may be the beginning of another member's ID.
            (Some(node), Ok(other)) if *node != other => {
                return Err(ChangeError::Ambiguous(subject.to_owned()));
            }
            (Some(_), Err(error @ ChangeError::Ambiguous(_))) => return Err(error),
            (Some(node), _) => *node,
            (None, found) => found?,
        };
        memory.members.get(&node).cloned().ok_or_else(|| ChangeError::NotFound(subject.to_owned()))
    }

    /// Makes a machine a member: one that waits, by its code or the beginning of its node ID, or one that was
    /// removed, refused or held, by the beginning of its node ID.
    ///
    /// # Errors
    /// Returns a [`ChangeError`].
    pub fn approve(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        who: &str,
        subject: &str,
        approval: &Approval,
    ) -> Result<Member, ChangeError> {
        let now = self.time(now);
        check_outlive(approval.outlive)?;
        self.notice()?;
        let replaced = self.find_replaced(approval.replaces)?;
        if now < self.memory().unsettled_until {
            return Err(ChangeError::Unsettled);
        }
        let mut admission = Admission { admitted_by: who, ..Admission::of(&self.find_candidate(subject)?) };
        let node = admission.identity.node_id();
        let waiting = self.memory().pending.get(&node).cloned();
        let held = self.memory().members.get(&node).cloned();
        if let Some(waiting) = &waiting {
            admission.wish.clone_from(&waiting.name);
            (admission.description, admission.source) = (&waiting.description, Some(waiting.source));
        }
        if let Some(name) = &approval.name {
            (admission.wish, admission.is_name_fixed) = (Some(name.clone()), true);
        }
        (admission.role, admission.tags) = (approval.role, member::sorted(approval.tags.clone()));
        (admission.claims, admission.is_ephemeral) = (approval.claims.clone(), approval.is_ephemeral);
        admission.outlive = approval.outlive;
        if let Some(held) = held.as_ref().filter(|held| held.standing == Standing::Held) {
            // It was a member all the time, as far as this store knows.
            admission.description = &held.description;
            (admission.is_ephemeral, admission.outlive) = (held.grant.is_ephemeral, held.outlive);
            if *approval == Approval::default() {
                (admission.role, admission.tags) = (held.grant.role, held.grant.tags.clone());
                admission.claims.clone_from(&held.grant.claims);
            }
        }
        if let Some(replaced) = &replaced {
            admission.take_over(replaced);
        }
        check_texts(&admission.tags, &admission.claims)?;
        self.admit(now, rng, &admission)?;
        self.find(&node.to_string())
    }

    pub(crate) fn admit(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        admission: &Admission<'_>,
    ) -> Result<(), ChangeError> {
        let (memory, keys) = (self.shared(), self.keys.clone());
        self.write(|write, hints| {
            let known = Known::Memory(&memory);
            let mut round = Round { write, hints, now, known, keys: &keys, rng: &mut *rng };
            match round.admit(admission) {
                Ok(_) => Ok(()),
                Err(Fail::Denied(Denial::NameTaken)) => {
                    let name = admission.wish.clone();
                    Err(name.map_or(ChangeError::Range("the name"), ChangeError::NameTaken))
                }
                Err(fail) => Err(fail.into()),
            }?;
            check_revocations(write)
        })
    }

    /// Returns the member that a machine is to replace, which is no controller.
    fn find_replaced(&self, replaced: Option<NodeId>) -> Result<Option<Member>, ChangeError> {
        let Some(node) = replaced else { return Ok(None) };
        let member = self.find(&node.to_string())?;
        if self.memory().identity.node_id() == node {
            return Err(ChangeError::OwnNode);
        }
        if is_issuer(self.store.db(), &node)? {
            return Err(ChangeError::Issuer(member.grant.name));
        }
        if member.standing == Standing::Removed {
            let name = &member.grant.name;
            let has_name = self.memory().names.contains_key(name);
            if has_name || was_replaced(self.store.db(), &node)? {
                return Err(ChangeError::Replaced(name.clone()));
            }
        }
        Ok(Some(member))
    }

    /// Returns the keys of a machine that can be approved.
    fn find_candidate(&self, subject: &str) -> Result<PublicIdentity, ChangeError> {
        let mut refused = BTreeMap::new();
        let mut statement =
            self.store.db().prepare("SELECT identity FROM refused").map_err(StoreError::from)?;
        let mut rows = statement.query([]).map_err(StoreError::from)?;
        while let Some(row) = rows.next().map_err(StoreError::from)? {
            let identity = member::read_identity(row.get(0).map_err(StoreError::from)?)?;
            refused.insert(identity.node_id(), identity);
        }
        let memory = self.memory();
        let members = memory.members.iter().filter(|(_, member)| !member.is_member());
        let all: BTreeMap<NodeId, PublicIdentity> = members
            .map(|(node, member)| (*node, member.identity))
            .chain(memory.pending.iter().map(|(node, waiting)| (*node, waiting.identity)))
            .chain(refused)
            .collect();
        let node = find_waiting(&memory, all.keys(), subject)?;
        all.get(&node).copied().ok_or_else(|| ChangeError::NotFound(subject.to_owned()))
    }

    /// Refuses a machine that waits, by its code or the beginning of its node ID. Its later requests are
    /// refused until it is approved.
    ///
    /// # Errors
    /// Returns a [`ChangeError`].
    pub fn deny(&mut self, now: UnixTime, who: &str, subject: &str) -> Result<(), ChangeError> {
        let now = self.time(now);
        self.notice()?;
        let identity = {
            let memory = self.memory();
            let node = find_waiting(&memory, memory.pending.keys(), subject)?;
            let waiting = memory.pending.get(&node);
            waiting.ok_or_else(|| ChangeError::NotFound(subject.to_owned()))?.identity
        };
        self.write(|write, _| refuse(write, now, who, &identity))
    }

    /// Removes members, in one transaction. From the next head on, their certificates do not count. Returns
    /// those that were members before.
    ///
    /// `is_confirmed` is needed for more than three members that are more than a quarter of all, and for a
    /// controller whose network was [restored](Self::note_restored) here and renews no certificates yet.
    ///
    /// # Errors
    /// Returns a [`ChangeError`]; none was removed then.
    pub fn revoke(
        &mut self,
        now: UnixTime,
        who: &str,
        subjects: &[&str],
        is_confirmed: bool,
    ) -> Result<Vec<Member>, ChangeError> {
        let now = self.time(now);
        self.notice()?;
        let mut found = Vec::new();
        for subject in subjects {
            let member = self.find(subject)?;
            let is_new = found.iter().all(|other: &Member| other.grant.node != member.grant.node);
            if is_new && member.standing != Standing::Removed {
                found.push(member);
            }
        }
        let (of, own, is_restored) = {
            let memory = self.memory();
            let of = memory.members.values().filter(|member| member.standing != Standing::Removed).count();
            (of, memory.identity.node_id(), memory.restored != UnixTime::default())
        };
        if found.len() > FREE_REMOVALS && found.len() * 4 > of && !is_confirmed {
            return Err(ChangeError::Mass { count: found.len(), of });
        }
        if found.iter().any(|member| member.grant.node == own) {
            return Err(ChangeError::OwnNode);
        }
        let lifetimes: Vec<_> = found.iter().map(|member| self.memory().lifetime(member)).collect();
        self.write(|write, hints| {
            for (member, lifetime) in found.iter().zip(lifetimes) {
                if is_restored && !is_confirmed && is_issuer(write.db(), &member.grant.node)? {
                    return Err(ChangeError::Restored(member.grant.name.clone()));
                }
                admission::remove(write, now, member, lifetime)?;
                let what = format!("{} {}", member.grant.name, member.grant.node);
                write.log(millis(now), who, "revoke", &what)?;
            }
            if !found.is_empty() {
                bump_epoch(write)?;
                check_admins(write)?;
                check_revocations(write)?;
            }
            *hints = Hints::default();
            Ok::<_, ChangeError>(())
        })?;
        Ok(found)
    }

    /// Changes a member. Its earlier certificates do not count any more if their content changes, so open
    /// flows follow. Addresses that are reserved for its name are reserved for the new one.
    ///
    /// # Errors
    /// Returns a [`ChangeError`].
    pub fn change(
        &mut self,
        now: UnixTime,
        who: &str,
        subject: &str,
        change: &Change,
    ) -> Result<Member, ChangeError> {
        let now = self.time(now);
        self.change_at(now, who, subject, change)
    }

    pub(crate) fn change_at(
        &mut self,
        now: UnixTime,
        who: &str,
        subject: &str,
        change: &Change,
    ) -> Result<Member, ChangeError> {
        if let Some(outlive) = change.outlive {
            check_outlive(outlive)?;
        }
        self.notice()?;
        let before = self.find(subject)?;
        if !before.is_member() {
            return Err(ChangeError::NotFound(subject.to_owned()));
        }
        let mut after = before.clone();
        let grant = &mut after.grant;
        grant.name = change.name.clone().unwrap_or_else(|| grant.name.clone());
        grant.claims = change.claims.clone().unwrap_or_else(|| grant.claims.clone());
        grant.role = change.role.unwrap_or(grant.role);
        grant.tags = member::sorted(change.tags.clone().unwrap_or_else(|| grant.tags.clone()));
        after.outlive = change.outlive.unwrap_or(after.outlive);
        grant.validate()?;
        let (node, lifetime) = (before.grant.node, self.memory().lifetime(&before));
        let own = self.memory().identity.node_id();
        self.write(|write, _| {
            if admission::holder_of(write, &after.grant.name, &node)?.is_some() {
                return Err(ChangeError::NameTaken(after.grant.name.clone()));
            }
            write.run(
                "UPDATE members SET name = ?2, role = ?3, tags = ?4, claims = ?5, outlive = ?6, changed = ?7
                    WHERE node = ?1",
                (
                    node.as_bytes(),
                    after.grant.name.as_str(),
                    after.grant.role as u8,
                    join_tags(&after.grant.tags),
                    &after.grant.claims,
                    after.outlive.map(span),
                    write.change,
                ),
            )?;
            write.run(
                "UPDATE reservations SET name = ?2 WHERE name = ?1",
                (before.grant.name.as_str(), after.grant.name.as_str()),
            )?;
            // A revocation of the controller's node would cover its delegation, and so all certificates.
            if after.grant != before.grant && node != own {
                admission::revoke(write, now, &before, lifetime)?;
                bump_epoch(write)?;
            }
            check_admins(write)?;
            check_revocations(write)?;
            let role = match after.grant.role {
                Role::Member => "member",
                Role::Viewer => "viewer",
                Role::Operator => "operator",
                Role::Admin => "admin",
            };
            let tags = join_tags(&after.grant.tags);
            let what = format!("{} to {}, {role}, tags: {tags}", before.grant.name, after.grant.name);
            write.log(millis(now), who, "change", &what)?;
            Ok(())
        })?;
        self.find(&node.to_string())
    }

    /// Returns the times for which members with certain tags go on without a controller.
    pub fn tag_outlive(&self) -> BTreeMap<Tag, Duration> {
        self.memory().tag_outlive.clone()
    }

    /// Changes the settings of the network. Members get addresses of new pools at their next renewal, and
    /// keep those of former pools.
    ///
    /// # Errors
    /// Returns [`ChangeError::Range`] for values that are out of range.
    pub fn set_settings(&mut self, now: UnixTime, who: &str, settings: &Settings) -> Result<(), ChangeError> {
        let now = self.time(now);
        if !settings.is_valid_in(self.network()) {
            return Err(ChangeError::Range("the settings"));
        }
        self.write(|write, hints| {
            write.run(
                "UPDATE network SET outlive = ?, pool4 = ?, pool6 = ?, ephemeral_ipv4 = ?, on_clone = ?",
                (
                    span(settings.outlive),
                    settings.ipv4.map(|pool| pool.to_string()),
                    settings.ipv6.map(|pool| pool.to_string()),
                    settings.ephemeral_ipv4,
                    settings.on_clone as u8,
                ),
            )?;
            *hints = Hints::default();
            write.log(
                millis(now),
                who,
                "settings",
                &format!("{} s without a controller", settings.outlive.as_secs()),
            )?;
            Ok(())
        })
    }

    /// Sets the time for which members with a tag go on without a controller; `None` for the network's.
    /// With several tags, the shortest time counts.
    ///
    /// # Errors
    /// Returns [`ChangeError::Range`] for a time out of range.
    pub fn set_tag_outlive(
        &mut self,
        now: UnixTime,
        who: &str,
        tag: &Tag,
        outlive: Option<Duration>,
    ) -> Result<(), ChangeError> {
        let now = self.time(now);
        check_outlive(outlive)?;
        self.write(|write, _| {
            match outlive {
                Some(outlive) => write.run(
                    "INSERT INTO tag_settings (tag, outlive) VALUES (?1, ?2) ON CONFLICT (tag) DO UPDATE SET outlive = ?2",
                    (tag.as_str(), span(outlive)),
                ),
                None => write.run("DELETE FROM tag_settings WHERE tag = ?", [tag.as_str()]),
            }?;
            write.log(millis(now), who, "settings", tag.as_str())?;
            Ok(())
        })
    }

    /// Reserves an address for a node or a name. It must be free, or be that node's.
    ///
    /// # Errors
    /// Returns [`ChangeError::NotInPool`], [`ChangeError::Unassignable`], [`ChangeError::AddressTaken`] or
    /// [`ChangeError::Reserved`].
    pub fn reserve(
        &mut self,
        now: UnixTime,
        who: &str,
        address: IpAddr,
        holder: &Holder,
    ) -> Result<(), ChangeError> {
        let now = self.time(now);
        let settings = self.settings();
        let pool = if address.is_ipv4() { settings.ipv4 } else { settings.ipv6 };
        let pool = pool.filter(|pool| pool.contains(address)).ok_or(ChangeError::NotInPool(address))?;
        let bytes = to_mapped(address);
        let (first, last) = addresses::range(&pool);
        if !(first..=last).contains(&u128::from_be_bytes(bytes)) {
            return Err(ChangeError::Unassignable(address));
        }
        self.write(|write, _| {
            let sql = "SELECT node, name FROM reservations WHERE address = ?";
            if let Some((node, name)) = write.one(sql, [bytes], |row| Ok((row.get(0)?, row.get(1)?)))? {
                return Err(ChangeError::Reserved(address, read_holder(node, name)?));
            }
            let taken = write.one(
                "SELECT m.node, m.name FROM addresses a JOIN members m ON m.node = a.node
                    WHERE a.address = ? AND a.until IS NULL",
                [bytes],
                |row| Ok((NodeId::from_bytes(row.get(0)?), row.get::<_, String>(1)?)),
            )?;
            if let Some((node, name)) = taken {
                let (node, name) = (Holder::Node(node), member::read_name(&name)?);
                if *holder != node && *holder != Holder::Name(name.clone()) {
                    return Err(ChangeError::AddressTaken(address, name));
                }
            }
            let (node, name) = match holder {
                Holder::Node(node) => (Some(*node.as_bytes()), None),
                Holder::Name(name) => (None, Some(name.as_str())),
            };
            let family = if address.is_ipv4() { 4 } else { 6 };
            write.run(
                "INSERT INTO reservations (address, family, node, name) VALUES (?, ?, ?, ?)",
                (bytes, family, node, name),
            )?;
            write.log(millis(now), who, "reserve", &address.to_string())?;
            Ok(())
        })
    }

    /// Ends a reservation. A member that has the address keeps it.
    ///
    /// # Errors
    /// Returns [`ChangeError::NotReserved`] if there is none.
    pub fn end_reservation(&mut self, now: UnixTime, who: &str, address: IpAddr) -> Result<(), ChangeError> {
        let now = self.time(now);
        self.write(|write, hints| {
            if write.run("DELETE FROM reservations WHERE address = ?", [to_mapped(address)])? == 0 {
                return Err(ChangeError::NotReserved(address));
            }
            *hints = Hints::default();
            write.log(millis(now), who, "end reservation", &address.to_string())?;
            Ok(())
        })
    }
}

/// Puts a machine on the list of refused ones.
fn refuse(write: &Write<'_>, now: UnixTime, who: &str, identity: &PublicIdentity) -> Result<(), ChangeError> {
    let node = identity.node_id();
    crate::pending::remove(write, &node)?;
    write.run(
        "INSERT OR REPLACE INTO refused (node, identity, at) VALUES (?, ?, ?)",
        (node.as_bytes(), identity.to_bytes(), admission::decided_at(write, now)?),
    )?;
    write.run(
        "DELETE FROM refused WHERE node IN (SELECT node FROM refused ORDER BY at DESC LIMIT -1 OFFSET ?)",
        [MAX_REFUSED],
    )?;
    write.run("UPDATE network SET refused_change = change", [])?;
    write.log(millis(now), who, "deny", &node.to_string())?;
    Ok(())
}

/// Returns for whom an address is reserved, from the columns of a reservation.
fn read_holder(node: Option<[u8; 32]>, name: Option<String>) -> Result<Holder, StoreError> {
    match (node, name) {
        (Some(node), _) => Ok(Holder::Node(NodeId::from_bytes(node))),
        (None, Some(name)) => Ok(Holder::Name(member::read_name(&name)?)),
        (None, None) => Err(StoreError::value("reservation")),
    }
}

fn check_outlive(outlive: Option<Duration>) -> Result<(), ChangeError> {
    let is_valid = outlive.is_none_or(|outlive| OUTLIVE.contains(&outlive));
    if is_valid { Ok(()) } else { Err(ChangeError::Range("the time without a controller")) }
}

/// Checks that certificates have room for tags and claims.
pub(crate) fn check_texts(tags: &[Tag], claims: &[u8]) -> Result<(), ChangeError> {
    let mut grant =
        peersock_overlay::membership::Grant::new(NodeId::from_bytes([0; 32]), "a".parse().expect("a name"));
    (grant.tags, grant.claims) = (tags.to_vec(), claims.to_vec());
    Ok(grant.validate()?)
}

/// Returns true if a node was given the right to issue certificates.
pub(crate) fn is_issuer(db: &Connection, node: &NodeId) -> Result<bool, StoreError> {
    let sql = "SELECT count(*) FROM issuers WHERE node = ?";
    Ok(db.query_row(sql, [node.as_bytes()], |row| row.get::<_, i64>(0))? > 0)
}

/// Returns true if another node has replaced a member, as the log says.
fn was_replaced(db: &Connection, node: &NodeId) -> Result<bool, StoreError> {
    let sql = "SELECT count(*) FROM log WHERE action = 'replace' AND what LIKE '% ' || ? || ' %'";
    Ok(db.query_row(sql, [node.to_string()], |row| row.get::<_, i64>(0))? > 0)
}

/// Fails if the transaction leaves no administrator.
fn check_admins(write: &Write<'_>) -> Result<(), ChangeError> {
    let sql = "SELECT count(*) FROM members WHERE state = 0 AND role = ?";
    let count = write.one(sql, [Role::Admin as u8], |row| row.get::<_, i64>(0))?;
    if count.unwrap_or(0) > 0 { Ok(()) } else { Err(ChangeError::LastAdmin) }
}

/// Fails if the transaction leaves more revocations than members accept.
fn check_revocations(write: &Write<'_>) -> Result<(), ChangeError> {
    if has_room(write)? { Ok(()) } else { Err(ChangeError::TooManyRevocations) }
}

/// Returns true if members accept as many revocations as there are in the transaction.
pub(crate) fn has_room(write: &Write<'_>) -> Result<bool, StoreError> {
    let count = write.one("SELECT count(*) FROM revocations", [], |row| row.get::<_, usize>(0))?;
    Ok(count.is_none_or(|count| count <= Revocations::MAX_ENTRIES))
}

/// Returns the machine that waits with a code, typed with or without its hyphen, or the only key that begins
/// with these digits.
fn find_waiting<'a>(
    memory: &Memory,
    keys: impl Iterator<Item = &'a NodeId>,
    subject: &str,
) -> Result<NodeId, ChangeError> {
    let code = subject.parse::<Code>().ok();
    let waiting = memory.pending.iter().find(|(_, waiting)| Some(waiting.code) == code);
    match (waiting, find_key(keys, subject.trim())) {
        // Six digits can be a code without its hyphen, and the beginning of another machine's ID.
        (Some((node, _)), Ok(other)) if *node != other => Err(ChangeError::Ambiguous(subject.to_owned())),
        (Some(_), Err(error @ ChangeError::Ambiguous(_))) => Err(error),
        (Some((node, _)), _) => Ok(*node),
        (None, found) => found,
    }
}

/// Returns the only key that begins with the digits.
fn find_key<'a>(keys: impl Iterator<Item = &'a NodeId>, digits: &str) -> Result<NodeId, ChangeError> {
    let not_found = || ChangeError::NotFound(digits.to_owned());
    let wanted: Option<Vec<u8>> =
        digits.chars().map(|digit| Some(u8::try_from(digit.to_digit(16)?).unwrap_or(0))).collect();
    let wanted = wanted.filter(|wanted| (1..=64).contains(&wanted.len())).ok_or_else(not_found)?;
    if wanted.len() < MIN_NODE_DIGITS {
        return Err(ChangeError::FewDigits(digits.to_owned()));
    }
    let digit = |node: &NodeId, at: usize| {
        let byte = node.as_bytes()[at / 2];
        if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
    };
    let mut found =
        keys.filter(|node| wanted.iter().enumerate().all(|(at, wanted)| digit(node, at) == *wanted));
    match (found.next(), found.next()) {
        (Some(node), None) => Ok(*node),
        (None, _) => Err(not_found()),
        (Some(_), Some(_)) => Err(ChangeError::Ambiguous(digits.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_their_first_digits() {
        let nodes = [[0x12; 32], [0xab; 32]].map(NodeId::from_bytes);
        let mut like_first = *nodes[0].as_bytes();
        like_first[3] = 0x34;
        let all = [nodes[0], nodes[1], NodeId::from_bytes(like_first)];
        let find = |digits: &str| find_key(all.iter(), digits);
        assert_eq!(find(&nodes[0].to_string()), Ok(nodes[0]));
        assert_eq!(find("ABabab"), Ok(nodes[1]));
        assert_eq!(find("1212123"), Ok(all[2]));
        assert_eq!(find("121212"), Err(ChangeError::Ambiguous("121212".into())));
        let long = format!("{}0", nodes[1]);
        assert_eq!(find("ababa"), Err(ChangeError::FewDigits("ababa".into())));
        for nothing in ["abababc", "xyzxyz", "", "ababab-", &long] {
            assert_eq!(find(nothing), Err(ChangeError::NotFound(nothing.into())));
        }
    }
}
