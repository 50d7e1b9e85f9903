//! A receiver with a separate process and node, which end before the scenario does. Tests of several crates
//! include this file; the process is that of the test itself, with one test to run.

#[path = "process.rs"]
#[allow(dead_code, reason = "not all who include this send signals")]
pub(crate) mod process;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{IdentitySource, Interfaces, Network, Node};

use self::process::Process;
use super::receiver::receive;
use super::scenario::{Outcome, Scenario, judge, table};

/// Order for one victim.
pub(crate) struct Order<'a> {
    test: &'a str,
    network: &'a str,
    scenario: &'a Scenario,
    /// Number of bytes the sender sends.
    pub(crate) size: usize,
}

impl Order<'_> {
    /// Starts the victim. It connects to `sender` and then waits for [`Process::go_on`]. Without a sender it
    /// listens.
    pub(crate) fn start(&self, sender: Option<SocketAddr>) -> Process {
        let Order { network, scenario, size, .. } = self;
        let sender = sender.map_or_else(String::new, |sender| sender.to_string());
        Process::start(self.test, &format!("{network} {} {size} {sender}", scenario.name))
    }
}

/// Plays the scenarios in which the receiver's process ends, all sizes of one scenario in parallel. `test` is
/// the test that calls [`be_one`]; `send` starts the victim and sends.
pub(crate) fn play(face: &str, test: &str, network: &str, send: impl Fn(&Order<'_>) -> Outcome + Sync) {
    let (scenarios, sizes) = table();
    let scenarios: Vec<_> = scenarios.iter().filter(|scenario| scenario.ends_process()).collect();
    assert!(!scenarios.is_empty());
    let send = &send;
    for scenario in scenarios {
        thread::scope(|scope| {
            for &size in &sizes {
                scope.spawn(move || {
                    judge(scenario, size, face, send(&Order { test, network, scenario, size }), &[]);
                });
            }
        });
    }
}

/// Receives, if this is the process of a receiver, else does nothing.
pub(crate) fn be_one() {
    let Some(order) = process::order() else { return };
    let words: Vec<_> = order.split_whitespace().collect();
    let (network, name, size, sender) = match words[..] {
        [network, name, size] => (network, name, size, None),
        [network, name, size, sender] => (network, name, size, Some(sender)),
        _ => panic!("{order:?} is no order"),
    };
    let (scenarios, _) = table();
    let scenario = scenarios.iter().find(|scenario| scenario.name == name).expect("a scenario");
    let size = size.parse().expect("a size");
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = builder.start().expect("a node");
    let joined = node.join(Network::ad_hoc(network.parse().expect("a network ID"))).expect("joined");
    let (_, is_connected) = mpsc::channel();
    if let Some(sender) = sender {
        let sender: SocketAddr = sender.parse().expect("an address");
        receive(scenario, size, (), &is_connected, |()| {
            let stream = TcpStream::connect_on(&node, sender)?;
            process::say(stream.local_addr()?);
            // The sender may not know yet that the connection is established. A receiver that died by then
            // would never have existed for it.
            process::wait_to_go_on();
            Ok(stream)
        });
    } else {
        let listener = TcpListener::bind_on(&node, (joined.address(), 0)).expect("a port");
        process::say(listener.local_addr().expect("an address"));
        receive(scenario, size, listener, &is_connected, |listener| Ok(listener.accept()?.0));
    }
}
