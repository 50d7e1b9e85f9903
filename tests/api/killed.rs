//! A peer whose process is killed: its machine still answers, so its connections end soon.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use peersock::NetworkId;
use peersock::blocking::{TcpListener, TcpStream};

use crate::common::{PATIENCE, member, network};

/// Set in the process that is killed: the network.
const VICTIM: &str = "PEERSOCK_TEST_VICTIM";

const PORT: u16 = 1500;

#[test]
fn who_downloads_from_a_process_that_is_killed_hears_of_it() {
    let network = network();
    let (node, _joined) = member(network);
    let (mut victim, address) = victim(network);
    let mut stream = TcpStream::connect_on(&node, address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut buf = [0; 65_536];
    stream.read_exact(&mut buf).expect("data");
    victim.kill().expect("it is killed");
    let killed = Instant::now();
    let error = loop {
        match stream.read(&mut buf) {
            Ok(0) => panic!("an end without an error"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    report(killed);
    victim.wait().expect("it was killed");
}

#[test]
fn who_uploads_to_a_process_that_is_killed_hears_of_it() {
    let network = network();
    let (node, _joined) = member(network);
    let (mut victim, address) = victim(network);
    let mut stream = TcpStream::connect_on(&node, address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut [0]).expect("data");
    victim.kill().expect("it is killed");
    let killed = Instant::now();
    victim.wait().expect("it was killed");
    let error = loop {
        // Little, now and then, as a keep-alive would be.
        if let Err(error) = stream.write_all(b"still there?") {
            break error;
        }
        assert!(killed.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    report(killed);
}

/// The process that is killed: sends to whoever connects. Without being asked to it does nothing.
#[test]
fn victim_of_the_others() {
    let Ok(network) = std::env::var(VICTIM) else { return };
    let (node, joined) = member(network.parse().expect("a network ID"));
    let listener = TcpListener::bind_on(&node, (joined.address(), PORT)).expect("a port");
    eprintln!("\n{}", listener.local_addr().expect("an address"));
    let (mut stream, _) = listener.accept().expect("a connection");
    // Whoever should have killed this process is not there any more.
    let end = Instant::now() + 2 * PATIENCE;
    while Instant::now() < end && stream.write_all(&[7; 65_536]).is_ok() {}
}

fn victim(network: NetworkId) -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture", "killed::victim_of_the_others"])
        .env(VICTIM, network.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = BufReader::new(child.stderr.take().expect("a pipe"));
    let address = output.lines().map_while(Result::ok).find_map(|line| line.parse().ok());
    (child, address.expect("it says where it is"))
}

fn report(since: Instant) {
    eprintln!("noticed after {:.2} s", since.elapsed().as_secs_f64());
}
