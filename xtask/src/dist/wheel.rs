//! The Python package, for all versions of Python that it works with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Context, run_quietly};
use crate::{Result, root};

/// Makes the wheel; the reason if there is no maturin.
///
/// maturin looks at what the extension module needs, and names the oldest `manylinux` that has it: the tag is
/// a fact, not a claim. It fails if the module needs a library that not every such system has.
pub(super) fn make(context: &Context, python: &Path) -> Result<std::result::Result<PathBuf, String>> {
    let maturin = || {
        let mut command = Command::new(python);
        command.args(["-m", "maturin"]);
        command
    };
    if !maturin().arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Ok(Err(format!("a wheel: {} has no maturin", python.display())));
    }
    let folder = context.stage.join("wheels");
    let mut build = maturin();
    build
        .args(["build", "--profile", context.profile, "--locked", "--auditwheel", "check", "--out"])
        .arg(&folder);
    // Without SOURCE_DATE_EPOCH: if it changes, the library of ciphers is built once more.
    build.current_dir(root().join("python"));
    run_quietly(&mut build)?;
    let made = fs::read_dir(&folder)?.next().ok_or("maturin has made no wheel")??.path();
    let wheel = context.out.join(made.file_name().ok_or("a wheel has a name")?);
    fs::rename(made, &wheel)?;
    Ok(Ok(wheel))
}
