//! What `-v` tells, and that people can read it.

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
    ] {
        assert!(dialing.stderr.contains(words), "{words:?} is not in: {}", dialing.stderr);
    }
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

/// Nothing in it is meant for programmers.
fn assert_plain(text: &str) {
    for form in ["Some(", "None", "SocketIndex", "NodeId(", "Peer {", "Path {", "[\"", "Named(", "Instant"] {
        assert!(!text.contains(form), "{form:?} is in: {text}");
    }
}
