//! Allocation of addresses from a pool: the lowest free one first.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use peersock_overlay::{NodeId, Prefix};

use crate::member::{from_mapped, to_mapped};
use crate::store::{StoreError, Write};

/// For each family, a number below which no address of the pool is free. It saves walks over the whole pool.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hints([u128; 2]);

impl Hints {
    fn of(&mut self, pool: &Prefix) -> &mut u128 {
        &mut self.0[usize::from(pool.address().is_ipv6())]
    }
}

/// First and last address of a pool that members can have, as numbers of mapped addresses.
pub(crate) fn range(pool: &Prefix) -> (u128, u128) {
    let first = u128::from_be_bytes(to_mapped(pool.address()));
    let bits = if pool.address().is_ipv4() { 32 } else { 128 } - u32::from(pool.length());
    let last = first | u128::MAX.checked_shr(128 - bits).unwrap_or(0);
    match pool.address() {
        // The network's own address and the broadcast address.
        IpAddr::V4(_) if bits >= 2 => (first + 1, last - 1),
        IpAddr::V4(_) => (first, last),
        // RFC 4291 (2.6.1): the first address is the routers' anycast address.
        IpAddr::V6(_) if bits >= 1 => (first + 1, last),
        IpAddr::V6(_) => (first, last),
    }
}

/// Returns the number of addresses of a pool that members can have.
pub(crate) fn size(pool: &Prefix) -> u128 {
    let (first, last) = range(pool);
    (last - first).saturating_add(1)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// Gives a node an address of a pool: its earlier one if that still rests, a reserved one, or the lowest free
/// one. `None` if there is none.
pub(crate) fn assign(
    write: &Write<'_>,
    hints: &mut Hints,
    pool: &Prefix,
    node: &NodeId,
    name: &str,
) -> Result<Option<IpAddr>, StoreError> {
    let own = family(pool.address());
    let reserved = write.one(
        "SELECT address FROM reservations WHERE family = ? AND (node = ? OR name = ?) ORDER BY name",
        (own, node.as_bytes(), name),
        |row| row.get::<_, [u8; 16]>(0),
    )?;
    if let Some(address) = reserved {
        // A reservation ends the rest of an address, because a person has decided whose it is.
        write.run("DELETE FROM addresses WHERE address = ? AND until IS NOT NULL", [address])?;
        write.run(
            "DELETE FROM addresses WHERE node = ? AND family = ? AND address <> ?",
            (node.as_bytes(), own, address),
        )?;
        let taken = write.try_run(
            "INSERT INTO addresses (address, family, node) VALUES (?1, ?2, ?3)
                ON CONFLICT (address) DO UPDATE SET until = NULL WHERE node = ?3",
            (address, own, node.as_bytes()),
        )?;
        let holder = write.one("SELECT node FROM addresses WHERE address = ?", [address], |row| {
            row.get::<_, [u8; 32]>(0)
        })?;
        if taken && holder == Some(*node.as_bytes()) {
            return Ok(Some(from_mapped(address)));
        }
    }
    let earlier = write.one(
        "UPDATE addresses SET until = NULL WHERE node = ? AND family = ? RETURNING address",
        (node.as_bytes(), own),
        |row| row.get::<_, [u8; 16]>(0),
    )?;
    if let Some(earlier) = earlier {
        return Ok(Some(from_mapped(earlier)));
    }
    let Some(free) = lowest_free(write, hints, pool)? else { return Ok(None) };
    write.run(
        "INSERT INTO addresses (address, family, node) VALUES (?, ?, ?)",
        (free.to_be_bytes(), own, node.as_bytes()),
    )?;
    Ok(Some(Ipv6Addr::from_bits(free).to_canonical()))
}

fn lowest_free(write: &Write<'_>, hints: &mut Hints, pool: &Prefix) -> Result<Option<u128>, StoreError> {
    let (first, last) = range(pool);
    let mut statement = write.db().prepare("SELECT address FROM reservations WHERE family = ?")?;
    let reserved = statement.query_map([family(pool.address())], |row| row.get::<_, [u8; 16]>(0))?;
    let reserved: BTreeSet<u128> =
        reserved.map(|address| address.map(u128::from_be_bytes)).collect::<Result<_, _>>()?;
    let hint = hints.of(pool);
    let mut free = first.max(*hint);
    let mut statement =
        write.db().prepare("SELECT address FROM addresses WHERE address BETWEEN ? AND ? ORDER BY address")?;
    let mut held = statement.query([free.to_be_bytes(), last.to_be_bytes()])?;
    let mut next = held.next()?.map(|row| row.get(0)).transpose()?.map(u128::from_be_bytes);
    while free <= last && (reserved.contains(&free) || next == Some(free)) {
        if next == Some(free) {
            next = held.next()?.map(|row| row.get(0)).transpose()?.map(u128::from_be_bytes);
        }
        free += 1;
    }
    *hint = free;
    Ok((free <= last).then_some(free))
}
