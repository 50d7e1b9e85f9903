//! Options that several commands share, and their interpretation.

use std::env;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use clap::ArgMatches;
use peersock::interfaces::Target;
use peersock::overlay::membership::MemberName;
use peersock::overlay::{Identity, NetworkId, PublicIdentity};
use peersock::settings::{
    DHT_VARIABLE, ROOTS_VARIABLE, TURN_VARIABLE, dht_of_environment, label_of_environment,
    roots_of_environment,
};
use peersock::state::StateDir;
use peersock::{Dht, Invite, Network, Node, NodeBuilder, RootSource, StartError};
use peersock_attach::{Setting, persist, wants_own_node};
use zeroize::Zeroizing;

use crate::config::{self, LocalNetwork};
use crate::duplicate_networks;
use crate::failure::{Failure, Outcome};
use crate::in_use::quoted;
use crate::managed::{self, check_joined};
use crate::running::RunningNode;
use crate::secret::{Described, SecretArgs};
use crate::servers;
use crate::session::interfaces;

/// Environment variable for `-n`.
pub(crate) const NETWORK_VARIABLE: &str = "PEERSOCK_NETWORK";

/// Environment variable for `--state`.
pub(crate) const STATE_VARIABLE: &str = "PEERSOCK_STATE";

/// Environment variable for `--interface`.
pub(crate) const INTERFACE_VARIABLE: &str = "PEERSOCK_INTERFACE";

/// Options of a shared node that are no settings of [`SETTINGS`](peersock::settings::SETTINGS), with their
/// variables.
pub(crate) const OWN_NODE: (&str, &str) = ("own-node", "PEERSOCK_OWN_NODE");
pub(crate) const PERSIST: (&str, &str) = ("persist", "PEERSOCK_PERSIST");

/// Heading of the options that all commands with a node have in common. They follow the command's own.
pub(crate) const NODE_HEADING: &str = "Options of the node";

/// Timeout for reaching a peer on a local network or by roots. It is longer with a DHT, because an idle node
/// reads its mailbox there every 15 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
pub(crate) const PATIENCE_WITH_DHT: Duration = Duration::from_secs(60);

/// Location of the identity.
#[derive(clap::Args)]
pub(crate) struct StateArgs {
    /// Directory that holds this node's identity [env: PEERSOCK_STATE] [default: peersock under
    /// $XDG_STATE_HOME or ~/.local/state]
    // Not clap's `env`, because --ephemeral conflicts with an explicit option but overrides a variable.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Use a new identity and forget it on exit
    #[arg(long, conflicts_with = "state")]
    pub(crate) ephemeral: bool,
}

impl StateArgs {
    /// Returns the given directory, or the default one.
    pub(crate) fn path(&self) -> Outcome<PathBuf> {
        let of_environment =
            || env::var_os(STATE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let Some(path) = self.state.clone().or_else(of_environment) else {
            return Ok(StateDir::default_path()?);
        };
        match path.ancestors().find(|part| part.exists()).filter(|part| !part.is_dir()) {
            Some(file) => Err(Failure::new(
                format_args!("{} is a file, and a node's state is a directory", file.display()),
                "give the directory, as --state DIR or in PEERSOCK_STATE, such as /var/lib/peersock; it is \
                 created if missing",
            )),
            None => Ok(path),
        }
    }

    /// Returns the directory of a running node to query; see [`StateArgs::path`].
    pub(crate) fn path_to_ask(&self) -> Outcome<PathBuf> {
        if self.ephemeral {
            return Err(Failure::usage(
                "a node with an ephemeral identity cannot be queried",
                "start the node with --state DIR, and give the same here",
            ));
        }
        self.path()
    }

    /// Returns the public identity for use in a file, which an ephemeral one cannot serve; see
    /// [`StateArgs::public_identity`].
    pub(crate) fn lasting_identity(&self) -> Outcome<PublicIdentity> {
        if self.ephemeral {
            return Err(Failure::usage(
                "a member with an ephemeral identity could never take part",
                "give the command without --ephemeral, or the key of another node to `peersock network add`",
            ));
        }
        self.public_identity()
    }

    /// Returns this node's public keys; creates the identity if none exists. Works while a node is running.
    pub(crate) fn public_identity(&self) -> Outcome<PublicIdentity> {
        if self.ephemeral {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut_slice()).map_err(Failure::no_randomness)?;
            return Ok(*Identity::from_seed(&seed).public());
        }
        let path = self.path()?;
        match StateDir::peek_identity(&path)? {
            Some(identity) => Ok(identity),
            None => Ok(*StateDir::open(&path)?.identity()?.public()),
        }
    }
}

