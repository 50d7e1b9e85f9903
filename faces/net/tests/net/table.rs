//! The table of claims about addresses, which Python's tests play, too.

/// The file says how its rows are read.
const TABLE: &str = include_str!("../../../../tests/claims/net_addresses.txt");

/// Returns the words of each row of a claim. The last word takes the rest of its row.
pub(crate) fn rows<const COUNT: usize>(claim: &str) -> Vec<[String; COUNT]> {
    let rows: Vec<_> = TABLE
        .lines()
        .filter_map(|line| line.strip_prefix(claim)?.strip_prefix(' '))
        .map(|mut rest| {
            std::array::from_fn(|at| {
                rest = rest.trim_start();
                let end = if at + 1 == COUNT { None } else { rest.find(' ') };
                let (text, more) = rest.split_at(end.unwrap_or(rest.len()));
                rest = more;
                word(text)
            })
        })
        .collect();
    assert!(!rows.is_empty(), "{claim}");
    rows
}

fn word(text: &str) -> String {
    let text = text.replace("\\s", " ").replace("\\0", "\0");
    let text = text.replace("\\L", &"a".repeat(300)).replace("\\9", &"9".repeat(5000));
    if text == "\"\"" { String::new() } else { text }
}
