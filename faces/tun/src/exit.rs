//! The Internet by way of the device: rules that send there what would leave this machine by its own default
//! route, but not the packets of the user that the node runs as.
//!
//! ```text
//! 7420: not from that user   lookup main, default routes left out     the local network
//! 7421: not from that user   lookup table 74                          default routes to the device
//! 7422: not from that user   unreachable                              nothing goes elsewhere
//! ```
//!
//! What is left of it when the program is killed is safe: the routes go with the device, and the last rule
//! keeps everything that is not on the local network on the machine. In a family that the exit does not lead
//! to there is no second rule. All rules have a protocol of their own, by which the next run finds them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteProtocol};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RuleUidRange};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use peersock::overlay::Prefix;

use crate::Tun;
use crate::netlink::{each_route, exchange, open};
use crate::placing::{add_route, is_new, route};

/// The rules' protocol and the number of the table: `ip rule` and `ip route show table` show them so.
pub const EXIT_TABLE: u8 = 74;

/// The place of the first rule: in front of those that systems have by themselves (32766 and later).
const FIRST_RULE: u32 = 7420;

/// Who is left out, and where the device leads to.
///
/// ```
/// let exit = peersock_tun::ExitRoutes { user: 990, ipv6: false };
/// assert_ne!(exit.user, 0, "everything of the system's would go past the exit");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitRoutes {
    /// The user whose packets leave by the machine's own routes: the node's.
    pub user: u32,
    /// Whether IPv6 goes to the device, too; otherwise what is not on the local network is unreachable.
    pub ipv6: bool,
}

impl ExitRoutes {
    /// Sends everything but the user's packets and the local network's to the device. Rules that a killed
    /// run has left are replaced, without a moment in which there are none. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `AlreadyExists` if another device has the table; what the kernel says otherwise. Call
    /// [`remove_exit_rules`] then.
    pub fn set(&self, device: &Tun) -> io::Result<()> {
        let socket = open(NETLINK_ROUTE)?;
        if has_routes(&socket)? {
            let text = format!("table {EXIT_TABLE} has routes: another program leads to an exit here");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        self.place_routes(&socket, device.index()?, |_, added| added.map(drop))?;
        self.place_rules(&socket, |_, added| added.map(drop))?;
        for family in present() {
            let wanted = self.rules(family);
            let is_old = |rule: &RuleMessage| !wanted.iter().any(|wanted| is_same(wanted, rule));
            own_rules(&socket, family)?
                .into_iter()
                .filter(is_old)
                .try_for_each(|rule| delete(&socket, rule))?;
        }
        Ok(())
    }

    /// Sets each route that is missing; `done` is told each one's name, and whether it was missing. It
    /// decides by its result whether an error ends this.
    pub(crate) fn place_routes(
        &self,
        socket: &Socket,
        index: u32,
        mut done: impl FnMut(String, io::Result<bool>) -> io::Result<()>,
    ) -> io::Result<()> {
        let families =
            [(IpAddr::from(Ipv4Addr::UNSPECIFIED), true), (Ipv6Addr::UNSPECIFIED.into(), self.ipv6)];
        for (any, _) in families.into_iter().filter(|(_, is_carried)| *is_carried) {
            let Some(prefix) = Prefix::new(any, 0) else { continue };
            let route = route(index, prefix, EXIT_TABLE, None);
            let name = format!("the route to {prefix} in table {EXIT_TABLE}");
            done(name, add_route(socket, route, NLM_F_EXCL))?;
        }
        Ok(())
    }

    /// Sets each rule that is missing, as [`ExitRoutes::place_routes`] does.
    pub(crate) fn place_rules(
        &self,
        socket: &Socket,
        mut done: impl FnMut(String, io::Result<bool>) -> io::Result<()>,
    ) -> io::Result<()> {
        for family in present() {
            for rule in self.rules(family) {
                let name = format!("rule {} of {}", place(&rule).unwrap_or_default(), version(family));
                let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
                done(name, is_new(exchange(socket, RouteNetlinkMessage::NewRule(rule), flags)))?;
            }
        }
        Ok(())
    }

    fn rules(&self, family: AddressFamily) -> Vec<RuleMessage> {
        rules(family, self.user, family == AddressFamily::Inet || self.ipv6)
    }
}

fn version(family: AddressFamily) -> &'static str {
    if family == AddressFamily::Inet { "IPv4" } else { "IPv6" }
}

/// Returns true if the table leads to a device.
fn has_routes(socket: &Socket) -> io::Result<bool> {
    let mut is_found = false;
    for family in present() {
        each_route(socket, family, |route| {
            let leads = route.attributes.iter().any(|one| matches!(one, RouteAttribute::Oif(_)));
            is_found |= route.header.table == EXIT_TABLE && leads;
        })?;
    }
    Ok(is_found)
}

