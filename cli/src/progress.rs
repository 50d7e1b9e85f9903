//! Progress of a transfer from or to a file or a pipe: one line on the terminal with bytes moved and rate.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressState, ProgressStyle};

/// Redraw interval of the line while no data moves.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// The progress line, or nothing if it would not be visible.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    moved: Arc<Moved>,
    /// True if received data appears on the same terminal.
    shares_terminal: bool,
}

#[derive(Default)]
struct Moved {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Progress {
    /// Returns a progress without a line.
    pub(crate) fn none() -> Progress {
        Progress { bar: None, moved: Arc::default(), shares_terminal: false }
    }

    /// Shows a line if stderr is a terminal, and either stdin (if it is sent) or stdout is not.
    pub(crate) fn start(sends: bool, quiet: bool) -> Progress {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let shares_terminal = stdout.is_terminal();
        let is_transfer = (sends && !stdin.is_terminal()) || !shares_terminal;
        if quiet || !io::stderr().is_terminal() || !is_transfer {
            return Progress::none();
        }
        let moved = Arc::new(Moved::default());
        let shown = Arc::clone(&moved);
        let total = if sends { left_in_file(&stdin) } else { None };
        let template = match total {
            Some(_) => "{moved}, {binary_bytes_per_sec}, {percent} % of {binary_total_bytes}, {eta} left",
            None => "{moved}, {binary_bytes_per_sec}, {elapsed}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        bar.set_style(style.with_key("moved", move |_: &ProgressState, line: &mut dyn std::fmt::Write| {
            let [sent, received] = [&shown.sent, &shown.received].map(|bytes| bytes.load(Ordering::Relaxed));
            let _ = match (sent, received) {
                (sent, 0) => write!(line, "{} sent", HumanBytes(sent)),
                (0, received) => write!(line, "{} received", HumanBytes(received)),
                _ => write!(line, "{} sent, {} received", HumanBytes(sent), HumanBytes(received)),
            };
        }));
        bar.enable_steady_tick(REDRAW_INTERVAL);
        Progress { bar: Some(bar), moved, shares_terminal }
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.moved.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.advance(bytes);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.moved.received.fetch_add(bytes as u64, Ordering::Relaxed);
        match &self.bar {
            // Clears the line, because it would mix with the printed data.
            Some(bar) if self.shares_terminal => bar.finish_and_clear(),
            // A percentage refers to the file that is sent.
            Some(bar) if bar.length().is_none() => self.advance(bytes),
            _ => {}
        }
    }

    fn advance(&self, bytes: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes as u64);
        }
    }
}

impl Drop for Progress {
    /// Keeps the last line, with the totals of the transfer.
    fn drop(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }
}

/// Returns the number of bytes left to send, if stdin is a file.
fn left_in_file(stdin: &io::Stdin) -> Option<u64> {
    let stat = rustix::fs::fstat(stdin.as_fd()).ok()?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return None;
    }
    let at = rustix::fs::tell(stdin.as_fd()).ok()?;
    u64::try_from(stat.st_size).ok()?.checked_sub(at)
}
