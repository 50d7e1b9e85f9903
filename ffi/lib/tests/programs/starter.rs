//! C programs that start the node which they share.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use peersock_testnet::free_port;
use tempfile::TempDir;

use crate::build::{Built, Mode, Program, launcher};
use crate::shared::network;

/// Timeout of anything; tests do not depend on speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, with a state directory and a network.
struct Scene {
    program: Built,
    place: TempDir,
    network: String,
}

/// A running program.
struct Running {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Scene {
    fn new() -> Option<Scene> {
        let program = Program::new("starter.c").with_launcher().build(Mode::Plain)?;
        Some(Scene { program, place: tempfile::tempdir().expect("room"), network: network() })
    }

    fn state(&self) -> PathBuf {
        self.place.path().join("state")
    }

    /// Returns the program's command. A node that it starts ends soon after its last program.
    fn command(&self, peersock: impl AsRef<OsStr>, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program.path);
        command.arg(self.state()).arg(&self.network).args(words);
        command
            .env("PEERSOCK_PROGRAM", peersock)
            .env("PEERSOCK_PERSIST", "0.2")
            .env("PEERSOCK_CONFIG", "")
            .env_remove("PEERSOCK_OWN_NODE");
        command
    }

    fn start(&self, words: &[&str]) -> Running {
        Running::new(self.command(launcher(), words))
    }

    /// Writes a script, and returns its path.
    fn script(&self, text: &str) -> PathBuf {
        let path = self.place.path().join("script");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("room");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an own file");
        path
    }
}

