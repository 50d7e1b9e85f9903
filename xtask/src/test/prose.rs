//! Rules of prose that can be counted, for comments and doc comments.
//!
//! Comments that are no documentation give reasons, so the cores have a minimum of them.
//!
//! A first sentence has a subject and a verb, so it begins with no question word. Phrases that hide who does
//! what are left out. A comment fits into 110 columns, but for code and tables in it, and so does a line of a
//! document. Python's docstrings and comments are held to the same words; ruff limits their columns.

use std::fs;
use std::path::PathBuf;

use super::sources::{files, rust_files};
use super::workspace::Package;
use crate::{Result, root};

/// The first words that make a question of a sentence.
const QUESTIONS: [&str; 7] = ["How", "What", "Whatever", "Whether", "Where", "Who", "Whose"];

/// Share of a crate's doc comments that may begin so, percent.
const QUESTIONS_PERCENT: usize = 3;

/// Phrases that no comment has.
const BANNED: [&str; 12] = [
    "so many",
    "so manieth",
    "goes by",
    "come of it",
    "comes of it",
    "is no more",
    "are no more",
    "makes do",
    "it is looked",
    "it is told",
    "that there are",
    "those of them",
];

/// Phrases that no document and no message ([`super::messages`]) has outside of code. Most hide who does
/// what.
const BANNED_IN_DOCUMENTS: [&str; 26] = [
    "so many",
    "so manieth",
    "stands",
    "goes by",
    "come of",
    "comes of",
    "is to be",
    "are to be",
    "shall",
    "is no more",
    "are no more",
    "makes do",
    "make do",
    "of use",
    "whoever",
    "nobody",
    "it is looked",
    "it is told",
    "it is said",
    "it is asked",
    "that there are",
    "those of them",
    "of its own",
    "of their own",
    "the kernel's",
    "one of the overlay's",
];

/// The crates that decide about protocols, whose reasons nothing else tells.
const CORES: [&str; 3] = ["peersock-datapath", "peersock-overlay", "peersock-stack"];

/// Share of a core's lines, without tests, that are comments on reasons, percent.
const REASONS_PERCENT: usize = 3;

/// Columns of a comment, and of a document's line.
const COLUMNS: usize = 110;

/// The documents, from the workspace's root.
const DOCUMENTS: [&str; 7] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "bindings/go/README.md",
    "bindings/node/README.md",
    "bindings/python/README.md",
    "docs",
];

/// Lines of the README, which is read before anything else.
const README_LINES: usize = 150;

/// Characters of a cell in a document's table. A longer text is a paragraph beside the table.
const CELL_CHARACTERS: usize = 200;

/// Returns where a crate's comments break the rules.
/// Fails if a file cannot be read.
pub(super) fn complaints(package: &Package) -> Result<Vec<String>> {
    let folder = package.manifest.parent().unwrap_or(&package.manifest);
    let mut all = Vec::new();
    for source in ["src", "tests"].map(|part| folder.join(part)).iter().filter(|part| part.is_dir()) {
        all.extend(rust_files(source)?);
    }
    let mut complaints =
        complaints_in(&all, &package.name, "doc comments", |text| Counts::of(text, COLUMNS))?;
    if CORES.contains(&package.name.as_str()) {
        let source = rust_files(&folder.join("src"))?;
        let texts = source.iter().map(fs::read_to_string).collect::<std::io::Result<Vec<_>>>()?;
        let (lines, reasons) = texts.iter().map(|text| reasons_in(text)).fold((0, 0), |sum, part| {
            let ((lines, reasons), (more_lines, more_reasons)) = (sum, part);
            (lines + more_lines, reasons + more_reasons)
        });
        if reasons * 100 < lines * REASONS_PERCENT {
            complaints.push(format!("{}: {reasons} comments in {lines} lines are few reasons", package.name));
        }
    }
    Ok(complaints)
}

/// Returns the number of lines in front of a file's tests, and of comments among them that are no
/// documentation.
fn reasons_in(text: &str) -> (usize, usize) {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let is_reason = |line: &&str| {
        let bare = line.trim_start();
        bare.starts_with("//") && !bare.starts_with("///") && !bare.starts_with("//!")
    };
    (text.lines().count(), text.lines().filter(is_reason).count())
}

/// Returns where the comments of the Python package, its tests and its examples break the rules.
/// Fails if a file cannot be read.
pub(super) fn python_complaints() -> Result<Vec<String>> {
    let all = files(&root().join("bindings/python"), &["py"], &|_| false)?;
    complaints_in(&all, "Python", "docstrings", |text| Counts::of(&as_rust(text), usize::MAX))
}

