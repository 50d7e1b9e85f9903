//! Parser of the text format of Prometheus.

use std::collections::BTreeSet;

/// Sample with its family and labels.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) help: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl Line {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// Parses the format as strictly as its description: a family is in one place, after its help and type; no
/// sample occurs twice.
#[track_caller]
pub(super) fn parse(text: &str) -> Vec<Line> {
    assert!(text.ends_with('\n'), "the last line has an end");
    let (mut lines, mut families, mut seen) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let (mut help, mut kind) = ((String::new(), String::new()), (String::new(), String::new()));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').expect("a name and a text");
            assert!(families.insert(name.to_owned()), "{name} is there twice");
            help = (name.to_owned(), words.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, word) = rest.split_once(' ').expect("a name and a type");
            assert!(help.0 == name && ["counter", "gauge"].contains(&word), "{line}");
            kind = (name.to_owned(), word.to_owned());
        } else {
            let end = line.find(['{', ' ']).expect("a number");
            let (name, rest) = line.split_at(end);
            assert!(is_name(name) && kind.0 == name, "{line}");
            let (labels, value) = labels(rest);
            let value = value.strip_prefix(' ').expect("a space").parse().expect("a number");
            assert!(seen.insert((name.to_owned(), labels.clone())), "{line} is there twice");
            lines.push(Line { name: name.into(), kind: kind.1.clone(), help: help.1.clone(), labels, value });
        }
    }
    lines
}

/// Parses the labels before a value; returns the rest.
#[track_caller]
fn labels(text: &str) -> (Vec<(String, String)>, &str) {
    let Some(mut rest) = text.strip_prefix('{') else { return (Vec::new(), text) };
    let mut labels: Vec<(String, String)> = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label");
        assert!(is_name(name) && labels.iter().all(|(label, _)| label != name), "{text}");
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().expect("the value ends") {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().expect("something is escaped").1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("\\{c} in {text}"),
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        match rest.as_bytes().first() {
            Some(b',') => rest = &rest[1..],
            Some(b'}') => return (labels, &rest[1..]),
            _ => panic!("{text}"),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
