//! Packets larger than the path between two machines: datagrams and echo requests that are cut pass in both
//! families, also through a gateway, and the first of them needs no repetition.

use crate::cable::{Cable, ip};
use crate::common::{Finished, PATIENCE, Running, run};
use crate::exit_scene::inside;
use crate::up_office::{BLOCK, Office, V4};

/// Answers each datagram with the same.
const ECHO: &str = "import socket
v4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
v6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
import selectors
all = selectors.DefaultSelector()
for s, level, option, at in (v4, 0, 10, '0.0.0.0'), (v6, 41, 23, '::'):
    s.setsockopt(level, option, 0)
    s.bind((at, 7001))
    all.register(s, selectors.EVENT_READ)
print('ready', flush=True)
while True:
    for key, _ in all.select():
        data, who = key.fileobj.recvfrom(70000)
        key.fileobj.sendto(data, who)";

/// Asks with datagrams of the sizes behind the tries. Uses IP_PMTUDISC_DONT, like name servers.
const ASK: &str = "import os, socket, sys
for size in map(int, sys.argv[4:]):
    family, level, option = (socket.AF_INET6, 41, 23) if ':' in sys.argv[1] else (socket.AF_INET, 0, 10)
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(level, option, 0)
    s.settimeout(float(sys.argv[3]))
    s.connect((sys.argv[1], 7001))
    data = os.urandom(size)
    for attempt in range(int(sys.argv[2])):
        try:
            s.send(data)
            if s.recv(70000) == data: break
            raise SystemExit('%d bytes came as others' % size)
        except (TimeoutError, OSError): pass
    else: raise SystemExit('%d bytes never came' % size)
print('all')";

/// Another block behind the second member, and addresses of the gateway and of a machine there.
const BLOCK_V6: &str = "2001:db8:77::/64";
const GATEWAY: [&str; 2] = ["192.168.77.1", "2001:db8:77::1"];
const BEHIND: [&str; 2] = ["192.168.77.9", "2001:db8:77::9"];

/// Some fragments of the kernel exceed the path, and are split again. Packets sent before the path is known
/// may be lost.
#[test]
fn datagrams_that_both_kernels_cut_pass_over_paths_of_any_size() {
    let Some(office) = Office::lay("upcuts") else { return };
    for mtu in ["1280", "1400", "1480"] {
        (0..2).for_each(|machine| office.ip(machine, &["link", "set", "eth0", "mtu", mtu]));
        let ups: Vec<Running> = (0..2).map(|machine| office.up(machine)).collect();
        let serving = Running::start(office.inside(1, &["python3", "-c", ECHO]));
        serving.wait_for_stdout("ready");
        let shown = ups[1].shown();
        let v6 = shown.lines().find(|line| line.contains(':')).expect("an IPv6 address");
        for to in [V4[1], v6] {
            let asked = ask(&office, to, 60, &["100", "1200", "1300", "1372", "1400", "3000", "20000"]);
            let said = || ups.iter().map(Running::said).collect::<String>();
            assert!(asked.text().contains("all"), "{mtu} {to}: {}{}", asked.stderr, said());
            for size in ["1372", "1450", "3000", "20000"] {
                office.ping(0, to, size);
            }
        }
    }
}

/// The path's size is not known yet, and there is no session.
#[test]
fn the_first_datagram_of_two_machines_arrives_whatever_its_size() {
    let Some(office) = Office::lay("upfirst") else { return };
    let serving = Running::start(office.inside(1, &["python3", "-c", ECHO]));
    serving.wait_for_stdout("ready");
    for size in ["1200", "1372", "1400", "3000", "20000"] {
        for is_v4 in [true, false] {
            let ups: Vec<Running> = (0..2).map(|machine| office.up(machine)).collect();
            let shown = ups[1].shown();
            let to = shown.lines().find(|line| line.contains(':') != is_v4).expect("an address");
            let asked = ask(&office, to, 1, &[size]);
            let said = || ups.iter().map(Running::said).collect::<String>();
            assert!(asked.text().contains("all"), "{to}: {}{}", asked.stderr, said());
            ups.into_iter().for_each(|up| drop(up.interrupt()));
        }
    }
}

/// The machine behind the gateway knows nothing of the network, and its own link carries 1500 bytes.
#[test]
fn what_is_cut_passes_through_a_gateway_in_both_directions() {
    let Some(office) = Office::lay_with("upbehind", &[BLOCK, BLOCK_V6]) else { return };
    let Some(site) = Cable::lay("upplace", &[]) else { return };
    let (gateway, machine) = (&office.cable.ends[1], &site.ends[0]);
    assert!(ip(["-n", machine, "link", "del", "eth0"]));
    let link =
        ["link", "add", "eth1", "netns", gateway, "type", "veth", "peer", "name", "eth0", "netns", machine];
    assert!(ip(link));
    for (place, device, addresses) in [(gateway, "eth1", GATEWAY), (machine, "eth0", BEHIND)] {
        for (address, length) in addresses.iter().zip(["/24", "/64"]) {
            assert!(ip(["-n", place, "addr", "add", &format!("{address}{length}"), "dev", device, "nodad"]));
        }
        assert!(ip(["-n", place, "link", "set", device, "up"]));
    }
    for address in GATEWAY {
        assert!(ip(["-n", machine, "route", "add", "default", "via", address]));
    }
    for name in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        office.run(1, &["sysctl", "-w", name]).success();
    }
    (0..2).for_each(|machine| office.ip(machine, &["link", "set", "eth0", "mtu", "1280"]));
    let ups: Vec<Running> = (0..2).map(|machine| office.up(machine)).collect();
    let said = || ups.iter().map(Running::said).collect::<String>();
    let serving = Running::start(inside(machine, &["python3", "-c", ECHO]));
    serving.wait_for_stdout("ready");
    let shown = ups[0].shown();
    for (to, is_v4) in BEHIND.into_iter().zip([true, false]) {
        let sizes = ["56", "1200", "1372", "1450", "3000", "20000"];
        for size in sizes {
            office.ping(0, to, size);
        }
        let asked = ask(&office, to, 60, &sizes);
        assert!(asked.text().contains("all"), "{to}: {}{}", asked.stderr, said());
        // The other direction; the first of these packets may exceed a path whose size is not known here.
        let back = shown.lines().find(|line| line.contains(':') != is_v4).expect("an address");
        for size in sizes {
            let pinged = run(inside(
                machine,
                &["ping", "-M", "dont", "-c", "3", "-i", "0.2", "-W", "60", "-s", size, back],
            ));
            assert!(!pinged.text().contains(" 0 received"), "{back} {size}: {}{}", pinged.text(), said());
        }
    }
}

/// Sends datagrams of these sizes to a machine, with some tries for each answer. Without repetition, each
/// answer is awaited for longer.
fn ask(office: &Office, to: &str, tries: usize, sizes: &[&str]) -> Finished {
    let wait = if tries == 1 { PATIENCE.as_secs() / 2 } else { 1 };
    let words = ["python3", "-c", ASK, to, &tries.to_string(), &wait.to_string()];
    office.run(0, &[&words, sizes].concat())
}
