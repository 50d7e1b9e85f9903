//! A program observes overlay sockets and kernel sockets to behave alike, except for known differences.

use std::collections::BTreeSet;
use std::process::Command;

use crate::common::run;
use crate::lab::Lab;

/// A program of observations with its lines that differ from the kernel's, each below the reason. A mode in
/// brackets limits a line to that mode, and `[some]` is before a line that differs from some kernels only.
struct Observed {
    program: &'static str,
    known: &'static str,
    /// Returns true for a line that another test compares.
    is_elsewhere: fn(&str) -> bool,
}

const CALLS: Observed =
    Observed { program: "observations", known: include_str!("observations.txt"), is_elsewhere: |_| false };

/// The test of options compares refusals.
const FLAGS: Observed = Observed {
    program: "flags",
    known: include_str!("flags.txt"),
    is_elsewhere: |line| line.contains(" option ") && line.ends_with(" = refused"),
};

#[test]
fn overlay_sockets_are_observed_as_the_kernels_are() {
    compare("overlay_sockets_are_observed_as_the_kernels_are", &CALLS, "preload");
}

#[test]
fn they_are_observed_so_by_programs_that_no_library_reaches() {
    compare("they_are_observed_so_by_programs_that_no_library_reaches", &CALLS, "seccomp");
}

#[test]
#[ignore = "cargo xtask test --only slow: thousands of exchanges take some minutes"]
fn flags_and_control_messages_have_the_kernels_effects() {
    compare("flags_and_control_messages_have_the_kernels_effects", &FLAGS, "preload");
}

#[test]
#[ignore = "cargo xtask test --only slow: thousands of exchanges take some minutes"]
fn flags_and_control_messages_have_them_without_the_library() {
    compare("flags_and_control_messages_have_them_without_the_library", &FLAGS, "seccomp");
}

/// Runs a program of observations on kernel sockets, and in this mode on overlay sockets.
fn compare(test: &str, observed: &Observed, mode: &str) {
    let Some(lab) = Lab::with(test, &["cc"]) else { return };
    let program = lab.path(observed.program);
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-pthread", "-o"]).arg(&program);
    cc.arg(format!("{}/tests/run/{}.c", env!("CARGO_MANIFEST_DIR"), observed.program));
    run(cc).success();
    let known = known(observed.known, mode);
    let mut seen = BTreeSet::new();
    let mut unknown = String::new();
    for (kernels, overlays) in [("::1", "fd77::2"), ("127.0.0.1", "10.77.0.2")] {
        let mut command = Command::new(&program);
        command.arg(kernels);
        let wanted = run(command).success();
        let words = [program.to_str().unwrap(), overlays];
        let got = run(lab.command("beta", &["--mode", mode], &words)).success();
        let (wanted, got): (Vec<&str>, Vec<&str>) =
            (wanted.text().lines().collect(), got.text().lines().collect());
        assert!(wanted.len() > 400, "{} observations", wanted.len());
        if wanted.len() != got.len() {
            let at = wanted.iter().zip(&got).position(|(wanted, got)| what(wanted) != what(got));
            let around = |lines: &[&str]| lines[at.unwrap_or(0).saturating_sub(3)..][..6].join("\n");
            panic!("the program went another way\n{}\nand\n{}", around(&wanted), around(&got));
        }
        for (wanted, got) in wanted.into_iter().zip(got).filter(|(wanted, got)| wanted != got) {
            if !known.contains(got) && !(observed.is_elsewhere)(got) {
                unknown += &format!("{overlays}:\n#     {wanted}\n{got}\n");
            }
            seen.insert(got.to_owned());
        }
    }
    assert!(unknown.is_empty(), "the kernel's, and the overlay's:\n{unknown}");
    let is_in_some = |line: &str| observed.known.contains(&format!("[some] {line}\n"));
    let gone: Vec<&str> =
        known.into_iter().filter(|known| !seen.contains(*known) && !is_in_some(known)).collect();
    assert!(gone.is_empty(), "these do not differ any more: take them out\n{gone:#?}");
}

/// Returns the lines that are known to differ in a mode.
fn known(all: &'static str, mode: &str) -> BTreeSet<&'static str> {
    let lines = all.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let of_mode = lines.filter_map(|line| match line.strip_prefix('[') {
        Some(line) => {
            line.split_once("] ").filter(|(of, _)| [mode, "some"].contains(of)).map(|(_, line)| line)
        }
        None => Some(line),
    });
    of_mode.collect()
}

/// Returns the observed property, without its value.
fn what(line: &str) -> &str {
    line.split(" = ").next().unwrap_or(line)
}
