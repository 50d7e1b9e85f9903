//! Options of a node, and of a node that programs share.

use std::env;
use std::ffi::OsString;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use peersock::interfaces::Target;
use peersock::overlay::membership::MemberName;
use peersock::settings::{
    DHT_VARIABLE, ROOTS_VARIABLE, TURN_VARIABLE, dht_of_environment, label_of_environment,
    roots_of_environment,
};
use peersock::{Dht, Network, Node, NodeBuilder, RootSource, StartError};
use peersock_attach::{Setting, persist, wants_own_node};
use zeroize::Zeroizing;

use super::state::StateArgs;
use super::values::{is_set, parse_seconds};
use crate::config;
use crate::failure::{Failure, Outcome};
use crate::servers;
use crate::session::interfaces;

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
pub(crate) const REACH_TIMEOUT: Duration = Duration::from_secs(15);
pub(crate) const REACH_TIMEOUT_WITH_DHT: Duration = Duration::from_secs(60);

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
                format_args!("{option} is for a member of a network, and a code uses a separate node"),
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
        // In ad-hoc networks each node is a separate member. In static ones the machine's node has the
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
    pub(crate) fn reach_timeout(&self) -> Duration {
        match self.dht().is_on() {
            true => REACH_TIMEOUT_WITH_DHT,
            false => REACH_TIMEOUT,
        }
    }

    /// Returns the DHT from the options, or else from the environment. A malformed variable counts as none;
    /// code that starts a node asks [`named_dht`](Self::named_dht).
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

/// Timeout for a peer that does not answer.
#[derive(clap::Args)]
pub(crate) struct PeerTimeoutArgs {
    /// Give up a connection after SECONDS without a packet from a peer that owes an answer; 0 disables this
    ///
    /// While packets from the peer arrive, a connection whose packets are lost continues for 15 minutes.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "25")]
    pub(crate) peer_timeout: Duration,
}

#[cfg(test)]
mod tests {
    use clap::Args as _;
    use peersock::overlay::Identity;
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
}
