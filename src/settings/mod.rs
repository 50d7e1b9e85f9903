//! Settings of a node by name, for faces in other languages, command lines and files.
//!
//! [`SETTINGS`] is the only list of them. [`NodeBuilder::set`] and [`NodeBuilder::settings`] apply them. The
//! tests of each face compare it with this table, and `docs/reference/SETTINGS.md` shows it.

mod environment;
mod error;
#[cfg(test)]
mod tests;

use std::time::Duration;

use peersock_overlay::Suite;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

pub use environment::{
    BUSY_POLL_VARIABLE, DHT_VARIABLE, LABEL_VARIABLE, ROOTS_VARIABLE, STUN_VARIABLE, TURN_VARIABLE,
    busy_poll_of_environment, dht_of_environment, label_of_environment, roots_of_environment,
    stun_of_environment, turn_of_environment,
};
pub use error::{Refusal, SettingError, VariableError};

use crate::interfaces::{load_stun_servers, load_turn_servers};
use crate::{IdentitySource, Interfaces, NodeBuilder, RootSource, Seed};

/// Setting of a node.
///
/// ```
/// use peersock::settings::SETTINGS;
///
/// let port = SETTINGS.iter().find(|setting| setting.name == "port").expect("nodes have a port");
/// assert_eq!(port.allowed(), "a number from 0 to 65535");
/// assert_eq!(port.option, Some("overlay-port"));
/// ```
pub struct Setting {
    /// Name in JSON and Python. Go, Node.js and Rust write it in their own style.
    pub name: &'static str,
    /// Default value, as people read it.
    pub default: &'static str,
    /// Environment variable with another default.
    pub variable: Option<&'static str>,
    /// Option of the program, without its hyphens.
    pub option: Option<&'static str>,
    /// Meaning, as a phrase in Markdown.
    pub doc: &'static str,
    kind: Kind,
}

/// Type of a setting's value, and the function that applies it.
enum Kind {
    Switch(fn(NodeBuilder, bool) -> NodeBuilder),
    /// Number from 0 to a maximum.
    Number(u16, fn(NodeBuilder, u16) -> NodeBuilder),
    /// Two numbers of bytes.
    Sizes(fn(NodeBuilder, usize, usize) -> NodeBuilder),
    Text(fn(NodeBuilder, &str) -> Result<NodeBuilder, Refusal>),
    /// One text, or several in a list.
    Texts(fn(NodeBuilder, &[Zeroizing<String>]) -> Result<NodeBuilder, Refusal>),
}

/// Limit of `busy_poll`, microseconds.
pub(crate) const MAX_BUSY_POLL: u16 = 10_000;

const CIPHERS: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

#[rustfmt::skip]
/// All settings, in the order in which [`NodeBuilder::settings`] applies them.
pub const SETTINGS: &[Setting] = {
    use Kind::{Number, Sizes, Switch, Text, Texts};
    const fn row(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
        Setting { name, default, variable: None, option: None, doc, kind }
    }
    &[
        row("state", Text(state), "in Rust, the program and C's `peersock_config_new()`, `peersock` under `$XDG_STATE_HOME` or `~/.local/state`; elsewhere none, but in Python the same for a network's file", "Directory that keeps the identity, made if missing and used by one node at a time. The program and Python read the variable.").variable("PEERSOCK_STATE").option("state"),
        row("seed", Text(seed), "none", "Secret seed of the identity, 32 bytes as 64 hexadecimal digits, instead of `state`. Without both, the identity is new and never written anywhere."),
        row("interfaces", Texts(interfaces), "`all`", "Network interfaces that the node may use: `all`, `loopback`, or names, with commas or in a list. The program reads the variable.").variable("PEERSOCK_INTERFACE").option("interface"),
        row("port", Number(u16::MAX, NodeBuilder::port), "0", "UDP port of the node; 0 lets the system choose.").option("overlay-port"),
        // Before `discovery`, which turns it off.
        row("discovery_port", Number(u16::MAX, discovery_port), "7473", "UDP port of discovery, the same on all nodes that find each other; 0 is the default."),
        row("discovery", Switch(NodeBuilder::discovery), "true", "The node finds peers on this machine and the local networks, and is found there."),
        row("introduce", Switch(NodeBuilder::introduce), "true", "Discovery tells others who this node is. Otherwise the node stays unknown until it sends something."),
        row("roots", Texts(roots), "none", "Roots at which peers find the node, and which relay for it: lines of `peersock root`, `dns:DOMAIN`, `lan`, or `@FILE`.").variable(ROOTS_VARIABLE).option("root"),
        row("dht", Text(dht), "`off`", "Meeting by the BitTorrent DHT: `off`, `public`, or nodes of another DHT, `IPV4:PORT` with commas.").variable(DHT_VARIABLE).option("dht"),
        row("turn", Texts(turn), "none", "TURN servers that relay to the node, `turn:USER:PASSWORD@HOST:PORT` or `@FILE`; at most four.").variable(TURN_VARIABLE).option("turn"),
        row("stun", Texts(stun), "none", "STUN servers that tell the node its address, `HOST:PORT`.").variable(STUN_VARIABLE).option("stun"),
        row("port_mapping", Switch(NodeBuilder::port_mapping), "true", "Routers are asked to forward a port to the node.").option("no-portmap"),
        row("birthday", Switch(NodeBuilder::birthday), "true", "The node searches for direct paths by many ports.").option("no-birthday"),
        row("tcp_punch", Switch(NodeBuilder::tcp_punch), "true", "The node searches for direct paths by TCP where none by UDP exists.").option("no-tcp-punch"),
        row("busy_poll", Number(MAX_BUSY_POLL, busy_poll), "only where it pays", "Microseconds for which a waiting thread polls for packets before it sleeps; 0 is never.").variable(BUSY_POLL_VARIABLE).option("busy-poll"),
        row("only_suite", Text(only_suite), "the faster one of two nodes", "Only cipher for data: `AES-256-GCM` or `ChaCha20-Poly1305`. A peer without it is not reached."),
        row("tcp_buffers", Sizes(NodeBuilder::tcp_buffers), "67108864 each", "Maximum sizes of the send and the receive buffer of each TCP socket, bytes."),
    ]
};

