//! Programs built in unusual ways: with calls by number, with minimal stacks, with AddressSanitizer.

use std::path::PathBuf;
use std::process::Command;

use crate::common::run;
use crate::lab::{ECHO, Lab};

#[test]
fn calls_that_are_made_by_their_numbers_are_taken_too() {
    let test = "calls_that_are_made_by_their_numbers_are_taken_too";
    let Some(lab) = Lab::with(test, &["cc", "socat", "python3"]) else { return };
    let by_number =
        ["-Wno-unused-value", "-include", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/by_number.h")];
    let [calls, many, starts] = ["calls", "many", "starts"].map(|name| compile(&lab, name, &by_number));
    let servers = format!("socat TCP-LISTEN:7001,fork,reuseaddr SYSTEM:'echo hello' & {ECHO}");
    let _servers = lab.start("alpha", &["sh", "-c", &servers]);
    let got = lab.bash("beta", &format!("up 7000; {calls} 10.77.0.1 7000 7999"));
    assert_eq!(got.text(), "all well\n");
    let got = lab.bash("beta", &format!("up 7001; {starts} execve 10.77.0.1 7001"));
    assert_eq!(got.text(), "hello, 3 variables, others: none\n");
    let serving = lab.start("gamma", &[&many, "serve", "10.77.0.3", "7000"]);
    serving.wait_for_stdout("serving");
    let got = run(lab.command("beta", &[], &[&many, "ask", "10.77.0.3", "7000", "7999"])).success();
    assert_eq!(got.text(), "all well\n");
}

#[test]
fn a_thread_with_the_smallest_stack_can_make_each_kind_of_call() {
    let test = "a_thread_with_the_smallest_stack_can_make_each_kind_of_call";
    let Some(lab) = Lab::with(test, &["cc", "socat", "python3"]) else { return };
    let program = compile(&lab, "stacks", &[]);
    let _echo = lab.start("alpha", &["sh", "-c", ECHO]);
    let got = lab.bash("beta", &format!("up 7000; {program} 10.77.0.1 7000"));
    assert_eq!(got.text(), "connecting listening datagrams names interfaces starting all well\n");
}

#[test]
fn programs_with_a_sanitizer_that_has_to_be_loaded_first_are_on_the_overlay() {
    let test = "programs_with_a_sanitizer_that_has_to_be_loaded_first_are_on_the_overlay";
    let Some(lab) = Lab::with(test, &["cc", "socat", "python3"]) else { return };
    let Some(sanitizer) = sanitizer() else {
        eprintln!("SKIP {test}: the C compiler has no libasan.so");
        return;
    };
    let program = compile(&lab, "calls", &["-fsanitize=address", "-g", "-DBY_KERNEL=1"]);
    let _echo = lab.start("alpha", &["sh", "-c", ECHO]);
    lab.bash("beta", "up 7000");
    // Leaks of the programs themselves are not tested here.
    let command = |options: &[&str], program: &[&str]| {
        let mut command = lab.command("beta", options, program);
        command.env("ASAN_OPTIONS", "detect_leaks=0");
        command
    };
    let asked = [program.as_str(), "10.77.0.1", "7000", "7999"];
    for options in [&[][..], &["--only"], &["--mode", "seccomp"]] {
        let got = run(command(options, &asked)).success();
        assert_eq!(got.text(), "all well\n", "{options:?}: {}", got.stderr);
    }
    run(command(&["--mode", "preload"], &asked)).failure(1, &["AddressSanitizer"]);
    // Tests programs started by a program with the library, and libraries that the user loads.
    let words = asked.join(" ");
    let spawn = format!("import subprocess; subprocess.run({words:?}.split(), check=True)");
    for starter in [["sh", "-e", "-c", &format!("{words}; true")], ["python3", "-E", "-c", &spawn]] {
        let got = run(command(&[], &starter)).success();
        assert_eq!(got.text(), "all well\n", "{starter:?}: {}", got.stderr);
    }
    let plain = compile(&lab, "many", &[]);
    let serving = lab.start("gamma", &[&plain, "serve", "10.77.0.3", "7000"]);
    serving.wait_for_stdout("serving");
    for (program, asked) in [
        (&program, ["10.77.0.1", "7000", "7999"].as_slice()),
        (&plain, &["ask", "10.77.0.3", "7000", "7999"]),
    ] {
        let mut command = command(&[], &[&[program.as_str()], asked].concat());
        command.env("LD_PRELOAD", &sanitizer);
        let got = run(command).success();
        assert_eq!(got.text(), "all well\n", "{program}: {}", got.stderr);
    }
}

/// Returns GCC's library of AddressSanitizer; `None` if there is none.
fn sanitizer() -> Option<PathBuf> {
    let found = Command::new("cc").arg("-print-file-name=libasan.so").output().ok()?;
    let path = PathBuf::from(String::from_utf8(found.stdout).ok()?.trim());
    // The compiler returns the name unchanged if it does not know the library.
    path.is_absolute().then_some(path)
}

/// Compiles a program next to this file with further `flags`, and returns its path.
pub(crate) fn compile(lab: &Lab, name: &str, flags: &[&str]) -> String {
    let program = lab.path(&format!("{name}-{}", flags.len()));
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Werror", "-pthread", "-o"]).arg(&program).args(flags);
    cc.arg(format!("{}/tests/run/{name}.c", env!("CARGO_MANIFEST_DIR")));
    run(cc).success();
    program.to_str().expect("a path").to_owned()
}
