//! Acceptance of beacons: only those sent to a group or a broadcast address, and so from the node's own link.
//!
//! Three network namespaces in a row: the node, a router, and a stranger behind the router. Needs root and
//! `ip`; skips otherwise. The namespaces are removed with the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::common::{Lab, PATIENCE, PORT, Running, run};

/// Port on which nodes listen for beacons.
const DISCOVERY_PORT: u16 = 7473;

#[test]
fn beacons_count_if_they_came_to_everybody_on_the_link_and_not_by_unicast_from_elsewhere() {
    let Some(row) = Row::make() else { return };
    let lab = Lab::new();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &row.spaces[0], env!("CARGO_BIN_EXE_peersock"), "listen"]);
    command.arg(PORT.to_string()).arg("--state").arg(lab.state("node")).args(["--network", &lab.network]);
    let node = Running::start(command);
    node.wait_for_target();
    let counters =
        || Counters(run(lab.command("node", &["status", "--counters"])).success().text().to_owned());

    // A remote sender must know the address, and gets no answer.
    let at = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), DISCOVERY_PORT);
    for (asked, target) in ["10.98.7.1", "fd98:7::1"].into_iter().enumerate() {
        let stray = || counters().get("udp_stray_beacons");
        row.repeat_until(STRANGER, at(target), || stray() > asked as u64);
        assert_eq!(counters().get("beacons_received"), 0, "{target}");
        assert_eq!(counters().get("hellos_sent"), 0, "{target}");
    }

    // A neighbour reaches all nodes on the link.
    for target in ["10.98.7.255", "239.255.112.115", "ff12::7065:6572"] {
        let heard = || counters().get("beacons_received");
        let (before, strays) = (heard(), counters().get("udp_stray_beacons"));
        row.repeat_until(ROUTER, at(target), || heard() > before);
        assert_eq!(counters().get("udp_stray_beacons"), strays, "{target}");
    }
    drop(node);
}

/// Positions in the row.
const ROUTER: usize = 1;
const STRANGER: usize = 2;

struct Row {
    spaces: Vec<String>,
}

impl Row {
    fn make() -> Option<Row> {
        let name = |place: &str| format!("ps-{}-beacon-{place}", std::process::id());
        let spaces = ["node", "router", "stranger"].map(name);
        if !ip(["netns", "add", &spaces[0]]) {
            eprintln!("SKIP beacons: network namespaces need root and the program ip");
            return None;
        }
        let row = Row { spaces: spaces.to_vec() };
        let [node, router, stranger] = &spaces;
        assert!(ip(["netns", "add", router]) && ip(["netns", "add", stranger]));
        let join = |a: &str, at_a: &str, b: &str, at_b: &str| {
            assert!(ip(["link", "add", at_a, "netns", a, "type", "veth", "peer", "name", at_b, "netns", b]));
        };
        join(node, "eth0", router, "eth0");
        join(stranger, "eth0", router, "eth1");
        let give = |space: &str, device: &str, ipv4: &str, ipv6: &str| {
            let ipv4 = ["-n", space, "addr", "add", ipv4, "brd", "+", "dev", device];
            assert!(ip(ipv4) && ip(["-n", space, "addr", "add", ipv6, "dev", device, "nodad"]));
            assert!(ip(["-n", space, "link", "set", device, "up"]));
        };
        for space in &spaces {
            assert!(ip(["-n", space, "link", "set", "lo", "up"]));
        }
        give(node, "eth0", "10.98.7.1/24", "fd98:7::1/64");
        give(router, "eth0", "10.98.7.2/24", "fd98:7::2/64");
        give(router, "eth1", "10.98.8.2/24", "fd98:8::2/64");
        give(stranger, "eth0", "10.98.8.1/24", "fd98:8::1/64");
        row.within(ROUTER, || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a router for IPv4");
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("a router for IPv6");
        });
        let route = |space: &str, words: &[&str]| {
            assert!(ip(["-n", space].iter().chain(&["route", "add"]).chain(words)), "{words:?}");
        };
        for (space, ipv4, ipv6) in [(node, "10.98.7.2", "fd98:7::2"), (stranger, "10.98.8.2", "fd98:8::2")] {
            route(space, &["default", "via", ipv4]);
            route(space, &["default", "via", ipv6]);
        }
        route(router, &["224.0.0.0/4", "dev", "eth0"]);
        Some(row)
    }

    /// Sends beacons from one of the machines until the condition holds, because the first may be lost while
    /// the link comes up.
    fn repeat_until(&self, from: usize, target: SocketAddr, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        for salt in 0.. {
            self.within(from, || send_beacon(salt, target));
            let looks = Instant::now() + Duration::from_millis(500);
            while Instant::now() < looks {
                if condition() {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "nothing comes to {target}");
        }
    }

    /// Runs a function on a separate thread in a machine's namespace.
    fn within<T: Send>(&self, place: usize, work: impl FnOnce() -> T + Send) -> T {
        let space = File::open(format!("/var/run/netns/{}", self.spaces[place])).expect("a namespace");
        let inside = || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join().expect("nothing in it panics"))
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        for space in &self.spaces {
            ip(["netns", "del", space]);
        }
    }
}

/// Sends a well-formed beacon of networks that the node is not in.
fn send_beacon(salt: u64, target: SocketAddr) {
    let mut beacon = [0x77; 274];
    beacon[..2].copy_from_slice(&[0xd5, 1]);
    beacon[2..10].copy_from_slice(&salt.to_be_bytes());
    let (local, target): (SocketAddr, SocketAddr) = match target {
        SocketAddr::V4(_) => (([0, 0, 0, 0], 0).into(), target),
        SocketAddr::V6(to) if to.ip().is_multicast() => {
            let probe = UdpSocket::bind("[::]:0").expect("a socket");
            let index = rustix::net::netdevice::name_to_index(&probe, "eth0").expect("a card");
            (([0u16; 8], 0).into(), SocketAddrV6::new(*to.ip(), to.port(), 0, index).into())
        }
        SocketAddr::V6(_) => (([0u16; 8], 0).into(), target),
    };
    let socket = UdpSocket::bind(local).expect("a socket");
    socket.set_broadcast(true).expect("an option");
    // There may be no route while the link comes up; the caller repeats the call.
    let _ = socket.send_to(&beacon, target);
}

/// The output of `status --counters`.
struct Counters(String);

impl Counters {
    fn get(&self, name: &str) -> u64 {
        let mut words = self.0.split_whitespace();
        words.find(|word| *word == name).unwrap_or_else(|| panic!("no counter {name} in {}", self.0));
        words.next().and_then(|value| value.parse().ok()).expect("a number")
    }
}

fn ip(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> bool {
    Command::new("ip").args(words).output().is_ok_and(|output| output.status.success())
}
