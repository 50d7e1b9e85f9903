//! Parsing of the file. Each error names the file, the line and the column.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};

use peersock::settings::{SETTINGS, Setting, SettingError};
use peersock::{NetworkId, Node, RootSource};
use serde_json::Value as Json;
use toml_edit::{Document, Item, TableLike, Value};

use super::{Assigned, Config, LocalNetwork};
use crate::failure::{Failure, Outcome};

/// The file, and the folders to which paths in it are relative.
struct Places<'a> {
    file: &'a Path,
    folder: PathBuf,
    home: Option<PathBuf>,
}

/// Error with its place in the text.
struct Problem {
    at: Range<usize>,
    what: String,
    hint: String,
}

type Parsed<T> = Result<T, Problem>;

/// Parses the text of the file at `path`. `home` is its user's.
pub(super) fn parse(path: PathBuf, home: Option<PathBuf>, text: &str) -> Outcome<Config> {
    // Relative paths in the file are relative to its folder, wherever the program runs.
    let path = std::path::absolute(path)?;
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let places = Places { file: &path, folder, home };
    let config = parse_within(&places, text).map_err(|problem| {
        let (line, column) = place(text, problem.at.start);
        Failure::usage(format_args!("{}:{line}:{column}: {}", path.display(), problem.what), problem.hint)
    })?;
    Ok(Config { path, ..config })
}

/// Returns the line and the column, in characters, of an offset. Both count from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Returns the line, the column and the words for a mistake in the syntax of TOML; `None` without one.
pub(crate) fn syntax_error(text: &str) -> Option<(usize, usize, String)> {
    let error = Document::parse(text).err()?;
    let (line, column) = place(text, error.span().map_or(text.len(), |span| span.start));
    // Some messages of the parser have several lines.
    Some((line, column, error.message().replace('\n', ", ")))
}

fn parse_within(places: &Places<'_>, text: &str) -> Parsed<Config> {
    let place = |at: Option<Range<usize>>| {
        format!("{}:{}", places.file.display(), place(text, at.unwrap_or_default().start).0)
    };
    let document = Document::parse(text).map_err(|error| {
        let at = error.span().unwrap_or(text.len()..text.len());
        // Some messages of the parser have several lines.
        problem(Some(at), error.message().replace('\n', ", "), "correct the TOML there")
    })?;
    let mut config = Config::default();
    for (key, item) in document.iter() {
        let at = document.key(key).and_then(|key| key.span());
        if key == "networks" {
            config.networks = networks(places, item, place)?;
            continue;
        }
        let setting = settings().find(|setting| setting.name == key);
        let setting = setting.ok_or_else(|| unknown_setting(at.clone(), key))?;
        config.options.push(Assigned { setting, values: option(places, setting, item)?, place: place(at) });
    }
    Ok(config)
}

/// Returns the settings that the file may have. The state directory is none of them, because two nodes cannot
/// use the same.
fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.option.is_some() && setting.name != "state")
}

fn unknown_setting(at: Option<Range<usize>>, key: &str) -> Problem {
    let names: Vec<_> = settings().map(|setting| setting.name).chain(["[networks]"]).collect();
    let hint = match settings().find(|setting| setting.option == Some(key)) {
        Some(setting) => format!("write `{}`, the name of --{key} in this file", setting.name),
        None => format!("use {}; docs/reference/SETTINGS.md describes them", names.join(", ")),
    };
    problem(at, format!("`{key}` is no setting of this file"), hint)
}

/// Returns the values of a setting's option.
fn option(places: &Places<'_>, setting: &Setting, item: &Item) -> Parsed<Vec<String>> {
    let whole = item.as_value().ok_or_else(|| {
        problem(item.span(), format!("`{}` is not {}", setting.name, setting.allowed()), DOCUMENTED)
    })?;
    let elements: Vec<_> = match whole {
        Value::Array(array) => array.iter().collect(),
        value => vec![value],
    };
    let mut values = Vec::new();
    for element in &elements {
        let text = element.as_str().unwrap_or_default();
        check_secrets(setting, element.span(), text)?;
        match text.trim().strip_prefix('@') {
            // Read by the command, as the file that an option names. In several lines, secrets might follow.
            Some(path) if matches!(setting.name, "roots" | "turn") && !path.contains(char::is_control) => {
                values.push(format!("@{}", within(places, path).display()));
                continue;
            }
            _ => check(setting, element.span(), json(element))?,
        }
        values.extend(of_option(setting, element));
    }
    // An empty list, or several values where one is allowed.
    let is_list = whole.is_array() && !values.iter().any(|value| value.starts_with('@'));
    if is_list {
        check(setting, whole.span(), json(whole))?;
    }
    Ok(values)
}

/// Hint for a wrong value.
const DOCUMENTED: &str = "correct the value; docs/reference/SETTINGS.md describes it";

/// Checks a value by the table of all settings.
fn check(setting: &Setting, at: Option<Range<usize>>, value: Json) -> Parsed<()> {
    let set = Node::builder().set(setting.name, value).map(drop);
    set.map_err(|SettingError { reason, .. }| {
        problem(at, format!("`{}`: {reason}", setting.name), DOCUMENTED)
    })
}

/// Returns true if a value of a setting has a secret in it, and not the path of a file that has it.
pub(crate) fn has_secret(setting: &str, text: &str) -> bool {
    let has_token =
        |source: &RootSource| matches!(source, RootSource::Address(root) if root.token().is_some());
    match setting {
        "roots" => RootSource::parse_list(text).is_ok_and(|sources| sources.iter().any(has_token)),
        "turn" => !text.trim().is_empty() && !text.trim().starts_with('@'),
        _ => false,
    }
}

