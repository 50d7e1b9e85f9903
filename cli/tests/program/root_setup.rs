//! Roots run as described by the help, the systemd unit or the container file accept registrations. Roots
//! that listen on all addresses run in a network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peersock::RootAddress;
use peersock_testnet::{Lab as Nats, find_in_path};
use rustix::process::Signal;

use crate::common::{Lab, Running, http, peersock, run, signal, write_file};
use crate::nats::{start, wait_for_status};
use crate::root::{CERTIFICATE, KEY};

/// Domain in the examples, for which the test has no nameserver.
const NAME: &str = "root.example.org";

const MACHINES: &str = "root=public node=public";

/// Path of the program in the unit and the container.
const INSTALLED: &str = "/usr/bin/peersock";

#[test]
fn every_example_of_the_help_runs_a_root_at_which_a_node_registers() {
    let examples = examples();
    assert!(examples.len() >= 8, "{examples:?}");
    let Some(nats) = Nats::build("root-help", MACHINES) else { return };
    for words in examples {
        let setup = Setup::new(&nats);
        setup.serves(&words, &[]);
    }
}

/// The examples use some options; this test uses all.
#[test]
fn every_option_of_the_help_is_accepted_as_it_is_described() {
    let lab = Lab::new();
    let file = |name: &str, text: &str| {
        let path = lab.dir.path().join(name);
        write_file(&path, text, 0o600);
        path.to_str().expect("UTF-8").to_owned()
    };
    let files = BTreeMap::from([
        ("--certificate", file("chain.pem", CERTIFICATE)),
        ("--certificate-key", file("key.pem", KEY)),
        ("--access-token-file", file("token", "open sesame\n")),
        ("--directory-password-file", file("password", "hush\n")),
        // The root creates this file.
        ("--new-token", lab.dir.path().join("new-token").to_str().expect("UTF-8").to_owned()),
    ]);
    let (state, machine) = (lab.state("root"), lab.state("machine"));
    make_network(&machine, "team");
    let value = |option: &str, form: &str| match form {
        "ADDR" => "127.0.0.1".to_owned(),
        "PORT" | "[ADDR:]PORT" => "0".to_owned(),
        "ADDR:PORT" => "127.0.0.1:0".to_owned(),
        // No nameserver is asked.
        "[WAY:]HOST:PORT" => "wss:localhost:443".to_owned(),
        "NETWORK" => "team".to_owned(),
        "PROGRAM" => "/bin/true".to_owned(),
        "URL" => "redis://127.0.0.1:9".to_owned(),
        "BYTES" => "2M".to_owned(),
        "N" | "SECONDS" => "10".to_owned(),
        "DIR" => state.to_str().expect("UTF-8").to_owned(),
        "FILE" => files.get(option).unwrap_or_else(|| panic!("no file for {option}")).clone(),
        other => panic!("{option} takes {other}, which this test does not know"),
    };
    let options = options(&help("root"));
    assert!(options.len() > 20, "{options:?}");
    // These options exclude others.
    let apart = [
        ["--ephemeral", "--state"],
        ["--ephemeral", "--controller"],
        ["--no-relay", "--relay-rate"],
        ["--new-token", "--access-token-file"],
        ["--no-second-port", "--second-port"],
        ["--no-stream", "--stream"],
    ];
    for which in 0..2 {
        let left_out: BTreeSet<&str> = apart
            .iter()
            .map(|pair| pair[which])
            .chain(
                if which == 1 {
                    &["--relay-prefix-rate", "--certificate", "--certificate-key", "--approve-hook"][..]
                } else {
                    &[]
                }
                .iter()
                .copied(),
            )
            .chain(["--help", "--verbose", "--version"])
            .collect();
        let mut command = peersock(&["root"]);
        command.env("PEERSOCK_STATE", &machine).env("PEERSOCK_INTERFACE", "lo");
        for (option, form) in options.iter().filter(|(option, _)| !left_out.contains(option.as_str())) {
            match form.strip_prefix("[=").and_then(|form| form.strip_suffix(']')) {
                // The value may be missing.
                Some(form) => command.arg(format!("{option}={}", value(option, form).replace('0', "7473"))),
                None if form.is_empty() => command.arg(option),
                None => command.args([option, &value(option, form)]),
            };
        }
        let root = Running::start(command);
        first_line(&root);
        signal(Signal::TERM, root.id());
        root.finish().success();
    }
}