impl Running {
    fn new(mut command: Command) -> Running {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the program was just built");
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        Running { process, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }

    /// Returns the process of the node, which is not the program's.
    fn shared(&mut self) -> u32 {
        let line = self.line();
        let process =
            line.strip_prefix("shared ").unwrap_or_else(|| panic!("it has a node of its own: {line}"));
        process.parse().expect("a number")
    }

    fn has_own(&mut self) {
        assert_eq!(self.line(), format!("own {}", self.process.id()));
    }

    /// Has the program do something, and returns what it says.
    fn ask(&mut self, word: &str) -> String {
        let input = self.process.stdin.as_mut().expect("a pipe");
        writeln!(input, "{word}").expect("it reads");
        let mut said = String::new();
        loop {
            match self.line() {
                line if line == "done" => return said,
                line => said += &line,
            }
        }
    }

    fn stop(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().expect("it is our child").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits for the end of a process.
fn wait_for_end(process: u32) {
    let begun = Instant::now();
    while Path::new(&format!("/proc/{process}")).exists() {
        assert!(begun.elapsed() < PATIENCE, "process {process} has not ended");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn programs_that_start_together_share_one_node_that_outlives_its_starter() {
    let Some(scene) = Scene::new() else { return };
    let mut programs: Vec<_> = (0..4).map(|_| scene.start(&[])).collect();
    let nodes: Vec<_> = programs.iter_mut().map(Running::shared).collect();
    assert!(nodes.iter().all(|node| *node == nodes[0]), "{nodes:?}");
    assert!(programs.iter().all(|program| program.process.id() != nodes[0]));
    let mut later = scene.start(&[]);
    assert_eq!(later.shared(), nodes[0]);
    // One of them has started it.
    for mut killed in programs {
        killed.process.kill().expect("it is our child");
        killed.process.wait().expect("it is our child");
        later.ask("echo");
    }
    later.stop();
    wait_for_end(nodes[0]);
}

#[test]
fn a_node_waits_for_another_program_and_leaves_a_directory_that_is_needed() {
    let Some(scene) = Scene::new() else { return };
    let patient = || {
        let mut command = scene.command(launcher(), &[]);
        command.env("PEERSOCK_PERSIST", "3600");
        Running::new(command)
    };
    let mut first = patient();
    let node = first.shared();
    first.stop();
    let mut second = patient();
    assert_eq!(second.shared(), node);
    second.stop();
    let mut own = scene.command(launcher(), &[]);
    own.env("PEERSOCK_OWN_NODE", "1");
    Running::new(own).has_own();
    wait_for_end(node);
}

#[test]
fn a_fork_after_the_start_has_no_child_but_its_own() {
    let Some(scene) = Scene::new() else { return };
    let mut program = scene.start(&[]);
    program.shared();
    program.ask("fork");
    program.ask("echo");
    program.stop();
}

#[test]
fn settings_go_to_the_node_and_secrets_to_no_command_line() {
    let Some(scene) = Scene::new() else { return };
    let port = crate::run::port();
    let free = free_port();
    let turn = "turn=turn:anna:topsecret@127.0.0.1:3478";
    let mut program = scene.start(&[&format!("port={free}"), turn]);
    let node = program.shared();
    let status = program.ask("status");
    assert!(status.contains(&format!(":{free}\"")), "{status}");
    for file in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{node}/{file}")).expect("its file");
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("topsecret"), "{file}: {text}");
    }
    // The next program is told who has set the port.
    let refused = scene.start(&[&format!("port={port}")]).line();
    assert!(refused.contains(&format!("--overlay-port {free}, by `program` (process")), "{refused}");
    program.stop();
}

#[test]
fn a_node_that_a_program_in_c_starts_has_the_settings_of_its_user_s_file() {
    let Some(scene) = Scene::new() else { return };
    let free = free_port();
    let id = Command::new(launcher()).args(["id", "--ephemeral"]).env("PEERSOCK_CONFIG", "").output();
    let id = String::from_utf8(id.expect("it is built").stdout).expect("text");
    let key = id.lines().find_map(|line| line.split_once("public key")).expect("a key").1;
    let root = format!("{}@127.0.0.1:9", key.trim());
    let file = scene.place.path().join("config.toml");
    let text = format!("port = {free}\nroots = [\"{root}\"]\ninterfaces = \"lo\"\n");
    fs::write(&file, text).expect("room");
    let in_c = |words: &[&str]| {
        let mut command = scene.command(launcher(), words);
        command.env("PEERSOCK_CONFIG", &file);
        Running::new(command)
    };
    let mut program = in_c(&[]);
    program.shared();
    let mut second = in_c(&[]);
    second.shared();
    program.stop();
    let status = second.ask("status");
    assert!(status.contains(&format!(":{free}\"")) && status.contains("127.0.0.1:9"), "{status}");
    let refused = in_c(&["port=1"]).line();
    assert!(refused.contains(&format!("--overlay-port {free}, by `program` (process")), "{refused}");
    // The command line has the same settings.
    let mut run = Command::new(launcher());
    run.args(["run", "--quiet", "-n", &scene.network, "--state"]).arg(scene.state()).args(["--", "true"]);
    let said =
        run.env("PEERSOCK_CONFIG", &file).env_remove("PEERSOCK_OWN_NODE").output().expect("it is built");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    second.stop();
    // An empty variable replaces a setting of the file by nothing.
    let mut command = scene.command(launcher(), &[]);
    command.env("PEERSOCK_CONFIG", &file).env("PEERSOCK_ROOTS", "");
    let mut without = Running::new(command);
    without.shared();
    let status = without.ask("status");
    assert!(status.contains(&format!(":{free}\"")) && !status.contains("127.0.0.1:9"), "{status}");
    without.stop();
}

#[test]
fn a_setting_that_no_shared_node_has_and_an_outer_node_keep_it_in_the_process() {
    let Some(scene) = Scene::new() else { return };
    scene.start(&["alone"]).has_own();
    let mut command = scene.command(launcher(), &[]);
    command.env("PEERSOCK_NODE", "0000002a:00000000000000000000000000000007");
    Running::new(command).has_own();
    // A port that is not free is told as without a shared node.
    let held = UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let port = format!("port={}", held.local_addr().expect("it is bound").port());
    let said = scene.start(&[&port]).line();
    assert!(said.ends_with("choose another, or 0 to let the system choose"), "{said}");
}

#[test]
fn without_a_program_that_holds_it_the_node_is_in_the_process() {
    let Some(scene) = Scene::new() else { return };
    let empty = scene.place.path().join("empty");
    fs::create_dir(&empty).expect("a new folder");
    let mut unnamed = scene.command("", &[]);
    unnamed.env("PATH", &empty);
    Running::new(unnamed).has_own();
    let mut found = scene.command("", &[]);
    found.env("PATH", launcher().parent().expect("a folder"));
    let mut found = Running::new(found);
    let node = found.shared();
    found.stop();
    wait_for_end(node);
    let folder = launcher().parent().expect("a folder").to_owned();
    for relative in ["peersock", "./peersock"] {
        let mut command = scene.command(relative, &[]);
        command.current_dir(&folder).env("PATH", &folder);
        Running::new(command).has_own();
    }
    let mut relative = scene.command("", &[]);
    relative.current_dir(&folder).env("PATH", ":.:");
    Running::new(relative).has_own();
}

#[test]
fn a_bad_program_costs_a_bounded_time_and_the_node_is_in_the_process() {
    let Some(scene) = Scene::new() else { return };
    let message = r#"{"Refused":{"status":1,"message":"the node is of peersock 9.9.9","hint":null}}"#;
    let size = message.len();
    let other_version =
        format!("head -c 1 >/dev/null; printf '\\{size:03o}\\0\\0\\0%s' '{message}' >&0; exit 0");
    for text in ["exit 1", "exit 0", "kill -9 $$", &other_version, "exec sleep 1000", "garbage() {"] {
        let mut program = Running::new(scene.command(scene.script(text), &[]));
        let begun = Instant::now();
        program.has_own();
        assert!(begun.elapsed() < PATIENCE, "{text}: {:?}", begun.elapsed());
        program.ask("echo");
        program.stop();
    }
}

#[test]
fn a_node_of_another_program_is_named_although_none_can_be_started() {
    let Some(scene) = Scene::new() else { return };
    let mut own = scene.command(launcher(), &[]);
    own.env("PEERSOCK_OWN_NODE", "1");
    let mut own = Running::new(own);
    own.has_own();
    let said = scene.start(&[]).line();
    assert!(said.contains(&format!("in use by process {}", own.process.id())), "{said}");
    own.stop();
}

#[test]
fn a_program_with_more_rights_than_its_starter_starts_no_other() {
    let built = Program::new("starter.c").with_launcher().linked_statically().build(Mode::Plain);
    let Some(program) = built else { return };
    if !rustix::process::geteuid().is_root() {
        println!("SKIP a_program_with_more_rights_than_its_starter: it needs root");
        return;
    }
    let place = tempfile::tempdir().expect("room");
    let scene = Scene { program, place, network: network() };
    let (nobody, has_run) = (65534, scene.place.path().join("has-run"));
    let script = scene.script(&format!(": >{}; exit 1", has_run.display()));
    for folder in [scene.place.path(), scene.program.folder.path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("an own folder");
    }
    fs::create_dir(scene.state()).expect("a new folder");
    fs::set_permissions(scene.state(), fs::Permissions::from_mode(0o700)).expect("an own folder");
    chown(scene.place.path(), Some(nobody), None).expect("as root");
    chown(scene.state(), Some(nobody), None).expect("as root");
    // As the user itself it starts the program, which says so.
    let mut plain = scene.command(&script, &[]);
    plain.uid(nobody).gid(nobody);
    Running::new(plain).has_own();
    assert!(has_run.exists());
    fs::remove_file(&has_run).expect("it was there");
    chown(&scene.program.path, Some(nobody), None).expect("as root");
    fs::set_permissions(&scene.program.path, fs::Permissions::from_mode(0o4755)).expect("as root");
    Running::new(scene.command(&script, &[])).has_own();
    assert!(!has_run.exists());
}
