//! Check of the table of RFC 9293's requirements: every test in it exists.

use std::path::Path;

/// Checks `musts.md` in the scripts' folder: its numbers are complete, and every name in backquotes in the
/// last column is a script, or a function of the crate's tests.
pub(crate) fn check(folder: &Path, scripts: &[String]) -> Result<(), String> {
    let text = std::fs::read_to_string(folder.join("musts.md")).map_err(|error| error.to_string())?;
    let functions = functions(&folder.join("../.."));
    let mut numbers = Vec::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| MUST-")) {
        let mut cells = row.trim_end_matches('|').split('|').map(str::trim);
        let number = cells.next().unwrap_or_default();
        numbers.push(number.parse::<u32>().map_err(|_| format!("MUST-{number}?"))?);
        let shown = cells.nth(1).unwrap_or_default();
        if shown.is_empty() {
            return Err(format!("MUST-{number} is not dealt with"));
        }
        for name in shown.split('`').skip(1).step_by(2) {
            if !scripts.iter().any(|script| script == name) && !functions.iter().any(|known| known == name) {
                return Err(format!("MUST-{number} names {name}, and there is no such test"));
            }
        }
    }
    match numbers.iter().copied().eq(1..=numbers.len() as u32) {
        true => Ok(()),
        false => Err(format!("the numbers are not in order: {numbers:?}")),
    }
}

/// Returns the names of the functions in the crate's sources and tests.
fn functions(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![folder.join("src"), folder.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let declared = text.lines().filter_map(|line| line.trim().strip_prefix("fn "));
                names.extend(declared.filter_map(|line| Some(line.split_once('(')?.0.to_owned())));
            }
        }
    }
    names
}
