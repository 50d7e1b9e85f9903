//! Installing the C library: the shared and the static one, headers, and files for pkg-config and CMake.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::{Result, cargo, root};

#[path = "../../ffi/lib/shared_library.rs"]
mod shared_library;

/// Text for `cargo xtask install --help`.
pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask install --prefix ~/.local
  cargo xtask install --prefix /usr --destdir debian/tmp --libdir lib/x86_64-linux-gnu
  PKG_CONFIG_PATH=~/.local/lib/pkgconfig cc program.c $(pkg-config --cflags --libs peersock)";

/// Version of the library.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Options of `install`.
#[derive(Args)]
pub(crate) struct Options {
    /// Install below this folder
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
    /// Write below this folder in place of the root of the file system, for packages
    #[arg(long)]
    destdir: Option<PathBuf>,
    /// Folder of libraries below the prefix
    #[arg(long, default_value = "lib")]
    libdir: PathBuf,
    /// Install a debug build
    #[arg(long)]
    debug: bool,
}

/// Builds and installs the library, and prints the compiler settings that find it.
/// Fails if the library cannot be built, or a file cannot be written.
pub(crate) fn run(options: &Options) -> Result<()> {
    let built = build(if options.debug { DEV } else { "release" })?;
    let prefix = std::path::absolute(&options.prefix)?;
    let place = match &options.destdir {
        Some(destdir) => std::path::absolute(destdir)?.join(prefix.strip_prefix("/").unwrap_or(&prefix)),
        None => prefix.clone(),
    };
    for file in copy_to(&place, Prefix::Fixed(&prefix), &options.libdir, &built)? {
        println!("{}", file.display());
    }
    if options.destdir.is_none() && !is_searched(&prefix) {
        let folder = prefix.join(&options.libdir).join("pkgconfig");
        println!("\npkg-config finds it with\n  export PKG_CONFIG_PATH={}", folder.display());
        println!("and CMake with -DCMAKE_PREFIX_PATH={}", prefix.display());
    }
    Ok(())
}

/// Reference from the installed files to their folder.
#[derive(Clone, Copy)]
pub(crate) enum Prefix<'a> {
    /// The absolute path of the folder.
    Fixed(&'a Path),
    /// A relative path from each file, so that all files may be moved together.
    Movable,
}

/// Copies a built library to a prefix. Returns the files that were written.
/// Fails if a file is missing or cannot be written.
pub(crate) fn copy_to(place: &Path, prefix: Prefix<'_>, libdir: &Path, built: &Path) -> Result<Vec<PathBuf>> {
    let (lib, include) = (place.join(libdir), place.join("include"));
    let (pkgconfig, cmake) = (lib.join("pkgconfig"), lib.join("cmake/peersock"));
    for folder in [&pkgconfig, &cmake, &include.join("peersock/compat/zts")] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut files = Vec::new();
    let mut copy = |from: &Path, to: PathBuf, mode| -> Result<()> {
        let content = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
        write(&to, &content, mode)?;
        files.push(to);
        Ok(())
    };
    let shared = format!("libpeersock.so.{VERSION}");
    copy(&link_shared(built)?, lib.join(&shared), 0o755)?;
    copy(&built.join("libpeersock.a"), lib.join("libpeersock.a"), 0o644)?;
    copy(&crate::header::path(), include.join("peersock.h"), 0o644)?;
    for file in ["ZeroTierSockets.h", "zts/state.h", "zts/network.h", "zts/sockets.h", "zts/other.h"] {
        copy(&root().join("ffi/compat").join(file), include.join("peersock/compat").join(file), 0o644)?;
    }
    let soname = format!("libpeersock.so.{}", VERSION.split('.').next().unwrap_or("0"));
    link(&shared, &lib.join(&soname))?;
    link(&soname, &lib.join("libpeersock.so"))?;
    for (name, folder) in [
        ("peersock.pc", &pkgconfig),
        ("peersock-config.cmake", &cmake),
        ("peersock-config-version.cmake", &cmake),
    ] {
        let file = folder.join(name);
        write(&file, fill_in(name, prefix, libdir)?.as_bytes(), 0o644)?;
        files.push(file);
    }
    Ok(files)
}

