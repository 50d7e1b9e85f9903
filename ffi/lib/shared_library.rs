//! Links `libpeersock.so` for users from the static library, because the functions have versions
//! (`peersock.map`). rustc passes its own list to the linker, which cannot name versions.
//!
//! Both `cargo xtask install` and the tests of the C library include this file.

use std::path::Path;
use std::process::Command;

/// Returns the command that links the static library to a shared one. `crate_folder` is `ffi/lib`.
pub(crate) fn link(crate_folder: &Path, static_library: &Path, output: &Path) -> Command {
    let mut command = Command::new("cc");
    command.args(["-shared", "-o"]).arg(output);
    command.arg("-Wl,--whole-archive").arg(static_library).arg("-Wl,--no-whole-archive");
    command.arg(format!("-Wl,--version-script={}", crate_folder.join("peersock.map").display()));
    // Programs record this name; it changes with incompatible versions. The node's threads and the exit
    // handler cannot be unloaded.
    command.args(["-Wl,-soname,libpeersock.so.0", "-Wl,-z,nodelete"]);
    command.args(["-Wl,--gc-sections", "-Wl,-z,relro,-z,now", "-Wl,--as-needed", "-Wl,-O1"]);
    command.args(["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"]);
    command
}
