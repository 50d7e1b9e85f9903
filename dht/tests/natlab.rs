//! Two nodes behind real NATs meet by a DHT and punch through, in network namespaces.
//!
//! It needs root and the program `natlab`; else the tests print why they are skipped.

use peersock_testnet::Lab;

#[test]
fn two_nodes_behind_port_restricted_nats_meet_and_punch() {
    meet(2, "wait");
}

/// What is promised.
#[test]
#[ignore = "cargo xtask test --only slow: it takes two minutes"]
fn the_first_byte_comes_within_ten_seconds_in_the_median_of_ten() {
    if let Some(median) = meet(10, "wait") {
        assert!(median <= 10_000, "{median} ms");
    }
}

/// The same with a node that has waited for long, and so reads its mailbox every 15 s at the least.
#[test]
#[ignore = "cargo xtask test --only slow: it takes five minutes"]
fn the_first_byte_comes_within_ten_seconds_in_the_median_also_from_an_idle_node() {
    if let Some(median) = meet(10, "idle") {
        assert!(median <= 10_000, "{median} ms");
    }
}

/// The median in milliseconds, or `None` if there is no laboratory.
fn meet(runs: u8, role: &str) -> Option<u64> {
    let topology = "stun=stun root=public home=port-restricted work=port-restricted";
    let lab = Lab::build(&format!("meet-{role}-{runs}"), topology)?;
    let mut command = lab.command(env!("CARGO_BIN_EXE_dht-meet"));
    let output = command.args(["lab", &runs.to_string(), role]).output().expect("the program starts");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    eprintln!("{said}");
    let line = said.lines().find_map(|line| line.strip_prefix("median ")).expect("the median");
    Some(line.split_whitespace().next().and_then(|ms| ms.parse().ok()).expect("milliseconds"))
}
