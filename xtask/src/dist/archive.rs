//! Compressed archives.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Context, run_quietly};
use crate::Result;

/// Packs a folder into `NAME.tar.gz`.
pub(super) fn pack(context: &Context, folder: &Path) -> Result<PathBuf> {
    let name = folder.file_name().ok_or("a folder has a name")?;
    let packed = context.out.join(name).with_added_extension("tar.gz");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=gnu", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg("--mode=u+rw,go+r-w").arg(format!("--mtime=@{}", context.time));
    // Leave out the time of packing.
    tar.arg("--use-compress-program=gzip -9n").arg("--file").arg(&packed);
    tar.arg("--directory").arg(&context.stage).arg(name);
    run_quietly(&mut tar)?;
    Ok(packed)
}
