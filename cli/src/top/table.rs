//! A report of a node as a table of its peers, below lines about the node, its roots and its networks.

use std::cmp::Ordering;

use anstyle::Style;
use peersock::{NetworkId, NetworkStatus, NodeId, PeerStatus, Presence, ProgramStatus, RootState, Status};
use peersock_primitives::is_deceptive;

use super::rates::{Rate, Rates};
use crate::standing::{Counts, DIM, ONLINE, Standing};
use crate::status::{
    Look, age, bytes, counted, own_conflict, path_words, program, shown_name, sockets, summary, via,
};
use crate::style::{BOLD, ERROR, paint};

const HEADS: Style = Style::new().invert();

/// Counters of losses inside the node, as opposed to the network.
const DROPPED: [&str; 7] = [
    "transmits_dropped",
    "udp_send_errors",
    "out_waiting_dropped",
    "udp_queue_overflows",
    "raw_queue_overflows",
    "icmp_queue_overflows",
    "tcp_backlog_overflows",
];

/// Sort key of the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sort {
    /// Sum of the rates in and out, the fastest peer first
    Rate,
    In,
    Out,
    Name,
    State,
    Path,
    Rtt,
    /// Age of the session
    Age,
}

impl Sort {
    pub(super) const KEYS: [(u8, Sort, &str); 8] = [
        (b't', Sort::Rate, "total"),
        (b'i', Sort::In, "in"),
        (b'o', Sort::Out, "out"),
        (b'n', Sort::Name, "name"),
        (b's', Sort::State, "state"),
        (b'p', Sort::Path, "path"),
        (b'r', Sort::Rtt, "round trip"),
        (b'a', Sort::Age, "age"),
    ];
}

/// Minimum number of characters of a name on a narrow terminal.
const MIN_NAME: usize = 12;

/// Settings of the table.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) sort: Sort,
    /// True if the order is reversed.
    pub(super) reversed: bool,
    /// True if peers that are gone are listed, too.
    pub(super) all: bool,
    /// Number of peers to skip at the beginning.
    pub(super) skipped: usize,
}

/// A line with its style.
struct Line(Style, String);

/// Formats a report as styled lines, limited to `size` (rows and columns) if it is given. Also returns the
/// number of peers.
pub(super) fn table(look: &Look, rates: &Rates, form: Form, size: Option<(usize, usize)>) -> (String, usize) {
    let columns = size.map_or(usize::MAX, |(_, columns)| columns);
    let is_too_much = |lines: &Vec<Line>| size.is_some_and(|(rows, _)| 2 * lines.len() > rows);
    let whole = head(look, rates).into_iter().flat_map(|line| wrapped(line, columns)).collect();
    // On a low terminal, rows for peers matter more than the ends of these lines.
    let mut lines = if is_too_much(&whole) { head(look, rates) } else { whole };
    let peers = sorted(look, rates, form);
    let count = peers.len();
    // Reserves a row for the column heads, and one for the count of hidden peers.
    let rows_left = size.map_or(usize::MAX, |(rows, _)| rows.saturating_sub(lines.len() + 2));
    let mut rows = rows(&peers, look.answer.networks.len() > 1, columns).into_iter();
    lines.extend(rows.next());
    // Limits the offset, so that a peer remains visible when peers disappear.
    let skipped = form.skipped.min(count.saturating_sub(1));
    lines.extend(rows.skip(skipped).take(rows_left));
    let last = skipped.saturating_add(rows_left).min(count);
    if count == 0 {
        lines.push(Line(DIM, "no peers".to_owned()));
    } else if skipped > 0 || last < count {
        lines.push(Line(DIM, format!("… {} to {last} of {count} peers", skipped + 1)));
    }
    let text: Vec<_> = lines.iter().map(|line| shown(line, columns)).collect();
    (text.join("\n"), count)
}

/// Splits a line that is too long at places that allow it.
fn wrapped(Line(style, text): Line, columns: usize) -> Vec<Line> {
    let mut lines: Vec<String> = Vec::new();
    for part in text.split_inclusive("; ") {
        let fits = |line: &&mut String| (line.chars().count() + part.trim_end().chars().count()) <= columns;
        let indent = if lines.is_empty() { "" } else { "  " };
        match lines.last_mut().filter(fits) {
            Some(line) => line.push_str(part),
            None => lines.push(format!("{indent}{part}")),
        }
    }
    lines.iter().map(|line| Line(style, line.trim_end().to_owned())).collect()
}

