//! `peersock top`

mod rates;
mod screen;
mod table;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use crate::args::StateArgs;
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::status::{Look, parse_interval};
use crate::style::{ERROR, paint};
use rates::Rates;
use screen::{Event, Screen};
use table::{Form, Sort, table};

/// Show a running node's peers, their paths and rates, with regular refresh
///
/// Asks the node that runs with the state directory each second, and draws a table of its peers: the path to
/// each (direct, tcp, turn, or the root that relays), the round-trip time, the rates in and out, and the age
/// of the session. Above the table are the node's own rates, TCP retransmissions and drops, the roots and the
/// networks. A key sorts the table, and the same key again reverses the order: t by the rate in both
/// directions, i in, o out, n name, s state, p path, r round-trip time, a age of the session. The arrows, or
/// j and k, move through the list; q quits. After the node ends, the command waits for the next one.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock top
  peersock top --sort rtt --interval 5
  peersock top --once
  peersock top -c 10 > log")]
pub(crate) struct Args {
    /// Ask the node every SECONDS
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_interval, default_value = "1")]
    interval: Duration,

    /// Sort the peers by KEY
    #[arg(long, value_name = "KEY", default_value = "rate")]
    sort: Sort,

    /// Also list peers that are gone
    #[arg(long)]
    all: bool,

    /// Print one table as plain text after one interval, which measures the rates, and exit
    #[arg(long, conflicts_with = "count")]
    once: bool,

    /// Print COUNT tables as plain text and exit
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    #[command(flatten)]
    state: StateArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let path = args.state.path_to_ask()?;
    let form = Form { sort: args.sort, reversed: false, all: args.all, skipped: 0 };
    match args.count.or(args.once.then_some(1)) {
        Some(count) => print_tables(&path, args.interval, form, count),
        None if Screen::is_there() => draw_tables(path, args.interval, form),
        None => Err(Failure::usage(
            "there is no terminal on stdout to draw on",
            "give --once for one table as plain text, or -c COUNT for several; `peersock status --json` and \
             `--prometheus` are for programs",
        )),
    }
}

/// Prints one table after the other for scripts, each with the rates since the one before.
fn print_tables(path: &Path, interval: Duration, form: Form, count: u64) -> Outcome {
    let mut before = Look::at(path)?;
    for number in 0..count {
        thread::sleep(interval);
        let now = Look::at(path)?;
        let (text, _) = table(&now, &Rates::between(&before, &now), form, None);
        let gap = if number == 0 { "" } else { "\n" };
        print(format_args!("{gap}{text}"))?;
        before = now;
    }
    Ok(())
}

/// An event after which the table is redrawn.
enum News {
    Look(Box<Outcome<Look>>),
    Terminal(Event),
}