/// Refuses secrets, because this file may be readable by others.
fn check_secrets(setting: &Setting, at: Option<Range<usize>>, text: &str) -> Parsed<()> {
    if !has_secret(setting.name, text) {
        return Ok(());
    }
    Err(problem(
        at,
        format!("`{}` has a secret, and this file holds none", setting.name),
        "write it into a file of mode 0600, and its path here, such as \"@/home/ann/secret\"",
    ))
}

/// Returns the values of an option for a value of the file.
fn of_option(setting: &Setting, value: &Value) -> Vec<String> {
    let words = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    match (setting.name, value) {
        // The option of a switch turns it off.
        (_, Value::Boolean(is_on)) => {
            if *is_on.value() {
                vec![]
            } else {
                vec!["true".to_owned()]
            }
        }
        (_, Value::Integer(number)) => vec![number.value().to_string()],
        ("interfaces", Value::String(names)) => {
            let names = names.value().split(',').map(str::trim).filter(|name| *name != "all");
            names.map(|name| if name == "loopback" { "lo" } else { name }.to_owned()).collect()
        }
        ("stun", Value::String(servers)) => words(servers.value()),
        (_, Value::String(text)) if text.value().trim().is_empty() => Vec::new(),
        (_, Value::String(text)) => vec![text.value().clone()],
        _ => Vec::new(),
    }
}

/// Converts a value for [`check`]. Dates and tables, which no setting has, become null.
fn json(value: &Value) -> Json {
    match value {
        Value::String(text) => Json::from(text.value().as_str()),
        Value::Integer(number) => Json::from(*number.value()),
        Value::Float(number) => Json::from(*number.value()),
        Value::Boolean(is_on) => Json::from(*is_on.value()),
        Value::Array(values) => values.iter().map(json).collect(),
        Value::Datetime(_) | Value::InlineTable(_) => Json::Null,
    }
}

fn networks(
    places: &Places<'_>,
    item: &Item,
    place: impl Fn(Option<Range<usize>>) -> String,
) -> Parsed<BTreeMap<String, LocalNetwork>> {
    let table = item.as_table_like().ok_or_else(|| {
        problem(item.span(), "`networks` is not a table", "write [networks], and below it NAME = \"NETWORK\"")
    })?;
    let mut networks = BTreeMap::new();
    for (name, item) in table.iter() {
        let at = key_span(table, name);
        check_name(name, at.clone())?;
        let (network, secret_file) = local_network(places, item)?;
        networks.insert(name.to_owned(), LocalNetwork { network, secret_file, place: place(at) });
    }
    Ok(networks)
}

/// Refuses names that `-n` would take for an ID or a path.
fn check_name(name: &str, at: Option<Range<usize>>) -> Parsed<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_name = (1..=63).contains(&name.len()) && name.chars().all(is_plain) && !name.starts_with('-');
    match is_name && name.parse::<NetworkId>().is_err() {
        true => Ok(()),
        false => Err(problem(
            at,
            format!("`{}` is no name of a network", name.escape_debug()),
            "give it 1 to 63 letters, digits, hyphens and underscores, and none that is an ID",
        )),
    }
}

/// Returns the network and the passphrase's file of a text or table.
fn local_network(places: &Places<'_>, item: &Item) -> Parsed<(String, Option<PathBuf>)> {
    const FORM: &str =
        "write an ID, the path of a network's file, or { network = \"ID\", secret_file = \"PATH\" }";
    let wrong = |at, what: &str| problem(at, what, FORM);
    let text = |item: &Item| -> Parsed<String> {
        let text = item.as_str().map(str::trim).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| wrong(item.span(), "this is no text"))
    };
    let named = |text: String| match text.parse::<NetworkId>() {
        Ok(_) => text,
        Err(_) => within(places, &text).display().to_string(),
    };
    let Some(table) = item.as_table_like() else {
        let text = text(item).map_err(|_| wrong(item.span(), "this is no network"))?;
        return Ok((named(text), None));
    };
    let mut network = None;
    let mut secret_file = None;
    for (key, item) in table.iter() {
        match key {
            "network" => network = Some(named(text(item)?)),
            "secret_file" => secret_file = Some(within(places, &text(item)?)),
            "passphrase" | "secret" => {
                return Err(problem(
                    key_span(table, key),
                    "this file holds no secrets",
                    "write the passphrase into a file of mode 0600, and `secret_file = \"PATH\"` here",
                ));
            }
            key => {
                return Err(wrong(
                    key_span(table, key),
                    &format!("`{}` is unknown here", key.escape_debug()),
                ));
            }
        }
    }
    let network = network.ok_or_else(|| wrong(item.span(), "`network` is missing"))?;
    Ok((network, secret_file))
}

fn key_span(table: &dyn TableLike, key: &str) -> Option<Range<usize>> {
    table.key(key).and_then(|key| key.span())
}

/// Returns a path of the file: relative to its folder, or below `~/`.
fn within(places: &Places<'_>, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), &places.home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => places.folder.join(path),
    }
}

fn problem(at: Option<Range<usize>>, what: impl Display, hint: impl Display) -> Problem {
    Problem { at: at.unwrap_or_default(), what: what.to_string(), hint: hint.to_string() }
}
