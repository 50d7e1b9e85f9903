//! Installs the products of `cargo xtask dist` into otherwise empty places and uses them there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

mod empty_root;
mod library;
mod wheel;

use empty_root::{EmptyRoot, NEEDS};

use super::command::{run, works};
use super::outcome::Outcome;
use super::python;
use super::workspace::Workspace;
use crate::dist::{self, Made, VERSION};
use crate::{Result, root};

/// Files beside the program in its archive, and in its package below `/usr`.
const BESIDE: [&str; 9] = [
    "share/man/man1/peersock.1",
    "share/man/man1/peersock-run.1",
    "share/man/man1/peersock-network-new.1",
    BASH,
    "share/fish/vendor_completions.d/peersock.fish",
    "share/zsh/vendor-completions/_peersock",
    "share/doc/peersock/docs/use/NETWORKS.md",
    "share/doc/peersock/docs/use/ROOT.md",
    "lib/systemd/system/peersock-root.service",
];

/// Completions for bash.
const BASH: &str = "share/bash-completion/completions/peersock";

/// Script that makes bash complete with an installed script's registration. `$0` is the installed script.
const COMPLETE: &str = r#"
set -e
source "$0"
registered=$(complete -p peersock)
[[ $registered =~ -F\ ([^\ ]+) ]]
COMP_WORDS=(peersock li) COMP_CWORD=1
"${BASH_REMATCH[1]}" peersock li peersock
echo "${COMPREPLY[@]}"
"#;

/// Makes everything, and tests each part.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let (python, without) = match python::interpreter() {
        Ok(Ok(python)) => (python, None),
        // Another Python may have maturin. If not, report this reason.
        Ok(Err(reason)) => (PathBuf::from("python3"), Some(reason)),
        // The tests of the package fail for this reason.
        Err(error) => (PathBuf::from("python3"), Some(error.to_string())),
    };
    let mut made = dist::make(&workspace.target.join("packages"), &python, "release")?;
    if let (Err(reason), Some(cause)) = (&mut made.wheel, without) {
        *reason = format!("{reason}: {cause}");
    }
    let scratch = workspace.target.join("dist-test");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let mut outcome = archive(&made, &scratch.join("archive"))?;
    outcome.add(deb(&made, &scratch.join("deb"))?);
    outcome.add(library::check(&made, &scratch.join("library"))?);
    outcome.add(wheel::check(&made, &scratch.join("wheel"))?);
    outcome.add(sbom(&made)?);
    if outcome.failed.is_empty() {
        fs::remove_dir_all(&scratch)?;
    }
    Ok(outcome)
}

/// Tests the program in an empty root, with its other files.
fn archive(made: &Made, place: &Path) -> Result<Outcome> {
    let what = "dist: the program's archive";
    unpack(&made.program, place)?;
    if !place.join("share/doc/peersock/LICENSE-MIT").is_file() {
        return Ok(Outcome::failed(format!("{what}: it has no licence")));
    }
    let mut outcome = beside(what, place, "")?;
    outcome.add(in_empty_root(what, place, "/bin/peersock")?);
    Ok(outcome)
}

/// Checks that the other files exist below a folder, and that completion works. Manual pages have `suffix` at
/// their names.
fn beside(what: &str, folder: &Path, suffix: &str) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for file in BESIDE {
        let file = if file.contains("/man/") { format!("{file}{suffix}") } else { file.to_owned() };
        let has_text = fs::metadata(folder.join(&file)).is_ok_and(|file| file.is_file() && file.len() > 100);
        outcome.add(Outcome::of(format!("{what}: {file}"), has_text));
    }
    let what = format!("{what}: bash completes by it");
    let mut bash = Command::new("bash");
    bash.args(["--version"]);
    if !works(bash) {
        outcome.add(Outcome::skipped(&what, "bash is not installed"));
        return Ok(outcome);
    }
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", COMPLETE]).arg(folder.join(BASH));
    let (success, completed) = run(bash)?;
    outcome.add(Outcome::of(&*what, success && completed == "listen\n"));
    Ok(outcome)
}

