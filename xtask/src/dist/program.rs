//! The program with its other files, laid out as below `/usr`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Context, VERSION, strip};
use crate::install::write;
use crate::{Result, root};

/// Shells, and the paths of their completion files.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/peersock"),
    ("fish", "share/fish/vendor_completions.d/peersock.fish"),
    ("zsh", "share/zsh/vendor-completions/_peersock"),
];

/// Service unit of a root, which does not start by default.
const UNIT: &str = "peersock-root.service";

/// The staged files.
pub(super) struct Tree {
    pub(super) folder: PathBuf,
    pub(super) program: PathBuf,
}

/// Stages the program and its files.
pub(super) fn stage(context: &Context) -> Result<Tree> {
    let folder = context.stage.join(format!("peersock-{VERSION}-{}", context.triple));
    let program = folder.join("bin/peersock");
    for (_, place) in COMPLETIONS {
        fs::create_dir_all(folder.join(place).parent().ok_or("a file lies in a folder")?)?;
    }
    fs::create_dir_all(folder.join("bin"))?;
    write(&program, &fs::read(context.built.join("peersock"))?, 0o755)?;
    strip(&program, "--strip-all")?;
    // Run the program to make its pages. That also proves that it runs.
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
    let unit = fs::read(root().join("packaging").join(UNIT))?;
    write(&folder.join("lib/systemd/system").join(UNIT), &unit, 0o644)?;
    Ok(Tree { folder, program })
}

/// Copies the licences, and the other documents that helps and error texts name.
pub(super) fn licences(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("docs/use"))?;
    fs::create_dir_all(folder.join("docs/reference"))?;
    let documents = [
        "README.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "docs/reference/RULES.md",
        "docs/reference/SETTINGS.md",
        "docs/use/NETCHECK.md",
        "docs/use/NETWORKS.md",
        "docs/use/ROOT.md",
        "docs/use/STATUS.md",
        "docs/use/TURN.md",
    ];
    for name in documents {
        write(&folder.join(name), &fs::read(root().join(name))?, 0o644)?;
    }
    Ok(())
}
