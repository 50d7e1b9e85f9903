//! Several networks as interfaces of one machine, by one `peersock up`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::cable::{Cable, ip};
use crate::common::{Finished, Lab, PORT, Running, lacks, run, without_variables};

/// Two machines on one cable, and the files of two networks with both as members.
struct Scene {
    cable: Cable,
    lab: Lab,
}

/// Names of the networks, and addresses of their two members.
const OFFICE: (&str, [&str; 2]) = ("office", ["10.97.0.1", "10.97.0.2"]);
const HOME: (&str, [&str; 2]) = ("home", ["10.96.0.1", "10.96.0.2"]);

impl Scene {
    /// Lays the scene. The first machine is one node; the second has a node for each network.
    fn lay(name: &str) -> Option<Scene> {
        if !Path::new("/dev/net/tun").exists() {
            eprintln!("SKIP {name}: there is no /dev/net/tun");
            return None;
        }
        let scene = Scene { cable: Cable::lay(name, &["10.98.7.1/24", "10.98.7.2/24"])?, lab: Lab::new() };
        for (network, [one, two]) in [OFFICE, HOME] {
            scene.describe(network, "new", "both", one);
            scene.describe(network, "add", network, two);
        }
        Some(scene)
    }

    /// Adds a node to a network's file, which names it by its place.
    fn describe(&self, network: &str, how: &str, node: &str, address: &str) {
        let file = self.file(network);
        let name = if how == "new" { "one" } else { "two" };
        let words = ["network", how, &file, "--name", name, "--address", address];
        run(self.lab.command(node, &words)).success();
    }

    /// Returns the file that describes a network.
    fn file(&self, network: &str) -> String {
        self.path(&format!("{network}.toml"))
    }

    fn path(&self, name: &str) -> String {
        self.lab.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Returns a command that runs a system program on a machine.
    fn inside(&self, machine: usize, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.cable.ends[machine]]).args(words);
        command
    }

    fn run(&self, machine: usize, words: &[&str]) -> Finished {
        Running::start(self.inside(machine, words)).finish()
    }

    fn up_command(&self, machine: usize, node: &str, networks: &[&str], more: &[&str]) -> Command {
        let mut command = self.inside(machine, &[env!("CARGO_BIN_EXE_peersock"), "up"]);
        command.arg("--state").arg(self.lab.state(node));
        for network in networks {
            command.args(["--network", &self.file(network)]);
        }
        command.args(more);
        without_variables(&mut command);
        command
    }

    /// Starts `peersock up`, and waits until packets pass in the last of its networks.
    fn up(&self, machine: usize, node: &str, networks: &[(&str, [&str; 2])], more: &[&str]) -> Running {
        let files: Vec<_> = networks.iter().map(|(file, _)| *file).collect();
        let up = Running::start(self.up_command(machine, node, &files, more));
        let last = networks.last().unwrap().1[machine];
        up.wait_for_stdout(last);
        up
    }

    /// Starts the first machine in both networks.
    fn both(&self, more: &[&str]) -> Running {
        self.up(0, "both", &[OFFICE, HOME], more)
    }

    /// Starts the second machine, with a separate program for each network.
    fn others(&self) -> [Running; 2] {
        let named = |network: (&'static str, _), name| self.up(1, network.0, &[network], &["--name", name]);
        [named(OFFICE, "office0"), named(HOME, "home0")]
    }

    fn has_interface(&self, name: &str) -> bool {
        ip(["-n", &self.cable.ends[0], "link", "show", name])
    }

    /// Returns the ID in a network's file.
    fn id(&self, network: &str) -> String {
        let text = std::fs::read_to_string(self.file(network)).unwrap();
        let line = text.lines().find(|line| line.starts_with("network")).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    }
}

#[test]
fn one_node_has_two_networks_as_interfaces() {
    if lacks("one_node_has_two_networks", &["ping", "socat"]) {
        return;
    }
    let Some(scene) = Scene::lay("uptwo") else { return };
    let up = scene.both(&[]);
    let others = scene.others();
    let said = || [up.said(), others[0].said(), others[1].said()].concat();
    // Addresses are in the order of the networks, and each is at its interface.
    let shown = up.shown();
    let place = |address| shown.lines().position(|line| line == address).unwrap();
    assert!(place("10.97.0.1") < place("10.96.0.1"), "{shown}");
    for (interface, address) in [("peersock0", "10.97.0.1"), ("peersock1", "10.96.0.1")] {
        let addresses = scene.run(0, &["ip", "address", "show", interface]).success();
        assert!(addresses.text().contains(&format!("inet {address}/")), "{}", addresses.text());
    }
    for to in ["10.97.0.2", "10.96.0.2"] {
        let pinged = scene.run(0, &["ping", "-c", "1", "-W", "60", to]);
        assert!(pinged.text().contains("1 received"), "{to}: {}\n{}", pinged.text(), said());
    }
    // TCP runs through both at the same time: to the node in both networks, and from it.
    let bytes = |seed: u32| (0..3_000_000_u32).map(|at| (at ^ at >> seed) as u8).collect::<Vec<u8>>();
    let port = PORT.to_string();
    let ways = [(1, 0, "10.97.0.1", bytes(9)), (0, 1, "10.96.0.2", bytes(7))];
    let transfers: Vec<_> = ways
        .iter()
        .map(|(from, to, address, bytes)| {
            let listen = format!("TCP4-LISTEN:{port},bind={address}");
            let serving = Running::start(scene.inside(*to, &["socat", "-u", &listen, "STDOUT"]));
            let dial = format!("TCP4:{address}:{port},retry=100,interval=0.1");
            let mut sending = Running::start(scene.inside(*from, &["socat", "-u", "STDIN", &dial]));
            sending.send(bytes);
            sending.end_stdin();
            (serving, sending, address, bytes)
        })
        .collect();
    for (serving, sending, address, bytes) in transfers {
        sending.finish().success();
        let received = serving.finish().success().stdout;
        assert!(received == *bytes, "{address}: {} bytes\n{}", received.len(), said());
    }
    // The process dropped its privileges after both interfaces existed, and both disappear with it.
    let status = std::fs::read_to_string(format!("/proc/{}/status", up.id())).unwrap();
    let capabilities = status.lines().find(|line| line.starts_with("CapPrm")).unwrap();
    assert!(capabilities.ends_with("0000000000000000"), "{capabilities}");
    up.interrupt();
    assert!(!scene.has_interface("peersock0") && !scene.has_interface("peersock1"));
}

