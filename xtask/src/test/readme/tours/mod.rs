//! The tours of the pages in `docs/use`, whose commands are typed and whose output is compared.
//!
//! `docs/use/README.md` explains how to read their blocks, and [`tour`] takes them from a page. [`mod@play`]
//! plays a tour in a network namespace with only the loopback interface, by a hidden command of this program.
//! [`expected`] compares lines.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

mod expected;
mod play;
mod tour;

pub(crate) use play::{Options, play};

use super::{Scratch, is_installed};
use crate::test::alone::Alone;
use crate::test::command::{run, run_for_status, works};
use crate::test::outcome::Outcome;
use crate::test::sources::files;
use crate::test::{bindings, workspace::Workspace};
use crate::{Result, cargo, root};

/// Folder of the pages with tours, in the project's folder.
const PAGES: &str = "docs/use";

/// Programs that every tour needs.
const BASICS: [&str; 6] = ["bash", "peersock", "script", "sed", "stty", "timeout"];

/// Name of the project's folder, which lies beside the tours' folder.
const CHECKOUT: &str = "peersock";

/// Example programs of the project that a tour runs by cargo.
const EXAMPLES: [&str; 4] = ["echo", "echo_client_async", "echo_server", "pipe_node"];

/// Plays all tours, with the programs that the README's commands have installed.
/// Fails if a page cannot be parsed, or a folder cannot be made.
pub(super) fn check(workspace: &Workspace, scratch: &Scratch) -> Result<Outcome> {
    let folder = scratch.folder.join("tours");
    fs::create_dir_all(&folder)?;
    // Cargo may replace this program's file while it runs.
    let player = folder.join("xtask");
    fs::copy("/proc/self/exe", &player)?;
    let mut outcome = Outcome::default();
    let mut has_examples = None;
    for (number, (page, tour)) in tours()?.iter().enumerate() {
        let name = format!("{}: {}", page.display(), tour.title);
        if let Some(reason) = missing(&tour.needs, scratch) {
            outcome.add(Outcome::skipped(&name, reason));
            continue;
        }
        let Some(alone) = Alone::new() else {
            outcome.add(Outcome::skipped(&name, Alone::WITHOUT));
            continue;
        };
        if has_examples.is_none() && tour.needs.iter().any(|need| need == "cargo") {
            has_examples = Some(examples()?);
        }
        if has_examples == Some(false) {
            outcome.add(Outcome::failed(format!("{name}: the examples do not build")));
            continue;
        }
        let place = folder.join(number.to_string());
        let work = place.join("work");
        fs::create_dir_all(&work)?;
        checkout(&place.join(CHECKOUT))?;
        let mut command = Command::new("timeout");
        command.arg("600");
        alone.wrap(&mut command);
        command.arg(&player).arg("tour").arg(root().join(page)).arg(&tour.title).current_dir(work);
        scratch.set_environment(&mut command)?;
        command.env("EXAMPLES", workspace.target.join("debug/examples"));
        // Go builds its standard library and downloads nothing.
        command.env("GOCACHE", workspace.target.join("bindings/go"));
        command.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOFLAGS", "");
        command.env("npm_config_offline", "true").env("npm_config_update_notifier", "false");
        command.env("NO_COLOR", "1").env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
        let (status, output) = run_for_status(command)?;
        let is_played = status.success() && output.lines().last() == Some(play::DONE);
        outcome.add(Outcome::of(name, is_played));
    }
    Ok(outcome)
}

/// Returns the tours of all pages, each with its page's path in the project's folder.
fn tours() -> Result<Vec<(PathBuf, tour::Tour)>> {
    let mut pages = files(&root().join(PAGES), &["md"], &|_| false)?;
    pages.sort();
    let mut all = Vec::new();
    for page in pages {
        let name = page.strip_prefix(root()).unwrap_or(&page);
        let tours = tour::read(&fs::read_to_string(&page)?);
        let tours = tours.map_err(|error| format!("{}: {error}", name.display()))?;
        all.extend(tours.into_iter().map(|tour| (name.to_owned(), tour)));
    }
    Ok(all)
}

/// Returns the first missing requirement of a tour.
fn missing(needs: &[String], scratch: &Scratch) -> Option<String> {
    BASICS.into_iter().chain(needs.iter().map(String::as_str)).find_map(|need| reason(need, scratch))
}

/// Returns the reason why a tour with this requirement cannot be played here, if there is one.
fn reason(need: &str, scratch: &Scratch) -> Option<String> {
    let (is_there, reason) = match need {
        // These are not called: the examples are built beforehand, and the test has all rights.
        "cargo" | "sudo" => (true, String::new()),
        "libpeersock" => {
            let file = scratch.home.join(".local/lib/pkgconfig/peersock.pc");
            (file.exists(), "the C library was not installed".to_owned())
        }
        "import peersock" => {
            let mut python = Command::new(scratch.home.join("venv/bin/python"));
            python.args(["-c", need]);
            (works(python), "the Python package was not installed".to_owned())
        }
        "/dev/net/tun" => (Path::new(need).exists(), format!("{need} is not there")),
        program => {
            let is_there = scratch.is_installed(program) || is_installed(program);
            (is_there, format!("{program} is not installed"))
        }
    };
    (!is_there).then_some(reason)
}

/// Builds the examples with the same features as for all tests.
fn examples() -> Result<bool> {
    let mut command = cargo();
    command.args(["build", "--workspace"]);
    command.args(EXAMPLES.iter().flat_map(|example| ["--example", example]));
    Ok(run(command)?.0)
}

/// Makes a copy of the project's folder as a reader has it. Builds within the packages for other languages
/// stay out of ours.
fn checkout(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(root())? {
        let entry = entry?;
        if entry.file_name() != "bindings" && entry.file_name() != "target" {
            symlink(entry.path(), folder.join(entry.file_name()))?;
        }
    }
    bindings::copy_packages(&folder.join("bindings"))?;
    symlink(root().join("bindings/python"), folder.join("bindings/python"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::super::commands;
    use super::*;

    /// Number of tours; a tour that is added counts here, too.
    const TOURS: usize = 15;

    #[test]
    fn the_pages_are_understood() {
        let tours = tours().expect("they are understood");
        let titles: BTreeSet<_> = tours.iter().map(|(page, tour)| (page, &tour.title)).collect();
        assert_eq!(titles.len(), tours.len(), "no two tours of a page have the same heading");
        assert_eq!(tours.len(), TOURS, "{titles:?}");
    }

    #[test]
    fn what_the_page_on_installation_installs_is_tried_with_the_readme() {
        let readme = commands(&crate::test::readme::text().expect("the pages"));
        let page = fs::read_to_string(root().join(PAGES).join("INSTALL.md")).expect("the page");
        let unknown: Vec<_> = tour::readme_commands(&page).difference(&readme).cloned().collect();
        assert_eq!(unknown, [""; 0]);
    }

    #[test]
    fn programs_of_the_pages_are_the_projects() {
        for (_, tour) in tours().expect("they are understood") {
            for step in &tour.steps {
                let tour::Step::File { name, text } = step else { continue };
                if let Ok(own) = fs::read_to_string(root().join(name)) {
                    assert_eq!(*text, own, "{name}");
                }
            }
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let scratch = Scratch::new(PathBuf::from("/nonexistent"));
        assert_eq!(reason("cargo", &scratch), None);
        for (need, wanted) in [
            ("no-such-program", "no-such-program is not installed"),
            ("libpeersock", "the C library was not installed"),
            ("import peersock", "the Python package was not installed"),
        ] {
            assert_eq!(reason(need, &scratch).as_deref(), Some(wanted));
        }
    }
}