#[test]
fn whatever_the_help_of_a_root_names_is_there() {
    let text = help("root");
    let own: BTreeSet<String> = options(&text).into_iter().map(|(option, _)| option).collect();
    // Also accepts options of nodes, because the help tells what nodes need.
    let of_nodes: BTreeSet<String> = options(&help("listen")).into_iter().map(|(option, _)| option).collect();
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_/.".contains(c);
    let words: Vec<&str> = text.split(|c| !is_word(c)).map(|word| word.trim_end_matches('.')).collect();
    let named = words.iter().filter(|word| word.starts_with("--") && word.len() > 2);
    let unknown: Vec<_> = named.filter(|word| !own.contains(**word) && !of_nodes.contains(**word)).collect();
    assert!(unknown.is_empty(), "the help names {unknown:?}");

    let documents: Vec<_> = words.iter().filter(|word| word.ends_with(".md")).collect();
    assert!(!documents.is_empty(), "{text}");
    let packs = fs::read_to_string(repository("xtask/src/dist/program.rs")).expect("its source");
    for document in documents {
        assert!(repository(document).is_file(), "{document} is named and not there");
        assert!(packs.contains(&format!("\"{document}\"")), "{document} is named, and no package has it");
    }
    for variable in words.iter().filter(|word| word.starts_with("PEERSOCK_")) {
        let names = ["PEERSOCK_ROOTS", "PEERSOCK_STATE", "PEERSOCK_DIRECTORY_PASSWORD", "PEERSOCK_LOG"];
        assert!(names.contains(variable), "{variable} is not tested here");
    }
    for wanted in ["PEERSOCK_ROOTS", "first line", "--advertise", "--stream", "--drain", "SIGTERM"] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
}

#[test]
fn the_unit_is_one_that_systemd_understands_and_its_command_lines_run_a_root() {
    let text = fs::read_to_string(repository("packaging/peersock-root.service")).expect("the unit");
    let unit = Unit::parse(&text);
    let start = unit.only("Service", "ExecStart");
    let words: Vec<&str> = start.split_whitespace().collect();
    assert_eq!(words[..2], [INSTALLED, "root"]);
    assert_eq!(words.last(), Some(&"$PEERSOCK_ROOT_OPTIONS"), "{start}");
    let fixed = &words[2..words.len() - 1];

    // systemd creates the state's folder.
    let variables: BTreeMap<&str, &str> =
        unit.all("Service", "Environment").filter_map(|setting| setting.split_once('=')).collect();
    let folder = unit.only("Service", "StateDirectory");
    assert_eq!(variables["PEERSOCK_STATE"], format!("/var/lib/{folder}"));
    assert!(unit.only("Service", "AmbientCapabilities").contains("CAP_NET_BIND_SERVICE"));
    // The unit's timeout exceeds the root's drain time.
    let drain = "[default: 10]";
    assert!(help("root").contains(drain), "the drain of a root is not {drain}");
    assert!(unit.only("Service", "TimeoutStopSec").parse::<u32>().expect("seconds") > 2 * 10);
    // `systemctl reload` makes the root reread the certificate, by SIGHUP.
    assert_eq!(unit.only("Service", "ExecReload"), "/bin/kill -HUP $MAINPID");

    let dir = tempfile::tempdir().expect("a folder");
    if find_in_path("systemd-analyze").is_some() {
        let copy = dir.path().join("peersock-root.service");
        // The program need not be installed here.
        fs::write(&copy, text.replace(INSTALLED, env!("CARGO_BIN_EXE_peersock"))).expect("a folder");
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&copy);
        let verified = run(verify).success();
        assert!(verified.stderr.is_empty(), "{}", verified.stderr);
    } else {
        eprintln!("SKIP: systemd-analyze, which checks units, is not installed");
    }

    let options = unit.examples("PEERSOCK_ROOT_OPTIONS");
    assert_eq!(options.len(), 2, "{options:?}");
    let Some(nats) = Nats::build("root-unit", MACHINES) else { return };
    for options in options.iter().map(String::as_str).chain([""]) {
        let setup = Setup::new(&nats);
        // systemd puts credentials there.
        let options = options.replace("%d", setup.folder().to_str().expect("UTF-8"));
        assert!(!options.contains(['$', '%']), "systemd expands no variable in a value: {options}");
        let words = fixed.iter().copied().chain(options.split_whitespace());
        let words: Vec<String> = words.map(str::to_owned).collect();
        setup.serves(&words, &[("PEERSOCK_LOG", variables["PEERSOCK_LOG"])]);
    }
}

