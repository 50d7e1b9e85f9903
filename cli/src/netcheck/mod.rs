//! `peersock netcheck`

mod show;

use std::env;

use peersock::{RootAddress, RootTransport};
use peersock_nat::netcheck::{self, Target, Transport};

use crate::failure::{Failure, Outcome};
use crate::output::print;

/// Servers to ask, with white space between them, where no --stun is given.
const STUN_VARIABLE: &str = "PEERSOCK_STUN";
/// The roots that nodes use.
const ROOTS_VARIABLE: &str = "PEERSOCK_ROOTS";

/// Show what network this machine is in: interfaces, NAT, what is blocked, and what to do about it
///
/// Asks the given STUN servers, and the roots that PEERSOCK_ROOTS names, from every interface: as what they see
/// this machine, and how long they take to answer. From that follows what NAT there is. The routers are asked
/// whether they open ports, the nameservers whether they answer. No server is asked that nobody named: without any,
/// the kind of NAT stays unknown. It ends within six seconds, whatever the network, and with status 0 also where
/// everything is blocked.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock netcheck
  peersock netcheck --stun stun.example.org:3478 --stun 192.0.2.1:3478
  PEERSOCK_ROOTS=\"$(cat roots)\" peersock netcheck --interface eth0
  peersock netcheck --json --stun 192.0.2.1:3478 | jq '.interfaces[] | {name, nat: .ipv4.kind}'")]
pub(crate) struct Args {
    /// A STUN server to ask; may be given several times. One that knows RFC 5780 (coturn does) tells most, two
    /// others tell how the NAT maps [env: PEERSOCK_STUN]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_server)]
    stun: Vec<Target>,

    /// Look at this network interface only; may be given several times
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,

    /// Print one JSON object; docs/NETCHECK.md explains the fields
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut targets = args.stun.clone();
    if targets.is_empty() {
        targets.extend(servers_of_environment()?);
    }
    targets.extend(roots_of_environment()?);
    let report = netcheck::run(&targets, &args.interfaces).map_err(|error| {
        Failure::new(
            format_args!("the system does not tell its interfaces: {error}"),
            "run it with -v to see the log",
        )
    })?;
    if !args.interfaces.is_empty() && report.interfaces.is_empty() {
        return Err(Failure::usage(
            format_args!("no interface that is up has the name {}", args.interfaces.join(" or ")),
            "run it without --interface to see which there are",
        ));
    }
    if args.json {
        return print(serde_json::to_string(&report).map_err(std::io::Error::other)?);
    }
    print(show::text(&report))
}

fn parse_server(text: &str) -> Result<Target, String> {
    Target::parse(text, Transport::Udp).ok_or_else(|| format!("'{text}' is not HOST:PORT"))
}

fn servers_of_environment() -> Outcome<Vec<Target>> {
    let text = env::var(STUN_VARIABLE).unwrap_or_default();
    let servers = text.split_whitespace().map(parse_server).collect::<Result<_, _>>();
    servers.map_err(|error| Failure::usage(format_args!("{STUN_VARIABLE}: {error}"), "correct or unset it"))
}

fn roots_of_environment() -> Outcome<Vec<Target>> {
    let text = env::var(ROOTS_VARIABLE).unwrap_or_default();
    let roots = RootAddress::parse_list(&text).map_err(|error| {
        Failure::usage(
            format_args!("{ROOTS_VARIABLE}: {error}"),
            "set it to what `peersock root` prints, or unset it",
        )
    })?;
    let endpoints = roots.iter().flat_map(RootAddress::endpoints);
    Ok(endpoints
        .map(|endpoint| Target {
            host: endpoint.host(),
            port: endpoint.port(),
            transport: match endpoint.transport {
                RootTransport::Udp => Transport::Udp,
                _ => Transport::Tcp,
            },
        })
        .collect())
}