impl Setting {
    const fn variable(self, variable: &'static str) -> Self {
        Self { variable: Some(variable), ..self }
    }

    const fn option(self, option: &'static str) -> Self {
        Self { option: Some(option), ..self }
    }

    /// Returns the type and the range of values, such as `a number from 0 to 65535`.
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Switch(_) => "true or false".to_owned(),
            Kind::Number(most, _) => format!("a number from 0 to {most}"),
            Kind::Sizes(_) => "a list of two numbers from 1 on".to_owned(),
            Kind::Text(_) => "a text".to_owned(),
            Kind::Texts(_) => "a text, or a list of texts".to_owned(),
        }
    }

    fn apply(&self, node: NodeBuilder, value: Value) -> Result<NodeBuilder, Refusal> {
        let wrong = || Refusal::Value(self.allowed());
        match self.kind {
            Kind::Switch(set) => Ok(set(node, value.as_bool().ok_or_else(wrong)?)),
            Kind::Number(most, set) => {
                let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
                Ok(set(node, number.filter(|number| *number <= most).ok_or_else(wrong)?))
            }
            Kind::Sizes(set) => {
                let sizes: Option<Vec<usize>> = serde_json::from_value(value).ok();
                match sizes.as_deref() {
                    Some(&[send, receive]) if send.min(receive) > 0 => Ok(set(node, send, receive)),
                    _ => Err(wrong()),
                }
            }
            Kind::Text(set) => set(node, &text(value)?),
            Kind::Texts(set) => {
                let values = match value {
                    Value::Array(values) => values,
                    value => vec![value],
                };
                set(node, &values.into_iter().map(text).collect::<Result<Vec<_>, _>>()?)
            }
        }
    }
}

/// Returns the text that a value is.
///
/// # Errors
/// Fails if the value is no text. Refuses U+FFFD, which JSON writers substitute for invalid UTF-8, because
/// the result would be another path or passphrase; and zeros, which end C strings.
pub fn text(value: Value) -> Result<Zeroizing<String>, Refusal> {
    let Value::String(text) = value else { return Err(Refusal::Value("a text".to_owned())) };
    let text = Zeroizing::new(text);
    match text.chars().find(|c| matches!(c, '\u{fffd}' | '\0')) {
        None => Ok(text),
        Some('\0') => Err(Refusal::Value("a text without zeros".to_owned())),
        Some(_) => Err(Refusal::Value("a text in UTF-8".to_owned())),
    }
}

