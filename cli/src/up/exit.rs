//! `peersock up --exit`: Internet access through a member, or for members.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use peersock::overlay::{Exit, StaticMember};
use peersock::{Network, PublicIdentity, RootSource};
use peersock_tun::{EXIT_TABLE, ExitRoutes, Tun, User};

use super::PRIVILEGE;
use super::guard::Guard;
use crate::failure::{Failure, Outcome};
use crate::stdio;

#[derive(clap::Args)]
pub(super) struct ExitArgs {
    /// Reach the Internet through MEMBER, given by name or address; needs --user
    ///
    /// A network's file must give the member `routes = ["0.0.0.0/0", "::/0"]`, and its machine must forward
    /// (docs/use/NETWORKS.md). The local network stays reachable; everything else that the exit does not
    /// carry is unreachable.
    #[arg(long, value_name = "MEMBER")]
    exit: Option<String>,

    /// Continue as the user NAME after the interfaces exist
    ///
    /// With --exit, packets of this user bypass the exit, because the node itself sends its packets as this
    /// user. No other program should run as this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl ExitArgs {
    /// Returns the user that the process changes to, if one is named.
    pub(super) fn user(&self) -> Outcome<Option<User>> {
        let Some(name) = &self.user else {
            return match self.exit {
                None => Ok(None),
                Some(_) => Err(Failure::usage(
                    "--exit needs a separate user for the node, because only packets of this user bypass the \
                     exit",
                    "make one with `useradd --system peersock`, and give it with --user peersock",
                )),
            };
        };
        let user = User::named(name).map_err(|error| {
            Failure::new(
                format_args!("cannot look for the user {name}: {error}"),
                "check that `getent passwd` lists users",
            )
        })?;
        match user {
            Some(user) if self.exit.is_some() && user.is_root() => Err(Failure::usage(
                format_args!("everything that {name} sends would bypass the exit"),
                "make a user that nothing else runs as with `useradd --system peersock`, and give it with \
                 --user peersock",
            )),
            Some(user) => {
                if self.exit.is_some() && name == "nobody" {
                    stdio::note(
                        "warning: other services that run as `nobody` bypass the exit, too: make a separate \
                         user for this (`useradd --system peersock`)",
                    );
                }
                Ok(Some(user))
            }
            None => Err(Failure::usage(
                format_args!("this machine has no user {name}"),
                format_args!("make it with `useradd --system {name}`"),
            )),
        }
    }

    /// Adds to file errors that the files were opened as the user.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        let message = failure.message().to_lowercase();
        // The first text is the system's, the second the library's for a state of another user.
        let is_foreign = ["permission denied", "belongs to user"].iter().any(|words| message.contains(words));
        match &self.user {
            Some(name) if is_foreign => Failure::with_status(
                failure.status(),
                format_args!("as user {name}: {}", failure.message()),
                format_args!(
                    "give {name} the files: `install -d -m 700 -o {name} DIR` for --state DIR, and the \
                         right to read the network's file"
                ),
            ),
            _ => failure,
        }
    }

    /// Configures the networks to use the named exit, or this node as an exit if a file says so.
    pub(super) fn choose(&self, networks: &mut [Network], own: &PublicIdentity) -> Outcome<Option<Chosen>> {
        let chosen = self.exit.as_deref().map(|name| find(networks, own, name)).transpose()?;
        for (at, network) in networks.iter_mut().enumerate() {
            let listed = network.members().iter().find(|member| member.identity == *own);
            let leads = listed.map_or(Exit::default(), |member| member.exit);
            let exit = match &chosen {
                Some(chosen) if chosen.at == at => &chosen.member.identity,
                _ if leads.is_any() => {
                    warn_of_no_forwarding(leads);
                    own
                }
                _ => continue,
            };
            *network = network.clone().with_exit(exit).map_err(|error| {
                Failure::usage(
                    format_args!("the exit cannot be used: {error}"),
                    "look at the members' routes with `peersock network show`",
                )
            })?;
        }
        Ok(chosen)
    }
}

