//! Two programs behind NATs that exchange data at an even pace or at full speed, while the network is
//! disturbed. Arriving data is recorded all the while. Needs root and `natlab`.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{ChildStdin, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock_testnet::Lab as Nats;
use rustix::process::Signal;

use crate::common::{Lab, PATIENCE, PORT, Running, address_of, peersock, signal, vanish};
use crate::nats::wait_for_status;

/// States of the two programs, and sites of their hosts.
pub(crate) const NODES: [&str; 2] = ["dialer", "listener"];
pub(crate) const SITES: [&str; 2] = ["home", "work"];
pub(crate) const ROOTS: [&str; 2] = ["root1", "root2"];

/// Two sites, `home` and `work`, each with a host of the same name with a 1 appended, and one or two roots,
/// which keep their keys.
pub(crate) struct Scene {
    roots: Vec<Option<Running>>,
    pub(crate) texts: Vec<String>,
    /// Further options of the roots.
    options: &'static [&'static str],
    pub(crate) nats: Nats,
    pub(crate) lab: Lab,
}

impl Scene {
    /// Builds the scene; returns `None`, after printing the reason, if that is impossible on this machine.
    pub(crate) fn build(test: &str, topology: &str) -> Option<Self> {
        Self::with(test, topology, &[])
    }

    /// Builds a scene in which the roots also accept streams.
    pub(crate) fn with_streams(test: &str, topology: &str) -> Option<Self> {
        Self::with(test, topology, &["--stream", "443"])
    }

    fn with(test: &str, topology: &str, options: &'static [&'static str]) -> Option<Self> {
        let nats = Nats::build(test, topology)?;
        let count = ROOTS.iter().filter(|root| topology.contains(&format!("{root}="))).count();
        let roots = (0..count).map(|_| None).collect();
        let mut scene = Self { roots, texts: vec![String::new(); count], options, nats, lab: Lab::new() };
        for number in 0..count {
            scene.start_root(number);
        }
        Some(scene)
    }

    /// Starts a root, with its previous keys.
    pub(crate) fn start_root(&mut self, number: usize) {
        let name = ROOTS[number];
        let state: PathBuf = self.lab.state(name);
        let mut command = peersock(&["root", "--port", "7420", "--drain", "10", "--listen"]);
        command.arg(self.nats.ip4(name).to_string()).arg("--state").arg(state).args(self.options);
        let root = self.nats.within(name, || Running::start(command));
        let said = root.wait_for_stdout("\n");
        let text = said.lines().next().expect("a line").to_owned();
        assert!(self.texts[number].is_empty() || self.texts[number] == text, "its keys stay");
        self.texts[number] = text;
        self.roots[number] = Some(root);
    }

    /// Kills a root by SIGKILL.
    pub(crate) fn kill_root(&mut self, number: usize) {
        let root = self.roots[number].take().expect("it runs");
        vanish(Signal::KILL, root.id());
    }

    /// Asks a root to end.
    pub(crate) fn end_root(&mut self, number: usize) -> Running {
        let root = self.roots[number].take().expect("it runs");
        signal(Signal::TERM, root.id());
        root
    }

    /// Makes a site drop packets from one outer address to another, both ways through it.
    pub(crate) fn block(&self, at: &str, from: IpAddr, to: IpAddr) {
        let name = rule_name(from, to);
        // The chains run after the translation of incoming packets, and before that of outgoing ones.
        let rules = format!(
            "table ip {name} {{ \
               chain raw {{ type filter hook prerouting priority -300; ip saddr {from} ip daddr {to} drop; }}; \
               chain out {{ type filter hook postrouting priority 300; ip saddr {from} ip daddr {to} drop; }}; \
             }}"
        );
        self.nft(at, &rules);
    }

    pub(crate) fn unblock(&self, at: &str, from: IpAddr, to: IpAddr) {
        self.nft(at, &format!("delete table ip {}", rule_name(from, to)));
    }

    pub(crate) fn nft(&self, node: &str, rules: &str) {
        self.nats.natlab(&["exec", node, "--", "nft", rules]);
    }

    /// Returns the outer addresses of the two sites.
    pub(crate) fn outer(&self) -> [IpAddr; 2] {
        SITES.map(|site| self.nats.ip4(site))
    }

    /// Starts both programs, and waits until they are connected.
    pub(crate) fn connect(&self) -> [Running; 2] {
        let [mut listening, mut dialing] = self.listen_and(&["dial"]);
        dialing.send(&[content(0, 0)]);
        listening.send(&[content(1, 0)]);
        let since = Instant::now();
        while [&dialing, &listening].iter().any(|program| program.received() == 0) {
            assert!(since.elapsed() < PATIENCE, "no byte arrives: {}", dialing.said());
            thread::sleep(Duration::from_millis(5));
        }
        [dialing, listening]
    }

    /// Starts `listen` and, once it is registered at all roots, another program with its target: address and
    /// port for `dial`, for others only the address.
    pub(crate) fn listen_and(&self, words: &[&str]) -> [Running; 2] {
        let node = |name: &str, host: &str, words: &[&str]| {
            let mut command: Command = self.lab.command(name, words);
            command.args(["-v", "--no-portmap", "--no-tcp-punch", "--network", &self.lab.network]);
            for root in &self.texts {
                command.args(["--root", root]);
            }
            self.nats.within(host, || Running::start(command))
        };
        let listening = node(NODES[1], "work1", &["listen", &PORT.to_string()]);
        let target = listening.wait_for_target();
        wait_for_status(&self.lab, NODES[1], |now| {
            let roots = now["roots"].as_array().map(Vec::as_slice).unwrap_or_default();
            roots.len() == self.roots.len() && roots.iter().all(|root| root["state"] == "registered")
        });
        let whom = if words == ["dial"] { target } else { address_of(&self.lab, NODES[1]) };
        [listening, node(NODES[0], "home1", &[words, &[&whom]].concat())]
    }
}

