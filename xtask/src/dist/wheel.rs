//! The Python package, for all versions of Python that it works with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Context, run_quietly};
use crate::{Result, root};

/// Makes the wheel. Returns the reason if there is no maturin.
///
/// maturin checks the extension module's requirements and names the oldest matching `manylinux`, so the tag
/// is a fact, not a claim. It fails if the module needs a library that some such systems lack.
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
    // Leave SOURCE_DATE_EPOCH unset, because each change of it rebuilds the library of ciphers.
    build.current_dir(root().join("bindings/python"));
    run_quietly(&mut build)?;
    let made = fs::read_dir(&folder)?.next().ok_or("maturin has made no wheel")??.path();
    let wheel = context.out.join(made.file_name().ok_or("a wheel has a name")?);
    fs::rename(made, &wheel)?;
    Ok(Ok(wheel))
}
