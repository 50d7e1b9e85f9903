//! Connections and nodes for tests.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::time::Duration;

use peersock::overlay::Identity;
use peersock::{IdentitySource, Interfaces, Joined, Network, Node, Seed};
use peersock_net::{self as net, Conn, Dialer, ListenConfig, Listener};

/// Timeout longer than any operation takes; tests do not depend on speed.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Fails if a future does not complete within the timeout.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, what).await.expect("it does not take for ever")
}

/// Addresses at which kernel connections are tested.
pub(crate) const PLACES: [&str; 3] = ["127.0.0.1:0", "[::1]:0", "unix"];

pub(crate) async fn listening(place: &str, folder: &Path) -> Listener {
    let path = folder.join("listener");
    let listener = match place {
        "unix" => net::listen(path.to_str().expect("a path in Unicode"), "unix").await,
        place => net::listen(place, "tcp").await,
    };
    listener.expect("it can be had")
}

/// Returns both ends of a connection to a listener.
pub(crate) async fn dialed(dialer: &Dialer, listener: &Listener) -> (Conn, Conn) {
    let addr = listener.addr();
    let client = soon(dialer.dial(&addr.to_string(), addr.network())).await.expect("it listens");
    (client, soon(listener.accept()).await.expect("it was dialed"))
}

/// Reads until the end of the stream.
pub(crate) async fn read_to_end(conn: &Conn) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let piece = soon(conn.read(1 << 16)).await.expect("the other end is well");
        if piece.is_empty() {
            return all;
        }
        all.extend(piece);
    }
}

/// Returns bytes that differ from place to place.
pub(crate) fn large() -> Vec<u8> {
    (0..2_560_000_u32).map(|at| (at % 251) as u8).collect()
}

/// Starts a node that other nodes on this machine meet only in the same network.
pub(crate) fn node(seed: u64) -> Node {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let builder = Node::builder().identity(IdentitySource::Seed(Seed(bytes)));
    builder.interfaces(Interfaces::Loopback).start().expect("a node starts on the loopback interface")
}

/// Two members of a private static network, named `here` and `there`, with addresses of both families.
pub(crate) struct Members {
    pub(crate) here: (Node, Joined),
    pub(crate) there: (Node, Joined),
}

pub(crate) const HERE: &str = "10.77.0.1";
pub(crate) const THERE: &str = "10.77.0.2";

impl Members {
    pub(crate) fn new() -> Members {
        let random = RandomState::new().hash_one(());
        let key = |number: u64| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(random ^ number).to_be_bytes());
            Identity::from_seed(&seed).public().to_string()
        };
        let file = format!(
            "network = \"fe{:014x}\"\n\
             [[member]]\nkey = \"{}\"\nname = \"here\"\naddresses = [\"{HERE}\"]\n\
             [[member]]\nkey = \"{}\"\nname = \"there\"\naddresses = [\"{THERE}\"]\n",
            random >> 8,
            key(1),
            key(2)
        );
        let member = |number: u64| {
            let node = node(random ^ number);
            let network = Network::parse_toml(&file).expect("a valid file");
            let joined = node.join(network).expect("it is joined once");
            (node, joined)
        };
        let members = Members { here: member(1), there: member(2) };
        let there = members.there.1.address().into();
        members.here.1.wait_peer(there, TEST_TIMEOUT).expect("they find each other");
        members
    }

    pub(crate) fn dialer(&self) -> Dialer {
        Dialer::new().node(&self.here.0)
    }

    /// Returns settings for listening at `there`.
    pub(crate) fn there(&self) -> ListenConfig {
        ListenConfig::new().node(&self.there.0)
    }

    /// Returns the addresses of `there`.
    pub(crate) fn hosts(&self) -> [String; 2] {
        [THERE.to_owned(), self.there.1.address().to_string()]
    }
}

/// Returns the standard library's kind of an error, after conversion to an I/O error.
pub(crate) fn io_kind(error: net::SocketError) -> io::ErrorKind {
    io::Error::from(error).kind()
}
