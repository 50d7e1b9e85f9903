//! One cell: two roots, two programs, and the outcome.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::wire::Relayed;
use peersock_sim::cells::Expected;
use peersock_testnet::Lab as Nats;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::kind::{Access, SITES};
use crate::common::{Lab, PATIENCE, PORT, Running, address_of, http, peersock, run, signal};

/// Environment variable with a file to which every cell adds its result, as a line of JSON.
const RESULTS: &str = "PEERSOCK_CELLS";

/// Numbers of bytes that each side writes at first and then repeatedly, as in the simulator.
const FIRST_BYTES: usize = 2000;
const REPEATED_BYTES: usize = 200;
const INTERVAL: Duration = Duration::from_millis(200);

/// Time limit for a direct path: 5 s after the call to dial, and the rest for a busy machine.
const DIRECT_BY: Duration = Duration::from_secs(5 + 10);
/// Time limit if many ports are searched: at most 3 s more. A busy machine also sends late.
const LIKELY_BY: Duration = Duration::from_secs(15 + 15);
/// Number of tries. A search fails twice in a hundred times, and practically never three times in a row.
const ATTEMPTS: usize = 3;
/// Time for which a path that stays relayed is watched.
const WATCHED: Duration = Duration::from_secs(6);
/// Number of writes over the path that was found.
const AFTERWARDS: usize = 5;

/// Runs the cell of these two kinds; the first one dials. A cell that depends on luck is repeated.
pub(super) fn of_kinds(kinds: [&str; 2]) {
    let boxes = kinds.map(Access::named);
    let expected = Access::expected(boxes[0], boxes[1]);
    if expected != Expected::Likely {
        run_once(kinds, expected);
        return;
    }
    // `None` means that the lab cannot be built on this machine.
    let is_found = (0..ATTEMPTS).any(|_| run_once(kinds, expected).unwrap_or(true));
    assert!(is_found, "no direct path in {ATTEMPTS} tries");
}

/// Runs the cell once. Returns true if the path was direct in the end.
fn run_once(kinds: [&str; 2], expected: Expected) -> Option<bool> {
    let boxes = kinds.map(Access::named);
    let topology: Vec<String> = boxes.iter().zip(SITES).map(|(kind, site)| kind.topology(site)).collect();
    let name = format!("cell-{}-{}", kinds[0], kinds[1]).replace('+', "p");
    let meeting = Meeting::arrange(&name, &topology.join(" "), |nats| {
        for (kind, site) in boxes.iter().zip(SITES) {
            kind.finish(nats, site);
        }
    })?;
    Some(meeting.hold(kinds, SITES.map(|site| format!("{site}1")), expected))
}

/// A lab with two roots that also accept streams on port 443, each with a delay of 5 ms.
pub(super) struct Meeting {
    /// Addresses that the roots have printed.
    roots: Vec<String>,
    /// Addresses of the roots' metrics.
    metrics: [String; 2],
    /// The roots. Fields are dropped in this order, so that the roots end before the lab.
    serving: Vec<Running>,
    nats: Nats,
    lab: Lab,
}

impl Meeting {
    /// Builds the lab; returns `None`, after printing the reason, if that is impossible on this machine.
    pub(super) fn arrange(name: &str, topology: &str, finish: impl FnOnce(&Nats)) -> Option<Self> {
        let words = ROOTS.map(|root| format!("{root}=public:link.delay=5")).join(" ");
        let nats = Nats::build(name, &format!("{words} {topology}"))?;
        finish(&nats);
        let serve = |root: &&str| {
            let mut command = peersock(&["root", "--ephemeral", "--stream", "443", "--drain", "0"]);
            for address in [nats.ip4(root), nats.ip6(root)] {
                command.args(["--listen", &address.to_string()]);
            }
            command.args(["--metrics", "127.0.0.1:0"]);
            nats.within(root, || Running::start(command))
        };
        let serving: Vec<Running> = ROOTS.iter().map(serve).collect();
        let first_line = |root: &Running| {
            let said = root.wait_for_stdout("\n");
            said.lines().next().expect("a line").to_owned()
        };
        let texts = serving.iter().map(first_line).collect();
        let metrics = [0, 1].map(|at| serving[at].wait_for_stderr("metrics on http://"));
        let metrics = metrics.map(|address| address.trim_end_matches("/metrics").to_owned());
        Some(Self { roots: texts, metrics, serving, nats, lab: Lab::new() })
    }

    /// Kills the roots.
    pub(super) fn kill_roots(&mut self) {
        for root in &self.serving {
            signal(Signal::KILL, root.id());
        }
        self.serving.clear();
    }

    /// Connects a program at each of these hosts, the first of which dials, until their path is as expected
    /// and for a while after that. Returns true if the path was direct.
    pub(super) fn hold(&self, kinds: [&str; 2], hosts: [String; 2], expected: Expected) -> bool {
        let mut talk = self.begin([&hosts[0], &hosts[1]]);
        talk.until_settled(expected);
        talk.write_for(AFTERWARDS);
        let relayed = self.relayed();
        let seen = Seen { relayed: Some(relayed), ..self.end(talk) };
        seen.report(kinds, expected);
        seen.assert_fits(expected);
        seen.is_direct()
    }

