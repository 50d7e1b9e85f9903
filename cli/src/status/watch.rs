//! Repeated output: in place on a terminal, one after the other elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::thread;
use std::time::Duration;

use anstream::adapter::strip_str;

use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::style;

/// Default rows and columns if the terminal does not report them.
const USUAL_SIZE: (usize, usize) = (24, 80);

/// Prints the result of `look` repeatedly until it fails or stdout is closed. The argument of `look` is true
/// in the first call.
pub(super) fn repeat(interval: Duration, spaced: bool, look: impl Fn(bool) -> Outcome<String>) -> Outcome {
    let in_place =
        spaced && io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    let mut first = true;
    loop {
        let text = look(first).inspect_err(|_| {
            // Ends the line, because a cut screen ends within a line, which the next message must not
            // continue.
            if in_place && !first {
                let _ = io::stdout().write_all(b"\n");
            }
        })?;
        if in_place {
            redraw(&text, first).map_err(Failure::output)?;
        } else {
            let gap = if spaced && !first { "\n" } else { "" };
            print(format_args!("{gap}{text}"))?;
        }
        first = false;
        thread::sleep(interval);
    }
}

/// Draws over the previous text, without clearing the screen in between.
fn redraw(text: &str, first: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let coloured = style::is_on(&stdout);
    let screen = frame(text, size(), first);
    // Bypasses anstream, because without colours it would also remove cursor movements.
    stdout.write_all(if coloured { screen } else { keep_movements(&screen) }.as_bytes())?;
    stdout.flush()
}

/// Returns the output that shows the beginning of `text`, as far as it fits.
pub(crate) fn frame(text: &str, (rows, columns): (usize, usize), first: bool) -> String {
    let mut screen = if first { CLEAR.to_owned() } else { String::new() };
    screen += HOME;
    let mut left = rows.max(2) - 1;
    let mut lines = text.lines();
    for line in &mut lines {
        // A long line takes several rows.
        let width = strip_str(line).to_string().chars().count();
        let taken = width.div_ceil(columns.max(1)).max(1);
        if taken > left {
            // Shows the beginning of a line that takes more rows than are left.
            if left > 0 {
                screen += &format!("{}{END_LINE}\n", cut(line, left * columns));
            }
            screen += &format!("…{END_LINE}");
            break;
        }
        left -= taken;
        screen += &format!("{line}{END_LINE}\n");
    }
    screen + END_SCREEN
}

/// Returns the first characters of a line, with all of its colours.
fn cut(line: &str, most: usize) -> String {
    let (mut shown, mut left, mut is_sequence) = (String::new(), most, false);
    for one in line.chars() {
        is_sequence |= one == '\x1b';
        if is_sequence {
            // A sequence ends with its first letter.
            is_sequence = !one.is_ascii_alphabetic();
        } else if left > 0 {
            left -= 1;
        } else {
            continue;
        }
        shown.push(one);
    }
    shown
}

/// Removes colours, but keeps cursor movements.
pub(crate) fn keep_movements(screen: &str) -> String {
    let mut text = String::with_capacity(screen.len());
    let mut rest = screen;
    while let Some(at) = rest.find("\x1b[") {
        text += &rest[..at];
        let sequence = &rest[at..];
        // A sequence ends with its first letter.
        let end = sequence.find(|c: char| c.is_ascii_alphabetic()).map_or(sequence.len(), |end| end + 1);
        if !sequence[..end].ends_with('m') {
            text += &sequence[..end];
        }
        rest = &sequence[end..];
    }
    text + rest
}

pub(crate) fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => USUAL_SIZE,
    }
}

const CLEAR: &str = "\x1b[2J";
const HOME: &str = "\x1b[H";
/// Clears the rest of an earlier, longer line.
const END_LINE: &str = "\x1b[K";
/// Clears the rest of an earlier, longer text.
const END_SCREEN: &str = "\x1b[J";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_screen() {
        let text = "one\ntwo\nthree\nfour";
        assert_eq!(
            frame(text, (24, 80), true),
            "\x1b[2J\x1b[Hone\x1b[K\ntwo\x1b[K\nthree\x1b[K\nfour\x1b[K\n\x1b[J"
        );
        assert_eq!(frame(text, (3, 80), false), "\x1b[Hone\x1b[K\ntwo\x1b[K\n…\x1b[K\x1b[J");
        // "three" takes two rows of three columns.
        assert_eq!(frame("three\nx", (4, 3), false), "\x1b[Hthree\x1b[K\nx\x1b[K\n\x1b[J");
        // A line that does not fit is shown in part.
        assert_eq!(frame("three\nx", (2, 3), false), "\x1b[Hthr\x1b[K\n…\x1b[K\x1b[J");
        let coloured = frame("a\n\x1b[1mthree\x1b[0m!\nx", (3, 3), false);
        assert_eq!(coloured, "\x1b[Ha\x1b[K\n\x1b[1mthr\x1b[0m\x1b[K\n…\x1b[K\x1b[J");
        assert_eq!(frame("\x1b[1mabc\x1b[0m\nx", (3, 3), false).matches('\n').count(), 2);
    }

    #[test]
    fn without_colours_the_movements_stay() {
        assert_eq!(keep_movements("\x1b[H\x1b[1mbold\x1b[0m\x1b[K\n\x1b[J"), "\x1b[Hbold\x1b[K\n\x1b[J");
    }
}