fn draw_tables(path: PathBuf, interval: Duration, form: Form) -> Outcome {
    let first = Look::at(&path)?;
    // Capacity of one, so that reports do not accumulate while the terminal is stopped.
    let (news, receiver) = mpsc::sync_channel(1);
    let terminal = forwarded(news.clone())?;
    let screen = Screen::enter(&terminal).map_err(Failure::output)?;
    // Queries on a separate thread, because a slow node must not delay keys.
    let ask = move || {
        loop {
            thread::sleep(interval);
            if news.send(News::Look(Box::new(Look::at(&path)))).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("looks".into()).spawn(ask)?;
    let mut view = View { before: None, now: Ok(first), rates: Rates::default(), form, count: 0 };
    view.follow(&screen, &receiver)
}

/// Forwards events of the terminal into the channel of reports.
fn forwarded(news: SyncSender<News>) -> Outcome<Sender<Event>> {
    let (sender, receiver) = mpsc::channel();
    let forward = move || receiver.into_iter().try_for_each(|event| news.send(News::Terminal(event)));
    thread::Builder::new().name("terminal".into()).spawn(forward)?;
    Ok(sender)
}

/// The displayed state.
struct View {
    /// Previous report, if that query succeeded.
    before: Option<Look>,
    now: Outcome<Look>,
    rates: Rates,
    form: Form,
    /// Number of peers in the table.
    count: usize,
}

impl View {
    /// Draws until the user ends the program.
    fn follow(&mut self, screen: &Screen, news: &Receiver<News>) -> Outcome {
        loop {
            let size = screen.size();
            let text = self.text(size);
            screen.draw(&text).map_err(Failure::output)?;
            match news.recv() {
                Ok(News::Look(look)) => self.take(*look),
                Ok(News::Terminal(Event::Changed)) => {}
                Ok(News::Terminal(Event::Keys(keys))) => {
                    if !self.press(&keys, size.0) {
                        return Ok(());
                    }
                }
                // The sending threads never end before this one.
                Err(_) => return Ok(()),
            }
        }
    }

    fn take(&mut self, look: Outcome<Look>) {
        let before = std::mem::replace(&mut self.now, look);
        self.before = before.ok();
        self.rates = match (&self.before, &self.now) {
            (Some(before), Ok(now)) => Rates::between(before, now),
            _ => Rates::default(),
        };
    }

    /// Returns the table and the keys below it, or the reason why there is none.
    fn text(&mut self, (rows, columns): (usize, usize)) -> String {
        let keys: Vec<_> = Sort::KEYS
            .iter()
            .map(|(key, sort, word)| {
                let mark = if *sort == self.form.sort { "*" } else { "" };
                format!("{} {word}{mark}", char::from(*key))
            })
            .collect();
        let keys: String = format!("q quit  {}", keys.join("  ")).chars().take(columns).collect();
        let table = match &self.now {
            Ok(now) => {
                // Leaves the last row empty, and reserves one for the keys.
                let size = (rows.saturating_sub(2), columns);
                let (table, count) = table(now, &self.rates, self.form, Some(size));
                self.count = count;
                table
            }
            Err(failure) => {
                format!("{}\nThe node is asked again until it answers.", paint(ERROR, failure.message()))
            }
        };
        format!("{table}\n{keys}")
    }

    /// Handles pressed keys; returns false if the program must end.
    fn press(&mut self, keys: &[u8], rows: usize) -> bool {
        let page = rows.saturating_sub(8).max(1);
        let form = &mut self.form;
        let last = self.count.saturating_sub(1);
        let mut rest = keys;
        while let Some((&key, after)) = rest.split_first() {
            // Arrow and page keys are sequences that begin with escape.
            let (taken, steps) = match rest {
                [0x1b, b'[' | b'O', b'A', ..] => (3, -1),
                [0x1b, b'[' | b'O', b'B', ..] => (3, 1),
                [0x1b, b'[', b'5', b'~', ..] => (4, -(page as isize)),
                [0x1b, b'[', b'6', b'~', ..] => (4, page as isize),
                [b'k', ..] => (1, -1),
                [b'j', ..] => (1, 1),
                // Ignores other sequences, including their letters.
                [0x1b, b'[' | b'O', ..] => return true,
                _ => (0, 0),
            };
            if taken > 0 {
                form.skipped = form.skipped.saturating_add_signed(steps).min(last);
                rest = &rest[taken..];
                continue;
            }
            if key == b'q' || key == b'Q' {
                return false;
            }
            if let Some((_, sort, _)) = Sort::KEYS.iter().find(|(of_sort, ..)| *of_sort == key) {
                form.reversed = form.sort == *sort && !form.reversed;
                form.sort = *sort;
                form.skipped = 0;
            }
            rest = after;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn keys_sort_turn_round_move_and_end() {
        let mut view = view();
        view.count = 5;
        assert!(view.press(b"n", 24));
        assert_eq!((view.form.sort, view.form.reversed), (Sort::Name, false));
        assert!(view.press(b"n", 24));
        assert_eq!((view.form.sort, view.form.reversed), (Sort::Name, true));
        assert!(view.press(b"rx", 24));
        assert_eq!((view.form.sort, view.form.reversed), (Sort::Rtt, false));

        assert!(view.press(b"\x1b[B\x1bOBjj", 24) && view.form.skipped == 4);
        assert!(view.press(b"j\x1b[6~", 24) && view.form.skipped == 4, "the last one stays");
        assert!(view.press(b"\x1b[Ak", 24) && view.form.skipped == 2);
        assert!(view.press(b"\x1b[5~", 24) && view.form.skipped == 0);
        // The sequence of F5 contains letters and digits that are not keys.
        assert!(view.press(b"\x1b[15~q", 24));
        assert!(!view.press(b"nq", 24));
    }

    #[test]
    fn a_node_that_does_not_answer_is_waited_for_and_has_no_rates_at_first() {
        let mut view = view();
        let begin = Instant::now();
        let look = |seconds: u64, uptime: f64| {
            rates::tests::look(begin + Duration::from_secs(seconds), rates::tests::status(uptime, 1000))
        };
        view.take(Ok(look(1, 11.0)));
        assert!(shown(&mut view).contains("0 B/s in"));
        view.take(Err(Failure::new("no node is running", "start one")));
        let text = shown(&mut view);
        assert!(
            text.contains("no node is running\nThe node is asked again") && text.contains("q quit"),
            "{text}"
        );
        view.take(Ok(look(3, 0.5)));
        assert!(shown(&mut view).contains("- in, - out"));
        view.take(Ok(look(4, 1.5)));
        assert!(shown(&mut view).contains("0 B/s in"));
    }

    #[test]
    fn what_is_drawn_fits_a_small_terminal() {
        let mut view = view();
        for (rows, columns) in [(24, 80), (8, 20), (1, 1), (0, 0)] {
            let text = strip_str(&view.text((rows, columns))).to_string();
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{rows} {columns}: {text}");
            assert!(rows < 8 || text.lines().count() < rows, "{rows} {columns}: {text}");
        }
    }

    fn view() -> View {
        let form = Form { sort: Sort::Rate, reversed: false, all: false, skipped: 0 };
        let now = rates::tests::look(Instant::now(), rates::tests::status(10.0, 1000));
        View { before: None, now: Ok(now), rates: Rates::default(), form, count: 0 }
    }

    fn shown(view: &mut View) -> String {
        strip_str(&view.text((24, 200))).to_string()
    }
}
