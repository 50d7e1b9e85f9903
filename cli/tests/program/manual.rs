//! Manual pages and completions.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::common::{peersock, run, write_file};

/// Returns the commands that `peersock --help` lists.
fn commands() -> Vec<String> {
    let help = run(peersock(&["--help"])).success();
    let (_, list) = help.text().split_once("Commands:\n").unwrap();
    let lines = list.lines().take_while(|line| line.starts_with("  "));
    let names =
        lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_page_that_is_well_formed() {
    let dir = tempfile::tempdir().unwrap();
    run(peersock(&["man", "--out", dir.path().to_str().unwrap()])).success();
    let pages = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<_> = pages.collect();
    let commands = commands();
    assert!(commands.len() > 8, "{commands:?}");
    for command in &commands {
        assert!(
            pages.iter().any(|page| page.ends_with(format!("peersock-{command}.1"))),
            "{command}: {pages:?}"
        );
    }
    assert!(pages.iter().any(|page| page.ends_with("peersock.1")), "{pages:?}");
    assert!(!pages.iter().any(|page| page.to_str().unwrap().contains("demo-serve")), "{pages:?}");
    let page = fs::read_to_string(dir.path().join("peersock-network-add.1")).unwrap();
    assert!(page.starts_with(".TH \"PEERSOCK-NETWORK-ADD\" \"1\""), "{page}");
    // Commands must not be filled like prose, because then they cannot be copied.
    assert!(page.contains("\nExamples:\n.nf\n  peersock network add office.toml KEY"), "{page}");
    let mut mandoc = Command::new("mandoc");
    mandoc.args(["-T", "lint", "-W", "error"]).args(&pages);
    match mandoc.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => eprintln!("SKIP every_command_has_a_page_that_is_well_formed: mandoc is not installed"),
    }
}

#[test]
fn completions_are_scripts_of_their_shells() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(peersock(&["completions", shell])).success();
        assert!(script.text().contains("peersock") && script.text().contains("listen"), "{shell}");
    }
    run(peersock(&["completions", "nosuch"])).failure(2, &["possible values"]);
}

#[test]
fn completions_are_read_by_bash() {
    is_read_by("bash", "completions_are_read_by_bash");
}

#[test]
fn completions_are_read_by_zsh() {
    is_read_by("zsh", "completions_are_read_by_zsh");
}

#[test]
fn completions_are_read_by_fish() {
    is_read_by("fish", "completions_are_read_by_fish");
}

fn is_read_by(shell: &str, test: &str) {
    let script = run(peersock(&["completions", shell])).success();
    let found = Command::new(shell).arg("-c").arg("true").stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        eprintln!("SKIP {test}: {shell} is not installed");
        return;
    }
    let mut parse = Command::new(shell);
    let mut parse = parse.arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    parse.stdin.take().unwrap().write_all(&script.stdout).unwrap();
    assert!(parse.wait().unwrap().success(), "{shell}");
}

#[test]
fn bash_completes_commands_and_options() {
    let test = "bash_completes_commands_and_options";
    if !Command::new("bash").args(["-c", "complete -p || true"]).output().is_ok_and(|o| o.status.success()) {
        eprintln!("SKIP {test}: bash is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = run(peersock(&["completions", "bash"])).success();
    write_file(&dir.path().join("peersock"), script.text(), 0o644);
    let complete = |words: &str| {
        let mut bash = Command::new("bash");
        bash.current_dir(dir.path()).args(["--norc", "-c"]).arg(format!(
            "source ./peersock; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _peersock_with_files peersock \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\""
        ));
        run(bash).success().text().trim().to_owned()
    };
    assert_eq!(complete("peersock li"), "listen");
    assert_eq!(complete("peersock run --on"), "--only");
    assert_eq!(complete("peersock completions fi"), "fish");
    // Commands that `peersock --help` does not list are for internal use and are not completed.
    assert_eq!(complete("peersock run"), "run");
    assert_eq!(complete("peersock dem"), "demo");
    assert_eq!(complete("peersock help run"), "run");
    assert_eq!(complete("peersock ma"), "man");
    // Programs, their arguments, and files as arguments are completed.
    assert!(complete("peersock run bas").split_whitespace().any(|word| word == "bash"));
    assert!(
        complete("peersock -v run -n ff0001ffff000000 --only bas")
            .split_whitespace()
            .any(|word| word == "bash")
    );
    assert!(complete("peersock run --quiet -- bas").split_whitespace().any(|word| word == "bash"));
    assert_eq!(complete("peersock run -n ff0001ffff000000 cat ./pee"), "./peersock");
    assert_eq!(complete("peersock run --state ./pee"), "./peersock");
    assert_eq!(complete("peersock network show ./pee"), "./peersock");
    assert_eq!(complete("peersock network show --js"), "--json");
}
