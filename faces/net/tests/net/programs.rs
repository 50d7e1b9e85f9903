//! The example programs: the echo server with its client, and the check of all networks.

use clap::Parser;
use peersock::Node;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::common::{Members, soon};

#[expect(dead_code, reason = "the tests call what its main does")]
#[path = "../../examples/check.rs"]
mod check;
#[expect(dead_code, reason = "the tests call what its main does")]
#[path = "../../examples/echo.rs"]
mod echo;

const CHECKS: [&str; 7] = ["tcp", "tcp6", "udp", "udp6", "unix-client", "unix-connect", "unix"];

fn input() -> Vec<u8> {
    let mut input = b"one\ntwo\n".to_vec();
    input.extend((0..40).flat_map(|_| 10..=255_u8));
    input.push(b'\n');
    input
}

/// Runs the echo server and a client. Returns the client's output.
async fn echoed(network: &str, at: &str, dial: impl Fn(&str) -> String, nodes: [Option<Node>; 2]) -> Vec<u8> {
    let [server_node, client_node] = nodes;
    let options = echo::Options::try_parse_from(["echo", "-l", "-n", network, "-a", at]).expect("options");
    let (said, output) = tokio::io::duplex(1 << 10);
    let server =
        tokio::spawn(async move { echo::run(&options, server_node, tokio::io::empty(), output).await });
    let mut address = String::new();
    soon(BufReader::new(said).read_line(&mut address)).await.expect("it says where");
    let address = dial(address.trim());
    let options =
        echo::Options::try_parse_from(["echo", "-d", "-n", network, "-a", &address]).expect("options");
    let mut received = Vec::new();
    let input = input();
    soon(echo::run(&options, client_node, &input[..], &mut received)).await.expect("all comes back");
    server.abort();
    received
}

#[tokio::test]
async fn the_echo_server_of_each_network() {
    for network in ["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixgram"] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s").to_str().expect("a path in Unicode").to_owned();
        let at = match network {
            network if network.starts_with("unix") => path.as_str(),
            network if network.ends_with('6') => "[::1]:0",
            _ => "127.0.0.1:0",
        };
        assert_eq!(echoed(network, at, str::to_owned, [None, None]).await, input(), "{network}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_echo_server_over_the_overlay() {
    let members = Members::new();
    for network in ["tcp", "udp"] {
        // The server prints its port and wildcard address; the client dials the server by name.
        let named = |said: &str| said.replace("[::]", "there").replace("0.0.0.0", "there");
        let nodes = [Some(members.there.0.clone()), Some(members.here.0.clone())];
        assert_eq!(echoed(network, ":0", named, nodes).await, input(), "{network}");
    }
}

#[tokio::test]
async fn the_echo_server_says_what_is_wrong() {
    for (words, said) in [
        (vec!["-a", "127.0.0.1:0"], "required"),
        (vec!["-l", "-d", "-a", "127.0.0.1:0"], "cannot be used with"),
        (vec!["-l"], "required"),
        (vec!["-l", "-n", "sctp", "-a", "x"], "unknown network sctp"),
    ] {
        let Err(error) = echo::Options::try_parse_from([vec!["echo"], words.clone()].concat()) else {
            panic!("{words:?}")
        };
        assert!(error.to_string().contains(said), "{error}");
    }
    for (words, said) in [
        (["-l", "-a", "127.0.0.1"], "address 127.0.0.1: missing port in address"),
        (["-d", "-a", "[::1]:no-such-service"], "unknown port of tcp"),
    ] {
        let options =
            echo::Options::try_parse_from([vec!["echo"], words.to_vec()].concat()).expect("options");
        let done = soon(echo::run(&options, None, tokio::io::empty(), tokio::io::sink())).await;
        let error = done.expect_err("it cannot").to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// Runs the check. Returns its lines, and true if all is well.
async fn checked(words: &[&str]) -> (Vec<String>, bool) {
    let words = ["check"].iter().chain(words).map(|word| (*word).to_owned());
    let options = check::Options::try_parse_from(check::arguments(words)).expect("options");
    let mut said = Vec::new();
    let code = soon(check::run(&options, &mut said)).await.expect("its files can be read");
    let mut lines = String::new();
    (&said[..]).read_to_string(&mut lines).await.expect("text");
    (lines.lines().map(str::to_owned).collect(), code == std::process::ExitCode::SUCCESS)
}

#[tokio::test]
async fn the_check_of_all_networks() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("text");
    std::fs::write(&file, input()).expect("room");
    let (lines, is_well) = checked(&["-all", "-f", file.to_str().expect("a path in Unicode")]).await;
    let expected = CHECKS.map(|name| format!("{name}: {} bytes came back", input().len()));
    assert_eq!((lines, is_well), (expected.to_vec(), true));
}

#[tokio::test]
async fn the_check_of_some_networks() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let path_text = path.to_str().expect("a path in Unicode");
    let chosen = ["udp6", "unix-client", "unix", "tcp"];
    let mut words = vec!["-a", "127.0.0.2:0", "-u", path_text, "-t", "grüße", "-n"];
    words.extend(chosen);
    let expected = chosen.map(|name| format!("{name}: 7 bytes came back"));
    assert_eq!(checked(&words).await, (expected.to_vec(), true));
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
    // The check reports networks that fail.
    std::fs::write(&path, "somebody else's").expect("room");
    let (lines, is_well) = checked(&["-u", path_text, "-n", "unix", "tcp"]).await;
    assert!(lines[0].starts_with("unix: listen unix ") && lines[0].contains("os error 98"), "{lines:?}");
    assert_eq!((lines[1].as_str(), is_well), ("tcp: 5 bytes came back", false));
}

#[test]
fn the_check_says_what_is_wrong() {
    for words in [
        &["check"][..],
        &["check", "-n"],
        &["check", "-n", "sctp"],
        &["check", "--all", "-n", "tcp"],
        &["check", "--all", "-t", "x", "-f", "y"],
    ] {
        let Err(error) = check::Options::try_parse_from(words) else { panic!("{words:?}") };
        assert_eq!(error.exit_code(), 2);
    }
}
