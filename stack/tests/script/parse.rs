//! Reader of scripts: files of named scripts, lines of words.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

/// A named script.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// File name without its extension, two colons, and the script's name.
    pub(crate) name: String,
    /// File name for messages.
    pub(crate) file: String,
    pub(crate) lines: Vec<Line>,
}

/// One line of a script.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) number: usize,
    /// Time after the line before.
    pub(crate) delay: Option<Delay>,
    /// Number of the peer's connection.
    pub(crate) connection: u16,
    /// Rest of the line.
    pub(crate) text: String,
}

/// Bounds of the time between the line before and an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delay {
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

impl Script {
    /// Returns true if the script is meant for this address family.
    pub(crate) fn suits(&self, ipv6: bool) -> bool {
        let unwanted = if ipv6 { "ipv4" } else { "ipv6" };
        !self.lines.iter().any(|line| line.text == unwanted)
    }
}

/// Loads all scripts of a folder.
pub(crate) fn load(folder: &Path) -> Result<Vec<Script>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let mut scripts = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "txt")) {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let topic = path.file_stem().unwrap_or_default().to_string_lossy();
        scripts.append(&mut read_file(&topic, &text)?);
    }
    let mut names = HashSet::new();
    match scripts.iter().find(|script| !names.insert(&script.name)) {
        Some(twice) => Err(format!("two scripts are named {}", twice.name)),
        None => Ok(scripts),
    }
}

fn read_file(topic: &str, text: &str) -> Result<Vec<Script>, String> {
    let file = format!("stack/tests/scripts/{topic}.txt");
    let mut scripts: Vec<Script> = Vec::new();
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, without_comment(line)));
    while let Some((number, text)) = lines.next() {
        if text.is_empty() {
            continue;
        }
        if let Some(name) = text.strip_prefix("== ") {
            let name = format!("{topic}::{}", name.trim());
            scripts.push(Script { name, file: file.clone(), lines: Vec::new() });
            continue;
        }
        let Some(script) = scripts.last_mut() else {
            return Err(format!("{file}:{number}: this belongs to no script"));
        };
        let located = |problem| format!("{file}:{number}: {problem}");
        if let Some(header) = text.strip_prefix("each ") {
            let body: Vec<_> = lines.by_ref().take_while(|(_, text)| *text != "end").collect();
            for (number, text) in unroll(header, &body).map_err(located)? {
                script.lines.push(read_line(number, &text).map_err(located)?);
            }
        } else {
            script.lines.push(read_line(number, text).map_err(located)?);
        }
    }
    Ok(scripts)
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

/// Executes `each $x in 1 2 3`: repeats the lines up to `end` with each value in place of the name.
fn unroll(header: &str, body: &[(usize, &str)]) -> Result<Vec<(usize, String)>, String> {
    let (name, values) = header.split_once(" in ").ok_or("each needs `$name in values`")?;
    let mut lines = Vec::new();
    for value in values.split_whitespace() {
        let range = value.split_once("..").map(|(first, last)| (first.parse::<i64>(), last.parse::<i64>()));
        let values = match range {
            Some((Ok(first), Ok(last))) => (first..=last).map(|value| value.to_string()).collect(),
            _ => vec![value.to_owned()],
        };
        for value in values {
            lines.extend(body.iter().map(|(number, text)| (*number, text.replace(name.trim(), &value))));
        }
    }
    Ok(lines)
}

pub(crate) fn read_line(number: usize, text: &str) -> Result<Line, String> {
    let mut rest = text;
    let mut delay = None;
    if let Some(after) = rest.strip_prefix('+') {
        let (time, others) = after.split_once(' ').unwrap_or((after, ""));
        delay = Some(read_delay(time)?);
        rest = others.trim();
    }
    let mut connection = 1;
    if let Some((prefix, others)) = rest.split_once(':')
        && let Ok(number) = prefix.parse()
    {
        connection = number;
        rest = others.trim();
    }
    Ok(Line { number, delay, connection, text: rest.to_owned() })
}

/// Reads `0.2`, which has the timers' tolerance, or `0.2~0.3`.
fn read_delay(text: &str) -> Result<Delay, String> {
    let seconds = |text: &str| {
        let seconds = text.parse::<f64>().map_err(|_| format!("{text} is no number of seconds"))?;
        Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
    };
    match text.split_once('~') {
        Some((least, most)) => Ok(Delay { least: seconds(least)?, most: seconds(most)? }),
        None => {
            let exact = seconds(text)?;
            Ok(Delay { least: exact, most: exact })
        }
    }
}
