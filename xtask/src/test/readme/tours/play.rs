//! Plays one tour as its reader would: each terminal is a real pseudo-terminal, in which bash runs one
//! command after another.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Args;
use peersock_primitives::sync;

use super::expected::{Match, Names, compare, fill_in, shown};
use super::tour::{self, Step, Then};
use crate::cleanup::Guard;
use crate::{Result, root};

/// Maximum time for a line to come, and for a command to end. Only a hang takes as long.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
const WAIT_STEP: Duration = Duration::from_millis(5);

/// Last printed line of a tour that matches the page.
pub(super) const DONE: &str = "all as the page says";

/// Script before each command. The test is the administrator already, and the examples are built already.
/// Cargo alone would choose other features for them, and rebuild most dependencies.
const PRELUDE: &str = r#"
stty -echo cols 120 rows 40
set -o pipefail
sudo() { "$@"; }
cargo() {
  local example; example=$(printf '%s\n' "$*" | sed -n 's/^run -q .*--example \([a-z_]*\).*/\1/p')
  [ -n "$example" ] || { echo "no test knows how to try 'cargo $*'" >&2; return 1; }
  until [ "$1" = -- ] || [ $# = 1 ]; do shift; done; shift
  "$EXAMPLES/$example" "$@"
}
set -a
"#;

/// Tour to play.
#[derive(Args)]
pub(crate) struct Options {
    /// File of the page
    page: PathBuf,
    /// Heading of the tour
    title: String,
}

/// Plays a tour in this folder. Returns false if it differs from the page.
/// Fails if there is no such tour, or a file cannot be written.
pub(crate) fn play(options: &Options) -> Result<bool> {
    let tours = tour::read(&fs::read_to_string(&options.page)?)?;
    let found = tours.into_iter().find(|tour| tour.title == options.title);
    let tour = found.ok_or_else(|| format!("the page has no '{}'", options.title))?;
    let is_as_said = play_in(&env::current_dir()?, &tour.steps);
    if is_as_said {
        println!("{DONE}");
    }
    Ok(is_as_said)
}

fn play_in(folder: &Path, steps: &[Step]) -> bool {
    let folder = folder.to_owned();
    let mut player = Player { names: Names::new(), terminals: BTreeMap::new(), folder };
    for step in steps {
        if let Err(error) = player.take(step) {
            println!("NOT AS THE PAGE SAYS: {error}");
            return false;
        }
    }
    true
}

struct Player {
    names: Names,
    terminals: BTreeMap<String, Running>,
    folder: PathBuf,
}

impl Player {
    fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::File { name, text } => self.file(name, text),
            Step::Type { terminal, command, shown, then } => {
                let command = fill_in(command, &self.names);
                println!("{terminal}$ {command}");
                let running = Running::start(&self.folder, terminal, &command)?;
                self.terminals.insert(terminal.clone(), running);
                self.see(terminal, shown, *then)
            }
            Step::Continue { terminal, interrupt, shown, then } => {
                if *interrupt {
                    println!("{terminal}$ ^C");
                    let running = self.running(terminal)?;
                    running.was_interrupted = true;
                    running.interrupt()?;
                }
                self.see(terminal, shown, *then)
            }
        }
    }

    /// Checks a file that is an example of the project, which must match the page, or else makes the file.
    fn file(&self, name: &str, text: &str) -> Result<()> {
        if let Ok(own) = fs::read_to_string(root().join(name)) {
            let is_same = own == text;
            return if is_same { Ok(()) } else { Err(format!("{name} has another text here").into()) };
        }
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        Ok(fs::write(path, text)?)
    }

    fn running(&mut self, terminal: &str) -> Result<&mut Running> {
        Ok(self.terminals.get_mut(terminal).ok_or("nothing runs there")?)
    }

    /// Waits until a terminal shows the lines, and for the command's end if `then` says so.
    fn see(&mut self, terminal: &str, expected: &[String], then: Then) -> Result<()> {
        let names = self.names.clone();
        let running = self.running(terminal)?;
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            let has_ended = running.has_ended()?;
            let lines = running.lines(has_ended);
            let is_over = Instant::now() >= deadline;
            let found = match then {
                // The next output may be there already.
                Then::GoesOn => (0..=lines.len()).find_map(|count| whole(expected, &lines[..count], &names)),
                Then::Ends if has_ended => whole(expected, &lines, &names),
                Then::Ends => None,
            };
            if let Some((count, names)) = found {
                running.seen += count;
                lines[..count].iter().for_each(|line| println!("{terminal}| {line}"));
                let status = if then == Then::Ends { running.status()? } else { 0 };
                self.names = names;
                return match status {
                    0 => Ok(()),
                    _ => Err(format!("it has ended with status {status}").into()),
                };
            }
            if has_ended || is_over || compare(expected, &lines, &names) == Match::No {
                return Err(difference(expected, &lines, has_ended).into());
            }
            thread::sleep(WAIT_STEP);
        }
    }
}

/// Returns the number of lines, and the names, if the lines match completely.
fn whole(expected: &[String], lines: &[String], names: &Names) -> Option<(usize, Names)> {
    match compare(expected, lines, names) {
        Match::Whole(names) => Some((lines.len(), names)),
        Match::Beginning | Match::No => None,
    }
}

fn difference(expected: &[String], lines: &[String], has_ended: bool) -> String {
    let list = |lines: &[String]| lines.iter().map(|line| format!("\n  {line}")).collect::<String>();
    let (expected, lines) = (list(expected), list(lines));
    let end = if has_ended { "and has ended" } else { "and goes on" };
    format!("it shows{lines}\n{end}, where the page has{expected}")
}

