//! Programs with threads that fork.

use std::process::Command;

use crate::common::run;
use crate::lab::Lab;

#[test]
fn a_child_does_not_wait_for_threads_that_it_does_not_have() {
    let test = "a_child_does_not_wait_for_threads_that_it_does_not_have";
    let Some(lab) = Lab::with(test, &["cc"]) else { return };
    let program = lab.path("forks");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Werror", "-pthread", "-o"]).arg(&program);
    cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/forks.c"));
    run(cc).success();
    assert_eq!(lab.bash("beta", "./forks").text(), "all children have ended\n");
}
