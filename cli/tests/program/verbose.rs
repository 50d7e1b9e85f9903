//! Messages of `-v`, which people can understand.

use std::fs;
use std::net::UdpSocket;

use peersock_testnet::free_port;

use crate::common::{Lab, PORT, Running, run};

#[test]
fn v_tells_what_was_tried_to_reach_nobody() {
    let lab = Lab::new();
    let absent = run(lab.command("absent", &["addr", &lab.network])).success().text().trim().to_owned();
    let target = format!("[{absent}]:{PORT}");
    let dialing = run(lab.dial_command(&target, &["-v", "--timeout", "1"]));
    dialing.failure(1, &[]);
    for words in [
        "network interface lo 127.0.0.1 broadcast 127.255.255.255",
        "UDP socket for the overlay's packets address=127.0.0.1:",
        "beacon sent to=127.255.255.255:",
        &format!("no answer: no beacon or hello of {absent} has come in 1 s"),
    ] {
        assert!(dialing.stderr.contains(words), "{words:?} is not in: {}", dialing.stderr);
    }
    assert_plain(&dialing.stderr);
}

#[test]
fn v_tells_which_address_has_not_answered() {
    let lab = Lab::new();
    // The peer's port exists, but does not answer.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let endpoint = silent.local_addr().expect("an address");
    let mut file = "network = \"fe00000000000001\"\n".to_owned();
    for (name, more) in [("dialer", String::new()), ("absent", format!("endpoints = [\"{endpoint}\"]\n"))] {
        let id = run(lab.command(name, &["id", "--json"])).success();
        let key =
            serde_json::from_str::<serde_json::Value>(id.text()).expect("JSON")["public_key"].to_string();
        file += &format!("[[member]]\nname = \"{name}\"\nkey = {key}\n{more}");
    }
    let path = lab.dir.path().join("network.toml");
    fs::write(&path, file).expect("written");
    let words = ["dial", "absent:7000", "-v", "--timeout", "1"];
    let dialing = run(lab.node_in(path.to_str().expect("UTF-8"), "dialer", &words));
    let line = format!("no answer from {endpoint} in 1 s");
    dialing.failure(1, &["initiation sent", &line]);
    assert_eq!(dialing.stderr.matches(&line).count(), 1);
    assert_plain(&dialing.stderr);
}

#[test]
fn v_tells_how_a_peer_was_reached_and_vvv_every_packet() {
    let lab = Lab::new();
    for (verbose, wanted) in [
        ("-v", &["hello received", "initiation sent", "session established", " via lo"][..]),
        ("-vvv", &["data sent", "data received", "initiation sent to=", "response received from="]),
    ] {
        let mut listening = lab.listen(&[&PORT.to_string()]);
        let mut dialing = Running::start(lab.dial_command(&listening.target, &[verbose]));
        dialing.send(b"x");
        listening.running.wait_for_stdout("x");
        dialing.end_stdin();
        listening.running.end_stdin();
        let dialing = dialing.finish().success();
        listening.running.finish().success();
        for words in wanted {
            assert!(dialing.stderr.contains(words), "{words:?} is not in: {}", dialing.stderr);
        }
        assert_plain(&dialing.stderr);
        assert_eq!(verbose == "-vvv", dialing.stderr.contains("data sent"));
    }
}

#[test]
fn an_interface_that_does_not_exist_is_named_with_those_that_do() {
    let lab = Lab::new();
    let mut command = lab.command("listener", &["listen", &PORT.to_string()]);
    command.args(["--interface", "nosuch", "--network", &lab.network]);
    let listening = run(command);
    listening.failure(1, &["nosuch", "lo"]);
    assert_plain(&listening.stderr);
}

/// Checks that the text contains nothing meant for programmers.
fn assert_plain(text: &str) {
    for form in ["Some(", "None", "SocketIndex", "NodeId(", "Peer {", "Path {", "[\"", "Named(", "Instant"] {
        assert!(!text.contains(form), "{form:?} is in: {text}");
    }
}

#[test]
fn v_tells_once_of_each_stranger_that_its_beacons_are_of_no_common_network() {
    let (lab, other) = (Lab::new(), Lab::new());
    let listening = lab.listen(&["-v", &PORT.to_string()]).running;
    let absent = run(other.command("absent", &["addr", &other.network])).success().text().trim().to_owned();
    let port = free_port();
    // Each start sends different beacons than before, from the same address.
    for _ in 0..2 {
        let words = ["--overlay-port", &port.to_string(), "--timeout", "1"];
        run(other.dial_command(&format!("[{absent}]:{PORT}"), &words)).failure(1, &[]);
        listening.wait_for_stderr(&format!("from=127.0.0.1:{port}"));
    }
    let said = listening.interrupt().stderr;
    let refusals: Vec<_> = said.lines().filter(|line| line.contains("beacon refused")).collect();
    let sources: Vec<_> = refusals.iter().map(|line| line.split("from=").nth(1)).collect();
    assert!(sources.iter().all(Option::is_some), "{said}");
    for source in &sources {
        assert_eq!(sources.iter().filter(|other| *other == source).count(), 1, "{source:?}: {said}");
    }
}
