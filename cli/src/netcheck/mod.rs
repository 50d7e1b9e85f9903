//! `peersock netcheck`

mod show;

use peersock::Interfaces;
use peersock::interfaces::ROOTS_VARIABLE;
use peersock::netcheck::{Netcheck, NetcheckError, Target};
use peersock::overlay::wire::DISCOVERY_PORT;
use zeroize::Zeroizing;

use crate::args::INTERFACE_VARIABLE;
use crate::failure::{Failure, Outcome, roots_failure};
use crate::output::print;
use crate::servers::{self, parse_stun_server, turn_servers};

/// Show what network this machine is in: interfaces, NAT, what is blocked, and what to do about it
///
/// Asks the given STUN servers and roots, or those that PEERSOCK_STUN and PEERSOCK_ROOTS name, from every
/// interface: as what they see this machine, and how long they take to answer; roots also whether they have
/// the keys that name them, for which this machine registers there for a moment under a new identity. From
/// that follows what NAT there is. The routers are asked whether they open ports, the nameservers whether they answer. TURN servers are
/// asked for an address, which is given back at once. No server is asked that nobody named: without any, the
/// kind of NAT stays unknown. It ends within six seconds, whatever the network, and with status 0 also where
/// everything is blocked. If lists of roots are named, they are asked before, which takes up to four seconds
/// for dns:DOMAIN, and six for lan.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock netcheck
  peersock netcheck --stun stun.example.org:3478 --stun 192.0.2.1:3478
  PEERSOCK_ROOTS=\"$(cat roots)\" peersock netcheck --interface eth0
  peersock netcheck --turn @turn-servers
  peersock netcheck --json --stun 192.0.2.1:3478 | jq '.interfaces[] | {name, nat: .ipv4.kind}'")]
pub(crate) struct Args {
    /// A STUN server to ask; may be given several times. One that knows RFC 5780 (coturn does) tells most,
    /// two others tell how the NAT maps [env: PEERSOCK_STUN]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_stun_server)]
    stun: Vec<Target>,

    /// A TURN server to ask, as the option of the same name of `listen` and `dial` has it; may be given
    /// several times [env: PEERSOCK_TURN]
    #[arg(long = "turn", value_name = "TEXT")]
    turn: Vec<Zeroizing<String>>,

    /// A root to ask, as the option of the same name of `listen` and `dial` has it; may be given several
    /// times [env: PEERSOCK_ROOTS]
    // One key in 64 begins with a hyphen.
    #[arg(long = "root", value_name = "TEXT", allow_hyphen_values = true)]
    roots: Vec<String>,

    /// Look at this network interface only; may be given several times, or with commas between them
    #[arg(long = "interface", value_name = "NAME", value_delimiter = ',')]
    #[arg(env = INTERFACE_VARIABLE, hide_env_values = true)]
    interfaces: Vec<String>,

    /// Hear roots that announce themselves (--root lan) at this UDP port
    #[arg(long, value_name = "PORT", default_value_t = DISCOVERY_PORT)]
    discovery_port: u16,

    /// Print one JSON object; docs/use/NETCHECK.md explains the fields
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let named: Vec<_> = args.interfaces.iter().filter(|name| !name.is_empty()).cloned().collect();
    let allowed = if named.is_empty() { Interfaces::All } else { Interfaces::Named(named) };
    let mut check = Netcheck::new().interfaces(allowed).discovery_port(args.discovery_port);
    if !args.stun.is_empty() {
        check = check.stun(args.stun.iter().cloned());
    }
    if !args.roots.is_empty() {
        check = check.roots(servers::roots(&args.roots, None)?);
    }
    if !args.turn.is_empty() {
        check = check.turn(turn_servers(&args.turn)?);
    }
    let report = check.run().map_err(failure)?;
    if args.json {
        return print(report.to_json());
    }
    print(show::text(&report))
}

fn failure(error: NetcheckError) -> Failure {
    match error {
        NetcheckError::Roots(error) => roots_failure(ROOTS_VARIABLE, error),
        NetcheckError::Servers(error) => {
            Failure::usage(format_args!("{error}"), "correct the variable, or unset it")
        }
        error @ NetcheckError::NoInterface(_) => {
            Failure::usage(format_args!("{error}"), "run it without --interface to see which there are")
        }
        error => Failure::new(format_args!("{error}"), "run it with -v to see the log"),
    }
}
