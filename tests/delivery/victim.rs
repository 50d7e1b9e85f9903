//! A receiver with a process and a node of its own, which end before the scenario does. Tests of several crates
//! include this file; the process is that of the test itself, with one test to run.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use peersock::blocking::TcpListener;
use peersock::{IdentitySource, Interfaces, Network, Node};

use super::receiver::receive;
use super::scenario::{Outcome, Scenario, judge, table};

/// Set in the process: the network, the scenario and the number of bytes.
const VARIABLE: &str = "PEERSOCK_TEST_VICTIM";

/// Plays the scenarios in which the receiver's process ends, those of one kind beside each other. `test` is the
/// test that calls [`be_one`]; `send` is told what to connect to, and how much to send.
pub(crate) fn play(
    face: &str,
    test: &str,
    network: &str,
    send: impl Fn(SocketAddr, usize) -> Outcome + Sync,
) {
    let (scenarios, sizes) = table();
    let scenarios: Vec<_> = scenarios.iter().filter(|scenario| scenario.ends_process()).collect();
    assert!(!scenarios.is_empty());
    let send = &send;
    for scenario in scenarios {
        thread::scope(|scope| {
            for &size in &sizes {
                scope.spawn(move || {
                    let victim = Victim::start(test, network, scenario, size);
                    judge(scenario, size, face, send(victim.address, size), &[]);
                });
            }
        });
    }
}

/// Receives, where this is the process of a receiver; otherwise does nothing.
pub(crate) fn be_one() {
    let Ok(order) = env::var(VARIABLE) else { return };
    let words: Vec<_> = order.split(' ').collect();
    let [network, name, size] = words[..] else { panic!("{order:?} is no order") };
    let (scenarios, _) = table();
    let scenario = scenarios.iter().find(|scenario| scenario.name == name).expect("a scenario");
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = builder.start().expect("a node");
    let joined = node.join(Network::ad_hoc(network.parse().expect("a network ID"))).expect("joined");
    let listener = TcpListener::bind_on(&node, (joined.address(), 0)).expect("a port");
    eprintln!("\n{}", listener.local_addr().expect("an address"));
    let (_, is_connected) = mpsc::channel();
    let accept = |listener: &TcpListener| Ok(listener.accept()?.0);
    receive(scenario, size.parse().expect("a size"), listener, &is_connected, accept);
}

/// The process.
struct Victim {
    child: Child,
    address: SocketAddr,
}

impl Victim {
    fn start(test: &str, network: &str, scenario: &Scenario, size: usize) -> Victim {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "--nocapture", test])
            .env(VARIABLE, format!("{network} {} {size}", scenario.name))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(child.stderr.take().expect("a pipe"));
        let address = output.lines().map_while(Result::ok).find_map(|line| line.parse().ok());
        Victim { child, address: address.expect("it says where it is") }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
