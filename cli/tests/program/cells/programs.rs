//! Unmodified programs over a TCP path. Different threads read from the path and write to it, so news of room
//! to write arrives at any moment.

use std::thread;
use std::time::Instant;

use super::cell::{Meeting, POLL};
use super::kind::{Access, SITES};
use crate::common::{PATIENCE, PORT};

/// Program that sends and receives much data, one after the other; for a client, `sys.argv` has the server's
/// address.
const PROGRAM: &str = "
import hashlib, random, socket, sys

port, address = int(sys.argv[1]), sys.argv[2:]
block = random.Random(1).randbytes(1 << 20)
times = 300
wanted = hashlib.sha256()
for _ in range(times): wanted.update(block)

def send():
    for _ in range(times): c.sendall(block)

def receive():
    got, left = hashlib.sha256(), times * len(block)
    while left:
        data = c.recv(min(left, 1 << 18))
        assert data, f'{left} bytes are missing'
        left -= len(data)
        got.update(data)
    assert got.digest() == wanted.digest(), 'other bytes'

if address:
    c = socket.create_connection((address[0], port))
    print('connected', flush=True)
    sys.stdin.readline()
    send()
    receive()
else:
    s = socket.create_server(('::', port), family=socket.AF_INET6)
    print('listens', flush=True)
    c, _ = s.accept()
    receive()
    send()
print('all there', flush=True)
";

#[test]
fn programs_carry_much_over_a_path_by_tcp_without_a_stop() {
    let name = "tcp-bulk";
    let no_udp =
        |nats: &peersock_testnet::Lab| SITES.iter().for_each(|site| Access::NoUdp.finish(nats, site));
    let topology = "one=port-restricted other=port-restricted";
    let Some(meeting) = Meeting::arrange(name, topology, no_udp) else { return };
    let port = PORT.to_string();
    let server = meeting.run("one1", "server", &["python3", "-c", PROGRAM, &port]);
    server.wait_for_stdout("listens");
    meeting.wait_until_registered("server", &server);
    let address = meeting.address_of("server");
    let mut client = meeting.run("other1", "client", &["python3", "-c", PROGRAM, &port, &address]);
    client.wait_for_stdout("connected");
    let deadline = Instant::now() + PATIENCE;
    while !["server", "client"].iter().all(|node| meeting.first_peer(node)["tcp"] == true) {
        assert!(Instant::now() < deadline, "no path by TCP: {:#}", meeting.first_peer("client"));
        thread::sleep(POLL);
    }
    client.send(b"\n");
    for program in [client, server] {
        let finished = program.wait_for_end().success();
        assert!(finished.text().ends_with("all there\n"), "{}", finished.stderr);
    }
}
