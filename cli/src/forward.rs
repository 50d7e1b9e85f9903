//! `peersock forward`

use std::net::IpAddr;
use std::time::Duration;

use peersock::Network;
use peersock_proxy::{Forward, ForwardSettings, Forwards, Host, Place, Protocol};

use crate::args::{NetworkArgs, SharedNodeArgs, managed_target, parse_seconds, parse_targets};
use crate::failure::{Failure, Outcome};
use crate::open_network;
use crate::output;
use crate::serving::{IdentityArgs, Said, Serving, ServingArgs, listen_failure, tell};
use crate::session;

/// Forward connections and datagrams into the network, or from the network to a local service
///
/// A client that connects to LOCAL is connected to REMOTE. One of the two is on the overlay: LOCAL if it
/// begins with overlay:, which is a port of this node, and otherwise REMOTE. Several pairs may be given. When
/// clients can connect to a LOCAL, a line on stdout shows the pair as it was given, with the chosen port in
/// place of 0.
///
/// LOCAL is PORT (of 127.0.0.1), ADDRESS:PORT, *:PORT for all addresses, unix:PATH, systemd:NAME for a socket
/// that systemd has opened, or overlay:PORT or overlay:ADDRESS:PORT. REMOTE is a member's ADDRESS:PORT or
/// NAME:PORT. If LOCAL is on the overlay, REMOTE is HOST:PORT, PORT or unix:PATH of the system. The prefix
/// udp: on either one forwards datagrams: each client address has a separate flow, which ends after
/// --udp-idle without a datagram.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock forward -n ff0001ffff000000 127.0.0.1:8080 '[fd12:3456:789a:…]:80'
  peersock forward -n office.toml overlay:8080 127.0.0.1:80   # as -R 8080:127.0.0.1:80
  peersock forward -n office.toml 8081 alpha:80               # as -L 8081:alpha:80
  peersock forward -n office.toml 2222 alpha:22 udp:5353 alpha:53 unix:/run/web alpha:80")]
pub(crate) struct Args {
    #[arg(help = "Pairs of places: LOCAL accepts clients, REMOTE is their destination")]
    #[arg(value_names = ["LOCAL", "REMOTE"], required_unless_present_any = ["to_members", "from_members"])]
    places: Vec<String>,

    /// As `ssh -L`: lead clients of this machine's port to a member's HOST:PORT; may be repeated
    #[arg(short = 'L', value_name = "[ADDRESS:]PORT:HOST:PORT")]
    to_members: Vec<String>,

    /// As `ssh -R`: lead members that connect to this node's port to HOST:PORT of the system; may be repeated
    #[arg(short = 'R', value_name = "[ADDRESS:]PORT:HOST:PORT")]
    from_members: Vec<String>,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: SharedNodeArgs,

    /// End a flow of datagrams after SECONDS without a datagram
    #[arg(long, value_name = "SECONDS", value_parser = parse_idle, default_value = "60")]
    udp_idle: Duration,

    #[command(flatten)]
    identity: IdentityArgs,

    #[command(flatten)]
    serving: ServingArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut forwards = forwards(&args.places)?;
    forwards.extend(args.to_members.iter().map(|text| as_ssh(text, "")).collect::<Outcome<Vec<_>>>()?);
    forwards
        .extend(args.from_members.iter().map(|text| as_ssh(text, "overlay:")).collect::<Outcome<Vec<_>>>()?);
    let introduction = args.identity.introduction();
    let is_from_members = |forward: &Forward| {
        forward.protocol == Protocol::Tcp && matches!(forward.local, Place::Overlay { .. })
    };
    if introduction.is_some() && !forwards.iter().all(is_from_members) {
        return Err(Failure::usage(
            "--identity tells services of this machine who has connected, and a pair leads elsewhere",
            "give only pairs from overlay:PORT, or -R, without udp:; start another `peersock forward` for others",
        ));
    }
    output::check_open()?;
    let network = args.network.resolve_for(&args.node, &args.node.state)?;
    // A mistake in a place starts no node, which its peers would then miss.
    let targets: Vec<_> =
        forwards.iter_mut().map(|forward| check_remote(&network, forward)).collect::<Outcome<_>>()?;
    let mut serving = Serving::open_in("forward", &args.serving, &args.node, network)?;
    let timeout = args.serving.timeout(&args.node);
    for target in targets.into_iter().flatten() {
        match target {
            Remote::Address(address) => serving.member.check_address(address)?,
            Remote::Named(name) => drop(serving.member.find_named(&name, timeout)?),
        }
    }
    let settings =
        ForwardSettings { timeout, udp_idle: args.udp_idle, most: args.serving.most(), introduction };
    let listening = serving.begin(async |overlay, activated| {
        Forwards::listen(overlay, &forwards, settings, activated, tell()).await
    });
    let listening = listening.map_err(|error| listen_failure(error, Said::Local))?;
    let (lines, stopper) = (listening.lines().to_vec(), listening.stopper());
    if forwards.iter().any(|forward| matches!(forward.local, Place::Overlay { .. })) {
        open_network::tell([serving.member.network()]);
    }
    serving.run(&lines, stopper, listening.run())
}

