//! An otherwise empty root folder, as in a container.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::test::command::{run, works};

/// Requirements that a skipped test lacks.
pub(super) const NEEDS: &str = "needs root and iproute2, for namespaces";

/// A folder that programs have as their root, with a separate network and separate processes.
pub(super) struct EmptyRoot<'a> {
    place: &'a Path,
    /// True if the system's programs are there too: `/usr`, and the folders that belong to it.
    has_system: bool,
}

/// Script that fills the root. `$0` is the folder, `$1` is not empty if the system is included, and the rest
/// is the command.
const ENTER: &str = r#"
set -eu
mkdir -p "$0/proc" "$0/tmp"
mount -t proc proc "$0/proc"
if [ -n "$1" ]; then
  for name in usr bin lib lib64 sbin dev; do
    if [ -L "/$name" ]; then
      ln -sfn "$(readlink "/$name")" "$0/$name"
    elif [ -d "/$name" ]; then
      mkdir -p "$0/$name"
      mount --rbind "/$name" "$0/$name"
    fi
  done
fi
shift
ip link set lo up
exec chroot "$0" "$@"
"#;

impl<'a> EmptyRoot<'a> {
    /// Makes a root with only the folder's files; `None` if this machine does not grant namespaces.
    pub(super) fn new(place: &'a Path) -> Option<EmptyRoot<'a>> {
        let mut enter = Command::new("unshare");
        enter.args(["--mount", "--net", "--pid", "--fork", "ip", "link", "set", "lo", "up"]);
        works(enter).then_some(EmptyRoot { place, has_system: false })
    }

    /// Makes a root with the system's programs.
    pub(super) fn with_system(place: &'a Path) -> Option<EmptyRoot<'a>> {
        EmptyRoot::new(place).map(|root| EmptyRoot { has_system: true, ..root })
    }

    /// Adds a program at a path in the root, and the loader's files at the same places as here.
    pub(super) fn add(&self, program: &Path, at: &str) -> Result<()> {
        let copy = self.place.join(at.trim_start_matches('/'));
        if program != copy {
            fs::create_dir_all(copy.parent().ok_or("a program lies in a folder")?)?;
            fs::copy(program, &copy)?;
        }
        let output = Command::new("ldd").arg(program).output()?;
        let text = String::from_utf8(output.stdout)?;
        for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
            let copy = self.place.join(path.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().ok_or("a library lies in a folder")?)?;
            fs::copy(path, copy)?;
        }
        Ok(())
    }

    /// Runs a command in the root without an environment. Returns false if it failed, and its output.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new("timeout");
        command.args(["300", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", ENTER]).arg(self.place).arg(if self.has_system { "system" } else { "" });
        command.args(arguments);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
        run(command)
    }
}
