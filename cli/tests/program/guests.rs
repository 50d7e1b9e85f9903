//! Two roots of a set that share a real redis-server. A node whose network lets out only TCP to port 443
//! reaches a peer at the other root. Needs root and the programs `natlab` and `redis-server`; skips
//! otherwise.

use peersock_testnet::Lab as Nats;
use std::process::Command;

use crate::common::{Lab, PORT, Running, lacks, peersock};
use crate::nats::{start, wait_for_status};

const TEST: &str = "guest-by-stream";

#[test]
fn a_root_that_another_one_has_named_is_reached_by_a_stream_where_only_port_443_is_open() {
    if lacks(TEST, &["redis-server"]) {
        return;
    }
    let topology = "root1=public root2=public office=udp-blocked home=port-restricted";
    let Some(nats) = Nats::build(TEST, topology) else { return };
    let lab = Lab::new();
    let redis = nats.ip4("root1").to_string();
    let mut directory = Command::new("redis-server");
    directory.args(["--bind", &redis, "--port", "6379", "--save", "", "--protected-mode", "no", "--dir"]);
    directory.arg(lab.dir.path());
    let directory = start(&nats, "root1", directory);
    directory.wait_for_stdout("Ready to accept connections");
    let url = format!("redis://{redis}:6379");
    let roots = ["root1", "root2"].map(|root| {
        let address = nats.ip4(root).to_string();
        let words = ["root", "--ephemeral", "--stream", "443", "--drain", "0", "--listen", &address];
        let mut command = peersock(&words);
        command.args(["--directory", &url]);
        let serving = start(&nats, root, command);
        let said = serving.wait_for_stdout("\n");
        (said.lines().next().expect("a line").to_owned(), serving)
    });

    let node = |name: &str, host: &str, root: usize, words: &[&str]| -> Running {
        let mut command = lab.command(name, words);
        command.args(["-v", "--no-portmap", "--network", &lab.network, "--root", &roots[root].0]);
        start(&nats, host, command)
    };
    let mut listening = node("listener", "home1", 1, &["listen", &PORT.to_string()]);
    let target = listening.wait_for_target();
    wait_for_status(&lab, "listener", |now| now["roots"][0]["state"] == "registered");
    let mut dialing = node("dialer", "office1", 0, &["dial", &target]);
    dialing.talk_to(&mut listening, "out of the office", "and back");
    let there = nats.ip4("root2").to_string();
    let now = wait_for_status(&lab, "dialer", |now| now["roots"][1]["state"] == "registered");
    let guest = &now["roots"][1];
    assert_eq!(guest["guest"], true, "{now:#}");
    let way = guest["stream"].as_str().unwrap_or_default();
    assert!(way.ends_with(&format!("{there}:443")), "{now:#}");
    assert!(now["peers"][0]["root"].is_string(), "the path leads through it: {now:#}");
    dialing.end_stdin();
    listening.finish().success();
    dialing.finish().success();
}
