//! The packages of other languages, in `bindings/`: each with its language's own tests, and the C library as
//! users install it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{run, works};
use super::outcome::Outcome;
use super::workspace::{self, Workspace};
use crate::install::{self, Prefix};
use crate::{Result, root};

/// Source files of the package for Node.js.
const NODE_FILES: &[&str] =
    &["addon.c", "build.sh", "index.js", "index.d.ts", "package.json", "README.md", "test"];

/// Source files of the package for Go.
const GO_FILES: &[&str] = &["go.mod", "node.go", "socket.go", "README.md"];

/// Builds and tests the packages.
/// Fails if the library cannot be installed, or a file cannot be copied.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let (folder, built) = (workspace.target.join("bindings"), workspace.target.join("debug"));
    let mut total = Outcome::default();
    let languages: [(&str, Needs, Test); 2] = [("Go", has_go(), go), ("Node.js", has_node(), node)];
    let mut installed = false;
    for (name, has, test) in languages {
        let what = format!("bindings for {name}");
        if let Err(reason) = has {
            total.add(Outcome::skipped(&what, reason));
            continue;
        }
        if !installed {
            if !run(workspace::build())?.0 {
                return Ok(Outcome::failed("the C library does not build"));
            }
            install(&folder.join("prefix"), &built)?;
            installed = true;
        }
        total.add(test(&folder, &built, &what)?);
    }
    Ok(total)
}

/// The missing requirement of a package, if any.
type Needs = std::result::Result<(), &'static str>;

/// Tests one package, with the installed library in a folder, and the program in another one.
type Test = fn(&Path, &Path, &str) -> Result<Outcome>;

/// Installs the library as `cargo xtask install` does.
fn install(prefix: &Path, built: &Path) -> Result<()> {
    install::copy_to(prefix, Prefix::Fixed(prefix), Path::new("lib"), built)?;
    // Remove the static library, which is large and unused here.
    Ok(fs::remove_file(prefix.join("lib/libpeersock.a"))?)
}

fn has_compiler() -> Needs {
    match works(program("cc", &["--version"])) && works(program("pkg-config", &["--version"])) {
        true => Ok(()),
        false => Err("a C compiler or pkg-config is not installed"),
    }
}

fn has_go() -> Needs {
    has_compiler()?;
    let has_version = "case $(go env GOVERSION) in go1.1[0-8]*|go1.[0-9].*|'') exit 1; esac";
    if !works(program("sh", &["-c", has_version])) {
        return Err("Go 1.19 or later is not installed (golang)");
    }
    Ok(())
}

fn go(folder: &Path, built: &Path, what: &str) -> Result<Outcome> {
    let go = |arguments: &[&str]| {
        let mut command = program("go", arguments);
        command.current_dir(root().join("bindings/go"));
        command.env("PKG_CONFIG_PATH", pkg_config_path(folder)).env("GOCACHE", folder.join("go"));
        // There are no modules to load, and no toolchains.
        command.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOFLAGS", "").env("CGO_ENABLED", "1");
        command.env("PEERSOCK_TEST_PROGRAM", built.join("peersock"));
        command
    };
    let (_, unformatted) = run(program("gofmt", &["-l", &root().join("bindings/go").to_string_lossy()]))?;
    let mut total = named(what, "gofmt", unformatted.is_empty());
    total.add(named(what, "vet", run(go(&["vet", "."]))?.0));
    // The race detector does not exist for every machine.
    let mut test = vec!["test", "-count=1", "-v", "-race", "."];
    if !works(go(&["build", "-race", "runtime/race"])) {
        total.add(Outcome::skipped(&format!("{what}: races"), "Go comes without its race detector here"));
        test.retain(|argument| *argument != "-race");
    }
    let (success, output) = run(go(&test))?;
    total.add(counted(what, success, go_results(&output)));
    Ok(total)
}

/// Counts the results of `go test -v`. Indented subtests count with their test.
fn go_results(output: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in output.lines() {
        if line.starts_with("--- PASS: ") {
            outcome.add(Outcome::passed());
        } else if let Some(name) = line.strip_prefix("--- FAIL: ") {
            outcome.add(Outcome::failed(format!("Go: {name}")));
        }
    }
    outcome
}

fn has_node() -> Needs {
    has_compiler()?;
    if !works(program("node", &["-e", "process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)"])) {
        return Err("Node.js 18 or later is not installed (nodejs)");
    }
    let has_headers = "const { dirname, resolve } = require('node:path');
        const folder = resolve(dirname(fs.realpathSync(process.execPath)), '../include/node');
        process.exit(fs.existsSync(`${process.env.NODE_INCLUDE ?? folder}/node_api.h`) ? 0 : 1)";
    if !works(program("node", &["-e", has_headers])) {
        return Err("the headers of Node.js are not installed (libnode-dev)");
    }
    Ok(())
}

