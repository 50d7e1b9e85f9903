//! The folder of each crate says the crate's name.

use crate::test::workspace::{Package, Workspace};
use crate::{Result, root};

/// Prefix of all our crates but the first one, which lies in the tree's root.
const PREFIX: &str = "peersock-";

/// Returns the crates whose names and folders disagree.
/// Returns an error for a crate outside of the tree.
pub(super) fn complaints(workspace: &Workspace) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for Package { name, manifest, .. } in &workspace.packages {
        let folder = manifest.parent().unwrap_or(manifest).strip_prefix(root())?;
        let folder = folder.to_string_lossy();
        if !agree(name, &folder) {
            complaints.push(format!("{folder}: the crate in this folder is called {name}"));
        }
    }
    Ok(complaints)
}

/// Returns true if a crate's name has no words but those of its path, and the last folder's words. A group of
/// folders is called in the plural. `lib` is the part of a group that gives the group its name.
fn agree(name: &str, folder: &str) -> bool {
    let Some(short) = name.strip_prefix(PREFIX) else { return folder.is_empty() || folder == name };
    let words: Vec<_> = short.split('-').collect();
    let path: Vec<_> = folder.split(['/', '-']).collect();
    let is_same = |word: &str, part: &str| part == word || part.strip_suffix('s') == Some(word);
    let last = folder.rsplit('/').next().unwrap_or(folder);
    words.iter().all(|word| path.iter().any(|part| is_same(word, part)))
        && (last == "lib" || last.split('-').all(|part| words.iter().any(|word| is_same(word, part))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_the_name_of_its_crate() {
        for (name, folder) in [
            ("peersock", ""),
            ("xtask", "xtask"),
            ("peersock-stack", "stack"),
            ("peersock-ffi", "ffi/lib"),
            ("peersock-run-library", "ffi/run-library"),
            ("peersock-socket-server", "sockets/server"),
            ("peersock-stack-lab", "labs/stack"),
        ] {
            assert!(agree(name, folder), "{name} in {folder}");
        }
        for (name, folder) in [
            ("peersock-descriptors", "sockets/server"),
            ("peersock-fd", "sockets/protocol"),
            ("peersock-stack-lab", "stack"),
            ("peersock-stack", "labs/stack-lab"),
        ] {
            assert!(!agree(name, folder), "{name} in {folder}");
        }
    }
}