/// Removes all rules of [`ExitRoutes::set`], whoever has set them; the routes go with the device. Needs
/// `CAP_NET_ADMIN`.
///
/// # Errors
/// What the kernel says.
pub fn remove_exit_rules() -> io::Result<()> {
    let socket = open(NETLINK_ROUTE)?;
    for family in present() {
        // The last first: with the first one gone, the second would send the local network's to the exit.
        for rule in own_rules(&socket, family)?.into_iter().rev() {
            delete(&socket, rule)?;
        }
    }
    Ok(())
}

/// Whether there are rules of [`ExitRoutes::set`], whoever has set them.
///
/// # Errors
/// What the kernel says.
pub fn has_exit_rules() -> io::Result<bool> {
    let socket = open(NETLINK_ROUTE)?;
    for family in present() {
        if !own_rules(&socket, family)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The families that the kernel has.
pub(crate) fn present() -> impl Iterator<Item = AddressFamily> {
    let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
    [AddressFamily::Inet].into_iter().chain(has_ipv6.then_some(AddressFamily::Inet6))
}

fn rules(family: AddressFamily, user: u32, is_carried: bool) -> Vec<RuleMessage> {
    let rule = |place: u32, action: RuleAction, table: u8, more: &[RuleAttribute]| {
        let mut rule = RuleMessage::default();
        rule.header.family = family;
        rule.header.table = table;
        rule.header.action = action;
        rule.header.flags = RuleFlags::Invert;
        rule.attributes = vec![
            RuleAttribute::Priority(FIRST_RULE + place),
            RuleAttribute::UidRange(RuleUidRange { start: user, end: user }),
            RuleAttribute::Protocol(RouteProtocol::Other(EXIT_TABLE)),
        ];
        rule.attributes.extend_from_slice(more);
        rule
    };
    let local = [RuleAttribute::SuppressPrefixLen(0)];
    let mut rules = vec![rule(0, RuleAction::ToTable, RouteHeader::RT_TABLE_MAIN, &local)];
    if is_carried {
        rules.push(rule(1, RuleAction::ToTable, EXIT_TABLE, &[]));
    }
    rules.push(rule(2, RuleAction::Unreachable, 0, &[]));
    rules
}

/// The place of a rule among all.
fn place(rule: &RuleMessage) -> Option<u32> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(place) => Some(*place),
        _ => None,
    })
}

/// Whether two rules do the same at the same place, as far as ours differ.
fn is_same(one: &RuleMessage, other: &RuleMessage) -> bool {
    let user = |rule: &RuleMessage| {
        rule.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::UidRange(range) => Some(*range),
            _ => None,
        })
    };
    (place(one), user(one), one.header.action) == (place(other), user(other), other.header.action)
}

fn is_own(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(EXIT_TABLE)))
}

/// Deletes a rule; another program may have done so.
fn delete(socket: &Socket, rule: RuleMessage) -> io::Result<()> {
    match exchange(socket, RouteNetlinkMessage::DelRule(rule), NLM_F_ACK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map(drop),
    }
}

/// The rules that are there and ours, in their order.
fn own_rules(socket: &Socket, family: AddressFamily) -> io::Result<Vec<RuleMessage>> {
    let mut question = RuleMessage::default();
    question.header.family = family;
    let answers = exchange(socket, RouteNetlinkMessage::GetRule(question), NLM_F_DUMP)?;
    let rules = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewRule(rule) => Some(rule),
        _ => None,
    });
    Ok(rules.filter(is_own).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_by_another_way_whether_the_family_is_carried_or_not() {
        for (is_carried, tables) in [(true, &[254, EXIT_TABLE, 0][..]), (false, &[254, 0])] {
            let rules = rules(AddressFamily::Inet6, 990, is_carried);
            assert_eq!(rules.iter().map(|rule| rule.header.table).collect::<Vec<_>>(), tables);
            assert_eq!(rules.last().unwrap().header.action, RuleAction::Unreachable);
            assert!(rules.iter().all(|rule| is_own(rule) && rule.header.flags == RuleFlags::Invert));
            let user = RuleAttribute::UidRange(RuleUidRange { start: 990, end: 990 });
            assert!(rules.iter().all(|rule| rule.attributes.contains(&user)));
        }
    }

    #[test]
    fn a_rule_of_another_run_is_the_same_only_for_the_same_user() {
        let [one, same, other] = [990, 990, 991].map(|user| rules(AddressFamily::Inet, user, true));
        assert!(one.iter().zip(&same).all(|(one, same)| is_same(one, same)));
        assert!(!one.iter().any(|one| other.iter().any(|other| is_same(one, other))));
        assert!(!is_same(&one[0], &one[1]) && !is_same(&one[1], &one[2]));
    }
}
