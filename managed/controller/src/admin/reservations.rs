//! Addresses that are reserved for a node or a name.

use std::fmt;
use std::net::IpAddr;

use peersock_overlay::NodeId;
use peersock_overlay::membership::{MemberName, UnixTime};

use super::ChangeError;
use crate::addresses::{self, Hints};
use crate::controller::{Controller, lock};
use crate::member::{self, millis, to_mapped};
use crate::store::StoreError;

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

impl Controller {
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
        let (now, memory, bytes) = (self.time(now), self.shared(), to_mapped(address));
        self.write(|write, _| {
            let settings = lock(&memory).settings.clone();
            let pool = if address.is_ipv4() { settings.ipv4 } else { settings.ipv6 };
            let pool = pool.filter(|pool| pool.contains(address)).ok_or(ChangeError::NotInPool(address))?;
            let (first, last) = addresses::range(&pool);
            if !(first..=last).contains(&u128::from_be_bytes(bytes)) {
                return Err(ChangeError::Unassignable(address));
            }
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

/// Returns for whom an address is reserved, from the columns of a reservation.
fn read_holder(node: Option<[u8; 32]>, name: Option<String>) -> Result<Holder, StoreError> {
    match (node, name) {
        (Some(node), _) => Ok(Holder::Node(NodeId::from_bytes(node))),
        (None, Some(name)) => Ok(Holder::Name(member::read_name(&name)?)),
        (None, None) => Err(StoreError::value("reservation")),
    }
}
