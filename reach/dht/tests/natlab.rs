//! Meeting of two nodes behind real NATs through a DHT, with hole punching, in network namespaces.
//!
//! The tests need root and the program `natlab`; otherwise they print the reason for being skipped.

use peersock_testnet::Lab;

#[test]
fn two_nodes_behind_port_restricted_nats_meet_and_punch() {
    meet(2, "wait");
}

/// Checks the promised time.
#[test]
#[ignore = "cargo xtask test --only slow: it takes two minutes"]
fn the_first_byte_comes_within_ten_seconds_in_the_median_of_ten() {
    if let Some(median) = meet(10, "wait") {
        assert!(median <= 10_000, "{median} ms");
    }
}

/// Checks the same with a node that has waited for long, and so reads its mailbox only every 15 s.
#[test]
#[ignore = "cargo xtask test --only slow: it takes five minutes"]
fn the_first_byte_comes_within_ten_seconds_in_the_median_also_from_an_idle_node() {
    if let Some(median) = meet(10, "idle") {
        assert!(median <= 10_000, "{median} ms");
    }
}

/// Returns the median in milliseconds, or `None` if there is no lab.
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
