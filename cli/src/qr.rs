//! QR codes on the terminal.

use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Color, Style};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::stdio;
use crate::style;

/// Black on white, whichever colours the terminal has: many readers take no code with light modules on dark.
const BLACK_ON_WHITE: Style =
    AnsiColor::Black.on_default().bg_color(Some(Color::Ansi(AnsiColor::BrightWhite)));

/// Width of the light border that readers need, in modules (ISO/IEC 18004, 9.1).
const QUIET: usize = 4;

/// Shows a text as a QR code (ISO/IEC 18004) on stderr, so that stdout has the text alone.
///
/// It says so if the text is too long for a code, or if the terminal is too narrow.
pub(crate) fn show(text: &str) {
    // The lowest level of correction gives the smallest code, and no screen has scratches.
    let code = match QrCode::with_error_correction_level(text, EcLevel::L) {
        Ok(code) => code,
        Err(error) => return stdio::note(format_args!("there is no QR code: {error}")),
    };
    let (needed, found) = (code.width() + 2 * QUIET, columns());
    match found {
        Some(found) if found < needed => stdio::note(format_args!(
            "the QR code takes {needed} columns, and this terminal has {found}: widen it, and make another invite"
        )),
        // A failure is ignored, as it is by notes.
        _ => {
            let drawn = draw(&code, style::is_on(&io::stderr()));
            let _ = io::stderr().lock().write_all(drawn.as_bytes());
        }
    }
}

/// Draws a code with two modules in each character. Without colours the background is taken to be dark.
fn draw(code: &QrCode, has_colours: bool) -> String {
    let (dark, light) = match has_colours {
        true => (Dense1x2::Dark, Dense1x2::Light),
        false => (Dense1x2::Light, Dense1x2::Dark),
    };
    let drawn = code.render::<Dense1x2>().dark_color(dark).light_color(light).quiet_zone(true).build();
    let style = if has_colours { BLACK_ON_WHITE } else { Style::new() };
    drawn.lines().map(|line| format!("{style}{line}{style:#}\n")).collect()
}

/// Returns the width of the terminal at stderr.
fn columns() -> Option<usize> {
    let stderr = io::stderr();
    let size = stderr.is_terminal().then(|| rustix::termios::tcgetwinsize(&stderr))?.ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
