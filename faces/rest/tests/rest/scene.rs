//! A server on a node, and another member.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock::overlay::Identity;
use peersock::{IdentitySource, Interfaces, Joined, Network, Node, Seed, blocking};
use peersock_proxy::{Activated, Place, Stopper};
use peersock_rest::{Origin, Rest, RestSettings, Token};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::client::{Client, Reply};

/// Timeout, longer than anything takes; tests do not depend on speed.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The token of every server.
pub(crate) const TOKEN: &str = "a-token-of-the-tests";

/// The origin of the tests' web page that may use the server.
pub(crate) const ORIGIN: &str = "https://app.example";

/// The address of the other member.
pub(crate) const PEER_ADDRESS: &str = "10.78.0.2";

/// Two members of a separate static network, named `here` and `there`, and a third that starts when it is
/// needed. The server runs on the first one.
pub(crate) struct Scene {
    pub(crate) at: SocketAddr,
    pub(crate) here: (Node, Joined),
    pub(crate) there: (Node, Joined),
    stopper: Stopper,
    _runtime: Runtime,
    pub(crate) folder: TempDir,
    file: String,
    third: Seed,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene::with(|settings| settings.token = Some(Token::parse(TOKEN).expect("a token")))
    }

    /// Makes a scene with settings that differ from those of most tests.
    pub(crate) fn with(change: impl FnOnce(&mut RestSettings)) -> Scene {
        let random = RandomState::new().hash_one(());
        let seed = |number: u64| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(random ^ number).to_be_bytes());
            seed
        };
        let key = |number: u64| Identity::from_seed(&seed(number)).public().to_string();
        let file = format!(
            "network = \"fe{:014x}\"\n\
             [[member]]\nkey = \"{}\"\nname = \"here\"\naddresses = [\"10.78.0.1\"]\n\
             [[member]]\nkey = \"{}\"\nname = \"there\"\naddresses = [\"{PEER_ADDRESS}\"]\n\
             [[member]]\nkey = \"{}\"\nname = \"third\"\naddresses = [\"10.78.0.3\"]\n",
            random >> 8,
            key(1),
            key(2),
            key(3)
        );
        let [here, there] = [1, 2].map(|number| member(Seed(seed(number)), &file));
        here.1.wait_peer(there.1.address().into(), TEST_TIMEOUT).expect("they find each other");
        let folder = tempfile::tempdir().expect("a folder");
        let socket = Place::Unix(folder.path().join("socket"));
        let mut settings = RestSettings {
            listen: vec!["127.0.0.1:0".parse().expect("a place"), socket],
            origins: vec![Origin::parse(ORIGIN).expect("an origin")],
            timeout: TEST_TIMEOUT,
            ..RestSettings::default()
        };
        change(&mut settings);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut activated = Activated::none();
        let listening = Rest::listen(&here.0, settings, &mut activated, Arc::new(|_| {}));
        let rest = runtime.block_on(listening).expect("free places");
        let at = rest.places()[0].to_string().parse().expect("an address");
        let stopper = rest.stopper();
        runtime.spawn(rest.run());
        Scene { at, here, there, stopper, _runtime: runtime, folder, file, third: Seed(seed(3)) }
    }

    /// Starts the third member.
    pub(crate) fn third(&self) -> (Node, Joined) {
        let third = member(self.third.clone(), &self.file);
        third.1.wait_peer(self.here.1.address().into(), TEST_TIMEOUT).expect("they find each other");
        third
    }

    /// Makes a connection to the server.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.at)
    }

    /// Sends a request with the token, over a separate connection.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        self.client().ask(method, path, &[], body)
    }

    /// Sends a request with a JSON body.
    pub(crate) fn ask_json(&self, method: &str, path: &str, body: &serde_json::Value) -> Reply {
        let body = body.to_string();
        self.client().ask(method, path, &["Content-Type: application/json"], body.as_bytes())
    }

    /// Makes a listener of the other member.
    pub(crate) fn listen(&self) -> blocking::TcpListener {
        blocking::TcpListener::bind_on(&self.there.0, (PEER_ADDRESS, 0)).expect("a free port")
    }

    /// Opens a pipe to the other member. Returns the other end.
    pub(crate) fn pipe(&self, name: &str) -> blocking::TcpStream {
        let listener = self.listen();
        let to = format!("there:{}", listener.local_addr().expect("it listens").port());
        let opened = self.ask_json("POST", "/v1/pipes", &serde_json::json!({"name": name, "to": to}));
        assert_eq!(opened.status, 201, "{opened:?}");
        let (stream, _) = listener.accept().expect("it was connected to");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("it is open");
        stream
    }

    /// Sends only the head of a request; its body comes in chunks, if it has a `body`.
    pub(crate) fn begin(&self, method: &str, path: &str, body: bool) -> Client {
        let mut client = self.client();
        let fields = [format!("Host: {}", self.at), format!("Authorization: Bearer {TOKEN}")];
        client.begin(method, path, &[&fields[0], &fields[1]], if body { None } else { Some(0) });
        client
    }

    /// Waits until the description of a pipe meets a condition.
    pub(crate) fn wait_pipe(
        &self,
        name: &str,
        is_so: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let begin = std::time::Instant::now();
        loop {
            let pipe = self.ask("GET", &format!("/v1/pipes/{name}"), b"").json();
            if is_so(&pipe) {
                return pipe;
            }
            assert!(begin.elapsed() < TEST_TIMEOUT, "{pipe}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the server, which gives its clients this time.
    pub(crate) fn stop(&self, linger: Duration) -> usize {
        self.stopper.stop(linger)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stopper.stop(Duration::ZERO);
    }
}

/// Starts a node of this process in a network.
fn member(seed: Seed, file: &str) -> (Node, Joined) {
    let builder = Node::builder().identity(IdentitySource::Seed(seed));
    let node = builder.interfaces(Interfaces::Loopback).start().expect("a node on loopback");
    let network = Network::parse_toml(file).expect("a valid file");
    let joined = node.join(network).expect("it is joined once");
    (node, joined)
}

/// Returns bytes that differ from position to position.
pub(crate) fn large(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}