#[test]
fn the_container_file_builds_what_is_there_and_its_command_line_runs_a_root() {
    let text = fs::read_to_string(repository("packaging/Containerfile")).expect("the container file");
    let steps = instructions(&text);
    let of = |name: &str| -> Vec<&str> {
        let of_name = steps.iter().filter(|(instruction, _)| instruction == name);
        of_name.map(|(_, rest)| rest.as_str()).collect()
    };
    // The image is built from the source folder, except ignored files.
    assert!(of("COPY").contains(&". ."));
    let left_out = fs::read_to_string(repository("packaging/Containerfile.dockerignore")).expect("a list");
    let left_out: Vec<&str> = left_out.lines().filter(|line| !line.starts_with('#')).collect();
    let needs = ["Cargo.toml", "Cargo.lock", "cli/Cargo.toml", "cli/src/main.rs", "root/src/lib.rs"];
    for needed in needs {
        assert!(repository(needed).is_file(), "{needed}");
        assert!(!left_out.iter().any(|path| needed.starts_with(path)), "{needed} is left out");
    }
    let builds = of("RUN");
    let build = builds.iter().find(|line| line.starts_with("cargo build ")).expect("it is built");
    let package = build.split_once("--package ").expect("one package").1;
    let manifest = fs::read_to_string(repository("cli/Cargo.toml")).expect("a manifest");
    assert!(manifest.contains(&format!("name = \"{package}\"")), "{package}");
    assert!(manifest.contains("[[bin]]\nname = \"peersock\""));
    let built = format!("{}/target/release/peersock", of("WORKDIR")[0]);
    assert!(of("COPY").contains(&format!("--from=build {built} {INSTALLED}").as_str()), "{text}");
    // A directory over TLS needs the system's certificates, which a slim image lacks.
    assert!(builds.last().is_some_and(|line| line.contains("ca-certificates")), "{builds:?}");
    assert_eq!(of("EXPOSE"), ["7420/udp 7421/udp 443/tcp"]);

    let entry: Vec<String> = serde_json::from_str(of("ENTRYPOINT")[0]).expect("a list");
    assert_eq!(entry, [INSTALLED, "root"]);
    let variables: Vec<(&str, &str)> =
        of("ENV")[0].split_whitespace().map(|pair| pair.split_once('=').expect("NAME=VALUE")).collect();
    let state = variables.iter().find(|(name, _)| *name == "PEERSOCK_STATE").expect("its state").1;
    assert_eq!(of("VOLUME"), [state]);
    // The words that its comment says to add.
    let comment = text.lines().find_map(|line| line.split_once(" peersock-root --")).expect("an example").1;
    let Some(nats) = Nats::build("root-container", MACHINES) else { return };
    for words in [vec![], format!("--{comment}").split_whitespace().map(str::to_owned).collect()] {
        Setup::new(&nats).serves(&words, &variables);
    }
}

/// A folder with the files that examples name, on the root's machine.
struct Setup<'a> {
    nats: &'a Nats,
    lab: Lab,
}

impl<'a> Setup<'a> {
    fn new(nats: &'a Nats) -> Self {
        let setup = Self { nats, lab: Lab::new() };
        for (name, text) in [
            ("fullchain.pem", CERTIFICATE),
            ("privkey.pem", KEY),
            ("token", "open sesame\n"),
            ("password", "hush\n"),
        ] {
            write_file(&setup.folder().join(name), text, 0o600);
        }
        setup
    }

    fn folder(&self) -> &Path {
        self.lab.dir.path()
    }

    /// Runs a root, makes a node register there, and ends both.
    fn serves(&self, words: &[String], variables: &[(&str, &str)]) {
        let what = words.join(" ");
        let mut command = peersock(&["root"]);
        command.args(words).current_dir(self.folder()).envs(variables.iter().copied());
        // This state has no identity of a root yet.
        command.env("PEERSOCK_STATE", self.lab.state("root"));
        if let Some(at) = words.iter().position(|word| word == "--controller") {
            make_network(&self.lab.state("root"), &words[at + 1]);
        }
        let root = start(self.nats, "root", command);
        let text = first_line(&root);
        for named in words.iter().filter(|word| word.contains(NAME)) {
            assert!(text.contains(named.as_str()), "{named} is not in {text}");
        }
        if let Some(at) = words.iter().position(|word| word == "--metrics") {
            let health = self.nats.within("root", || http(&words[at + 1], "/health"));
            assert!(health.ends_with("ok\n"), "{what}: {health}");
        }
        if let Some(at) = words.iter().position(|word| word == "--directory") {
            let place = words[at + 1].strip_prefix("redis://").expect("a URL");
            root.wait_for_stderr(&format!("sharing the directory at {place}"));
        }
        // Replaces the nameserver.
        let mut roots = text.replace(NAME, &self.nats.ip4("root").to_string());
        if words.iter().any(|word| word == "--access-token-file") {
            roots += "?token=open%20sesame";
        }
        if let Some(at) = words.iter().position(|word| word == "--new-token") {
            let token = fs::read_to_string(self.folder().join(&words[at + 1])).expect("it was made");
            roots += &format!("?token={}", token.trim());
        }
        // A root on loopback is reached only from its own machine.
        let node = if text.contains("@127.0.0.1:") { "root" } else { "node" };
        let mut listening =
            self.lab.command("node", &["listen", "0", "--no-portmap", "--network", &self.lab.network]);
        listening.env("PEERSOCK_ROOTS", &roots);
        let listening = start(self.nats, node, listening);
        listening.wait_for_target();
        eprintln!("root {what}: {roots}");
        wait_for_status(&self.lab, "node", |now| now["roots"][0]["state"] == "registered");
        listening.interrupt();
        // The last node has left.
        signal(Signal::TERM, root.id());
        root.finish().success();
    }
}

