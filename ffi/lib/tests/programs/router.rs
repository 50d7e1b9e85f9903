//! A node behind a real router, in network namespaces. The test needs root and the program `natlab`;
//! otherwise it prints why it is skipped.

use std::process::Command;

use peersock_testnet::Lab;
use serde_json::Value;

use crate::build::{Mode, Program};

#[test]
fn netcheck_tells_by_what_the_router_opens_ports() {
    let Some(program) = Program::new("ports.c").build(Mode::Plain) else { return };
    let Some(lab) = Lab::build("c-router", "stun=stun home=port-restricted:upnp") else { return };
    let mut command = Command::new(&program.path);
    command.arg(format!("{}:3478", lab.ip4("stun")));
    for variable in ["PEERSOCK_STUN", "PEERSOCK_ROOTS", "PEERSOCK_TURN"] {
        command.env_remove(variable);
    }
    let output = lab.within("home1", || command.output()).expect("the program was just built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nics = found["interfaces"].as_array().expect("some");
    let nic = nics.iter().find(|nic| nic["name"] == "eth0").expect("it is up");
    let ways = nic["port_mapping"].as_array().expect("some");
    let outer = lab.ip4("home").to_string();
    let told: Vec<_> =
        ways.iter().map(|way| (way["protocol"].as_str().unwrap_or(""), way["external"].as_str())).collect();
    // PCP reports the outer address only with an open port.
    let expected = [("pcp", None), ("nat-pmp", Some(outer.as_str())), ("upnp", Some(outer.as_str()))];
    assert_eq!(told, expected, "{found:#}");
}
