//! `peersock up --exit`: Internet access through a member.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use crate::cable::ip;
use crate::common::{Running, run, signal, vanish, without_variables};
use crate::exit_scene::{CLIENT, EXIT, OF_CLIENT, OF_EXIT, ROUTER, SERVER, Scene, USER, inside};

/// Program that prints the sender of each datagram on port 7001, until one says `end`.
const HEAR: &str = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.97.0.1', 7001))
print('ready', flush=True)
while True:
    data, who = s.recvfrom(100)
    print(who[0], flush=True)
    if data == b'end': break";

/// Program that sends a datagram to the port of [`HEAR`].
const SEND: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
s.sendto(sys.argv[2].encode(), ('10.97.0.1', 7001))";

const BOTH: [&str; 2] = ["0.0.0.0/0", "::/0"];

#[test]
fn a_machine_reaches_the_internet_by_way_of_its_exit_and_its_local_network_directly() {
    let Some(scene) = Scene::lay("exitboth", &BOTH) else { return };
    let before = scene.routing();
    let gate = scene.gate();
    for (server, own) in SERVER.iter().zip(OF_CLIENT) {
        assert_eq!(scene.seen(server), own, "without an exit\n{}", gate.said());
    }
    let client = scene.client();
    let said = || [client.said(), gate.said()].concat();
    for (server, by) in SERVER.iter().zip(OF_EXIT) {
        assert_eq!(scene.seen(server), by, "{}", said());
        let pinged = scene.run(CLIENT, &["ping", "-c", "1", "-W", "60", server]);
        assert!(pinged.text().contains("1 received"), "{}\n{}", pinged.text(), said());
    }
    // The local network, in which the router is the only machine, stays reachable.
    for address in ["10.98.7.254", "2001:db8:7::fe"] {
        let way = scene.run(CLIENT, &["ip", "route", "get", address]).success();
        assert!(way.text().contains("dev eth0"), "{}", way.text());
        let pinged = scene.run(CLIENT, &["ping", "-c", "1", "-W", "60", address]);
        assert!(pinged.text().contains("1 received"), "{}", pinged.text());
    }
    // The node's own packets use the machine's route, because they belong to its user. They do not loop back
    // into the interface, whose traffic they carry.
    let node = std::fs::read_to_string(format!("/proc/{}/status", client.id())).unwrap();
    let uid = node.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert_eq!(uid.split_whitespace().skip(1).collect::<Vec<_>>(), ["65534"; 4]);
    for field in ["CapEff", "CapPrm", "CapInh"] {
        let line = node.lines().find(|line| line.starts_with(field)).unwrap();
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
    for (address, uid, device) in [(OF_EXIT[0], "65534", "eth0"), (OF_EXIT[0], "0", "peersock0")] {
        let way = scene.run(CLIENT, &["ip", "route", "get", address, "uid", uid]).success();
        assert!(way.text().contains(&format!("dev {device}")), "{}", way.text());
    }
    // The direct route changes after a gap, and the exit is reached by the new route.
    let route = |words: &[&str]| scene.run(CLIENT, &[&["ip", "route"], words].concat()).success();
    assert!(ip(["-n", &scene.places[ROUTER], "addr", "add", "10.98.7.253/24", "dev", "to0"]));
    route(&["del", "default"]);
    route(&["add", "default", "via", "10.98.7.253"]);
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}", said());
    // Private addresses behind the exit are not part of the Internet.
    scene.run(EXIT, &["ip", "addr", "add", "10.56.0.1/32", "dev", "lo"]).success();
    let pinged = scene.run(CLIENT, &["ping", "-c", "1", "-W", "3", "10.56.0.1"]);
    assert!(!pinged.status.success(), "{}", pinged.text());

    signal(Signal::TERM, client.id());
    let ended = client.wait_for_end();
    assert_eq!(ended.status.code(), Some(128 + 15), "{}", ended.stderr);
    assert_eq!(scene.routing(), before);
    for (server, own) in SERVER.iter().zip(OF_CLIENT) {
        assert_eq!(scene.seen(server), own, "after the end");
    }
}

