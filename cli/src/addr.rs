//! `peersock addr`

use peersock::Ports;
use serde_json::json;

use crate::args::{NETWORK_VARIABLE, StateArgs, parse_network};
use crate::failure::{Failure, Outcome};
use crate::stdio::print;

/// Print this node's addresses in a network, one per line
///
/// The addresses follow from the identity and the network, so this needs no running node and no peers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock addr ff0001ffff000000
  peersock addr ./office.toml --state ./alice
  peersock dial -n ff0001ffff000000 \"[$(ssh host peersock addr ff0001ffff000000)]:7000\"")]
pub(crate) struct Args {
    /// The network: its ID (16 hexadecimal digits), or the TOML file of a static network, which `peersock
    /// network new` makes and docs/NETWORKS.md describes
    #[arg(env = NETWORK_VARIABLE, hide_env_values = true)]
    network: String,

    #[command(flatten)]
    state: StateArgs,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let network = parse_network(&args.network)?;
    let identity = args.state.public_identity()?;
    let addresses = network.addresses_of(&identity).ok_or_else(|| {
        Failure::new(
            format_args!("this node is not a member of {}; its key is {identity}", args.network),
            format_args!("add it with `peersock network add {}`", args.network),
        )
    })?;
    if args.json {
        let ports = Ports::from(&network.summary().ports);
        return print(json!({ "network": network.id().to_string(), "addresses": addresses, "ports": ports }));
    }
    addresses.iter().try_for_each(print)
}
