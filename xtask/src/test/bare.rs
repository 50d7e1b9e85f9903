//! A machine with Rust, a C compiler and nothing else, on which the README's two commands begin.
//!
//! The search path is a single folder of links, and cargo's home has no further tools. Steps and tests that
//! need other programs report that and are skipped. Nothing fails.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::command::run;
use super::outcome::Outcome;
use super::workspace::{self, Workspace};
use crate::cleanup::Guard;
use crate::{Result, cargo, root};

/// The C compiler and its helpers, a shell, and the programs that every system has (coreutils).
const PROGRAMS: &[&str] = &[
    "ar", "as", "cat", "cc", "chmod", "cp", "cut", "date", "dirname", "echo", "env", "false", "head", "id",
    "ld", "ln", "ls", "mkdir", "mv", "nice", "printf", "pwd", "ranlib", "readlink", "rm", "sh", "sleep",
    "sort", "tail", "tee", "test", "touch", "tr", "true", "uname", "wc",
];

/// Steps that begin there, and steps that must be skipped.
const STEPS: &str = "format,sources,header,clippy,python";
const SKIPPED: [&str; 3] = ["format", "clippy", "python"];

/// Runs the beginnings.
/// Fails if the folder cannot be made.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    if !run(workspace::build())?.0 {
        return Ok(Outcome::failed("bare: the workspace does not build"));
    }
    let place = Place::make(&workspace.target.join("bare"))?;
    let mut outcome = Outcome::default();

    // Do not run this process's own file, which the build above replaces if it chooses other features.
    let mut steps = place.command(Command::new(workspace.target.join("debug/xtask")));
    steps.args(["test", "--only", STEPS]).current_dir(root());
    // Nothing is built there, because cargo would mistake its downloads for something else.
    steps.env("CARGO_HOME", &place.home).env("CARGO", place.programs.join("cargo"));
    let (success, output) = quietly(steps)?;
    outcome.add(checked("bare: the first steps of cargo xtask test", success, &output));
    for step in SKIPPED {
        let is_skipped = output.lines().any(|line| line.starts_with(&format!("skipped {step}: ")));
        outcome.add(checked(format!("bare: {step} is skipped with a reason"), is_skipped, &output));
    }

    // Most of these tests need a missing program.
    let mut tests = place.command(Command::new(built_test("run")?));
    tests.arg("--show-output").current_dir(root().join("cli"));
    let (success, output) = quietly(tests)?;
    let counted = Outcome::from_libtest(&output);
    let are_skipped = counted.skipped.len() > 50;
    outcome.add(checked("bare: tests that need other programs are skipped", success && are_skipped, &output));

    let mut demo = place.command(Command::new(workspace.target.join("debug/peersock")));
    demo.args(["demo", "--size", "16MiB"]);
    let (success, output) = quietly(demo)?;
    outcome.add(checked("bare: the demonstration", success, &output));
    Ok(outcome)
}

/// Returns the program with the tests of this name, built as in the step `tests`.
fn built_test(name: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["test", "--no-run", "--message-format", "json-render-diagnostics", "--workspace"]);
    let (_, messages) = quietly(build)?;
    let mut programs = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next().ok_or_else(|| format!("the tests `{name}` do not build").into())
}

/// Makes the outcome of one check, and prints the output if it failed.
fn checked(what: impl Into<String>, success: bool, output: &str) -> Outcome {
    if !success {
        println!("{output}");
    }
    Outcome::of(what, success)
}

/// The folder of links, and a cargo home without any subcommands.
struct Place {
    programs: PathBuf,
    home: PathBuf,
}

impl Place {
    fn make(folder: &Path) -> Result<Place> {
        let _ = fs::remove_dir_all(folder);
        let (programs, home) = (folder.join("bin"), folder.join("home"));
        fs::create_dir_all(&programs)?;
        fs::create_dir_all(&home)?;
        let path = env::var_os("PATH").unwrap_or_default();
        for program in PROGRAMS {
            let found =
                env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
            // A coreutils program that this machine lacks is not needed there.
            if let Some(found) = found {
                symlink(found, programs.join(program))?;
            }
        }
        // Bypass rustup, which would find its other components.
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()).output()?;
        let tools = Path::new(String::from_utf8(sysroot.stdout)?.trim()).join("bin");
        for program in ["cargo", "rustc", "rustdoc"] {
            symlink(tools.join(program), programs.join(program))?;
        }
        Ok(Place { programs, home })
    }

    /// Returns the same command with the bare search path.
    fn command(&self, mut command: Command) -> Command {
        command.env("PATH", &self.programs);
        command
    }
}

/// Runs a command, and returns its output.
fn quietly(mut command: Command) -> Result<(bool, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, guard) = Guard::spawn(&mut command)?;
    let stderr = child.stderr.take().ok_or("it is piped")?;
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = BufReader::new(stderr).read_to_end(&mut text);
        text
    });
    let mut output = String::new();
    for line in BufReader::new(child.stdout.take().ok_or("it is piped")?).split(b'\n') {
        output += &String::from_utf8_lossy(&line?);
        output.push('\n');
    }
    let status = child.wait()?;
    guard.disarm();
    output += &String::from_utf8_lossy(&errors.join().map_err(|_| "its output was lost")?);
    Ok((status.success(), output))
}
