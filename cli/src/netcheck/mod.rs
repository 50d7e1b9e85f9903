//! `peersock netcheck`

mod show;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;

use peersock::Interfaces;
use peersock::management;
use peersock::netcheck::{Netcheck, NetcheckError, Target};
use peersock::overlay::wire::DISCOVERY_PORT;
use zeroize::Zeroizing;

use crate::args::{INTERFACE_VARIABLE, StateArgs};
use crate::failure::{Failure, Outcome};
use crate::output::{note, print};
use crate::servers::{self, parse_stun_server, turn_servers};
use crate::status::parse;

/// Check this machine's network: interfaces, NAT, what is blocked, and what to do about it
///
/// Sends requests from every interface to the given STUN servers and roots, or to those in PEERSOCK_STUN and
/// PEERSOCK_ROOTS. The answers show this machine's public address, the round-trip time and the kind of NAT.
/// Roots must also prove the keys that name them, for which this machine registers there for a moment under a
/// new identity. Routers are asked whether they open ports, nameservers whether they answer, and TURN servers
/// for an address, which is given back at once. Only named servers are asked; without any, the kind of NAT
/// stays unknown. The check has its own UDP ports, also while a node runs. The command ends within six
/// seconds in any network, with status 0 even if everything is blocked. Lists of roots take extra time first:
/// up to four seconds for dns:DOMAIN, and six for lan.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock netcheck
  peersock netcheck --stun stun.example.org:3478 --stun 192.0.2.1:3478
  PEERSOCK_ROOTS=\"$(cat roots)\" peersock netcheck --interface eth0
  peersock netcheck --turn @turn-servers
  peersock netcheck --json --stun 192.0.2.1:3478 | jq '.interfaces[] | {name, nat: .ipv4.kind}'")]
pub(crate) struct Args {
    /// STUN server to ask; may be repeated [env: PEERSOCK_STUN]
    ///
    /// A server with RFC 5780 (such as coturn) reveals most; two others reveal how the NAT maps ports.
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_stun_server)]
    stun: Vec<Target>,

    /// TURN server to ask, in the form of --turn of `listen` and `dial`; may be repeated [env: PEERSOCK_TURN]
    #[arg(long = "turn", value_name = "TEXT")]
    turn: Vec<Zeroizing<String>>,

    /// Root to ask, in the form of --root of `listen` and `dial`; may be repeated [env: PEERSOCK_ROOTS]
    // One key in 64 begins with a hyphen.
    #[arg(long = "root", value_name = "TEXT", allow_hyphen_values = true)]
    roots: Vec<String>,

    /// Check only this network interface; may be repeated, or list several with commas
    #[arg(long = "interface", value_name = "NAME", value_delimiter = ',')]
    #[arg(env = INTERFACE_VARIABLE, hide_env_values = true)]
    interfaces: Vec<String>,

    /// UDP port on which roots announce themselves (--root lan)
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
    // Beside the check, because a node that has been stopped takes seconds to be given up.
    let node = thread::Builder::new().name("running-node".into()).spawn(running_node);
    let report = check.run().map_err(failure)?;
    // Without a thread, the remark is left out.
    if let Some(said) = node.ok().and_then(|node| node.join().ok().flatten()) {
        note(said);
    }
    if args.json {
        return print(report.to_json());
    }
    print(show::text(&report))
}

/// Returns a remark about the node that runs with the state directory of the environment, if one does.
fn running_node() -> Option<String> {
    let state = StateArgs { state: None, ephemeral: false };
    let text = management::status(&state.path().ok()?, 0).ok()?;
    let ports: BTreeSet<_> = parse(&text).ok()?.endpoints.iter().map(SocketAddr::port).collect();
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    (!ports.is_empty()).then(|| {
        format!(
            "a node runs here with UDP port {}, and this check uses others; `peersock status` shows how roots \
             see the node",
            ports.join(" and ")
        )
    })
}

fn failure(error: NetcheckError) -> Failure {
    match error {
        NetcheckError::Variable(error) => error.into(),
        error @ NetcheckError::NoInterface(_) => {
            Failure::usage(format_args!("{error}"), "run it without --interface to see which there are")
        }
        error => Failure::new(format_args!("{error}"), "run it with -v to see the log"),
    }
}
