use super::*;
use crate::testing::instant;

const SECOND: Duration = Duration::from_secs(1);
const HARD: u8 = 1;

#[test]
fn the_first_socket_on_which_the_other_side_is_heard_stays_alone() {
    let mut run = Run::new();
    let sockets = run.open(MAX_SOCKETS);
    assert_eq!(run.until_silent().len(), MAX_SOCKETS, "one from each");
    let place = |socket| Place::Direct { socket, remote: there() };
    let elsewhere = Place::Direct { socket: sockets[7], remote: "203.0.113.66:5000".parse().unwrap() };
    assert!(!run.birthday.heard(HARD, elsewhere, run.now), "somebody else");
    assert!(!run.birthday.heard(2, place(sockets[7]), run.now), "another node");
    assert!(run.birthday.heard(HARD, place(sockets[7]), run.now));
    assert!(!run.birthday.heard(HARD, place(sockets[8]), run.now), "it was closed");
    assert_eq!(run.wanted(), [sockets[7]]);
    let shots = run.due().shots;
    let [(Some(from), to, data)] = shots[..] else { panic!("{shots:?}") };
    assert_eq!((from, to), (sockets[7], there()));
    assert_eq!(run.birthday.answered(HARD, place(sockets[8]), data, run.now), None);
    assert_eq!(run.birthday.answered(HARD, place(sockets[7]), [0; 8], run.now), None);
    assert_eq!(run.birthday.answered(HARD, place(sockets[7]), data, run.now), Some(None), "sent twice");
    let told = run.birthday.succeeded(HARD, place(sockets[7]), run.now);
    // One challenge from each socket, and another from the chosen one.
    assert_eq!(told, Some((there(), 257, DirectOutcome::Answered)));
    assert_eq!(run.birthday.poll_wanted().map(|all| all.len()), Some(1), "the path leads over it");
    run.birthday.close_unused(&[sockets[7]], run.now + 600 * SECOND);
    assert!(run.birthday.is_wanting());
    run.birthday.close_unused(&[], run.now + 659 * SECOND);
    assert!(run.birthday.is_wanting(), "the path may come back");
    run.birthday.close_unused(&[], run.now + 660 * SECOND);
    assert_eq!(run.wanted(), []);
}

#[test]
fn sockets_are_given_up_if_nothing_is_heard() {
    let mut run = Run::new();
    run.open(MAX_SOCKETS);
    let begin = run.now;
    run.until_over();
    assert_eq!(run.now - begin, Pace::Fast.listening());
    assert_eq!(run.wanted(), []);
    assert_eq!(run.last, Some((there(), 256, DirectOutcome::Silent)));
}

#[test]
fn a_few_sockets_are_not_enough() {
    for (count, is_enough) in [(MIN_SOCKETS, true), (MIN_SOCKETS - 1, false), (0, false)] {
        let mut run = Run::new();
        run.open(count);
        let due = run.due();
        assert_eq!((due.shots.is_empty(), due.stop.is_some()), (!is_enough, !is_enough), "{count}");
        assert_eq!(run.wanted().len(), if is_enough { count } else { 0 });
    }
    // A driver that opens no socket may not even report that.
    let mut run = Run::new();
    run.agree();
    run.now += OPENING;
    assert!(run.due().stop.is_some());
    assert_eq!(run.last, Some((there(), 0, DirectOutcome::NotTried(NotTried::NoSockets))));
}

#[test]
fn who_does_not_answer_is_asked_three_times() {
    let mut run = Run::new();
    let mut asked = 1;
    while let Some(next) = run.birthday.next(HARD) {
        run.now = next;
        asked += u32::from(run.due().ask.is_some());
    }
    assert_eq!(asked, MAX_ASKED);
    assert_eq!(run.last, Some((there(), 0, DirectOutcome::NotTried(NotTried::Refused))));
    run.birthday.agreed(HARD, 7, Pace::Fast, run.now);
    assert_eq!(run.wanted(), [], "too late");
}

#[test]
fn only_the_node_that_was_asked_can_agree() {
    let mut run = Run::new();
    run.birthday.agreed(2, 7, Pace::Fast, run.now);
    run.birthday.agreed(HARD, 8, Pace::Fast, run.now);
    assert_eq!(run.wanted(), []);
    assert_eq!(run.birthday.refused(HARD, 8), None);
    run.birthday.agreed(HARD, 7, Pace::Fast, run.now);
    assert_eq!(run.wanted().len(), MAX_SOCKETS);
}