/// The member that leads to the Internet.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Index of the member's network.
    pub(super) at: usize,
    member: StaticMember,
    name: String,
    /// True if the exit supports IPv6, and so does this machine.
    pub(super) ipv6: bool,
    /// Host names at which the file says the exit is reached.
    hosts: Vec<String>,
}

/// Finds the member with that name or address. Fails if it may not be an exit, or this node has no address to
/// use it with.
fn find(networks: &[Network], own: &PublicIdentity, name: &str) -> Outcome<Chosen> {
    let is_so = |network: &Network, member: &StaticMember| {
        let is_named = member.name.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(name));
        let addresses = || network.addresses_of(&member.identity).unwrap_or_default();
        is_named || name.parse().is_ok_and(|address| addresses().contains(&address))
    };
    let mut found = networks.iter().enumerate().filter_map(|(at, network)| {
        Some((at, network.members().iter().find(|member| is_so(network, member))?.clone()))
    });
    let first = found.next();
    if let (Some((one, _)), Some((other, _))) = (&first, found.next()) {
        return Err(Failure::usage(
            format_args!(
                "two networks have a member `{name}`: {} and {}",
                networks[*one].id(),
                networks[other].id()
            ),
            "give the address of the intended member; `peersock network show` lists them",
        ));
    }
    let Some((at, member)) = first else {
        let by_file = networks.iter().any(|network| network.summary().by_file);
        return Err(match by_file {
            true => Failure::usage(
                format_args!("no network's file lists a member `{name}`"),
                "give the name or an address of a member; `peersock network show` lists them",
            ),
            false => Failure::usage(
                "an ad-hoc network has no exit, because no file says which member to trust",
                "make a file with `peersock network new`, and add the exit with `peersock network add \
                 --route 0.0.0.0/0 --route ::/0`",
            ),
        });
    };
    let network = networks[at].id();
    if member.identity == *own {
        return Err(Failure::usage(
            format_args!("`{name}` is this node itself"),
            "leave --exit out here: the network's file alone makes a node an exit",
        ));
    }
    if !member.exit.is_any() {
        return Err(Failure::usage(
            format_args!(
                "`{name}` may not be an exit in network {network}: its file gives it no default route"
            ),
            "write 0.0.0.0/0 and ::/0 into its `routes` in the file, and give all members the new file",
        ));
    }
    let addresses = networks[at].addresses_of(own).unwrap_or_default();
    if !member.exit.ipv4 || !addresses.iter().any(|address| address.is_ipv4()) {
        return Err(Failure::usage(
            format_args!("`{name}` carries no IPv4 for this node, and the machine needs IPv4"),
            "give the exit the route 0.0.0.0/0 and this node an IPv4 address, as `addresses` in the \
             network's file",
        ));
    }
    let ipv6 = member.exit.ipv6;
    let hosts = networks[at].host_endpoints(&member.identity).iter().map(|one| one.host().to_owned());
    Ok(Chosen { at, name: name.to_owned(), ipv6, hosts: hosts.collect(), member })
}

impl Chosen {
    /// Returns the routes and rules that send the machine's traffic to the exit.
    pub(super) fn routes(&self, user: User) -> ExitRoutes {
        ExitRoutes { user: user.id(), ipv6: self.ipv6 }
    }

