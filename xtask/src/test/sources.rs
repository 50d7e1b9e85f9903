//! Checks of our source code that no compiler makes.
//!
//! Every crate must take the workspace's lints. The two cores, their junction, their common primitives,
//! access rules and the state machine of the root must stay pure: no clock, socket, thread, async or system
//! randomness. Only then does one seed of the simulation replay exactly. Decisions by the kind of a network
//! are made in `overlay/src/network` alone. Texts for people contain no Debug forms of Rust
//! ([`debug_forms`]) and no banned phrases ([`messages`]), and explain the origin of network files
//! ([`network_files`]). Log fields have the same names everywhere ([`log_fields`]). A thread that cannot be
//! started is an error ([`threads`]). The reason of an ignored test names what runs the test ([`slow`]). The
//! library inside the program is never an old one ([`preload_sources`]). Comments and documents keep the
//! rules of prose ([`prose`]), and folders have the names of their crates ([`folders`]). The list of other
//! interfaces' features is complete ([`faces`]).

use std::fs;
use std::path::{Path, PathBuf};

use super::outcome::Outcome;
use super::workspace::{Package, Workspace};
use super::{
    debug_forms, faces, folders, links, log_fields, messages, network_files, preload_sources, prose, slow,
    threads,
};
use crate::{Result, root};

/// The pure crates: the two cores, their junction, their common primitives, access rules, and the state
/// machine of the root.
const CORES: [(&str, Apart); 6] = [
    ("peersock-datapath", Apart::Nothing),
    ("peersock-overlay", Apart::Nothing),
    ("peersock-primitives", Apart::Waits("wait")),
    ("peersock-root", Apart::Driver("server")),
    ("peersock-rules", Apart::Nothing),
    ("peersock-stack", Apart::Nothing),
];

/// The part of a core that need not be pure.
enum Apart {
    /// No part.
    Nothing,
    /// The folder in which threads wait. It has no further dependencies.
    Waits(&'static str),
    /// The folder with the driver, and the crates that only the driver depends on.
    Driver(&'static str),
}

/// Names that code in a core must not contain, with the reasons.
const FORBIDDEN: &[(&str, &str)] = &[
    ("Instant::now", "time is a parameter"),
    ("SystemTime", "time is a parameter"),
    ("std::thread", "the cores start no threads"),
    ("thread::spawn", "the cores start no threads"),
    ("unsafe", "at most a driver has unsafe code"),
    ("async fn", "the cores are not async"),
    (".await", "the cores are not async"),
    ("tokio", "the cores are not async"),
    ("std::net::UdpSocket", "the cores open no sockets"),
    ("TcpStream", "the cores open no sockets"),
    ("TcpListener", "the cores open no sockets"),
    ("std::fs", "the cores read no files"),
    ("std::env", "the cores read no environment"),
    ("std::process", "the cores know no processes"),
    ("getrandom", "seeds are parameters"),
    ("OsRng", "seeds are parameters"),
    ("SysRng", "seeds are parameters"),
    ("rand::rng()", "seeds are parameters"),
];

/// Crates that would add the same facilities.
const FORBIDDEN_DEPENDENCIES: &[&str] =
    &["async-std", "futures", "getrandom", "mio", "quinn-udp", "rustix", "smol", "socket2", "tokio"];

/// Files that may tell kinds of network apart: the rules of each kind, the IDs that encode it, and the
/// crate's exports. Also this file, which searches for their names.
const KINDS: [&str; 4] =
    ["overlay/src/network", "overlay/src/id", "overlay/src/lib.rs", "xtask/src/test/sources.rs"];

/// Runs the checks.
/// Fails if a source file cannot be read.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut note = |complaints: Vec<String>| {
        for complaint in &complaints {
            println!("{complaint}");
        }
        outcome.add(Outcome::of_complaints(complaints));
    };
    for package in &workspace.packages {
        let manifest = fs::read_to_string(&package.manifest)?;
        let complaint = format!("{}: the manifest lacks '[lints] workspace = true'", package.name);
        note(if inherits_lints(&manifest) { Vec::new() } else { vec![complaint] });
        note(kind_complaints(package)?);
        note(debug_forms::complaints(package)?);
        note(messages::complaints(package)?);
        note(threads::complaints(package)?);
        note(slow::complaints(package)?);
        note(prose::complaints(package)?);
    }
    note(prose::python_complaints()?);
    note(prose::document_complaints()?);
    note(links::complaints()?);
    note(folders::complaints(workspace)?);
    note(network_files::complaints(workspace)?);
    note(log_fields::complaints(workspace)?);
    note(preload_sources::complaints(workspace)?);
    note(faces::complaints()?);
    for (core, apart) in CORES {
        let package = workspace.package(core).ok_or_else(|| format!("there is no crate {core}"))?;
        let (folder, has_driver) = match apart {
            Apart::Nothing => (None, false),
            Apart::Waits(folder) => (Some(folder), false),
            Apart::Driver(folder) => (Some(folder), true),
        };
        if !has_driver {
            note(dependency_complaints(package));
        }
        note(core_complaints(package, folder, has_driver)?);
    }
    Ok(outcome)
}

fn inherits_lints(manifest: &str) -> bool {
    let section = manifest.split_once("\n[lints]").map(|(_, rest)| rest.split("\n[").next().unwrap_or(rest));
    section.is_some_and(|lines| lines.lines().any(|line| line.trim() == "workspace = true"))
}

