//! Messages between a program and the shared node.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use peersock::NodeBuilder;
use peersock::settings::VariableError;
use peersock_socket_server::{Outstanding, Shown, Unclosed};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::Namespaces;
use crate::questions::{Answer, Question};
use crate::seat::{SeatAsk, SeatReply};

/// Version of the protocol. A node refuses other versions, because both sides are one program's.
pub const VERSION: u32 = 8;

/// Message of a program.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// First message: asks for a server. The answer is [`Reply::Attached`], [`Reply::Refused`],
    /// [`Reply::InUse`] or [`Reply::Ending`].
    Attach(Wish),
    /// First message of a program that needs the state directory for its own node: asks a node in the
    /// background that no program uses to end. The end of the connection comes afterwards; see
    /// [`peersock::state::StateDir::open`].
    Yield,
    /// Asks how many connections the program has made to its server. The answer is [`Reply::Contacts`].
    Contacts,
    /// Declares that calls on this program's sockets are not seen by the library. The
    /// answer is [`Reply::Done`].
    UnseenCalls,
    /// Begins the delivery of what the program has sent. Has no answer.
    Drain(Unclosed),
    /// Asks how much is not delivered. The answer is [`Reply::Outstanding`].
    Outstanding,
    /// Answer to [`Reply::Show`].
    Shown {
        /// Number of the question.
        number: u64,
        /// True if the program sees the reset.
        is_shown: bool,
    },
    /// Answer to [`Reply::Break`].
    Broken,
    /// Asks about a member of the program's networks. The answer is [`Reply::About`].
    About(Question),
    /// Asks for events of the members of the program's networks, from now on. The answer is [`Reply::Done`];
    /// then come [`Reply::Event`]s.
    Events,
    /// Asks for one more network. The answer is [`Reply::Joined`] or [`Reply::Refused`].
    Join(Joining),
    /// Gives up a network, by its ID. The answer is [`Reply::Left`].
    Leave(String),
    /// Asks for the node's status, and about the members of the program's networks. The answer is
    /// [`Reply::Status`].
    Status,
    /// A message about the seat of a network's controller.
    Seat(SeatAsk),
    /// Ends the attachment. The node closes the connection afterwards. If it waits for no other program, it
    /// has ended by then.
    Detach,
}

/// Needs of a program. It contains secrets, so it is erased when dropped.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Wish {
    /// Version of the protocol: [`VERSION`].
    pub version: u32,
    /// Version of the package.
    pub package: String,
    /// Name of the program, for people.
    pub name: String,
    /// Networks as [`peersock::Network::to_portable`] returns them.
    pub networks: Vec<String>,
    /// Roots in addition to those of the node, as texts with their tokens.
    pub roots: Vec<String>,
    /// True if the program names no roots by a variable that is set and empty, which its user may have
    /// forgotten.
    pub has_empty_roots: bool,
    /// Settings that the program's user has named. Those of the first program are the node's.
    pub settings: Vec<Setting>,
    /// True if the program has not read its user's file of settings: a node that it starts has those of the
    /// file that the program does not name.
    pub lacks_settings: bool,
    /// True if it has not read the file and names no roots: the node uses those of the file for it.
    pub lacks_roots: bool,
    /// True if the program's user wants to see the node's whole log, and not only its warnings.
    pub is_verbose: bool,
    /// Time for which a node in the background waits for another program after this one.
    #[zeroize(skip)]
    pub persist: Duration,
    /// Namespaces of the program.
    pub namespaces: Namespaces,
}

impl Wish {
    /// Returns the needs of a program with this name that names nothing else.
    pub fn new(name: impl Into<String>) -> Wish {
        Wish {
            version: VERSION,
            package: env!("CARGO_PKG_VERSION").to_owned(),
            name: name.into(),
            networks: Vec::new(),
            roots: Vec::new(),
            has_empty_roots: false,
            settings: Vec::new(),
            lacks_settings: false,
            lacks_roots: false,
            is_verbose: false,
            persist: Duration::ZERO,
            namespaces: Namespaces::own(),
        }
    }
}

/// Network that a program names later. It contains secrets, so it is erased when dropped.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Joining {
    /// Network as [`peersock::Network::to_portable`] returns it.
    pub network: String,
    /// Roots that its file names, as texts with their tokens.
    pub roots: Vec<String>,
}

impl Joining {
    /// Returns the message for a network.
    pub fn new(network: &peersock::Network) -> Joining {
        let roots = network.roots().iter().map(|root| root.to_portable().to_string());
        Joining { network: network.to_portable().to_string(), roots: roots.collect() }
    }
}

/// Setting of a node that all its programs share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Setting {
    /// Option of the command line, with its hyphens.
    pub option: String,
    /// Value; empty for a switch.
    pub value: String,
}

