//! Calls that succeed do not change `errno`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::run;
use crate::lab::{ECHO, Lab};

const PROGRAM: &str = include_str!("errno.c");

#[test]
fn calls_that_succeed_leave_errno_as_it_was() {
    let Some(lab) = Lab::with("calls_that_succeed_leave_errno_as_it_was", &["cc", "socat", "python3"]) else {
        return;
    };
    let program = lab.path("errno");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-o"]).arg(&program);
    cc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/errno.c"));
    run(cc).success();
    let _echo = lab.start("alpha", &["sh", "-c", ECHO]);
    let got = lab.bash("beta", "up 7000; ./errno 10.77.0.1 7000 10.77.0.2 alpha");
    assert_eq!(got.text(), "all quiet\n");
    let both = lab.bash_with("beta", &["--bind", "both"], "up 7000; ./errno 10.77.0.1 7000 10.77.0.2 alpha");
    assert_eq!(both.text(), "all quiet\n");
}

#[test]
fn that_test_calls_every_function_that_is_replaced() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ffi/preload/src");
    let files =
        fs::read_dir(sources).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let mut count = 0;
    for file in files {
        let names = file
            .split("#[unsafe(no_mangle)]")
            .skip(1)
            .map(|exported| exported.split_once("fn ").unwrap().1.split('(').next().unwrap());
        // Also includes calls that a macro defines.
        let listed = file.lines().filter_map(|line| line.strip_prefix("with_list!(")?.split(',').next());
        for name in names.filter(|name| *name != "$name").chain(listed) {
            let call = format!("{name}(");
            assert!(
                PROGRAM.lines().any(|line| line.contains("QUIET(") && line.contains(&call)),
                "errno.c does not call {name}"
            );
            count += 1;
        }
    }
    assert!(count > 20, "{count} functions");
}
