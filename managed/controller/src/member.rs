//! One member as the controller knows it, and its row in the store.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use peersock_overlay::membership::{
    CLOCK_TOLERANCE, Delegation, Grant, MemberName, Role, Serial, Tag, UnixTime,
};
use peersock_overlay::{NodeId, PublicIdentity};
use rusqlite::Row;

use crate::delegation;
use crate::runs::Runs;
use crate::store::StoreError;

/// State of a node that the network knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// The node is a member.
    Member,
    /// The node gets no certificate until a person approves it again. Other members have heard of a
    /// revocation that this store does not know, because it is an old copy, or two runs of the node were
    /// there at the same time ([`Member::copied`]).
    Held,
    /// The node has been removed.
    Removed,
}

/// Two places in which one identity has run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecondRun {
    /// Address of the run that gets certificates.
    pub kept: Option<IpAddr>,
    /// Address of the other run.
    pub refused: IpAddr,
    /// Time at which both were last shown to run.
    pub at: UnixTime,
}

impl SecondRun {
    /// Returns both addresses in order; they are the same behind one NAT.
    pub fn addresses(&self) -> [IpAddr; 2] {
        let mut both = [self.kept.unwrap_or(self.refused), self.refused];
        both.sort_unstable();
        both
    }
}

/// A member, or a node that was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Public keys.
    pub identity: PublicIdentity,
    /// Content of the next certificate, without the lengths of the prefixes, which come from the settings.
    pub grant: Grant,
    /// State.
    pub standing: Standing,
    /// Time for which the member's certificates last without a controller, if it was set for this member.
    pub outlive: Option<Duration>,
    /// Serial of the last certificate; 0 if there was none.
    pub serial: Serial,
    /// End of the last certificate.
    pub ends: UnixTime,
    /// Time at which the controller last heard the member; 0 if never.
    pub seen: UnixTime,
    /// Address from which it was last heard.
    pub source: Option<IpAddr>,
    /// Description of the machine, from its request.
    pub description: Box<str>,
    /// Person, program or invite that has admitted the node.
    pub admitted_by: Box<str>,
    /// Time of the admission.
    pub joined: UnixTime,
    /// Time of the removal; 0 if there was none.
    pub removed: UnixTime,
    /// A second run of the identity, if there was one since the controller's start.
    pub second_run: Option<Box<SecondRun>>,
    /// Time since which the member is held because two runs of it were there at the same time; 0 if it is not
    /// held for that.
    pub copied: UnixTime,
    /// Right to renew certificates while no controller answers, if the member has it.
    pub spare: Option<Delegation>,
    /// Lowest serial that counts.
    pub(crate) floor: Serial,
    pub(crate) run: u64,
    pub(crate) starts: u64,
    pub(crate) runs: Option<Box<Runs>>,
}

/// Columns that [`Member::read`] reads, with the addresses of the member.
pub(crate) const COLUMNS: &str = "m.node, m.identity, m.state, m.name, m.role, m.is_ephemeral, m.tags, m.claims,
    m.outlive, m.floor, m.serial, m.ends, m.seen, m.run, m.starts, m.source, m.description, m.admitted_by, m.joined,
    m.removed, m.copied,
    (SELECT address FROM addresses WHERE node = m.node AND family = 4 AND until IS NULL),
    (SELECT address FROM addresses WHERE node = m.node AND family = 6 AND until IS NULL), m.spare";

/// State of a row that is deleted at the next flush.
pub(crate) const FORGOTTEN: u8 = 3;

