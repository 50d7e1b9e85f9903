//! The program to run, and how its socket calls can be intercepted.

use std::env;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use peersock_bsd::elf::{is_32_bit, is_go, is_static, needs_sanitizer};

use crate::failure::{Failure, Outcome};

/// Mode bit that makes a process run as the file's user, and bits that do so for the group. Set-group-ID
/// without the group's execute bit has another meaning.
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2010;

/// Exit statuses of shells for a missing program, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const CANNOT_RUN: u8 = 126;

/// Number of bytes read from the beginning of a file.
const HEAD_BYTES: u64 = 64 << 10;

/// The way in which a program's socket calls can be intercepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// By a preloaded library.
    Library,
    /// Only by the kernel, for this reason.
    Kernel(Bypass),
}

/// The reason why a preloaded library does not see a program's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bypass {
    Go,
    Static,
    /// The file has capabilities, which root has anyway.
    Capabilities,
    /// The program needs AddressSanitizer's library.
    Sanitizer,
}

impl Bypass {
    /// Returns the reason as part of a message about the program.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Go => "is written in Go: it makes system calls itself",
            Self::Static => "is linked statically: it makes system calls itself",
            Self::Capabilities => "has capabilities in its file: the system ignores preloaded libraries",
            Self::Sanitizer => "is built with AddressSanitizer: it ends if a library is loaded before that",
        }
    }
}

/// Finds the program as a shell would, and how it can be reached; fails if it cannot.
pub(super) fn check(program: &Path) -> Outcome<(PathBuf, Reach)> {
    let path = find(program)?;
    let unreadable = |error: io::Error| {
        Failure::with_status(
            CANNOT_RUN,
            format_args!("cannot read {}: {error}", path.display()),
            "run it as a user who may read it, because the file shows how it can be put on the overlay",
        )
    };
    let metadata = path.metadata().map_err(unreadable)?;
    if changes_identity(&metadata) {
        return Err(Failure::new(
            format_args!(
                "{} changes its user when it starts (its setuid or setgid bit is set), so the system ignores \
                 preloaded libraries",
                path.display()
            ),
            "run it as the user that it changes to, or use `peersock dial`",
        ));
    }
    let file = File::open(&path).map_err(unreadable)?;
    let head = head(&file).map_err(unreadable)?;
    if let Some(interpreter) = script_interpreter(&head) {
        let reach = check_interpreter(Path::new(&interpreter), &path)?;
        return Ok((path, reach));
    }
    if is_32_bit(&head) {
        return Err(Failure::new(
            format_args!(
                "{} is a 32-bit program, and the library that takes its socket calls is not",
                path.display()
            ),
            "use a 64-bit build of it",
        ));
    }
    let reach = if is_go(&head) {
        Reach::Kernel(Bypass::Go)
    } else if is_static(&head) {
        Reach::Kernel(Bypass::Static)
    } else if has_capabilities(&path) && !rustix::process::getuid().is_root() {
        Reach::Kernel(Bypass::Capabilities)
    } else if needs_sanitizer(file.as_fd(), &head) {
        Reach::Kernel(Bypass::Sanitizer)
    } else {
        Reach::Library
    };
    Ok((path, reach))
}

/// Reads the beginning of a file.
pub(super) fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

fn find(program: &Path) -> Outcome<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
    };
    let not_found = || {
        Failure::with_status(
            NOT_FOUND,
            format_args!("{}: not found", program.display()),
            "check the spelling and PATH, or give the program's path",
        )
    };
    if !program.as_os_str().as_bytes().contains(&b'/') {
        let path = env::var_os("PATH").unwrap_or_default();
        return env::split_paths(&path)
            .map(|folder| folder.join(program))
            .find(is_program)
            .ok_or_else(not_found);
    }
    let path = program.to_owned();
    match path.metadata() {
        _ if is_program(&path) => Ok(path),
        Ok(metadata) if metadata.is_dir() => Err(Failure::with_status(
            CANNOT_RUN,
            format_args!("{} is a directory", path.display()),
            "give the path of a program in it",
        )),
        Ok(_) => Err(Failure::with_status(
            CANNOT_RUN,
            format_args!("{} is not executable", path.display()),
            "make it so with `chmod +x` if it is a program, or give the program that reads it",
        )),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::with_status(
            CANNOT_RUN,
            format_args!("cannot look at {}: {error}", path.display()),
            "check who may enter its folders, or run as another user",
        )),
        Err(_) => Err(not_found()),
    }
}

/// Checks the interpreter in the first line of `script`, as [`check`] does.
fn check_interpreter(interpreter: &Path, script: &Path) -> Outcome<Reach> {
    check(interpreter).map(|(_, reach)| reach).map_err(|failure| match failure.status() {
        NOT_FOUND => Failure::with_status(
            NOT_FOUND,
            format_args!(
                "{}, which {} names in its first line, is not found",
                interpreter.display(),
                script.display()
            ),
            "install it, or correct the line",
        ),
        _ => failure,
    })
}

/// Returns true if the system runs the program as another user or group than the caller's.
fn changes_identity(metadata: &Metadata) -> bool {
    let user = metadata.mode() & SET_USER != 0 && metadata.uid() != rustix::process::geteuid().as_raw();
    let group =
        metadata.mode() & SET_GROUP == SET_GROUP && metadata.gid() != rustix::process::getegid().as_raw();
    user || group
}

/// Returns the interpreter in a script's first line.
fn script_interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    match words.next()? {
        env if env.ends_with("/env") => words.find(|word| !word.starts_with('-')).map(str::to_owned),
        interpreter => Some(interpreter.to_owned()),
    }
}

/// Returns true if the file gives capabilities to its process (capabilities(7)).
fn has_capabilities(path: &Path) -> bool {
    rustix::fs::getxattr(path, "security.capability", &mut [0u8; 64][..]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_their_interpreter() {
        assert_eq!(script_interpreter(b"#!/bin/sh -e\necho"), Some("/bin/sh".into()));
        assert_eq!(script_interpreter(b"#! /usr/bin/env -S python3 -u\n"), Some("python3".into()));
        assert_eq!(script_interpreter(b"\x7fELF"), None);
    }

    #[test]
    fn what_changes_its_user_is_refused_to_root_too() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = tempfile::NamedTempFile::new().expect("a file");
        let with_mode = |mode| {
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).expect("its owner may");
            file.as_file().metadata().expect("a file")
        };
        // The file has this process's user and group already.
        assert!(!changes_identity(&with_mode(0o6755)));
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP what_changes_its_user_is_refused_to_root_too: only root can give files away");
            return;
        }
        std::os::unix::fs::chown(file.path(), Some(65534), Some(65534)).expect("root may");
        assert!(changes_identity(&with_mode(0o4755)));
        assert!(changes_identity(&with_mode(0o2755)));
        // This mode bit once marked mandatory locking.
        assert!(!changes_identity(&with_mode(0o2644)));
        assert!(!changes_identity(&with_mode(0o755)));
    }

    #[test]
    fn what_does_not_exist_is_not_found() {
        assert_eq!(check(Path::new("/no/such/program")).expect_err("it does not exist").status(), 127);
        assert_eq!(check(Path::new("no-such-program")).expect_err("it does not exist").status(), 127);
    }
}
