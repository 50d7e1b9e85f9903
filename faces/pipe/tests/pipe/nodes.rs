//! Nodes that connect by an address text.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv6Addr;
use std::pin::pin;
use std::time::Duration;

use peersock::interfaces::Interface;
use peersock_pipe::{Message, NodeAddress, P2pNode, Pipe, PipeError};
use serde_json::json;

use crate::common::{Members, Notes, TEST_TIMEOUT, node, patient, received, soon, until};

async fn started(node: &peersock::Node) -> P2pNode {
    soon(P2pNode::builder(node).port(0).options(patient()).start()).await.expect("a free port")
}

fn text(node: &P2pNode) -> NodeAddress {
    node.address().expect("it is in a network").to_string().parse().expect("it is an address")
}

async fn shout(message: Message, pipe: Pipe) {
    let _ = pipe.send(message.to_ascii_uppercase()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_connects_to_another_one_by_its_text() {
    let members = Members::new();
    let (here, there) = (started(&members.here.0).await, started(&members.there.0).await);
    there.add_async_msg_cb(shout);
    let (notes, address) = (Notes::default(), text(&there));
    let heard = notes.clone();
    let callback = here.add_msg_cb(move |message: Message, _| heard.add(String::from_utf8_lossy(&message)));
    for _ in 0..3 {
        let pipe = soon(here.connect(&address)).await.expect("it is there");
        assert_eq!(pipe.remote_addr().map(|addr| addr.ip()), Some(members.there.1.address().into()));
        assert_eq!(here.pipes().len(), 1);
        pipe.send("hello").await.expect("a way");
        assert_eq!(received(&pipe).await, b"HELLO");
        soon(pipe.close()).await;
        assert_eq!(here.pipes().len(), 0);
    }
    until(|| notes.count("HELLO") == 3).await;
    assert!(here.del_msg_cb(callback) && !here.del_msg_cb(callback));
    let last = soon(here.connect(&address)).await.expect("it is there");
    last.send("end").await.expect("a way");
    assert_eq!(received(&last).await, b"END");
    assert_eq!(notes.all().len(), 3);
    soon(here.close()).await;
    assert!(!last.is_running());
    assert!(here.accept().await.is_err_and(|error| error.is_closed()));
}

#[tokio::test]
async fn a_node_connects_to_itself_as_in_p2pds_example() {
    let members = Members::new();
    let here = started(&members.here.0).await;
    here.add_async_msg_cb(shout);
    let pipe = soon(here.connect(&text(&here))).await.expect("it is there");
    pipe.send("ping").await.expect("a way");
    assert_eq!(received(&pipe).await, b"PING");
    until(|| here.pipes().len() == 2).await;
    drop(here);
    until(|| !pipe.is_running()).await;
    assert!(members.here.0.status().networks.len() == 1, "the node below goes on");
}

#[tokio::test]
async fn a_node_may_have_callbacks_before_it_starts() {
    let members = Members::new();
    let starting = P2pNode::builder(&members.there.0).port(0).options(patient()).async_msg_cb(shout);
    let there = soon(starting.start()).await.expect("a free port");
    let here = started(&members.here.0).await;
    let pipe = soon(here.connect(&text(&there))).await.expect("it is there");
    pipe.send("hello").await.expect("a way");
    assert_eq!(received(&pipe).await, b"HELLO");
}

#[tokio::test]
async fn a_node_that_is_closed_has_no_pipes() {
    let members = Members::new();
    let (here, there) = (started(&members.here.0).await, started(&members.there.0).await);
    let address = text(&there);
    let pipe = soon(here.connect(&address)).await.expect("it is there");
    // One connection attempt runs during the close, and one follows it.
    let mut connecting = pin!(here.connect(&address));
    let connected = futures_lite::future::poll_once(&mut connecting).await;
    soon(here.close()).await;
    match connected {
        // The other node was quick.
        Some(connected) => assert!(!connected.expect("it is there").is_running()),
        None => assert_eq!(soon(connecting).await.expect_err("it is closed"), PipeError::Closed),
    }
    assert_eq!(soon(here.connect(&address)).await.expect_err("it is closed"), PipeError::Closed);
    assert!(!pipe.is_running() && here.pipes().is_empty());
    // Dropping the node closes pipes with other handles.
    let again = started(&members.here.0).await;
    let pipe = soon(again.connect(&address)).await.expect("it is there");
    drop(again);
    assert!(!pipe.is_running());
}

#[tokio::test]
async fn a_node_without_callbacks_accepts() {
    let members = Members::new();
    let (here, there) = (started(&members.here.0).await, started(&members.there.0).await);
    let pipe = soon(here.connect(&text(&there))).await.expect("it is there");
    let accepted = soon(there.accept()).await.expect("it has connected");
    accepted.send("hello").await.expect("a way");
    assert_eq!(received(&pipe).await, b"hello");
}

#[tokio::test]
async fn a_text_has_all_that_is_known_of_a_node() {
    let members = Members::new();
    let nic = Interface::load(Some("lo"), &[], Duration::from_secs(1)).expect("it is there");
    let node = P2pNode::builder(&members.here.0).port(0).interfaces([nic.clone()]).start();
    let node = soon(node).await.expect("a free port");
    let address = text(&node);
    assert_eq!(address, node.address().expect("it is in a network"));
    assert_eq!((address.id, &address.public_key), (members.here.0.id(), &members.here.0.public_identity()));
    let networks: Vec<_> = address.networks.clone().into_iter().collect();
    assert_eq!(networks, [(members.here.1.id(), members.here.1.addresses())]);
    assert_eq!((address.port, address.interfaces), (node.port(), vec![nic]));
    let endpoints = members.here.0.status().endpoints;
    assert!(
        endpoints.iter().all(|endpoint| address.candidates.contains(endpoint)),
        "{:?}",
        address.candidates
    );
    assert!(address.port > 0 && address.roots.is_empty());
}

/// Makes an interface that compresses badly.
fn large_interface(number: u64) -> Interface {
    let random = RandomState::new();
    let ip = |at: u64| {
        let bits = (u128::from(random.hash_one(at)) << 64) | u128::from(random.hash_one(!at));
        let ip = Ipv6Addr::from_bits((0x2001 << 112) | (bits >> 16));
        json!({"ip": ip.to_string(), "cidr": 128, "af": 10})
    };
    let dict = json!({
        "name": format!("eth{number}"),
        "nat": {"type": 5, "delta": {"type": 6, "value": 0}},
        "rp": {"2": [], "10": [{"af": 10, "nic_ips": (0..20).map(ip).collect::<Vec<_>>(), "ext_ips": []}]},
    });
    Interface::from_json(&dict.to_string()).expect("it is an interface")
}

#[tokio::test]
async fn a_text_has_as_many_interfaces_as_there_is_room_for() {
    let members = Members::new();
    let nics: Vec<Interface> = (0..70).map(large_interface).collect();
    let node = P2pNode::builder(&members.here.0).port(0).interfaces(nics.clone()).start();
    let node = soon(node).await.expect("a free port");
    let address = text(&node);
    assert_eq!(address, node.address().expect("it is in a network"));
    let count = address.interfaces.len();
    assert!((1..64).contains(&count), "{count}");
    assert_eq!(address.interfaces, nics[..count]);
    let there = started(&members.there.0).await;
    soon(there.connect(&address)).await.expect("it is there");
}

#[tokio::test]
async fn a_node_may_be_looked_for_without_end() {
    let members = Members::new();
    let (here, there) = (started(&members.here.0).await, started(&members.there.0).await);
    members.here.1.wait_peer(members.hosts()[1], Duration::MAX).expect("it is there");
    soon(here.connect_within(&text(&there), Duration::MAX)).await.expect("it is there");
}

#[tokio::test]
async fn what_leads_nowhere_is_said() {
    let members = Members::new();
    let here = started(&members.here.0).await;
    // The first node has the port.
    let again = soon(P2pNode::builder(&members.here.0).port(here.port()).start()).await;
    assert_eq!(again.expect_err("it is taken").kind(), std::io::ErrorKind::AddrInUse);
    let stranger = node(std::process::id().into());
    let alone = started(&stranger).await;
    assert_eq!(alone.address().expect_err("it is in no network"), PipeError::NoCommonNetwork);
    assert_eq!(soon(alone.connect(&text(&here))).await.expect_err("no network"), PipeError::NoCommonNetwork);
    // A member of an open network that is gone.
    let network = || peersock::Network::ad_hoc("ff0001ffff000000".parse().expect("an ID"));
    let (one, two) = (node(u64::from(std::process::id()) << 20), node(u64::from(std::process::id()) << 21));
    one.join(network()).expect("it is joined once");
    two.join(network()).expect("it is joined once");
    let gone = started(&two).await;
    let address = text(&gone);
    drop(gone);
    two.shutdown(Duration::ZERO);
    let one = started(&one).await;
    let error = soon(one.connect_within(&address, Duration::from_millis(300))).await;
    assert_eq!(error.expect_err("it is gone"), PipeError::NotFound);
    // A text with forged addresses still leads to the same node.
    let there = started(&members.there.0).await;
    let mut changed = text(&there);
    for addresses in changed.networks.values_mut() {
        *addresses = vec![members.here.1.address().into()];
    }
    let pipe = soon(here.connect_within(&changed, TEST_TIMEOUT)).await.expect("it is there");
    assert_eq!(pipe.remote_addr().map(|addr| addr.ip()), Some(members.there.1.address().into()));
}
