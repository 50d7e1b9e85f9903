//! Builds the library that launchers preload, for `src/lib.rs` to include.
//!
//! Cargo has no stable way to make a program depend on a `cdylib` (artifact dependencies are unstable), so a
//! second cargo builds it. It uses a separate folder, because the first one holds the lock of the usual
//! folder until this script has ended.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PACKAGE: &str = "peersock-preload";
const FILE: &str = "libpeersock_preload.so";

/// Sources of the library, relative to the workspace's root.
const SOURCES: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "ffi/preload",
    "sockets/bsd/Cargo.toml",
    "sockets/bsd/src",
    "sockets/fd/Cargo.toml",
    "sockets/fd/src",
];

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.ancestors().nth(2).ok_or("the crate lies in the workspace")?;
    println!("cargo::rerun-if-changed=build.rs");
    for source in SOURCES {
        // Use paths relative to this package, because a copied or moved checkout has another absolute path.
        println!("cargo::rerun-if-changed=../../{source}");
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let built = build(workspace, &out.join("preload"))?;
    fs::copy(&built, out.join(FILE)).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(())
}

/// Builds the library and returns its path.
fn build(workspace: &Path, target: &Path) -> Result<PathBuf, Box<dyn Error>> {
    // The program's profile is derived from this one.
    let (profile, folder) = match variable("PROFILE")?.as_str() {
        "release" => ("release", "release"),
        _ => ("dev", "debug"),
    };
    let triple = variable("TARGET")?;
    let cargo = |offline: bool| -> Result<Output, Box<dyn Error>> {
        let mut command = Command::new(variable("CARGO")?);
        command.current_dir(workspace).args(["build", "--locked", "--lib", "--package", PACKAGE]);
        command.args(["--profile", profile, "--target", &triple, "--target-dir"]).arg(target);
        if offline {
            command.arg("--offline");
        }
        // A user's configuration may name a common folder for intermediate files, whose lock is held as well.
        command.env("CARGO_BUILD_BUILD_DIR", target);
        // Clippy and similar tools have replaced the compiler only for the launcher.
        command.env_remove("RUSTC_WORKSPACE_WRAPPER");
        command
            .env("CARGO_ENCODED_RUSTFLAGS", flags(&env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default()));
        let profile = profile.to_uppercase();
        // Every program carries it along.
        command.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "0");
        command.env(format!("CARGO_PROFILE_{profile}_STRIP"), "symbols");
        // It is small, and executed in every call of a program.
        if profile == "RELEASE" {
            command.env("CARGO_PROFILE_RELEASE_LTO", "thin");
        }
        command.env("CARGO_INCREMENTAL", "0");
        Ok(command.output()?)
    };
    // All its dependencies are the launcher's too, so they are present. Only if other versions were chosen
    // for the launcher (`cargo install` without `--locked`) must something be fetched.
    let mut output = cargo(true)?;
    if !output.status.success() {
        output = cargo(false)?;
    }
    match output.status.success() {
        true => Ok(target.join(triple).join(folder).join(FILE)),
        false => Err(format!("{PACKAGE}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Returns the compiler's flags without those unsuitable for a library that foreign programs load. Sanitizers
/// and coverage need the whole program, and a library cannot link the C library statically.
fn flags(encoded: &str) -> String {
    const SEPARATOR: char = '\u{1f}';
    let is_unfit = |flag: &str| {
        ["sanitizer", "instrument-coverage", "profile-generate", "+crt-static"]
            .iter()
            .any(|word| flag.contains(word))
    };
    let mut kept: Vec<&str> = Vec::new();
    for flag in encoded.split(SEPARATOR).filter(|flag| !flag.is_empty()) {
        if !is_unfit(flag) {
            kept.push(flag);
        } else if matches!(kept.last(), Some(&("-C" | "-Z" | "--codegen"))) {
            // The flag's first half.
            kept.pop();
        }
    }
    kept.join(&SEPARATOR.to_string())
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}