fn dependency_complaints(package: &Package) -> Vec<String> {
    let has = |name: &&&str| package.dependencies.iter().any(|dependency| dependency == **name);
    let forbidden = FORBIDDEN_DEPENDENCIES.iter().filter(has);
    forbidden.map(|name| format!("{}: must not depend on {name}", package.name)).collect()
}

/// Returns the impure parts of a crate's source, apart from one folder. Only a driver may have `unsafe` code.
fn core_complaints(package: &Package, apart: Option<&str>, has_driver: bool) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let source = package.manifest.with_file_name("src");
    let level = if has_driver { "deny" } else { "forbid" };
    if !fs::read_to_string(source.join("lib.rs"))?.contains(&format!("#![{level}(unsafe_code)]")) {
        complaints.push(format!("{}: lib.rs lacks #![{level}(unsafe_code)]", package.name));
    }
    for file in rust_files(&source)? {
        if apart.is_some_and(|folder| file.starts_with(source.join(folder))) {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let name = file.strip_prefix(root()).unwrap_or(&file);
        complaints.extend(
            impure_lines(&text).map(|(line, word, why)| format!("{}:{line}: {word}: {why}", name.display())),
        );
    }
    Ok(complaints)
}

/// Returns line numbers of code that names something forbidden. Comments and tests may name it.
fn impure_lines(text: &str) -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    code(text).filter_map(|(line, code)| {
        let (word, why) = FORBIDDEN.iter().find(|(word, _)| names(code, word))?;
        Some((line, *word, *why))
    })
}

/// Returns the lines of code by number, from 1, without comments and the tests at the end of the file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().take_while(|(i, line)| {
        // A test module in a separate file is only declared here.
        let next = text.lines().nth(i + 1).unwrap_or_default();
        line.trim() != "#[cfg(test)]" || next.ends_with(';')
    });
    lines.map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
}

fn kind_complaints(package: &Package) -> Result<Vec<String>> {
    let source = package.manifest.with_file_name("src");
    let mut complaints = Vec::new();
    for file in rust_files(&source)? {
        let name = file.strip_prefix(root()).unwrap_or(&file);
        if KINDS.iter().any(|allowed| name.starts_with(allowed)) {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        complaints.extend(code(&text).filter(|(_, code)| tells_kinds_apart(code)).map(|(line, _)| {
            format!("{}:{line}: the kind of a network: ask its policy (overlay/src/network)", name.display())
        }));
    }
    Ok(complaints)
}

/// Returns true if a line matches on the kind of a network. Constructing a description is allowed.
fn tells_kinds_apart(line: &str) -> bool {
    let is_pattern = |at: usize| {
        let (before, after) = line.split_at(at);
        before.ends_with("let ") || before.contains("matches!(") || after.contains("=>")
    };
    names(line, "NetworkKind")
        || ["NetworkConfig::AdHoc", "NetworkConfig::Static"]
            .iter()
            .any(|variant| line.match_indices(variant).any(|(at, _)| is_pattern(at)))
}

/// Returns true if a line contains a word as a whole: `.await`, but not `.awaiting`.
fn names(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before =
            line[..at].chars().next_back().is_some_and(part_of_name) && word.starts_with(part_of_name);
        let after = line[at + word.len()..].starts_with(part_of_name) && word.ends_with(part_of_name);
        !before && !after
    })
}

/// Returns all Rust files below a folder in a fixed order, except files that hold only tests.
pub(super) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let tests = ["tests", "tests.rs", "testing", "testing.rs"];
    files(folder, &["rs"], &|path| tests.iter().any(|name| path.ends_with(name)))
}

/// Returns the files below a folder with one of these endings, in a fixed order, except files and folders
/// that `is_skipped`.
pub(super) fn files(
    folder: &Path,
    endings: &[&str],
    is_skipped: &dyn Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if is_skipped(&path) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, endings, is_skipped)?);
        } else if path.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_impure_but_comments_and_tests_may_be() {
        let text = "use std::time::Instant;
// Instant::now is not called
#[cfg(test)]
mod testing;
fn f() { let t = Instant::now(); }
#[cfg(test)]
mod tests {
    use std::thread;
}
";
        let lines: Vec<_> = impure_lines(text).map(|(line, word, _)| (line, word)).collect();
        assert_eq!(lines, [(5, "Instant::now")]);
    }

    #[test]
    fn kinds_are_told_apart_by_patterns_and_not_by_descriptions() {
        for line in [
            "use peersock::overlay::{NetworkKind, Psk};",
            "    if network.id().kind() == NetworkKind::Static {",
            "            NetworkConfig::AdHoc { .. } => None,",
            "        let NetworkConfig::Static(network) = config else { return };",
            "    matches!(self.config, NetworkConfig::Static(_))",
        ] {
            assert!(tells_kinds_apart(line), "{line}");
        }
        for line in [
            "        Network { config: NetworkConfig::AdHoc { id, psk: None } }",
            "    Ok(NetworkConfig::Static(network))",
            "enum MyNetworkKinds {}",
        ] {
            assert!(!tells_kinds_apart(line), "{line}");
        }
    }

    #[test]
    fn only_whole_words_count() {
        assert!(names("x.await?;", ".await"));
        assert!(names("use tokio::net;", "tokio"));
        for innocent in ["self.awaiting = 1;", "let tokio_like = 2;", "MyTcpStream"] {
            assert!(!FORBIDDEN.iter().any(|(word, _)| names(innocent, word)), "{innocent}");
        }
    }

    #[test]
    fn lints_are_inherited_only_in_their_own_section() {
        assert!(inherits_lints("[package]\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\n\n[lints]\n\n[other]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nworkspace = true\n"));
    }
}