fn node(folder: &Path, built: &Path, what: &str) -> Result<Outcome> {
    let package = folder.join("node");
    let _ = fs::remove_dir_all(&package);
    copy(&root().join("bindings/node"), &package, NODE_FILES)?;
    let mut build = program("sh", &["build.sh"]);
    build.current_dir(&package).env("PKG_CONFIG_PATH", pkg_config_path(folder)).env("CFLAGS", "-Werror");
    let mut total = named(what, "building", run(build)?.0);
    let mut test = program("node", &["--test-reporter=tap", "test/peersock.test.js"]);
    test.current_dir(&package).env("PEERSOCK_TEST_PROGRAM", built.join("peersock"));
    let (success, output) = run(test)?;
    total.add(counted(what, success, tap_results(&output)));
    Ok(total)
}

/// Counts the results of Node.js in the Test Anything Protocol. Indented subtests count with their test.
fn tap_results(output: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in output.lines() {
        let test = |line: &str| line.split_once(" - ").map_or(line, |(_, name)| name).to_owned();
        if line.starts_with("ok ") {
            outcome.add(Outcome::passed());
        } else if let Some(line) = line.strip_prefix("not ok ") {
            outcome.add(Outcome::failed(format!("Node.js: {}", test(line))));
        }
    }
    outcome
}

/// Adds a failure if the run failed without a failed test, or ran no tests.
fn counted(what: &str, success: bool, mut outcome: Outcome) -> Outcome {
    if outcome.failed.is_empty() && (!success || outcome.passed == 0) {
        outcome.add(Outcome::failed(format!("{what}: the tests, before or after them")));
    }
    outcome
}

fn named(what: &str, part: &str, success: bool) -> Outcome {
    Outcome::of(format!("{what}: {part}"), success)
}

fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

fn pkg_config_path(folder: &Path) -> PathBuf {
    folder.join("prefix/lib/pkgconfig")
}

/// Copies the packages' source files, without built files.
pub(super) fn copy_packages(folder: &Path) -> Result<()> {
    let own = root().join("bindings");
    copy(&own.join("node"), &folder.join("node"), NODE_FILES)?;
    copy(&own.join("go"), &folder.join("go"), GO_FILES)
}

/// Copies files, and folders of files, by their names.
fn copy(from: &Path, to: &Path, names: &[&str]) -> Result<()> {
    fs::create_dir_all(to)?;
    for name in names {
        let (from, to) = (from.join(name), to.join(name));
        if from.is_dir() {
            let inner: Vec<_> =
                fs::read_dir(&from)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
            let inner: Vec<_> = inner.iter().filter_map(|name| name.to_str()).collect();
            copy(&from, &to, &inner)?;
        } else {
            fs::copy(&from, &to).map_err(|error| format!("{}: {error}", from.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_of_go_are_counted() {
        let output = "=== RUN   TestOne\n--- PASS: TestOne (0.10s)\n    --- PASS: TestOne/part (0.00s)\n\
                      --- FAIL: TestTwo (0.00s)\n    two_test.go:9: no\nFAIL\n";
        let outcome = go_results(output);
        assert_eq!(outcome.to_string(), "1 passed, 1 failed, 0 skipped");
        assert_eq!(outcome.failed, [("Go: TestTwo (0.00s)".to_owned(), String::new())]);
    }

    #[test]
    fn the_tests_of_node_js_are_counted() {
        let output = "TAP version 13\n# Subtest: one\n    ok 1 - part\nok 1 - one\n  ---\n  ...\n\
                      not ok 2 - two - again\n1..2\n# pass 1\n";
        let outcome = tap_results(output);
        assert_eq!(outcome.to_string(), "1 passed, 1 failed, 0 skipped");
        assert_eq!(outcome.failed, [("Node.js: two - again".to_owned(), String::new())]);
    }

    #[test]
    fn a_run_without_results_has_failed() {
        assert_eq!(counted("x", true, Outcome::default()).failed.len(), 1);
        assert_eq!(counted("x", false, Outcome::passed()).failed.len(), 1);
        assert_eq!(counted("x", false, Outcome::failed("one")).failed, [("one".to_owned(), String::new())]);
        assert!(counted("x", true, Outcome::passed()).failed.is_empty());
    }
}