impl Member {
    /// Reads a row with [`COLUMNS`]. `None` as the value means that the node is forgotten.
    pub(crate) fn read(row: &Row<'_>) -> Result<(NodeId, Option<Self>), StoreError> {
        let node = NodeId::from_bytes(row.get(0)?);
        let standing = match row.get::<_, u8>(2)? {
            0 => Standing::Member,
            1 => Standing::Held,
            2 => Standing::Removed,
            _ => return Ok((node, None)),
        };
        let identity = read_identity(row.get(1)?)?;
        if identity.node_id() != node {
            return Err(StoreError::value("member's key"));
        }
        let address = |at| Ok::<_, StoreError>(row.get::<_, Option<[u8; 16]>>(at)?.map(from_mapped));
        let grant = Grant {
            node,
            name: read_name(&row.get::<_, String>(3)?)?,
            role: read_role(row.get(4)?)?,
            is_ephemeral: row.get(5)?,
            ipv4: match address(21)? {
                None => None,
                Some(IpAddr::V4(v4)) => Some(v4),
                Some(IpAddr::V6(_)) => return Err(StoreError::value("member's address")),
            },
            ipv6: match address(22)? {
                None => None,
                Some(IpAddr::V6(v6)) => Some(v6),
                Some(IpAddr::V4(_)) => return Err(StoreError::value("member's address")),
            },
            ipv4_length: 32,
            ipv6_length: 128,
            tags: read_tags(&row.get::<_, String>(6)?)?,
            claims: row.get(7)?,
        };
        grant.validate().map_err(|_| StoreError::value("member"))?;
        let member = Self {
            identity,
            grant,
            standing,
            outlive: row.get::<_, Option<u64>>(8)?.map(Duration::from_millis),
            floor: Serial::from_u64(row.get(9)?),
            serial: Serial::from_u64(row.get(10)?),
            ends: UnixTime::from_millis(row.get(11)?),
            seen: UnixTime::from_millis(row.get(12)?),
            run: row.get::<_, i64>(13)?.cast_unsigned(),
            starts: row.get::<_, i64>(14)?.cast_unsigned(),
            source: row.get::<_, Option<[u8; 16]>>(15)?.map(from_mapped),
            description: row.get(16)?,
            admitted_by: row.get(17)?,
            joined: UnixTime::from_millis(row.get(18)?),
            removed: UnixTime::from_millis(row.get(19)?),
            copied: UnixTime::from_millis(row.get(20)?),
            second_run: None,
            spare: row.get::<_, Option<Vec<u8>>>(23)?.map(|bytes| delegation::read(&bytes)).transpose()?,
            runs: None,
        };
        Ok((node, Some(member)))
    }

    /// Returns true if the node is a member.
    pub fn is_member(&self) -> bool {
        self.standing == Standing::Member
    }

    /// Returns when the last certificate ends for all clocks: those of members may be behind.
    pub fn accepted_until(&self) -> UnixTime {
        match self.ends == UnixTime::default() {
            true => self.ends,
            false => self.ends.plus(CLOCK_TOLERANCE),
        }
    }

    /// Returns true if no certificate was made since the admission, whose row has an upper bound of the
    /// serials before.
    pub(crate) fn lacks_first_certificate(&self) -> bool {
        self.serial.as_u64() <= self.joined.as_millis()
    }

    /// Returns the serial of the next certificate, which is above all earlier ones and all revocations.
    pub(crate) fn next_serial(&self, now: UnixTime) -> Serial {
        let below_floor = self.floor.as_u64().saturating_sub(1);
        Serial::next(now, Some(self.serial.max(Serial::from_u64(below_floor))))
    }
}

/// Returns a time as the database holds it.
pub(crate) fn millis(time: UnixTime) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Returns a serial as the database holds it.
pub(crate) fn number(serial: Serial) -> i64 {
    i64::try_from(serial.as_u64()).unwrap_or(i64::MAX)
}

/// Returns a duration as the database holds it, in milliseconds.
pub(crate) fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Returns an address as the database holds it.
pub(crate) fn to_mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub(crate) fn from_mapped(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

pub(crate) fn read_identity(bytes: [u8; 64]) -> Result<PublicIdentity, StoreError> {
    PublicIdentity::from_bytes(&bytes).map_err(|_| StoreError::value("public key"))
}

pub(crate) fn read_name(text: &str) -> Result<MemberName, StoreError> {
    text.parse().map_err(|_| StoreError::value("name"))
}

pub(crate) fn read_role(number: u8) -> Result<Role, StoreError> {
    [Role::Member, Role::Viewer, Role::Operator, Role::Admin]
        .get(usize::from(number))
        .copied()
        .ok_or_else(|| StoreError::value("role"))
}

/// Reads tags that [`join_tags`] has written.
pub(crate) fn read_tags(text: &str) -> Result<Vec<Tag>, StoreError> {
    text.split_ascii_whitespace().map(|tag| tag.parse().map_err(|_| StoreError::value("tag"))).collect()
}

/// Returns tags as the database holds them: with spaces between.
pub(crate) fn join_tags(tags: &[Tag]) -> String {
    tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" ")
}

/// Returns tags after a change: the added ones come first, so a tag that is also removed is lost. Of two
/// contradicting words the one that gives less counts.
pub(crate) fn changed(tags: &[Tag], added: &[Tag], removed: &[Tag]) -> Vec<Tag> {
    let all = tags.iter().chain(added).filter(|tag| !removed.contains(tag));
    sorted(all.cloned().collect())
}

/// Returns the tags in the form of a grant: in order, each once.
pub(crate) fn sorted(mut tags: Vec<Tag>) -> Vec<Tag> {
    tags.sort_unstable();
    tags.dedup();
    tags
}