/// Location of the node's identity, and its use of the underlying network.
#[derive(clap::Args)]
pub(crate) struct NodeArgs {
    #[command(flatten, next_help_heading = NODE_HEADING)]
    pub(crate) state: StateArgs,

    // Clap would put all options that follow under the heading.
    #[command(flatten, next_help_heading = None::<&'static str>)]
    underlay: UnderlayArgs,
}

impl Deref for NodeArgs {
    type Target = UnderlayArgs;

    fn deref(&self) -> &UnderlayArgs {
        &self.underlay
    }
}

/// As [`NodeArgs`], for commands whose node other programs share.
#[derive(clap::Args)]
pub(crate) struct SharedNodeArgs {
    #[command(flatten)]
    node: NodeArgs,

    /// Use a node of this program alone [env: PEERSOCK_OWN_NODE]
    ///
    /// Otherwise, programs with one state directory share a node: one identity, one set of addresses and
    /// ports. The first program starts it in the background, and it ends some time after the last.
    #[arg(help_heading = NODE_HEADING, long)]
    own_node: bool,

    /// Use a node of this program alone, reached as NAME.MACHINE in managed networks [env: PEERSOCK_AS]
    ///
    /// It is the machine's member, with a certificate of the machine's keys.
    #[arg(help_heading = NODE_HEADING, long = "as", value_name = "NAME", conflicts_with = "ephemeral")]
    label: Option<MemberName>,

    /// Keep the shared node for SECONDS after this program, for the next one [env: PEERSOCK_PERSIST]
    /// [default: 5]
    ///
    /// A program that starts in this time finds the paths to its peers open.
    #[arg(help_heading = NODE_HEADING, long, value_name = "SECONDS", value_parser = parse_seconds)]
    persist: Option<Duration>,
}

impl SharedNodeArgs {
    /// Returns true if the user wants a node that no other program uses.
    pub(crate) fn wants_own_node(&self) -> bool {
        self.state.ephemeral || self.own_node || self.label.is_some() || wants_own_node()
    }

    /// Returns true if the node is to be reached as a program's beside the machine's.
    pub(crate) fn has_label(&self) -> bool {
        self.label.is_some()
    }

    /// Refuses options of a member's node for a command whose node is none.
    pub(crate) fn refuse_for_code(&self) -> Outcome {
        let given = [
            (self.state.state.is_some(), "--state"),
            (self.state.ephemeral, "--ephemeral"),
            (self.label.is_some(), "--as"),
        ];
        match given.iter().find(|(is_given, _)| *is_given) {
            None => Ok(()),
            Some((_, option)) => Err(Failure::usage(
                format_args!("{option} is for a member of a network, and a code has a node of its own"),
                format_args!("leave {option} out, or name the network with -n"),
            )),
        }
    }

    /// Applies the options of a node of this program alone, which joins these networks.
    pub(crate) fn beside(&self, node: NodeBuilder, networks: &[Network]) -> Outcome<NodeBuilder> {
        let lists_members = |network: &&Network| network.id().admits_programs() && !network.id().is_managed();
        if self.state.ephemeral
            && let Some(network) = networks.iter().find(lists_members)
        {
            return Err(Failure::usage(
                format_args!(
                    "network {} has a file of its members, and an ephemeral identity is in none",
                    network.id()
                ),
                "leave --ephemeral out; --own-node gives the program a node that no other program uses",
            ));
        }
        let other = networks.iter().find(|network| !network.id().admits_programs());
        // In ad-hoc networks each node is a member of its own. In static ones the machine's node has the
        // addresses of the file, so a node beside it has to be asked for by a label.
        let node = node.beside(networks.iter().all(|network| network.id().is_managed()));
        let label = match &self.label {
            Some(label) => Some(label.clone()),
            None => label_of_environment()?,
        };
        match (label, other) {
            (None, _) => Ok(node),
            (Some(label), None) => Ok(node.label(label)),
            (Some(_), Some(other)) => Err(Failure::usage(
                format_args!("--as is for networks with members, and {} is an ad-hoc one", other.id()),
                "leave --as out, or unset PEERSOCK_AS",
            )),
        }
    }

    /// Returns the time for which a shared node waits for another program after this one.
    pub(crate) fn persist(&self) -> Outcome<Duration> {
        match self.persist {
            Some(time) => Ok(time),
            None => persist_of_environment(),
        }
    }
}

/// Returns the time of `PEERSOCK_PERSIST`, or the usual one.
pub(crate) fn persist_of_environment() -> Outcome<Duration> {
    persist().map_err(|problem| {
        Failure::usage(format_args!("{problem}"), "give a number of seconds from 0 on, or leave it out")
    })
}

impl Deref for SharedNodeArgs {
    type Target = NodeArgs;

