//! Changes that people make.

mod error;
mod invites;
mod reservations;
mod settings;

use std::collections::BTreeMap;
use std::time::Duration;

use peersock_overlay::membership::{Code, Denial, MemberName, Revocations, Role, Tag, UnixTime};
use peersock_overlay::{NodeId, PublicIdentity};
use rand::CryptoRng;
use rusqlite::Connection;

pub use self::error::ChangeError;
pub(crate) use self::invites::label;
pub use self::invites::{Invite, InviteOptions};
pub use self::reservations::Holder;
use self::settings::check_outlive;
use crate::addresses::Hints;
use crate::admission::{self, Admission, Fail, Known, Round};
use crate::controller::{Controller, bump_epoch, lock};
use crate::member::{self, Member, Standing, join_tags, millis, span};
use crate::memory::{Memory, Waiting};
use crate::spares;
use crate::store::{StoreError, Write};

/// Number of hexadecimal digits that name a node, at least.
pub const MIN_NODE_DIGITS: usize = 6;

/// Maximum number of keys that a person has refused. Beyond it, the oldest is forgotten.
const MAX_REFUSED: i64 = 1_000;

/// Number of members that one removal may concern without a word that confirms it.
const FREE_REMOVALS: usize = 3;

/// Properties that a person gives a machine, by an approval or by an invite.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Approval {
    /// Name. Without it, the machine's wish counts, or its earlier name. An approval with a name that is
    /// taken is refused.
    pub name: Option<MemberName>,
    /// Right to administer the network.
    pub role: Role,
    /// Tags.
    pub tags: Vec<Tag>,
    /// Bytes for programs.
    pub claims: Vec<u8>,
    /// True if the member is forgotten soon after it was last heard.
    pub is_ephemeral: bool,
    /// Time for which the member goes on without a controller, in [`OUTLIVE`](crate::OUTLIVE).
    pub outlive: Option<Duration>,
    /// Member that the machine replaces, which is removed then. The machine takes over its addresses, and its
    /// name, role, tags, claims and times instead of those here. Such an invite has one use.
    pub replaces: Option<NodeId>,
}

/// Change of a member. Each `None` leaves a property as it is, also if another process has just changed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Name. It is refused if it is taken.
    pub name: Option<MemberName>,
    /// Right to administer the network.
    pub role: Option<Role>,
    /// All tags, before those that follow are added and removed.
    pub tags: Option<Vec<Tag>>,
    /// Tags that the member gets besides those that it has.
    pub added_tags: Vec<Tag>,
    /// Tags that the member loses, if it has them, also those that were just added.
    pub removed_tags: Vec<Tag>,
    /// Bytes for programs.
    pub claims: Option<Vec<u8>>,
    /// Time for which the member goes on without a controller; the inner `None` is the tags' or network's.
    pub outlive: Option<Option<Duration>>,
    /// Right to renew certificates while no controller answers. [`Controller::MAX_SPARES`] members can have
    /// it.
    pub spare: Option<bool>,
}

impl Change {
    /// Returns all tags of a member that has `tags` before.
    fn tags_from(&self, tags: &[Tag]) -> Vec<Tag> {
        member::changed(self.tags.as_deref().unwrap_or(tags), &self.added_tags, &self.removed_tags)
    }
}

