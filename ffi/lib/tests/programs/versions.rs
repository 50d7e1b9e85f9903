//! Programs built with another version of the library: released functions keep their versions.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::build::{LIBRARIES, works};

#[path = "../../shared_library.rs"]
mod shared_library;

/// The functions with their versions, and the header.
const MAP: &str = include_str!("../../peersock.map");
const HEADER: &str = include_str!("../../include/peersock.h");

/// Returns the functions that the header declares.
fn declared() -> BTreeSet<&'static str> {
    let code = HEADER.lines().filter(|line| !line.starts_with("//") && !line.trim_start().starts_with('#'));
    let words = code.filter_map(|line| {
        let (before, _) = line.split_once('(')?;
        before.rsplit([' ', '*']).next()
    });
    words.filter(|word| word.starts_with("peersock_")).collect()
}

#[test]
fn each_function_of_the_header_has_a_version() {
    let listed = MAP.lines().filter_map(|line| line.trim().strip_suffix(';'));
    let listed: BTreeSet<_> = listed.filter(|line| line.starts_with("peersock_")).collect();
    assert!(listed.len() > 50);
    assert_eq!(listed, declared(), "a new function goes into a node of the version that has it first");
}

#[test]
fn the_library_that_is_installed_exports_its_functions_with_their_versions_and_nothing_else() {
    if ["cc", "readelf"].iter().any(|program| !works(Command::new(program).arg("--version"))) {
        println!("SKIP: cc or readelf is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("libpeersock.so.0");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let archive = LIBRARIES.join("libpeersock.a");
    let linked = shared_library::link(manifest, &archive, &library).output().expect("cc is there");
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    let symbols = readelf(&["--dyn-syms", "--wide"], &library);
    let defined = symbols.lines().filter(|line| line.contains(" GLOBAL ") && !line.contains(" UND "));
    let defined: BTreeSet<_> = defined.filter_map(|line| line.split_whitespace().nth(7)).collect();
    let wanted: BTreeSet<_> = declared().into_iter().map(|name| format!("{name}@@PEERSOCK_0.1")).collect();
    let wanted: BTreeSet<_> = wanted.iter().map(String::as_str).chain(["PEERSOCK_0.1"]).collect();
    assert_eq!(defined, wanted);
    let dynamic = readelf(&["--dynamic", "--wide"], &library);
    assert!(dynamic.contains("[libpeersock.so.0]") && dynamic.contains("NODELETE"), "{dynamic}");

    // A linked program requires that version, and runs with the structure layout it was built with.
    let program = folder.path().join("old");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o"]).arg(&program);
    cc.arg(manifest.join("tests/c/old.c")).arg(&library);
    cc.arg(format!("-Wl,-rpath,{}", folder.path().display()));
    let built = cc.output().expect("cc is there");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    assert!(readelf(&["--version-info", "--wide"], &program).contains("Name: PEERSOCK_0.1"));
    let ran = Command::new(&program).env("PEERSOCK_TEST_PORT", crate::run::port().to_string()).output();
    let ran = ran.expect("it was just built");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && ran.stdout == b"all well\n", "{}: {said}", ran.status);
}

fn readelf(options: &[&str], file: &Path) -> String {
    let output = Command::new("readelf").args(options).arg(file).output().expect("it is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