/// Profile of Cargo.toml for debugging, whose folder has another name.
const DEV: &str = "dev";

/// Builds the library. Returns its folder.
/// Fails if the library does not build.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    if !command(profile).status()?.success() {
        return Err("the library cannot be built".into());
    }
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    };
    Ok(target.join(if profile == DEV { "debug" } else { profile }))
}

/// Links the shared library, whose functions have versions, beside the static one.
fn link_shared(built: &Path) -> Result<PathBuf> {
    let linked = built.join(format!("libpeersock.so.{VERSION}"));
    let archive = built.join("libpeersock.a");
    crate::dist::run_quietly(&mut shared_library::link(&root().join("ffi/lib"), &archive, &linked))?;
    Ok(linked)
}

/// Returns the command that builds the library.
pub(crate) fn command(profile: &str) -> Command {
    let mut command = cargo();
    // The program has no library. Name it anyway, because cargo unifies the features of all named packages.
    // So the shared dependencies, nearly all, are built once for both.
    command.args(["build", "--package", "peersock-ffi", "--package", "peersock-cli", "--lib"]);
    command.args(["--profile", profile]);
    command
}

/// Returns true if compilers, pkg-config and the loader search this prefix by default.
fn is_searched(prefix: &Path) -> bool {
    ["/usr", "/"].iter().any(|searched| prefix == Path::new(searched))
}

/// Fills in one of the files that tell build systems where the library is.
fn fill_in(name: &str, prefix: Prefix<'_>, libdir: &Path) -> Result<String> {
    let template = fs::read_to_string(root().join(format!("ffi/lib/{name}.in")))?;
    let up = |below: usize| vec![".."; libdir.components().count() + below].join("/");
    let libdir = libdir.to_str().ok_or("the folder of libraries is not UTF-8")?;
    let (prefix, is_searched) = match prefix {
        Prefix::Fixed(prefix) => {
            (prefix.to_str().ok_or("the prefix is not UTF-8")?.to_owned(), is_searched(prefix))
        }
        Prefix::Movable => (format!("${{pcfiledir}}/{}", up(1)), false),
    };
    let mut parts = VERSION.split('.');
    let mut part = || parts.next().unwrap_or("0");
    Ok(template
        .replace("@prefix@", &prefix)
        .replace("@libdir@", libdir)
        // Programs find the library where they were linked with it, also without LD_LIBRARY_PATH.
        .replace("@rpath@", if is_searched { "" } else { "-Wl,-rpath,${libdir} " })
        .replace("@up@", &up(2))
        .replace("@version@", VERSION)
        .replace("@major@", part())
        .replace("@minor@", part()))
}

fn link(target: &str, at: &Path) -> Result<()> {
    remove(at)?;
    symlink(target, at).map_err(|error| format!("{}: {error}", at.display()).into())
}

/// Replaces a file. It must not overwrite in place, because programs may run with the library.
pub(crate) fn write(to: &Path, content: &[u8], mode: u32) -> Result<()> {
    remove(to)?;
    fs::write(to, content).map_err(|error| format!("{}: {error}", to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", file.display()).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_has_a_placeholder_left() {
        for name in ["peersock.pc", "peersock-config.cmake", "peersock-config-version.cmake"] {
            let text =
                fill_in(name, Prefix::Fixed(Path::new("/opt/it")), Path::new("lib64")).expect("a template");
            assert!(!text.contains('@') && text.contains(VERSION), "{text}");
        }
    }

    #[test]
    fn the_pkg_config_file_says_where_the_library_is() {
        let text = |prefix| fill_in("peersock.pc", prefix, Path::new("lib/multi")).expect("a template");
        let fixed = text(Prefix::Fixed(Path::new("/opt/it")));
        assert!(
            fixed.contains("prefix=/opt/it\n") && fixed.contains("libdir=${prefix}/lib/multi\n"),
            "{fixed}"
        );
        assert!(fixed.contains("-Wl,-rpath,${libdir} -lpeersock\n"), "{fixed}");
        assert!(!text(Prefix::Fixed(Path::new("/usr"))).contains("rpath"));
        assert!(text(Prefix::Movable).contains("prefix=${pcfiledir}/../../..\n"));
    }
}