    fn deref(&self) -> &NodeArgs {
        &self.node
    }
}

/// The node's use of the underlying network.
#[derive(clap::Args)]
pub(crate) struct UnderlayArgs {
    /// Use only this network interface; may be repeated, or list several with commas (`lo` keeps traffic on
    /// this machine)
    #[arg(help_heading = NODE_HEADING, long = "interface", value_name = "NAME", value_delimiter = ',')]
    #[arg(env = INTERFACE_VARIABLE, hide_env_values = true)]
    pub(crate) interfaces: Vec<String>,

    /// Root at which peers find this node, and which relays for it; may be repeated [env: PEERSOCK_ROOTS]
    ///
    /// TEXT is the line that `peersock root` prints, dns:DOMAIN for the roots in the TXT records of
    /// _peersock.DOMAIN, lan for the roots that announce themselves on the local network, or @FILE with such
    /// texts.
    // One key in 64 begins with a hyphen.
    #[arg(help_heading = NODE_HEADING, long = "root", value_name = "TEXT", allow_hyphen_values = true)]
    roots: Vec<String>,

    /// File (mode 0600) with the access token for the roots that --root names by their keys
    ///
    /// Roots from lists (dns:, lan) never receive it.
    #[arg(help_heading = NODE_HEADING, long, value_name = "FILE", requires = "roots")]
    root_token_file: Option<PathBuf>,

    /// Find peers and be found over the BitTorrent DHT, without any root [env: PEERSOCK_DHT]
    ///
    /// Uses the public DHT, or the DHT that NODES belong to (IPV4:PORT, separated by commas). Needs IPv4; a
    /// NAT64 is not enough.
    #[arg(help_heading = NODE_HEADING, long, value_name = "NODES", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "public")]
    dht: Option<Dht>,

    /// TURN server that relays to this node if no direct path opens; may be repeated [env: PEERSOCK_TURN]
    ///
    /// TEXT is turn:USER:PASSWORD@HOST:PORT, with ?transport=tcp appended for TCP,
    /// turns:USER:PASSWORD@HOST:PORT for TLS, or @FILE (mode 0600) with such texts. Nodes without roots and
    /// DHT use no TURN server.
    #[arg(help_heading = NODE_HEADING, long = "turn", value_name = "TEXT")]
    turn: Vec<Zeroizing<String>>,

    /// STUN server that reports this node's public address, for its peers; may be repeated [env:
    /// PEERSOCK_STUN]
    ///
    /// Nodes without roots and DHT ask no STUN server.
    #[arg(help_heading = NODE_HEADING)]
    #[arg(long, value_name = "HOST:PORT", value_parser = servers::parse_stun_server)]
    stun: Vec<Target>,

    /// Do not ask routers to forward a port to this node
    #[arg(help_heading = NODE_HEADING, long)]
    no_portmap: bool,

    /// Do not search for direct paths by trying many ports, which some providers treat as a port scan
    #[arg(help_heading = NODE_HEADING, long)]
    no_birthday: bool,

    /// Do not try direct paths over TCP if there is none over UDP
    #[arg(help_heading = NODE_HEADING, long)]
    no_tcp_punch: bool,

    /// Poll for packets for MICROSECONDS before each sleep, 0 to 10000 [env: PEERSOCK_BUSY_POLL] [default:
    /// only where it pays]
    ///
    /// A longer time lowers the latency and uses more processor time; 0 disables polling.
    #[arg(help_heading = NODE_HEADING, long, value_name = "MICROSECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=10_000))]
    busy_poll: Option<u64>,

    /// UDP port for overlay packets; 0 picks a free one
    #[arg(help_heading = NODE_HEADING, long, value_name = "PORT", default_value_t = 0)]
    pub(crate) overlay_port: u16,
}

impl UnderlayArgs {
    /// Returns the UDP port of a node that runs for a while only. The port in the user's file is for the node
    /// of the state directory, because two nodes cannot have the same.
    pub(crate) fn port_of_passing_node(&self) -> u16 {
        if config::is_of_file("--overlay-port") { 0 } else { self.overlay_port }
    }

    /// Returns the timeout for reaching a peer unless an option sets it.
    pub(crate) fn patience(&self) -> Duration {
        match self.dht().is_on() {
            true => PATIENCE_WITH_DHT,
            false => PATIENCE,
        }
    }

    /// Returns the DHT from the options, or else from the environment. A malformed variable counts as none;
    /// whoever starts a node asks [`named_dht`](Self::named_dht).
    fn dht(&self) -> Dht {
        self.dht.clone().unwrap_or_else(|| dht_of_environment().unwrap_or_default())
    }