/// Formats a line, cut to the number of columns.
fn shown(Line(style, text): &Line, columns: usize) -> String {
    let text = text.chars().map(|c| if is_deceptive(c) { '?' } else { c });
    let cut: String = text.take(columns).collect();
    match *style == Style::new() {
        true => cut,
        false => paint(*style, cut).to_string(),
    }
}

/// Returns the lines above the peers.
fn head(look: &Look, rates: &Rates) -> Vec<Line> {
    let answer = &look.answer;
    let up = age(answer.uptime_s);
    let mut lines = vec![Line(BOLD, format!("node {:.8}, up {up}; {}", answer.node_id, summary(answer)))];
    if let Some(other) = &answer.conflict {
        lines.push(Line(ERROR, own_conflict(other)));
    }
    let counted_so_far =
        |names: &[&str]| names.iter().filter_map(|name| answer.counters.get(*name)).sum::<u64>();
    let lost = |names: &[&str], words: &str| {
        let speed = rates.counters(names).map(|speed| format!(" ({speed:.1}/s)")).unwrap_or_default();
        format!("{} {words}{speed}", counted_so_far(names))
    };
    lines.push(Line(
        Style::new(),
        format!(
            "{} in, {} out; TCP: {}, {}; {}",
            speed(rates.node.map(|rate| rate.received)),
            speed(rates.node.map(|rate| rate.sent)),
            lost(&["tcp_retransmits"], "sent again"),
            lost(&["tcp_timeouts"], "timed out"),
            lost(&DROPPED, "dropped here"),
        ),
    ));
    for root in &answer.roots {
        let mut text = format!("root {:.8}: {}", root.id, root.state);
        if let Some(rtt) = root.rtt_ms {
            text += &format!(", {rtt:.1} ms");
        }
        if root.relayed_peers > 0 {
            text += &format!(", relays to {}", counted(root.relayed_peers, "peer"));
        }
        let style = if root.state == RootState::Registered { ONLINE } else { Style::new() };
        lines.push(Line(style, text));
    }
    lines.extend(answer.networks.iter().map(|network| network_line(answer, network, rates)));
    lines.extend(answer.programs.iter().map(|program| program_line(program, rates)));
    lines
}

fn network_line(answer: &Status, network: &NetworkStatus, rates: &Rates) -> Line {
    let rate = rates.network(network.id);
    let text = format!(
        "network {}: {}; {} in, {} out",
        network.id,
        Counts::of(answer, network),
        speed(rate.map(|rate| rate.received)),
        speed(rate.map(|rate| rate.sent)),
    );
    Line(Style::new(), text)
}

fn program_line(used: &ProgramStatus, rates: &Rates) -> Line {
    let rate = rates.program(used);
    let (received, sent) = (speed(rate.map(|rate| rate.received)), speed(rate.map(|rate| rate.sent)));
    Line(Style::new(), format!("program {}: {}; {received} in, {sent} out", program(used), sockets(used)))
}

/// Returns the programs that have a connection with a peer.
fn programs_of(answer: &Status, peer: &PeerStatus) -> Option<String> {
    let has_it = |used: &&ProgramStatus| peer.addresses.iter().any(|address| used.peers.contains(address));
    let names: Vec<_> = answer.programs.iter().filter(has_it).map(program).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// A peer with its rate.
struct Row<'a> {
    peer: &'a PeerStatus,
    rate: Option<Rate>,
    programs: Option<String>,
}

fn sorted<'a>(look: &'a Look, rates: &Rates, form: Form) -> Vec<Row<'a>> {
    let wanted = |peer: &&PeerStatus| form.all || peer.state != Presence::Gone;
    let mut rows: Vec<_> = look
        .answer
        .peers
        .iter()
        .filter(wanted)
        .map(|peer| Row {
            peer,
            rate: rates.peer(peer.network, peer.id),
            programs: programs_of(&look.answer, peer),
        })
        .collect();
    rows.sort_by(|a, b| {
        let order = order(form.sort, a, b);
        let order = if form.reversed { order.reverse() } else { order };
        // Keeps the order of rows stable between two reports.
        order.then_with(|| tie(a.peer).cmp(&tie(b.peer)))
    });
    rows
}

