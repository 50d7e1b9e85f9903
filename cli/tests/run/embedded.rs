//! Rust programs that attach to the shared node by one call.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use peersock::{IdentitySource, Interfaces, Network, Node};
use peersock_attached::{Attach as _, TcpListener};

use crate::common::{peersock, run};
use crate::lab::Lab;

/// Variable by which [`the_program`] has its state directory and its network's file.
const ORDER: &str = "PEERSOCK_TEST_ORDER";

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_rust_program_starts_the_shared_node_and_is_a_member() {
    let Some(lab) = Lab::with("a_rust_program_starts_the_shared_node", &[]) else { return };
    let mut command = Command::new(env::current_exe().expect("this test"));
    command.args(["--exact", "embedded::the_program", "--nocapture"]);
    command.env(ORDER, format!("{}\n{}", lab.path("alpha").display(), lab.path("network.toml").display()));
    command
        .env("PEERSOCK_PROGRAM", peersock(&[]).get_program())
        .env("PEERSOCK_PERSIST", "0")
        .env_remove("PEERSOCK_OWN_NODE");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Ended(command.spawn().expect("it is this test"));
    let lines = BufReader::new(running.0.stdout.take().expect("a pipe")).lines();
    let mut said = lines.map(|line| line.expect("text")).filter_map(|line| {
        let at = line.find("node: ")?;
        Some(line[at + "node: ".len()..].to_owned())
    });
    let said = said.next().expect("it says the node's process and its address");
    let (node, address) = said.split_once(' ').expect("two words");
    assert_ne!(node, running.0.id().to_string());

    let mut dial = lab.dial("beta", &[address]);
    dial.send(b"hello\n");
    dial.wait_for_stdout("hello");
    // A program of the command line shares the node.
    run(lab.as_member("alpha", &["listen", "7000"])).failure(1, &["in use"]);
    drop(running.0.stdin.take());
    assert!(running.0.wait().expect("it is our child").success());
    // The node ends with its last program.
    lab.wait_for_end(node.parse().expect("a number"));
}

/// The other process. It does nothing unless asked.
#[test]
fn the_program() {
    let Ok(order) = env::var(ORDER) else { return };
    let (state, file) = order.split_once('\n').expect("two paths");
    let settings = || {
        Node::builder()
            .identity(IdentitySource::StateDir(PathBuf::from(state)))
            .interfaces(Interfaces::Loopback)
    };
    let network = Network::from_file(file).expect("the lab's network");
    let member = settings().attach([network]).expect("a node is started");
    let own = SocketAddr::new(member.addresses()[0], 7000);
    let listener = TcpListener::bind(&member, own).expect("a free port");
    writeln!(io::stdout(), "node: {} {own}", member.attached().process()).expect("a reader");
    let differs = settings().port(7421).attach([]).expect_err("the node has another port");
    assert!(differs.to_string().contains("without --overlay-port"), "{differs}");
    let (stream, _) = listener.accept().expect("a connection");
    let mut word = [0; 6];
    (&stream).read_exact(&mut word).expect("the word");
    (&stream).write_all(&word).expect("room");
    // Until the other side has read it.
    let _ = io::stdin().read(&mut [0]);
}