    /// Returns the DHT that the options or the environment name, which may be none.
    pub(crate) fn named_dht(&self) -> Outcome<Option<Dht>> {
        match &self.dht {
            Some(dht) => Ok(Some(dht.clone())),
            None if is_set(DHT_VARIABLE) => Ok(Some(dht_of_environment().map_err(StartError::from)?)),
            None => Ok(None),
        }
    }

    /// Returns true if an option or the environment names a TURN server.
    pub(crate) fn names_turn(&self) -> bool {
        !self.turn.is_empty() || is_set(TURN_VARIABLE)
    }

    /// Returns true if options or the environment name a root or a DHT.
    pub(crate) fn names_meeting_place(&self) -> bool {
        !self.roots.is_empty() || is_set(ROOTS_VARIABLE) || self.dht().is_on()
    }

    /// Returns true if no option names a root, and the variable is set but empty.
    pub(crate) fn has_empty_roots(&self) -> bool {
        self.roots.is_empty() && env::var_os(ROOTS_VARIABLE).is_some() && !is_set(ROOTS_VARIABLE)
    }

    /// Returns the roots from options or the environment; texts that cannot be parsed are skipped.
    pub(crate) fn named_roots(&self) -> Vec<RootSource> {
        let of_environment = || env::var(ROOTS_VARIABLE).into_iter().collect();
        let texts: Vec<_> = if self.roots.is_empty() { of_environment() } else { self.roots.clone() };
        texts.iter().filter_map(|text| RootSource::load(text).ok()).flatten().collect()
    }

    /// Returns shell options with which a node elsewhere finds this one, each with a leading space. They
    /// contain no secret.
    pub(crate) fn as_options(&self) -> String {
        let (mut options, mut has_token) = (String::new(), self.root_token_file.is_some());
        for source in self.named_roots() {
            options.push_str(&format!(" --root '{source}'"));
            has_token |= matches!(&source, RootSource::Address(root) if root.token().is_some());
        }
        if has_token {
            options.push_str(" --root-token-file FILE");
        }
        match self.dht() {
            Dht::Public => options.push_str(" --dht"),
            Dht::Off => {}
            nodes => options.push_str(&format!(" --dht={nodes}")),
        }
        options
    }

    /// Returns these options as arguments of another command of this program, except for TURN servers, which
    /// have passwords: see [`turn_as_variable`](Self::turn_as_variable).
    pub(crate) fn as_arguments(&self) -> Vec<OsString> {
        let interfaces = self.interfaces.iter().filter(|name| !name.is_empty());
        let mut arguments: Vec<OsString> =
            interfaces.map(|name| format!("--interface={name}").into()).collect();
        arguments.extend(self.roots.iter().map(|root| format!("--root={root}").into()));
        if let Some(file) = &self.root_token_file {
            arguments.extend(["--root-token-file".into(), file.into()]);
        }
        arguments.extend(self.dht.iter().map(|dht| format!("--dht={dht}").into()));
        arguments.extend(self.stun.iter().map(|server| format!("--stun={server}").into()));
        let flags = [
            (self.no_portmap, "--no-portmap"),
            (self.no_birthday, "--no-birthday"),
            (self.no_tcp_punch, "--no-tcp-punch"),
        ];
        arguments.extend(flags.iter().filter(|(is_on, _)| *is_on).map(|(_, flag)| flag.into()));
        arguments.extend(self.busy_poll.map(|time| format!("--busy-poll={time}").into()));
        arguments.push(format!("--overlay-port={}", self.overlay_port).into());
        arguments
    }

    /// Returns the TURN servers of options as the text of their variable, if there are any.
    pub(crate) fn turn_as_variable(&self) -> Option<Zeroizing<String>> {
        let texts: Vec<_> = self.turn.iter().map(|text| text.as_str()).collect();
        (!texts.is_empty()).then(|| Zeroizing::new(texts.join(" ")))
    }

    /// Returns the settings that options or the environment name, except for roots. Files that they name are
    /// read.
    pub(crate) fn named_settings(&self) -> Outcome<Vec<Setting>> {
        let node = Node::builder().interfaces(interfaces(&self.interfaces)).port(self.overlay_port);
        Ok(Setting::named_by(&self.without_roots(node)?)?)
    }

    /// Returns the roots from options, with their tokens, or from the environment.
    pub(crate) fn roots_with_tokens(&self) -> Outcome<Vec<RootSource>> {
        match self.roots.is_empty() {
            true => Ok(roots_of_environment().map_err(StartError::from)?),
            false => servers::roots(&self.roots, self.root_token_file.as_deref()),
        }
    }

