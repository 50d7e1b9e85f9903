//! Reading of tables and values, with errors at their places.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::problem::Notes;
use crate::selector::shown;
use crate::words::nearest;
use crate::{Complaint, Rule, Scope};

/// Table of the file.
pub(super) struct Table<'t> {
    table: &'t DeTable<'t>,
    /// Place of the table's header.
    pub(super) span: Range<usize>,
    /// Name of the table in errors.
    name: &'static str,
}

impl<'t> Table<'t> {
    /// Takes a table, and notes errors about keys that it cannot have.
    pub(super) fn new(
        table: &'t DeTable<'t>,
        span: Range<usize>,
        name: &'static str,
        known: &[&'static str],
        notes: &mut Notes<'_>,
    ) -> Self {
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let given = key.get_ref();
            let hint = match nearest(given, known) {
                Some(meant) => format!("write `{meant}`"),
                None if given == "default" => "`default` comes before the first `[[rule]]`".to_owned(),
                None => format!("{name} has the keys {}", known.join(", ")),
            };
            notes.error(key.span(), Complaint::new(format!("{name} has no key `{}`", shown(given)), hint));
        }
        Self { table, span, name }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// Returns a value that may not be missing; notes an error with this hint if it is.
    pub(super) fn require(
        &self,
        key: &str,
        hint: &str,
        notes: &mut Notes<'_>,
    ) -> Option<&'t Spanned<DeValue<'t>>> {
        let value = self.get(key);
        if value.is_none() {
            notes.error(self.span.clone(), Complaint::new(format!("{} has no `{key}`", self.name), hint));
        }
        value
    }
}

/// Item of a list: a text or a number.
pub(super) enum Item<'t> {
    Text(&'t str),
    /// Number, if it fits.
    Number(Option<u64>),
}

/// Returns a text of the file; notes an error otherwise.
pub(super) fn text<'t>(
    value: &'t Spanned<DeValue<'t>>,
    hint: &str,
    notes: &mut Notes<'_>,
) -> Option<&'t str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        let found = kind(value.get_ref());
        notes.error(value.span(), Complaint::new(format!("{found} is no text in quotes"), hint));
    }
    text
}

/// Returns a number of the file as it fits.
pub(super) fn number(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Reads a value, or the values of a list. `"*"` alone is everything. Notes errors, and returns `None` if
/// there is one.
pub(super) fn scope<'t, T>(
    value: &'t Spanned<DeValue<'t>>,
    hint: &str,
    notes: &mut Notes<'_>,
    mut read: impl FnMut(Item<'t>) -> Result<Vec<T>, Complaint>,
) -> Option<Scope<T>> {
    let items = match value.get_ref() {
        DeValue::Array(items) => &items[..],
        _ => std::slice::from_ref(value),
    };
    if items.is_empty() {
        let text = "an empty list matches nothing, and is easily taken for everything";
        notes.error(value.span(), Complaint::new(text, hint));
        return None;
    }
    if items.len() > Rule::MAX_LIST {
        let text = format!("the list has {} items; {} are allowed", items.len(), Rule::MAX_LIST);
        notes.error(value.span(), Complaint::new(text, "give members a tag, or write several rules"));
        return None;
    }
    let (mut list, mut is_all, mut is_good) = (Vec::new(), false, true);
    for item in items {
        let result = match item.get_ref() {
            DeValue::String(text) if text == "*" => {
                is_all = true;
                continue;
            }
            DeValue::String(text) => read(Item::Text(text)),
            DeValue::Integer(integer) => read(Item::Number(number(integer))),
            other => Err(Complaint::new(format!("{} cannot be here", kind(other)), hint)),
        };
        match result {
            Ok(found) => list.extend(found),
            Err(complaint) => {
                is_good = false;
                notes.error(item.span(), complaint);
            }
        }
    }
    if is_all && items.len() > 1 {
        let text = "\"*\" is not alone in its list";
        notes.error(value.span(), Complaint::new(text, "\"*\" is everything, so leave the others out"));
        return None;
    }
    if list.len() > Rule::MAX_LIST {
        let text = format!(
            "the list has {} items with both of \"icmp\"; {} are allowed",
            list.len(),
            Rule::MAX_LIST
        );
        notes.error(value.span(), Complaint::new(text, "write several rules"));
        return None;
    }
    is_good.then_some(if is_all { Scope::All } else { Scope::Only(list) })
}

/// Returns the kind of a value with an article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
