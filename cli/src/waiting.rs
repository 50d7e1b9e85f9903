//! Messages while a peer is searched: on a terminal a temporary line, elsewhere one line after a while.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::background::Background;
use crate::stdio;

/// Delay before the line on a terminal; most peers are found sooner.
const SHOW_AFTER: Duration = Duration::from_millis(500);

/// Delay before the line in a log.
const REPORT_DELAY: Duration = Duration::from_secs(3);

/// Redraw interval of the line.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Shows the text of `text` after a delay, until the result is dropped.
pub(crate) fn start(text: impl FnOnce() -> String + Send + 'static) -> io::Result<Background> {
    Background::start("waiting", move |is_over| {
        let on_terminal = io::stderr().is_terminal();
        let delay = if on_terminal { SHOW_AFTER } else { REPORT_DELAY };
        if is_over.recv_timeout(delay) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        if !on_terminal {
            return stdio::note(text());
        }
        let style = ProgressStyle::with_template("peersock: {msg}: {elapsed}");
        let line = ProgressBar::new_spinner().with_message(text());
        line.set_style(style.expect("the template is well-formed"));
        line.enable_steady_tick(REDRAW_INTERVAL);
        let _ = is_over.recv();
        line.finish_and_clear();
    })
}
