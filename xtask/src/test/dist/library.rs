//! The C library: unpacked anywhere, found by pkg-config and by CMake, and run in an otherwise empty root.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::empty_root::{EmptyRoot, NEEDS};
use super::unpack;
use crate::Result;
use crate::dist::{Made, VERSION};
use crate::test::command::{run, works};
use crate::test::outcome::Outcome;

/// A C program that starts a separate node for a moment.
const PROGRAM: &str = r#"#include <peersock.h>
#include <stdio.h>
int main(void) {
    peersock_node node;
    peersock_config *config = peersock_config_new();
    int failed = peersock_config_ephemeral(config) || peersock_config_interfaces(config, "loopback") ||
                 peersock_start(config, &node) || peersock_join(node, 0xff0001ffff000000, NULL) ||
                 peersock_stop(node, 0);
    peersock_config_free(config);
    return failed ? 1 : puts(peersock_version()) < 0;
}
"#;

const CMAKE: &str = "\
cmake_minimum_required(VERSION 3.16)
project(program C)
find_package(peersock 0.1 REQUIRED)
foreach(kind peersock static)
  add_executable(${kind} program.c)
  target_link_libraries(${kind} PRIVATE peersock::${kind})
endforeach()
";

/// Tests the library.
pub(super) fn check(made: &Made, place: &Path) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let prefix = place.join("anywhere");
    unpack(&made.library, &prefix)?;
    fs::write(place.join("program.c"), PROGRAM)?;
    fs::write(place.join("CMakeLists.txt"), CMAKE)?;
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(place).env_remove("LD_LIBRARY_PATH");
        shell.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        shell
    };
    let mut programs = Vec::new();
    let what = "dist: the C library with pkg-config";
    if works(shell("cc --version && pkg-config --version")) {
        let built = run(shell("cc program.c $(pkg-config --cflags --libs peersock) -o configured"))?.0;
        outcome.add(Outcome::of(what, built));
        programs.extend(built.then_some("configured"));
    } else {
        outcome.add(Outcome::skipped(what, "a C compiler or pkg-config is not installed"));
    }
    let what = "dist: the C library with CMake";
    if works(shell("cc --version && cmake --version")) {
        let script = "cmake -S . -B build -DCMAKE_PREFIX_PATH=\"$PWD/anywhere\" && cmake --build build";
        let built = run(shell(script))?.0;
        outcome.add(Outcome::of(what, built));
        programs.extend(built.then_some(["build/peersock", "build/static"]).into_iter().flatten());
    } else {
        outcome.add(Outcome::skipped(what, "a C compiler or cmake is not installed"));
    }
    for program in programs {
        outcome.add(works_alone(place, program)?);
    }
    Ok(outcome)
}

/// Runs a program linked with the library, here and in a root with nothing else.
fn works_alone(place: &Path, program: &str) -> Result<Outcome> {
    let what = format!("dist: {program}, linked with the C library");
    let is_version = |(success, output): (bool, String)| success && output.trim() == VERSION;
    let built = place.join(program);
    let mut outcome = Outcome::of(&*what, is_version(run(Command::new(&built))?));
    let what = format!("{what}, in an empty root");
    let folder = place.join("root").join(program);
    outcome.add(match EmptyRoot::new(&folder) {
        None => Outcome::skipped(&what, NEEDS),
        Some(root) => {
            root.add(&built, "/program")?;
            Outcome::of(&*what, is_version(root.run(&["/program"])?))
        }
    });
    Ok(outcome)
}
