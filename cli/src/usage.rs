//! Messages about invalid command lines: the parser's error, and a next step.

use std::ffi::OsString;
use std::io::Write as _;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use peersock_primitives::is_deceptive;

use crate::output;
use crate::style::HINT;

/// Beginning of the parser's final advice, which names no command and shows no example.
const FINAL_ADVICE: &str = "For more information, try";

/// Prints the error, with an example of the intended command.
pub(crate) fn report(error: &clap::Error, program: &Command, words: impl Iterator<Item = OsString>) {
    let words: Vec<_> = words.collect();
    let is_plain = words.iter().all(|word| !word.to_string_lossy().contains(is_deceptive));
    let text = text(error, program, words.into_iter());
    let text = match is_plain {
        true => text,
        // Removes styles and escapes the text, because the words could imitate styles.
        false => output::escape_lines(&anstream::adapter::strip_str(&text).to_string()),
    };
    // A failure is ignored, because there is no other output.
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// Returns the text with styles.
fn text(error: &clap::Error, program: &Command, words: impl Iterator<Item = OsString>) -> String {
    let said = error.render().ansi().to_string();
    // A help that replaces the error is complete.
    let Some((said, _)) = said.split_once(FINAL_ADVICE) else { return said };
    let said = output::shorten(said);
    let words: Vec<_> = words.collect();
    let (name, command) = command_of(program, words.iter().cloned());
    if let Some(hint) = ticket_hint(command, error).or_else(|| dash_hint(command, error, &words)) {
        // Drops the parser's tip, because it is about values without an option and shows only two characters.
        let is_tip = |line: &&str| line.contains("to pass '") && line.contains("as a value");
        let said: Vec<_> = said.trim_end().split("\n\n").filter(|part| !is_tip(part)).collect();
        return format!("{}\n\n{HINT}hint:{HINT:#} {hint}; `{name} --help` says more\n", said.join("\n\n"));
    }
    match example(command, error) {
        Some(example) => format!(
            "{said}{HINT}hint:{HINT:#} for example `{example}`; `{name} --help` says what each option means\n"
        ),
        None => format!("{said}{HINT}hint:{HINT:#} `{name} --help` says what each option means\n"),
    }
}

/// Returns the command that these words begin with, and its full name.
fn command_of(program: &Command, words: impl Iterator<Item = OsString>) -> (String, &Command) {
    let (mut name, mut command) = (program.get_name().to_owned(), program);
    for word in words.skip(1) {
        match command.find_subcommand(&word) {
            Some(inner) => {
                name = format!("{name} {}", inner.get_name());
                command = inner;
            }
            // Options before a command take no values.
            None if word.to_string_lossy().starts_with('-') => {}
            None => break,
        }
    }
    (name, command)
}

/// Returns a hint on options of a network and an identity, which the commands for tickets do not have.
fn ticket_hint(command: &Command, error: &clap::Error) -> Option<String> {
    const OF_NETWORKS: [&str; 8] =
        ["-n", "--network", "--secret-file", "--state", "--ephemeral", "--own-node", "--as", "--persist"];
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else { return None };
    let is_meant = error.kind() == ErrorKind::UnknownArgument
        && matches!(command.get_name(), "share" | "open")
        && OF_NETWORKS.contains(&unknown.as_str());
    is_meant.then(|| {
        format!(
            "leave {unknown} out: a ticket has its own network and identity; `peersock forward` \
             leads to services in a network"
        )
    })
}

/// Returns a hint on giving a value that begins with a dash, if an unknown option may be one.
fn dash_hint(command: &Command, error: &clap::Error, words: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != ErrorKind::UnknownArgument || !unknown.starts_with('-') {
        return None;
    }
    // For a word with several short options, the parser names only the unknown one.
    let is_meant = |word: &str| {
        word == unknown.as_str()
            || (!word.starts_with("--") && word.starts_with('-') && word.contains(&unknown[1..]))
    };
    let at = words.iter().skip(1).position(|word| is_meant(&word.to_string_lossy()))? + 1;
    let (before, word) = (words[at - 1].to_string_lossy(), words[at].to_string_lossy());
    let is_before = |option: &&clap::Arg| {
        let long = option.get_long().map(|long| format!("--{long}"));
        let short = option.get_short().map(|short| format!("-{short}"));
        [long, short].into_iter().flatten().any(|spelling| spelling == before)
    };
    let option = command.get_arguments().find(is_before).filter(|option| option.get_action().takes_values());
    match option.and_then(clap::Arg::get_long) {
        Some(long) => Some(format!("a value that begins with a dash is given as `--{long}={word}`")),
        None if word.starts_with("--") || command.get_positionals().next().is_none() => None,
        None => Some(format!("an argument that begins with a dash is given behind `--`: `-- {word}`")),
    }
}

/// Returns an example from the command's help: one with the faulty option, if there is any.
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

/// Returns the spellings of an option that the parser shows as `--count <COUNT>`.
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

    /// Returns the message for a command line, without styles.
    fn said_of(words: &[&str]) -> String {
        let mut program = crate::with_negative_numbers(Cli::command());
        program.build();
        let error = program.clone().try_get_matches_from(words).expect_err("it is wrong");
        let text = text(&error, &program, words.iter().map(OsString::from));
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn a_word_too_many_is_not_taken_for_an_option() {
        for word in ["7001", "é"] {
            let said = said_of(&["peersock", "dial", "fd00::1", word]);
            assert!(said.contains("for example `peersock dial ") && !said.contains("dash"), "{said}");
        }
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
            assert!(said.starts_with("error: ") && !said.contains(FINAL_ADVICE), "{name}: {said}");
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
    fn a_negative_number_is_a_value_that_is_refused() {
        for (words, expected) in [
            (&["peersock", "ping", "-c", "-5", "x"][..], "'-5' for '--count"),
            (&["peersock", "listen", "-7000"], "a port is a number from 0 to 65535, such as 7000"),
            (&["peersock", "dial", "--timeout", "-3", "x"], "give a number of seconds from 0 on, such as 10"),
            (&["peersock", "up", "--mtu=-1"], "'-1' for '--mtu"),
        ] {
            let said = said_of(words);
            assert!(said.contains("invalid value '-") && said.contains(expected), "{words:?}: {said}");
        }
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
            (&["peersock", "send", "-file"], "behind `--`: `-- -file`"),
            (&["peersock", "listen", "--state", "-x", "0"], "is given as `--state=-x`"),
            (&["peersock", "dial", "-n", "-foo", "x"], "is given as `--network=-foo`"),
        ] {
            let said = said_of(words);
            assert!(said.lines().last().is_some_and(|hint| hint.contains(wanted)), "{words:?}: {said}");
            assert!(said.matches("-- -").count() <= 1, "one of the hints is enough: {said}");
        }
    }
}