#[test]
fn ipv6_goes_nowhere_where_the_exit_has_none_and_nothing_leaks_when_the_node_is_killed() {
    let Some(scene) = Scene::lay("exitleak", &["0.0.0.0/0"]) else { return };
    let before = scene.routing();
    assert_eq!(scene.seen(SERVER[1]), OF_CLIENT[1]);
    let gate = scene.gate();
    let client = scene.client();
    client.wait_for_stderr("IPv6 goes nowhere");
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}{}", client.said(), gate.said());
    let is_blocked = |server: &str| {
        let seen = scene.seen(server);
        assert!(seen.contains("Network is unreachable"), "{server}: {seen}");
    };
    is_blocked(SERVER[1]);

    vanish(Signal::KILL, client.id());
    client.wait_for_stderr("no traffic can bypass its exit");
    client.wait_for_end();
    for server in SERVER {
        is_blocked(server);
    }
    let pinged = scene.run(CLIENT, &["ping", "-c", "1", "-W", "60", "10.98.7.254"]);
    assert!(pinged.text().contains("1 received"), "the local network: {}", pinged.text());
    // A run that fails, early or late, leaves the machine blocked as before.
    let hold = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 7777))
print('ready', flush=True)
sys.stdin.read()";
    let holder = Running::start(inside(&scene.places[CLIENT], &["python3", "-c", hold]));
    holder.wait_for_stdout("ready");
    let more = ["--exit", "gate", "--user", USER, "--overlay-port", "7777"];
    run(scene.up_command(CLIENT, "client", &more)).failure(1, &["7777"]);
    SERVER.iter().for_each(|server| is_blocked(server));
    drop(holder);
    // The next run replaces the leftover rules.
    let client = scene.client();
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}{}", client.said(), gate.said());
    client.interrupt();
    assert_eq!(scene.routing(), before);
    assert_eq!(scene.seen(SERVER[1]), OF_CLIENT[1]);
    // Removes the rules by hand, as the message says.
    let client = scene.client();
    vanish(Signal::KILL, client.id());
    client.wait_for_end();
    is_blocked(SERVER[0]);
    for family in ["-4", "-6"] {
        scene.run(CLIENT, &["ip", family, "rule", "flush", "protocol", "74"]).success();
    }
    assert_eq!(scene.routing(), before);
}

/// Also covers signals between setting the rules and starting the node.
#[test]
fn a_signal_at_any_time_of_the_start_leaves_everything_as_it_was() {
    let Some(scene) = Scene::lay("exitearly", &BOTH) else { return };
    let before = scene.routing();
    for delay in (0..200).step_by(10) {
        let client = Running::start(scene.up_command(CLIENT, "client", &["--exit", "gate", "--user", USER]));
        std::thread::sleep(std::time::Duration::from_millis(delay));
        signal(Signal::TERM, client.id());
        client.wait_for_end();
        assert_eq!(scene.routing(), before, "after {delay} ms");
    }
}

#[test]
fn an_interface_that_somebody_removes_opens_no_other_way() {
    let Some(scene) = Scene::lay("exitgone", &BOTH) else { return };
    let _gate = scene.gate();
    let client = scene.client();
    assert!(ip(["-n", &scene.places[CLIENT], "link", "del", "peersock0"]));
    let ended = client.wait_for_end();
    ended.failure(1, &["the interface peersock0 is gone", "ip rule flush protocol 74"]);
    assert!(scene.seen(SERVER[0]).contains("Network is unreachable"));
}

#[test]
fn only_a_member_that_the_file_allows_is_an_exit() {
    let Some(scene) = Scene::lay("exitwho", &BOTH) else { return };
    let before = scene.routing();
    let refused =
        |more: &[&str], words: &[&str]| run(scene.up_command(CLIENT, "client", more)).failure(2, words);
    refused(&["--exit", "plain", "--user", USER], &["may not be an exit", "into its `routes`"]);
    refused(&["--exit", "gate"], &["--exit needs a separate user", "useradd"]);
    refused(&["--exit", "gate", "--user", "root"], &["bypass the exit", "useradd"]);
    // A state that the user cannot read is reported.
    let private = run(scene.up_command(CLIENT, "gate", &["--exit", "gate", "--user", USER]));
    private.failure(1, &["as user nobody", "install -d -m 700 -o nobody"]);
    assert_eq!(scene.routing(), before);
    // A strict filter would drop packets from the exit's machine to the node.
    scene.run(CLIENT, &["sysctl", "-w", "net.ipv4.conf.eth0.rp_filter=1"]).success();
    let strict = run(scene.up_command(CLIENT, "client", &["--exit", "gate", "--user", USER]));
    strict.failure(1, &["rp_filter is strict", "sysctl -w net.ipv4.conf.eth0.rp_filter=2"]);
    assert_eq!(scene.routing(), before);
}

