//! The package for Debian and its derivatives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::Tree;
use super::{Context, VERSION, run_quietly};
use crate::Result;
use crate::install::write;

/// Makes the package. Returns the reason if this machine lacks `dpkg-deb`.
pub(super) fn make(context: &Context, tree: &Tree) -> Result<std::result::Result<PathBuf, String>> {
    let architecture = match context.processor() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        processor => return Ok(Err(format!("a .deb: Debian's name of {processor} is not known"))),
    };
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        return Ok(Err("a .deb: dpkg-deb is not installed".to_owned()));
    }
    let name = format!("peersock_{VERSION}_{architecture}");
    let folder = context.stage.join(&name);
    fs::create_dir_all(folder.join("DEBIAN"))?;
    run_quietly(Command::new("cp").arg("-a").arg(&tree.folder).arg(folder.join("usr")))?;
    let documents = folder.join("usr/share/doc/peersock");
    fs::rename(documents.join("CHANGELOG.md"), documents.join("changelog"))?;
    write(&documents.join("copyright"), copyright(&documents)?.as_bytes(), 0o644)?;
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::remove_file(documents.join(name))?;
    }
    let mut compressed = vec![documents.join("changelog")];
    for page in fs::read_dir(folder.join("usr/share/man/man1"))? {
        compressed.push(page?.path());
    }
    compressed.sort();
    run_quietly(Command::new("gzip").args(["-9n", "--"]).args(&compressed))?;
    let libc =
        newest_libc(&fs::read(&tree.program)?).ok_or("the program does not say which C library it needs")?;
    let size = size(&folder.join("usr"))?.div_ceil(1024);
    let control = format!(
        "Package: peersock
Version: {VERSION}
Architecture: {architecture}
Maintainer: The peersock developers
Installed-Size: {size}
Depends: libc6 (>= {libc}), libgcc-s1
Section: net
Priority: optional
Description: encrypted peer-to-peer sockets between programs
 A virtual network of programs, each with its own TCP/IP stack and encrypted
 overlay: no root, no daemon and no TUN device is needed. The
 program peersock connects standard input and output across such networks,
 and puts unmodified programs on them.
"
    );
    write(&folder.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    let package = context.out.join(name + ".deb");
    let mut build = Command::new("dpkg-deb");
    build.env("SOURCE_DATE_EPOCH", context.time.to_string());
    build.args(["--root-owner-group", "-Zxz", "--build"]).arg(&folder).arg(&package);
    run_quietly(&mut build)?;
    Ok(Ok(package))
}

/// Makes Debian's file of licences. Every Debian system has the text of the Apache licence.
fn copyright(documents: &Path) -> Result<String> {
    let mit = fs::read_to_string(documents.join("LICENSE-MIT"))?;
    let (head, text) = mit.split_once("\n\nPermission").ok_or("the MIT licence has another form")?;
    let holder = head.lines().last().unwrap_or_default().trim_start_matches("Copyright (c) ");
    let indented: Vec<String> = format!("Permission{text}")
        .lines()
        .map(|line| if line.trim().is_empty() { " .".to_owned() } else { format!(" {line}") })
        .collect();
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: {holder}
License: MIT or Apache-2.0

License: MIT
{}

License: Apache-2.0
 On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.
",
        indented.join("\n")
    ))
}

/// Returns the newest version of the C library whose symbols a program, or a library inside it, needs.
fn newest_libc(program: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"GLIBC_";
    let after = program.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let versions = after.filter_map(|(at, _)| {
        let rest = &program[at + MARK.len()..];
        let length = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'.'))?;
        let text = std::str::from_utf8(&rest[..length]).ok()?;
        text.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
    });
    let newest = versions.max()?;
    Some(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

/// Returns the bytes of all files below a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_decides_which_c_library_is_needed() {
        let program = b"x\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE\0";
        assert_eq!(newest_libc(program).as_deref(), Some("2.34"));
        assert_eq!(newest_libc(b"nothing"), None);
    }
}
