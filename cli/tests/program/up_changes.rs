//! Changes of the machine's network by others while `peersock up` runs, and features disabled before.

use crate::common::run;
use crate::up_office::{BLOCK, NAME, Office, V4};

#[test]
fn what_others_take_from_an_interface_is_set_again_and_said() {
    let Some(office) = Office::lay("uptaken") else { return };
    let (one, other) = (office.up(0), office.up(1));
    let shown = one.shown();
    let own_v6 = shown.lines().find(|line| line.contains(':')).expect("an IPv6 address").to_owned();
    let other_v6 = other.shown().lines().find(|line| line.contains(':')).expect("an IPv6 address").to_owned();
    let said = || [one.said(), other.said()].concat();
    let placed = office.placed(0);
    for wanted in [V4[0], BLOCK, &own_v6, "10.97.0.0/30", "mtu 1420"] {
        assert!(placed.contains(wanted), "{wanted} is not in\n{placed}");
    }
    let prefix = office.run(0, &["ip", "-6", "route", "show", "dev", NAME]).success();
    let is_prefix = |line: &&str| line.starts_with("fd") && !line.contains("proto kernel");
    let prefix = prefix.text().lines().find(is_prefix).expect("the network's prefix");
    let prefix = prefix.split_whitespace().next().expect("a prefix").to_owned();
    let own_v6_whole = format!("{own_v6}/128");
    let takes: [(&[&str], &str); 7] = [
        (&["addr", "del", "10.97.0.1/32", "dev", NAME], "the address 10.97.0.1"),
        (&["-6", "addr", "del", &own_v6_whole, "dev", NAME], &own_v6),
        (&["route", "del", "10.97.0.0/30", "dev", NAME], "the route to 10.97.0.0/30"),
        (&["-6", "route", "del", &prefix, "dev", NAME], &prefix),
        (&["route", "del", BLOCK, "dev", NAME], BLOCK),
        (&["link", "set", NAME, "mtu", "1300"], "its MTU"),
        // The MTU is below IPv6's minimum, so the kernel removes the family.
        (&["link", "set", NAME, "mtu", "1000"], &own_v6),
    ];
    for (words, name) in takes {
        office.ip(0, words);
        office.wait_until_placed(0, &placed, said);
        one.wait_for_stderr(name);
    }
    office.ip(0, &["link", "set", NAME, "down"]);
    one.wait_for_stderr("another program has set peersock0 down");
    office.ip(0, &["link", "set", NAME, "up"]);
    office.wait_until_placed(0, &placed, said);
    for address in [V4[1], &other_v6] {
        office.ping(0, address, "56");
    }
    // Nothing remains after the end.
    one.interrupt().failure(130, &[]);
    assert!(!office.run(0, &["ip", "link", "show", NAME]).status.success());
}

#[test]
fn a_machine_without_ipv6_has_the_ipv4_part_of_a_network() {
    let Some(office) = Office::lay("upfour") else { return };
    for which in ["all", "default"] {
        office.run(0, &["sysctl", "-w", &format!("net.ipv6.conf.{which}.disable_ipv6=1")]).success();
    }
    let (one, _other) = (office.up(0), office.up(1));
    assert_eq!(one.shown(), format!("{}\n", V4[0]));
    one.wait_for_stderr("this machine has IPv6 switched off");
    office.ping(0, V4[1], "56");
    office.ping(1, V4[0], "56");
    // A network that has only IPv6.
    let mut command =
        office.inside(0, &[env!("CARGO_BIN_EXE_peersock"), "up", "--ephemeral", "--name", "open0"]);
    command.args(["--network", &office.lab.network]);
    run(command).failure(1, &["no IPv4 address in network", "disable_ipv6=0"]);
}
