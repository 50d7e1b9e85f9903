//! `peersock addr`

use std::env;

use peersock::Ports;
use serde_json::json;

use crate::args::{NETWORK_VARIABLE, StateArgs, parse_network};
use crate::failure::{Failure, Outcome};
use crate::stdio::print;

/// Print this node's addresses in a network, one per line
///
/// The addresses follow from the identity and the network, so the command needs no running node and no peers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock addr ff0001ffff000000
  peersock addr -n ff0001ffff000000
  peersock addr ./office.toml --state ./alice
  peersock dial -n ff0001ffff000000 \"[$(ssh host peersock addr ff0001ffff000000)]:7000\"")]
pub(crate) struct Args {
    /// ID of the network (16 hexadecimal digits), or the TOML file of a static network
    ///
    /// `peersock network new` makes such a file, and docs/use/NETWORKS.md describes it.
    #[arg(id = "NETWORK", conflicts_with = "network")]
    positional: Option<String>,

    /// Same as the argument NETWORK, in the form that other commands use [env: PEERSOCK_NETWORK]
    // Not clap's `env`, because the variable would then conflict with the argument.
    #[arg(short, long, value_name = "NETWORK")]
    network: Option<String>,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    state: StateArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let of_environment = || env::var(NETWORK_VARIABLE).ok().filter(|text| !text.is_empty());
    let named = args.positional.clone().or_else(|| args.network.clone()).or_else(of_environment);
    let named = named.ok_or_else(|| {
        Failure::usage("no network is named", "give its ID or its file, as in `peersock addr -n NETWORK`")
    })?;
    let network = parse_network(&named)?;
    let identity = args.state.public_identity()?;
    let addresses = network
        .addresses_of(&identity)
        .ok_or_else(|| Failure::not_a_member(network.id(), &named, identity))?;
    if args.json {
        let ports = Ports::from(&network.summary().ports);
        return print(json!({ "network": network.id().to_string(), "addresses": addresses, "ports": ports }));
    }
    addresses.iter().try_for_each(print)
}
