//! Pipes and nodes for tests.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peersock::overlay::Identity;
use peersock::{IdentitySource, Interfaces, Joined, Network, Node, Seed};
use peersock_pipe::{Message, Opening, Options, Pipe, PipeError, Proto};

/// Timeout, longer than anything takes; tests do not depend on speed.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);
pub(crate) const PROTOS: [Proto; 2] = [Proto::Tcp, Proto::Udp];
pub(crate) const LOOPBACK_PLACES: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

/// Fails if `what` takes forever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, what).await.expect("it does not take for ever")
}

/// Waits until a condition is true.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Lets ready tasks run.
pub(crate) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Returns options with which nothing fails for being slow.
pub(crate) fn patient() -> Options {
    Options::new().con_timeout(TEST_TIMEOUT).recv_timeout(TEST_TIMEOUT).dns_timeout(TEST_TIMEOUT)
}

pub(crate) async fn open(opening: Opening) -> Pipe {
    soon(opening.into_future()).await.expect("it can be opened")
}

pub(crate) async fn listening(proto: Proto, at: &str) -> Pipe {
    open(Pipe::listen(proto, at).options(patient())).await
}

pub(crate) async fn connected(server: &Pipe) -> Pipe {
    open(Pipe::connect(server.proto(), server.local_addr()).options(patient())).await
}

/// Makes a server, a client of it, and the server's end of the connection; for UDP that is the server.
pub(crate) async fn pair(proto: Proto) -> [Pipe; 3] {
    let server = listening(proto, LOOPBACK_PLACES[0]).await;
    let client = connected(&server).await;
    let accepted = soon(server.accept()).await.expect("it is open");
    [server, client, accepted]
}

/// Sends a message back.
pub(crate) async fn echo(message: Message, pipe: Pipe) {
    let _ = pipe.send_to(&message, message.from()).await;
}

pub(crate) async fn close(pipes: impl IntoIterator<Item = Pipe>) {
    for pipe in pipes {
        soon(pipe.close()).await;
    }
}

pub(crate) async fn received(pipe: &Pipe) -> Vec<u8> {
    soon(pipe.recv()).await.expect("it is open").expect("it was sent").into_vec()
}

/// Reads this number of bytes, in any number of messages.
pub(crate) async fn read(pipe: &Pipe, count: usize) -> Vec<u8> {
    let mut data = Vec::new();
    while data.len() < count {
        data.extend(received(pipe).await);
    }
    data
}

/// Returns bytes that differ from position to position.
pub(crate) fn large(count: u32) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// Notes made by callbacks.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub(crate) fn add(&self, note: impl Into<String>) {
        self.0.lock().expect("no panic").push(note.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }

    pub(crate) fn count(&self, note: &str) -> usize {
        self.all().iter().filter(|other| *other == note).count()
    }
}

/// Starts a node that meets others on this machine only in a common network.
pub(crate) fn node(seed: u64) -> Node {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let builder = Node::builder().identity(IdentitySource::Seed(Seed(bytes)));
    builder.interfaces(Interfaces::Loopback).start().expect("a node starts on the loopback interface")
}

/// Two members of a separate static network, named `here` and `there`, with addresses of both families.
pub(crate) struct Members {
    pub(crate) here: (Node, Joined),
    pub(crate) there: (Node, Joined),
}

pub(crate) const PEER_ADDRESS: &str = "10.77.0.2";

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
             [[member]]\nkey = \"{}\"\nname = \"here\"\naddresses = [\"10.77.0.1\"]\n\
             [[member]]\nkey = \"{}\"\nname = \"there\"\naddresses = [\"{PEER_ADDRESS}\"]\n",
            random >> 8,
            key(1),
            key(2)
        );
        let member = |number: u64| {
            let node = node(random ^ number);
            let joined =
                node.join(Network::parse_toml(&file).expect("a valid file")).expect("it is joined once");
            (node, joined)
        };
        let members = Members { here: member(1), there: member(2) };
        let there = members.there.1.address().into();
        members.here.1.wait_peer(there, TEST_TIMEOUT).expect("they find each other");
        members
    }

    /// Returns the other member's addresses.
    pub(crate) fn hosts(&self) -> [IpAddr; 2] {
        [PEER_ADDRESS.parse().expect("an address"), self.there.1.address().into()]
    }

    /// Makes a server of the other member.
    pub(crate) async fn listening(&self, proto: Proto, host: IpAddr) -> Pipe {
        let at = std::net::SocketAddr::new(host, 0);
        open(Pipe::listen(proto, at).options(patient()).node(&self.there.0).async_msg_cb(echo)).await
    }

    /// Makes a client of this member.
    pub(crate) async fn connected(&self, proto: Proto, dest: impl std::fmt::Display) -> Pipe {
        open(Pipe::connect(proto, dest).options(patient()).node(&self.here.0)).await
    }

    /// Returns the error of this member's client that exceeds the limit. The reset may come while the client
    /// still connects, as with kernel sockets.
    pub(crate) async fn refused(&self, dest: impl std::fmt::Display) -> PipeError {
        let opening = Pipe::connect(Proto::Tcp, dest).options(patient()).node(&self.here.0);
        match soon(opening.into_future()).await {
            Ok(client) => soon(client.recv()).await.expect_err("nobody serves it"),
            Err(error) => error,
        }
    }
}