/// Makes a managed network whose controller is on the machine with this state.
fn make_network(state: &Path, name: &str) {
    let mut command = peersock(&["network", "create", name]);
    command.env("PEERSOCK_STATE", state).env("PEERSOCK_INTERFACE", "lo");
    run(command).success();
}

/// Returns the line that a root prints for PEERSOCK_ROOTS.
fn first_line(root: &Running) -> String {
    let said = root.wait_for_stdout("\n");
    let line = said.lines().next().expect("a line");
    line.parse::<RootAddress>().unwrap_or_else(|error| panic!("{line}: {error}"));
    line.to_owned()
}

fn help(command: &str) -> String {
    run(peersock(&[command, "--help"])).success().text().to_owned()
}

/// Returns the words after `peersock root` in the examples of its help.
fn examples() -> Vec<Vec<String>> {
    let text = help("root");
    let (_, examples) = text.split_once("Examples:\n").expect("examples");
    // Joins lines that a backslash continues, as in the shell.
    let examples = examples.replace("\\\n", "");
    let words = |line: &str| -> Vec<String> {
        let rest = line.trim().strip_prefix("peersock root").unwrap_or_else(|| panic!("{line}"));
        rest.split_whitespace().map(str::to_owned).collect()
    };
    examples.lines().filter(|line| !line.trim().is_empty()).map(words).collect()
}

/// Returns the options of a help, each with the form of its value: `VALUE`, `[=VALUE]` or nothing.
fn options(help: &str) -> Vec<(String, String)> {
    // Descriptions are indented further.
    let is_option = |line: &&str| line.trim_start().starts_with('-') && matches!(indent(line), 2 | 6);
    let lines = help.lines().filter(is_option);
    lines
        .filter_map(|line| {
            let (_, rest) = line.split_once("--")?;
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            let form = rest.split("  ").next().unwrap_or_default().trim().replace(['<', '>'], "");
            Some((format!("--{name}"), form.trim_end_matches("...").to_owned()))
        })
        .collect()
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The settings of a unit file, in order.
struct Unit {
    settings: Vec<(String, String, String)>,
    comments: Vec<String>,
}

impl Unit {
    fn parse(text: &str) -> Self {
        let mut unit = Self { settings: Vec::new(), comments: Vec::new() };
        let mut section = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix('#') {
                unit.comments.push(comment.trim().to_owned());
            } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else {
                let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line} is no setting"));
                assert!(!section.is_empty() && !line.ends_with('\\'), "{line}");
                unit.settings.push((section.clone(), name.to_owned(), value.to_owned()));
            }
        }
        unit
    }

    fn all(&self, section: &str, name: &str) -> impl Iterator<Item = &str> {
        let of_name = self.settings.iter().filter(move |(of, known, _)| of == section && known == name);
        of_name.map(|(.., value)| value.as_str())
    }

    fn only(&self, section: &str, name: &str) -> &str {
        let all: Vec<_> = self.all(section, name).collect();
        let [one] = all[..] else { panic!("{name} is there {} times", all.len()) };
        one
    }

    /// Returns the values of a variable that comments suggest.
    fn examples(&self, variable: &str) -> Vec<String> {
        let value = |line: &String| {
            let (_, value) = line.split_once(&format!("{variable}="))?;
            // In `Environment=` the whole setting is in quotation marks.
            Some(value.trim_end_matches('"').to_owned())
        };
        self.comments.iter().filter_map(value).collect()
    }
}

/// Returns the instructions of a container file with their arguments, each on one line.
fn instructions(text: &str) -> Vec<(String, String)> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim().is_empty());
    let parts = lines.map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{line}")));
    parts
        .map(|(name, rest)| (name.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}
