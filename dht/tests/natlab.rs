//! Two nodes behind real NATs meet by a DHT and punch through, in network namespaces.
//!
//! It needs root, nftables and the laboratory `natlab`, which `PEERSOCK_NATLAB` or the search path names;
//! else the test prints why it is skipped.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn two_nodes_behind_port_restricted_nats_meet_and_punch() {
    meet(2, "wait");
}

/// What is promised: `cargo test -p peersock-dht --test natlab -- --ignored --nocapture`.
#[test]
#[ignore = "takes two minutes"]
fn the_first_byte_comes_within_ten_seconds_in_the_median_of_ten() {
    if let Some(median) = meet(10, "wait") {
        assert!(median <= 10_000, "{median} ms");
    }
}

/// The same with a node that has waited for long, and so reads its mailbox every 15 s at the least.
#[test]
#[ignore = "takes five minutes"]
fn the_first_byte_comes_within_ten_seconds_in_the_median_also_from_an_idle_node() {
    if let Some(median) = meet(10, "idle") {
        assert!(median <= 10_000, "{median} ms");
    }
}

/// The median in milliseconds, or `None` if there is no laboratory.
fn meet(runs: u8, role: &str) -> Option<u64> {
    let natlab = match natlab() {
        Ok(natlab) => natlab,
        Err(reason) => {
            eprintln!("SKIP two nodes behind NATs meet by a DHT: {reason}");
            return None;
        }
    };
    let prefix = format!("dht{}-", std::process::id());
    let topology = "stun=stun root=public home=port-restricted work=port-restricted";
    let mut command = Command::new(natlab);
    command
        .env("NATLAB_PREFIX", &prefix)
        .args(["run", topology, "--"])
        .arg(env!("CARGO_BIN_EXE_dht-meet"))
        .args(["lab", &runs.to_string(), role]);
    let output = command.output().expect("natlab starts");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    eprintln!("{said}");
    let line = said.lines().find_map(|line| line.strip_prefix("median ")).expect("the median");
    Some(line.split_whitespace().next().and_then(|ms| ms.parse().ok()).expect("milliseconds"))
}

fn natlab() -> Result<PathBuf, String> {
    let works = |program: &str, argument: &str| {
        Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
    };
    let id = Command::new("id").arg("-u").output().map_err(|error| error.to_string())?;
    if id.stdout.trim_ascii() != b"0" {
        return Err("it needs root".into());
    }
    if !works("nft", "--version") {
        return Err("nftables are not installed".into());
    }
    let natlab = std::env::var("PEERSOCK_NATLAB").unwrap_or_else(|_| "natlab".into());
    match works(&natlab, "--help") {
        true => Ok(natlab.into()),
        false => Err("PEERSOCK_NATLAB does not name natlab, and the search path has none".into()),
    }
}