    /// Installs the exit's routes until the guard is released; on failure the guard ends.
    pub(super) fn start(routes: ExitRoutes, tun: &Tun, guard: Guard) -> Outcome<Guard> {
        let Err(error) = routes.set(tun) else { return Ok(guard) };
        let failure = match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::new(
                format_args!("cannot lead to an exit: {error}"),
                format_args!(
                    "stop the other `peersock up --exit`; `ip route show table {EXIT_TABLE}` has its interface"
                ),
            ),
            io::ErrorKind::PermissionDenied => {
                Failure::new(format_args!("cannot set the rules for the exit: {error}"), PRIVILEGE)
            }
            _ => Failure::new(
                format_args!("cannot set the rules for the exit: {error}"),
                format_args!("look at the output of `ip rule` and `ip route show table {EXIT_TABLE}`"),
            ),
        };
        // Existing rules belong to another running command and must not be removed.
        match error.kind() {
            io::ErrorKind::AlreadyExists => guard.dismiss(),
            _ => guard.release(),
        }
        Err(failure)
    }

    /// Prints what the user must know. A resolver on this machine runs as another user than the node, so it
    /// asks its servers through the exit unless they are local. Then it cannot find the exit's address.
    pub(super) fn describe(&self, roots: &[RootSource], resolvers: &[IpAddr]) {
        stdio::note(format_args!(
            "traffic outside the local network goes through {}, {}",
            self.name,
            if self.ipv6 { "in IPv4 and IPv6" } else { "in IPv4; IPv6 goes nowhere: the exit has none" }
        ));
        let resolvers: Vec<_> = resolvers.iter().map(ToString::to_string).collect();
        stdio::note(match resolvers.is_empty() {
            true => "names are asked of the same servers as before: one on the local network sees them \
                     (--exit-dns asks another)"
                .to_owned(),
            false => format!("names are asked of {} by way of the exit", resolvers.join(" and ")),
        });
        let names: Vec<_> = self.hosts.iter().cloned().chain(roots.iter().flat_map(names_of)).collect();
        if !names.is_empty() {
            stdio::note(format_args!(
                "the exit is reached by names, and a resolver on this machine may need the exit to resolve \
                 them: give addresses in place of {}",
                names.join(", ")
            ));
        }
    }
}

/// Returns the names by which a root is found, if it has no addresses.
fn names_of(root: &RootSource) -> Vec<String> {
    match root {
        RootSource::Address(root) => {
            let hosts = root.endpoints().iter().filter_map(|endpoint| endpoint.host_endpoint());
            hosts.map(|endpoint| endpoint.host().to_owned()).collect()
        }
        RootSource::Dns(domain) if domain.server().is_none() => vec![root.to_string()],
        _ => Vec::new(),
    }
}

