//! Colours: on terminals only, and as the variables NO_COLOR, CLICOLOR and CLICOLOR_FORCE say.
//!
//! Text for stdout may have styles in it: [`print`](crate::output::print) takes them out where there are no
//! colours.

use std::fmt::Display;

use anstream::ColorChoice;
use anstream::stream::RawStream;
use anstyle::{AnsiColor, Style};
use clap::builder::Styles;

/// What went wrong.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();

/// What to do about it.
pub const HINT: Style = AnsiColor::Cyan.on_default();

/// Names and headings.
pub const BOLD: Style = Style::new().bold();

/// The styles of `--help` and of errors in the command line.
pub const HELP: Styles = Styles::styled()
    .header(BOLD.underline())
    .usage(BOLD.underline())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default())
    .error(ERROR);

/// Whether `stream` shall have colours.
pub fn is_on(stream: &impl RawStream) -> bool {
    anstream::AutoStream::choice(stream) != ColorChoice::Never
}

/// Wraps a text into a style.
pub fn paint(style: Style, text: impl Display) -> impl Display {
    format!("{style}{text}{style:#}")
}