#[test]
fn a_second_exit_of_a_machine_is_refused_and_the_first_one_stays() {
    let Some(scene) = Scene::lay("exittwo", &BOTH) else { return };
    let gate = scene.gate();
    let client = scene.client();
    let before = scene.routing();
    scene.give("plain");
    let more = ["--exit", "gate", "--user", USER, "--name", "other0"];
    let second = run(scene.up_command(CLIENT, "plain", &more));
    second.failure(1, &["another program leads to an exit here", "stop the other"]);
    assert!(!second.stderr.contains("has ended unexpectedly"), "{}", second.stderr);
    assert_eq!(scene.routing(), before);
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}{}", client.said(), gate.said());
}

/// The rights that a network's file gives an exit apply only to members that have chosen it.
#[test]
fn an_exit_speaks_for_the_internet_to_those_who_chose_it() {
    let Some(scene) = Scene::lay("exitspoof", &BOTH) else { return };
    for address in ["198.51.100.77/32", "192.168.9.9/32"] {
        scene.run(EXIT, &["ip", "addr", "add", address, "dev", "lo"]).success();
    }
    // The exit's machine may send any packets.
    let send = |from: &str, text: &str| {
        scene.run(EXIT, &["python3", "-c", SEND, from, text]).success();
    };
    let _gate = scene.gate();
    for (more, expected) in [
        (&["--user", USER][..], &["10.97.0.2"][..]),
        (&["--exit", "gate", "--user", USER], &["10.97.0.2", "198.51.100.77"]),
    ] {
        let client = scene.up(CLIENT, "client", more);
        let pinged = scene.run(CLIENT, &["ping", "-c", "1", "-W", "60", "10.97.0.2"]);
        assert!(pinged.text().contains("1 received"), "{}{}", pinged.text(), client.said());
        let hearing = Running::start(inside(&scene.places[CLIENT], &["python3", "-c", HEAR]));
        hearing.wait_for_stdout("ready");
        for from in ["192.168.9.9", "198.51.100.77"] {
            send(from, "forged");
        }
        // Datagrams arrive in order.
        send("10.97.0.2", "end");
        let heard = hearing.finish().success();
        let mut heard: Vec<_> = heard.text().lines().skip(1).map(str::to_owned).collect();
        heard.sort_unstable();
        assert_eq!(heard, expected, "{}", client.said());
        client.interrupt();
    }
}

/// A non-member on the exit's link can answer through the exit, but not initiate. Hosts in the exit's blocks
/// may initiate.
#[test]
fn an_exit_passes_nothing_to_members_but_answers_and_what_its_blocks_send() {
    let Some(scene) = Scene::lay("exitinward", &["0.0.0.0/0", "192.168.77.0/24"]) else { return };
    let (stranger, behind) = ("45.33.1.2", "192.168.77.5");
    for address in [stranger, behind] {
        let address = format!("{address}/32");
        assert!(ip(["-n", &scene.places[ROUTER], "addr", "add", &address, "dev", "lo"]));
    }
    scene.run(ROUTER, &["ip", "route", "add", "10.97.0.0/24", "via", OF_EXIT[0]]).success();
    let gate = scene.gate();
    let client = scene.client();
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}{}", client.said(), gate.said());
    let hearing = Running::start(inside(&scene.places[CLIENT], &["python3", "-c", HEAR]));
    hearing.wait_for_stdout("ready");
    let send = |place: usize, from: &str, text: &str| {
        scene.run(place, &["python3", "-c", SEND, from, text]).success();
    };
    send(ROUTER, stranger, "hello");
    send(ROUTER, behind, "hello");
    // The answer follows the datagrams on the same link, and then a datagram from the exit's machine.
    scene.run(ROUTER, &["ping", "-c", "1", "-W", "60", OF_EXIT[0]]).success();
    send(EXIT, "10.97.0.2", "end");
    let heard = hearing.finish().success();
    let heard: Vec<_> = heard.text().lines().skip(1).map(str::to_owned).collect();
    assert_eq!(heard, [behind, "10.97.0.2"], "{}", gate.said());
}

