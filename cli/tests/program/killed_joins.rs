//! Machines that join, and their controller, killed at any moment: one row, one address, the invite used
//! once, nothing lost that was told, and no file broken.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use peersock::overlay::membership::{Grant, UnixTime};
use peersock::state::{StateDir, read_identity_file};
use peersock::{Invite, NetworkId};
use peersock_controller::{Approval, Controller, InviteOptions, Standing, Store};
use rustix::process::Signal;

use crate::common::{Running, run, vanish};
use crate::machines::Machines;

/// Number of machines that join at the same time.
const JOINERS: u32 = 3;

/// Number of controllers that are killed at the same time. Each waits for 5 s for newer removals then.
const CONTROLLERS: u32 = 4;

#[test]
fn a_machine_that_is_killed_while_it_joins_joins_when_it_is_started_again() {
    joiners_are_killed(24);
}

#[test]
#[ignore = "cargo xtask test --only slow: 500 rounds"]
fn machines_are_killed_500_times_while_they_join() {
    joiners_are_killed(500);
}

#[test]
fn a_machine_joins_though_the_controller_is_killed_meanwhile() {
    controllers_are_killed(3);
}

#[test]
#[ignore = "cargo xtask test --only slow: 500 rounds"]
fn the_controller_is_killed_500_times_while_machines_join() {
    controllers_are_killed(125);
}

#[test]
fn a_machine_that_is_killed_while_it_changes_its_key_has_one_whole_key_and_no_credentials_of_another() {
    const ROUNDS: u32 = 24;
    let machines = Machines::new();
    let (id, serving) = machines.network();
    let id: NetworkId = id.parse().expect("an ID");
    machines.admit("beta");
    drop(serving);
    // A copy of the machine for each round.
    let copy = |to: &str| {
        let (from, to) = (machines.directory("beta"), machines.directory(to));
        DirBuilder::new().mode(0o700).create(&to).expect("room");
        for file in ["identity.key".to_owned(), format!("{id}.network")] {
            fs::copy(from.join(&file), to.join(&file)).expect("room");
        }
        to
    };
    let rekeying = |machine: &str| machines.command(machine, &["id", "--rekey"]);
    copy("first");
    let begun = Instant::now();
    run(rekeying("first")).success();
    let (usual, mut dice) = (begun.elapsed(), Dice::new());
    let node_of = |directory: &Path| {
        let identity = StateDir::peek_identity(directory).expect("a whole key").expect("a key");
        identity.node_id()
    };
    let (first, mut unfinished) = (node_of(&machines.directory("beta")), 0);
    for round in 0..ROUNDS {
        let machine = format!("m{round}");
        let directory = copy(&machine);
        let running = Running::start(rekeying(&machine));
        dice.moment(round, usual).wait(&directory, 2 * usual);
        vanish(Signal::KILL, running.id());
        let told = !running.wait_for_end().stdout.is_empty();
        let node = node_of(&directory);
        assert!(node != first || !told, "round {round}: what was told is not kept");
        unfinished += u32::from(node == first);
        let record = StateDir::membership(&directory, id).expect("a whole record").expect("a record");
        assert_eq!(record.name.as_deref(), Some("team"));
        let holder = record.credentials.map(|own| own.certificate().grant().node);
        assert!(holder.is_none_or(|holder| holder == node), "round {round}: credentials of another key");
        run(rekeying(&machine)).success();
        assert_ne!(node_of(&directory), node);
    }
    eprintln!("{ROUNDS} changes killed: {unfinished} before the new key");
    assert!(unfinished > 0, "all were killed too late");
}