impl NodeBuilder {
    /// Applies one setting of the table [`SETTINGS`].
    ///
    /// ```
    /// use peersock::Node;
    ///
    /// let node = Node::builder().set("interfaces", "loopback")?.set("busy_poll", 50)?;
    /// let error = node.set("port", 65536).expect_err("no port");
    /// assert_eq!(error.to_string(), "'port': it is not a number from 0 to 65535");
    /// # Ok::<(), peersock::settings::SettingError>(())
    /// ```
    ///
    /// The later one of two calls wins where both concern the same thing: `discovery_port` turns discovery
    /// on.
    ///
    /// # Errors
    /// Fails if there is no such setting, or if its value is of another type or out of its range.
    pub fn set(self, name: &str, value: impl Into<Value>) -> Result<Self, SettingError> {
        let refused = |reason| SettingError { setting: name.to_owned(), reason };
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        setting.ok_or_else(|| refused(Refusal::Unknown))?.apply(self, value.into()).map_err(refused)
    }

    /// Applies settings of the table [`SETTINGS`], such as those of a JSON object.
    ///
    /// ```
    /// use peersock::Node;
    ///
    /// let text = r#"{"interfaces": "loopback", "discovery": false, "roots": []}"#;
    /// let node = Node::builder().settings(serde_json::from_str(text)?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`NodeBuilder::set`]; and if both `state` and `seed` are there.
    pub fn settings(mut self, mut values: Map<String, Value>) -> Result<Self, SettingError> {
        if values.contains_key("state") && values.contains_key("seed") {
            return Err(SettingError { setting: "seed".to_owned(), reason: Refusal::TwoIdentities });
        }
        for setting in SETTINGS {
            if let Some(value) = values.remove(setting.name) {
                self = self.set(setting.name, value)?;
            }
        }
        match values.into_iter().next() {
            Some((name, value)) => self.set(&name, value),
            None => Ok(self),
        }
    }
}

fn state(node: NodeBuilder, path: &str) -> Result<NodeBuilder, Refusal> {
    Ok(node.identity(IdentitySource::StateDir(path.into())))
}

fn seed(node: NodeBuilder, digits: &str) -> Result<NodeBuilder, Refusal> {
    let mut seed = Seed([0; 32]);
    let is_decoded = digits.len() == 64
        && data_encoding::HEXLOWER_PERMISSIVE.decode_mut(digits.as_bytes(), &mut seed.0).is_ok();
    match is_decoded {
        true => Ok(node.identity(IdentitySource::Seed(seed))),
        false => Err(Refusal::Value("32 bytes, which are 64 hexadecimal digits".to_owned())),
    }
}

fn interfaces(node: NodeBuilder, texts: &[Zeroizing<String>]) -> Result<NodeBuilder, Refusal> {
    let names = texts.iter().flat_map(|text| text.split(','));
    let names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
    let interfaces = match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["all"] => Interfaces::All,
        ["loopback"] => Interfaces::Loopback,
        ref names if names.is_empty() || names.contains(&"") => {
            return Err(Refusal::Value("`all`, `loopback`, or names of interfaces".to_owned()));
        }
        _ => Interfaces::Named(names),
    };
    Ok(node.interfaces(interfaces))
}

fn discovery_port(node: NodeBuilder, port: u16) -> NodeBuilder {
    if port == 0 { node } else { node.discovery_port(port) }
}

fn roots(node: NodeBuilder, texts: &[Zeroizing<String>]) -> Result<NodeBuilder, Refusal> {
    Ok(node.roots(load(texts, RootSource::load)?))
}

fn dht(node: NodeBuilder, text: &str) -> Result<NodeBuilder, Refusal> {
    Ok(node.dht(text.parse().map_err(Refusal::Dht)?))
}

fn turn(node: NodeBuilder, texts: &[Zeroizing<String>]) -> Result<NodeBuilder, Refusal> {
    Ok(node.turn(load(texts, load_turn_servers)?))
}

fn stun(node: NodeBuilder, texts: &[Zeroizing<String>]) -> Result<NodeBuilder, Refusal> {
    Ok(node.stun(load(texts, load_stun_servers)?))
}

fn busy_poll(node: NodeBuilder, microseconds: u16) -> NodeBuilder {
    node.busy_poll(Duration::from_micros(microseconds.into()))
}

fn only_suite(node: NodeBuilder, name: &str) -> Result<NodeBuilder, Refusal> {
    match CIPHERS.into_iter().find(|suite| suite.to_string() == name) {
        Some(suite) => Ok(node.only_suite(suite)),
        None => Err(Refusal::Value(CIPHERS.map(|suite| suite.to_string()).join(" or "))),
    }
}

/// Reads each text, which may name several things.
fn load<T, E: Into<Refusal>>(
    texts: &[Zeroizing<String>],
    read: impl Fn(&str) -> Result<Vec<T>, E>,
) -> Result<Vec<T>, Refusal> {
    let mut all = Vec::new();
    for text in texts {
        all.extend(read(text).map_err(Into::into)?);
    }
    Ok(all)
}
