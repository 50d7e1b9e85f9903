//! Networks as interfaces of the machine.

use std::process::Command;

use crate::common::run;
use crate::lab::{Lab, is_root};

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

#[test]
fn programs_find_the_networks_also_by_netlink_and_ioctl() {
    let test = "programs_find_the_networks_also_by_netlink_and_ioctl";
    let Some(lab) = Lab::with(test, &["cc"]) else { return };
    let source = format!("{}/tests/run/netlink.c", env!("CARGO_MANIFEST_DIR"));
    let compile = |name, more: &[&str]| {
        let program = lab.path(name);
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall", "-Werror", "-pthread"]).args(more).arg("-o").arg(&program).arg(&source);
        run(cc).success();
        program.to_str().unwrap().to_owned()
    };
    let linked = [&compile("linked", &[]), "10.77.0.3", "fd77::3"].map(String::from);
    let notified = [&compile("alone", &["-static"]), "10.77.0.3", "fd77::3", "notified"].map(String::from);
    let by_library = run(lab.command("gamma", &[], &linked)).success();
    let by_filter = run(lab.command("gamma", &[], &notified)).success();
    assert_eq!((by_library.text(), by_filter.text()), ("found\n", "found\n"));
}

/// ip(8) checks the length of each datagram before it reads it, and queries one interface by its name.
#[test]
fn ip_shows_the_networks() {
    let Some(lab) = Lab::with("ip_shows_the_networks", &["ip"]) else { return };
    let ip = |arguments: &str| {
        let program: Vec<_> = ["ip"].into_iter().chain(arguments.split(' ')).collect();
        run(lab.command("beta", &[], &program)).success().text().to_owned()
    };
    let address = ip("-o -4 addr show dev ps1");
    assert!(address.contains(" ps1 ") && address.contains(" 10.77.0.2/30 "), "{address}");
    assert!(ip("-o -6 addr show dev ps1").contains(" fd77::2/126 "));
    let all = ip("-br link");
    let last = all.lines().last().unwrap_or_default();
    assert!(all.starts_with("lo ") && last.starts_with("ps1 "), "{all}");
    assert!(ip("-o link show ps1").contains(" mtu 1280 "));
}

/// dnsmasq queries the interface's addresses by netlink, and its name by ioctl.
#[test]
fn dnsmasq_serves_the_network_whose_interface_it_is_told() {
    let test = "dnsmasq_serves_the_network_whose_interface_it_is_told";
    let Some(lab) = Lab::with(test, &["dnsmasq", "python3"]) else { return };
    let ask = lab.write("ask.py", ASK);
    for (member, address, bind) in
        [("alpha", "10.77.0.1", "--bind-interfaces"), ("gamma", "10.77.0.3", "--bind-dynamic")]
    {
        let user = if is_root() { "--user=root" } else { "--user=" };
        let server = lab.start(
            member,
            &[
                "dnsmasq",
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--no-hosts",
                "--no-resolv",
                "--port=5300",
                "--host-record=host.test,192.0.2.7",
                "--interface=ps1",
                "--except-interface=lo",
                bind,
                user,
            ],
        );
        let six = address.replace("10.77.0.", "fd77::");
        let asked =
            lab.bash("beta", &format!("try timeout 5 python3 {ask} {address} && python3 {ask} {six}"));
        assert_eq!(asked.text(), "192.0.2.7\n192.0.2.7\n", "{bind}");
        drop(server);
    }
}

/// Server and client of BIND use libuv, which makes `recvmmsg` and `sendmmsg` by their numbers.
#[test]
fn bind_answers_its_own_client_by_udp_and_tcp() {
    let test = "bind_answers_its_own_client_by_udp_and_tcp";
    let Some(lab) = Lab::with(test, &["named", "dig"]) else { return };
    let config = "options { directory \"@DIR@\"; pid-file none; session-keyfile none; recursion no; \
                  listen-on port 5300 { 10.77.0.1; }; listen-on-v6 port 5300 { fd77::1; }; }; controls { };
                  zone \"test\" { type primary; file \"zone\"; };\n";
    let config = lab.write("named.conf", config);
    lab.write("zone", "$TTL 60\n@ SOA ns root 1 60 60 60 60\n@ NS ns\nns A 192.0.2.1\nhost A 192.0.2.7\n");
    let server = lab.start("alpha", &["named", "-g", "-n", "1", "-c", &config]);
    server.wait_for_stderr("all zones loaded");
    let ask = "dig +short +time=5 -p 5300 host.test";
    let asked = lab.bash(
        "beta",
        &format!("for how in '' +tcp; do for to in 10.77.0.1 fd77::1; do {ask} @$to $how; done; done"),
    );
    assert_eq!(asked.text(), "192.0.2.7\n".repeat(4), "{}", server.said());
    server.interrupt();
}

/// Asks a server for the address of host.test, by UDP and by TCP.
const ASK: &str = r#"
import socket, struct, sys

query = struct.pack(">6H", 77, 0x100, 1, 0, 0, 0) + b"\4host\4test\0" + struct.pack(">2H", 1, 1)
to = (sys.argv[1], 5300)
family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as udp:
    udp.settimeout(2)
    udp.sendto(query, to)
    answer, sender = udp.recvfrom(512)
    assert sender[:2] == to, sender
with socket.create_connection(to, 5) as tcp:
    tcp.sendall(struct.pack(">H", len(query)) + query)
    assert tcp.recv(1024)[2:] == answer
assert answer[:2] == query[:2] and answer[6:8] == b"\0\1", answer
print(socket.inet_ntoa(answer[-4:]))
"#;

/// Node's resolver queries the interfaces at its start, and later at any time.
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
