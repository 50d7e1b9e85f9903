//! Files of rules, in TOML. `docs/reference/RULES.md` describes them for people.

mod lint;
mod problem;
mod rules;
mod table;
mod tests_of_rules;

pub use problem::Problem;
pub use tests_of_rules::{Failure, Test};

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::problem::Notes;
use self::table::{Table, kind};
use crate::selector::shown;
use crate::{Action, Complaint, InvalidRules, RuleSet};

/// File of rules that has been read without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// Rules.
    pub rules: RuleSet,
    /// Tests of the rules, in the order of the file.
    pub tests: Vec<Test>,
    /// Warnings about rules that are permitted and probably not meant, such as one without effect; at most
    /// 20.
    pub warnings: Vec<Problem>,
}

impl RuleFile {
    /// Maximum length of a file in bytes.
    pub const MAX_LEN: usize = 256 * 1024;

    /// Maximum number of lines of a file.
    pub const MAX_LINES: usize = u16::MAX as usize;

    /// Maximum number of tests in a file.
    pub const MAX_TESTS: usize = 1_000;

    /// Reads a file. The rules are not tested: see [`RuleFile::failures`].
    ///
    /// # Errors
    /// Returns what is wrong, in the order of the file: at least one problem, and at most 20.
    pub fn parse(file: &[u8]) -> Result<Self, Vec<Problem>> {
        let text = check_text(file)?;
        let mut notes = Notes::new(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            notes.error(error.span().unwrap_or(text.len()..text.len()), syntax(error.message()));
        }
        // A table from which parts are missing would give errors that are none.
        if notes.has_errors() {
            return Err(notes.into_errors());
        }
        match read(table.get_ref(), &mut notes) {
            Some((rules, tests)) if !notes.has_errors() => {
                Ok(Self { rules, tests, warnings: notes.into_warnings() })
            }
            _ => Err(notes.into_errors()),
        }
    }
}

/// Returns the file's text if its length and form are good.
fn check_text(file: &[u8]) -> Result<&str, Vec<Problem>> {
    let problem = |line, column, text: String, hint: &str| {
        Err(vec![Problem { line, column, text, hint: hint.to_owned() }])
    };
    let (len, max) = (file.len(), RuleFile::MAX_LEN);
    if len > max {
        let text = format!("the file has {len} bytes; {max} are allowed");
        return problem(1, 1, text, "tags take less room than names of members");
    }
    let ends = file.iter().filter(|byte| **byte == b'\n').count();
    let lines = ends + usize::from(file.last().is_some_and(|byte| *byte != b'\n'));
    if lines > RuleFile::MAX_LINES {
        let text = format!("the file has {lines} lines; {} are allowed", RuleFile::MAX_LINES);
        return problem(RuleFile::MAX_LINES, 1, text, "remove empty lines");
    }
    match std::str::from_utf8(file) {
        Ok(text) => Ok(text),
        Err(error) => {
            let valid = std::str::from_utf8(&file[..error.valid_up_to()]).unwrap_or_default();
            let (line, column) = Notes::new(valid).place(valid.len());
            problem(line, column, "the file is no UTF-8 text".to_owned(), "save it as UTF-8")
        }
    }
}

/// Returns an error of the TOML parser, with a hint.
fn syntax(message: &str) -> Complaint {
    let hint = match message {
        _ if message.contains("duplicate key") => "give each key once; a list takes several values",
        _ if message.contains("quote") || message.contains("string") => {
            "texts are in quotes, as in `default = \"deny\"`"
        }
        _ => "lines are as `key = \"text\"`, and `[[rule]]` begins a rule (https://toml.io)",
    };
    Complaint::new(format!("this is no TOML: {message}"), hint)
}

/// Reads the whole file. Notes errors, and returns `None` if rules cannot be made because of them.
fn read(table: &DeTable<'_>, notes: &mut Notes<'_>) -> Option<(RuleSet, Vec<Test>)> {
    let table = Table::new(table, 0..0, "the file", &["default", "rule", "test"], notes);
    let default = read_default(&table, notes);
    let mut rules = Vec::new();
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (value, rule) in tables(&table, "rule", RuleSet::MAX_RULES, notes) {
        if let Some(rule) = rules::read(rule, value.span(), notes) {
            rules.push(rule);
            spans.push(value.span());
        }
    }
    let tests: Vec<Test> = (tables(&table, "test", RuleFile::MAX_TESTS, notes).into_iter())
        .filter_map(|(value, test)| tests_of_rules::read(test, value.span(), notes))
        .collect();
    if notes.has_errors() {
        return None;
    }
    match RuleSet::new(default?, rules) {
        Ok(set) => {
            lint::warn(&set, &spans, notes);
            Some((set, tests))
        }
        Err(error @ InvalidRules::Length(_)) => {
            let hint = "shorten notes, and name members by tags";
            notes.error(0..0, Complaint::new(error.to_string(), hint));
            None
        }
        Err(error) => {
            notes.error(0..0, Complaint::new(error.to_string(), "correct the rule"));
            None
        }
    }
}

fn read_default(table: &Table<'_>, notes: &mut Notes<'_>) -> Option<Action> {
    const HINT: &str = "write `default = \"deny\"` or `default = \"allow\"` in the first line; it decides about \
                        flows that no rule matches";
    action(table.require("default", HINT, notes)?, HINT, notes)
}

/// Reads the value of an action; notes an error with this hint if it is none.
fn action(value: &Spanned<DeValue<'_>>, hint: &str, notes: &mut Notes<'_>) -> Option<Action> {
    match table::text(value, hint, notes)? {
        "allow" => Some(Action::Allow),
        "deny" => Some(Action::Deny),
        other => {
            let text = format!("`{}` is neither `allow` nor `deny`", shown(other));
            notes.error(value.span(), Complaint::new(text, hint));
            None
        }
    }
}

/// Returns the tables with a name; notes an error if their number or form is wrong.
fn tables<'t>(
    table: &Table<'t>,
    name: &str,
    max: usize,
    notes: &mut Notes<'_>,
) -> Vec<(&'t Spanned<DeValue<'t>>, &'t DeTable<'t>)> {
    let Some(value) = table.get(name) else { return Vec::new() };
    let hint = format!("begin each {name} with the line `[[{name}]]`");
    let Some(items) = value.get_ref().as_array() else {
        let text = format!("`{name}` is {} and no list of tables", kind(value.get_ref()));
        notes.error(value.span(), Complaint::new(text, hint));
        return Vec::new();
    };
    if let Some(first) = items.get(max) {
        let text = format!("the file has {} {name}s; {max} are allowed", items.len());
        notes.error(first.span(), Complaint::new(text, "join those that differ in one list only"));
        return Vec::new();
    }
    let mut found = Vec::with_capacity(items.len());
    for item in &items[..] {
        match item.get_ref().as_table() {
            Some(table) => found.push((item, table)),
            None => {
                let text = format!("{} is no {name}", kind(item.get_ref()));
                notes.error(item.span(), Complaint::new(text, hint.clone()));
            }
        }
    }
    found
}