/// Programs under `peersock run` are on the overlay only with members' addresses, also on the exit itself.
#[test]
fn programs_with_sockets_of_their_own_do_not_take_the_internet_for_the_overlay() {
    let Some(scene) = Scene::lay("exitrun", &BOTH) else { return };
    let ask =
        "import socket, sys; print(socket.create_connection((sys.argv[1], 7000), 60).recv(100).decode())";
    for (place, node, own) in [(CLIENT, "plain", OF_CLIENT), (EXIT, "gate", OF_EXIT)] {
        for (server, own) in SERVER.iter().zip(own) {
            let mut command =
                inside(&scene.places[place], &[env!("CARGO_BIN_EXE_peersock"), "run", "--quiet"]);
            command.arg("--state").arg(scene.lab.state(node)).args(["--network", &scene.file(), "--"]);
            command.args(["python3", "-c", ask, server]);
            command.env("XDG_CACHE_HOME", scene.lab.dir.path().join("cache"));
            without_variables(&mut command);
            let asked = run(command).success();
            assert_eq!(asked.text().trim(), own, "{node}: {}", asked.stderr);
        }
    }
}

/// A router with a private address, as providers often use: its errors still pass.
#[test]
fn a_router_behind_the_exit_says_what_is_too_large() {
    let Some(scene) = Scene::lay("exitmtu", &BOTH) else { return };
    let gate = scene.gate();
    let client = scene.client();
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}{}", client.said(), gate.said());
    assert!(ip(["-n", &scene.places[ROUTER], "link", "set", "to3", "mtu", "1300"]));
    let ping = |size: &str| {
        scene
            .run(CLIENT, &["ping", "-M", "do", "-c", "1", "-W", "60", "-s", size, SERVER[0]])
            .text()
            .to_owned()
    };
    let said = ping("1350");
    assert!(said.contains("From 10.98.8.254") && said.contains("mtu = 1300"), "{said}{}", client.said());
    assert!(ping("1272").contains("1 received"));
}

/// A program that records its arguments replaces systemd's.
#[test]
fn names_are_asked_of_a_resolver_behind_the_exit_or_the_start_fails() {
    let Some(scene) = Scene::lay("exitdns", &["0.0.0.0/0"]) else { return };
    let before = scene.routing();
    let path = |name: &str| scene.lab.dir.path().join(name);
    let (told, resolvectl) = (path("told"), path("bin").join("resolvectl"));
    std::fs::create_dir(path("bin")).unwrap();
    let search = format!("{}:{}", path("bin").display(), std::env::var("PATH").unwrap());
    let start = |does: &str, more: &[&str]| {
        std::fs::write(&resolvectl, format!("#!/bin/sh\necho \"$@\" >>'{}'\n{does}\n", told.display()))
            .unwrap();
        std::fs::set_permissions(&resolvectl, std::fs::Permissions::from_mode(0o755)).unwrap();
        let words = [&["--exit", "gate", "--user", USER], more].concat();
        let mut command = scene.up_command(CLIENT, "client", &words);
        command.env("PATH", &search);
        Running::start(command)
    };
    let failed = start("exit 1", &["--exit-dns", SERVER[0]]).finish();
    failed.failure(1, &["systemd-resolved cannot be told", "nameserver 198.51.100.9"]);
    assert_eq!(scene.routing(), before);
    start("", &["--exit-dns", SERVER[1]]).finish().failure(2, &["no resolver can be reached there"]);
    start("", &["--exit-dns", SERVER[0], "--dns"]).finish().failure(2, &["leave one out"]);
    std::fs::remove_file(&told).unwrap();

    let gate = scene.gate();
    let client = start("", &["--exit-dns", SERVER[0], "--exit-dns", "9.9.9.9"]);
    client.wait_for_stdout("10.97.0.");
    let wanted = ["dns peersock0 198.51.100.9 9.9.9.9", "domain peersock0 ~.", "default-route peersock0 yes"];
    assert_eq!(std::fs::read_to_string(&told).unwrap().lines().collect::<Vec<_>>(), wanted);
    client.wait_for_stderr("names are asked of 198.51.100.9 and 9.9.9.9 by way of the exit");
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}{}", client.said(), gate.said());
}
