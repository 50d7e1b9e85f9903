//! The README's commands, run as written, and the tours of the pages on use ([`tours`]).
//!
//! Every command is taken from the README and the pages beside it ([`PAGES`]). These are the lines of its
//! `sh` blocks, and texts in backticks that begin with one of [`PROGRAMS`]. [`TRIES`] has the script for
//! each. A command without an entry fails, and so does an entry without a command. The scripts get the
//! commands as arguments and `eval` them. A script replaces the README's placeholders by real values.

mod tours;
mod tries;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

pub(crate) use tours::{Options as TourOptions, play};
use tries::{PRELUDE, TRIES, Try};

use super::alone::Alone;
use super::command::{run_for_status, without_settings};
use super::outcome::Outcome;
use super::workspace::Workspace;
use crate::{Result, root};

/// Programs with which a command begins.
const PROGRAMS: &[&str] = &["cargo", "cc", "curl", "export", "peersock", "pip", "python", "tar"];

/// Names in the text that users do not type alone, because the command needs arguments.
const NAMES: &[&str] = &["peersock dial", "peersock network", "peersock rest", "peersock run"];

/// Commands that are not run here, with the reasons.
const ELSEWHERE: &[(&str, &str)] = &[("cargo xtask test", "this is it"), ("cargo xtask ci", "this is it")];

/// Pages whose commands are tried.
const PAGES: &[&str] = &["README.md", "docs/use/C.md", "docs/reference/FEATURES.md"];

/// Programs that every script needs.
const BASICS: [&str; 2] = ["bash", "timeout"];

/// Runs all commands, and then the tours with the programs that the commands have installed.
pub(super) fn check(workspace: &Workspace) -> Result<Outcome> {
    let found = commands(&text()?);
    let mut outcome = unknown(&found);
    let scratch = Scratch::new(workspace.target.join("readme"));
    let _ = fs::remove_dir_all(&scratch.folder);
    for entry in TRIES {
        let name = format!("README: {}", entry.name);
        let matches: Vec<_> = entry.commands.iter().map(|start| begin_with(&found, start)).collect();
        if matches.iter().any(Vec::is_empty) {
            // The failure is counted already.
            continue;
        }
        if let Some(missing) = BASICS.iter().chain(entry.needs).find(|program| !is_installed(program)) {
            outcome.add(Outcome::skipped(&name, format!("{missing} is not installed")));
            continue;
        }
        let arguments: Vec<&str> = matches.iter().map(|found| found[0].as_str()).collect();
        outcome.add(attempt(entry, &name, &arguments, &scratch)?);
    }
    outcome.add(tours::check(workspace, &scratch)?);
    if outcome.failed.is_empty() {
        let _ = fs::remove_dir_all(&scratch.folder);
    }
    Ok(outcome)
}

/// Reads the pages whose commands are tried.
fn text() -> Result<String> {
    let pages: Result<Vec<_>> = PAGES.iter().map(|page| Ok(fs::read_to_string(root().join(page))?)).collect();
    Ok(pages?.join("\n"))
}

fn attempt(entry: &Try, name: &str, arguments: &[&str], scratch: &Scratch) -> Result<Outcome> {
    let place = scratch.folder.join(entry.name.replace(' ', "-"));
    fs::create_dir_all(&place)?;
    fs::create_dir_all(&scratch.home)?;
    let mut command = Command::new("timeout");
    command.arg(if entry.builds { "1200" } else { "300" });
    if !entry.builds {
        let Some(alone) = Alone::new() else { return Ok(Outcome::skipped(name, Alone::WITHOUT)) };
        alone.wrap(&mut command);
    }
    let script = scratch.home.join(entry.name);
    fs::write(&script, format!("{PRELUDE}{}", entry.script))?;
    command.arg("bash").arg(script).args(arguments).current_dir(&place);
    scratch.set_environment(&mut command)?;
    let (status, output) = run_for_status(command)?;
    Ok(match status.code() {
        Some(0) => Outcome::passed(),
        Some(77) => Outcome::skipped(name, output.lines().last().unwrap_or("no reason was given")),
        _ => Outcome::failed(name),
    })
}

