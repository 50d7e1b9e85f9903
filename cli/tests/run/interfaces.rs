//! The networks as interfaces of the machine.

use std::process::Command;

use crate::common::run;
use crate::lab::Lab;

#[test]
fn programs_find_the_networks_among_the_interfaces_and_bind_to_them() {
    let test = "programs_find_the_networks_among_the_interfaces_and_bind_to_them";
    let Some(lab) = Lab::with(test, &["cc"]) else { return };
    let source = format!("{}/tests/run/interfaces.c", env!("CARGO_MANIFEST_DIR"));
    let program = lab.path("interfaces");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Werror", "-o"]).arg(&program).arg(source);
    run(cc).success();
    let arguments = [program.to_str().unwrap(), "10.77.0.3", "fd77::3"];
    let server = lab.start("gamma", &arguments);
    let said = server.wait_for_stdout("\n");
    let port = said.trim().strip_prefix("port ").unwrap_or_else(|| panic!("{said}"));
    assert_eq!(lab.bash("beta", &format!("head -n 1 < /dev/tcp/10.77.0.3/{port}")).text(), "served\n");
    server.finish().success();
}

/// Its resolver asks for the interfaces when it starts, and again as it likes.
#[test]
fn what_asks_for_interfaces_from_other_languages_gets_the_same() {
    let test = "what_asks_for_interfaces_from_other_languages_gets_the_same";
    let Some(lab) = Lab::with(test, &["python3", "node"]) else { return };
    let python =
        "import socket; print(*sorted(name for _, name in socket.if_nameindex() if name.startswith('ps')))";
    let found = run(lab.command("beta", &[], &["python3", "-c", python])).success();
    assert_eq!(found.text(), "ps1\n");
    let node = "console.log(require('os').networkInterfaces().ps1.map(one => one.cidr).join(' '))";
    let found = run(lab.command("beta", &[], &["node", "-e", node])).success();
    assert!(found.text().contains("10.77.0.2/"), "{}", found.text());
}
