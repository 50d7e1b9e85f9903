//! Installing the C library: the shared and the static one, headers, and a pkg-config file.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::{Result, cargo, root};

/// Shown under `cargo xtask install --help`.
pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask install --prefix ~/.local
  cargo xtask install --prefix /usr --destdir debian/tmp --libdir lib/x86_64-linux-gnu
  PKG_CONFIG_PATH=~/.local/lib/pkgconfig cc program.c $(pkg-config --cflags --libs peersock)";

/// What `install` can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// Where to
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
    /// A folder that stands for the root of the file system, for packages
    #[arg(long)]
    destdir: Option<PathBuf>,
    /// The folder of libraries in the prefix
    #[arg(long, default_value = "lib")]
    libdir: PathBuf,
    /// Install a debug build
    #[arg(long)]
    debug: bool,
}

/// Builds the library and installs it.
///
/// # Errors
/// When it cannot be built, or a file not be written.
pub(crate) fn run(options: &Options) -> Result<()> {
    let built = build(options.debug)?;
    let prefix = std::path::absolute(&options.prefix)?;
    let place = match &options.destdir {
        Some(destdir) => std::path::absolute(destdir)?.join(prefix.strip_prefix("/").unwrap_or(&prefix)),
        None => prefix.clone(),
    };
    let version = env!("CARGO_PKG_VERSION");
    let lib = place.join(&options.libdir);
    let include = place.join("include");
    for folder in [&lib.join("pkgconfig"), &include.join("peersock/compat/zts")] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let shared = format!("libpeersock.so.{version}");
    copy(&built.join("libpeersock.so"), &lib.join(&shared), 0o755)?;
    copy(&built.join("libpeersock.a"), &lib.join("libpeersock.a"), 0o644)?;
    let soname = format!("libpeersock.so.{}", version.split('.').next().unwrap_or("0"));
    link(&shared, &lib.join(&soname))?;
    link(&soname, &lib.join("libpeersock.so"))?;
    copy(&crate::header::path(), &include.join("peersock.h"), 0o644)?;
    for file in ["ZeroTierSockets.h", "zts/state.h", "zts/network.h", "zts/sockets.h", "zts/other.h"] {
        copy(&root().join("ffi/compat").join(file), &include.join("peersock/compat").join(file), 0o644)?;
    }
    let description = description(&prefix, &options.libdir, version)?;
    write(&lib.join("pkgconfig/peersock.pc"), description.as_bytes())
}

/// Builds the library; gives the folder that it is in.
fn build(debug: bool) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "peersock-ffi", "--lib"]);
    if !debug {
        command.arg("--release");
    }
    if !command.status()?.success() {
        return Err("the library cannot be built".into());
    }
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    };
    Ok(target.join(if debug { "debug" } else { "release" }))
}

/// The pkg-config file.
fn description(prefix: &Path, libdir: &Path, version: &str) -> Result<String> {
    let template = fs::read_to_string(root().join("ffi/lib/peersock.pc.in"))?;
    let prefix = prefix.to_str().ok_or("the prefix is not UTF-8")?;
    let libdir = libdir.to_str().ok_or("the folder of libraries is not UTF-8")?;
    Ok(template.replace("@prefix@", prefix).replace("@libdir@", libdir).replace("@version@", version))
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    write(to, &fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?)?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

fn link(target: &str, at: &Path) -> Result<()> {
    remove(at)?;
    symlink(target, at).map_err(|error| format!("{}: {error}", at.display()).into())
}

fn write(to: &Path, content: &[u8]) -> Result<()> {
    // A library that a program runs with must not be written over.
    remove(to)?;
    println!("{}", to.display());
    fs::write(to, content).map_err(|error| format!("{}: {error}", to.display()).into())
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
    fn the_pkg_config_file_has_no_placeholder_left() {
        let text = description(Path::new("/opt/it"), Path::new("lib64"), "1.2.3").expect("a template");
        assert!(text.contains("prefix=/opt/it\n") && text.contains("libdir=${prefix}/lib64\n"), "{text}");
        assert!(text.contains("Version: 1.2.3\n") && !text.contains('@'), "{text}");
    }
}
