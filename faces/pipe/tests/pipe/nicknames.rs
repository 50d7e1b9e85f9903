//! Nodes that connect by a nickname.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use peersock::overlay::Identity;
use peersock::{
    IdentitySource, Interfaces, Network, NetworkId, Nickname, NicknameError, NicknameText, Node, RootSource,
};
use peersock_pipe::{P2pNode, PipeError};
use peersock_root::Config;
use peersock_root::server::{Listen, Server};

use crate::common::{echo, node, patient, received, soon, until};

/// A root on the loopback interface, until dropped.
struct Root {
    text: String,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Root {
    fn start() -> Root {
        let identity = Identity::from_seed(&[0x99; 32]);
        let key = identity.public().to_string();
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (say, said) = std::sync::mpsc::channel();
        // A separate thread, because the tests already run in a runtime.
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listen = Listen { drain: std::time::Duration::ZERO, ..Listen::on(any) };
                let server = Server::bind(Config::new(Arc::new(identity)), listen).await.expect("free ports");
                say.send(server.udp_addresses()[0]).expect("somebody waits");
                server.run(async { drop(ended.await) }).await.expect("it serves");
            });
        });
        let text = format!("{key}@{}", said.recv().expect("it listens"));
        Root { text, end: Some(end), thread: Some(thread) }
    }

    /// Starts a node that finds others by this root only.
    async fn node(&self, networks: &[&str]) -> P2pNode {
        let roots = RootSource::load(&self.text).expect("a root");
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let node = builder.discovery(false).roots(roots).start().expect("loopback sockets");
        for network in networks {
            let id: NetworkId = network.parse().expect("an ID");
            node.join(Network::ad_hoc(id)).expect("it is joined once");
        }
        soon(P2pNode::builder(&node).port(0).options(patient()).start()).await.expect("a free port")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

fn nickname(text: &str) -> Nickname {
    text.parse().expect("a nickname")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_connects_to_another_one_by_its_nickname_in_a_network_of_both() {
    let root = Root::start();
    let here = root.node(&["ff0001ffff000000", "ff0002ffff000000"]).await;
    let there = root.node(&["ff0003ffff000000", "ff0002ffff000000"]).await;
    there.add_async_msg_cb(echo);
    let full = soon(there.nickname(&nickname("alice"))).await.expect("nobody has it");
    assert_eq!(full, NicknameText::of(nickname("alice"), &there.node().id()));
    for text in [full.clone(), "alice.peersock".parse().expect("a text")] {
        let pipe = soon(here.connect_nickname(&text)).await.expect("it is there");
        let network: NetworkId = "ff0002ffff000000".parse().expect("an ID");
        let at = SocketAddr::new(network.address_of(&there.node().id()).into(), there.port());
        assert_eq!(pipe.remote_addr(), Some(at));
        pipe.send("hello").await.expect("a way");
        assert_eq!(received(&pipe).await, b"hello");
        soon(pipe.close()).await;
    }
    let taken = soon(here.nickname(&nickname("alice"))).await;
    assert_eq!(taken, Err(PipeError::Nickname(NicknameError::Taken)));
    // Closing releases the nickname, and other pipe nodes of the same node continue.
    soon(there.close()).await;
    assert_eq!(soon(there.nickname(&nickname("bob"))).await, Err(PipeError::Closed));
    assert!(there.node().nicknames().is_empty());
    let gone = || async { soon(here.connect_nickname(&full)).await.err() };
    while gone().await != Some(PipeError::Nickname(NicknameError::NotFound)) {}
    soon(here.nickname(&nickname("alice"))).await.expect("it was given back");
    until(|| here.node().nicknames() == [nickname("alice")]).await;
}

#[tokio::test]
async fn without_a_root_there_are_no_nicknames() {
    let alone = soon(P2pNode::builder(&joined()).port(0).start()).await.expect("a free port");
    let short = std::time::Duration::from_millis(50);
    let text = "alice.peersock".parse().expect("a text");
    let error = soon(alone.connect_nickname_within(&text, short)).await.err();
    assert_eq!(error, Some(PipeError::Nickname(NicknameError::NoRoots)));
    alone.close().await;
    assert_eq!(soon(alone.connect_nickname(&text)).await.err(), Some(PipeError::Closed));
}

fn joined() -> Node {
    let node = node(7);
    node.join(Network::ad_hoc("ff0001ffff000000".parse().expect("an ID"))).expect("it is joined once");
    node
}