/// Parses pairs of places.
fn forwards(places: &[String]) -> Outcome<Vec<Forward>> {
    let (pairs, rest) = places.as_chunks::<2>();
    if let [alone] = rest {
        return Err(Failure::usage(
            format_args!("`{alone}` has no REMOTE: places come in pairs"),
            "give LOCAL and REMOTE, as in `peersock forward 8080 alpha:80`",
        ));
    }
    pairs.iter().map(parse).collect()
}

fn parse([local, remote]: &[String; 2]) -> Outcome<Forward> {
    Forward::parse(local, remote).map_err(|error| {
        Failure::usage(
            format_args!("{error}"),
            "write LOCAL and REMOTE as in `peersock forward 8080 alpha:80` or `peersock forward overlay:80 8080`",
        )
    })
}

/// Parses a forward as ssh writes it: `[ADDRESS:]PORT:HOST:PORT`. `side` is the prefix of its first place.
fn as_ssh(text: &str, side: &str) -> Outcome<Forward> {
    // Colons in brackets belong to an address.
    let mut depth = 0;
    let words: Vec<_> = text
        .split(|c| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            c == ':' && depth == 0
        })
        .collect();
    let (local, remote) = match words[..] {
        [port, host, host_port] => (format!("{side}{port}"), format!("{host}:{host_port}")),
        [address, port, host, host_port] => {
            let address = if address.is_empty() { "*" } else { address };
            (format!("{side}{address}:{port}"), format!("{host}:{host_port}"))
        }
        _ => {
            return Err(Failure::usage(
                format_args!("`{text}` has not the form of ssh's -L and -R"),
                "write PORT:HOST:PORT or ADDRESS:PORT:HOST:PORT, as in `peersock forward -L 8081:alpha:80`; \
                 put an IPv6 address in brackets",
            ));
        }
    };
    Forward::parse(&local, &remote).map_err(|error| {
        Failure::usage(
            format_args!("`{text}`: {error}"),
            "write [ADDRESS:]PORT:HOST:PORT, as in `peersock forward -L 8081:alpha:80` or `peersock forward -R \
             8080:localhost:80`; ADDRESS may be * or empty, for all, and IPv6 addresses stand in brackets",
        )
    })
}

/// Member that is a forward's destination, which the node has to check.
enum Remote {
    Address(IpAddr),
    /// Member of a managed network.
    Named(String),
}

/// Rejects impossible targets: names that no member has, and ports that the network does not allow. Also
/// members as targets of members, which they reach without this node. Returns the member. Its name stays in
/// the forward without the network's.
fn check_remote(network: &Network, forward: &mut Forward) -> Outcome<Option<Remote>> {
    let remote = forward.remote.to_string();
    let Some(target) = remote.strip_prefix("overlay:") else {
        return check_host(network, &forward.remote).map(|()| None);
    };
    if let Some((name, port)) = managed_target(network, target) {
        session::check_port(network, port)?;
        forward.remote = Place::Overlay { host: Some(Host::Name(name.clone())), port };
        return Ok(Some(Remote::Named(name)));
    }
    let target = parse_targets(network, target)?[0];
    if target.ip().is_loopback() || target.ip().is_unspecified() {
        return Err(Failure::usage(
            format_args!("{remote} is no place on the overlay: {} is this machine itself", target.ip()),
            format_args!(
                "write `overlay:PORT {0}` to have members reach port {0} of this machine",
                target.port()
            ),
        ));
    }
    session::check_address(network, target.ip())?;
    session::check_port(network, target.port())?;
    Ok(Some(Remote::Address(target.ip())))
}

/// Refuses a member's name as a host of the system.
fn check_host(network: &Network, remote: &Place) -> Outcome {
    match remote {
        Place::System { host: Some(Host::Name(name)), port } if !network.addresses_named(name).is_empty() => {
            Err(Failure::usage(
                format_args!(
                    "`{name}` is a member, and what comes from members is led to the system's network"
                ),
                format_args!(
                    "let members connect to {name}:{port} themselves; write the address of a host of that name"
                ),
            ))
        }
        _ => Ok(()),
    }
}

fn parse_idle(text: &str) -> Result<Duration, String> {
    match parse_seconds(text)? {
        Duration::ZERO => Err("give more than 0 seconds, such as 60".to_owned()),
        idle => Ok(idle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_written_as_for_ssh_too() {
        for (text, side, written) in [
            ("8081:alpha:80", "", "tcp:127.0.0.1:8081 tcp:overlay:alpha:80"),
            ("*:8081:alpha:80", "", "tcp:*:8081 tcp:overlay:alpha:80"),
            (":8081:alpha:80", "", "tcp:*:8081 tcp:overlay:alpha:80"),
            ("[::1]:8081:[fd00::1]:80", "", "tcp:[::1]:8081 tcp:overlay:[fd00::1]:80"),
            ("8080:localhost:80", "overlay:", "tcp:overlay:*:8080 tcp:localhost:80"),
            ("[fd00::1]:8080:127.0.0.1:80", "overlay:", "tcp:overlay:[fd00::1]:8080 tcp:127.0.0.1:80"),
        ] {
            assert_eq!(as_ssh(text, side).unwrap_or_else(|error| panic!("{error}")).to_string(), written);
        }
        for text in ["", "8081", "alpha:80", "8081:alpha:99999", "a:b:c:d:e", "8081:fd00::1:80"] {
            assert_eq!(as_ssh(text, "").unwrap_err().status(), 2, "{text}");
        }
    }
}
