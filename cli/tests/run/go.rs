//! Programs in Go, which make system calls directly.

use std::path::PathBuf;
use std::process::Command;

use crate::common::{peersock, run};
use crate::lab::{Lab, sha256};

#[test]
fn go_serves_and_fetches_linked_statically_and_dynamically() {
    let test = "go_serves_and_fetches_linked_statically_and_dynamically";
    let Some(lab) = Lab::with(test, &["go", "cc", "curl"]) else { return };
    let (alone, linked) = (build(&lab, "alone", false), build(&lab, "linked", true));
    let sum = sha256(&lab.write_random("file", 20_000_000));
    let [alone, linked] = [&alone, &linked].map(|program| program.to_str().unwrap());
    let _servers = [("alpha", alone), ("gamma", linked)]
        .map(|(member, server)| lab.start(member, &[server, "serve", "8080", lab.folder()]));
    let addresses = "http://10.77.0.1:8080/who 'http://[fd77::1]:8080/who' http://10.77.0.3:8080/who";
    let wanted = "10.77.0.2 10.77.0.1:8080\nfd77::2 [fd77::1]:8080\n10.77.0.2 10.77.0.3:8080\n";
    for client in [alone, linked] {
        let up = "for host in 10.77.0.1 10.77.0.3; do up 8080 $host; done";
        let got = lab.bash_with("beta", &["--mode", "seccomp"], &format!("{up}; {client} fetch {addresses}"));
        assert_eq!(got.text(), wanted);
        let file = |host| run(lab.command("beta", &[], &[client, "fetch", host])).success();
        assert_eq!(sha256(&file("http://10.77.0.1:8080/file").stdout), sum);
        assert_eq!(sha256(&file("http://10.77.0.3:8080/file").stdout), sum);
        let client = |arguments: [&str; 2]| {
            let program = [&[client], &arguments[..]].concat();
            run(lab.command("beta", &[], &program)).success().text().to_owned()
        };
        assert_eq!(client(["many", "http://10.77.0.1:8080/who"]), "all fetched\n");
        let found = client(["interface", "ps1"]);
        assert!(found.starts_with("true [fd") && found.ends_with(" 10.77.0.2/30 fd77::2/126]\n"), "{found}");
        assert_eq!(client(["ask", "10.77.0.1:8080"]), "true\n");
        let said = client(["refused", "10.77.0.1:8081"]);
        assert_eq!(said, "dial tcp 10.77.0.1:8081: connect: connection refused\ntrue\n");
    }
    // Programs with the library and without it reach each other.
    let got = lab.bash("beta", "up 8080; curl -sSf http://alpha:8080/file | sha256sum");
    assert_eq!(got.text(), format!("{sum}  -\n"));
    run(lab.command("beta", &[], &[alone, "exit"])).failure(7, &[]);
}

#[test]
fn programs_in_go_and_node_js_share_one_node() {
    let Some(lab) = Lab::with("programs_in_go_and_node_js_share_one_node", &["go", "node"]) else { return };
    let alone = build(&lab, "alone", false);
    let alone = alone.to_str().unwrap();
    let sum = sha256(&lab.write_random("file", 2_000_000));
    let _go = lab.start("alpha", &[alone, "serve", "8080", lab.folder()]);
    let server = "require('node:http').createServer((request, answer) => answer.end('from Node.js\\n'))
        .listen(8081)";
    let _node = lab.start("alpha", &["node", "-e", server]);
    lab.bash("alpha", "up 8080; up 8081");
    let node = lab.node("alpha");
    // Each fetches from the other at their own node, and a member of another node from both.
    let fetch = "up 8080; up 8081; fetch() { GO fetch \"http://10.77.0.1:$1\"; }".replace("GO", alone);
    let in_node = "fetch(process.argv[1]).then((answer) => answer.arrayBuffer())
        .then((data) => process.stdout.write(Buffer.from(data)))";
    for member in ["alpha", "beta"] {
        let got = lab.bash(member, &format!("{fetch}; fetch 8081/; fetch 8080/file | sha256sum"));
        assert_eq!(got.text(), format!("from Node.js\n{sum}  -\n"), "{member}: {}", got.stderr);
        let program = ["node", "-e", in_node, "http://10.77.0.1:8080/file"];
        let file = run(lab.command(member, &[], &program)).success();
        assert_eq!(sha256(&file.stdout), sum, "{member}");
    }
    assert_eq!(lab.node("alpha"), node, "one node serves all");
    let mut status = peersock(&["status", "--json", "--state"]);
    status.arg(lab.path("alpha"));
    let status: serde_json::Value = serde_json::from_slice(&run(status).stdout).expect("a status");
    assert_eq!(status["programs"].as_array().expect("a list").len(), 2, "{status}");
}

/// Builds the program of these tests, linked to the C library or not.
fn build(lab: &Lab, name: &str, is_linked: bool) -> PathBuf {
    let program = lab.path(name);
    let mut go = Command::new("go");
    go.arg("build").arg("-o").arg(&program);
    go.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/network.go"));
    go.env("GO111MODULE", "off").env("CGO_ENABLED", if is_linked { "1" } else { "0" });
    // Keeps the build cache, so that the standard library is compiled once.
    go.env("GOCACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/go"))
        .env("GOFLAGS", "")
        .env("GOTOOLCHAIN", "local");
    run(go).success();
    program
}