/// Returns the key of equal rows. Peers that are more likely reachable come first.
fn tie(peer: &PeerStatus) -> (Presence, String, NetworkId, NodeId) {
    (peer.state, shown_name(peer), peer.network, peer.id)
}

/// Compares rows: for rates the largest comes first, for other keys the smallest; unknown values come last.
fn order(sort: Sort, a: &Row<'_>, b: &Row<'_>) -> Ordering {
    let most = |value: fn(&Rate) -> f64| {
        let value = |row: &Row<'_>| row.rate.as_ref().map_or(-1.0, value);
        value(b).total_cmp(&value(a))
    };
    let least = |value: fn(&PeerStatus) -> Option<f64>| {
        let value = |row: &Row<'_>| value(row.peer).unwrap_or(f64::INFINITY);
        value(a).total_cmp(&value(b))
    };
    match sort {
        Sort::Rate => most(|rate| rate.received + rate.sent),
        Sort::In => most(|rate| rate.received),
        Sort::Out => most(|rate| rate.sent),
        Sort::Name => shown_name(a.peer).cmp(&shown_name(b.peer)),
        Sort::State => a.peer.state.cmp(&b.peer.state),
        Sort::Path => {
            let path = |row: &Row<'_>| (row.peer.path_kind().is_none(), path_words(row.peer));
            path(a).cmp(&path(b))
        }
        Sort::Rtt => least(|peer| peer.rtt_ms),
        Sort::Age => least(|peer| peer.session_age_s),
    }
}

/// Column heads, the most important first; narrow terminals show those that fit.
const COLUMNS: [&str; 12] =
    ["PEER", "PATH", "RTT", "IN/s", "OUT/s", "SESSION", "LOSS", "SEEN", "IN", "OUT", "STATE", "VIA"];

/// Head of the column with the programs of each peer, if any program is known.
const PROGRAMS: &str = "PROGRAMS";

/// Separator of columns.
const GAP: &str = "  ";

/// Columns of numbers, which are right-aligned.
const NUMBERS: std::ops::RangeInclusive<usize> = 2..=9;

/// Returns the column heads, and a line for each peer, limited to the first columns that fit into `most`
/// characters. The name is always included.
fn rows(peers: &[Row<'_>], with_network: bool, most: usize) -> Vec<Line> {
    let name_width = if most == usize::MAX { most } else { (most / 3).max(MIN_NAME) };
    let mut cells = vec![COLUMNS.map(str::to_owned).to_vec()];
    if with_network {
        cells[0].push("NETWORK".to_owned());
    }
    let with_programs = peers.iter().any(|row| row.programs.is_some());
    if with_programs {
        cells[0].push(PROGRAMS.to_owned());
    }
    for Row { peer, rate, programs } in peers {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let mut row = vec![
            shortened(&shown_name(peer), name_width),
            or_dash(path_words(peer)),
            or_dash(peer.rtt_ms.map(|rtt| format!("{rtt:.1} ms"))),
            speed(rate.map(|rate| rate.received)),
            speed(rate.map(|rate| rate.sent)),
            or_dash(peer.session_age_s.map(age)),
            or_dash(rate.and_then(|rate| rate.loss).map(percent)),
            or_dash(peer.last_seen_s.map(age)),
            bytes(peer.total_traffic.received_bytes),
            bytes(peer.total_traffic.sent_bytes),
            Standing::of(peer).to_string(),
            or_dash(via(peer)),
        ];
        if with_network {
            row.push(peer.network.to_string());
        }
        if with_programs {
            row.push(or_dash(programs.clone()));
        }
        cells.push(row);
    }
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut widths: Vec<_> = (0..cells[0].len()).map(width).collect();
    let ends = widths.iter().scan(0_usize, |end, width| {
        *end += width + GAP.len();
        Some(*end - GAP.len())
    });
    let fitting = ends.take_while(|end| *end <= most).count();
    widths.truncate(fitting.max(1));
    let styles = peers.iter().map(|row| Standing::of(row.peer).style());
    let lines = cells.iter().map(|row| {
        let mut text = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { GAP };
            text += &match NUMBERS.contains(&column) {
                true => format!("{gap}{cell:>width$}"),
                false => format!("{gap}{cell:<width$}"),
            };
        }
        text.trim_end().to_owned()
    });
    std::iter::once(HEADS).chain(styles).zip(lines).map(|(style, text)| Line(style, text)).collect()
}