impl Setting {
    /// Returns the settings that a program names for its node; see [`NodeBuilder::named_settings`].
    ///
    /// # Errors
    /// A variable is malformed.
    pub fn named_by(node: &NodeBuilder) -> Result<Vec<Setting>, VariableError> {
        let setting = |(option, value): (&str, Zeroizing<String>)| Setting {
            option: option.to_owned(),
            value: value.to_string(),
        };
        Ok(node.named_settings()?.into_iter().map(setting).collect())
    }
}

/// Message of the node.
#[derive(Serialize, Deserialize)]
pub enum Reply {
    /// The program has a server.
    Attached {
        /// Tag and token of the server, as [`ENVIRONMENT`](peersock_fd::Client::of_variable) holds them.
        environment: String,
        /// Process of the node.
        process: u32,
        /// Public key of the node.
        public_key: String,
        /// Networks of the program, in the order of the request.
        networks: Vec<Network>,
    },
    /// The node does not serve the program, which ends the connection; or it does not join a network.
    Refused(Refusal),
    /// Another process uses the state directory. Ends the connection.
    InUse {
        /// The process, if known.
        holder: Option<u32>,
    },
    /// The node is about to end, and a new one can be started soon. Ends the connection.
    Ending,
    /// Asks to show a reset to the program, whose descriptors the node may not be allowed to reach. The
    /// answer is [`Ask::Shown`].
    Show {
        /// Number of the question.
        number: u64,
        /// The connection.
        shown: Shown,
    },
    /// Asks to show the program that the node ends. The answer is [`Ask::Broken`].
    Break,
    /// Answer to [`Ask::Join`].
    Joined(Network),
    /// Answer to [`Ask::Leave`]: true if the program had the network.
    Left(bool),
    /// Answer to [`Ask::Status`]: a [`peersock::Status`] as JSON.
    Status(String),
    /// Answer to [`Ask::UnseenCalls`], [`Ask::Events`] and some of [`Ask::Seat`].
    Done,
    /// Answer to [`Ask::Contacts`].
    Contacts(u64),
    /// Answer to [`Ask::Outstanding`].
    Outstanding(Outstanding),
    /// Answer to [`Ask::About`].
    About(Answer),
    /// An event about a member.
    Event(peersock::Event),
    /// A message about the seat of a network's controller.
    Seat(SeatReply),
    /// A line for people.
    Note(String),
    /// A line of the node's log, as it is.
    Log(String),
}

/// Network that a program has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// ID of the network.
    pub id: String,
    /// Addresses of the node in it, the self-certifying one first.
    pub addresses: Vec<IpAddr>,
    /// First and last port that it allows.
    pub ports: (u16, u16),
}

/// Returns the reason why members cannot reach a listener at a port in any of these networks.
pub(crate) fn port_refusal<'a>(
    networks: impl Iterator<Item = &'a Network> + Clone,
    port: u16,
) -> Option<String> {
    let is_allowed = networks.clone().any(|joined| (joined.ports.0..=joined.ports.1).contains(&port));
    let allowed = networks.map(|joined| {
        let (first, last) = joined.ports;
        format!("network {} allows ports {first} to {last}", joined.id)
    });
    let allowed: Vec<_> = allowed.collect();
    let is_refused = !is_allowed && !allowed.is_empty();
    is_refused.then(|| format!("port {port} is not allowed: {}", allowed.join(", ")))
}

/// Reason why a node does not serve a program, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Exit status: 1 for a failed operation, 2 for an impossible request.
    pub status: u8,
    /// Reason.
    pub message: String,
    /// Advice to the user.
    pub hint: Option<String>,
}

impl fmt::Debug for Wish {
    /// Leaves out networks, roots and settings, which contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wish")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Joining {
    /// Leaves out everything, because it contains secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joining").finish_non_exhaustive()
    }
}

impl fmt::Debug for Reply {
    /// Leaves out the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Attached { networks, .. } => f.debug_tuple("Attached").field(networks).finish(),
            Reply::Refused(refusal) => f.debug_tuple("Refused").field(refusal).finish(),
            Reply::InUse { holder } => f.debug_tuple("InUse").field(holder).finish(),
            Reply::Ending => f.write_str("Ending"),
            Reply::Show { number, shown } => f.debug_tuple("Show").field(number).field(shown).finish(),
            Reply::Break => f.write_str("Break"),
            Reply::Joined(network) => f.debug_tuple("Joined").field(network).finish(),
            Reply::Left(had) => f.debug_tuple("Left").field(had).finish(),
            Reply::Status(_) => f.write_str("Status"),
            Reply::Done => f.write_str("Done"),
            Reply::Contacts(count) => f.debug_tuple("Contacts").field(count).finish(),
            Reply::Outstanding(outstanding) => outstanding.fmt(f),
            Reply::About(answer) => answer.fmt(f),
            Reply::Event(event) => event.fmt(f),
            Reply::Seat(seat) => seat.fmt(f),
            Reply::Note(note) => f.debug_tuple("Note").field(note).finish(),
            Reply::Log(line) => f.debug_tuple("Log").field(line).finish(),
        }
    }
}