fn joiners_are_killed(rounds: u32) {
    let mut scene = Scene::new();
    let _serving = scene.machines.serve("alpha");
    let usual = scene.usual_time();
    let (next, told, admitted) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let (scene, dice) = (Mutex::new(scene), Mutex::new(Dice::new()));
    thread::scope(|scope| {
        for _ in 0..JOINERS {
            scope.spawn(|| {
                loop {
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    if round >= rounds {
                        return;
                    }
                    let machine = format!("m{round}");
                    let (directory, command) = {
                        let mut scene = lock(&scene);
                        (scene.directory(&machine), scene.joining(&machine))
                    };
                    let moment = lock(&dice).moment(round, usual);
                    let joining = Running::start(command);
                    moment.wait(&directory, 2 * usual);
                    vanish(Signal::KILL, joining.id());
                    let shown = joining.wait_for_end().stdout;
                    let (network, told_all) = (lock(&scene).id, !shown.is_empty());
                    let kept = granted(&directory, network);
                    assert!(kept.is_some() || !told_all, "round {round}: what was told is not kept");
                    told.fetch_add(u32::from(told_all), Ordering::Relaxed);
                    admitted.fetch_add(u32::from(kept.is_some()), Ordering::Relaxed);
                    let command = lock(&scene).joining(&machine);
                    run(command).success();
                    lock(&scene).check(&machine, kept.as_ref());
                }
            });
        }
    });
    let mut scene = lock(&scene);
    scene.check_all();
    let (told, admitted) = (told.into_inner(), admitted.into_inner());
    eprintln!("{rounds} joins killed: {} unfinished, {admitted} with a certificate on disk", rounds - told);
    assert!(told < rounds && admitted < rounds, "all were killed too late");
}

/// Kills each of the controllers once in each round.
fn controllers_are_killed(rounds: u32) {
    let unfinished: u32 = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..CONTROLLERS).map(|_| scope.spawn(|| controller_is_killed(rounds))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no failure")).sum()
    });
    let all = rounds * CONTROLLERS;
    eprintln!("{all} controllers killed: {unfinished} before the machine had its certificate");
    assert!(unfinished > 0, "all were killed too late");
}

/// Returns in how many rounds the controller ended before its machine had a certificate.
fn controller_is_killed(rounds: u32) -> u32 {
    let mut scene = Scene::new();
    let mut serving = scene.machines.serve("alpha");
    let usual = scene.usual_time();
    let mut dice = Dice::new();
    let store = scene.store();
    let mut unfinished = 0;
    for round in 0..rounds {
        let machine = format!("m{round}");
        let joining = Running::start(scene.joining(&machine));
        dice.moment(round, usual).wait(store.parent().expect("a folder"), 2 * usual);
        vanish(Signal::KILL, serving.id());
        let kept = granted(&scene.directory(&machine), scene.id);
        unfinished += u32::from(kept.is_none());
        drop(serving);
        Store::open(&store).and_then(|store| store.check()).expect("a good file");
        serving = scene.machines.serve("alpha");
        joining.wait_for_end().success();
        scene.check(&machine, kept.as_ref());
    }
    scene.check_all();
    unfinished
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("another round has failed")
}

/// Returns what a machine was granted, as its directory has it. Fails if a file in it is broken.
fn granted(directory: &Path, network: NetworkId) -> Option<Grant> {
    StateDir::peek_identity(directory).expect("a whole key or none");
    let record = StateDir::membership(directory, network).expect("a whole record or none")?;
    record.credentials.map(|own| own.certificate().grant().clone())
}

struct Scene {
    machines: Machines,
    id: NetworkId,
    controller: Controller,
    joined: Vec<String>,
}

impl Scene {
    fn new() -> Scene {
        let machines = Machines::new();
        let create = ["network", "create", "team", "--pool", "10.77.0.0/16", "--name", "alpha"];
        let made = machines.ok("alpha", &create).replace('-', "");
        let id: NetworkId = made[made.len() - 16..].parse().expect("an ID");
        let alpha = machines.directory("alpha");
        let seed = read_identity_file(&alpha.join("identity.key")).expect("its key");
        let store = Store::open(&store_of(&machines, id)).expect("a store");
        let controller = Controller::open(store, &seed.0).expect("a network");
        Scene { machines, id, controller, joined: Vec::new() }
    }

    fn store(&self) -> PathBuf {
        store_of(&self.machines, self.id)
    }

    fn directory(&self, machine: &str) -> PathBuf {
        self.machines.directory(machine)
    }

    /// Returns how long a machine takes to join if the test does not kill it.
    fn usual_time(&mut self) -> Duration {
        let begun = Instant::now();
        run(self.joining("first")).success();
        let usual = begun.elapsed();
        self.check("first", None);
        usual
    }

