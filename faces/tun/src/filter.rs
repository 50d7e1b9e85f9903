//! The filter of a device: addresses of the network are used only by way of the device.
//!
//! Linux accepts packets to any address of its machine at any interface (the weak host model of RFC 1122,
//! 3.3.4.2), and for IPv6 from any source. Without a filter, hosts on a local network could reach addresses
//! that only members should reach. They could also forge packets of members, whom the machine's services may
//! trust.
//!
//! ```text
//! arriving   by another interface than the device and lo, the packet is dropped
//!              to an own address there, unless that interface has it, too
//!              from an own address there
//!              from a prefix of the network, if the way back leads to the device
//! leaving    by the device, where this node is an exit, a packet that is passed on is dropped
//!              unless it answers one that came, or has an own address or one of a block behind this node
//! passing    from the device, where this node is an exit, a packet that begins something is dropped
//!              if it leaves by the device of another network
//!              if it is for a public address on one of this machine's links
//!              unless it is for a block behind this node
//! ```
//!
//! A local network whose prefix is part of the network's prefix is not filtered, because the way back leads
//! to it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use crate::nftables::{Family, Hook, Installed, Interface, Rule, Table, Verdict};
use crate::{Settings, Tun, site};

/// Before connection tracking and all translation, so that the packet is unchanged.
const ARRIVING: i32 = -300;

/// The default priority of the machine's other rules.
const PASSING: i32 = 0;

/// After source translation (100), which gives a container's packets the machine's address.
const LEAVING: i32 = 300;

/// The index of the interface `lo` (LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;

/// The index for no interface: the packet is this machine's.
const NONE: u32 = 0;

/// The filter of a device, which exists as long as this. However the process ends, the kernel removes it.
///
/// ```no_run
/// use peersock_tun::{Filter, Settings, Tun};
///
/// let settings = Settings { addresses: vec![("10.7.0.1".parse()?, 24)], ..Settings::new("peersock0") };
/// let tun = Tun::open(&settings)?;
/// let filter = Filter::set(&tun, &settings, None, [&tun])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Filter {
    table: Installed,
    /// The site; `None` if this node is no exit.
    site: Option<Site>,
}

/// The networks to which an exit does not lead, although they have public addresses.
struct Site {
    index: u32,
    /// Blocks behind this node, to which the exit leads nevertheless.
    blocks: Vec<(IpAddr, u8)>,
    /// The devices of all networks.
    devices: BTreeSet<u32>,
    /// The prefixes on this machine's links.
    prefixes: BTreeSet<(IpAddr, u8)>,
}

impl Filter {
    /// Sets the filter of a device with these addresses and routes. For an exit, `blocks` are the blocks
    /// behind it in the network's file besides the Internet, and `all` are the devices of all networks. Needs
    /// `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// The error of the kernel, for example if it has no nf_tables, or a version before Linux 5.12's.
    pub fn set<'a>(
        device: &Tun,
        settings: &Settings,
        blocks: Option<&[(IpAddr, u8)]>,
        all: impl IntoIterator<Item = &'a Tun>,
    ) -> io::Result<Filter> {
        let index = device.index()?;
        let mut table = Table::new(format!("peersock_{}", device.name()));
        arriving(&mut table, index, settings);
        let Some(blocks) = blocks else {
            return Ok(Filter { table: table.install()?, site: None });
        };
        leaving(&mut table, index, settings, blocks);
        let devices = all.into_iter().map(Tun::index).collect::<io::Result<_>>()?;
        let prefixes = site::prefixes(&devices)?;
        let site = Site { index, blocks: blocks.to_vec(), devices, prefixes };
        table.chain(CHAIN, Hook::Forward, PASSING);
        site.rules().for_each(|(rule, verdict)| table.rule(CHAIN, rule, verdict));
        Ok(Filter { table: table.install()?, site: Some(site) })
    }

    /// Updates the filter to the machine's current links, to which an exit does not lead. Needs
    /// `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// The error of the kernel; the filter is then unchanged.
    pub(crate) fn follow(&mut self) -> io::Result<()> {
        let Some(site) = &mut self.site else { return Ok(()) };
        let prefixes = site::prefixes(&site.devices)?;
        if prefixes == site.prefixes {
            return Ok(());
        }
        let before = std::mem::replace(&mut site.prefixes, prefixes);
        self.table.replace(CHAIN, site.rules()).inspect_err(|_| site.prefixes = before)
    }

    /// Returns the socket whose lifetime is the filter's.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.table.socket().as_fd()
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}