/// Returns the lines of documents that are too long outside of code and tables, those with a long cell, and
/// those with a phrase of [`BANNED_IN_DOCUMENTS`]; also that the README is too long, if it is.
/// Fails if a file cannot be read.
pub(super) fn document_complaints() -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for file in documents()? {
        let text = fs::read_to_string(&file)?;
        let name = file.strip_prefix(root()).unwrap_or(&file).display();
        let long = long_lines(&text).map(|line| format!("{name}:{line}: a line over {COLUMNS} columns"));
        let cells = long_cells(&text)
            .map(|line| format!("{name}:{line}: a table's cell over {CELL_CHARACTERS} characters"));
        let phrases =
            phrases(&text).into_iter().map(|(line, phrase)| format!("{name}:{line}: the phrase '{phrase}'"));
        complaints.extend(long.chain(cells).chain(phrases));
        if file == root().join("README.md") && text.lines().count() > README_LINES {
            complaints.push(format!("{name}: it has more than {README_LINES} lines"));
        }
    }
    Ok(complaints)
}

/// Returns the files of [`DOCUMENTS`].
/// Fails if a folder cannot be read.
pub(super) fn documents() -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in DOCUMENTS.map(|place| root().join(place)) {
        match path.is_dir() {
            true => all.extend(files(&path, &["md"], &|_| false)?),
            false => all.push(path),
        }
    }
    Ok(all)
}

/// Returns the numbers, from 1, of a document's lines that are too long and neither code nor a table's.
fn long_lines(text: &str) -> impl Iterator<Item = usize> {
    lines_outside_code(text)
        .filter(|(_, line)| !is_of_table(line) && line.chars().count() > COLUMNS)
        .map(|(number, _)| number)
}

/// Returns the numbers, from 1, of the lines of a document's tables that have a long cell.
fn long_cells(text: &str) -> impl Iterator<Item = usize> {
    // A bar behind a backslash belongs to the cell's text.
    let is_long = |line: &str| {
        let line = line.replace("\\|", "!");
        line.split('|').any(|cell| cell.trim().chars().count() > CELL_CHARACTERS)
    };
    lines_outside_code(text)
        .filter(move |(_, line)| is_of_table(line) && is_long(line))
        .map(|(number, _)| number)
}

/// Returns the banned phrases of a document or a message, with the number of the line, from 1, in which each
/// begins.
pub(super) fn phrases(text: &str) -> Vec<(usize, &'static str)> {
    let words = words(text);
    let mut found = Vec::new();
    for phrase in BANNED_IN_DOCUMENTS {
        let phrase_words: Vec<_> = phrase.split(' ').collect();
        let has_it = |window: &&[(usize, String)]| {
            window.iter().map(|(_, word)| word.as_str()).eq(phrase_words.iter().copied())
        };
        found.extend(words.windows(phrase_words.len()).filter(has_it).map(|window| (window[0].0, phrase)));
    }
    found
}

/// Returns a document's words in lower case without code, each with the number of its line from 1. Signs
/// other than letters, digits and apostrophes are words, too, so that no phrase leads beyond them.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut in_span = false;
    for (number, line) in lines_outside_code(text) {
        // A span of code ends with its paragraph, if not before.
        in_span &= !line.trim().is_empty();
        words.push((number, String::new()));
        for c in line.chars().flat_map(char::to_lowercase) {
            in_span ^= c == '`';
            match words.last_mut() {
                _ if in_span => {}
                Some((_, last)) if c.is_alphanumeric() || c == '\'' => last.push(c),
                _ if c.is_whitespace() => words.push((number, String::new())),
                _ => words.extend([(number, c.to_string()), (number, String::new())]),
            }
        }
    }
    words.retain(|(_, word)| !word.is_empty());
    words
}

/// Returns a document's lines that are not code, with their numbers from 1.
fn lines_outside_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((at + 1, line))
    })
}

/// Returns true if a document's line belongs to a table.
fn is_of_table(line: &str) -> bool {
    line.trim_start().starts_with('|')
}

/// Returns the complaints about some files, and one if too many of their doc comments begin with questions.
fn complaints_in(
    files: &[PathBuf],
    whose: &str,
    docs: &str,
    count: impl Fn(&str) -> Counts,
) -> Result<Vec<String>> {
    let (mut complaints, mut total, mut questions) = (Vec::new(), 0, 0);
    for file in files {
        let name = file.strip_prefix(root()).unwrap_or(file).display().to_string();
        let counts = count(&fs::read_to_string(file)?);
        complaints.extend(counts.complaints.iter().map(|(line, what)| format!("{name}:{line}: {what}")));
        total += counts.docs;
        questions += counts.questions;
    }
    if questions * 100 > total * QUESTIONS_PERCENT {
        complaints.push(format!("{whose}: {questions} of {total} {docs} begin with a question word"));
    }
    Ok(complaints)
}

/// Turns Python's docstrings and comments into Rust's, line by line, and leaves out the code.
fn as_rust(text: &str) -> String {
    let mut in_doc = false;
    let mut lines = String::new();
    for line in text.lines().map(str::trim) {
        // Other strings with three quotes go on behind a backslash or on the next line.
        let first =
            line.strip_prefix("\"\"\"").filter(|rest| rest.starts_with(|c: char| c.is_alphanumeric()));
        let (mark, comment) = if let Some(doc) = Some(line).filter(|_| in_doc).or(first) {
            in_doc = !doc.ends_with("\"\"\"");
            ("/// ", doc)
        } else if let Some(doc) = line.strip_prefix("#:") {
            ("/// ", doc)
        } else if let Some(comment) = line.strip_prefix('#') {
            ("// ", comment)
        } else {
            ("", "")
        };
        lines.extend([mark, comment.trim_start(), "\n"]);
    }
    lines
}

