//! The file's settings as defaults of options.

use std::env;
use std::sync::OnceLock;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use peersock::settings::Setting;

use super::{Config, config};
use crate::args::NODE_HEADING;
use crate::failure::Outcome;

/// Options of this process that have their value from the file, with the file's path.
static APPLIED: OnceLock<(String, Vec<&'static str>)> = OnceLock::new();

/// Returns the program with the file's settings as defaults of the options that neither the command line nor
/// a variable gives. Returns `None` if there are none.
pub(crate) fn apply(program: Command, matches: &ArgMatches) -> Outcome<Option<Command>> {
    let Some((name, given)) = matches.subcommand() else { return Ok(None) };
    let Some(command) = program.find_subcommand(name).filter(|command| takes_settings(command)) else {
        return Ok(None);
    };
    let config = config()?;
    let defaults = defaults(config, command, given);
    if defaults.is_empty() {
        return Ok(None);
    }
    let options = defaults.iter().filter_map(|(setting, ..)| setting.option).collect();
    let _ = APPLIED.set((config.path.display().to_string(), options));
    Ok(Some(program.mut_subcommand(name, |command| {
        defaults.into_iter().fold(command, |command, (_, argument, values)| {
            // Clap keeps defaults for the life of the program, and this runs once.
            let values = values.iter().map(|value| &*value.clone().leak());
            command.mut_arg(argument, |argument| argument.default_values(values))
        })
    })))
}

/// Returns true if a command has the options of a node, or checks them.
fn takes_settings(command: &Command) -> bool {
    command.get_name() == "netcheck"
        || command.get_arguments().any(|argument| argument.get_help_heading() == Some(NODE_HEADING))
}

/// Returns the settings that become defaults, with their arguments and values.
fn defaults<'a>(
    config: &'a Config,
    command: &Command,
    given: &ArgMatches,
) -> Vec<(&'static Setting, clap::Id, &'a [String])> {
    let mut defaults = Vec::new();
    for (setting, values) in &config.options {
        let is_its = |argument: &&clap::Arg| argument.get_long() == setting.option;
        let Some(argument) = command.get_arguments().find(is_its) else { continue };
        let is_given = given.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine);
        // An empty variable replaces the setting by nothing.
        let is_set = setting.variable.is_some_and(|variable| env::var_os(variable).is_some());
        if !is_given && !is_set && !values.is_empty() {
            defaults.push((*setting, argument.get_id().clone(), &**values));
        }
    }
    defaults
}

/// Returns true if an option, with its hyphens, has its value from the file.
pub(crate) fn is_of_file(option: &str) -> bool {
    origin(option).is_some()
}

/// Returns the file's path if an option, with its hyphens, has its value from there.
fn origin(option: &str) -> Option<&'static str> {
    let (path, options) = APPLIED.get()?;
    options.contains(&option.strip_prefix("--")?).then_some(path.as_str())
}

/// Returns the hint of a refusal by a shared node, with the file's part in it: a setting that the program
/// "asks for" may come from there.
pub(crate) fn with_origin(message: &str, hint: Option<String>) -> Option<String> {
    let asked = message.rsplit_once("asks for ").map(|(_, asked)| asked);
    let option = asked.and_then(|asked| asked.split_whitespace().find(|word| word.starts_with("--")));
    match option.and_then(|option| Some((option, origin(option)?))) {
        Some((option, path)) => {
            let hint = hint.map(|hint| hint + "; ").unwrap_or_default();
            Some(format!("{hint}{option} is from {path}, which PEERSOCK_CONFIG= (empty) leaves out"))
        }
        None => hint,
    }
}
