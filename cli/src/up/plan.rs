//! Assignment of interfaces to networks, before any is created.

use std::net::IpAddr;

use peersock::overlay::Prefix;
use peersock::{Network, PublicIdentity};
use peersock_tun::Settings;

use crate::failure::{Failure, Outcome};

/// The plan of one network.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) settings: Settings,
    /// Address that no other node can be assigned.
    pub(super) first: IpAddr,
}

/// Returns a plan for each network, in order. `names` are the given interface names, which may be fewer.
pub(super) fn of(
    networks: &[Network],
    identity: &PublicIdentity,
    names: &[String],
    mtu: u16,
) -> Outcome<Vec<Plan>> {
    let names = interface_names(networks.len(), names)?;
    let plans = networks.iter().zip(names).map(|(network, name)| {
        let addresses = network
            .addresses_of(identity)
            .ok_or_else(|| Failure::not_a_member(network.id(), "FILE", identity))?;
        let first = addresses[0];
        let (addresses, routes) = placed(network, identity, &addresses);
        Ok(Plan { settings: Settings { mtu, addresses, routes, ..Settings::new(name) }, first })
    });
    let plans = plans.collect::<Outcome<Vec<_>>>()?;
    check_apart(networks, &plans)?;
    Ok(plans)
}

/// Removes IPv6 from the plans, for a machine without it. Fails for a network that has nothing else.
pub(super) fn leave_out_ipv6(networks: &[Network], plans: &mut [Plan]) -> Outcome {
    for (network, plan) in networks.iter().zip(plans) {
        plan.settings.addresses.retain(|(address, _)| address.is_ipv4());
        plan.settings.routes.retain(|(address, _)| address.is_ipv4());
        let Some((first, _)) = plan.settings.addresses.first() else {
            return Err(Failure::new(
                format_args!(
                    "this machine has IPv6 switched off, and this node has no IPv4 address in network {}",
                    network.id()
                ),
                "switch IPv6 on (`sysctl net.ipv6.conf.all.disable_ipv6=0 \
                 net.ipv6.conf.default.disable_ipv6=0`; a container needs it from its start), or give the \
                 members `addresses` of IPv4 in a network's file",
            ));
        };
        plan.first = *first;
    }
    Ok(())
}

/// Returns the names of the interfaces: given ones, else `peersock` with the network's index.
fn interface_names(networks: usize, given: &[String]) -> Outcome<Vec<String>> {
    if given.len() > networks {
        return Err(Failure::usage(
            format_args!("{} interfaces have names, and networks are {networks}", given.len()),
            "give --name once for each network, in the same order",
        ));
    }
    let name = |at: usize| given.get(at).cloned().unwrap_or_else(|| format!("peersock{at}"));
    let names: Vec<_> = (0..networks).map(name).collect();
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, name)) => Err(Failure::usage(
            format_args!("two networks would have the interface {name}"),
            "give each network another --name, in the order of the networks",
        )),
        None => Ok(names),
    }
}

/// Addresses and routes, each with its prefix length.
type Placed = (Vec<(IpAddr, u8)>, Vec<(IpAddr, u8)>);

/// Returns the addresses, each with the length of the network's prefix that contains it, and the other
/// prefixes as routes. A route needs an own address of its family as source. Prefixes behind this node are
/// skipped, because its other interfaces reach them.
fn placed(network: &Network, identity: &PublicIdentity, addresses: &[IpAddr]) -> Placed {
    let own = network.members().iter().find(|member| member.identity == *identity);
    let behind = own.map(|member| member.routes.as_slice()).unwrap_or_default();
    let mut prefixes = network.summary().prefixes;
    prefixes.retain(|prefix| !behind.contains(prefix));
    let whole = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let within = |address: &IpAddr| {
        let prefix = prefixes.iter().find(|prefix| prefix.contains(*address));
        (*address, prefix.map_or(whole(address), |prefix| prefix.length()))
    };
    let placed: Vec<_> = addresses.iter().map(within).collect();
    // For an address, the kernel creates the route to its prefix itself.
    let is_made = |prefix: &Prefix| {
        placed.iter().any(|(own, length)| prefix.contains(*own) && prefix.length() == *length)
    };
    let has_source =
        |prefix: &Prefix| addresses.iter().any(|own| own.is_ipv4() == prefix.address().is_ipv4());
    let others = prefixes.iter().filter(|prefix| !is_made(prefix) && has_source(prefix));
    let routes = others.map(|prefix| (prefix.address(), prefix.length())).collect();
    (placed, routes)
}

