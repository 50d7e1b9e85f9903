//! `peersock network show`

use std::fmt;
use std::path::PathBuf;

use peersock::overlay::{Prefix, StaticMember};
use peersock::state::StateDir;
use peersock::{Network, NodeId, Ports};
use serde_json::{Value, json};

use crate::args::{NETWORK_VARIABLE, StateArgs, network_file};
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::style::{BOLD, paint};

/// Check the file of a static network, and list its members
///
/// Works without a running node. The exit status is 0 only if the file is valid.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock network show office.toml
  peersock network show office.toml --json | jq -r '.members[].name'")]
pub(super) struct Show {
    /// The network's file
    #[arg(env = NETWORK_VARIABLE, hide_env_values = true)]
    file: PathBuf,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    state: StateArgs,
}

pub(super) fn run(args: &Show) -> Outcome {
    let (path, origin) = network_file(&args.file)?;
    let network = Network::from_file(&path)
        .map_err(|error| Failure::network_file(&path.display().to_string(), error).and(origin))?;
    // Only marks this node's row; viewing a file needs no identity.
    let state = (!args.state.ephemeral).then(|| args.state.path().ok()).flatten();
    let own = state.and_then(|path| StateDir::peek_identity(&path).ok().flatten());
    let shown = Shown { network: &network, own: own.map(|identity| identity.node_id()) };
    match args.json {
        true => print(shown.json()),
        false => print(shown),
    }
}

struct Shown<'a> {
    network: &'a Network,
    own: Option<NodeId>,
}

/// The texts of a member's row.
struct Row {
    name: Option<String>,
    key: String,
    node: NodeId,
    addresses: Vec<String>,
    routes: Vec<String>,
    endpoints: Vec<String>,
}

/// Returns all of a member's `routes`, as in the file.
fn all_routes(member: &StaticMember) -> impl Iterator<Item = Prefix> {
    member.routes.iter().copied().chain(member.exit.default_routes())
}

impl Shown<'_> {
    fn rows(&self) -> impl Iterator<Item = Row> {
        self.network.members().iter().map(|member| {
            let addresses = self.network.addresses_of(&member.identity).unwrap_or_default();
            Row {
                name: member.name.clone(),
                key: member.identity.to_string(),
                node: member.identity.node_id(),
                addresses: addresses.iter().map(ToString::to_string).collect(),
                routes: all_routes(member).map(|route| route.to_string()).collect(),
                endpoints: self.network.endpoints_of(&member.identity),
            }
        })
    }

    fn json(&self) -> Value {
        let members = self.rows().map(|row| {
            json!({
                "name": row.name,
                "public_key": row.key,
                "node_id": row.node.to_string(),
                "addresses": row.addresses,
                "routes": row.routes,
                "endpoints": row.endpoints,
                "this_node": Some(row.node) == self.own,
            })
        });
        let summary = self.network.summary();
        json!({
            "network": self.network.id().to_string(),
            "kind": summary.kind,
            "secret": summary.secret,
            "ports": Ports::from(&summary.ports),
            "roots": self.network.roots().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "prefixes": summary.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "members": members.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = self.network.summary();
        let (kind, secret) = (summary.kind, if summary.secret { ", secret" } else { "" });
        write!(
            f,
            "network {} ({kind}{secret}), {}",
            self.network.id(),
            super::count(self.network.members())
        )?;
        for root in self.network.roots() {
            write!(f, "\n  root       {root}")?;
        }
        for row in self.rows() {
            let name = row.name.as_deref().unwrap_or("(no name)");
            let own = if Some(row.node) == self.own { "  (this node)" } else { "" };
            write!(f, "\n\n{}{own}\n  key        {}", paint(BOLD, name), row.key)?;
            write!(f, "\n  addresses  {}", row.addresses.join(", "))?;
            if !row.routes.is_empty() {
                write!(f, "\n  routes     {}", row.routes.join(", "))?;
            }
            if !row.endpoints.is_empty() {
                write!(f, "\n  endpoints  {}", row.endpoints.join(", "))?;
            }
        }
        Ok(())
    }
}