#[test]
fn what_one_of_the_networks_cannot_have_is_said_and_leaves_nothing_behind() {
    let Some(scene) = Scene::lay("uptwobad") else { return };
    let ended = |networks: &[&str], more: &[&str]| {
        Running::start(scene.up_command(0, "both", networks, more)).wait_for_end()
    };
    let files = [OFFICE.0, HOME.0];
    ended(&files, &["--name", "a", "--name", "a"]).failure(2, &["two networks would have the interface a"]);
    let three = ["--name", "a", "--name", "b", "--name", "c"];
    ended(&files, &three).failure(2, &["3 interfaces have names", "--name once for each network"]);
    // Another network has the addresses of the first.
    scene.describe("same", "new", "both", "10.97.0.1");
    scene.describe("same", "add", "other", "10.97.0.2");
    let (office, same) = (scene.id(OFFICE.0), scene.id("same"));
    let said = format!("networks {office} and {same} both have 10.97.0.0/30");
    ended(&[OFFICE.0, "same"], &[]).failure(2, &[&said, "network namespace"]);
    // This node is not a member of the network.
    scene.describe("foreign", "new", "other", "10.95.0.1");
    let said = format!("not a member of network {}", scene.id("foreign"));
    ended(&[OFFICE.0, "foreign"], &[]).failure(1, &[&said]);
    // The second interface cannot be created.
    assert!(ip(["-n", &scene.cable.ends[0], "link", "add", "peersock1", "type", "veth"]));
    ended(&files, &[]).failure(1, &["peersock1", "choose another name with --name"]);
    assert!(!scene.has_interface("peersock0"));
}

#[test]
fn one_interface_that_somebody_removes_ends_the_program_which_says_which() {
    let Some(scene) = Scene::lay("uptwogone") else { return };
    let up = scene.both(&["--name", "office0"]);
    assert!(scene.has_interface("office0") && scene.has_interface("peersock1"));
    assert!(ip(["-n", &scene.cable.ends[0], "link", "del", "peersock1"]));
    let said = format!("the interface peersock1 is gone, and with it network {}:", scene.id(HOME.0));
    up.wait_for_end().failure(1, &[&said]);
    assert!(!scene.has_interface("office0"));
}

#[test]
fn one_name_server_has_the_names_of_all_networks() {
    if lacks("one_name_server", &["python3"]) {
        return;
    }
    let Some(scene) = Scene::lay("uptwodns") else { return };
    // Replaces systemd's program by one that records its arguments.
    let (told, bin) = (scene.path("told"), scene.path("bin"));
    std::fs::create_dir(&bin).unwrap();
    let resolvectl = Path::new(&bin).join("resolvectl");
    std::fs::write(&resolvectl, format!("#!/bin/sh\necho \"$@\" >>'{told}'\n")).unwrap();
    std::fs::set_permissions(&resolvectl, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = scene.up_command(0, "both", &[OFFICE.0, HOME.0], &["--dns"]);
    command.env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()));
    let up = Running::start(command);
    let server = up.wait_for_stdout("10.96.0.1").lines().next().unwrap().to_owned();
    let told = std::fs::read_to_string(told).unwrap();
    assert!(told.contains(&format!("dns peersock0 {server}\n")) && !told.contains("peersock1"), "{told}");
    let ask = "import socket, sys
name = b''.join(bytes([len(label)]) + label.encode() for label in sys.argv[2].split('.'))
question = bytes([7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + name + bytes([0, 0, 1, 0, 1])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(60)
s.sendto(question, (sys.argv[1], 53))
print(socket.inet_ntoa(s.recv(1000)[-4:]))";
    let asked = |name: &str| {
        let finished = scene.run(0, &["python3", "-c", ask, &server, name]).success();
        finished.text().trim().to_owned()
    };
    assert_eq!(asked("two.peersock.internal"), "10.97.0.2");
    for (network, [_, two]) in [OFFICE, HOME] {
        assert_eq!(asked(&format!("two.{}.peersock.internal", scene.id(network))), two);
    }
}