/// Warns if the kernel of an exit does not forward.
fn warn_of_no_forwarding(exit: Exit) {
    let settings = [
        (exit.ipv4, "net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        (exit.ipv6, "net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"),
    ];
    for (_, name, _) in settings.iter().filter(|(is_wanted, _, file)| *is_wanted && number(file) == Some(0)) {
        stdio::note(format_args!(
            "the network's file makes this node an exit, and its kernel does not forward: `sysctl -w \
             {name}=1` (docs/use/NETWORKS.md says what else an exit needs)"
        ));
    }
}

/// Fails if the kernel would drop packets from peers to the node: with a strict reverse path filter (RFC
/// 3704, 2.2), they arrive on another interface than the exit's, to which the route back leads.
pub(super) fn check_filters() -> Outcome {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let of = |interface: &str| number(format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter")).unwrap_or(0);
    // The kernel uses the larger value (ip-sysctl.rst).
    let strict = default_interfaces(&routes).into_iter().find(|name| of(name).max(of("all")) == 1);
    let Some(interface) = strict else { return Ok(()) };
    Err(Failure::new(
        format_args!(
            "the kernel would drop packets for the node on {interface}, because its rp_filter is strict"
        ),
        // In names of sysctl(8) a slash replaces a dot, as in names of VLAN interfaces.
        format_args!(
            "set it to loose with `sysctl -w net.ipv4.conf.{}.rp_filter=2`",
            interface.replace('.', "/")
        ),
    ))
}

/// Returns the interfaces of IPv4 default routes in /proc/net/route.
fn default_interfaces(routes: &str) -> Vec<&str> {
    let lines = routes.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_default = |words: &&Vec<&str>| words.len() > 7 && words[1] == "00000000" && words[7] == "00000000";
    let lines: Vec<_> = lines.collect();
    lines.iter().filter(is_default).map(|words| words[0]).collect()
}

fn number(file: impl AsRef<Path>) -> Option<u8> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use peersock::overlay::Identity;

    use super::*;

    fn key(seed: u8) -> PublicIdentity {
        *Identity::from_seed(&[seed; 32]).public()
    }

    /// Returns a network with this node, an exit with these routes, and a member that is not an exit.
    fn network(own_address: &str, routes: &str) -> Network {
        let text = format!(
            "network = \"fe00000000000001\"\n\
             [[member]]\nkey = \"{}\"\naddresses = [{own_address}]\n\
             [[member]]\nkey = \"{}\"\nname = \"gate\"\naddresses = [\"10.7.0.2\"]\nroutes = [{routes}]\n\
             [[member]]\nkey = \"{}\"\nname = \"plain\"\nroutes = [\"192.168.5.0/24\"]\n",
            key(0),
            key(1),
            key(2)
        );
        Network::parse_toml(&text).expect("a network")
    }

    fn chosen(exit: &str, networks: &mut [Network]) -> Outcome<Option<Chosen>> {
        let args = ExitArgs { exit: Some(exit.to_owned()), user: None };
        args.choose(networks, &key(0))
    }

    #[test]
    fn an_exit_is_found_by_its_name_or_address_in_any_of_the_networks() {
        let both = network("\"10.7.0.1\"", "\"0.0.0.0/0\", \"::/0\"");
        let open = Network::ad_hoc("ff0001ffff000000".parse().unwrap());
        let address = both.addresses_of(&key(1)).unwrap()[0].to_string();
        for name in ["gate", "Gate", "10.7.0.2", &address] {
            let chosen = chosen(name, &mut [open.clone(), both.clone()]).unwrap().unwrap();
            assert_eq!((chosen.at, chosen.ipv6), (1, true), "{name}");
        }
        let only_ipv4 = network("\"10.7.0.1\"", "\"0.0.0.0/0\"");
        assert!(!chosen("gate", &mut [only_ipv4]).unwrap().unwrap().ipv6);
    }

    #[test]
    fn nobody_else_is_an_exit_and_the_reason_is_said() {
        let both = network("\"10.7.0.1\"", "\"0.0.0.0/0\", \"::/0\"");
        let refusal = |name: &str, network: &Network| {
            chosen(name, &mut [network.clone()]).expect_err("it is refused").to_string()
        };
        assert!(refusal("plain", &both).contains("may not be an exit in network fe00000000000001"));
        assert!(refusal("nobody", &both).contains("lists a member `nobody`"));
        assert!(refusal("10.7.0.1", &both).contains("is this node itself"));
        let twice = chosen("gate", &mut [both.clone(), both.clone()]).expect_err("nobody knows which");
        assert!(twice.to_string().contains("two networks have a member `gate`"), "{twice}");
        let open = Network::ad_hoc("ff0001ffff000000".parse().unwrap());
        assert!(refusal("gate", &open).contains("an ad-hoc network has no exit"));
        for network in [network("", "\"0.0.0.0/0\", \"::/0\""), network("\"10.7.0.1\"", "\"::/0\"")] {
            assert!(refusal("gate", &network).contains("carries no IPv4"));
        }
    }

    #[test]
    fn an_exit_needs_a_user_that_is_not_root() {
        let user = |exit: Option<&str>, user: Option<&str>| {
            ExitArgs { exit: exit.map(str::to_owned), user: user.map(str::to_owned) }.user()
        };
        assert!(user(None, None).unwrap().is_none());
        assert!(user(Some("gate"), None).unwrap_err().to_string().contains("--user peersock"));
        assert!(user(Some("gate"), Some("root")).unwrap_err().to_string().contains("bypass the exit"));
        assert!(user(None, Some("no-such-user-here")).unwrap_err().to_string().contains("has no user"));
    }

    #[test]
    fn interfaces_with_a_default_route_are_found() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                      eth0\t00000000\t0105A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                      eth0\t0005A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
                      wlan0\t00000000\t0106A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n";
        assert_eq!(default_interfaces(routes), ["eth0", "wlan0"]);
        assert!(default_interfaces("").is_empty());
    }
}
