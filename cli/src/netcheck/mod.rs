//! `peersock netcheck`

mod show;

use peersock::interfaces::{Target, Transport, servers_of_environment};
use peersock_nat::netcheck;

use crate::failure::{Failure, Outcome};
use crate::output::print;

/// Show what network this machine is in: interfaces, NAT, what is blocked, and what to do about it
///
/// Asks the given STUN servers, and the roots that PEERSOCK_ROOTS names, from every interface: as what they
/// see this machine, and how long they take to answer. From that follows what NAT there is. The routers are
/// asked whether they open ports, the nameservers whether they answer. No server is asked that nobody named:
/// without any, the kind of NAT stays unknown. It ends within six seconds, whatever the network, and with
/// status 0 also where everything is blocked.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock netcheck
  peersock netcheck --stun stun.example.org:3478 --stun 192.0.2.1:3478
  PEERSOCK_ROOTS=\"$(cat roots)\" peersock netcheck --interface eth0
  peersock netcheck --json --stun 192.0.2.1:3478 | jq '.interfaces[] | {name, nat: .ipv4.kind}'")]
pub(crate) struct Args {
    /// A STUN server to ask; may be given several times. One that knows RFC 5780 (coturn does) tells most,
    /// two others tell how the NAT maps [env: PEERSOCK_STUN]
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
    let targets = servers_of_environment(&args.stun)
        .map_err(|error| Failure::usage(format_args!("{error}"), "correct the variable, or unset it"))?;
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
