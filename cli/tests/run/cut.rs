//! Calls that a signal or another thread cuts in two, and calls at the limits of a process, compared with the
//! kernel's.

use std::process::Command;

use crate::builds::compile;
use crate::common::run;
use crate::lab::{ALPHA, Lab};

const MODES: [&str; 2] = ["preload", "seccomp"];

/// Returns a lab with the program of these tests, and its path.
fn with_program(test: &str) -> Option<(Lab, String)> {
    let lab = Lab::with(test, &["cc"])?;
    let program = compile(&lab, "cut", &["-pthread"]);
    Some((lab, program))
}

/// Runs one part of the program with an own listener: on the kernel's sockets, and in both modes.
#[track_caller]
fn alone(test: &str, part: &str) {
    let Some((lab, program)) = with_program(test) else { return };
    let mut kernels = Command::new(&program);
    kernels.args([part, "127.0.0.1", "0"]);
    assert_eq!(run(kernels).success().text(), "all well\n");
    for mode in MODES {
        let program = [program.as_str(), part, "10.77.0.2", "0"];
        let got = run(lab.command("beta", &["--mode", mode], &program)).success();
        assert_eq!(got.text(), "all well\n", "{mode}");
    }
}

/// Runs one part of the program with a server on another node, in both modes.
#[track_caller]
fn with_server(test: &str, part: &str) {
    let Some((lab, program)) = with_program(test) else { return };
    let server = lab.start("alpha", &[program.as_str(), "serve", ALPHA, "7000"]);
    server.wait_for_stdout("serving");
    for mode in MODES {
        let program = [program.as_str(), part, ALPHA, "7000"];
        let got = run(lab.command("beta", &["--mode", mode], &program)).success();
        assert_eq!(got.text(), "all well\n", "{mode}");
    }
}

#[test]
fn what_is_sent_after_an_interrupted_connect_arrives_as_it_was_sent() {
    with_server("what_is_sent_after_an_interrupted_connect_arrives_as_it_was_sent", "signals");
}

#[test]
fn what_another_thread_writes_beside_a_connect_arrives_whole_or_fails() {
    with_server("what_another_thread_writes_beside_a_connect_arrives_whole_or_fails", "writer");
}

#[test]
fn what_was_taken_before_another_thread_has_ended_both_directions_arrives() {
    alone("what_was_taken_before_another_thread_has_ended_both_directions_arrives", "full");
}

#[test]
fn a_connection_that_is_reset_at_once_was_established() {
    alone("a_connection_that_is_reset_at_once_was_established", "resets");
}

#[test]
fn a_program_without_a_free_descriptor_goes_on_with_its_sockets() {
    alone("a_program_without_a_free_descriptor_goes_on_with_its_sockets", "crowded");
}