/// A command in a terminal.
struct Running {
    child: Child,
    /// Set until the command has ended.
    guard: Option<Guard>,
    stdin: ChildStdin,
    output: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<io::Result<()>>>,
    /// Number of output lines compared so far.
    seen: usize,
    /// File with the command's exit status.
    status: PathBuf,
    was_interrupted: bool,
}

impl Running {
    fn start(folder: &Path, terminal: &str, command: &str) -> Result<Running> {
        let file = |suffix: &str| folder.join(format!(".{terminal}.{suffix}"));
        let (state, status, text) = (file("state"), file("status"), file("command"));
        let _ = fs::remove_file(&status);
        // Variables and the folder carry over to the terminal's next command. The script exports all
        // variables, because only exported ones are saved.
        let (state, ended) = (state.display(), status.display());
        let script = format!(
            "{PRELUDE}[ ! -e '{state}' ] || . '{state}'\n{command}\nstatus=$?\n\
             {{ export -p; printf 'cd %q\\n' \"$PWD\"; }} > '{state}'\necho $status > '{ended}'\n"
        );
        fs::write(&text, script)?;
        let mut script = Command::new("script");
        script.args(["-q", "-f", "-c", &format!("bash '{}'", text.display()), "/dev/null"]);
        script.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let (mut child, guard) = Guard::spawn(&mut script)?;
        let stdin = child.stdin.take().ok_or("it is piped")?;
        let mut stdout = child.stdout.take().ok_or("it is piped")?;
        let output = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&output);
        let reader = thread::spawn(move || {
            let mut piece = [0; 4096];
            loop {
                match stdout.read(&mut piece)? {
                    0 => return Ok(()),
                    count => sync::lock(&shared).extend_from_slice(&piece[..count]),
                }
            }
        });
        Ok(Running {
            child,
            guard: Some(guard),
            stdin,
            output,
            reader: Some(reader),
            seen: 0,
            status,
            was_interrupted: false,
        })
    }

    fn interrupt(&mut self) -> io::Result<()> {
        self.stdin.write_all(b"\x03")
    }

    /// Returns true if the command has ended and all its output has arrived.
    fn has_ended(&mut self) -> Result<bool> {
        if self.reader.is_none() {
            return Ok(true);
        }
        if self.child.try_wait()?.is_none() {
            return Ok(false);
        }
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| "its output was lost")??;
        }
        Ok(true)
    }

    /// Returns the lines not compared yet. An incomplete last line may still change.
    fn lines(&self, has_ended: bool) -> Vec<String> {
        let output = String::from_utf8_lossy(&sync::lock(&self.output)).into_owned();
        let (whole, rest) = output.rsplit_once('\n').map_or(("", &*output), |(whole, rest)| (whole, rest));
        let mut lines: Vec<_> = match output.contains('\n') {
            true => whole.split('\n').map(shown).collect(),
            false => Vec::new(),
        };
        let rest = shown(rest);
        if has_ended && !rest.is_empty() {
            lines.push(rest);
        }
        lines.split_off(self.seen.min(lines.len()))
    }

    /// Returns the exit status. The status of an interrupted command does not matter.
    fn status(&self) -> Result<i32> {
        if self.was_interrupted {
            return Ok(0);
        }
        let status = fs::read_to_string(&self.status).map_err(|_| "the terminal was closed")?;
        Ok(status.trim().parse()?)
    }
}

impl Drop for Running {
    /// Ends the terminal and its programs.
    fn drop(&mut self) {
        drop(self.guard.take());
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Tour

The file `page`:
```text page
one two
```
```console one
$ mkdir inner
$ cd inner; word=kept
$ cat ../page
<first> two
$ echo $word <first>
kept one
$ cat
```
```console two
$ tail -n 5 page; echo no new line | tr -d '\\n'
one …
no new line
```
```console one
^C
$ pwd | grep -o inner
inner
$ echo early; echo late
early
```
```console one
late
```
";

    /// Returns true if a page's tour matches; None where a terminal cannot be made.
    fn is_as_said(page: &str) -> Option<bool> {
        let mut script = Command::new("script");
        script.args(["-q", "-c", "bash -c 'stty -echo'", "/dev/null"]).stdin(Stdio::null());
        if !script.output().is_ok_and(|output| output.status.success()) {
            println!("SKIP tours: bash, script or stty is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let tours = tour::read(page).expect("it is well-formed");
        Some(play_in(folder.path(), &tours[0].steps))
    }

    #[test]
    fn a_tour_is_played_as_its_reader_would() {
        assert_ne!(is_as_said(PAGE), Some(false));
    }

    #[test]
    fn whatever_is_different_is_found() {
        for (is, is_not) in [
            ("<first> two", "<first> three"),
            ("kept one", "kept two"),
            ("\nearly\n", "\n"),
            ("\ninner\n", "\ninner\nmore\n"),
            ("\nlate\n", "\nlater\n"),
            ("$ mkdir inner", "$ false"),
        ] {
            let page = PAGE.replacen(is, is_not, 1);
            assert_ne!(page, PAGE);
            assert_ne!(is_as_said(&page), Some(true), "{is_not}");
        }
    }

    #[test]
    fn an_own_file_of_the_project_has_its_text() {
        let page = "# Tour\n\nIt is `rustfmt.toml`:\n```toml rustfmt.toml\nnothing\n```\n```console one\n$ true\n```\n";
        assert_ne!(is_as_said(page), Some(true));
    }
}
