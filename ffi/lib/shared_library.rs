//! `libpeersock.so` is linked here as users get it: from the static library, because the functions have
//! versions (`peersock.map`). rustc gives the linker a list of its own, with which no versions can be named.
//!
//! `cargo xtask install` and the tests of the C library both have this file.

use std::path::Path;
use std::process::Command;

/// The command that links the static library to a shared one. `crate_folder` is `ffi/lib`.
pub(crate) fn link(crate_folder: &Path, static_library: &Path, output: &Path) -> Command {
    let mut command = Command::new("cc");
    command.args(["-shared", "-o"]).arg(output);
    command.arg("-Wl,--whole-archive").arg(static_library).arg("-Wl,--no-whole-archive");
    command.arg(format!("-Wl,--version-script={}", crate_folder.join("peersock.map").display()));
    // Programs record this name; it changes with what is not compatible. The node's threads and the exit
    // handler cannot be unloaded.
    command.args(["-Wl,-soname,libpeersock.so.0", "-Wl,-z,nodelete"]);
    command.args(["-Wl,--gc-sections", "-Wl,-z,relro,-z,now", "-Wl,--as-needed", "-Wl,-O1"]);
    command.args(["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"]);
    command
}
