//! No member can take all slots of a program that serves several: its connections are counted together, at
//! all of its addresses.

use std::fs;
use std::net::SocketAddr;

use peersock::blocking::TcpStream;
use peersock::{IdentitySource, Interfaces, Node};
use peersock_files::{Code, PORT as FILES_PORT};

use crate::cable::{Cable, ip};
use crate::common::{Lab, PATIENCE, Running, lacks, run};

/// Program that opens the given number of connections from each address, in turn, and keeps them.
const CONNECT: &str = "import socket, sys, time
server, port, count, *own = sys.argv[1:]
held = []
for _ in range(int(count)):
    for address in own:
        held.append(socket.create_connection((server, int(port)), source_address=(address, 0)))
        held[-1].sendall(b'hello')
print('connected', flush=True)
time.sleep(3600)";

/// A gateway has a whole block of addresses, but no more slots for that.
#[test]
fn a_member_with_a_block_of_addresses_has_one_share_of_a_listener() {
    let test = "a_member_with_a_block_of_addresses";
    if lacks(test, &["python3"]) {
        return;
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        eprintln!("SKIP {test}: there is no /dev/net/tun");
        return;
    }
    let Some(cable) = Cable::lay("shares", &["10.98.7.1/24", "10.98.7.2/24"]) else { return };
    let mut lab = Lab::new();
    let file = lab.dir.path().join("office.toml").to_str().unwrap().to_owned();
    let of = |node: &str, words: &[&str]| run(lab.command(node, words)).success();
    of("listen", &["network", "new", &file, "--name", "one", "--address", "10.97.0.1"]);
    let add = ["network", "add", &file, "--name", "two", "--address", "10.97.0.2"];
    of("up", &[&add[..], &["--route", "192.168.77.0/24"]].concat());
    lab.network = file;
    let own: Vec<_> = (1..=5).map(|host| format!("192.168.77.{host}")).collect();
    for address in &own {
        assert!(ip(["-n", &cable.ends[1], "addr", "add", &format!("{address}/24"), "dev", "lo"]));
    }
    let up = cable.inside(1, &lab, "up", &["up"]);
    up.wait_for_stdout("10.97.0.2");
    let listening = cable.inside(0, &lab, "listen", &["listen", "-k", "--receive-only", "7000"]);
    listening.wait_for_stderr("listening on 10.97.0.1:7000");
    let connect = |count: &str| {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &cable.ends[1], "python3", "-c", CONNECT, "10.97.0.1", "7000", count]);
        Running::start({
            command.args(&own);
            command
        })
    };
    // These are 65 connections, one more than a member's share, though only 13 per address.
    let client = connect("13");
    client.wait_for_stdout("connected");
    let said = listening.wait_for_stderr("a connection of ");
    assert!(said.contains("waits for its turn: 64 of one peer are served at once"), "{said}{}", up.said());
}

/// A holder of the code may open idle connections; other receivers are still served.
#[test]
fn one_receiver_with_many_connections_does_not_shut_out_the_others() {
    let lab = Lab::new();
    let folder = lab.dir.path();
    fs::write(folder.join("file"), "content").unwrap();
    let sender = Running::start({
        let mut command = crate::common::peersock(&["send", "--interface", "lo"]);
        command.arg(folder.join("file"));
        command
    });
    let code = sender.wait_for_stdout("\n").trim().to_owned();
    let meeting = code.parse::<Code>().expect("a code").meeting().expect("memory");
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.start().unwrap();
    let joined = node.join(meeting.network).unwrap();
    let target = SocketAddr::new(meeting.address.into(), FILES_PORT);
    joined.wait_peer(target.ip(), PATIENCE).unwrap();
    let connect = || TcpStream::connect_timeout_on(&node, &target, PATIENCE);
    // A connection without any answer may be reset before it is seen.
    let held: Vec<_> = (0..33).filter_map(|_| connect().ok()).collect();
    assert!(held.len() >= 32, "{} connections", held.len());
    sender.wait_for_stderr("a receiver must come back later");
    let to = folder.join("to");
    fs::create_dir(&to).unwrap();
    let mut command = crate::common::peersock(&["receive", &code, "--interface", "lo", "--to"]);
    command.arg(&to);
    let received = Running::start(command).finish().success();
    assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "content");
    assert!(!received.stderr.contains("as many receivers as it can"), "{}", received.stderr);
}
