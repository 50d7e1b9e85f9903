//! Options that name a network, and its passphrase.

use std::env;

use peersock::Network;
use peersock::state::StateDir;

use super::described::{describe_network, local_network};
use super::node::UnderlayArgs;
use super::state::{StateArgs, managed_state};
use super::values::is_set;
use crate::duplicate_networks;
use crate::failure::{Failure, Outcome};
use crate::in_use::quoted;
use crate::managed;
use crate::running::RunningNode;
use crate::secret::SecretArgs;

/// Environment variable for `-n`.
pub(crate) const NETWORK_VARIABLE: &str = "PEERSOCK_NETWORK";

/// Network, and the passphrase for it.
#[derive(clap::Args)]
pub(crate) struct NetworkArgs {
    /// ID of the network (16 hexadecimal digits), or the TOML file of a static network
    ///
    /// `peersock network new` makes such a file, and docs/use/NETWORKS.md describes it. Names of networks in
    /// ~/.config/peersock/config.toml are found, too.
    // Not required by clap, because its error would not explain what a network is.
    #[arg(short, long, value_name = "NETWORK", env = NETWORK_VARIABLE, hide_env_values = true)]
    network: Option<String>,

    #[command(flatten)]
    secret: SecretArgs,
}

/// Network of which both ends are members, for commands that also do without one, and the passphrase for it.
#[derive(clap::Args)]
pub(crate) struct MemberNetworkArgs {
    /// Network of which both ends are members: its ID, its name here, or the TOML file of a static network
    /// [env: PEERSOCK_NETWORK]
    ///
    /// `peersock network new` makes such a file, and docs/use/NETWORKS.md describes it.
    // Not clap's `env`: a variable that is set for other commands must not change what this one does.
    #[arg(short, long, value_name = "NETWORK")]
    network: Option<String>,

    #[command(flatten)]
    secret: SecretArgs,
}

impl MemberNetworkArgs {
    /// Returns true if an option names a network.
    pub(crate) fn is_given(&self) -> bool {
        self.network.as_ref().is_some_and(|text| !text.is_empty())
    }

    /// Returns true if an option names a file with a passphrase.
    pub(crate) fn has_secret(&self) -> bool {
        self.secret.is_given()
    }

    fn named(&self) -> Option<String> {
        let of_environment = || env::var(NETWORK_VARIABLE).ok();
        self.network.clone().filter(|text| !text.is_empty()).or_else(of_environment)
    }

    /// Returns the network as [`NetworkArgs::as_options`] does.
    pub(crate) fn as_options(&self, network: &Network) -> String {
        as_options(&self.named().unwrap_or_default(), &self.secret, network)
    }

    /// Returns the network as [`NetworkArgs::resolve_for`] does.
    pub(crate) fn resolve_for(&self, node: &UnderlayArgs, state: &StateArgs) -> Outcome<Network> {
        resolve_for(self.named().as_deref(), &self.secret, node, state)
    }
}

/// Network, if one is named, and the passphrase for it.
#[derive(clap::Args)]
pub(crate) struct OptionalNetworkArgs {
    /// ID of the network (16 hexadecimal digits), or the TOML file of a static network [default: all networks
    /// of the running node]
    ///
    /// `peersock network new` makes such a file, and docs/use/NETWORKS.md describes it. Names of networks in
    /// ~/.config/peersock/config.toml are found, too.
    #[arg(short, long, value_name = "NETWORK", env = NETWORK_VARIABLE, hide_env_values = true)]
    network: Option<String>,

    #[command(flatten)]
    secret: SecretArgs,
}

impl OptionalNetworkArgs {
    /// Returns the named network, with its passphrase.
    pub(crate) fn resolve(&self) -> Outcome<Option<Network>> {
        resolve_one(self.network.as_deref(), &self.secret)
    }
}

/// Networks, and the passphrase for them.
#[derive(clap::Args)]
pub(crate) struct NetworksArgs {
    /// ID of a network (16 hexadecimal digits), or the TOML file of a static network; may be repeated
    ///
    /// `peersock network new` makes such a file, and docs/use/NETWORKS.md describes it. Names of networks in
    /// ~/.config/peersock/config.toml are found, too.
    // Not required by clap, because its error would not explain what a network is.
    #[arg(short, long = "network", value_name = "NETWORK", env = NETWORK_VARIABLE)]
    #[arg(hide_env_values = true)]
    networks: Vec<String>,

    #[command(flatten)]
    secret: SecretArgs,
}

impl NetworksArgs {
    /// Returns the named networks, or that of [`managed::invited`], which the machine joins first. A
    /// passphrase applies to all ad-hoc networks.
    pub(crate) fn resolve_for(&self, node: &UnderlayArgs, state: &StateArgs) -> Outcome<Vec<Network>> {
        self.described(&with_invited(self.networks.iter().map(String::as_str), node, state)?)
    }

    /// Returns the named networks, which the machine has joined if they are managed.
    pub(crate) fn resolve(&self) -> Outcome<Vec<Network>> {
        self.described(&self.networks)
    }

