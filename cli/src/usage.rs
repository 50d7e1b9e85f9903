//! What is said of a command line that the parser does not understand: its own words, and what to do next.

use std::ffi::OsString;
use std::io::Write as _;

use clap::Command;
use clap::error::{ContextKind, ContextValue};

use crate::style::HINT;

/// What the parser ends its errors with, which names no command and shows none.
const ENDING: &str = "For more information, try";

/// Says what is wrong, with an example of the command that was meant.
pub(crate) fn report(error: &clap::Error, program: &Command, words: impl Iterator<Item = OsString>) {
    // Without a stderr there is nobody to tell.
    let _ = anstream::stderr().lock().write_all(text(error, program, words).as_bytes());
}

/// The text, with styles in it.
fn text(error: &clap::Error, program: &Command, words: impl Iterator<Item = OsString>) -> String {
    let said = error.render().ansi().to_string();
    // A help that is shown in place of an error has all that there is to say.
    let Some((said, _)) = said.split_once(ENDING) else { return said };
    let (name, command) = command_of(program, words);
    match example(command, error) {
        Some(example) => format!(
            "{said}{HINT}hint:{HINT:#} for example `{example}`; `{name} --help` says what each option means\n"
        ),
        None => format!("{said}{HINT}hint:{HINT:#} `{name} --help` says what each option means\n"),
    }
}

/// The command that these words begin with, and how it is called.
fn command_of(program: &Command, words: impl Iterator<Item = OsString>) -> (String, &Command) {
    let (mut name, mut command) = (program.get_name().to_owned(), program);
    for word in words.skip(1) {
        match command.find_subcommand(&word) {
            Some(inner) => {
                name = format!("{name} {}", inner.get_name());
                command = inner;
            }
            // Options that stand before a command have no values.
            None if word.to_string_lossy().starts_with('-') => {}
            None => break,
        }
    }
    (name, command)
}

/// An example from the command's help: one with the option that is at fault, if there is any.
fn example(command: &Command, error: &clap::Error) -> Option<String> {
    let help = command.get_after_help()?.to_string();
    let lines = help.lines().map(|line| line.split("  # ").next().unwrap_or(line).trim());
    let examples: Vec<_> = lines.filter(|line| line.starts_with("peersock ")).collect();
    let spellings = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => spellings(command, argument),
        _ => Vec::new(),
    };
    let has_option = |line: &&&str| line.split(' ').any(|word| spellings.iter().any(|option| option == word));
    examples.iter().find(has_option).or(examples.first()).map(ToString::to_string)
}

/// How the option is written that the parser names so: `--count <COUNT>`.
fn spellings(command: &Command, argument: &str) -> Vec<String> {
    let Some(long) = argument.split([' ', '=']).next().and_then(|word| word.strip_prefix("--")) else {
        return Vec::new();
    };
    let option = command.get_arguments().find(|option| option.get_long() == Some(long));
    let short = option.and_then(clap::Arg::get_short).map(|short| format!("-{short}"));
    short.into_iter().chain([format!("--{long}")]).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::Cli;

    /// What is said of a command line, without styles.
    fn said_of(words: &[&str]) -> String {
        let mut program = Cli::command();
        program.build();
        let error = program.clone().try_get_matches_from(words).expect_err("it is wrong");
        let text = text(&error, &program, words.iter().map(OsString::from));
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn every_command_shows_an_example_where_it_is_not_understood() {
        let mut program = Cli::command();
        program.build();
        let mut seen = 0;
        let mut left: Vec<(Vec<&str>, &Command)> = vec![(vec!["peersock"], &program)];
        while let Some((words, command)) = left.pop() {
            for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
                let words = words.iter().copied().chain([inner.get_name()]).collect();
                left.push((words, inner));
            }
            if command.get_name() == "help" || words.contains(&"help") {
                continue;
            }
            seen += 1;
            let name = words.join(" ");
            let wrong = [&words[..], &["--no-such-option"]].concat();
            let said = said_of(&wrong);
            assert!(said.starts_with("error: ") && !said.contains(ENDING), "{name}: {said}");
            let hint = said.lines().last().expect("a line");
            let help = format!("`{name} --help` says");
            assert!(hint.starts_with("hint: ") && hint.contains(&help), "{name}: {said}");
            let wanted = if words.len() == 1 {
                "for example `peersock ".to_owned()
            } else {
                format!("for example `{name}")
            };
            assert!(hint.contains(&wanted), "{name}: {said}");
        }
        assert!(seen > 15, "{seen} commands");
    }

    #[test]
    fn the_example_is_of_the_option_that_is_at_fault() {
        for (words, wanted) in [
            (&["peersock", "dial"][..], "for example `peersock dial -n ff0001ffff000000 '[fd12:"),
            (&["peersock", "-v", "ping", "-c", "no", "x"], "for example `peersock ping -c 100 -i 0.01"),
            (&["peersock", "ping", "--count=no", "x"], "for example `peersock ping -c 100 -i 0.01"),
            (&["peersock", "run", "--mode", "magic", "x"], "--mode seccomp"),
            (&["peersock", "dail"], "for example `peersock listen --ephemeral"),
            (&["peersock", "network", "ad"], "for example `peersock network "),
            (&["peersock", "dial", "x", "--bogus"], "`peersock dial --help`"),
        ] {
            let said = said_of(words);
            assert!(said.lines().last().is_some_and(|hint| hint.contains(wanted)), "{words:?}: {said}");
        }
    }
}
