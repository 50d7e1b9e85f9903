//! Replay of the committed inputs of every fuzz target.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use peersock_fuzz_targets::TARGETS;

#[test]
fn every_committed_input_passes() {
    for target in TARGETS {
        let inputs = files(&fuzz().join("corpus").join(target.name));
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for input in inputs {
            let data = fs::read(&input).expect("a readable file");
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(&data)));
            assert!(outcome.is_ok(), "{} fails on {}", target.name, input.display());
        }
    }
}

#[test]
fn every_target_has_its_program() {
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    names.sort_unstable();
    let programs = files(&fuzz().join("fuzz_targets"));
    let stems: Vec<_> = programs.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
    assert_eq!(stems, names);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
    }
}

#[test]
fn short_and_repetitive_inputs_pass() {
    for target in TARGETS {
        for byte in [0, 1, 0x45, 0x60, 0xd1, 0xff] {
            for len in [0, 1, 7, 100, 1000] {
                (target.run)(&vec![byte; len]);
            }
        }
    }
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the files in a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}