/// Tests the Debian package, installed by `dpkg` into an empty root, and removed again.
fn deb(made: &Made, place: &Path) -> Result<Outcome> {
    let what = "dist: the .deb";
    let package = match &made.deb {
        Ok(package) => package,
        Err(reason) => return Ok(Outcome::skipped(what, reason)),
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::skipped(what, "needs root, for dpkg and an empty root"));
    }
    let database = place.join("var/lib/dpkg");
    for folder in ["info", "updates"] {
        fs::create_dir_all(database.join(folder))?;
    }
    fs::write(database.join("status"), "")?;
    let dpkg = |arguments: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", place.display())).args(["--log=/dev/null", "--force-depends"]);
        dpkg.args(arguments);
        dpkg
    };
    let mut install = dpkg(&["--install"]);
    if !run({
        install.arg(package);
        install
    })?
    .0
    {
        return Ok(Outcome::failed(format!("{what}: dpkg --install")));
    }
    let mut outcome = beside(what, &place.join("usr"), ".gz")?;
    outcome.add(in_empty_root(what, place, "/usr/bin/peersock")?);
    let removed = run(dpkg(&["--purge", "peersock"]))?.0 && !place.join("usr/bin/peersock").exists();
    outcome.add(Outcome::of(format!("{what}: dpkg --purge"), removed));
    Ok(outcome)
}

/// Runs the program in a root with only the program, the libraries it needs, and `cat`.
fn in_empty_root(what: &str, place: &Path, program: &str) -> Result<Outcome> {
    let own = place.join(program.trim_start_matches('/'));
    let Some(root) = EmptyRoot::new(place) else {
        // At least the program starts.
        let mut version = Command::new(&own);
        version.arg("--version");
        let (success, output) = run(version)?;
        let mut outcome = Outcome::of(what, success && output.contains(VERSION));
        outcome.add(Outcome::skipped(&format!("{what} in an empty root"), NEEDS));
        return Ok(outcome);
    };
    root.add(Path::new("/bin/cat"), "/bin/cat")?;
    root.add(&own, program)?;
    let (success, output) = root.run(&[program, "--version"])?;
    let mut outcome = Outcome::of(what, success && output.trim() == format!("peersock {VERSION}"));
    let (success, _) = root.run(&[program, "demo", "--size", "1MiB"])?;
    outcome.add(Outcome::of(format!("{what}: demo"), success));
    let options =
        ["run", "--quiet", "--ephemeral", "--interface", "lo", "--network", "ff0001ffff000000", "--"];
    let (success, output) =
        root.run(&[&[program], &options[..], &["/bin/cat", "/proc/self/maps"]].concat())?;
    outcome.add(Outcome::of(format!("{what}: run"), success && output.contains("libpeersock_preload")));
    Ok(outcome)
}

/// Checks that the list of dependencies names the known packages.
fn sbom(made: &Made) -> Result<Outcome> {
    let list: serde_json::Value = serde_json::from_slice(&fs::read(&made.sbom)?)?;
    let packages = list["packages"].as_array().ok_or("the list of dependencies has no packages")?;
    let has = |name: &str| packages.iter().any(|package| package["name"] == name);
    let wanted =
        ["peersock-cli", "peersock-ffi", "peersock-python", "peersock-preload", "aws-lc-rs", "pyo3", "libc"];
    let missing: Vec<&str> = wanted.into_iter().filter(|name| !has(name)).collect();
    let unwanted: Vec<&str> =
        ["xtask", "proptest", "cbindgen"].into_iter().filter(|name| has(name)).collect();
    Ok(Outcome::of(
        format!("dist: the list of dependencies: {missing:?} {unwanted:?}"),
        missing.is_empty() && unwanted.is_empty(),
    ))
}

/// Unpacks an archive without its top folder.
fn unpack(archive: &Path, place: &Path) -> Result<()> {
    fs::create_dir_all(place)?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components=1", "--file"]).arg(archive).arg("--directory").arg(place);
    tar.current_dir(root());
    match tar.status()?.success() {
        true => Ok(()),
        false => Err(format!("{} cannot be unpacked", archive.display()).into()),
    }
}
