//! The parts of tours, taken from a page's text.

#[cfg(test)]
use std::collections::BTreeSet;

use crate::Result;

/// A section of a page, or the page before its first section, that contains steps.
#[derive(Debug)]
pub(super) struct Tour {
    /// Heading of the section or page.
    pub(super) title: String,
    /// Names in the line that begins with `Needs`, in its order.
    pub(super) needs: Vec<String>,
    pub(super) steps: Vec<Step>,
}

/// An action, or an observation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// A file with this text is in the folder, or belongs to the project.
    File { name: String, text: String },
    /// A command is typed in a terminal, and shows the lines.
    Type { terminal: String, command: String, shown: Vec<String>, then: Then },
    /// A running command shows more, after Ctrl-C or by itself.
    Continue { terminal: String, interrupt: bool, shown: Vec<String>, then: Then },
}

/// Behaviour of a command after it has shown its lines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Then {
    Ends,
    /// The terminal shows more of the command's output further down.
    GoesOn,
}

/// Start of a section's heading.
const HEADING: &str = "\n## ";

/// Prefix of the line with a tour's requirements. Without the line, a tour needs the program alone.
const NEEDS: &str = "Needs ";

/// Kind of the blocks that show a terminal, followed by the terminal's name. Only tours have them.
const TERMINAL: &str = "console ";

/// Reads the tours of a page.
/// Fails if a tour has a block of an unknown kind, or a file without a name.
pub(super) fn read(page: &str) -> Result<Vec<Tour>> {
    let mut tours = Vec::new();
    for section in page.split(HEADING) {
        // The text begins with the end of the heading's line, because a block may follow directly.
        let (title, text) = section.split_at(section.find('\n').unwrap_or(section.len()));
        let title = title.trim_start_matches("# ");
        let needs = text.lines().find_map(|line| line.strip_prefix(NEEDS));
        let needs = needs.map(|needs| needs.split('`').skip(1).step_by(2).map(str::to_owned).collect());
        let is_tour = blocks(text).iter().any(|block| block.info.starts_with(TERMINAL));
        match needs {
            _ if is_tour => {
                let steps = steps(text).map_err(|error| format!("{title}: {error}"))?;
                tours.push(Tour { title: title.to_owned(), needs: needs.unwrap_or_default(), steps });
            }
            Some(_) => return Err(format!("{title}: it has needs, and no terminal").into()),
            None => {}
        }
    }
    Ok(tours)
}

/// Returns the lines of the `sh` blocks, which the README contains too and its tests run.
#[cfg(test)]
pub(super) fn readme_commands(page: &str) -> BTreeSet<String> {
    let blocks = blocks(page).into_iter().filter(|block| block.info == "sh");
    blocks.flat_map(|block| block.text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

struct Block<'a> {
    /// Text after the fence.
    info: &'a str,
    text: &'a str,
    /// The line of text before the block.
    before: &'a str,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let parts: Vec<_> = text.split("\n```").collect();
    let mut found = Vec::new();
    for number in (1..parts.len()).step_by(2) {
        let (info, text) = parts[number].split_once('\n').unwrap_or((parts[number], ""));
        let before = parts[number - 1].trim_end().lines().last().unwrap_or("");
        found.push(Block { info: info.trim(), text, before });
    }
    found
}

fn steps(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for block in blocks(text) {
        match block.info.split_once(' ') {
            Some(("console", terminal)) => console(terminal, block.text, &mut steps)?,
            Some((_, name)) if !block.before.contains(&format!("`{name}`")) => {
                return Err(format!("the line before the file {name} does not name it").into());
            }
            Some((_, name)) => {
                steps.push(Step::File { name: name.to_owned(), text: format!("{}\n", block.text) });
            }
            None => return Err(format!("no test runs a block of '{}'", block.info).into()),
        }
    }
    Ok(steps)
}

/// Takes a terminal's lines: `$ ` stands before commands, `^C` is Ctrl-C, and `$` alone is the prompt that
/// is back. A block that begins otherwise is more of the last command's.
fn console(terminal: &str, text: &str, steps: &mut Vec<Step>) -> Result<()> {
    let terminal = || terminal.to_owned();
    let mut fresh = true;
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let command = command.to_owned();
            steps.push(Step::Type { terminal: terminal(), command, shown: Vec::new(), then: Then::Ends });
        } else if line == "$" || line == "^C" || fresh {
            go_on(&terminal(), steps)?;
            let interrupt = line == "^C";
            let shown = if interrupt || line == "$" { Vec::new() } else { vec![line.to_owned()] };
            steps.push(Step::Continue { terminal: terminal(), interrupt, shown, then: Then::Ends });
        } else if let Some(Step::Type { shown, .. } | Step::Continue { shown, .. }) = steps.last_mut() {
            shown.push(line.to_owned());
        }
        fresh = false;
    }
    Ok(())
}