impl Controller {
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
        find(&self.memory(), subject)
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
        if now < self.memory().unsettled_until {
            return Err(ChangeError::Unsettled);
        }
        let identity = self.find_candidate(subject)?;
        let node = identity.node_id();
        let (memory, keys, found) = (self.shared(), self.keys.clone(), Decided::of(&self.memory(), &node));
        self.write(|write, hints| {
            let (replaced, waiting, held) = {
                let memory = lock(&memory);
                // Another command may have decided while this one waited for the store.
                if Decided::of(&memory, &node) != found {
                    return Err(ChangeError::Decided(subject.to_owned()));
                }
                let replaced = find_replaced(&memory, write.db(), approval.replaces)?;
                (replaced, memory.pending.get(&node).cloned(), memory.members.get(&node).cloned())
            };
            let mut admission = Admission { admitted_by: who, ..Admission::of(&identity) };
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
            let known = Known::Memory(&memory);
            admit(Round { write, hints, now, known, keys: &keys, rng: &mut *rng }, &admission)
        })?;
        self.find(&node.to_string())
    }

    /// Makes a machine a member that still waits. Returns false if it does not, because somebody has decided.
    pub(crate) fn admit_waiting(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        admission: &Admission<'_>,
    ) -> Result<bool, ChangeError> {
        let (memory, keys) = (self.shared(), self.keys.clone());
        self.write(|write, hints| {
            if !lock(&memory).pending.contains_key(&admission.identity.node_id()) {
                return Ok(false);
            }
            let known = Known::Memory(&memory);
            admit(Round { write, hints, now, known, keys: &keys, rng: &mut *rng }, admission)?;
            Ok(true)
        })
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
        let node = {
            let memory = self.memory();
            find_waiting(&memory, memory.pending.keys(), subject)?
        };
        let memory = self.shared();
        self.write(|write, _| {
            // Another command may have decided while this one waited for the store.
            let identity = lock(&memory).pending.get(&node).map(|waiting| waiting.identity);
            refuse(write, now, who, &identity.ok_or_else(|| ChangeError::Decided(subject.to_owned()))?)
        })
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
        let memory = self.shared();
        self.write(|write, hints| {
            let mut found = Vec::new();
            let memory = lock(&memory);
            for subject in subjects {
                let member = find(&memory, subject)?;
                let is_new = found.iter().all(|other: &Member| other.grant.node != member.grant.node);
                if is_new && member.standing != Standing::Removed {
                    found.push(member);
                }
            }
            let of = memory.members.values().filter(|member| member.standing != Standing::Removed).count();
            let (own, is_restored) = (memory.identity.node_id(), memory.restored != UnixTime::default());
            let lifetimes: Vec<_> = found.iter().map(|member| memory.lifetime(member)).collect();
            // Renewals go on while this writes.
            drop(memory);
            if found.len() > FREE_REMOVALS && found.len() * 4 > of && !is_confirmed {
                return Err(ChangeError::Mass { count: found.len(), of });
            }
            if found.iter().any(|member| member.grant.node == own) {
                return Err(ChangeError::OwnNode);
            }
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
            Ok(found)
        })
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
        let secret = match change.spare {
            Some(true) => Some(self.secret_for_spares()?),
            _ => None,
        };
        let memory = self.shared();
        let node = self.write(|write, _| {
            let (before, lifetime, own, network, others) = {
                let memory = lock(&memory);
                let before = find(&memory, subject)?;
                let (lifetime, others) = (memory.lifetime(&before), memory.spares().count());
                (before, lifetime, memory.identity.node_id(), memory.network, others)
            };
            if !before.is_member() {
                return Err(ChangeError::NotFound(subject.to_owned()));
            }
            let (node, mut after) = (before.grant.node, before.clone());
            let grant = &mut after.grant;
            grant.name = change.name.clone().unwrap_or_else(|| grant.name.clone());
            grant.claims = change.claims.clone().unwrap_or_else(|| grant.claims.clone());
            grant.role = change.role.unwrap_or(grant.role);
            grant.tags = change.tags_from(&grant.tags);
            after.outlive = change.outlive.unwrap_or(after.outlive);
            grant.validate()?;
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
            let is_taken = change.spare == Some(false) && spares::take(write, &before)?;
            if (after.grant != before.grant || is_taken) && node != own {
                admission::revoke(write, now, &before, lifetime)?;
                bump_epoch(write)?;
            }
            if change.spare == Some(true) {
                if node == own {
                    return Err(ChangeError::OwnNode);
                }
                // Above the revocation.
                spares::give(write, secret.as_ref(), network, &before, others, now)?;
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
            Ok(node)
        })?;
        self.find(&node.to_string())
    }
}

/// Decision about a machine that a person may approve, as the store has it.
#[derive(PartialEq, Eq)]
struct Decided {
    is_waiting: bool,
    is_refused: bool,
    /// State as a member, and the time of the last admission.
    member: Option<(Standing, UnixTime)>,
}

impl Decided {
    fn of(memory: &Memory, node: &NodeId) -> Self {
        Self {
            is_waiting: memory.pending.contains_key(node),
            is_refused: memory.refused.contains(node),
            member: memory.members.get(node).map(|member| (member.standing, member.joined)),
        }
    }
}

/// Makes a machine a member, as a person or a program has decided.
fn admit(mut round: Round<'_>, admission: &Admission<'_>) -> Result<(), ChangeError> {
    match round.admit(admission) {
        Ok(_) => check_revocations(round.write),
        Err(Fail::Denied(Denial::NameTaken)) => {
            let name = admission.wish.clone();
            Err(name.map_or(ChangeError::Range("the name"), ChangeError::NameTaken))
        }
        Err(fail) => Err(fail.into()),
    }
}

/// Returns the member that [`Controller::find`] means.
fn find(memory: &Memory, subject: &str) -> Result<Member, ChangeError> {
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

/// Returns the member that a machine is to replace, which is no controller.
fn find_replaced(
    memory: &Memory,
    db: &Connection,
    replaced: Option<NodeId>,
) -> Result<Option<Member>, ChangeError> {
    let Some(node) = replaced else { return Ok(None) };
    let member = find(memory, &node.to_string())?;
    if memory.identity.node_id() == node {
        return Err(ChangeError::OwnNode);
    }
    if is_issuer(db, &node)? {
        return Err(ChangeError::Issuer(member.grant.name));
    }
    if member.standing == Standing::Removed {
        let name = &member.grant.name;
        if memory.names.contains_key(name) || was_replaced(db, &node)? {
            return Err(ChangeError::Replaced(name.clone()));
        }
    }
    Ok(Some(member))
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
