//! Times of managed networks, by the commands that people use.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Running, run};
use crate::machines::Machines;

/// Service of the member `beta` that prints what it gets.
struct Service {
    machines: Machines,
    listening: Running,
    _serving: Option<Running>,
}

impl Service {
    fn start() -> Service {
        let machines = Machines::new();
        let (_, serving) = machines.network();
        machines.admit("beta");
        let (listening, _) = machines.listen("beta", "7000");
        Service { machines, listening, _serving: Some(serving) }
    }

    /// Sends a line to the service by a command, and waits until the service has it.
    fn dial(&self, machine: &str, options: &[&str], line: &str) -> Running {
        let words = [&["dial", "-n", "team"], options, &["beta:7000"]].concat();
        let mut dialing = Running::start(self.machines.command(machine, &words));
        dialing.send(format!("{line}\n").as_bytes());
        self.listening.wait_for_stdout(&format!("{line}\n"));
        dialing
    }
}

/// Returns a line about times, their median and the time that at most one in 100 exceeds.
fn summary(what: &str, times: &mut [Duration]) -> (String, Duration, Duration) {
    times.sort_unstable();
    let (median, late) = (times[times.len() / 2], times[(times.len() * 99).div_ceil(100) - 1]);
    let (least, most) = (times[0], times[times.len() - 1]);
    (
        format!("{what}, {} times: {least:?} to {most:?}, median {median:?}, p99 {late:?}", times.len()),
        median,
        late,
    )
}

#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn from_an_invite_to_the_first_byte_of_a_service() {
    let service = Service::start();
    let (mut joins, mut all) = (Vec::new(), Vec::new());
    for round in 0..100 {
        let machine = format!("m{round}");
        let invite = service.machines.invite(&["--name", &machine]);
        let begun = Instant::now();
        service.machines.ok(&machine, &["join", &invite, "--as", "team"]);
        joins.push(begun.elapsed());
        let dialing = service.dial(&machine, &[], &format!("from {machine}"));
        all.push(begun.elapsed());
        dialing.finish().success();
    }
    eprintln!("{}", summary("join", &mut joins).0);
    let (text, median, late) = summary("invite to first byte", &mut all);
    eprintln!("{text}");
    assert!(median <= Duration::from_secs(1) && late <= Duration::from_secs(3));
}

#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn two_hundred_machines_join_within_a_minute() {
    const MACHINES: usize = 200;
    // Each stretches the network's key, which is work for a separate machine.
    const AT_ONCE: usize = 8;
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    let invite = machines.invite(&["--uses", "200"]);
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    let mut times: Vec<_> = thread::scope(|scope| {
        let join = || {
            let mut times = Vec::new();
            loop {
                let machine = next.fetch_add(1, Ordering::Relaxed);
                if machine >= MACHINES {
                    return times;
                }
                let name = format!("m{machine}");
                let begun = Instant::now();
                let words = ["join", &invite, "--as", "team", "--name", &name];
                run(machines.command(&name, &words)).success();
                times.push(begun.elapsed());
            }
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(join)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no failure")).collect()
    });
    let took = begun.elapsed();
    eprintln!("{} in {took:?}", summary("join", &mut times).0);
    assert_eq!(machines.members().len(), MACHINES + 1);
    assert!(took <= Duration::from_secs(60));
}

/// The machine's node and its path are there, because another program and an earlier connection have them.
#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn a_second_program_has_its_first_byte_within_twenty_milliseconds() {
    let service = Service::start();
    service.machines.admit("gamma");
    let (_first, _) = service.machines.listen("gamma", "7001");
    service.dial("gamma", &[], "the path").finish().success();
    let mut times: Vec<_> = (0..50)
        .map(|program| {
            let begun = Instant::now();
            let dialing = service.dial("gamma", &[], &format!("program {program}"));
            let took = begun.elapsed();
            dialing.finish().success();
            took
        })
        .collect();
    let (text, median, _) = summary("second program", &mut times);
    eprintln!("{text}");
    assert!(median <= Duration::from_millis(20));
}

/// The median has a limit, because other work of the machine delays some. The test
/// `programs::a_member_is_found_by_name_at_once_without_any_controller` of the overlay has one for each.
#[test]
#[ignore = "cargo xtask test --only slow: it measures"]
fn programs_beside_a_machine_s_node_reach_a_service_without_a_controller() {
    let mut service = Service::start();
    service.machines.admit("gamma");
    // The machine's node, beside which the programs run, and no controller.
    let (_shared, _) = service.machines.listen("gamma", "7001");
    service._serving = None;
    let own = ["--own-node"];
    let mut times = Vec::new();
    for program in 0..50 {
        let begun = Instant::now();
        let dialing = service.dial("gamma", &own, &format!("program {program}"));
        times.push(begun.elapsed());
        dialing.finish().success();
    }
    let (text, median, _) = summary("program beside", &mut times);
    eprintln!("{text}");
    assert!(median <= Duration::from_millis(300));
    let dial = &|program| {
        let begun = Instant::now();
        let dialing = service.dial("gamma", &own, &format!("at once {program}"));
        let took = begun.elapsed();
        dialing.finish().success();
        took
    };
    let mut at_once: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..50).map(|program| scope.spawn(move || dial(program))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no failure")).collect()
    });
    eprintln!("{}", summary("50 programs at once", &mut at_once).0);
}