/// Shortens a text by removing its middle, because the ends of addresses differ.
fn shortened(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let begin: String = text.chars().take(most / 2).collect();
    let end: String = text.chars().skip(length - most.saturating_sub(most / 2 + 1)).collect();
    format!("{begin}…{end}")
}

/// Formats a share of packets.
fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn speed(bytes_per_second: Option<f64>) -> String {
    match bytes_per_second {
        Some(speed) => format!("{}/s", bytes(speed.round() as u64)),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use anstream::adapter::strip_str;
    use serde_json::{Value, json};

    use super::super::rates::tests::{look, status};
    use super::*;
    use crate::status::fixtures;

    const FORM: Form = Form { sort: Sort::Rate, reversed: false, all: false, skipped: 0 };

    #[test]
    fn names_change_neither_the_terminal_nor_the_order_of_what_is_on_it() {
        let line = Line(Style::new(), "a\u{1b}[2J\u{202e}b\u{200b}\u{e0041}".to_owned());
        assert_eq!(shown(&line, usize::MAX), "a?[2J?b??");
    }

    #[test]
    fn a_peer_has_a_line_with_its_path_and_its_rates() {
        let text = plain(&looks(), FORM, None);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("node aabbccdd, up 11 s; 1 network: 1 online"), "{text}");
        assert_eq!(
            lines[1],
            "1.0 KiB/s in, 500 B/s out; TCP: 2000 sent again (1000.0/s), 0 timed out; 0 dropped here"
        );
        assert!(
            lines[2]
                .starts_with("network ff01: 1 online, 1 offline, 2 never seen; 1.0 KiB/s in, 500 B/s out")
        );
        let words: Vec<_> = lines[3].split_whitespace().collect();
        assert_eq!(words, COLUMNS);
        let busy = lines[4];
        for words in [
            "fd00::2 ",
            " direct ",
            "1.5 ms",
            "1.0 KiB/s",
            "500 B/s",
            "2.0 KiB",
            "1 min 1 s",
            " 23.1% ",
            " online ",
        ] {
            assert!(busy.contains(words), "{words} is not in {busy}");
        }
        assert!(busy.ends_with(" 127.0.0.1:6"), "{busy}");
        // All lines have the same columns, and 80 columns show the most important ones.
        let narrow = plain(&looks(), FORM, Some((24, 80)));
        assert!(narrow.contains("OUT/s") && narrow.contains("SESSION"), "{narrow}");
        // No line is cut: the upper lines are wrapped, and only columns that fit are shown.
        let heads: Vec<_> =
            narrow.lines().find(|line| line.starts_with("PEER")).unwrap().split(' ').collect();
        assert!(heads.iter().all(|head| head.is_empty() || COLUMNS.contains(head)), "{narrow}");
        assert!(narrow.contains("timed out;\n  0 dropped here\n"), "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        for columns in 20..200 {
            let text = plain(&looks(), FORM, Some((24, columns)));
            let row = text.lines().find(|line| line.starts_with("fd00::2")).unwrap().trim_end();
            assert!(
                busy.starts_with(row) && !busy[row.len()..].starts_with(|c: char| c != ' '),
                "{columns}: {text}"
            );
        }
        assert_eq!(busy.find("direct"), lines[3].find("PATH"));
        assert!(
            text.contains("never seen") && !text.contains("offline   ") && !text.contains("?\n"),
            "{text}"
        );
    }

    #[test]
    fn programs_have_lines_and_peers_name_theirs() {
        let at = Instant::now();
        let of = |uptime: f64, received: u64| {
            let mut status = status(uptime, 1000);
            status["programs"] = json!([
                {"name": "nginx", "process": 7, "networks": ["ff01"], "streams": 2, "listeners": [80, 443],
                 "peers": ["fd00::2"], "sent_bytes": 2 * received, "received_bytes": received},
                {"name": "peersock rest", "process": 8, "networks": [], "datagram_sockets": 1},
            ]);
            status
        };
        let looks = (look(at, of(10.0, 0)), look(at + Duration::from_secs(1), of(11.0, 1024)));
        let text = plain(&looks, FORM, None);
        let line = "program nginx (process 7): 2 streams, listens on 80, 443; 1.0 KiB/s in, 2.0 KiB/s out";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("program peersock rest (process 8): 0 streams, 1 datagram socket; "), "{text}");
        let row = text.lines().find(|line| line.starts_with("fd00::2")).expect("a peer");
        assert!(row.ends_with(" nginx (process 7)"), "{row}");
    }

    #[test]
    fn the_first_look_has_no_rates_yet() {
        let (_, now) = looks();
        let (text, _) = table(&now, &Rates::default(), FORM, None);
        assert!(strip_str(&text).to_string().contains("- in, - out; TCP: 2000 sent again, "), "{text}");
    }

    #[test]
    fn peers_are_sorted_as_wanted() {
        let order = |sort, reversed, all| {
            let text = plain(&looks(), Form { sort, reversed, all, skipped: 0 }, None);
            let names: Vec<_> =
                text.lines().skip(4).map(|line| line.split(' ').next().unwrap().to_owned()).collect();
            names.join(" ")
        };
        assert_eq!(order(Sort::Rate, false, false), "fd00::2 alpha zeta");
        assert_eq!(order(Sort::Name, false, false), "alpha fd00::2 zeta");
        assert_eq!(order(Sort::Name, true, false), "zeta fd00::2 alpha");
        assert_eq!(order(Sort::State, false, true), "fd00::2 alpha zeta left");
        assert_eq!(order(Sort::Rtt, false, false), "fd00::2 alpha zeta");
        assert_eq!(order(Sort::Path, false, false), "fd00::2 alpha zeta");
    }

    #[test]
    fn a_table_fits_the_screen_and_says_what_it_leaves_out() {
        let looks = looks();
        let text = plain(&looks, FORM, Some((6, 30)));
        assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
        assert_eq!(text.lines().count(), 6, "{text}");
        assert_eq!(text.lines().last(), Some("… 1 to 1 of 3 peers"));
        let text = plain(&looks, Form { skipped: 1, ..FORM }, Some((6, 80)));
        assert!(text.contains("alpha") && !text.contains("fd00::2"), "{text}");
        assert_eq!(text.lines().last(), Some("… 2 to 2 of 3 peers"));
        // The offset never passes the last peer, and tiny screens do not panic.
        let text = plain(&looks, Form { skipped: 99, ..FORM }, Some((7, 80)));
        assert!(text.contains("zeta"), "{text}");
        for size in [(0, 0), (1, 1), (2, 500)] {
            plain(&looks, FORM, Some(size));
        }
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!(shortened("fd00::2", 7), "fd00::2");
        let shown = shortened("fd5f:d5b2:361a:8b9c:a26e:38fe:ca49:b487", 13);
        assert_eq!((shown.as_str(), shown.chars().count()), ("fd5f:d…9:b487", 13));
    }

    #[test]
    fn what_would_move_the_cursor_is_not_written() {
        let (before, mut now) = looks();
        now.answer.peers[0].name = Some("a\x1b[2Jb\nc".into());
        let text = plain(&(before, now), FORM, None);
        assert!(text.contains("a?[2Jb?c") && !text.contains('\x1b'), "{text}");
    }

    fn looks() -> (Look, Look) {
        let at = Instant::now();
        let mut now = status(11.0, 2000);
        let peer = |id: &str, name: &str, state: &str| -> Value {
            json!({"id": id, "network": "ff01", "name": name, "addresses": [], "connected": false,
                   "state": state, "path": null})
        };
        let others = [peer("d1", "zeta", "known"), peer("d2", "alpha", "known"), peer("d3", "left", "gone")];
        now["peers"].as_array_mut().unwrap().extend(others);
        (look(at, status(10.0, 1000)), look(at + Duration::from_secs(1), now))
    }

    fn plain((before, now): &(Look, Look), form: Form, size: Option<(usize, usize)>) -> String {
        let (text, _) = table(now, &Rates::between(before, now), form, size);
        fixtures::shortened(&strip_str(&text).to_string())
    }
}