/// Folder in which commands run, with a separate home.
struct Scratch {
    folder: PathBuf,
    home: PathBuf,
}

impl Scratch {
    fn new(folder: PathBuf) -> Scratch {
        Scratch { home: folder.join("home"), folder }
    }

    /// Isolates a command from the user's files and settings.
    fn set_environment(&self, command: &mut Command) -> Result<()> {
        let path = env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin".into()];
        let path = env::join_paths(self.own().into_iter().chain(env::split_paths(&path)).chain(system))?;
        let real = env::home_dir().unwrap_or_default();
        for (variable, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            if env::var_os(variable).is_none() && real.join(folder).is_dir() {
                command.env(variable, real.join(folder));
            }
        }
        for variable in ["XDG_STATE_HOME", "XDG_CACHE_HOME", "PKG_CONFIG_PATH", "LD_LIBRARY_PATH"] {
            command.env_remove(variable);
        }
        without_settings(command);
        command.env("CARGO_INSTALL_ROOT", self.folder.join("installed")).env("PATH", path);
        command.env("HOME", &self.home).env("ROOT", root());
        Ok(())
    }

    /// Returns the folders of programs that were installed here.
    fn own(&self) -> [PathBuf; 2] {
        [self.home.join("venv/bin"), self.folder.join("installed/bin")]
    }

    fn is_installed(&self, program: &str) -> bool {
        self.own().iter().any(|folder| folder.join(program).is_file())
    }
}

/// Returns failures for the README's commands without an entry, and for entries without a command.
fn unknown(found: &BTreeSet<String>) -> Outcome {
    let known = || {
        let tried = TRIES.iter().flat_map(|entry| entry.commands.iter().copied());
        tried.chain(ELSEWHERE.iter().map(|(start, _)| *start))
    };
    let mut outcome = Outcome::default();
    for command in found {
        outcome.add(match known().any(|start| command.starts_with(start)) {
            true => Outcome::passed(),
            false => Outcome::failed(format!("README: no test knows how to try '{command}'")),
        });
    }
    for start in known().filter(|start| begin_with(found, start).is_empty()) {
        outcome.add(Outcome::failed(format!("README: it has no command '{start}'")));
    }
    outcome
}

fn begin_with<'a>(found: &'a BTreeSet<String>, start: &str) -> Vec<&'a String> {
    found.iter().filter(|command| command.starts_with(start)).collect()
}

/// Returns all commands in a Markdown text.
fn commands(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (number, part) in text.split("\n```").enumerate() {
        if number % 2 == 1 {
            let (language, block) = part.split_once('\n').unwrap_or((part, ""));
            if language == "sh" {
                let lines = block.lines().map(|line| line.split(" # ").next().unwrap_or(line));
                found.extend(lines.map(words).filter(|line| !line.is_empty() && !line.starts_with('#')));
            }
        } else {
            let prose = part.split_once('\n').map_or("", |(_, prose)| prose);
            let prose = if number == 0 { part } else { prose };
            found.extend(prose.split('`').skip(1).step_by(2).map(words).filter(|text| is_command(text)));
        }
    }
    found
}

/// In one line, with one space between words.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a text begins with a program, and is more than the name of one.
fn is_command(text: &str) -> bool {
    let Some((program, _)) = text.split_once(' ') else { return false };
    PROGRAMS.contains(&program) && !NAMES.contains(&text)
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_blocks_and_in_the_text() {
        let text = "Try `cargo run -q`, `peersock status` or `peersock
listen x`, not `peersock`, `peersock run` nor `TcpStream connect x`.

```sh
peersock  dial y   # as said

# nothing
tar c . | peersock dial
```

Then `tar -x`.

```c
int main(void) { `peersock no` }
```
";
        let wanted = [
            "cargo run -q",
            "peersock dial y",
            "peersock listen x",
            "peersock status",
            "tar -x",
            "tar c . | peersock dial",
        ];
        assert_eq!(commands(text).into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn every_command_of_the_readme_is_known() {
        let text = text().expect("the pages");
        assert_eq!(unknown(&commands(&text)).failed, []);
    }
}
