//! Machines with a router in the middle, and a server in the Internet, for the tests of exits.
//!
//! ```text
//! client 10.98.7.1 ---- 10.98.7.254 router 10.98.8.254 ---- 10.98.8.2 exit
//!                                     |
//!                               198.51.100.9 server
//! ```
//!
//! The server returns the address that reached it: the client's own, or the translating exit's.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::cable::ip;
use crate::common::{Finished, Lab, Running, lacks, run, without_variables};

/// User that a client's node changes to.
pub(crate) const USER: &str = "nobody";

pub(crate) const SERVER: [&str; 2] = ["198.51.100.9", "2001:db8:100::9"];
pub(crate) const OF_CLIENT: [&str; 2] = ["10.98.7.1", "2001:db8:7::1"];
pub(crate) const OF_EXIT: [&str; 2] = ["10.98.8.2", "2001:db8:8::2"];

/// Returns the document's nft rules for an exit's machine.
fn translation() -> &'static str {
    let text = include_str!("../../../docs/use/NETWORKS.md");
    let rules = text.split_once("nft -f - <<END\n").and_then(|(_, rest)| rest.split_once("END\n"));
    rules.expect("the document has the rules").0
}

pub(crate) struct Scene {
    pub(crate) places: [String; 4],
    pub(crate) lab: Lab,
    _server: Running,
}

pub(crate) const CLIENT: usize = 0;
pub(crate) const ROUTER: usize = 1;
pub(crate) const EXIT: usize = 2;
pub(crate) const INTERNET: usize = 3;

