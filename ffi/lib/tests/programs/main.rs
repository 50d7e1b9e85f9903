//! Programs in C and C++ that use the library: built from the header, run as they are, with the address and
//! undefined-behaviour sanitizers, and at night in Valgrind.
#![expect(clippy::print_stdout, reason = "what cannot run says so in its output")]

mod build;
mod delivery;
mod libzt_header;
mod managed;
mod observed;
mod restarted;
mod router;
mod run;
mod shared;
mod starter;
mod versions;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use build::{Mode, Program};

/// Defines a test for each way to run a program.
macro_rules! programs {
    ($($name:ident: $program:expr;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn plain() {
                run::check($program, Mode::Plain);
            }

            #[test]
            fn with_sanitizers() {
                run::check($program, Mode::Sanitizers);
            }

            #[test]
            #[ignore = "cargo xtask test --only slow: in Valgrind a program takes up to thirty times as long"]
            fn in_valgrind() {
                run::check($program, Mode::Valgrind);
            }
        }
    )* };
}

programs! {
    echo: Program::new("echo.c");
    nonblocking: Program::new("nonblocking.c");
    epoll_with_many_connections: Program::new("epoll.c");
    datagrams: Program::new("datagram.c");
    sockets_in_one_call: Program::new("dial.c").with_folder();
    options: Program::new("options.c");
    events: Program::new("events.c");
    misuse: Program::new("errors.c");
    node: Program::new("node.c").with_folder();
    open: Program::new("open.c").with_folder();
    names: Program::new("names.c").with_folder();
    netcheck: Program::new("netcheck.c").with_launcher();
    forked_children: Program::new("fork.c");
    exit: Program::new("exit.c");
    programs_that_are_started: Program::new("exec.c");
    loss: Program::new("loss.c");
    many_threads: Program::new("threads.c");
    threads_that_join_and_leave: Program::new("joins.c");
    a_secret_that_who_has_started_it_lacks: Program::new("outer.c");
    waits_to_write: Program::new("blocked.c");
    one_identity_at_two_places: Program::new("twins.c");
    keepalive: Program::new("keepalive.c");
    openssl: Program::new("tls.c").library("openssl");
    in_the_manner_of_libzt: Program::new("libzt.c");
    libevent: Program::new("libevent.cpp").library("libevent");
}

#[test]
fn a_program_of_fifteen_lines_reaches_the_overlay() {
    let source = include_str!("../c/hello.c");
    assert!(source.lines().count() <= 15);
    assert!(include_str!("../../../../docs/use/C.md").contains(source), "the page has this program");
    let Some(greeter) = Program::new("greeter.c").build(Mode::Plain) else { return };
    let Some(hello) = Program::new("hello.c").and("loopback.c").build(Mode::Plain) else { return };
    let port = run::port().to_string();
    let mut server = Command::new(&greeter.path)
        .env("PEERSOCK_TEST_PORT", &port)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program was just built");
    let mut address = String::new();
    let stdout = server.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut address).expect("it prints its address");
    let mut client = Command::new(&hello.path);
    client.env("PEERSOCK_TEST_PORT", &port).arg(address.trim());
    let output = client.output().expect("the program was just built");
    server.stdin.take().expect("it is piped").write_all(b"\n").expect("it reads");
    assert!(server.wait().expect("it ends").success());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"hello\n");
}

#[test]
fn the_header_is_accepted_by_strict_compilers_of_c99_to_cpp20() {
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/include");
    for (compiler, language, standards) in [
        ("cc", "c", &["c99", "c11", "c17", "gnu99"][..]),
        ("c++", "c++", &["c++11", "c++14", "c++17", "c++20"]),
    ] {
        if !build::works(Command::new(compiler).arg("--version")) {
            println!("SKIP {compiler}: it is not installed");
            continue;
        }
        for standard in standards {
            let folder = tempfile::tempdir().expect("a directory");
            let source = folder.path().join("only");
            // Twice, and before other headers, because it needs no other header.
            std::fs::write(&source, "#include <peersock.h>\n#include <peersock.h>\nint unused;\n")
                .expect("room");
            // Also without POSIX declarations requested.
            for posix in ["-UPOSIX", "-D_POSIX_C_SOURCE=200809L"] {
                let mut command = Command::new(compiler);
                command.args(["-Wall", "-Wextra", "-Werror", "-pedantic-errors", "-fsyntax-only"]);
                command.args(["-x", language, &format!("-std={standard}"), posix, "-I", header]).arg(&source);
                let output = command.output().expect("it was just run");
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{standard} {posix}: {said}");
            }
        }
    }
}

/// Not in Valgrind: the program measures a promised time.
#[test]
fn a_path_that_carries_too_little_is_told_within_fifteen_seconds() {
    run::check(Program::new("narrow.c").alone(), Mode::Plain);
}

#[test]
fn it_is_told_within_fifteen_seconds_where_datagrams_travel_together() {
    run::check(Program::new("narrow.c").alone().with_argument("together"), Mode::Plain);
}

/// Not in Valgrind, which ends a process differently.
#[test]
fn what_is_left_at_the_end_of_main_is_delivered_or_told() {
    run::check(Program::new("last.c"), Mode::Plain);
}

/// Not in Valgrind, which does not follow a program's children.
#[test]
fn events_and_the_status_say_when_a_root_relays() {
    run::check(Program::new("paths.c").alone().with_launcher(), Mode::Plain);
}

#[test]
fn the_static_library_is_enough() {
    run::check(Program::new("echo.c").linked_statically(), Mode::Plain);
}
