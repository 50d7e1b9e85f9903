//! Checks that log fields with the same meaning have the same name everywhere. Only fields listed in
//! `docs/use/STATUS.md` are allowed, so a reader of logs knows the names to search for.

use std::collections::BTreeSet;
use std::fs;

use syn::buffer::{Cursor, TokenBuffer};

use super::debug_forms::{LOGS, TOOLS, each_macro};
use super::sources::rust_files;
use super::workspace::Workspace;
use crate::{Result, root};

/// Document with the list of fields, and the heading of the list.
const DOCUMENT: &str = "docs/use/STATUS.md";
const HEADING: &str = "## Fields of log lines\n";

/// Returns the unlisted fields, and the listed fields that nothing logs.
/// Fails if a file cannot be read, or the list is missing.
pub(super) fn complaints(workspace: &Workspace) -> Result<Vec<String>> {
    let document = fs::read_to_string(root().join(DOCUMENT))?;
    let listed = listed(&document).ok_or_else(|| format!("{DOCUMENT} has no list of fields"))?;
    let (mut complaints, mut used) = (Vec::new(), BTreeSet::new());
    for package in &workspace.packages {
        if TOOLS.contains(&package.name.as_str()) {
            continue;
        }
        for file in rust_files(&package.manifest.with_file_name("src"))? {
            let text = fs::read_to_string(&file)?;
            let fields = fields(text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default())?;
            let name = file.strip_prefix(root()).unwrap_or(&file);
            complaints.extend(fields.difference(&listed).map(|field| {
                format!("{}: the field `{field}` of a log line is not in {DOCUMENT}", name.display())
            }));
            used.extend(fields);
        }
    }
    let unused = listed.difference(&used);
    complaints.extend(unused.map(|field| format!("{DOCUMENT}: no log line has the field `{field}`")));
    Ok(complaints)
}

/// Returns the names in the first column of the list.
fn listed(document: &str) -> Option<BTreeSet<String>> {
    let (_, section) = document.split_once(HEADING)?;
    let section = section.split("\n## ").next()?;
    let columns = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let names = columns.flat_map(|column| column.split(['`', ',', ' ']));
    Some(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// Returns the names of all fields that a file logs.
fn fields(source: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    each_macro(TokenBuffer::new2(source.parse()?).begin(), &mut |name, group| {
        if LOGS.contains(&name) {
            found.extend(fields_of(name, group));
        }
    });
    Ok(found)
}

/// Returns the names of the fields in one call.
fn fields_of(name: &str, mut at: Cursor<'_>) -> Vec<String> {
    let mut fields = Vec::new();
    while !at.eof() {
        if at.literal().is_some() {
            // This literal is the name of a span, or the message. Only its text's values follow a message.
            if !name.ends_with("span") {
                break;
            }
        } else {
            fields.extend(field(at));
        }
        at = behind_comma(at);
    }
    fields
}

/// Returns the name of a field in any of its notations: `%name`, `name`, `name = value`.
fn field(at: Cursor<'_>) -> Option<String> {
    let (mut name, mut at) = (String::new(), at.punct().map_or(at, |(_, rest)| rest));
    while let Some((part, rest)) = at.ident() {
        name += &part.to_string();
        match rest.punct() {
            Some((dot, rest)) if dot.as_char() == '.' => {
                name.push('.');
                at = rest;
            }
            // Matches `target: …`.
            Some((colon, _)) if colon.as_char() == ':' => return None,
            _ => break,
        }
    }
    // Other beginnings are not fields, and the macro does not log.
    Some(name).filter(|name| name.starts_with(|first: char| first.is_lowercase()))
}

fn behind_comma(mut at: Cursor<'_>) -> Cursor<'_> {
    while let Some((_, rest)) = at.token_tree() {
        let is_comma = at.punct().is_some_and(|(punct, _)| punct.as_char() == ',');
        at = rest;
        if is_comma {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_however_they_are_written() {
        for (source, expected) in [
            ("tracing::debug!(peer = %handle.id(), to = %place, \"sent\");", &["peer", "to"][..]),
            ("info!(%error, roots, \"{count} of {}\", all);", &["error", "roots"]),
            (
                "match x { Err(error) => tracing::warn!(%error, \"no\"), _ => warn!(\"{a}\", a = 1) }",
                &["error"],
            ),
            ("tracing::info_span!(\"node\", %id).entered();", &["id"]),
            ("tracing::error!(target: \"x\", \"malformed\"); format!(\"{x}\", x = y);", &[]),
        ] {
            let found = fields(source).unwrap();
            assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{source}");
        }
    }

    #[test]
    fn the_list_is_read() {
        let document = format!(
            "{HEADING}\nText.\n\n| field | what |\n|---|---|\n| `a`, `b_c` | `d` |\n\n## Next\n| `e` | |\n"
        );
        let names: Vec<_> = listed(&document).unwrap().into_iter().collect();
        assert_eq!(names, ["a", "b_c"]);
        assert_eq!(listed("## Other\n"), None);
    }
}
