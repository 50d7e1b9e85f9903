//! A program that observes the library's sockets and the kernel's, and the places where they differ.
//! `peersock run` is observed by the same program.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::{LIBRARIES, works};
use crate::run;

/// Each place that differs, as `known` of the tests of `peersock run` says.
const KNOWN: &str = include_str!("../observations.txt");

/// The observing program and its header.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cli/tests/run");

/// Users once found differences in 45 of 387 places, and wanted half of them at most.
const MOST: (usize, usize) = (45, 2 * 387);

#[test]
fn the_library_s_sockets_are_observed_as_the_kernels_are() {
    if !works(Command::new("cc").arg("--version")) {
        println!("SKIP the_library_s_sockets_are_observed: cc is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let (kernels, librarys) =
        (compile(folder.path(), "observations", false), compile(folder.path(), "observations", true));
    let known: BTreeSet<&str> = known().collect();
    let (mut seen, mut unknown) = (BTreeSet::new(), String::new());
    for (loopback, family) in [("::1", "6"), ("127.0.0.1", "4")] {
        let wanted = output(Command::new(&kernels).arg(loopback));
        let mut command = on_overlay(&librarys, folder.path(), family);
        // Some macros print the names that the header puts in place of the kernel's.
        let got = output(command.arg("ADDRESS")).replace("peersock_", "");
        let (wanted, got): (Vec<&str>, Vec<&str>) = (wanted.lines().collect(), got.lines().collect());
        if wanted.len() != got.len() {
            let what = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
            let other = wanted.iter().zip(&got).find(|(wanted, got)| what(wanted) != what(got));
            panic!("the program went another way: {other:?}");
        }
        let differing: Vec<_> = wanted.iter().zip(&got).filter(|(wanted, got)| wanted != got).collect();
        assert!(
            differing.len() * MOST.1 <= wanted.len() * MOST.0,
            "{} of {} places differ",
            differing.len(),
            wanted.len()
        );
        for (wanted, got) in differing {
            if !known.contains(got) {
                unknown += &format!("{family}:\n#     {wanted}\n{got}\n");
            }
            seen.insert((*got).to_owned());
        }
    }
    assert!(unknown.is_empty(), "the kernel's, and the library's:\n{unknown}");
    let gone: Vec<&&str> = known.iter().filter(|known| !seen.contains(**known)).collect();
    assert!(gone.is_empty(), "these do not differ any more: take them out\n{gone:#?}");
}

/// The same calls are cut in two under `peersock run`.
#[test]
fn what_is_sent_after_a_call_that_was_cut_in_two_arrives_as_it_was_sent() {
    if !works(Command::new("cc").arg("--version")) {
        println!("SKIP what_is_sent_after_a_call_that_was_cut_in_two: cc is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let program = compile(folder.path(), "cut", true);
    for part in ["signals", "writer", "full", "resets"] {
        let said = output(on_overlay(&program, folder.path(), "4").args([part, "ADDRESS", "0"]));
        assert_eq!(said, "all well\n", "{part}");
    }
}

/// Returns a command of a program with the library, with the header's two words.
fn on_overlay(program: &Path, folder: &Path, family: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(family).arg(folder).env("PEERSOCK_TEST_PORT", run::port().to_string());
    command.env("PEERSOCK_OWN_NODE", "1");
    command
}

/// Returns the lines that are known to differ.
fn known() -> impl Iterator<Item = &'static str> {
    KNOWN.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Builds a program with the kernel's calls, or with the library's.
fn compile(folder: &Path, name: &str, by_library: bool) -> PathBuf {
    let program = folder.join(if by_library { "librarys" } else { "kernels" });
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-pthread", "-o"]).arg(&program);
    if by_library {
        let shared = folder.join("libpeersock.so.0");
        symlink(LIBRARIES.join("libpeersock.so"), &shared).expect("a link");
        cc.args(["-include", &format!("{SOURCES}/by_library.h")]);
        cc.args(["-I", concat!(env!("CARGO_MANIFEST_DIR"), "/include")]);
        cc.arg(format!("{SOURCES}/{name}.c"));
        cc.arg(&shared).arg(format!("-Wl,-rpath,{}", folder.display()));
    } else {
        cc.arg(format!("{SOURCES}/{name}.c"));
    }
    output(&mut cc);
    program
}

/// Runs a command, which must succeed, and returns what it prints.
fn output(command: &mut Command) -> String {
    let output = command.output().expect("it is installed");
    let (said, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {said}{complaints}", output.status);
    said.into_owned()
}
