//! A receiver with a process and a node of its own, which end before the scenario does. Tests of several
//! crates include this file; the process is that of the test itself, with one test to run.

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

/// What one victim is to do, and who it is.
pub(crate) struct Order<'a> {
    test: &'a str,
    network: &'a str,
    scenario: &'a Scenario,
    /// How much the sender is to send.
    pub(crate) size: usize,
}

impl Order<'_> {
    /// Starts the victim: it connects to `sender`, and waits for [`Process::go_on`] then; or listens if there
    /// is none.
    pub(crate) fn start(&self, sender: Option<SocketAddr>) -> Process {
        let Order { network, scenario, size, .. } = self;
        let sender = sender.map_or_else(String::new, |sender| sender.to_string());
        Process::start(self.test, &format!("{network} {} {size} {sender}", scenario.name))
    }
}

/// Plays the scenarios in which the receiver's process ends, those of one kind beside each other. `test` is
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

/// Receives, where this is the process of a receiver; otherwise does nothing.
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
            // The sender may not have heard yet that the connection stands, and who is dead by then was never
            // there.
            process::wait_to_go_on();
            Ok(stream)
        });
    } else {
        let listener = TcpListener::bind_on(&node, (joined.address(), 0)).expect("a port");
        process::say(listener.local_addr().expect("an address"));
        receive(scenario, size, listener, &is_connected, |listener| Ok(listener.accept()?.0));
    }
}