/// The chain that changes.
const CHAIN: &str = "passing";

impl Site {
    fn rules(&self) -> impl Iterator<Item = (Rule, Verdict)> {
        let others = self.devices.iter().filter(|device| **device != self.index);
        let to = |(address, length): &(IpAddr, u8)| end(Rule::default(), End::Destination, *address, *length);
        let accepted = [Rule::default().not_interface(Interface::In, self.index), Rule::default().answers()];
        let accepted = accepted.into_iter().chain(self.blocks.iter().map(to));
        let dropped = others.map(|other| Rule::default().interface(Interface::Out, *other));
        let dropped = dropped.chain(self.prefixes.iter().map(to));
        accepted.map(|rule| (rule, Verdict::Accept)).chain(dropped.map(|rule| (rule, Verdict::Drop)))
    }
}

fn arriving(table: &mut Table, index: u32, settings: &Settings) {
    let chain = "arriving";
    table.chain(chain, Hook::PreRouting, ARRIVING);
    for own in [index, LOOPBACK] {
        table.rule(chain, Rule::default().interface(Interface::In, own), Verdict::Accept);
    }
    for (own, length) in own_addresses(settings) {
        let to = end(Rule::default(), End::Destination, own, length);
        table.rule(chain, to.destination_is_elsewhere(), Verdict::Drop);
        table.rule(chain, end(Rule::default(), End::Source, own, length), Verdict::Drop);
    }
    for (address, length) in settings.addresses.iter().chain(&settings.routes) {
        let from = end(Rule::default(), End::Source, *address, *length);
        table.rule(chain, from.source_is_behind(index), Verdict::Drop);
    }
}

fn leaving(table: &mut Table, index: u32, settings: &Settings, blocks: &[(IpAddr, u8)]) {
    let chain = "leaving";
    table.chain(chain, Hook::PostRouting, LEAVING);
    table.rule(chain, Rule::default().not_interface(Interface::Out, index), Verdict::Accept);
    table.rule(chain, Rule::default().interface(Interface::In, NONE), Verdict::Accept);
    table.rule(chain, Rule::default().answers(), Verdict::Accept);
    for (address, length) in own_addresses(settings).chain(blocks.iter().copied()) {
        table.rule(chain, end(Rule::default(), End::Source, address, length), Verdict::Accept);
    }
    table.rule(chain, Rule::default(), Verdict::Drop);
}

/// Returns the device's addresses, each as a prefix of full length.
fn own_addresses(settings: &Settings) -> impl Iterator<Item = (IpAddr, u8)> {
    settings.addresses.iter().map(|(own, _)| (*own, if own.is_ipv4() { 32 } else { 128 }))
}

/// One of the two addresses of a packet.
#[derive(Debug, Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// Matches packets whose address at this end has the first `length` bits of `address`.
fn end(rule: Rule, end: End, address: IpAddr, length: u8) -> Rule {
    // Offsets of the addresses in the headers of RFC 791 and RFC 8200.
    let (family, offset, bytes) = match (address, end) {
        (IpAddr::V4(address), End::Source) => (Family::V4, 12, address.octets().to_vec()),
        (IpAddr::V4(address), End::Destination) => (Family::V4, 16, address.octets().to_vec()),
        (IpAddr::V6(address), End::Source) => (Family::V6, 8, address.octets().to_vec()),
        (IpAddr::V6(address), End::Destination) => (Family::V6, 24, address.octets().to_vec()),
    };
    let mask: Vec<_> = (0..bytes.len() as u32).map(|at| mask_byte(u32::from(length), at)).collect();
    let bytes: Vec<_> = bytes.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
    rule.header(family, offset, &bytes, &mask)
}

/// Returns the byte at position `at` of a mask of `length` bits.
fn mask_byte(length: u32, at: u32) -> u8 {
    let ones = length.saturating_sub(8 * at).min(8);
    !(0xff_u32 >> ones) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_so_many_bits() {
        let mask = |length| (0..4).map(|at| mask_byte(length, at)).collect::<Vec<_>>();
        for length in 0..=32 {
            let expected = u32::MAX.checked_shl(32 - length).unwrap_or(0).to_be_bytes();
            assert_eq!(mask(length), expected, "{length}");
        }
    }
}