    /// Returns the number of datagram bytes that both roots have relayed, without the relay's header.
    fn relayed(&self) -> u64 {
        let of_root = |(root, address): (&str, &String)| {
            let text = self.nats.within(root, || http(address, "/metrics"));
            let count = |name: &str| -> u64 {
                let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                lines.map(|number| number.parse::<u64>().expect("a number")).sum()
            };
            let (frames, bytes) =
                (count("peersock_root_relayed_total"), count("peersock_root_relayed_bytes_total"));
            bytes - frames * Relayed::LEN as u64
        };
        ROOTS.into_iter().zip(&self.metrics).map(of_root).sum()
    }

    /// Runs an unmodified program at a host.
    pub(super) fn run(&self, host: &str, node: &str, program: &[&str]) -> Running {
        let mut command = self.lab.command(node, &["run", "--quiet", "--network", &self.lab.network]);
        for root in &self.roots {
            command.args(["--root", root]);
        }
        command.arg("--").args(program);
        self.nats.within(host, || Running::start(command))
    }

    /// Waits until a node is registered at both roots.
    pub(super) fn wait_until_registered(&self, node: &str, running: &Running) {
        wait_until_registered(&self.lab, node, running);
    }

    /// Returns the overlay address of a running node.
    pub(super) fn address_of(&self, node: &str) -> String {
        address_of(&self.lab, node)
    }

    /// Returns a node's status of its peer.
    pub(super) fn first_peer(&self, node: &str) -> Value {
        status(&self.lab, node)["peers"][0].clone()
    }

    /// Ends both programs, and compares the received bytes with the written ones.
    pub(super) fn end(&self, talk: Talk) -> Seen {
        talk.end(&self.lab)
    }

    /// Starts both programs and waits for the first byte.
    pub(super) fn begin(&self, hosts: [&str; 2]) -> Talk {
        let node = |name: &str, host: &str, words: &[&str]| {
            let mut command = self.lab.command(name, words);
            command.args(["-v", "--no-portmap", "--network", &self.lab.network]);
            for root in &self.roots {
                command.args(["--root", root]);
            }
            self.nats.within(host, || Running::start(command))
        };
        let listening = node(NODES[1], hosts[1], &["listen", &PORT.to_string()]);
        let target = listening.wait_for_target();
        wait_until_registered(&self.lab, NODES[1], &listening);
        let since = Instant::now();
        let dialing = node(NODES[0], hosts[0], &["dial", &target]);
        let mut talk = Talk {
            programs: [dialing, listening],
            since,
            written: 0,
            first_byte: None,
            ready: None,
            direct: None,
        };
        talk.write(FIRST_BYTES);
        while talk.first_byte.is_none() {
            assert!(since.elapsed() < PATIENCE, "no byte arrives; {}", talk.logs());
            talk.wait(POLL);
        }
        talk.ready = registered_after(&self.lab, NODES[0], since);
        talk
    }
}

/// Hosts of the roots.
const ROOTS: [&str; 2] = ["root1", "root2"];

/// States of the two programs: the one that dials, then the one that listens.
const NODES: [&str; 2] = ["dialer", "listener"];

pub(super) const POLL: Duration = Duration::from_millis(10);

/// Two connected programs.
pub(super) struct Talk {
    /// The programs; the one that dials is first.
    programs: [Running; 2],
    /// Start time of the dialing program.
    since: Instant,
    /// Number of bytes written to each program.
    written: usize,
    first_byte: Option<Duration>,
    /// Time at which the dialing program was registered at a root.
    ready: Option<Duration>,
    /// Time since which both paths have been direct, according to the logs.
    direct: Option<Duration>,
}

impl Talk {
    /// Writes until the path is as expected; a path expected to stay relayed is watched for a while.
    fn until_settled(&mut self, expected: Expected) {
        let limit = match expected {
            Expected::Direct => DIRECT_BY,
            Expected::Likely => LIKELY_BY,
            _ => self.since.elapsed() + WATCHED,
        };
        while self.direct.is_none() && self.since.elapsed() < limit {
            self.write(REPEATED_BYTES);
            self.wait(INTERVAL);
        }
    }

    /// Writes this many more times.
    pub(super) fn write_for(&mut self, times: usize) {
        for _ in 0..times {
            self.write(REPEATED_BYTES);
            self.wait(INTERVAL);
        }
    }

    /// Waits until both paths are direct.
    pub(super) fn until_direct(&mut self) {
        self.until_settled(Expected::Direct);
        assert!(self.direct.is_some(), "no direct path; {}", self.logs());
    }

    fn write(&mut self, count: usize) {
        let next = self.written..self.written + count;
        for (side, program) in self.programs.iter_mut().enumerate() {
            program.send(&next.clone().map(|at| content(side, at)).collect::<Vec<u8>>());
        }
        self.written = next.end;
    }

