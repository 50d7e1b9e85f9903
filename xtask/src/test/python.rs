//! The Python package: built as a wheel, installed into a separate virtual environment, and tested there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use super::command::{run, run_to_end, works};
use super::outcome::Outcome;
use super::workspace::{self, Workspace};
use crate::{Result, root};

/// A package of a few kilobytes, which serves to test if PyPI is reachable.
const SMALL: &str = "iniconfig";

/// Builds, installs and checks the package.
///
/// The wheel is the one that users get: [`super::ahead`] builds its content while other tests wait. The
/// development profile would recompile half of all crates, because cargo chooses other features for one
/// package than for all.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let folder = folder();
    let python = match interpreter()? {
        Ok(python) => python,
        Err(reason) => return Ok(Outcome::skipped("python", reason)),
    };
    let wheels = folder.join("wheels");
    // An earlier wheel of another version would be installed as well.
    let _ = fs::remove_dir_all(&wheels);
    let mut build = module(&python, "maturin");
    build.args(["build", "--release", "--locked", "--out"]).arg(&wheels);
    let mut total = named("the wheel", run(build)?.0);
    let wheel =
        fs::read_dir(&wheels).ok().and_then(|mut listed| listed.next()?.ok()).map(|entry| entry.path());
    let Some(wheel) = wheel else { return Ok(total) };
    let mut install = module(&python, "pip");
    install.args(["install", "--quiet", "--no-deps", "--force-reinstall"]).arg(wheel);
    total.add(named("installing the wheel", run(install)?.0));
    for (name, arguments) in
        [("ruff", &["check", "."][..]), ("ruff", &["format", "--check", "."]), ("mypy", &[])]
    {
        let mut lint = module(&python, name);
        lint.args(arguments);
        total.add(named(name, run(lint)?.0));
    }
    let mut stubs = tests(&python, &folder)?;
    stubs.args(["-m", "mypy.stubtest", "peersock", "--allowlist", "tests/stubtest-allowlist.txt"]);
    total.add(named("what its stubs say", run(stubs)?.0));
    total.add(pytest(&python, &folder, workspace)?);
    let mut has_tests = Command::new(&python);
    has_tests.args(["-c", "import test.test_socket, test.test_asyncio"]);
    if !works(has_tests) {
        let reason = "this Python comes without its own tests (libpython3.N-testsuite)";
        total.add(Outcome::skipped("CPython's own tests", reason));
        return Ok(total);
    }
    let mut cpython = tests(&python, &folder)?;
    cpython.args(["-m", "tests.cpython"]);
    total.add(Outcome::from_last_line("CPython's own tests", &run(cpython)?.1)?);
    Ok(total)
}

fn folder() -> PathBuf {
    root().join("target/python")
}

/// Returns a Python with the tools that build and check the package, or the reason if there is none.
/// Fails if the tools are available but cannot be installed.
pub(super) fn interpreter() -> Result<std::result::Result<PathBuf, String>> {
    let mut venv = Command::new("python3");
    venv.args(["-c", "import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 10))"]);
    if !works(venv) {
        return Ok(Err("no Python from 3.10 on with venv (python3, python3-venv)".to_owned()));
    }
    environment(&folder(), &[])
}

/// Returns the environment's Python, or the reason if it cannot be made, for instance without a network.
/// `options` are further options of pip.
fn environment(folder: &Path, options: &[&str]) -> Result<std::result::Result<PathBuf, String>> {
    let python = folder.join("venv/bin/python");
    let requirements = root().join("bindings/python/requirements-test.txt");
    let installed = folder.join("installed.txt");
    let mut wanted = fs::read(&requirements)?;
    wanted.extend(fs::read(root().join("bindings/python/requirements-libraries.txt"))?);
    if python.exists() && fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(Ok(python));
    }
    let _ = fs::remove_dir_all(folder.join("venv"));
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(folder.join("venv"));
    if !run(make)?.0 {
        return Ok(Err("a virtual environment cannot be made (python3-venv)".to_owned()));
    }
    let mut install = module(&python, "pip");
    install.args(["install", "--quiet", "-r"]).arg(&requirements).args(options);
    if !run(install)?.0 {
        // An unreachable index says nothing about the package. A reachable index must have the tools.
        let mut reach = module(&python, "pip");
        reach.args(["download", "--no-cache-dir", "--no-deps", "--retries", "0", "--dest"]);
        reach.arg(folder.join("reached")).arg(SMALL).args(options);
        if !works(reach) {
            return Ok(Err("its tools are not installed, and PyPI cannot be reached".to_owned()));
        }
        return Err("its tools cannot be installed from PyPI".into());
    }
    fs::write(installed, wanted)?;
    Ok(Ok(python))
}

fn pytest(python: &Path, folder: &Path, workspace: &Workspace) -> Result<Outcome> {
    // Some tests run other programs on the overlay. Build the launcher anew, so that they do not use an old
    // one.
    if !run(workspace::build())?.0 {
        return Ok(Outcome::failed("python: the program peersock"));
    }
    let junit = folder.join("junit.xml");
    let _ = fs::remove_file(&junit);
    let mut command = tests(python, folder)?;
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--numprocesses"]).arg(workers());
    command.args(["--dist", "worksteal", "--junitxml"]).arg(&junit);
    command.env("PEERSOCK_TEST_PROGRAM", workspace.target.join("debug/peersock"));
    let ended = run_to_end(command)?;
    let xml = fs::read_to_string(junit).map_err(|_| "pytest did not run")?;
    Ok(ended.counted("pytest", Outcome::from_pytest(&xml)?))
}

/// Returns the number of processes that share the tests. The tests wait for most of their time.
fn workers() -> String {
    thread::available_parallelism().map_or(2, |cores| (2 * cores.get()).min(8)).to_string()
}

/// Makes a command in a copy of the tests without the package beside it, so that it tests the wheel.
fn tests(python: &Path, folder: &Path) -> Result<Command> {
    let place = folder.join("run");
    fs::create_dir_all(&place)?;
    for name in ["tests", "pyproject.toml", "examples", "docs", "requirements-libraries.txt"] {
        let (link, target) = (place.join(name), root().join("bindings/python").join(name));
        // A link of an earlier run may lead to where the folder was then.
        let _ = fs::remove_file(&link);
        if target.exists() {
            std::os::unix::fs::symlink(target, link)?;
        }
    }
    let mut command = Command::new(python);
    command.current_dir(place).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

fn module(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", name]).current_dir(root().join("bindings/python"));
    command
}

fn named(what: &str, success: bool) -> Outcome {
    Outcome::of(format!("python: {what}"), success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_index_the_tests_are_skipped_with_a_reason() {
        let mut venv = Command::new("python3");
        venv.args(["-c", "import ensurepip, venv"]);
        if !works(venv) {
            println!("SKIP without_an_index_the_tests_are_skipped_with_a_reason: there is no python3-venv");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        // No other wheel is available, and no server listens on port 1.
        let options = ["--isolated", "--retries", "0", "--index-url", "http://127.0.0.1:1/simple"];
        let reason = environment(folder.path(), &options).expect("no failure").expect_err("no tools");
        assert!(reason.contains("PyPI cannot be reached"), "{reason}");
        // The next run tries again.
        assert!(!folder.path().join("installed.txt").exists());
    }
}
