//! The file's settings as defaults of options, and the places from which options have their values.

use std::env;
use std::sync::OnceLock;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use peersock::settings::SETTINGS;

use super::{Assigned, Config, config, config_in};
use crate::args::{NODE_HEADING, OWN_NODE, PERSIST};
use crate::failure::{Failure, Outcome};
use crate::up::Caller;

/// Options of this process that are given.
static ORIGINS: OnceLock<Vec<(&'static str, Origin)>> = OnceLock::new();

/// Place from which an option has its value.
enum Origin {
    CommandLine,
    Variable(&'static str),
    /// The user's file and the line in it, for people.
    File(String),
}

/// Returns the program with the file's settings as defaults of the options that neither the command line nor
/// a variable gives. Returns `None` if there are none.
pub(crate) fn apply(program: Command, matches: &ArgMatches) -> Outcome<Option<Command>> {
    let Some((name, given)) = matches.subcommand() else { return Ok(None) };
    let Some(command) = program.find_subcommand(name).filter(|command| takes_settings(command)) else {
        return Ok(None);
    };
    let config = match caller_of_up(command, given)? {
        Some(caller) => {
            let home = caller.home.clone();
            caller.acting(|| config_in(Some(home)))
        }
        None => config(),
    }?;
    let defaults = defaults(config, command, given);
    let of_file =
        defaults.iter().filter_map(|(one, _)| Some((one.setting.option?, Origin::File(one.place.clone()))));
    let _ = ORIGINS.set(given_options(command, given).chain(of_file).collect());
    if defaults.is_empty() {
        return Ok(None);
    }
    Ok(Some(program.mut_subcommand(name, |command| {
        defaults.into_iter().fold(command, |command, (one, argument)| {
            // Clap keeps defaults for the life of the program, and this runs once.
            let values = one.values.iter().map(|value| &*value.clone().leak());
            command.mut_arg(argument, |argument| argument.default_values(values))
        })
    })))
}

/// Returns the user who has called sudo for `peersock up` with this user's identity. The settings are this
/// user's, too. Another identity is not: who may start such a node as root must not lead it elsewhere.
fn caller_of_up(command: &Command, given: &ArgMatches) -> Outcome<Option<Caller>> {
    let is_given = |option| argument(command, option).is_some_and(|argument| is_given(given, argument));
    match command.get_name() == "up" && !["user", "state", "ephemeral"].into_iter().any(is_given) {
        true => Caller::find(),
        false => Ok(None),
    }
}

/// Returns true if a command has the options of a node, or checks them.
fn takes_settings(command: &Command) -> bool {
    command.get_name() == "netcheck"
        || command.get_arguments().any(|argument| argument.get_help_heading() == Some(NODE_HEADING))
}

/// Returns the settings that become defaults, with their arguments.
fn defaults<'a>(config: &'a Config, command: &Command, given: &ArgMatches) -> Vec<(&'a Assigned, clap::Id)> {
    let mut defaults = Vec::new();
    for one in &config.options {
        let Some(argument) = one.setting.option.and_then(|option| argument(command, option)) else {
            continue;
        };
        // An empty variable replaces the setting by nothing.
        let is_set = one.setting.variable.is_some_and(|variable| env::var_os(variable).is_some());
        if !is_given(given, argument) && !is_set && !one.values.is_empty() {
            defaults.push((one, argument.get_id().clone()));
        }
    }
    defaults
}

/// Returns the options of a command that the command line or variables give.
fn given_options(command: &Command, given: &ArgMatches) -> impl Iterator<Item = (&'static str, Origin)> {
    let settings = SETTINGS.iter().filter_map(|setting| Some((setting.option?, setting.variable)));
    let all = settings.chain([OWN_NODE, PERSIST].map(|(option, variable)| (option, Some(variable))));
    all.filter_map(move |(option, variable)| {
        if is_given(given, argument(command, option)?) {
            return Some((option, Origin::CommandLine));
        }
        let variable = variable.filter(|name| env::var_os(name).is_some_and(|text| !text.is_empty()))?;
        Some((option, Origin::Variable(variable)))
    })
}

fn argument<'a>(command: &'a Command, option: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|argument| argument.get_long() == Some(option))
}

fn is_given(given: &ArgMatches, argument: &clap::Arg) -> bool {
    given.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// Returns true if an option, with its hyphens, has its value from the file.
pub(crate) fn is_of_file(option: &str) -> bool {
    matches!(origin(option), Some(Origin::File(_)))
}

/// Returns the option, with its hyphens, or the variable by which the user has set something.
pub(crate) fn name_used(option: &'static str) -> Option<String> {
    match origin(&format!("--{option}"))? {
        Origin::CommandLine => Some(format!("--{option}")),
        Origin::Variable(variable) => Some((*variable).to_owned()),
        Origin::File(_) => None,
    }
}

fn origin(option: &str) -> Option<&'static Origin> {
    let (option, origins) = (option.strip_prefix("--")?, ORIGINS.get()?);
    origins.iter().find(|(name, _)| *name == option).map(|(_, origin)| origin)
}

/// Returns a failure whose hint also says from where the option at fault has its value, unless that is the
/// command line.
pub(crate) fn with_origin(failure: Failure) -> Failure {
    let Some(option) = option_at_fault(&failure) else { return failure };
    let clause = match origin(option) {
        None | Some(Origin::CommandLine) => return failure,
        Some(Origin::Variable(variable)) => format!("{option} is from the variable {variable}"),
        Some(Origin::File(place)) => {
            format!("{option} is from {place}, which PEERSOCK_CONFIG= (empty) leaves out")
        }
    };
    failure.and([clause])
}

/// Returns the option, with its hyphens, whose value is the reason of a failure. The text that has it is what
/// a program asks a node for, a message that begins with it, or a hint to change it.
fn option_at_fault(failure: &Failure) -> Option<&str> {
    // Other hints propose options that are not given.
    const CHANGED: [&str; 4] = ["correct --", "with --overlay-port", "with --interface", "give --interface"];
    let (message, hint) = (failure.message(), failure.hint().unwrap_or_default());
    let asked = message.rsplit_once("asks for ").map(|(_, asked)| asked);
    let first = || message.starts_with("--").then_some(message);
    let changed = || CHANGED.iter().find_map(|words| Some(&hint[hint.find(words)?..]));
    let text = asked.or_else(first).or_else(changed)?;
    text.split(|c: char| c != '-' && !c.is_ascii_alphanumeric()).find(|word| word.starts_with("--"))
}
