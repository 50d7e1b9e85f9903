//! Programs beside their machine's node: the machine's key certifies them anew while they run. No controller
//! is there, or none is needed. Needs a C compiler.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::clock_jumps::{Clock, build_library};
use crate::common::{Running, lacks, run, wait_until};
use crate::machines::Machines;

const MINUTE: i64 = 60;

const NAMES: [&str; 2] = ["alpha", "beta"];

/// Two machines, each with a clock for its programs. A program of one forwards a port to the service of the
/// other.
struct Scene {
    machines: Machines,
    clocks: [Clock; 2],
    network: &'static str,
}

impl Scene {
    fn new(machines: Machines, network: &'static str) -> Scene {
        let folder = machines.directory("clocks");
        fs::create_dir(&folder).expect("room for a folder");
        let library = build_library(&folder);
        let clocks = NAMES.map(|name| Clock::new(&folder, &library, name));
        Scene { machines, clocks, network }
    }

    /// Returns a command of a machine, by its clock.
    fn command(&self, machine: usize, words: &[&str]) -> Command {
        self.clocks[machine].given_to(self.machines.command(NAMES[machine], words))
    }

    /// Starts the service of `beta`.
    fn serve(&self) -> Running {
        let mut command = self.command(1, &["listen", "-k", "-n", self.network, "7000", "--exec", "cat"]);
        // In this process, which has the clock.
        command.env("PEERSOCK_OWN_NODE", "1");
        let listening = Running::start(command);
        listening.wait_for_stderr("listening on ");
        listening
    }

    /// Starts a program of a machine beside its node. Returns where it listens.
    fn forward(&self, machine: usize) -> (Running, SocketAddr) {
        let to = format!("{}:7000", NAMES[1 - machine]);
        let words = ["forward", "-n", self.network, "--as", "web", "0", &to];
        let forwarding = Running::start(self.command(machine, &words));
        let line = forwarding.wait_for_stdout("\n");
        let at = line.split(' ').find_map(|word| word.strip_prefix("tcp:127.0.0.1:")).expect("a port");
        (forwarding, ([127, 0, 0, 1], at.parse().expect("a number")).into())
    }
}

/// Returns true if the service answers by a forwarded port within a time.
fn reaches(at: SocketAddr, within: Duration) -> bool {
    let mut stream = TcpStream::connect(at).expect("the forward listens");
    stream.set_read_timeout(Some(within)).expect("a time");
    // The forward resets it if the service cannot be reached.
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

#[test]
fn a_program_beside_a_listed_machine_is_certified_anew_while_it_runs() {
    if lacks("a_program_beside_a_listed_machine_is_certified_anew_while_it_runs", &["cc"]) {
        return;
    }
    let machines = Machines::new();
    let file = machines.directory("office.toml");
    let path = file.to_str().expect("text");
    machines.ok("alpha", &["network", "new", path, "--name", "alpha"]);
    machines.ok("beta", &["network", "add", path, "--name", "beta"]);
    ["alpha", "beta"].iter().for_each(|machine| drop(machines.ok(machine, &["join", path])));
    let scene = Scene::new(machines, "office");
    let first = scene.serve();
    let (_forwarding, at) = scene.forward(0);
    wait_until("the service does not answer", || reaches(at, Duration::from_secs(5)));
    // To this clock, the certificate from the start of the program has ended.
    drop(first);
    scene.clocks[1].set(75 * MINUTE);
    let _second = scene.serve();
    assert!(!reaches(at, Duration::from_secs(2)));
    scene.clocks[0].set(25 * MINUTE);
    wait_until("no other certificate", || reaches(at, Duration::from_secs(5)));
}

/// The clock of a machine that was behind is set, as by NTP, and the one of another machine was right.
#[test]
fn a_clock_that_is_set_while_a_program_runs_does_not_end_its_membership() {
    if lacks("a_clock_that_is_set_while_a_program_runs_does_not_end_its_membership", &["cc"]) {
        return;
    }
    let machines = Machines::new();
    let (_, serving) = machines.network();
    machines.admit("beta");
    drop(serving);
    machines.wait_for_end_of_node("alpha");
    let scene = Scene::new(machines, "team");
    let first = scene.serve();
    let (forwarding, at) = scene.forward(0);
    wait_until("the service does not answer", || reaches(at, Duration::from_secs(5)));
    scene.clocks[0].set(25 * MINUTE);
    // The program looks at its certificate every 5 s.
    std::thread::sleep(Duration::from_secs(6));
    assert!(reaches(at, Duration::from_secs(5)), "{}", forwarding.said());
    // A member that the program meets from now on admits it, too.
    drop(first);
    let _second = scene.serve();
    let begun = Instant::now();
    while !reaches(at, Duration::from_secs(5)) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", forwarding.said());
    }
}

/// The clock is behind when the machine's node begins, and right when the next program begins. The node does
/// not follow the step, but the correction that it keeps for programs does.
#[test]
fn a_program_that_starts_after_the_clock_was_set_corrects_it_no_more() {
    if lacks("a_program_that_starts_after_the_clock_was_set_corrects_it_no_more", &["cc"]) {
        return;
    }
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    let invite = machines.invite(&["--name", "beta"]);
    let scene = Scene::new(machines, "team");
    let correction = || scene.machines.record("beta", &id)["clock_offset"].as_i64().expect("milliseconds");
    scene.clocks[1].set(-90 * MINUTE);
    run(scene.command(1, &["join", &invite, "--as", "team"])).success();
    let node = Running::start(scene.command(1, &["listen", "-k", "-n", "team", "7001"]));
    node.wait_for_stderr("listening on ");
    let about = |wanted: i64| (wanted - 60_000..wanted + 60_000).contains(&correction());
    wait_until("the controller's answer does not correct the clock", || about(90 * 60_000));
    let service = scene.command(0, &["listen", "-k", "-n", "team", "7000", "--exec", "cat"]);
    let service = Running::start(service);
    service.wait_for_stderr("listening on ");
    scene.clocks[1].set(0);
    wait_until("programs would correct a clock that is right", || about(0));
    let (_forwarding, at) = scene.forward(1);
    wait_until("the program is no member", || reaches(at, Duration::from_secs(5)));
    drop(node);
}
