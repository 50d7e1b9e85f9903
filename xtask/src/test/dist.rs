//! What `cargo xtask dist` makes, installed into places where there is nothing else, and used there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{run, works};
use super::outcome::Outcome;
use super::python;
use super::workspace::Workspace;
use crate::dist::{self, Made, VERSION};
use crate::{Result, root};

/// A program in C that needs the library's header and the library.
const PROGRAM: &str =
    "#include <peersock.h>\n#include <stdio.h>\nint main(void) { return puts(peersock_version()) < 0; }\n";

const CMAKE: &str = "\
cmake_minimum_required(VERSION 3.16)
project(program C)
find_package(peersock 0.1 REQUIRED)
foreach(kind peersock static)
  add_executable(${kind} program.c)
  target_link_libraries(${kind} PRIVATE peersock::${kind})
endforeach()
";

/// A program in Python that knows nothing of peersock.
const LISTENER: &str = "\
import socket
server = socket.create_server(('::', 7000), family=socket.AF_INET6)
print('port', server.getsockname()[1])
";

/// Makes everything, and tries each part.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let python = match python::interpreter()? {
        Ok(python) => python,
        // Without it there is no wheel, for which there is a reason then.
        Err(_) => PathBuf::from("python3"),
    };
    let made = dist::make(&workspace.target.join("dist"), &python)?;
    let scratch = workspace.target.join("dist-test");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let mut outcome = archive(&made, &scratch.join("archive"))?;
    outcome.add(deb(&made, &scratch.join("deb"))?);
    outcome.add(library(&made, &scratch.join("library"))?);
    outcome.add(wheel(&made, &scratch.join("wheel"))?);
    outcome.add(sbom(&made)?);
    if outcome.failed.is_empty() {
        fs::remove_dir_all(&scratch)?;
    }
    Ok(outcome)
}

/// The program in an empty root.
fn archive(made: &Made, place: &Path) -> Result<Outcome> {
    let what = "dist: the program's archive";
    unpack(&made.program, place)?;
    for file in [
        "share/man/man1/peersock-run.1",
        "share/doc/peersock/LICENSE-MIT",
        "lib/systemd/system/peersock-root.service",
    ] {
        if !place.join(file).is_file() {
            return Ok(Outcome::failed(format!("{what}: {file}")));
        }
    }
    in_empty_root(what, place, "/bin/peersock")
}

/// The package for Debian, installed by `dpkg` into an empty root, and removed again.
fn deb(made: &Made, place: &Path) -> Result<Outcome> {
    let what = "dist: the .deb";
    let package = match &made.deb {
        Ok(package) => package,
        Err(reason) => return Ok(Outcome::skipped(what, reason)),
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::skipped(what, "needs root, for dpkg and an empty root"));
    }
    let database = place.join("var/lib/dpkg");
    for folder in ["info", "updates"] {
        fs::create_dir_all(database.join(folder))?;
    }
    fs::write(database.join("status"), "")?;
    let dpkg = |arguments: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", place.display())).args(["--log=/dev/null", "--force-depends"]);
        dpkg.args(arguments);
        dpkg
    };
    let mut install = dpkg(&["--install"]);
    if !run({
        install.arg(package);
        install
    })?
    .0
    {
        return Ok(Outcome::failed(format!("{what}: dpkg --install")));
    }
    let mut outcome = in_empty_root(what, place, "/usr/bin/peersock")?;
    let removed = run(dpkg(&["--purge", "peersock"]))?.0 && !place.join("usr/bin/peersock").exists();
    outcome.add(named(&format!("{what}: dpkg --purge"), removed));
    Ok(outcome)
}

/// Runs the program in a root that has nothing but it, what it is linked with, and `cat`: with a network of
/// its own, without an environment.
fn in_empty_root(what: &str, place: &Path, program: &str) -> Result<Outcome> {
    let own = place.join(program.trim_start_matches('/'));
    let mut enter = Command::new("unshare");
    enter.args(["--mount", "--net", "--pid", "--fork", "ip", "link", "set", "lo", "up"]);
    if !works(enter) {
        // At least it starts.
        let (success, output) = run({
            let mut version = Command::new(&own);
            version.arg("--version");
            version
        })?;
        let mut outcome = named(what, success && output.contains(VERSION));
        outcome.add(Outcome::skipped(
            &format!("{what} in an empty root"),
            "needs root and iproute2, for namespaces",
        ));
        return Ok(outcome);
    }
    let cat = place.join("bin/cat");
    fs::create_dir_all(place.join("bin"))?;
    fs::copy("/bin/cat", &cat)?;
    for folder in ["proc", "tmp"] {
        fs::create_dir_all(place.join(folder))?;
    }
    for binary in [&own, &cat] {
        copy_libraries(binary, place)?;
    }
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["300", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]);
        command.args([
            "sh",
            "-c",
            "mount -t proc proc \"$0/proc\" && ip link set lo up && exec chroot \"$0\" \"$@\"",
        ]);
        command.arg(place).args(arguments);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
        run(command)
    };
    let (success, output) = inside(&[program, "--version"])?;
    let mut outcome = named(what, success && output.trim() == format!("peersock {VERSION}"));
    let (success, _) = inside(&[program, "demo", "--size", "1MiB"])?;
    outcome.add(named(&format!("{what}: demo"), success));
    let options =
        ["run", "--quiet", "--ephemeral", "--interface", "lo", "--network", "ff0001ffff000000", "--"];
    let (success, output) = inside(&[&[program], &options[..], &["/bin/cat", "/proc/self/maps"]].concat())?;
    outcome.add(named(&format!("{what}: run"), success && output.contains("libpeersock_preload")));
    Ok(outcome)
}

