//! `cargo xtask bench python`: compares the Python package with Python's own sockets and with descriptors
//! without Python.
//!
//! `bindings/python/bench/bench.py` does the measuring, and this module builds its requirements. It assembles
//! the package as a wheel would install it, without a package index.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use super::{PROFILE, artifact, build, run_watched};
use crate::{Result, root};

/// File name of the extension for any version of Python.
const EXTENSION: &str = "_peersock.abi3.so";

/// Options of `bench python`.
#[derive(Args)]
pub(crate) struct Options {
    /// Python interpreter
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    python: OsString,
    /// Options of bench.py: --reps, --secs, --json, --check; `-- --help` explains them
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<OsString>,
}

/// Runs the benchmark, which prints its table. Returns false if a measurement failed.
/// Fails if a part does not build.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let program = build("peersock-bench", PROFILE)?;
    let library = artifact("peersock-python", PROFILE, |message| {
        // Skip the libraries of macros.
        message.pointer("/target/name").filter(|name| *name == "_peersock")?;
        let files = message.get("filenames")?.as_array()?.iter().filter_map(|file| file.as_str());
        files.map(PathBuf::from).find(|file| file.extension().is_some_and(|end| end == "so"))
    })?;
    let package = package(&library)?;
    let mut command = Command::new(&options.python);
    command
        .arg(root().join("bindings/python/bench/bench.py"))
        .arg("--program")
        .arg(program)
        .args(&options.options);
    command.env("PYTHONPATH", package);
    // The servers of bench.py end with it, however it ends.
    run_watched(&mut command)
}

/// Assembles the package in a separate folder, and returns the folder.
fn package(library: &Path) -> Result<PathBuf> {
    let folder = library.with_file_name("python-bench");
    let target = folder.join("peersock");
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    copy(&root().join("bindings/python/peersock"), &target)?;
    fs::copy(library, target.join(EXTENSION))?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if entry.path().extension().is_some_and(|end| end == "py") {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
