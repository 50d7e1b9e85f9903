//! The wheel, in an otherwise empty virtual environment, on a system that shows only `/usr`.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::empty_root::{EmptyRoot, NEEDS};
use crate::Result;
use crate::dist::Made;
use crate::test::command::run;
use crate::test::outcome::Outcome;

/// A Python program without any reference to peersock.
const LISTENER: &str = "\
import socket
server = socket.create_server(('::', 7000), family=socket.AF_INET6)
print('port', server.getsockname()[1])
";

/// Program that finds programs by the search path, and by paths relative to the current folder.
const ENV: &str = "/usr/bin/env";

/// Tests the wheel.
pub(super) fn check(made: &Made, place: &Path) -> Result<Outcome> {
    let what = "dist: the wheel";
    let wheel = match &made.wheel {
        Ok(wheel) => wheel,
        Err(reason) => return Ok(Outcome::skipped(what, reason)),
    };
    // The name must state the supported systems, which maturin has verified.
    if !wheel.to_string_lossy().contains("-abi3-manylinux_") {
        return Ok(Outcome::failed(format!(
            "{what}: its name says nothing of where it works: {}",
            wheel.display()
        )));
    }
    fs::create_dir_all(place)?;
    fs::write(place.join("listener.py"), LISTENER)?;
    let name = wheel.file_name().and_then(|name| name.to_str()).ok_or("a wheel has a name")?;
    fs::copy(wheel, place.join(name))?;
    let alone = format!("{what}, where there is only /usr");
    let Some(root) = EmptyRoot::with_system(place) else {
        let mut outcome = installed(what, name, |words| {
            let mut command = Command::new(ENV);
            command.args(["-u", "PYTHONPATH"]).args(words).current_dir(place);
            run(command)
        })?;
        outcome.add(Outcome::skipped(&alone, NEEDS));
        return Ok(outcome);
    };
    if !root.run(&[ENV, "python3", "--version"])?.0 {
        return Ok(Outcome::skipped(&alone, "the system's Python is not in /usr"));
    }
    // In the empty root, the root is the current folder.
    installed(&alone, name, |words| root.run(&[&[ENV], words].concat()))
}

/// Installs the wheel by `run`, whose current folder has it, and runs a program on a network by it.
fn installed(what: &str, wheel: &str, run: impl Fn(&[&str]) -> Result<(bool, String)>) -> Result<Outcome> {
    const OWN: &str = "venv/bin/python";
    if !run(&["python3", "-m", "venv", "venv"])?.0 {
        return Ok(Outcome::skipped(what, "a virtual environment cannot be made (python3-venv)"));
    }
    if !run(&[OWN, "-m", "pip", "install", "--quiet", "--no-index", wheel])?.0 {
        return Ok(Outcome::failed(format!("{what}: pip install")));
    }
    let options = ["-m", "peersock", "run", "--interface", "lo", "--network", "ff0001ffff000000"];
    let (success, output) = run(&[&[OWN], &options[..], &["listener.py"]].concat())?;
    Ok(Outcome::of(what, success && output.contains("port 7000")))
}