/// Copies what the loader needs for a program to the same places below a root.
fn copy_libraries(program: &Path, place: &Path) -> Result<()> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let copy = place.join(path.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().ok_or("a library lies in a folder")?)?;
        fs::copy(path, copy)?;
    }
    Ok(())
}

/// The C library, unpacked anywhere: with pkg-config and with CMake, shared and static.
fn library(made: &Made, place: &Path) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let prefix = place.join("anywhere");
    unpack(&made.library, &prefix)?;
    fs::write(place.join("program.c"), PROGRAM)?;
    fs::write(place.join("CMakeLists.txt"), CMAKE)?;
    let says_version = |program: &str| -> Result<bool> {
        let (success, output) = run(Command::new(place.join(program)))?;
        Ok(success && output.trim() == VERSION)
    };
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(place).env_remove("LD_LIBRARY_PATH");
        shell.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        shell
    };
    let what = "dist: the C library with pkg-config";
    outcome.add(match works(shell("cc --version && pkg-config --version")) {
        true => {
            let built = run(shell("cc program.c $(pkg-config --cflags --libs peersock) -o configured"))?.0;
            named(what, built && says_version("configured")?)
        }
        false => Outcome::skipped(what, "a C compiler or pkg-config is not installed"),
    });
    let what = "dist: the C library with CMake";
    outcome.add(match works(shell("cc --version && cmake --version")) {
        true => {
            let script = "cmake -S . -B build -DCMAKE_PREFIX_PATH=\"$PWD/anywhere\" && cmake --build build";
            let built = run(shell(script))?.0;
            named(what, built && says_version("build/peersock")? && says_version("build/static")?)
        }
        false => Outcome::skipped(what, "a C compiler or cmake is not installed"),
    });
    Ok(outcome)
}

/// The wheel in a virtual environment that has nothing else.
fn wheel(made: &Made, place: &Path) -> Result<Outcome> {
    let what = "dist: the wheel";
    let wheel = match &made.wheel {
        Ok(wheel) => wheel,
        Err(reason) => return Ok(Outcome::skipped(what, reason)),
    };
    // For which systems it is, is a fact that was looked up.
    if !wheel.to_string_lossy().contains("-abi3-manylinux_") {
        return Ok(Outcome::failed(format!(
            "{what}: its name says nothing of where it works: {}",
            wheel.display()
        )));
    }
    fs::create_dir_all(place)?;
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "venv"]).current_dir(place);
    if !run(make)?.0 {
        return Ok(Outcome::skipped(what, "a virtual environment cannot be made (python3-venv)"));
    }
    let python = |arguments: &[&str]| {
        let mut python = Command::new(place.join("venv/bin/python"));
        python.args(arguments).current_dir(place).env_remove("PYTHONPATH");
        python
    };
    let mut install = python(&["-m", "pip", "install", "--quiet", "--no-index"]);
    install.arg(wheel);
    if !run(install)?.0 {
        return Ok(Outcome::failed(format!("{what}: pip install")));
    }
    fs::write(place.join("listener.py"), LISTENER)?;
    let options = ["-m", "peersock", "run", "--interface", "lo", "--network", "ff0001ffff000000"];
    let (success, output) = run(python(&[&options[..], &["listener.py"]].concat()))?;
    Ok(named(what, success && output.contains("port 7000")))
}

/// The list of dependencies: it names what everybody knows to be in there.
fn sbom(made: &Made) -> Result<Outcome> {
    let list: serde_json::Value = serde_json::from_slice(&fs::read(&made.sbom)?)?;
    let packages = list["packages"].as_array().ok_or("the list of dependencies has no packages")?;
    let has = |name: &str| packages.iter().any(|package| package["name"] == name);
    let wanted =
        ["peersock-cli", "peersock-ffi", "peersock-python", "peersock-preload", "aws-lc-rs", "pyo3", "libc"];
    let missing: Vec<&str> = wanted.into_iter().filter(|name| !has(name)).collect();
    let unwanted: Vec<&str> =
        ["xtask", "proptest", "cbindgen"].into_iter().filter(|name| has(name)).collect();
    Ok(named(
        &format!("dist: the list of dependencies: {missing:?} {unwanted:?}"),
        missing.is_empty() && unwanted.is_empty(),
    ))
}

/// Unpacks an archive without the folder that it has inside.
fn unpack(archive: &Path, place: &Path) -> Result<()> {
    fs::create_dir_all(place)?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components=1", "--file"]).arg(archive).arg("--directory").arg(place);
    tar.current_dir(root());
    match tar.status()?.success() {
        true => Ok(()),
        false => Err(format!("{} cannot be unpacked", archive.display()).into()),
    }
}

fn named(what: &str, success: bool) -> Outcome {
    if success { Outcome::passed() } else { Outcome::failed(what) }
}
