//! The program with what belongs to it, laid out as below `/usr`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Context, VERSION, strip};
use crate::install::write;
use crate::{Result, root};

/// Shells, and where they look for the completions of programs.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/peersock"),
    ("fish", "share/fish/vendor_completions.d/peersock.fish"),
    ("zsh", "share/zsh/vendor-completions/_peersock"),
];

/// A root as a service, which nobody starts unasked.
const UNIT: &str = "peersock-root.service";

/// What was laid out.
pub(super) struct Tree {
    pub(super) folder: PathBuf,
    pub(super) program: PathBuf,
}

/// Lays it out.
pub(super) fn stage(context: &Context) -> Result<Tree> {
    let folder = context.stage.join(format!("peersock-{VERSION}-{}", context.triple));
    let program = folder.join("bin/peersock");
    for (_, place) in COMPLETIONS {
        fs::create_dir_all(folder.join(place).parent().ok_or("a file lies in a folder")?)?;
    }
    fs::create_dir_all(folder.join("bin"))?;
    write(&program, &fs::read(context.built.join("peersock"))?, 0o755)?;
    strip(&program, "--strip-all")?;
    // It runs, or it would be of no use to pack it.
    let output = |arguments: &[&str]| -> Result<Vec<u8>> {
        let output = Command::new(&program).args(arguments).output()?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => {
                Err(format!("peersock {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
            }
        }
    };
    for (shell, place) in COMPLETIONS {
        write(&folder.join(place), &output(&["completions", shell])?, 0o644)?;
    }
    let manual = folder.join("share/man/man1");
    output(&["man", "--out", manual.to_str().ok_or("the folder's name is not UTF-8")?])?;
    licences(&folder.join("share/doc/peersock"))?;
    fs::create_dir_all(folder.join("lib/systemd/system"))?;
    let unit = fs::read(root().join("dist").join(UNIT))?;
    write(&folder.join("lib/systemd/system").join(UNIT), &unit, 0o644)?;
    Ok(Tree { folder, program })
}

/// The licences, and what else there is to read: helps and texts of errors name these pages.
pub(super) fn licences(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("docs"))?;
    let documents = [
        "README.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "docs/NETCHECK.md",
        "docs/NETWORKS.md",
        "docs/ROOT.md",
        "docs/STATUS.md",
        "docs/TURN.md",
    ];
    for name in documents {
        write(&folder.join(name), &fs::read(root().join(name))?, 0o644)?;
    }
    Ok(())
}