#[test]
fn ports_are_guessed_once_each_and_an_answer_must_be_that_of_its_port() {
    for pace in [Pace::Slow, Pace::Fast] {
        let (mut birthday, mut now, mut draw) = easy(pace);
        let there_too = (there().ip(), pace);
        assert_eq!(birthday.join(HARD, 7, there_too, SECOND / 20, now), Join::Again, "the answer was lost");
        assert_eq!(birthday.join(HARD, 8, there_too, SECOND / 20, now), Join::Not);
        assert_eq!(birthday.join(2, 9, there_too, SECOND / 20, now), Join::Not, "one at a time");
        let begin = now;
        let mut shots = Vec::new();
        let mut first = None;
        while let Some(next) = birthday.next(HARD) {
            now = next;
            let due = birthday.take_due(HARD, SECOND / 10, now, &mut draw);
            assert!(due.shots.len() <= pace.tick_shots());
            first = first.or(due.shots.first().map(|_| now - begin));
            for (from, to, data) in due.shots {
                assert_eq!(from, None);
                shots.push((to, data));
            }
            if let Some([(to, data), (other, _)]) =
                shots.first_chunk().copied().filter(|_| now < begin + pace.lead() + SECOND / 2)
            {
                let place = |remote| Place::Direct { socket: SocketIndex(0), remote };
                assert_eq!(birthday.answered(HARD, place(other), data, now), None, "a neighbour's port");
                assert_eq!(birthday.answered(2, place(to), data, now), None);
                assert_eq!(birthday.answered(HARD, place(to), data, now), Some(None));
            }
        }
        assert_eq!(first, Some(pace.lead() + SECOND / 20));
        let mut ports: Vec<_> = shots.iter().map(|(to, _)| to.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        let most = pace.tries() * MAX_GUESSES;
        assert_eq!((shots.len(), ports.len()), (most, most));
        assert!(shots.iter().all(|(to, _)| to.ip() == there().ip()));
        // 200 a second, or 800.
        let took = pace.tick() * (most / pace.tick_shots() - 1) as u32;
        assert_eq!(now - begin, pace.lead() + SECOND / 20 + took + LAST_ANSWERS);
    }
}

#[test]
fn all_that_is_agreed_fast_is_sent_within_three_seconds() {
    let (mut birthday, mut now, mut draw) = easy(Pace::Fast);
    let begin = now;
    let mut last = begin;
    while let Some(next) = birthday.next(HARD) {
        now = next;
        if !birthday.take_due(HARD, SECOND / 10, now, &mut draw).shots.is_empty() {
            last = now;
        }
    }
    assert!(last < begin + 3 * SECOND, "{:?}", last - begin);
    // The other side has sent from all its sockets when the first of these arrives.
    let mut run = Run::new();
    let begin = run.now;
    run.open(MAX_SOCKETS);
    assert_eq!(run.until_silent().len(), MAX_SOCKETS);
    assert!(run.last_shot - begin <= Pace::Fast.lead() + SECOND / 50);
}

#[test]
fn a_second_try_follows_at_once_unless_the_node_has_taken_part_in_too_many() {
    let (mut birthday, mut now, mut draw) = (Birthday::new(true, instant()), instant(), Count::default());
    let mut each = Vec::new();
    for id in 0..SEARCH_BURST {
        if birthday.join(HARD, id, (there().ip(), Pace::Fast), SECOND / 20, now) != Join::New {
            break;
        }
        let mut sent = 0;
        while let Some(next) = birthday.next(HARD) {
            now = next;
            sent += birthday.take_due(HARD, SECOND / 10, now, &mut draw).shots.len();
        }
        each.push(sent);
    }
    // Each search had a second try, which counts as a start.
    assert_eq!(each, [2 * MAX_GUESSES; 2], "four starts");
    now += START_INTERVAL;
    assert_eq!(birthday.join(HARD, 9, (there().ip(), Pace::Fast), SECOND / 20, now), Join::New);
    let mut sent = 0;
    while let Some(next) = birthday.next(HARD) {
        now = next;
        sent += birthday.take_due(HARD, SECOND / 10, now, &mut draw).shots.len();
    }
    assert_eq!(sent, MAX_GUESSES);
}

// Holds however many nodes ask, and however often.
#[test]
fn all_searches_of_a_node_send_little() {
    let begin = instant();
    let (mut birthday, mut draw) = (Birthday::new(true, begin), Count::default());
    let mut sent = 0;
    let minutes = 30;
    for tick in 0..minutes * 60 * 100 {
        let now = begin + tick * SECOND / 100;
        let node = (tick % 200) as u8;
        birthday.join(node, tick, (there().ip(), Pace::Fast), Duration::ZERO, now);
        if let Some(node) = birthday.node() {
            sent += birthday.take_due(node, Duration::ZERO, now, &mut draw).shots.len();
        }
    }
    let most = MAX_GUESSES * (SEARCH_BURST + minutes) as usize;
    assert!((MAX_GUESSES * minutes as usize..=most).contains(&sent), "{sent} of {most}");
}

#[test]
fn a_node_that_has_it_switched_off_does_nothing() {
    let now = instant();
    let mut birthday = Birthday::new(false, now);
    assert!(!birthday.begin(HARD, 7, (SocketIndex(0), there()), now));
    assert_eq!(birthday.join(HARD, 7, (there().ip(), Pace::Fast), Duration::ZERO, now), Join::Not);
}

#[test]
fn a_search_that_nobody_steps_any_more_makes_room() {
    let mut run = Run::new();
    run.open(MAX_SOCKETS);
    assert!(!run.birthday.begin(2, 9, (SocketIndex(0), there()), run.now + MAX_SEARCH_DURATION / 2));
    assert!(run.birthday.begin(2, 9, (SocketIndex(0), there()), run.now + MAX_SEARCH_DURATION));
    assert_eq!(run.wanted(), []);
}

/// The hard side of one search, which has asked.
struct Run {
    birthday: Birthday<u8>,
    draw: Count,
    pace: Pace,
    now: Instant,
    last_shot: Instant,
    last: Option<(SocketAddr, u32, DirectOutcome)>,
}

impl Run {
    fn new() -> Self {
        let now = instant();
        let mut birthday = Birthday::new(true, now);
        assert!(birthday.begin(HARD, 7, (SocketIndex(0), there()), now));
        let (draw, pace) = (Count::default(), Pace::Fast);
        let mut run = Self { birthday, draw, pace, now, last_shot: now, last: None };
        assert_eq!(run.due().ask, Some((7, true)));
        run
    }

    fn agree(&mut self) {
        self.birthday.agreed(HARD, 7, self.pace, self.now);
        assert_eq!(self.wanted().len(), MAX_SOCKETS);
    }

    /// Makes the other side agree, and the driver open `count` sockets.
    fn open(&mut self, count: usize) -> Vec<SocketIndex> {
        self.agree();
        let open: Vec<_> = self.wanted().into_iter().take(count).collect();
        self.birthday.opened(open.iter().copied(), self.now, &mut self.draw);
        open
    }

    fn wanted(&self) -> Vec<SocketIndex> {
        self.birthday.wanted().map(|one| one.index).collect()
    }

    fn due(&mut self) -> Due {
        let due = self.birthday.take_due(HARD, SECOND / 10, self.now, &mut self.draw);
        self.last = due.progress.or(self.last);
        due
    }

    /// Returns the packets sent while each socket sends once.
    fn until_silent(&mut self) -> Vec<Shot> {
        let begin = self.now;
        let mut shots = Vec::new();
        while let Some(next) = self.birthday.next(HARD).filter(|next| *next < begin + 5 * SECOND) {
            self.now = next;
            let due = self.due().shots;
            assert!(due.len() <= self.pace.tick_shots());
            if !due.is_empty() {
                self.last_shot = next;
            }
            shots.extend(due);
        }
        let mut from: Vec<_> = shots.iter().map(|(from, ..)| *from).collect();
        from.sort_unstable();
        from.dedup();
        assert_eq!(from.len(), shots.len());
        shots
    }

    fn until_over(&mut self) {
        while let Some(next) = self.birthday.next(HARD) {
            self.now = next;
            self.due();
        }
    }
}

/// Returns the easy side of one search, which has agreed.
fn easy(pace: Pace) -> (Birthday<u8>, Instant, Count) {
    let (mut birthday, now) = (Birthday::new(true, instant()), instant());
    assert_eq!(birthday.join(HARD, 7, (there().ip(), pace), SECOND / 20, now), Join::New);
    (birthday, now, Count::default())
}

/// Source of numbers that all differ, and of ports that each come twice.
#[derive(Default)]
struct Count {
    numbers: u64,
    ports: u32,
}

impl Draw for Count {
    fn number(&mut self) -> Option<[u8; 8]> {
        self.numbers += 1;
        Some(self.numbers.to_be_bytes())
    }

    fn port(&mut self) -> u16 {
        self.ports += 1;
        1024 + (self.ports / 2 % 60_000) as u16
    }
}

fn there() -> SocketAddr {
    "203.0.113.9:5000".parse().expect("an address")
}
