//! `peersock controller` at the node that the programs of its machine share.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{PATIENCE, Running, run, signal, vanish};
use crate::machines::Machines;

impl Machines {
    /// Returns the process that has the state directory of a machine.
    fn node_of(&self, machine: &str) -> u32 {
        let lock = fs::read_to_string(self.directory(machine).join("lock")).expect("a lock");
        lock.trim().parse().expect("a process")
    }

    /// Starts to dial a service on another machine.
    fn call(&self, machine: &str, to: &str) -> Running {
        Running::start(self.command(machine, &["dial", "-n", "team", to]))
    }

    /// Returns true if `network invite` warns that no controller serves the network.
    fn is_unserved(&self) -> bool {
        let said = run(self.command("alpha", &["network", "invite", "--name", "nobody"])).success();
        said.stderr.contains("no controller serves team now")
    }

    fn wait_unserved(&self) {
        let begun = Instant::now();
        while !self.is_unserved() {
            assert!(begun.elapsed() < PATIENCE, "the node goes on as a controller");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Sends a line by an open connection.
fn pass(dialing: &mut Running, listening: &Running, line: &str) {
    dialing.send(format!("{line}\n").as_bytes());
    listening.wait_for_stdout(&format!("{line}\n"));
}

#[test]
fn a_controller_shares_the_node_of_a_program_that_goes_on_without_it() {
    let machines = Machines::new();
    let (id, _) = machines.create(&[]);
    let (listening, address) = machines.listen("alpha", "7000");
    let node = machines.node_of("alpha");
    assert!(machines.is_unserved(), "a node in the network is no controller");
    let serving = machines.serve("alpha");
    assert!(!machines.is_unserved());
    machines.admit("beta");
    let mut dialing = machines.call("beta", &format!("{address}:7000"));
    pass(&mut dialing, &listening, "served");
    let status = machines.ok("alpha", &["status"]);
    let both = ["peersock controller", "peersock listen", "a controller serves it"];
    assert!(both.iter().all(|name| status.contains(name)), "{status}");

    // Another one is refused, with its own node and at the node, too.
    let process = format!("already served by process {}", serving.id());
    for own in [&[][..], &["--own-node"]] {
        let words = [&["controller", "-n", "team"], own].concat();
        let refused = machines.refused("alpha", &words);
        let end = format!("end it first (`kill {}`)", serving.id());
        assert!(refused.contains(&process) && refused.contains(&end), "{own:?}: {refused}");
    }
    fs::remove_file(machines.directory("alpha").join(format!("controllers/{id}.lock"))).expect("a lock");
    let refused = machines.refused("alpha", &["controller", "-n", "team"]);
    assert!(refused.contains(&process), "{refused}");

    // While it is stopped, the others go on. Afterwards it goes on, too.
    // The invite is made before, because a stopped process may hold the store.
    let invite = machines.invite(&[]);
    vanish(Signal::STOP, serving.id());
    pass(&mut dialing, &listening, "stopped");
    let waits = Running::start(machines.command("gamma", &["join", &invite, "--as", "team"]));
    pass(&mut dialing, &listening, "asked in vain");
    signal(Signal::CONT, serving.id());
    waits.finish().success();

    serving.interrupt().failure(130, &[]);
    pass(&mut dialing, &listening, "ended");
    assert!(machines.is_unserved());
    let serving = machines.serve("alpha");
    machines.admit("delta");
    vanish(Signal::KILL, serving.id());
    pass(&mut dialing, &listening, "killed");
    machines.wait_unserved();
    let serving = machines.serve("alpha");
    machines.admit("epsilon");
    pass(&mut dialing, &listening, "again");
    assert_eq!(machines.node_of("alpha"), node);
    // The connection was one, and not several.
    dialing.finish().success();
    drop(serving);
}

#[test]
fn a_controller_whose_node_is_killed_serves_at_the_next_one() {
    let machines = Machines::new();
    let (_, serving) = machines.network();
    machines.admit("beta");
    for machine in ["gamma", "delta"] {
        let node = machines.node_of("alpha");
        assert_ne!(node, serving.id(), "the node is not in its process");
        vanish(Signal::KILL, node);
        let before = serving.said().matches("serving team again").count();
        let begun = Instant::now();
        while serving.said().matches("serving team again").count() == before {
            assert!(begun.elapsed() < PATIENCE, "{}", serving.said());
            thread::sleep(Duration::from_millis(20));
        }
        machines.admit(machine);
        assert_ne!(machines.node_of("alpha"), node);
    }
    assert!(serving.said().contains("the node that programs share has ended"), "{}", serving.said());
    serving.interrupt().failure(130, &[]);
}

#[test]
fn a_controller_with_a_node_of_its_own_shares_it() {
    let machines = Machines::new();
    let (_, _) = machines.create(&[]);
    let words = ["controller", "-n", "team", "--own-node"];
    let (listening, _) = machines.listen("alpha", "7000");
    let refused = machines.refused("alpha", &words);
    assert!(refused.contains("leave --own-node out, to share that node"), "{refused}");
    let node = machines.node_of("alpha");
    listening.interrupt();
    let begun = Instant::now();
    while std::path::Path::new("/proc").join(node.to_string()).exists() {
        assert!(begun.elapsed() < PATIENCE, "the node goes on");
        thread::sleep(Duration::from_millis(20));
    }
    let serving = Running::start(machines.command("alpha", &words));
    serving.wait_for_stderr("serving team");
    assert_eq!(machines.node_of("alpha"), serving.id());
    assert!(!machines.is_unserved());
    machines.admit("beta");
    let (listening, address) = machines.listen("alpha", "7000");
    assert_eq!(machines.node_of("alpha"), serving.id());
    let mut dialing = machines.call("beta", &format!("{address}:7000"));
    pass(&mut dialing, &listening, "beside");
    let label = machines.refused("alpha", &["controller", "-n", "team", "--as", "web"]);
    assert!(label.contains("a controller is the machine itself"), "{label}");
    serving.interrupt().failure(130, &[]);
}
