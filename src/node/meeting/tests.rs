use std::net::Ipv6Addr;
use std::sync::mpsc;

use peersock_overlay::NetworkId;

use super::inbox::MAX_NOTES;
use super::*;
use crate::{IdentitySource, Network, Node, RootSource};
use peersock_datapath::Want;

#[test]
fn whoever_joins_or_leaves_a_network_does_not_wait_for_a_thread_that_is_held() {
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = builder.discovery(false).roots(Vec::<RootSource>::new()).start().expect("sockets");
    let id = |number: u16| NetworkId::ad_hoc(number..=number).expect("ports");
    node.join(Network::ad_hoc(id(1))).expect("it is new");
    let known = node.inner.driver.datapath.networks()[0].index;
    // The inbox has no reader, as if the system's resolver blocked the thread.
    let inbox = Arc::new(Inbox::default());
    for number in 0..2 * MAX_NOTES as u128 {
        inbox.want(Want { network: known, address: Ipv6Addr::from_bits(number), identity: None });
    }
    let meetings = Meetings { inbox: Arc::clone(&inbox), state: Arc::default() };
    assert!(node.inner.meetings.set(meetings).is_ok());
    let (sender, done) = mpsc::channel();
    let its = node.clone();
    thread::spawn(move || {
        its.leave(id(1));
        for round in 2..100 {
            its.join(Network::ad_hoc(id(round))).expect("it is new");
            assert!(round == 99 || its.leave(id(round)));
        }
        _ = sender.send(());
    });
    done.recv_timeout(Duration::from_secs(60)).expect("it does not wait");
    // Essential notes are not lost, and obsolete ones are not kept.
    let now = Instant::now();
    assert!(matches!(inbox.next(now), Some(Note::Leave(index)) if index == known));
    assert!(matches!(inbox.next(now), Some(Note::Join(network, _)) if network.id == id(99)));
    let rest = std::iter::from_fn(|| inbox.next(now));
    assert_eq!(rest.filter(|note| matches!(note, Note::Want(_))).count(), MAX_NOTES);
    inbox.stop();
    assert!(matches!(inbox.next(now), Some(Note::Stop)), "that comes first");
}
