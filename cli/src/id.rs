//! `peersock id`

use serde_json::json;

use crate::args::StateArgs;
use crate::failure::Outcome;
use crate::managed;
use crate::output::print;

/// Print this node's ID and public key; creates an identity on first use
#[derive(clap::Args)]
#[command(after_help = "\
The public key is what goes into the file of a static network: `peersock network add FILE KEY`.
After --rekey, such files, and root lines of this identity, need the new key.
A controller's networks go on with the new key: start `peersock controller` again.

Examples:
  peersock id
  peersock id --key
  peersock id --state ./alice
  peersock id --json | jq -r .public_key
  peersock id --rekey                                 # then `peersock network invite --replace NAME`
  peersock id --rekey --now                           # the key of a controller is stolen")]
pub(crate) struct Args {
    /// Print only the public key
    #[arg(long, conflicts_with = "json")]
    key: bool,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    /// Make a new identity in place of the one here, which is deleted
    ///
    /// Managed networks take the machine for another one then, until it joins by an invite that replaces it.
    /// Their names on this machine stay. No node may run.
    ///
    /// Networks whose controller is here give the new key the place of the former one, whose certificates
    /// count until they end. For a network with its key on paper, this reads the 12 recovery words from
    /// stdin.
    #[arg(long, conflicts_with = "ephemeral")]
    rekey: bool,

    /// Revoke the former key of a controller at once: connections end until members have new certificates
    #[arg(long, requires = "rekey")]
    now: bool,

    #[command(flatten)]
    state: StateArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let identity = match args.rekey {
        true => managed::rekey(&args.state.path()?, args.now)?,
        false => args.state.public_identity()?,
    };
    let node_id = identity.node_id();
    if args.key {
        print(identity)
    } else if args.json {
        print(json!({ "node_id": node_id.to_string(), "public_key": identity.to_string() }))
    } else {
        print(format_args!("node id     {node_id}\npublic key  {identity}"))
    }
}
