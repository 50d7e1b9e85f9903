//! Runs the program as its users do: one state directory per node, one random network per test, and only the
//! loopback interface. No test depends on speed; the time limits only end a hang.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, Once};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock_testnet::find_in_path;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// Timeout that suffices for the slowest machine under the heaviest load. It is shorter than a test's limit,
/// so that the failed wait is reported.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// A port that every [`Lab`]'s network allows.
pub(crate) const PORT: u16 = 0x8000;

/// A private network of this test, and a place for the states of its nodes.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    pub(crate) network: String,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let random = RandomState::new().hash_one(std::process::id());
        let (first, last) = (1 + random as u16 % 0x7fff, 0x8000 | (random >> 16) as u16);
        let dir = tempfile::tempdir().unwrap();
        Lab { dir, network: format!("ff{first:04x}{last:04x}000000") }
    }

    pub(crate) fn state(&self, node: &str) -> PathBuf {
        self.dir.path().join(node)
    }

    /// Returns a command without a node, such as `id`.
    pub(crate) fn command(&self, node: &str, words: &[&str]) -> Command {
        let mut command = peersock(words);
        command.arg("--state").arg(self.state(node));
        // To these tests a process is a machine: a test that ends or stops it does so to its node. Commands
        // that share a node are tested under `run`, and by these tests with the variable.
        if env::var_os("PEERSOCK_TEST_SHARED").is_none() {
            command.env("PEERSOCK_OWN_NODE", "1");
        }
        command
    }

    /// Returns a command that runs a node in the lab's network.
    pub(crate) fn node(&self, node: &str, words: &[&str]) -> Command {
        self.node_in(&self.network, node, words)
    }

    pub(crate) fn node_in(&self, network: &str, node: &str, words: &[&str]) -> Command {
        let mut command = self.command(node, words);
        command.args(["--interface", "lo", "--network", network]);
        command
    }

    /// Starts `listen` and waits until it prints its address.
    pub(crate) fn listen(&self, words: &[&str]) -> Listening {
        self.listen_with(self.node("listener", &["listen"]), words)
    }

    pub(crate) fn listen_with(&self, mut command: Command, words: &[&str]) -> Listening {
        command.args(words);
        let running = Running::start(command);
        let target = running.wait_for_target();
        Listening { target, running }
    }

    pub(crate) fn dial(&self, target: &str, words: &[&str]) -> Running {
        Running::start(self.dial_command(target, words))
    }

    pub(crate) fn dial_command(&self, target: &str, words: &[&str]) -> Command {
        let mut command = self.node("dialer", &["dial", target]);
        command.args(words);
        command
    }
}

pub(crate) struct Listening {
    /// `[ADDRESS]:PORT`
    pub(crate) target: String,
    pub(crate) running: Running,
}

/// Returns a command of the program.
pub(crate) fn peersock(words: &[&str]) -> Command {
    heed_interrupts();
    let mut command = Command::new(env!("CARGO_BIN_EXE_peersock"));
    command.args(words);
    without_variables(&mut command);
    // Directories of tests are removed at their end.
    command.env("PEERSOCK_PERSIST", "0");
    command
}

/// Removes the program's environment variables.
pub(crate) fn without_variables(command: &mut Command) {
    let variables = [
        "SECRET",
        "LOG",
        "NETWORK",
        "STATE",
        "STUN",
        "TURN",
        "ROOTS",
        "DHT",
        "CODE",
        "SEND_CODE",
        "INTERFACE",
        "OWN_NODE",
        "PERSIST",
    ];
    for variable in variables {
        command.env_remove(format!("PEERSOCK_{variable}"));
    }
    without_settings(command);
}

/// Makes the program ignore the settings of the user who runs the tests, unless the test names others.
fn without_settings(command: &mut Command) {
    const VARIABLE: &str = "PEERSOCK_CONFIG";
    if !command.get_envs().any(|(name, _)| name == VARIABLE) {
        command.env(VARIABLE, "");
    }
}

/// A process that is killed if the test ends before it.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: Collected,
    stderr: Collected,
    readers: Vec<JoinHandle<()>>,
}

pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        heed_interrupts();
        without_settings(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the program starts");
        let (stdout, out) = Collected::start(child.stdout.take().unwrap());
        let (stderr, err) = Collected::start(child.stderr.take().unwrap());
        let stdin = child.stdin.take();
        Running { child, stdin, stdout, stderr, readers: vec![out, err] }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes).expect("the program reads its stdin");
        stdin.flush().unwrap();
    }

    /// Sends a line to `other`, which has this program's connection, and waits for an answer.
    pub(crate) fn talk_to(&mut self, other: &mut Running, line: &str, answer: &str) {
        let [line, answer] = [line, answer].map(|text| format!("{text}\n"));
        self.send(line.as_bytes());
        other.wait_for_stdout(&line);
        other.send(answer.as_bytes());
        self.wait_for_stdout(&answer);
    }

    pub(crate) fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until stdout contains `wanted`; returns its content.
    pub(crate) fn wait_for_stdout(&self, wanted: &str) -> String {
        self.stdout.wait_for(wanted, false, || self.stderr.text());
        self.stdout.text()
    }

    /// Waits for a line on stderr that contains `wanted`; returns the text after `wanted`.
    pub(crate) fn wait_for_stderr(&self, wanted: &str) -> String {
        self.stderr.wait_for(wanted, true, || self.stderr.text());
        let text = self.stderr.text();
        text.split_once(wanted).unwrap().1.lines().next().unwrap().to_owned()
    }

    /// Returns the content of stderr so far.
    pub(crate) fn said(&self) -> String {
        self.stderr.text()
    }

    /// Returns the content of stdout so far.
    pub(crate) fn shown(&self) -> String {
        self.stdout.text()
    }

    /// Returns the number of bytes on stdout so far.
    pub(crate) fn received(&self) -> usize {
        self.stdout.0.content.lock().unwrap().bytes.len()
    }

    /// Waits until `listen` prints its address.
    pub(crate) fn wait_for_target(&self) -> String {
        let rest = self.wait_for_stderr("listening on ");
        rest.split(' ').next().unwrap().to_owned()
    }

    /// Waits until the node of this name runs and so handles Ctrl-C.
    pub(crate) fn wait_for_state(&self, lab: &Lab, node: &str) {
        let deadline = Instant::now() + PATIENCE;
        while run(lab.command(node, &["status"])).status.code() != Some(0) {
            assert!(Instant::now() < deadline, "the node does not start; stderr: {}", self.stderr.text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for the end; stdin stays open.
    pub(crate) fn interrupt(mut self) -> Finished {
        signal(Signal::INT, self.id());
        self.wait()
    }

    /// Closes stdin and waits for the end.
    pub(crate) fn finish(self) -> Finished {
        self.finish_within(PATIENCE)
    }

    /// Waits for the end; stdin stays open.
    pub(crate) fn wait_for_end(mut self) -> Finished {
        self.wait()
    }

    /// Closes stdin and waits for the end, for a test that takes minutes.
    pub(crate) fn finish_within(mut self, limit: Duration) -> Finished {
        self.stdin = None;
        self.wait_within(limit)
    }

    fn wait(&mut self) -> Finished {
        self.wait_within(PATIENCE)
    }

    fn wait_within(&mut self, limit: Duration) -> Finished {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the program does not end; stderr: {}", self.stderr.text());
            thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Finished { status, stdout: self.stdout.bytes(), stderr: self.stderr.text() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("process {} has said until the test failed: {}", self.id(), self.stderr.text());
        }
        if let Ok(None) = self.child.try_wait() {
            // Kills all descendants; daemons are among its children, because it is their subreaper.
            for _ in 0..10 {
                let running = descendants(self.id());
                if running.is_empty() {
                    break;
                }
                for id in running {
                    let _ = rustix::process::kill_process(process(id), Signal::KILL);
                }
                thread::sleep(Duration::from_millis(5));
            }
            // Kills the whole group, because a shell's programs do not end with it.
            let _ = rustix::process::kill_process_group(process(self.id()), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Returns the process for a signal; kill(1) is not used, because some systems lack it.
fn process(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed()).expect("a process has a number")
}

/// Returns all descendants of a process.
fn descendants(process: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut left = vec![process];
    while let Some(process) = left.pop() {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
            left.extend(children.filter(|pid| found.insert(*pid)));
        }
    }
    found
}

impl Finished {
    #[track_caller]
    pub(crate) fn success(self) -> Finished {
        let stdout = String::from_utf8_lossy(&self.stdout);
        assert_eq!(self.status.code(), Some(0), "stderr: {}\nstdout: {stdout:.2000}", self.stderr);
        self
    }

    /// Checks the exit status, and that stderr contains each of these words.
    #[track_caller]
    pub(crate) fn failure(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(status), "stderr: {}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Waits until something is so. Fails with `otherwise` if it takes too long.
#[track_caller]
pub(crate) fn wait_until(otherwise: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{otherwise}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command that needs no input until it ends.
pub(crate) fn run(command: Command) -> Finished {
    Running::start(command).finish()
}

/// Returns true if a program that a test needs is not installed; prints that the test is skipped.
pub(crate) fn lacks(test: &str, programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| find_in_path(program).is_none());
    if let Some(program) = missing {
        eprintln!("SKIP {test}: {program} is not installed");
    }
    missing.is_some()
}

/// Makes processes started from now on handle Ctrl-C, even if the tests run as a shell's background job,
/// which ignores it. A signal handled here has the default action in programs.
fn heed_interrupts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let always = Arc::new(AtomicBool::new(true));
        signal_hook::flag::register_conditional_default(signal_hook::consts::SIGINT, always).unwrap();
    });
}

/// Sends a signal to a process.
pub(crate) fn signal(signal: Signal, id: u32) {
    rustix::process::kill_process(process(id), signal).unwrap();
}

/// Makes a process vanish for its peers, by SIGSTOP or SIGKILL; returns when none of its threads runs any
/// more.
pub(crate) fn vanish(how: Signal, id: u32) {
    signal(how, id);
    let has_ended =
        |stat: &str| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 'Z', 'X']));
    let runs = || {
        let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        // A thread whose file is missing has ended.
        tasks
            .into_iter()
            .any(|task| fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| !has_ended(&stat)))
    };
    while runs() {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Writes a file with these permissions.
pub(crate) fn write_file(path: &Path, content: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Output of a pipe so far.
#[derive(Clone, Default)]
struct Collected(Arc<Pipe>);

#[derive(Default)]
struct Pipe {
    content: Mutex<Content>,
    changed: Condvar,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    ended: bool,
}

impl Collected {
    fn start(mut pipe: impl Read + Send + 'static) -> (Collected, JoinHandle<()>) {
        let collected = Collected::default();
        let clone = collected.clone();
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                let mut content = clone.0.content.lock().unwrap();
                content.bytes.extend_from_slice(&buffer[..count]);
                content.ended = count == 0;
                clone.0.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        (collected, reader)
    }

    /// Waits until the content contains `wanted` and, if `line` is set, a line feed after that.
    fn wait_for(&self, wanted: &str, line: bool, context: impl Fn() -> String) {
        let deadline = Instant::now() + PATIENCE;
        let mut content = self.0.content.lock().unwrap();
        loop {
            let text = String::from_utf8_lossy(&content.bytes);
            if text.split_once(wanted).is_some_and(|(_, rest)| !line || rest.contains('\n')) {
                return;
            }
            if content.ended || Instant::now() >= deadline {
                drop(content);
                panic!("{wanted:?} did not come; stderr: {}", context());
            }
            content = self.0.changed.wait_timeout(content, Duration::from_millis(100)).unwrap().0;
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.content.lock().unwrap().bytes.clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

/// Returns the address of a node, which need not run.
pub(crate) fn address_of(lab: &Lab, node: &str) -> String {
    run(lab.command(node, &["addr", &lab.network])).success().text().trim().to_owned()
}

/// Returns a server's response to a request for a path, with the header.
pub(crate) fn http(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
