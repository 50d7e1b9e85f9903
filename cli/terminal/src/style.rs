//! Colours: on terminals only, subject to the variables NO_COLOR, CLICOLOR and CLICOLOR_FORCE.
//!
//! Text for stdout may contain styles; [`print`](crate::output::print) removes them if there are no colours.

use std::fmt::Display;

use anstream::ColorChoice;
use anstream::stream::RawStream;
use anstyle::{AnsiColor, Style};
use clap::builder::Styles;

/// Style of errors.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();

/// Style of hints.
pub const HINT: Style = AnsiColor::Cyan.on_default();

/// Style of names and headings.
pub const BOLD: Style = Style::new().bold();

/// Styles of `--help` and of command line errors.
pub const HELP: Styles = Styles::styled()
    .header(BOLD.underline())
    .usage(BOLD.underline())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default())
    .error(ERROR);

/// Returns true if `stream` gets colours.
pub fn is_on(stream: &impl RawStream) -> bool {
    anstream::AutoStream::choice(stream) != ColorChoice::Never
}

/// Wraps a text in a style.
pub fn paint(style: Style, text: impl Display) -> impl Display {
    format!("{style}{text}{style:#}")
}
