//! Every delivery of the table in `tests/delivery`, with a C program as the sender. `loss.c` compares the
//! calls with kernel calls.

#[path = "../../../../tests/delivery/receiver.rs"]
mod receiver;
#[path = "../../../../tests/delivery/scenario.rs"]
mod scenario;
#[path = "../../../../tests/delivery/victim.rs"]
pub(crate) mod victim;

use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use peersock::blocking::TcpListener;
use peersock::{IdentitySource, Interfaces, Network, Node};

use self::receiver::receive;
use self::scenario::{Outcome, Step, judge, table};
use crate::build::{Built, Mode, Program};

/// Seconds without an answer after which a stopped receiver is given up.
const SILENCE: u32 = 3;

/// Maximum size of a receiver's buffer, bytes, less than half of the largest size.
const RECEIVE_BUFFER: usize = 1 << 18;

#[test]
fn a_sender_is_told_what_the_table_says() {
    let Some(program) = Program::new("sender.c").build(Mode::Plain) else { return };
    let network = network();
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = builder.tcp_buffers(16 << 20, RECEIVE_BUFFER).start().expect("a node");
    let joined = node.join(Network::ad_hoc(network.parse().expect("a network ID"))).expect("joined");
    let mut sender = Sender::start(&program, &network);
    let (scenarios, sizes) = table();
    for scenario in scenarios.iter().filter(|scenario| !scenario.ends_process()) {
        for &size in &sizes {
            let listener = TcpListener::bind_on(&node, (joined.address(), 0)).expect("a port");
            let address = listener.local_addr().expect("an address");
            let (connected, is_connected) = mpsc::channel();
            let run =
                move || receive(scenario, size, listener, &is_connected, |listener| Ok(listener.accept()?.0));
            let (told, read) = if scenario.steps == [Step::Refuse] {
                let read = run();
                (sender.send(address, size, 0, || {}), read)
            } else {
                thread::scope(|scope| {
                    let receiver = scope.spawn(run);
                    // Most scenarios do not wait for it.
                    let told = sender.send(address, size, 0, || _ = connected.send(()));
                    (told, receiver.join().expect("the receiver"))
                })
            };
            judge(scenario, size, "C", told, &read);
        }
    }
    sender.end();
}

#[test]
fn a_sender_is_told_that_the_receiver_has_died_or_stopped() {
    let Some(program) = Program::new("sender.c").build(Mode::Plain) else { return };
    let network = network();
    victim::play("C", "delivery::receiver_of_the_others", &network, |order| {
        let victim = order.start(None);
        let mut sender = Sender::start(&program, &network);
        let told = sender.send(victim.address, order.size, SILENCE, || {});
        sender.end();
        told
    });
}

/// The receiver that dies or stops. It does nothing unless requested.
#[test]
fn receiver_of_the_others() {
    victim::be_one();
}

pub(crate) fn network() -> String {
    let random = RandomState::new().hash_one(std::process::id());
    format!("ff{:04x}ffff000000", 1 + random as u16 % 0x7fff)
}

/// The program, which sends on command.
struct Sender {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Sender {
    fn start(program: &Built, network: &str) -> Sender {
        let mut command = Command::new(&program.path);
        command.arg(network).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program was just built");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Sender { child, stdin, stdout }
    }

    /// Makes it send. Calls `connected` when it has connected, and returns its result.
    fn send(&mut self, to: SocketAddr, size: usize, silence: u32, mut connected: impl FnMut()) -> Outcome {
        writeln!(self.stdin, "{} {} {size} {silence}", to.ip(), to.port()).expect("it reads");
        loop {
            let mut line = String::new();
            self.stdout.read_line(&mut line).expect("text");
            match line.trim() {
                "connected" => connected(),
                "delivered" => return Outcome::Delivered,
                "error" => return Outcome::Error,
                other => panic!("{other:?} is no outcome"),
            }
        }
    }

    fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().expect("it is our child").success());
    }
}
