//! A program observes overlay sockets and kernel sockets to behave alike, except for known differences.

use std::collections::BTreeSet;
use std::process::Command;

use crate::common::run;
use crate::lab::Lab;

/// Lines that differ from the kernel, each below the reason; a mode in brackets limits a line to that mode.
const KNOWN: &str = include_str!("observations.txt");

#[test]
fn overlay_sockets_are_observed_as_the_kernels_are() {
    compare("overlay_sockets_are_observed_as_the_kernels_are", "preload");
}

#[test]
fn they_are_observed_so_by_programs_that_no_library_reaches() {
    compare("they_are_observed_so_by_programs_that_no_library_reaches", "seccomp");
}

/// Runs the program of observations on kernel sockets, and in this mode on overlay sockets.
fn compare(test: &str, mode: &str) {
    let Some(lab) = Lab::with(test, &["cc"]) else { return };
    let program = lab.path("observations");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-value", "-pthread", "-o"]).arg(&program);
    cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/observations.c"));
    run(cc).success();
    let known = known(mode);
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
            if !known.contains(got) {
                unknown += &format!("{overlays}:\n# {wanted}\n{got}\n");
            }
            seen.insert(got.to_owned());
        }
    }
    assert!(unknown.is_empty(), "the kernel's, and the overlay's:\n{unknown}");
    let gone: Vec<&str> = known.into_iter().filter(|known| !seen.contains(*known)).collect();
    assert!(gone.is_empty(), "these do not differ any more: take them out\n{gone:#?}");
}

/// Returns the lines that are known to differ in a mode.
fn known(mode: &str) -> BTreeSet<&'static str> {
    let lines = KNOWN.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let of_mode = lines.filter_map(|line| match line.strip_prefix('[') {
        Some(line) => line.split_once("] ").filter(|(of, _)| *of == mode).map(|(_, line)| line),
        None => Some(line),
    });
    of_mode.collect()
}

/// Returns the observed property, without its value.
fn what(line: &str) -> &str {
    line.split(" = ").next().unwrap_or(line)
}