fn rule_name(from: IpAddr, to: IpAddr) -> String {
    format!("drop_{from}_{to}").replace('.', "_")
}

/// Returns the byte at this position of a side's content.
pub(crate) fn content(side: usize, at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 16) as u8 ^ (side as u8 * 0x5a)
}

/// Compares the received bytes with those written by the other side.
pub(crate) fn assert_is_written(side: usize, arrived: &[u8], count: usize) {
    let wrong = (0..).zip(arrived).position(|(at, &byte)| byte != content(1 - side, at));
    assert_eq!(wrong, None, "a wrong byte at side {side}");
    assert_eq!(arrived.len(), count, "side {side} has received all and no more");
}

/// Returns true if the last path in a log leads directly to the peer.
pub(crate) fn is_direct(log: &str) -> bool {
    let last = log.lines().rev().find_map(|line| line.split_once(" path=").map(|(_, path)| path));
    last.is_some_and(|path| !path.starts_with("relay"))
}

/// A thread that writes to a program until it is stopped.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Writer {
    /// Writes `chunk` bytes and pauses, repeatedly; without a pause it writes as fast as the program accepts.
    pub(crate) fn start(side: usize, mut stdin: ChildStdin, chunk: usize, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // The first byte has been written.
            let mut written = 1;
            while !told.load(Ordering::SeqCst) {
                let bytes: Vec<u8> = (written..written + chunk).map(|at| content(side, at)).collect();
                stdin.write_all(&bytes).expect("the program reads its stdin");
                written += chunk;
                thread::sleep(pause);
            }
            written
        });
        Self { stop, thread }
    }

    /// Stops, and returns the number of bytes written.
    pub(crate) fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("it has not failed")
    }
}

/// Starts writers to both programs, with this number of bytes at a time.
pub(crate) fn write_to_both(programs: &mut [Running; 2], chunk: usize, pause: Duration) -> [Writer; 2] {
    let stdins = programs.each_mut().map(|program| program.stdin.take().expect("it is open"));
    let mut side = 0..;
    stdins.map(|stdin| Writer::start(side.next().expect("two"), stdin, chunk, pause))
}

/// Stops the writers, and compares all received data. Returns the numbers of bytes.
pub(crate) fn assert_all_arrives(programs: [Running; 2], writers: [Writer; 2]) -> [usize; 2] {
    let written = writers.map(Writer::stop);
    for (side, program) in programs.into_iter().enumerate() {
        let finished = program.finish().success();
        assert_is_written(side, &finished.stdout, written[1 - side]);
    }
    written
}

/// Amounts of received data over time, at each of two programs.
#[derive(Default)]
pub(crate) struct Record {
    noted: Mutex<[VecDeque<(Instant, usize)>; 2]>,
}

impl Record {
    /// Records the amounts received so far.
    pub(crate) fn note(&self, programs: &[Running; 2]) {
        let mut noted = self.noted.lock().expect("nothing panics while it is held");
        for (noted, program) in noted.iter_mut().zip(programs) {
            noted.push_back((Instant::now(), program.received()));
        }
    }

    /// Records arrivals while a function runs.
    pub(crate) fn during<T>(&self, programs: &[Running; 2], work: impl FnOnce() -> T) -> T {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    self.note(programs);
                    thread::sleep(Duration::from_millis(10));
                }
            });
            // Ends the other thread even if the function panics.
            let _end = OnDrop(&is_over);
            work()
        })
    }

    /// Returns the amount that a side had received by then.
    pub(crate) fn by(&self, side: usize, time: Instant) -> usize {
        let noted = &self.noted.lock().expect("nothing panics while it is held")[side];
        let next = noted.partition_point(|(at, _)| *at <= time);
        next.checked_sub(1).map_or(0, |at| noted[at].1)
    }

    /// Returns the longest time without a byte at a side that ends after `begin` and begins before `end`,
    /// without its part before `from`.
    pub(crate) fn stall(&self, side: usize, [begin, from, end]: [Instant; 3]) -> Duration {
        let noted = &self.noted.lock().expect("nothing panics while it is held")[side];
        let mut arrivals: Vec<Instant> = Vec::new();
        let mut known = usize::MAX;
        for (at, bytes) in noted {
            if *bytes != known {
                arrivals.push(*at);
                known = *bytes;
            }
        }
        let last = noted.back().map(|(at, _)| *at);
        let ends = arrivals[1..].iter().copied().chain(last);
        let gaps = arrivals.iter().copied().zip(ends).filter(|(since, until)| *until > begin && *since < end);
        gaps.map(|(since, until)| until.saturating_duration_since(since.max(from))).max().unwrap_or_default()
    }
}

/// A guard that sets a flag when it is dropped.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
