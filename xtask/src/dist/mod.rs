//! `cargo xtask dist`: makes the products for users, in `target/packages`.
//!
//! One build serves all, with link-time optimisation. Archive times come from the last commit, or from
//! SOURCE_DATE_EPOCH. Names are sorted and owners are root, so that the same files make the same archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::Value;

use crate::{Result, cargo, install, root};

mod archive;
mod deb;
mod program;
mod sbom;
mod wheel;

/// Version of the project.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Text for `cargo xtask dist --help`.
pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask dist                    everything, in target/packages
  cargo xtask dist --out /srv/files   elsewhere";

/// Options of `dist`.
#[derive(Args)]
pub(crate) struct Options {
    /// Write the packages into DIR [default: target/packages]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Python that builds the wheel; it needs maturin
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
}

/// The products, with the reason for each one that was not made.
#[derive(Debug)]
pub(crate) struct Made {
    /// The program with its manual pages and completions.
    pub(crate) program: PathBuf,
    /// The same as a Debian package.
    pub(crate) deb: std::result::Result<PathBuf, String>,
    /// The C library.
    pub(crate) library: PathBuf,
    /// The Python package.
    pub(crate) wheel: std::result::Result<PathBuf, String>,
    /// The list of dependencies.
    pub(crate) sbom: PathBuf,
}

/// Profile of Cargo.toml for packages.
const PROFILE: &str = "dist";

/// Parameters that all parts need.
struct Context {
    out: PathBuf,
    /// Folder in which parts are assembled.
    stage: PathBuf,
    /// Folder of the build, and its profile.
    built: PathBuf,
    profile: &'static str,
    /// Target triple of this machine, `x86_64-unknown-linux-gnu` for example.
    triple: String,
    /// Seconds since 1970.
    time: u64,
}

impl Context {
    /// Returns the processor's name.
    fn processor(&self) -> &str {
        self.triple.split('-').next().unwrap_or(&self.triple)
    }
}

/// Makes everything and lists it.
/// Fails if a product cannot be built or written.
pub(crate) fn run(options: &Options) -> Result<()> {
    let out = options.out.clone().unwrap_or_else(|| root().join("target/packages"));
    let made = make(&out, &options.python, PROFILE)?;
    for missing in [&made.deb, &made.wheel].into_iter().filter_map(|part| part.as_ref().err()) {
        println!("not made: {missing}");
    }
    print!("{}", fs::read_to_string(std::path::absolute(&out)?.join("SHA256SUMS"))?);
    Ok(())
}

/// Makes everything in a folder, after removing the products of an earlier run.
/// Fails if a product cannot be built or written.
pub(crate) fn make(out: &Path, python: &Path, profile: &'static str) -> Result<Made> {
    let out = std::path::absolute(out)?;
    let stage = out.join("stage");
    fs::create_dir_all(&out)?;
    remove_earlier(&out)?;
    fs::create_dir_all(&stage)?;
    let built = install::build(profile)?;
    run_quietly(cargo().args(["build", "--profile", profile, "--package", "peersock-cli"]))?;
    let context = Context { stage, built, profile, triple: triple()?, time: time()?, out };
    let tree = program::stage(&context)?;
    let made = Made {
        program: archive::pack(&context, &tree.folder)?,
        deb: deb::make(&context, &tree)?,
        library: library(&context)?,
        wheel: wheel::make(&context, python)?,
        sbom: sbom::write(&context)?,
    };
    fs::remove_dir_all(&context.stage)?;
    sums(&context)?;
    Ok(made)
}

fn remove_earlier(out: &Path) -> Result<()> {
    for entry in fs::read_dir(out)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "stage" {
            fs::remove_dir_all(entry.path())?;
        } else if name.starts_with("peersock") || name.starts_with("libpeersock") || name == "SHA256SUMS" {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Packs the C library, which users may unpack anywhere.
fn library(context: &Context) -> Result<PathBuf> {
    let folder = context.stage.join(format!("libpeersock-{VERSION}-{}", context.triple));
    install::copy_to(&folder, install::Prefix::Movable, Path::new("lib"), &context.built)?;
    strip(&folder.join(format!("lib/libpeersock.so.{VERSION}")), "--strip-unneeded")?;
    strip(&folder.join("lib/libpeersock.a"), "--strip-debug")?;
    program::licences(&folder.join("share/doc/libpeersock"))?;
    archive::pack(context, &folder)
}

/// Writes the digests of all files in the format of `sha256sum --check`.
fn sums(context: &Context) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(&context.out)? {
        names.push(entry?.file_name());
    }
    names.sort();
    let output = Command::new("sha256sum").arg("--").args(&names).current_dir(&context.out).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(fs::write(context.out.join("SHA256SUMS"), output.stdout)?)
}

/// Strips debug data, which is most of a file.
fn strip(file: &Path, how: &str) -> Result<()> {
    run_quietly(Command::new("strip").args(["--enable-deterministic-archives", how]).arg(file))
}

/// Runs a command, and shows its output only if it fails.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let output = command.output().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
        .into()),
    }
}

fn triple() -> Result<String> {
    let output =
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("the compiler does not say which machine this is")?.to_owned())
}

/// Returns the timestamp for all files.
fn time() -> Result<u64> {
    if let Ok(time) = std::env::var("SOURCE_DATE_EPOCH") {
        return time.parse().map_err(|error| format!("SOURCE_DATE_EPOCH: {error}").into());
    }
    let log = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()).output();
    let commit = log.ok().and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok());
    Ok(commit.unwrap_or(0))
}

/// Returns cargo's metadata of all packages.
fn metadata(triple: &str) -> Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version=1", "--locked", "--filter-platform", triple]);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
