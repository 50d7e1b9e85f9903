//! Checks that a failure to start a thread is an error, and not a panic, because limits on processes and
//! memory are common.
//!
//! `std::thread::spawn` and `Scope::spawn` panic then. `thread::Builder` returns the error, and
//! `peersock_primitives::beside` does the work on the calling thread.

use std::fs;

use super::debug_forms::TOOLS;
use super::sources::rust_files;
use super::workspace::Package;
use crate::{Result, root};

/// Calls that panic if no thread can be started, without white space.
const PANICS: [&str; 4] = ["thread::spawn(", "scope.spawn(", "Runtime::new(", ".spawn(move||{}).expect("];

/// Returns the calls in a crate's source code, except in tests.
/// Fails if a file cannot be read.
pub(super) fn complaints(package: &Package) -> Result<Vec<String>> {
    if TOOLS.contains(&package.name.as_str()) {
        return Ok(Vec::new());
    }
    let mut complaints = Vec::new();
    for file in rust_files(&package.manifest.with_file_name("src"))? {
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        complaints.extend(panics(&fs::read_to_string(&file)?).into_iter().map(|call| {
            format!(
                "{name}: `{call}…)` panics where no thread can be started (see xtask/src/test/threads.rs)"
            )
        }));
    }
    Ok(complaints)
}

fn panics(source: &str) -> Vec<&'static str> {
    let code = source.split("mod tests {").next().unwrap_or_default();
    let lines = code.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let text: String = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    PANICS.into_iter().filter(|call| text.contains(call)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_panic_are_found_outside_of_comments_and_tests() {
        assert_eq!(panics("std::thread::spawn(move || 1);"), ["thread::spawn("]);
        assert_eq!(panics("scope\n    .spawn(|| 1);"), ["scope.spawn("]);
        for good in [
            "/// thread::spawn(f)",
            "thread::Builder::new().spawn(f)?;",
            "tasks.spawn(f);",
            "beside(scope, f);",
            "#[cfg(test)]\nmod tests { fn f() { thread::spawn(f); } }",
        ] {
            assert!(panics(good).is_empty(), "{good}");
        }
    }
}
