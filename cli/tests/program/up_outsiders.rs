//! Access of a machine's neighbours on local networks, who are not members, to `peersock up`: none. Linux
//! accepts packets for any of its addresses on any interface (the weak host model of RFC 1122, 3.3.4.2), and
//! in IPv6 from any source.

use std::process::Command;

use rustix::process::Signal;

use crate::cable::{Cable, ip};
use crate::common::{Finished, Lab, Running, lacks, run, vanish, without_variables};

/// A machine that is a member, and its neighbour, which is not.
const MEMBER: usize = 0;
const NEIGHBOUR: usize = 1;

/// Addresses of both on the cable.
const ON_CABLE: [[&str; 2]; 2] = [["10.98.7.1", "2001:db8:7::1"], ["10.98.7.2", "2001:db8:7::2"]];

/// Addresses of the member and of another member in the network. With the third member's address, the
/// network's IPv4 prefix also contains the addresses on the cable.
const OWN: [&str; 2] = ["10.97.0.1", "2001:db8:9::1"];
const OTHERS: [&str; 2] = ["10.97.0.2", "2001:db8:9::2"];
const FAR: &str = "10.127.0.1";

/// Program that prints all datagrams on port 7001, until one says `end`.
const HEAR: &str = "import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(('::', 7001))
print('ready', flush=True)
while (text := s.recv(100)) != b'end':
    print(text.decode(), flush=True)";

/// Program that sends a datagram from one address to another.
const SEND: &str = "import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
s.sendto(sys.argv[3].encode(), (sys.argv[2], 7001))";

struct Scene {
    cable: Cable,
    lab: Lab,
}

impl Scene {
    fn lay(name: &str) -> Option<Scene> {
        if lacks(name, &["ip", "nft", "python3", "sysctl"]) {
            return None;
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("SKIP {name}: there is no /dev/net/tun");
            return None;
        }
        let cable = Cable::lay(name, &["10.98.7.1/24", "10.98.7.2/24"])?;
        let scene = Scene { cable, lab: Lab::new() };
        for (end, [_, address]) in scene.cable.ends.iter().zip(ON_CABLE) {
            let address = format!("{address}/64");
            assert!(ip(["-n", end, "addr", "add", &address, "dev", "eth0", "nodad"]));
        }
        let file = scene.file();
        for (node, how, addresses) in
            [("member", "new", &OWN[..]), ("other", "add", &OTHERS), ("far", "add", &[FAR])]
        {
            let mut words = vec!["network", how, &file, "--name", node];
            words.extend(addresses.iter().flat_map(|address| ["--address", address]));
            run(scene.lab.command(node, &words)).success();
        }
        Some(scene)
    }

    fn file(&self) -> String {
        self.lab.dir.path().join("office.toml").to_str().unwrap().to_owned()
    }

    fn inside(&self, machine: usize, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.cable.ends[machine]]).args(words);
        command
    }

    fn run(&self, machine: usize, words: &[&str]) -> Finished {
        run(self.inside(machine, words)).success()
    }

    fn up(&self) -> Running {
        let mut command = self.inside(MEMBER, &[env!("CARGO_BIN_EXE_peersock"), "up", "--no-portmap"]);
        command.arg("--state").arg(self.lab.state("member")).args(["--network", &self.file()]);
        without_variables(&mut command);
        let up = Running::start(command);
        up.wait_for_stdout(OWN[1]);
        up
    }

    /// Returns the filter's existing tables.
    fn tables(&self) -> String {
        self.run(MEMBER, &["nft", "list", "tables"]).text().to_owned()
    }
}

#[test]
fn a_neighbour_reaches_no_address_of_the_network_and_speaks_for_no_member() {
    let Some(scene) = Scene::lay("upout") else { return };
    let up = scene.up();
    let neighbour = &scene.cable.ends[NEIGHBOUR];
    for (own, via) in OWN.iter().zip(ON_CABLE[MEMBER]) {
        scene.run(NEIGHBOUR, &["ip", "route", "add", own, "via", via]);
    }
    for address in OTHERS.into_iter().chain([OWN[1]]) {
        assert!(
            ip(["-n", neighbour, "addr", "add", address, "dev", "lo", "nodad"])
                || ip(["-n", neighbour, "addr", "add", address, "dev", "lo"])
        );
    }
    let hearing = Running::start(scene.inside(MEMBER, &["python3", "-c", HEAR]));
    hearing.wait_for_stdout("ready");
    let send = |from: &str, to: &str, text: &str| {
        scene.run(NEIGHBOUR, &["python3", "-c", SEND, from, to, text]);
    };
    for family in 0..2 {
        let (member, neighbour) = (ON_CABLE[MEMBER][family], ON_CABLE[NEIGHBOUR][family]);
        if family == 0 {
            send(neighbour, OWN[family], "to the network's address");
        }
        send(OTHERS[family], member, "in another member's name");
        // The address is in the network's prefix, but on the cable.
        send(neighbour, member, "as a neighbour");
    }
    send(OWN[1], ON_CABLE[MEMBER][1], "in the machine's own name");
    assert!(ip(["-n", neighbour, "addr", "del", OWN[1], "dev", "lo"]));
    send(ON_CABLE[NEIGHBOUR][1], OWN[1], "to the network's address");
    send(ON_CABLE[NEIGHBOUR][1], ON_CABLE[MEMBER][1], "end");
    let heard = hearing.finish().success();
    let heard: Vec<_> = heard.text().lines().skip(1).collect();
    assert_eq!(heard, ["as a neighbour"; 2], "{}", up.said());
    // The machine's own programs do reach it.
    for own in OWN {
        let hearing = Running::start(scene.inside(MEMBER, &["python3", "-c", HEAR]));
        hearing.wait_for_stdout("ready");
        scene.run(MEMBER, &["python3", "-c", SEND, own, own, "end"]);
        hearing.finish().success();
    }
}

/// Simulates a kernel without filters.
#[test]
fn an_interface_without_a_filter_is_told() {
    let Some(scene) = Scene::lay("upoutno") else { return };
    scene.run(MEMBER, &["nft", "add table inet peersock_peersock0"]);
    let up = scene.up();
    up.wait_for_stderr("peersock0 has no filter");
    up.wait_for_stderr("docs/use/NETWORKS.md");
    let before = scene.tables();
    up.interrupt();
    assert_eq!(scene.tables(), before, "it is somebody else's");
}

/// The filter disappears however the program ends.
#[test]
fn the_filter_is_there_as_long_as_the_program() {
    let Some(scene) = Scene::lay("upoutend") else { return };
    let before = scene.tables();
    for is_killed in [false, true] {
        let up = scene.up();
        assert!(scene.tables().contains("table inet peersock_peersock0"), "{}", scene.tables());
        // A flush of all tables by other programs does not affect this table.
        scene.run(MEMBER, &["nft", "flush", "ruleset"]);
        assert!(scene.tables().contains("table inet peersock_peersock0"), "{}", scene.tables());
        match is_killed {
            false => drop(up.interrupt()),
            true => {
                vanish(Signal::KILL, up.id());
                up.wait_for_end();
            }
        }
        assert_eq!(scene.tables(), before);
    }
}
