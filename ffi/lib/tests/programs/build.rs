//! Building programs with the system's compiler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

/// Method of running a program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Plain,
    Sanitizers,
    Valgrind,
}

/// A program: its sources, and its arguments.
pub(crate) struct Program {
    sources: Vec<&'static str>,
    library: Option<&'static str>,
    is_static: bool,
    pub(crate) has_folder: bool,
    pub(crate) is_alone: bool,
    pub(crate) has_launcher: bool,
    pub(crate) argument: Option<&'static str>,
}

/// A program that was built.
pub(crate) struct Built {
    pub(crate) path: PathBuf,
    /// The folder that contains it, and to which it may write.
    pub(crate) folder: TempDir,
}

impl Program {
    pub(crate) fn new(source: &'static str) -> Program {
        Program {
            sources: vec![source],
            library: None,
            is_static: false,
            has_folder: false,
            is_alone: false,
            has_launcher: false,
            argument: None,
        }
    }

    /// Adds another source file.
    pub(crate) fn and(mut self, source: &'static str) -> Program {
        self.sources.push(source);
        self
    }

    /// Adds a library that pkg-config knows.
    pub(crate) fn library(mut self, name: &'static str) -> Program {
        self.library = Some(name);
        self
    }

    /// Passes a writable folder as an argument.
    pub(crate) fn with_folder(mut self) -> Program {
        self.has_folder = true;
        self
    }

    /// Runs it in a separate network namespace, which it may change.
    pub(crate) fn alone(mut self) -> Program {
        self.is_alone = true;
        self
    }

    /// Passes the path of the program `peersock` as an argument.
    pub(crate) fn with_launcher(mut self) -> Program {
        self.has_launcher = true;
        self
    }

    /// Passes a word that selects its action.
    pub(crate) fn with_argument(mut self, argument: &'static str) -> Program {
        self.argument = Some(argument);
        self
    }

    pub(crate) fn linked_statically(mut self) -> Program {
        self.is_static = true;
        self
    }

    /// Builds it. Prints the reason and returns `None` if a tool or a library is missing.
    pub(crate) fn build(&self, mode: Mode) -> Option<Built> {
        let compiler = if self.sources[0].ends_with(".cpp") { "c++" } else { "cc" };
        let flags = match self.library {
            Some(name) => pkg_config(name)?,
            None => Vec::new(),
        };
        if !works(Command::new(compiler).arg("--version")) {
            return skip(&format!("{compiler} is not installed"));
        }
        if mode == Mode::Valgrind && !works(Command::new("valgrind").arg("--version")) {
            return skip("valgrind is not installed");
        }
        if self.is_alone
            && !["ip", "nft"].iter().all(|tool| works(Command::new("unshare").args(["--net", tool, "-V"])))
        {
            return skip("network namespaces need root and the programs unshare, ip and nft");
        }
        let libraries = &*LIBRARIES;
        if self.has_launcher && !launcher().is_file() {
            return skip("peersock is not built (cargo build -p peersock-cli)");
        }
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("program");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Werror", "-g", "-O1", "-D_GNU_SOURCE", "-pthread"]);
        if compiler == "cc" {
            command.arg("-std=c11");
        }
        command.arg("-I").arg(manifest.join("include")).arg("-I").arg(manifest.join("../compat"));
        if mode == Mode::Sanitizers {
            command.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
        }
        command.args(self.sources.iter().map(|source| manifest.join("tests/c").join(source)));
        command.arg("-o").arg(&path);
        if self.is_static {
            command.arg(libraries.join("libpeersock.a")).args(["-lm", "-ldl", "-lrt", "-lutil"]);
        } else {
            // Under the name that programs record.
            let shared = folder.path().join("libpeersock.so.0");
            std::os::unix::fs::symlink(libraries.join("libpeersock.so"), &shared).expect("a link");
            command.arg(&shared).arg(format!("-Wl,-rpath,{}", folder.path().display()));
        }
        command.args(flags);
        let output = command.output().expect("the compiler was just called");
        let complaints = String::from_utf8_lossy(&output.stderr);
        if mode == Mode::Sanitizers && complaints.contains("cannot find") {
            return skip("the compiler's sanitizers are not installed");
        }
        assert!(output.status.success(), "{complaints}");
        Some(Built { path, folder })
    }
}

/// Folder of the libraries. It is the one named by PEERSOCK_LIBRARIES, in which `cargo xtask test` has just
/// built them with the rest; otherwise they are built if needed. Cargo does not do so for tests.
pub(crate) static LIBRARIES: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(folder) = std::env::var_os("PEERSOCK_LIBRARIES") {
        return folder.into();
    }
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--package", "peersock-ffi", "--lib", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.output().expect("cargo has built this, too");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let mut files = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let mut files = message["filenames"].as_array()?.iter().filter_map(|file| file.as_str());
        files.find(|file| file.ends_with("libpeersock.so")).map(PathBuf::from)
    });
    let library = files.next().expect("cargo says what it has built");
    library.parent().expect("it is in a folder").into()
});

/// Returns the path of the program `peersock`, beside the libraries, if it is built.
pub(crate) fn launcher() -> PathBuf {
    LIBRARIES.join("peersock")
}

/// Returns the compiler's flags for a library.
fn pkg_config(name: &str) -> Option<Vec<String>> {
    let output = match Command::new("pkg-config").args(["--cflags", "--libs", name]).output() {
        Ok(output) if output.status.success() => output,
        Ok(_) => return skip(&format!("{name} is not installed, with its headers")),
        Err(_) => return skip("pkg-config is not installed"),
    };
    Some(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
}

pub(crate) fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Prints why a test is not run.
fn skip<T>(reason: &str) -> Option<T> {
    let thread = std::thread::current();
    println!("SKIP {}: {reason}", thread.name().unwrap_or("a test"));
    None
}