    fn described(&self, named: &[String]) -> Outcome<Vec<Network>> {
        let named: Vec<_> = named.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
        let networks: Vec<_> = named.iter().map(|text| describe_network(text)).collect::<Outcome<_>>()?;
        if networks.is_empty() {
            return Err(no_network());
        }
        let networks = self.secret.add_to(networks)?;
        duplicate_networks::check(&named, &networks)?;
        Ok(networks)
    }
}

impl NetworkArgs {
    /// Returns true if an option names a network, or a file with a passphrase.
    pub(crate) fn is_given(&self) -> bool {
        let of_environment = env::var(NETWORK_VARIABLE).ok();
        self.secret.is_given() || self.network.is_some() && self.network != of_environment
    }

    /// Returns shell options that join the same network elsewhere. `network` is what they describe here.
    pub(crate) fn as_options(&self, network: &Network) -> String {
        as_options(self.network.as_deref().unwrap_or_default(), &self.secret, network)
    }

    /// Returns the named network, or that of [`managed::invited`], which the machine joins first. Without
    /// one, the error names the networks of the node that runs with the state directory.
    pub(crate) fn resolve_for(&self, node: &UnderlayArgs, state: &StateArgs) -> Outcome<Network> {
        resolve_for(self.network.as_deref(), &self.secret, node, state)
    }

    /// Returns the named network, with its passphrase; `None` if none is named.
    pub(crate) fn resolve_named(&self) -> Outcome<Option<Network>> {
        resolve_one(self.network.as_deref(), &self.secret)
    }
}

/// Returns the network that a text names, with its passphrase; `None` without a text.
fn resolve_one(named: Option<&str>, secret: &SecretArgs) -> Outcome<Option<Network>> {
    let Some(named) = named.filter(|text| !text.is_empty()) else { return Ok(None) };
    Ok(secret.add_to(vec![describe_network(named)?])?.pop())
}

/// Returns the network of a command, of which one may be named.
fn resolve_for(
    named: Option<&str>,
    secret: &SecretArgs,
    node: &UnderlayArgs,
    state: &StateArgs,
) -> Outcome<Network> {
    let named = with_invited(named.into_iter(), node, state)?;
    resolve_one(named.first().map(String::as_str), secret)?.ok_or_else(|| no_network_beside(state))
}

/// Returns the networks that are named, or else that of [`managed::invited`]. The machine joins that one
/// first, unless all can be used already.
fn with_invited<'a>(
    named: impl Iterator<Item = &'a str>,
    node: &UnderlayArgs,
    state: &StateArgs,
) -> Outcome<Vec<String>> {
    let named: Vec<_> = named.filter(|text| !text.is_empty()).map(str::to_owned).collect();
    if !is_set(managed::INVITE_VARIABLE) {
        return Ok(named);
    }
    let is_missing = |text: &&String| describe_network(text).is_err();
    if !named.is_empty() && !named.iter().any(|text| is_missing(&text)) {
        return Ok(named);
    }
    let Some((id, name)) = managed::invited()? else { return Ok(named) };
    let named = if named.is_empty() { vec![id.to_string()] } else { named };
    // A word that leads elsewhere, or nowhere, must not use up the invite.
    let is_its = |text: &String| {
        let of_file =
            || local_network(text).is_ok_and(|local| local.is_some_and(|one| one.network.parse() == Ok(id)));
        text.parse() == Ok(id)
            || name.as_ref().is_some_and(|name| name.as_str() == text.as_str())
            || of_file()
    };
    let mut missing = named.iter().filter(is_missing).peekable();
    if missing.peek().is_some() && missing.all(is_its) {
        managed::join_invited(id, node, state)?;
    }
    Ok(named)
}

/// Returns shell options that join a network elsewhere, which is named so here.
fn as_options(named: &str, secret: &SecretArgs, network: &Network) -> String {
    let id = network.id().to_string();
    let named = match local_network(named) {
        // The network of an invite in a variable.
        _ if named.is_empty() => &id,
        // The other end has no such name.
        Ok(Some(local)) => &local.network,
        _ => named,
    };
    format!("-n {}{}", quoted(named), if secret.is_for(network) { " --secret-file FILE" } else { "" })
}

/// Returns the error if no network is named, beside the node that may run with the state directory.
fn no_network_beside(state: &StateArgs) -> Failure {
    match RunningNode::find_quietly(state) {
        Some(running) if !running.status.networks.is_empty() => running.no_network_named(),
        _ => no_network(),
    }
}

/// Returns the name of the only managed network that this machine has joined.
pub(crate) fn only_joined() -> Option<String> {
    let joined = StateDir::memberships(&managed_state()).unwrap_or_default();
    let [only] = &joined[..] else { return None };
    Some(only.name.clone().unwrap_or_else(|| only.id.to_string()))
}

/// Returns the error if neither an option nor the environment names a network.
pub(crate) fn no_network() -> Failure {
    if let Some(name) = only_joined() {
        return Failure::usage(
            "no network is named",
            format_args!(
                "give `-n {name}` for the network that this machine has joined, or PEERSOCK_NETWORK"
            ),
        );
    }
    Failure::usage(
        "no network is named",
        "give its ID, such as ff0001ffff000000, or its file, as --network NETWORK (-n) or in \
         PEERSOCK_NETWORK; `peersock network new` makes a file",
    )
}