/// Counts of a file's comments, and their faults.
#[derive(Default)]
struct Counts {
    docs: usize,
    questions: usize,
    /// Line numbers, from 1, and what is wrong there.
    complaints: Vec<(usize, String)>,
}

impl Counts {
    /// Counts in a text of Rust, whose comments may have `columns`.
    fn of(text: &str, columns: usize) -> Counts {
        let mut counts = Counts::default();
        let (mut was_doc, mut in_code) = (false, false);
        for (number, line) in text.lines().enumerate() {
            let bare = line.trim_start();
            let doc = bare.strip_prefix("///").or_else(|| bare.strip_prefix("//!"));
            let comment = doc.or_else(|| bare.strip_prefix("//"));
            let is_first = doc.is_some() && !was_doc;
            was_doc = doc.is_some();
            in_code &= was_doc;
            let Some(comment) = comment.map(str::trim_start) else { continue };
            if is_first {
                counts.docs += 1;
                let word = comment.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                counts.questions += usize::from(QUESTIONS.contains(&word));
            }
            if comment.starts_with("```") {
                in_code = was_doc && !in_code;
            } else if !in_code && !comment.starts_with('|') {
                counts.look_at(number + 1, line, comment, columns);
            }
        }
        counts
    }

    fn look_at(&mut self, number: usize, line: &str, comment: &str, columns: usize) {
        if line.chars().count() > columns {
            self.complaints.push((number, format!("a comment over {columns} columns")));
        }
        let lower = comment.to_lowercase();
        if let Some(phrase) = BANNED.iter().find(|phrase| lower.contains(*phrase)) {
            self.complaints.push((number, format!("a comment with '{phrase}'")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_phrases_and_columns_are_counted() {
        let long = format!("// {}\n", "x".repeat(COLUMNS));
        let text = format!(
            "//! Whether it works.\n//! What follows is no first line.\n\n/// Returns {}.\nfn f() {{}}\n/// Who?\n{long}",
            "so many"
        );
        let counts = Counts::of(&text, COLUMNS);
        assert_eq!((counts.docs, counts.questions), (3, 2));
        let lines: Vec<_> = counts.complaints.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 7]);
    }

    #[test]
    fn code_and_tables_in_comments_may_be_long() {
        let wide = "x".repeat(COLUMNS);
        let text = format!(
            "/// Text.\n/// ```\n/// {wide}\n/// ```\n/// | {wide} |\n/// {wide}\nlet code = {wide};\n"
        );
        assert_eq!(Counts::of(&text, COLUMNS).complaints.len(), 1);
    }

    #[test]
    fn comments_on_reasons_are_counted_in_front_of_the_tests() {
        let text =
            "//! What.\n\n/// It.\nfn f() {\n    // Because.\n}\n#[cfg(test)]\nmod tests {\n// No.\n}\n";
        assert_eq!(reasons_in(text), (6, 1));
    }

    #[test]
    fn code_and_tables_in_documents_may_be_long() {
        let wide = "x".repeat(COLUMNS + 1);
        let text = format!("{}\n{wide}\n```sh\n{wide}\n```\n| {wide} |\n- {wide}\n", &wide[1..]);
        assert_eq!(long_lines(&text).collect::<Vec<_>>(), [2, 7]);
    }

    #[test]
    fn long_cells_of_tables_are_found() {
        let full = "x".repeat(CELL_CHARACTERS);
        let text = format!(
            "| {full} | {full} |\n|---|---|\n| a | {full}! |\n{full}!\n```\n| {full}! |\n```\n\
             | {}\\|{} |\n",
            &full[..100],
            &full[..100]
        );
        assert_eq!(long_cells(&text).collect::<Vec<_>>(), [3, 8]);
    }

    #[test]
    fn phrases_of_documents_are_found_as_words() {
        let (start, end) = ("has so", "many things");
        let text = format!(
            "It {start}\n{end}, and NOBODY\nis shallow. `nobody` and `x {start}\n{end}`: a use of. Its own.\n\
             ```\n{start} {end}\n```\n| cell | shall |\n"
        );
        assert_eq!(phrases(&text), [(1, "so many"), (8, "shall"), (2, "nobody")]);
    }

    #[test]
    fn docstrings_and_comments_of_python_are_counted() {
        let many = "so many";
        let text = format!(
            "\"\"\"What it is.\n\nIt has {many}.\n\"\"\"\n\n#: How long.\nX = 1  # What is no first line.\n\n\n\
             def f():\n    \"\"\"Returns it.\"\"\"\n    # Who has {many}.\n    return \"\"\"\n{many}\n\"\"\"\n"
        );
        let counts = Counts::of(&as_rust(&text), usize::MAX);
        assert_eq!((counts.docs, counts.questions), (3, 2));
        let lines: Vec<_> = counts.complaints.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 12]);
    }
}