    /// Applies the options for meeting other nodes; the environment supplies the rest.
    pub(crate) fn with_roots(&self, node: NodeBuilder) -> Outcome<NodeBuilder> {
        let node = self.without_roots(node)?;
        if self.roots.is_empty() {
            return Ok(node);
        }
        Ok(node.roots(servers::roots(&self.roots, self.root_token_file.as_deref())?))
    }

    /// Applies these options as [`with_roots`](Self::with_roots) does, except for roots.
    pub(crate) fn without_roots(&self, node: NodeBuilder) -> Outcome<NodeBuilder> {
        let node = node.port_mapping(!self.no_portmap).birthday(!self.no_birthday);
        let node = node.tcp_punch(!self.no_tcp_punch);
        let node = match self.busy_poll {
            Some(microseconds) => node.busy_poll(Duration::from_micros(microseconds)),
            None => node,
        };
        let node = match &self.dht {
            Some(dht) => node.dht(dht.clone()),
            None => node,
        };
        let node = if self.stun.is_empty() { node } else { node.stun(self.stun.iter().cloned()) };
        Ok(if self.turn.is_empty() { node } else { node.turn(servers::turn_servers(&self.turn)?) })
    }
}

/// Returns true if an environment variable is set and not blank.
fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|text| !text.to_string_lossy().trim().is_empty())
}

/// Timeout for a peer that does not answer.
#[derive(clap::Args)]
pub(crate) struct PeerTimeoutArgs {
    /// Give up a connection after SECONDS without a packet from a peer that owes an answer; 0 disables this
    ///
    /// While packets from the peer arrive, a connection whose packets are lost continues for 15 minutes.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "25")]
    pub(crate) peer_timeout: Duration,
}

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

/// Returns the network of the user's file that a text names, unless the text is an ID or a file.
fn local_network(text: &str) -> Outcome<Option<&'static LocalNetwork>> {
    match text.parse::<NetworkId>().is_ok() || Path::new(text).is_file() || text.contains(['/', '.']) {
        true => Ok(None),
        false => config::network(text),
    }
}

/// Returns the path of a static network's file, which is named by its path or by a name in the user's file.
/// For a name, also the text that says where the name is from.
pub(crate) fn network_file(file: &Path) -> Outcome<(PathBuf, Option<String>)> {
    let Some((name, local)) = named_by_user(file)? else {
        let kept = file.to_str().filter(|_| !file.exists());
        let kept = kept.and_then(|name| managed::kept(&managed_state(), name));
        return Ok((kept.map_or_else(|| file.to_owned(), |kept| kept.path), None));
    };
    match local.network.parse::<NetworkId>() {
        Err(_) => Ok((PathBuf::from(&local.network), Some(local.origin(name)))),
        Ok(id) => Err(Failure::usage(
            format_args!("`{name}` is network {id} in {}, which has no file", local.place),
            format_args!("name a static network or its file; `peersock members -n {name}` asks who is there"),
        )),
    }
}

/// Refuses a new file of a network where it would hide the network that a name of the user's file names.
pub(crate) fn check_new_network_file(file: &Path) -> Outcome {
    let Some((name, local)) = named_by_user(file)? else { return Ok(()) };
    let hint = match local.network.parse::<NetworkId>() {
        Err(_) => format!("make its file with `peersock network new {}`", local.network),
        Ok(_) => format!("choose another name, such as {name}.toml"),
    };
    Err(Failure::usage(
        format_args!("`{name}` is a name in {}, which a file `{name}` would hide", local.place),
        hint,
    ))
}

/// Returns the network of the user's file that a file's path names, unless that is a path.
fn named_by_user(file: &Path) -> Outcome<Option<(&str, &'static LocalNetwork)>> {
    let Some(name) = file.to_str() else { return Ok(None) };
    Ok(local_network(name)?.map(|local| (name, local)))
}

/// Parses a network's ID, the path of a static network's file, or a name in the user's file.
pub(crate) fn parse_network(text: &str) -> Outcome<Network> {
    describe_network(text).map(|described| described.network)
}

/// State directory of this command, for names of networks in it.
static STATE: OnceLock<PathBuf> = OnceLock::new();

/// Notes the state directory that the command line names.
pub(crate) fn note_state(matches: &ArgMatches) {
    let named = matches.try_get_one::<PathBuf>("state").ok().flatten();
    if let Some(path) = named {
        set_state(path);
    }
    if let Some((_, inner)) = matches.subcommand() {
        note_state(inner);
    }
}

/// Sets the state directory whose managed networks have names, unless it is set.
pub(crate) fn set_state(path: &Path) {
    let _ = STATE.set(path.to_owned());
}

