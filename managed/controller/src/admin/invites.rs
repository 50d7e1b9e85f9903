//! Invites: who has a token is admitted without a person.

use std::time::Duration;

use peersock_overlay::NodeId;
use peersock_overlay::membership::{MemberName, Tag, Token, UnixTime};
use rand::CryptoRng;

use super::settings::check_outlive;
use super::{Approval, ChangeError, check_texts, find_replaced};
use crate::admission::{self, hex};
use crate::controller::Controller;
use crate::member::{self, Member, join_tags, millis, span};
use crate::store::StoreError;

/// Properties of an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteOptions {
    /// Number of machines that it admits. Default: 1.
    pub uses: u32,
    /// Time for which it admits them. Default: 1 h.
    pub lifetime: Duration,
    /// Properties of each machine that it admits.
    pub approval: Approval,
}

impl Default for InviteOptions {
    fn default() -> Self {
        Self::from(Approval::default())
    }
}

impl From<Approval> for InviteOptions {
    fn from(approval: Approval) -> Self {
        Self { uses: 1, lifetime: Duration::from_secs(3600), approval }
    }
}

impl Approval {
    /// Returns the properties of a member, for the machine that replaces it.
    fn in_place_of(member: Member) -> Self {
        let (grant, outlive) = (member.grant, member.outlive);
        Self {
            name: Some(grant.name),
            role: grant.role,
            tags: grant.tags,
            claims: grant.claims,
            is_ephemeral: grant.is_ephemeral,
            outlive,
            replaces: Some(grant.node),
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
        let approval = &options.approval;
        if options.uses == 0 || options.uses > 1 && approval.replaces.is_some() {
            return Err(ChangeError::Range("the number of uses"));
        }
        check_outlive(approval.outlive)?;
        self.notice()?;
        let replaced = find_replaced(&self.memory(), self.store.db(), approval.replaces)?;
        let approval = &replaced.map_or_else(|| approval.clone(), Approval::in_place_of);
        let tags = member::sorted(approval.tags.clone());
        check_texts(&tags, &approval.claims)?;
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
                    approval.name.as_ref().map(|name| name.as_str()),
                    approval.role as u8,
                    join_tags(&tags),
                    approval.is_ephemeral,
                    approval.outlive.map(span),
                    approval.replaces.as_ref().map(|node| *node.as_bytes()),
                    &approval.claims,
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
}