    /// Returns the command by which a machine joins. The first one makes its invite.
    fn joining(&mut self, machine: &str) -> std::process::Command {
        let file = self.machines.directory(&format!("{machine}.invite"));
        let text = fs::read_to_string(&file).unwrap_or_else(|_| {
            let name = machine.parse().expect("a name");
            let options = InviteOptions::from(Approval { name: Some(name), ..Approval::default() });
            let now = UnixTime::from(UNIX_EPOCH.elapsed().expect("after 1970"));
            let token = self.controller.invite(now, &mut rand::rng(), "test", &options).expect("room");
            let alpha = StateDir::peek_identity(&self.machines.directory("alpha")).expect("readable");
            let alpha = alpha.expect("its key").node_id();
            let invite = Invite::new(self.id, self.controller.key(), token, &alpha, Vec::new());
            fs::write(&file, &*invite.to_text()).expect("room");
            invite.to_text().to_string()
        });
        let mut command = self.machines.command(machine, &["join", &text, "--as", "team"]);
        // The process that is killed has the node.
        command.env("PEERSOCK_OWN_NODE", "1");
        command
    }

    /// Checks what the controller and a machine that has joined know of each other. `told` is what the
    /// machine was granted before.
    fn check(&mut self, machine: &str, told: Option<&Grant>) {
        let directory = self.machines.directory(machine);
        let record = StateDir::membership(&directory, self.id).expect("readable").expect("a record");
        assert_eq!((record.name.as_deref(), record.denied), (Some("team"), None), "{machine}");
        let grant = granted(&directory, self.id).expect("a certificate");
        if let Some(told) = told {
            assert_eq!(
                (told.ipv4, &told.name),
                (grant.ipv4, &grant.name),
                "{machine}: it was told otherwise"
            );
        }
        // Notices what the serving process has done.
        self.controller.members().expect("readable");
        let member = self.controller.find(machine).expect("one member of that name");
        let node = StateDir::peek_identity(&directory).expect("readable").expect("a key").node_id();
        assert_eq!(member.grant.node, node, "{machine}");
        assert_eq!((member.standing, member.grant.ipv4), (Standing::Member, grant.ipv4), "{machine}");
        assert!(grant.ipv4.is_some(), "{machine}");
        let invites = self.controller.invites().expect("readable");
        let of_machine = invites.iter().filter(|one| one.name.as_ref() == Some(&grant.name));
        let used: Vec<_> = of_machine.map(|one| (one.uses, one.used)).collect();
        assert_eq!(used, [(1, 1)], "{machine}");
        self.joined.push(machine.to_owned());
    }

    /// Checks that there is no other member, and no address twice.
    fn check_all(&mut self) {
        let members = self.controller.members().expect("readable");
        assert_eq!(members.len(), self.joined.len() + 1);
        let addresses: BTreeSet<_> = members.iter().flat_map(|member| member.grant.ipv4).collect();
        assert_eq!(addresses.len(), members.len());
    }
}

fn store_of(machines: &Machines, id: NetworkId) -> PathBuf {
    machines.directory("alpha").join("controllers").join(format!("{id}.db"))
}

/// Moment at which a process is killed.
#[derive(Debug)]
enum Moment {
    After(Duration),
    /// Some time after the n-th change in a directory, because writes take only a small part of the time.
    AfterChange(u32, Duration),
}

impl Moment {
    /// Waits for the moment, for a time at most.
    fn wait(&self, directory: &Path, at_most: Duration) {
        let begun = Instant::now();
        let (mut left, after) = match *self {
            Moment::After(time) => (0, time),
            Moment::AfterChange(changes, time) => (changes, time),
        };
        let mut known = content(directory);
        while left > 0 && begun.elapsed() < at_most {
            thread::sleep(Duration::from_micros(100));
            let now = content(directory);
            if now != known {
                (known, left) = (now, left - 1);
            }
        }
        thread::sleep(after);
    }
}

/// Returns the files of a directory with what changes by a write.
fn content(directory: &Path) -> Vec<(std::ffi::OsString, u64, u64, i64)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| {
        let file = entry.metadata().ok()?;
        Some((entry.file_name(), file.ino(), file.len(), file.mtime_nsec()))
    };
    let mut files: Vec<_> = entries.filter_map(of).collect();
    files.sort();
    files
}

/// Random numbers from a seed that a failure shows.
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        let seed = RandomState::new().hash_one(());
        eprintln!("seed: {seed}");
        Dice(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn moment(&mut self, round: u32, usual: Duration) -> Moment {
        let usual = usual.as_micros() as u64;
        match round % 2 {
            0 => Moment::After(Duration::from_micros(self.below(usual + usual / 4))),
            _ => {
                let changes = 1 + self.below(12) as u32;
                Moment::AfterChange(changes, Duration::from_micros(self.below(3_000)))
            }
        }
    }
}