/// Returns the state directory whose managed networks have names. A machine without one has none.
pub(crate) fn managed_state() -> PathBuf {
    let of_environment = || env::var_os(STATE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let named = STATE.get().cloned().or_else(of_environment);
    named.or_else(|| StateDir::default_path().ok()).unwrap_or_default()
}

/// Parses a network as [`parse_network`] does.
fn describe_network(text: &str) -> Outcome<Described> {
    if Invite::is_claimed_by(text) {
        return Err(Failure::usage(
            "an invite makes this machine a member once, and is no network",
            "run `peersock join INVITE --as NAME` with it first; then give NAME or the network's ID to -n",
        ));
    }
    let Some(local) = local_network(text)? else {
        // IDs and paths do not need the state directory, which may be closed to this user.
        let may_be_name = text.parse::<NetworkId>().is_err() && text.parse::<MemberName>().is_ok();
        if may_be_name && let Some(id) = managed::named(&managed_state(), text)? {
            let network = parse_unnamed(&id.to_string())?;
            return Ok(Described { network, secret_file: None, origin: None });
        }
        if may_be_name && let Some(kept) = managed::kept(&managed_state(), text) {
            return Ok(Described { network: called(kept.read()?, text), secret_file: None, origin: None });
        }
        return Ok(Described { network: parse_unnamed(text)?, secret_file: None, origin: None });
    };
    let origin = Some(local.origin(text));
    let network = parse_unnamed(&local.network).map_err(|failure| failure.and(origin.iter()))?;
    let network = called(network, text);
    Ok(Described { network, secret_file: local.secret_file.clone(), origin })
}

/// Gives a network its local name, if members' names can end with it.
fn called(network: Network, name: &str) -> Network {
    match name.parse() {
        Ok(name) => network.with_local_name(name),
        Err(_) => network,
    }
}

/// Parses a network's ID or the path of a static network's file.
fn parse_unnamed(text: &str) -> Outcome<Network> {
    let looks_like_path = text.contains('/') || text.ends_with(".toml") || Path::new(text).is_file();
    match text.parse::<NetworkId>() {
        Err(_) if Path::new(text).is_dir() => Err(Failure::usage(
            format_args!("{text} is a directory, and a network is an ID or a file"),
            "give the path of the network's TOML file; a node's directory is for --state",
        )),
        Ok(id) => match check_joined(&managed_state(), id)? {
            Some(joined) => Ok(joined),
            None => Network::by_id(id).map_err(Failure::from),
        },
        Err(_) if looks_like_path => {
            Network::from_file(text).map_err(|error| Failure::network_file(text, error))
        }
        // Mostly the name of a managed network that was joined with another state directory, or not at all.
        Err(_) if text.parse::<MemberName>().is_ok() && !is_like_id(text) => {
            let names = config::path_with_networks().map(|path| format!(", nor a name in {path}"));
            Err(Failure::usage(
                format_args!(
                    "`{text}` is neither a network that this machine has joined nor a file{}",
                    names.unwrap_or_default()
                ),
                "list the networks of this machine with `peersock networks`, join one with `peersock join`, or \
                 make a file with `peersock network new`; an ID is as ff0001ffff000000",
            ))
        }
        Err(error) => {
            let names = config::path_with_networks().map(|path| format!(", nor a name in {path}"));
            Err(Failure::usage(
                format_args!(
                    "`{text}` is neither a network ID ({error}) nor a file{}",
                    names.unwrap_or_default()
                ),
                "give an ID such as ff0001ffff000000, or make a file with `peersock network new`",
            ))
        }
    }
}

/// Returns true if a text looks like an ID with a mistake.
fn is_like_id(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    (8..=24).contains(&text.len())
        && digits * 4 >= text.len() * 3
        && text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Parses an IP address or, in a static network, a member's name.
pub(crate) fn parse_host(network: &Network, text: &str) -> Outcome<IpAddr> {
    // The first address is the one that no other member can be assigned.
    parse_hosts(network, text).map(|addresses| addresses[0])
}

/// Parses a host as [`parse_host`] does; a name yields all addresses of the member, at least one.
fn parse_hosts(network: &Network, text: &str) -> Outcome<Vec<IpAddr>> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    match network.addresses_named(text) {
        addresses if !addresses.is_empty() => Ok(addresses),
        _ if has_port(text) => Err(Failure::usage(
            format_args!("`{text}` has a port, and a member's address has none"),
            "leave the port out, and the brackets with it",
        )),
        _ if !network.summary().by_file => Err(Failure::usage(
            format_args!("`{text}` is not an IP address"),
            "give the address that `peersock addr` or `listen` prints there, such as fd12:3456:789a::1; names \
             are for members of static and managed networks",
        )),
        _ => Err(Failure::usage(
            format_args!(
                "`{text}` is neither an IP address nor the name of a member of network {}",
                network.id()
            ),
            "list its members with `peersock network show`",
        )),
    }
}

/// Returns the member of a managed network that a text names, in the form in which its node knows the name:
/// without the network's. `None` for addresses, and in other networks.
pub(crate) fn managed_name(network: &Network, text: &str) -> Option<String> {
    let id = network.id();
    if !id.is_managed() || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let local = StateDir::membership(&managed_state(), id).ok().flatten().and_then(|record| record.name);
    // A command may be given another name than `join`.
    let given = network.local_name().map(MemberName::as_str);
    let is_of_network =
        |suffix: &&str| [local.as_deref(), given].contains(&Some(*suffix)) || suffix.parse() == Ok(id);
    let name = match lower.rsplit_once('.') {
        Some((name, suffix)) if is_of_network(&suffix) => name,
        _ => lower.as_str(),
    };
    name.split('.').all(|label| label.parse::<MemberName>().is_ok()).then(|| name.to_owned())
}

/// Returns the member of a managed network that a target `NAME:PORT` names, and the port; see
/// [`managed_name`].
pub(crate) fn managed_target(network: &Network, text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((managed_name(network, host)?, port))
}

/// Returns true if the text is an address or a name with a port.
pub(crate) fn has_port(text: &str) -> bool {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(':'));
    text.parse::<SocketAddr>().is_ok() || port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// Parses `[IPV6]:PORT`, `IPV4:PORT` or `NAME:PORT`; returns at least one address.
pub(crate) fn parse_targets(network: &Network, text: &str) -> Outcome<Vec<SocketAddr>> {
    let targets = parse_any_targets(network, text)?;
    match targets[0].port() {
        0 => Err(Failure::usage(
            "no program listens on port 0: `listen 0` picks a free port and prints it",
            "give the port that `peersock listen` printed there",
        )),
        _ => Ok(targets),
    }
}

fn parse_any_targets(network: &Network, text: &str) -> Outcome<Vec<SocketAddr>> {
    if let Ok(target) = text.parse() {
        return Ok(vec![target]);
    }
    let wrong = || {
        Failure::usage(
            format_args!("`{text}` is not an address and port"),
            "write '[IPV6]:PORT' such as '[fd12:3456:789a::1]:7000', IPV4:PORT, or NAME:PORT in a static or \
             managed network",
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    // An IPv6 address needs brackets, because otherwise its end and the port are ambiguous.
    if host.contains(':') && !host.starts_with('[') {
        return Err(wrong());
    }
    let addresses = parse_hosts(network, host)?;
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// Parses a port number.
pub(crate) fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().map_err(|_| match is_number {
        true => "a port is a number from 0 to 65535, such as 7000".to_owned(),
        false => {
            "give the port as a number from 0 to 65535, such as 7000; names of services are not looked up"
                .to_owned()
        }
    })
}

/// Parses a number of seconds, with an optional fraction.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "give a number of seconds from 0 on, such as 10 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Args as _;
    use peersock::settings::SETTINGS;

    use super::*;

    #[test]
    fn each_setting_of_a_node_is_an_option() {
        let without_option = [
            ("seed", "the process list shows arguments"),
            ("discovery", "--interface limits where nodes are found"),
            ("discovery_port", "nodes with another port are not found"),
            ("introduce", "whoever listens wants to be found"),
            ("only_suite", "the node chooses the faster one"),
            ("tcp_buffers", "a socket uses memory only as far as it fills it"),
        ];
        let command = NodeArgs::augment_args(clap::Command::new("peersock"));
        let options: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        for setting in SETTINGS {
            let has_reason = without_option.iter().any(|(name, _)| *name == setting.name);
            assert_eq!(setting.option.is_none(), has_reason, "{}", setting.name);
            assert!(setting.option.is_none_or(|option| options.contains(&option)), "{}", setting.name);
        }
        let known: Vec<_> = SETTINGS.iter().filter_map(|setting| setting.option).collect();
        let others = ["ephemeral", "root-token-file"];
        assert!(options.iter().all(|name| known.contains(name) || others.contains(name)), "{options:?}");
    }

    #[test]
    fn the_help_of_an_option_names_its_variable() {
        let command = NodeArgs::augment_args(clap::Command::new("peersock"));
        for setting in SETTINGS {
            let (Some(option), Some(variable)) = (setting.option, setting.variable) else { continue };
            let argument = command.get_arguments().find(|argument| argument.get_long() == Some(option));
            let help = argument.and_then(clap::Arg::get_help).map(ToString::to_string).unwrap_or_default();
            let of_clap = argument.and_then(clap::Arg::get_env).is_some_and(|name| name == variable);
            assert!(help.contains(&format!("[env: {variable}]")) || of_clap, "{option}: {help}");
        }
    }

    fn ad_hoc() -> Network {
        Network::ad_hoc("ff0001ffff000000".parse().unwrap())
    }

    #[test]
    fn a_root_is_taken_whatever_its_key_begins_with() {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            node: NodeArgs,
        }
        let with_hyphen = (0..).map(|seed: u64| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&seed.to_be_bytes());
            format!("{}@192.0.2.1:7420", Identity::from_seed(&bytes).public())
        });
        let text = with_hyphen.into_iter().find(|text| text.starts_with('-')).expect("one key of 64 does");
        let parsed = <Program as clap::Parser>::try_parse_from(["peersock", "--root", &text, "--no-portmap"]);
        let node = parsed.unwrap_or_else(|error| panic!("{error}")).node;
        assert_eq!(node.roots, [text]);
        assert!(node.no_portmap);
    }

    #[test]
    fn targets_are_understood_or_refused_as_usage() {
        let network = ad_hoc();
        for text in ["[fd00::1]:80", "10.0.0.1:80"] {
            assert_eq!(parse_targets(&network, text).unwrap(), [text.parse().unwrap()]);
        }
        for text in [
            "fd00::1:80",
            "fd00::1",
            "[fd00::1]",
            "[fd00::1]:",
            "[fd00::1]:65536",
            "alpha:80",
            ":80",
            "",
            "10.0.0.1:0",
        ] {
            assert_eq!(parse_targets(&network, text).unwrap_err().status(), 2, "{text}");
        }
    }

    #[test]
    fn members_of_a_static_network_have_names() {
        let identity = *Identity::from_seed(&[1; 32]).public();
        let network = Network::parse_toml(&format!(
            "network = \"fe00000000000001\"\n[[member]]\nname = \"alpha\"\nkey = \"{identity}\"\naddresses = [\"10.7.0.1\"]"
        ))
        .unwrap();
        let own = network.id().address_of(&identity.node_id());
        assert_eq!(parse_host(&network, "Alpha").unwrap(), IpAddr::from(own));
        let targets = [SocketAddr::new(own.into(), 80), "10.7.0.1:80".parse().unwrap()];
        assert_eq!(parse_targets(&network, "alpha:80").unwrap(), targets);
        assert_eq!(parse_host(&network, "beta").unwrap_err().status(), 2);
        for text in ["[fd00::1]:80", "10.7.0.1:80", "alpha:80", "beta:80"] {
            let said = parse_host(&network, text).unwrap_err().to_string();
            assert!(said.contains("has a port") && said.contains("leave the port out"), "{said}");
        }
        assert!(parse_targets(&network, "alpha:0").unwrap_err().to_string().contains("port 0"));
    }

    #[test]
    fn networks_that_cannot_be_joined_are_refused_with_the_reason() {
        let refuse = |text| parse_network(text).unwrap_err().to_string();
        assert!(refuse("ff0001ffff00000").contains("16"));
        assert!(refuse("fe00000000000001").contains("TOML"));
        assert!(refuse("8056c2e21c000001").contains("managed"));
        assert!(refuse("no/such/file.toml").contains("no/such/file.toml"));
        assert!(refuse("/").contains("is a directory"));
    }

    #[test]
    fn ports_are_numbers() {
        assert_eq!(parse_port("65535"), Ok(65535));
        assert!(parse_port("http").unwrap_err().contains("names of services"));
        for text in ["65536", "-1", "", "+ 1"] {
            parse_port(text).unwrap_err();
        }
    }

    #[test]
    fn the_options_of_a_node_are_those_with_which_others_find_it() {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            node: NodeArgs,
        }
        let root = format!("{}@192.0.2.1:7420", Identity::from_seed(&[7; 32]).public());
        let parse = |words: &[&str]| {
            let words = ["peersock"].iter().chain(words);
            let parsed = <Program as clap::Parser>::try_parse_from(words);
            parsed.unwrap_or_else(|error| panic!("{error}")).node.as_options()
        };
        assert_eq!(parse(&["--root", &root]), format!(" --root '{root}'"));
        assert_eq!(parse(&["--root", "lan", "--dht"]), " --root 'lan' --dht");
        assert_eq!(parse(&["--root", "lan", "--dht=192.0.2.7:6881"]), " --root 'lan' --dht=192.0.2.7:6881");
        let with_token = parse(&["--root", &root, "--root-token-file", "/secret"]);
        assert_eq!(with_token, format!(" --root '{root}' --root-token-file FILE"));
    }

    #[test]
    fn seconds_are_finite_and_not_negative() {
        assert_eq!(parse_seconds("0.25").unwrap().as_millis(), 250);
        for text in ["-1", "x", "", "inf", "NaN", "1e300"] {
            parse_seconds(text).unwrap_err();
        }
    }
}