    /// Waits, and records events meanwhile.
    fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let now = self.since.elapsed();
            if self.first_byte.is_none() && self.programs.iter().any(|program| program.received() > 0) {
                self.first_byte = Some(now);
            }
            match self.programs.iter().all(|program| is_direct(&program.said())) {
                true => self.direct = self.direct.or(Some(now)),
                false => self.direct = None,
            }
            let Some(left) = end.checked_duration_since(Instant::now()) else { return };
            thread::sleep(left.min(POLL));
        }
    }

    fn end(mut self, lab: &Lab) -> Seen {
        let paths = NODES.map(|node| status(lab, node)["peers"][0].clone());
        for program in &mut self.programs {
            program.end_stdin();
        }
        let logs = self.logs();
        let [dialing, listening] = self.programs;
        let arrived = [dialing, listening].map(|program| program.finish().success().stdout);
        for (side, arrived) in arrived.iter().enumerate() {
            let wrong = arrived.iter().enumerate().position(|(at, &byte)| byte != content(1 - side, at));
            assert_eq!(wrong, None, "a wrong byte at side {side}");
            assert_eq!(arrived.len(), self.written, "side {side} has received all and no more");
        }
        let first_byte = self.first_byte.expect("it was waited for");
        Seen { first_byte, ready: self.ready, direct: self.direct, relayed: None, paths, logs }
    }

    fn logs(&self) -> String {
        let [dialer, listener] = self.programs.each_ref().map(Running::said);
        format!("the dialer has said:\n{dialer}\nand the listener:\n{listener}")
    }
}

/// The outcome of a cell.
pub(super) struct Seen {
    /// Time since the start of the dialing program.
    first_byte: Duration,
    ready: Option<Duration>,
    direct: Option<Duration>,
    /// Number of bytes that the roots have relayed.
    relayed: Option<u64>,
    /// Final status of each node's peer.
    paths: [Value; 2],
    logs: String,
}

impl Seen {
    /// Returns true if both paths are TCP connections between the two nodes.
    pub(super) fn is_by_tcp(&self) -> bool {
        self.paths.iter().all(|peer| peer["tcp"] == true && peer["root"].is_null())
    }

    fn is_direct(&self) -> bool {
        self.paths.iter().all(|peer| peer["path"].is_string() && peer["root"].is_null())
    }

    /// Prints the outcome, and adds it to the results.
    pub(super) fn report(&self, kinds: [&str; 2], expected: Expected) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).expect("a short time");
        let seen = json!({
            "kinds": kinds,
            "expected": format!("{expected:?}").to_lowercase(),
            "direct": self.is_direct(),
            "first_byte_ms": millis(self.first_byte),
            "direct_ms": self.direct.filter(|_| self.is_direct()).map(millis),
            "ready_ms": self.ready.map(millis),
            "relayed": self.relayed,
        });
        eprintln!("{seen}");
        if let Some(path) = env::var_os(RESULTS) {
            let mut file =
                OpenOptions::new().append(true).create(true).open(Path::new(&path)).expect("a file");
            // Writes in one call, because other tests write too.
            file.write_all(format!("{seen}\n").as_bytes()).expect("it can be written");
        }
    }

    pub(super) fn assert_fits(&self, expected: Expected) {
        let fits = match expected {
            Expected::Direct => self.is_direct(),
            Expected::Relay => !self.is_direct(),
            Expected::Either | Expected::Likely => true,
        };
        assert!(fits, "{expected:?} is expected: {:#?}\n{}", self.paths, self.logs);
    }
}

/// Returns the byte at this position of a side's content.
fn content(side: usize, at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 16) as u8 ^ (side as u8 * 0x5a)
}

/// Returns true if the last path in a log leads directly to the peer.
fn is_direct(log: &str) -> bool {
    let last = log.lines().rev().find_map(|line| line.split_once(" path=").map(|(_, path)| path));
    last.is_some_and(|path| !path.starts_with("relay"))
}

/// Returns when a node was registered at the first of its roots, as a duration after `since`.
fn registered_after(lab: &Lab, node: &str, since: Instant) -> Option<Duration> {
    let asked = since.elapsed();
    let now = status(lab, node);
    // The answer is from a moment between the two.
    let answered = asked + (since.elapsed() - asked) / 2;
    let roots = now["roots"].as_array()?.iter();
    let longest = roots.filter_map(|root| root["registered_s"].as_f64()).fold(0.0, f64::max);
    (longest > 0.0).then(|| answered.saturating_sub(Duration::from_secs_f64(longest)))
}

fn wait_until_registered(lab: &Lab, node: &str, running: &Running) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = status(lab, node);
        let roots = now["roots"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !roots.is_empty() && roots.iter().all(|root| root["state"] == "registered") {
            return;
        }
        assert!(Instant::now() < deadline, "{now:#}\n{}", running.said());
        thread::sleep(Duration::from_millis(100));
    }
}

fn status(lab: &Lab, node: &str) -> Value {
    let text = run(lab.command(node, &["status", "--json"])).success();
    serde_json::from_slice(&text.stdout).expect("JSON")
}