/// The last command of a terminal does not end yet.
fn go_on(wanted: &str, steps: &mut [Step]) -> Result<()> {
    let last = steps.iter_mut().rev().find_map(|step| match step {
        Step::Type { terminal, then, .. } | Step::Continue { terminal, then, .. } => {
            (terminal == wanted).then_some(then)
        }
        Step::File { .. } => None,
    });
    *last.ok_or_else(|| format!("terminal {wanted} has no command that goes on"))? = Then::GoesOn;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A tour

Needs `curl` and `python3`.

The file `page.html`:

```html page.html
<p>
```

```console one
$ serve page.html
serving
```

```console two
$ fetch
<p>
$ true
```

It says who came, and is stopped:

```console one
a client
^C
bye
```

## Install

```sh
cargo install
```

## Another tour

```console one
$ true
```
";

    #[test]
    fn a_tour_is_read() {
        let tours = read(PAGE).expect("it is well-formed");
        assert_eq!(tours.len(), 2);
        assert_eq!((&*tours[0].title, &*tours[1].title), ("A tour", "Another tour"));
        assert!(tours[1].needs.is_empty());
        assert_eq!(tours[0].needs, ["curl", "python3"]);
        let typed = |terminal: &str, command: &str, shown: &[&str], then| Step::Type {
            terminal: terminal.to_owned(),
            command: command.to_owned(),
            shown: shown.iter().map(ToString::to_string).collect(),
            then,
        };
        let more = |interrupt, shown: &str, then| Step::Continue {
            terminal: "one".to_owned(),
            interrupt,
            shown: vec![shown.to_owned()],
            then,
        };
        let wanted = [
            Step::File { name: "page.html".to_owned(), text: "<p>\n".to_owned() },
            typed("one", "serve page.html", &["serving"], Then::GoesOn),
            typed("two", "fetch", &["<p>"], Then::Ends),
            typed("two", "true", &[], Then::Ends),
            more(false, "a client", Then::GoesOn),
            more(true, "bye", Then::Ends),
        ];
        assert_eq!(tours[0].steps, wanted);
        assert_eq!(readme_commands(PAGE).into_iter().collect::<Vec<_>>(), ["cargo install"]);
    }

    #[test]
    fn what_nobody_would_try_is_an_error() {
        let refused = |text: &str| read(text).expect_err("it is refused").to_string();
        let shown = "```console one\n$ x\n```\n";
        assert_eq!(refused(&format!("# T\n{shown}```text\nx\n```\n")), "T: no test runs a block of 'text'");
        assert_eq!(refused(&format!("# T\n{shown}```sh\nx\n```\n")), "T: no test runs a block of 'sh'");
        assert_eq!(
            refused(&format!("# P\n\n## T\nA file:\n```c a.c\nx\n```\n{shown}")),
            "T: the line before the file a.c does not name it"
        );
        assert_eq!(refused("# T\nNeeds `x`.\n```console\n$ x\n```\n"), "T: it has needs, and no terminal");
        assert_eq!(refused("# T\n```console one\nx\n```\n"), "T: terminal one has no command that goes on");
    }
}
