//! One pass of the Python package without a wheel: its sources beside the module that was just built.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::command::{check as check_command, run, works};
use super::outcome::Outcome;
use super::workspace::{self, Workspace};
use crate::{Result, root};

/// Runs `bindings/python/tests/one_pass.py`.
/// Fails if a file cannot be linked.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let mut python = Command::new("python3");
    python.args(["-c", "import sys; sys.exit(sys.version_info < (3, 10))"]);
    if !works(python) {
        return Ok(Outcome::skipped("python-pass", "no Python from 3.10 on (python3)"));
    }
    if !run(workspace::build())?.0 {
        return Ok(Outcome::failed("python-pass: the module does not build"));
    }
    let folder = workspace.target.join("python/pass");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("peersock"))?;
    let sources = root().join("bindings/python");
    for entry in fs::read_dir(sources.join("peersock"))? {
        let entry = entry?;
        symlink(entry.path(), folder.join("peersock").join(entry.file_name()))?;
    }
    symlink(workspace.target.join("debug/lib_peersock.so"), folder.join("peersock/_peersock.abi3.so"))?;
    symlink(sources.join("tests"), folder.join("tests"))?;
    let mut tests = Command::new("python3");
    tests.args(["-m", "unittest", "-v", "tests.one_pass"]).current_dir(folder);
    tests.env("PYTHONDONTWRITEBYTECODE", "1");
    check_command("one pass of the Python package", tests)
}
