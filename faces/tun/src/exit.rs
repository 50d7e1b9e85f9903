//! Internet access through the device. Routing rules send packets to the device that would leave by the
//! machine's default route, except packets of the user that the node runs as.
//!
//! ```text
//! 7420: not from that user   lookup main, default routes left out     the local network
//! 7421: not from that user   lookup table 74                          default routes to the device
//! 7422: not from that user   unreachable                              nothing goes elsewhere
//! ```
//!
//! The remains are safe when the program is killed. The routes vanish with the device, and the last rule
//! keeps all traffic beyond the local network on the machine. A family that the exit does not carry has no
//! second rule. All rules have a distinctive protocol number, by which the next run finds them.

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

/// The rules' protocol and the number of the table, as `ip rule` and `ip route show table` show them.
pub const EXIT_TABLE: u8 = 74;

/// Priority of the first rule, before the system's default rules (32766 and later).
const FIRST_RULE: u32 = 7420;

/// The exempt user, and the families that the exit carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitRoutes {
    /// The user whose packets leave by the machine's normal routes: the node's user.
    pub user: u32,
    /// True if IPv6 goes to the device, too; otherwise IPv6 beyond the local network is unreachable.
    pub ipv6: bool,
}

impl ExitRoutes {
    /// Sends all packets to the device, except the user's and the local network's. Rules left by a killed run
    /// are replaced without a gap. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `AlreadyExists` if another device uses the table; otherwise the error of the kernel. Call
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

    /// Sets each route that is missing. Calls `done` with each route's name, and true if it was missing; the
    /// result of `done` decides if an error stops the work.
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

/// Returns true if the table has a route to a device.
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

/// Removes all rules of [`ExitRoutes::set`], regardless of which process has set them; the routes vanish with
/// the device. Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// The error of the kernel.
pub fn remove_exit_rules() -> io::Result<()> {
    let socket = open(NETLINK_ROUTE)?;
    for family in present() {
        // Remove the last rule first, because without the first one the second would send local traffic to
        // the exit.
        for rule in own_rules(&socket, family)?.into_iter().rev() {
            delete(&socket, rule)?;
        }
    }
    Ok(())
}

/// Returns true if rules of [`ExitRoutes::set`] exist, regardless of which process has set them.
///
/// # Errors
/// The error of the kernel.
pub fn has_exit_rules() -> io::Result<bool> {
    let socket = open(NETLINK_ROUTE)?;
    for family in present() {
        if !own_rules(&socket, family)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the families that the kernel supports.
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

/// Returns the priority of a rule.
fn place(rule: &RuleMessage) -> Option<u32> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(place) => Some(*place),
        _ => None,
    })
}

/// Returns true if two rules have the same effect and priority, as far as this module's rules differ.
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

/// Deletes a rule; another program may have deleted it before.
fn delete(socket: &Socket, rule: RuleMessage) -> io::Result<()> {
    match exchange(socket, RouteNetlinkMessage::DelRule(rule), NLM_F_ACK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map(drop),
    }
}

/// Returns this module's existing rules, in order.
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