impl Scene {
    /// Creates all machines, and a network whose member `gate` has these routes.
    pub(crate) fn lay(name: &str, routes: &[&str]) -> Option<Scene> {
        if lacks(name, &["ip", "nft", "socat", "python3", "chown", "ping"]) {
            return None;
        }
        if !Path::new("/dev/net/tun").exists() {
            eprintln!("SKIP {name}: there is no /dev/net/tun");
            return None;
        }
        let places = ["c", "r", "x", "i"].map(|end| format!("ps-{}-{name}{end}", std::process::id()));
        if !ip(["netns", "add", &places[0]]) {
            eprintln!("SKIP {name}: network namespaces need root and the program ip");
            return None;
        }
        places[1..].iter().for_each(|place| assert!(ip(["netns", "add", place])));
        let links = [
            (CLIENT, OF_CLIENT, ["10.98.7.254", "2001:db8:7::fe"]),
            (EXIT, OF_EXIT, ["10.98.8.254", "2001:db8:8::fe"]),
            (INTERNET, SERVER, ["198.51.100.254", "2001:db8:100::fe"]),
        ];
        for place in &places {
            assert!(ip(["-n", place, "link", "set", "lo", "up"]));
        }
        for (place, own, router) in links {
            let (at, place) = (format!("to{place}"), &places[place]);
            let router_place = &places[ROUTER];
            assert!(ip([
                "link",
                "add",
                "eth0",
                "netns",
                place,
                "type",
                "veth",
                "peer",
                "name",
                &at,
                "netns",
                router_place
            ]));
            for (netns, device, addresses) in [(place, "eth0", own), (router_place, &*at, router)] {
                for (address, length) in addresses.iter().zip(["/24", "/64"]) {
                    let address = format!("{address}{length}");
                    assert!(ip(["-n", netns, "addr", "add", &address, "dev", device, "nodad"]));
                }
                assert!(ip(["-n", netns, "link", "set", device, "up"]));
            }
            for address in router {
                assert!(ip(["-n", place, "route", "add", "default", "via", address]));
            }
        }
        let lab = Lab::new();
        let server = Running::start(inside(&places[INTERNET], &["python3", "-c", SAY_WHO]));
        server.wait_for_stdout("ready");
        let scene = Scene { places, lab, _server: server };
        for place in [ROUTER, EXIT] {
            for name in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
                scene.run(place, &["sysctl", "-w", name]).success();
            }
        }
        scene.run(EXIT, &["nft", translation()]).success();
        scene.describe(routes);
        Some(scene)
    }

    /// Creates the network's file, and gives the client's user access to it and its state.
    fn describe(&self, routes: &[&str]) {
        let file = self.file();
        let of = |node: &str, words: &[&str]| run(self.lab.command(node, words)).success();
        of("client", &["network", "new", &file, "--name", "client", "--address", "10.97.0.1"]);
        let endpoint = format!("{}:7420", OF_EXIT[0]);
        let mut gate = vec![
            "network",
            "add",
            &file,
            "--name",
            "gate",
            "--address",
            "10.97.0.2",
            "--endpoint",
            &endpoint,
        ];
        gate.extend(routes.iter().flat_map(|route| ["--route", route]));
        of("gate", &gate);
        of(
            "plain",
            &[
                "network",
                "add",
                &file,
                "--name",
                "plain",
                "--address",
                "10.97.0.3",
                "--route",
                "10.55.0.0/16",
            ],
        );
        std::fs::set_permissions(self.lab.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        self.give("client");
    }

    /// Gives a node's state to the user.
    pub(crate) fn give(&self, node: &str) {
        let mut chown = Command::new("chown");
        chown.args(["-R", USER]).arg(self.lab.state(node));
        run(chown).success();
    }

    pub(crate) fn file(&self) -> String {
        self.lab.dir.path().join("office.toml").to_str().unwrap().to_owned()
    }

    pub(crate) fn run(&self, place: usize, words: &[&str]) -> Finished {
        run(inside(&self.places[place], words))
    }

    pub(crate) fn up_command(&self, place: usize, node: &str, more: &[&str]) -> Command {
        let mut command = inside(&self.places[place], &[env!("CARGO_BIN_EXE_peersock"), "up"]);
        command
            .arg("--state")
            .arg(self.lab.state(node))
            .args(["--network", &self.file(), "--no-portmap"])
            .args(more);
        without_variables(&mut command);
        command
    }

    pub(crate) fn up(&self, place: usize, node: &str, more: &[&str]) -> Running {
        let up = Running::start(self.up_command(place, node, more));
        up.wait_for_stdout("10.97.0.");
        up
    }

    pub(crate) fn gate(&self) -> Running {
        self.up(EXIT, "gate", &["--overlay-port", "7420"])
    }

    /// Starts the client, which uses the exit.
    pub(crate) fn client(&self) -> Running {
        self.up(CLIENT, "client", &["--exit", "gate", "--user", USER])
    }

    /// Returns the address by which the client reaches the server, or the error.
    pub(crate) fn seen(&self, server: &str) -> String {
        let address = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
        let target = format!("TCP:{address}:7000,connect-timeout=60");
        let asked = self.run(CLIENT, &["socat", "-u", &target, "STDOUT"]);
        match asked.status.success() {
            true => asked.text().trim().to_owned(),
            false => asked.stderr,
        }
    }

    /// Returns all rules of the client, and the routes that are not automatic.
    pub(crate) fn routing(&self) -> String {
        let show = |words: &[&str]| self.run(CLIENT, &[&["ip"], words].concat()).success().text().to_owned();
        let rules = [show(&["-4", "rule"]), show(&["-6", "rule"])].concat();
        // Shows all tables, because showing a single one fails if it was never used.
        let all =
            [show(&["-4", "route", "show", "table", "all"]), show(&["-6", "route", "show", "table", "all"])]
                .concat();
        let of_table: Vec<_> = all.lines().filter(|line| line.contains("table 74")).collect();
        rules + &of_table.join("\n")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for place in &self.places {
            ip(["netns", "del", place]);
        }
    }
}

/// Returns a command that runs a system program on a machine.
pub(crate) fn inside(place: &str, words: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", place]).args(words);
    command
}

/// Program that sends each TCP client on port 7000 its address.
const SAY_WHO: &str = "import socket, threading
s = socket.create_server(('::', 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print('ready', flush=True)
while True:
    c, who = s.accept()
    c.sendall(who[0].removeprefix('::ffff:').encode() + b'\\n')
    c.close()";