/// Rejects networks whose members the kernel would route to another network's interface. It uses the longest
/// prefix, and of equal ones the first.
fn check_apart(networks: &[Network], plans: &[Plan]) -> Outcome {
    let prefixes = plans.iter().enumerate().flat_map(|(at, plan)| {
        let all = plan.settings.addresses.iter().chain(&plan.settings.routes);
        all.filter_map(move |(address, length)| Some((at, Prefix::new(*address, *length)?)))
    });
    let prefixes: Vec<_> = prefixes.collect();
    let clash = |one: usize, other: usize, what: String| {
        Failure::usage(
            format_args!(
                "networks {} and {} both have {what}: the kernel could send that to one of them only",
                networks[one].id(),
                networks[other].id()
            ),
            "give one of them other addresses in its file, or run the command for it in another network \
             namespace",
        )
    };
    for (index, (at, prefix)) in prefixes.iter().enumerate() {
        if let Some((first, _)) = prefixes[..index].iter().find(|(first, same)| first != at && same == prefix)
        {
            return Err(clash(*first, *at, prefix.to_string()));
        }
    }
    for (at, plan) in plans.iter().enumerate() {
        // Addresses derived from keys; no list says which of them members have.
        let certified = plan.settings.addresses.first();
        let certified = certified.and_then(|(address, length)| Prefix::new(*address, *length));
        let is_inside = |prefix: &Prefix| {
            certified.is_some_and(|all| all.contains(prefix.address()) && prefix.length() >= all.length())
        };
        let inside = prefixes.iter().find(|(other, prefix)| *other != at && is_inside(prefix));
        if let Some((other, prefix)) = inside {
            return Err(clash(at, *other, prefix.to_string()));
        }
    }
    for (at, network) in networks.iter().enumerate() {
        for address in network.members().iter().flat_map(|member| &member.addresses) {
            let holding: Vec<_> = prefixes.iter().filter(|(_, prefix)| prefix.contains(*address)).collect();
            let longest = holding.iter().max_by_key(|(_, prefix)| prefix.length());
            // Without an address of that family, this node reaches no such address in the network.
            let is_wanted = holding.iter().any(|(holder, _)| *holder == at);
            if let Some((other, _)) = longest.filter(|(other, _)| is_wanted && *other != at) {
                return Err(clash(at, *other, address.to_string()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use peersock::overlay::Identity;

    use super::*;

    /// Returns a network of two members, each with an optional block of addresses behind it.
    fn network(id: u64, addresses: [&str; 2], routes: [&str; 2]) -> Network {
        let member = |seed: usize| {
            let key = Identity::from_seed(&[seed as u8; 32]);
            let routes = Some(routes[seed]).filter(|route| !route.is_empty());
            let routes = routes.map(|route| format!("routes = [\"{route}\"]\n")).unwrap_or_default();
            format!("[[member]]\nkey = \"{}\"\naddresses = [\"{}\"]\n{routes}", key.public(), addresses[seed])
        };
        let text = format!("network = \"fe{id:014x}\"\n{}{}", member(0), member(1));
        Network::parse_toml(&text).expect("a network")
    }

    fn plans(networks: &[Network], names: &[&str]) -> Outcome<Vec<Plan>> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        of(networks, Identity::from_seed(&[0; 32]).public(), &names, 1420)
    }

    fn refusal(networks: &[Network], names: &[&str]) -> String {
        plans(networks, names).expect_err("it is refused").to_string()
    }

    #[test]
    fn interfaces_have_the_names_given_and_others_by_their_place() {
        let networks =
            [network(1, ["10.1.0.1", "10.1.0.2"], ["", ""]), network(2, ["10.2.0.1", "10.2.0.2"], ["", ""])];
        let names = |given: &[&str]| {
            let plans = plans(&networks, given).expect("plans");
            plans.into_iter().map(|plan| plan.settings.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["peersock0", "peersock1"]);
        assert_eq!(names(&["office0"]), ["office0", "peersock1"]);
        assert_eq!(names(&["office0", "home0"]), ["office0", "home0"]);
        assert!(refusal(&networks, &["a", "b", "c"]).contains("3 interfaces have names, and networks are 2"));
        assert!(refusal(&networks, &["a", "a"]).contains("two networks would have the interface a"));
        assert!(refusal(&networks, &["peersock1"]).contains("the interface peersock1"));
    }

    #[test]
    fn without_ipv6_a_network_keeps_its_ipv4() {
        let networks = [network(1, ["10.1.0.1", "10.1.0.2"], ["", "192.168.5.0/24"])];
        let mut own = plans(&networks, &[]).expect("plans");
        leave_out_ipv6(&networks, &mut own).expect("it has IPv4");
        let address = "10.1.0.1".parse().expect("an address");
        assert_eq!((own[0].first, &own[0].settings.addresses[..]), (address, &[(address, 30)][..]));
        assert_eq!(own[0].settings.routes.len(), 1);
        let open = [Network::ad_hoc("ff0001ffff000000".parse().expect("an ID"))];
        let mut own = plans(&open, &[]).expect("plans");
        let said = leave_out_ipv6(&open, &mut own).expect_err("there is nothing else").to_string();
        assert!(said.contains("no IPv4 address in network ff0001ffff000000"), "{said}");
    }

    #[test]
    fn a_block_behind_a_member_is_routed_though_this_node_s_address_is_in_it() {
        let around = network(1, ["10.1.0.1", "10.1.0.2"], ["", "10.0.0.0/8"]);
        let plans = plans(&[around], &[]).expect("plans");
        let settings = &plans[0].settings;
        assert_eq!(settings.addresses[1], ("10.1.0.1".parse().expect("an address"), 30));
        assert_eq!(settings.routes, [("10.0.0.0".parse().expect("an address"), 8)]);
    }

    #[test]
    fn what_two_networks_have_is_refused_unless_it_lies_behind_this_node() {
        let one = network(1, ["10.1.0.1", "10.1.0.2"], ["", "192.168.5.0/24"]);
        let same_prefix = network(2, ["10.1.0.3", "10.1.0.0"], ["", ""]);
        let said = refusal(&[one.clone(), same_prefix], &[]);
        assert!(said.contains("fe00000000000001 and fe00000000000002 both have 10.1.0.0/30"), "{said}");
        let same_route = network(2, ["10.2.0.1", "10.2.0.2"], ["", "192.168.5.0/24"]);
        assert!(refusal(&[one.clone(), same_route], &[]).contains("both have 192.168.5.0/24"));
        // A member lies inside another network's prefix.
        let wide = network(2, ["10.1.0.9", "10.1.0.200"], ["", ""]);
        assert!(plans(&[network(1, ["10.1.0.1", "10.1.0.100"], ["", ""]), wide], &[]).is_err());
        // A part of the addresses derived from keys of the first network.
        let certified = one.summary().prefixes[0];
        let part = format!("{}/{}", certified.address(), certified.length() + 8);
        let thief = network(2, ["10.2.0.1", "10.2.0.2"], ["", &part]);
        assert!(refusal(&[one.clone(), thief.clone()], &[]).contains(&part));
        assert!(refusal(&[thief, one.clone()], &[]).contains(&part));
        // A block contains another network's prefix; the kernel uses the longer prefix.
        let around = network(2, ["172.16.0.1", "172.16.0.2"], ["", "10.0.0.0/8"]);
        assert_eq!(plans(&[one, around], &[]).expect("plans")[1].settings.routes.len(), 1);
        // This node is the gateway of both networks to one block, which is at neither interface.
        let gateways = [
            network(1, ["10.1.0.1", "10.1.0.2"], ["192.168.5.0/24", ""]),
            network(2, ["10.2.0.1", "10.2.0.2"], ["192.168.5.0/24", ""]),
        ];
        assert!(plans(&gateways, &[]).is_ok());
    }
}
