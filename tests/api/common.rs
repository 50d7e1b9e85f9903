//! Nodes for tests: ephemeral identities, the loopback interface only, and a separate network per test.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::Duration;

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{IdentitySource, Interfaces, Joined, Network, NetworkId, Node};

/// Timeout longer than anything takes, because tests do not depend on speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns an ad-hoc network with a random port range that includes 1000 to 2000.
pub(crate) fn network() -> NetworkId {
    let random = RandomState::new().hash_one(());
    let first = random % 1000;
    let last = 2000 + (random >> 16) % 60_000;
    format!("ff{first:04x}{last:04x}000000").parse().expect("an ad-hoc network ID")
}

pub(crate) fn node() -> Node {
    Node::builder()
        .identity(IdentitySource::Ephemeral)
        .interfaces(Interfaces::Loopback)
        .start()
        .expect("a node starts on the loopback interface")
}

/// Starts a node and joins `network`.
pub(crate) fn member(network: NetworkId) -> (Node, Joined) {
    let node = node();
    let joined = node.join(Network::ad_hoc(network)).expect("the network is joined");
    (node, joined)
}

/// Starts two nodes on one network.
pub(crate) fn pair() -> [(Node, Joined); 2] {
    let network = network();
    [member(network), member(network)]
}

/// Sends `len` bytes there and back.
pub(crate) fn exchange((alpha, home): (&Node, &Joined), (beta, away): (&Node, &Joined), len: usize) {
    let listener = TcpListener::bind_on(beta, "[::]:1500").expect("a free port");
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("all of it");
        stream.write_all(&all).expect("room");
    });
    home.wait_peer(away.address().into(), PATIENCE).expect("it is found");
    let address = SocketAddr::new(away.address().into(), 1500);
    let mut stream = TcpStream::connect_on(alpha, address).expect("connected");
    let data = pattern(1, len);
    stream.write_all(&data).expect("room");
    stream.shutdown(Shutdown::Write).expect("connected");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("all of it");
    assert!(back == data, "{} of {} bytes", back.len(), data.len());
    echo.join().expect("no panic");
}

/// Returns `len` bytes that differ from place to place and from `seed` to `seed`.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| step()).collect()
}

/// Does `work` in a separate process without other tests, for values that are counted per process. `test` is
/// the test that calls this.
pub(crate) fn alone(test: &str, work: impl FnOnce()) {
    alone_by(Command::new(env::current_exe().expect("this program")), test, work);
}

/// Does the same, with a private loopback interface if the machine permits it.
pub(crate) fn alone_on_its_loopback(test: &str, work: impl FnOnce()) {
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    let unshared = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).args(words);
        command
    };
    let is_possible = unshared(&["true"]).output().is_ok_and(|output| output.status.success());
    let mut command = if is_possible { unshared(&[]) } else { Command::new("env") };
    command.arg(env::current_exe().expect("this program"));
    alone_by(command, test, work);
}

fn alone_by(mut command: Command, test: &str, work: impl FnOnce()) {
    const VARIABLE: &str = "PEERSOCK_TEST_ALONE";
    if env::var_os(VARIABLE).is_some() {
        return work();
    }
    let output =
        command.args(["--exact", "--nocapture", test]).env(VARIABLE, "1").output().expect("it starts");
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success() && out.contains("1 passed"), "{}: {out}\n{err}", output.status);
    eprint!("{err}");
}
