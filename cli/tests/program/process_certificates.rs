//! Programs beside their machine's node: the machine's key certifies them anew while they run. No controller
//! is there, or none is needed. Needs a C compiler.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::clock_jumps::{Clock, build_library};
use crate::common::{Running, lacks, wait_until};
use crate::machines::Machines;

const MINUTE: i64 = 60;

/// Machines `alpha` and `beta`, each with a clock for its programs. A program of `alpha` forwards a port to
/// the service of `beta`.
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
        let clocks = ["alpha", "beta"].map(|name| Clock::new(&folder, &library, name));
        Scene { machines, clocks, network }
    }

    /// Starts the service of `beta`, by its clock.
    fn serve(&self) -> Running {
        let words = ["listen", "-k", "-n", self.network, "7000", "--exec", "cat"];
        let mut command = self.clocks[1].given_to(self.machines.command("beta", &words));
        // In this process, which has the clock.
        command.env("PEERSOCK_OWN_NODE", "1");
        let listening = Running::start(command);
        listening.wait_for_stderr("listening on ");
        listening
    }

    /// Starts a program of `alpha` beside its node, by the clock of `alpha`. Returns where it listens.
    fn forward(&self) -> (Running, SocketAddr) {
        let words = ["forward", "-n", self.network, "--as", "web", "0", "beta:7000"];
        let forwarding = Running::start(self.clocks[0].given_to(self.machines.command("alpha", &words)));
        let line = forwarding.wait_for_stdout("\n");
        let at = line.split(' ').find_map(|word| word.strip_prefix("tcp:127.0.0.1:")).expect("a port");
        (forwarding, ([127, 0, 0, 1], at.parse().expect("a number")).into())
    }
}

/// Returns true if the service answers by a forwarded port within a time.
fn reaches(at: SocketAddr, within: Duration) -> bool {
    let mut stream = TcpStream::connect(at).expect("the forward listens");
    stream.set_read_timeout(Some(within)).expect("a time");
    stream.write_all(b"x").expect("it is taken");
    stream.read_exact(&mut [0]).is_ok()
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
    let (_forwarding, at) = scene.forward();
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
    let (forwarding, at) = scene.forward();
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
