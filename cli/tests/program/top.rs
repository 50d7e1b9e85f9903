//! `status --prometheus`, `top` and `events`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Lab, Listening, PATIENCE, PORT, Running, peersock, run, signal};
use crate::terminal::{has_terminals, is_coloured, on_terminal};

/// Starts a listener and a dialer with a session.
fn pair(lab: &Lab) -> (Listening, Running) {
    let listening = lab.listen(&["-k", &PORT.to_string()]);
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");
    (listening, dialing)
}

fn status(lab: &Lab, node: &str) -> Value {
    let json = run(lab.command(node, &["status", "--json"])).success();
    serde_json::from_str(json.text()).unwrap()
}

#[test]
fn prometheus_gets_every_counter_that_json_has() {
    let lab = Lab::new();
    run(lab.command("listener", &["status", "--prometheus"])).failure(1, &["no node is running"]);
    let (_listening, _dialing) = pair(&lab);
    let text = run(lab.command("listener", &["status", "--prometheus"])).success();
    let numbers: BTreeMap<_, f64> = text
        .text()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap_or_else(|error| panic!("{line}: {error}")))
        })
        .collect();
    let status = status(&lab, "listener");
    let (id, peer) = (status["node_id"].as_str().unwrap(), &status["peers"][0]);
    let node = format!("node=\"{id}\"");
    let number = |name: &str| *numbers.get(name).unwrap_or_else(|| panic!("no {name} in {numbers:?}"));
    for (name, value) in status["counters"].as_object().unwrap() {
        let series = format!("peersock_node_{name}_total{{{node}}}");
        assert!(number(&series) <= value.as_f64().unwrap(), "{name} only grows");
        for word in ["HELP", "TYPE"] {
            assert!(text.text().contains(&format!("# {word} peersock_node_{name}_total ")), "{name}");
        }
    }
    assert!(number(&format!("peersock_node_sessions_established_total{{{node}}}")) >= 1.0);
    let network = format!("{node},network=\"{}\"", lab.network);
    let labels = format!("{network},peer=\"{}\"", peer["id"].as_str().unwrap());
    assert_eq!(number(&format!("peersock_network_peers{{{network},state=\"connected\"}}")), 1.0);
    assert_eq!(number(&format!("peersock_peer_connected{{{labels}}}")), 1.0);
    assert_eq!(number(&format!("peersock_peer_path{{{labels},path=\"direct\",root=\"\"}}")), 1.0);
    for (which, labels) in [("network", &network), ("peer", &labels)] {
        for what in ["sent_packets", "sent_bytes", "received_packets", "received_bytes"] {
            let number = number(&format!("peersock_{which}_{what}_total{{{labels}}}"));
            let (of_which, traffic) = match which {
                "network" => (&status["networks"][0], "traffic"),
                _ => (peer, "total_traffic"),
            };
            assert!((1.0..=of_which[traffic][what].as_f64().unwrap()).contains(&number), "{which} {what}");
        }
    }
    // The output contains no addresses or keys.
    assert!(!text.text().contains("127.0.0.1"), "{}", text.text());
    assert!(!text.text().contains(status["public_key"].as_str().unwrap()));
    let both = run(lab.command("listener", &["status", "--prometheus", "--json"]));
    both.failure(2, &["cannot be used with"]);
}

#[test]
fn top_prints_tables_as_plain_text_if_that_is_asked_for() {
    let lab = Lab::new();
    run(lab.command("listener", &["top", "--once"])).failure(1, &["no node is running"]);
    let (listening, mut dialing) = pair(&lab);
    let once = run(lab.command("listener", &["top", "--once", "--interval", "0.1"])).success();
    let peer = status(&lab, "listener")["peers"][0]["addresses"][0].as_str().unwrap().to_owned();
    let lines: Vec<_> = once.text().lines().collect();
    assert!(lines[0].contains("1 network: 1 online"), "{}", once.text());
    let row = lines.iter().find(|line| line.starts_with(&peer)).unwrap_or_else(|| panic!("{}", once.text()));
    for words in [" online ", " direct ", " ms ", "B/s", " 127.0.0.1:"] {
        assert!(row.contains(words), "{words} is not in {row}");
    }
    assert!(!once.text().contains('\x1b'), "{}", once.text());

    let words = ["top", "-c", "2", "-i", "0.2", "--sort", "name", "--all"];
    let twice = Running::start(lab.command("listener", &words));
    dialing.send(&[b'y'; 100_000]);
    let twice = twice.finish().success();
    assert_eq!(twice.text().matches("PEER ").count(), 2, "{}", twice.text());

    // Without a terminal it cannot draw, and prints nothing.
    let nothing = run(lab.command("listener", &["top"]));
    nothing.failure(2, &["no terminal", "--once", "-c COUNT"]);
    assert!(nothing.text().is_empty());
    run(peersock(&["top", "--once", "--ephemeral"])).failure(2, &["ephemeral"]);

    // A restarted node has other counters, but yields no wrong rates.
    let restarted = Running::start(lab.command("listener", &["top", "-c", "1000", "-i", "0.1"]));
    restarted.wait_for_stdout("PEER ");
    listening.running.interrupt().failure(130, &[]);
    restarted.finish().failure(1, &[]);
}

/// Returns `top` on a terminal, with its process ID and the terminal's name in files.
fn top_on_terminal(lab: &Lab, options: &str, variables: &[(&str, &str)]) -> Command {
    let dir = lab.dir.path().display();
    let (program, state) = (env!("CARGO_BIN_EXE_peersock"), lab.state("listener"));
    let line = format!(
        "tty > '{dir}/tty'; echo $$ > '{dir}/pid'; exec '{program}' top --state '{}' {options}",
        state.display()
    );
    on_terminal(&line, variables)
}

/// Sequences that switch to the table's screen and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

#[test]
fn top_draws_on_a_terminal_and_gives_it_back() {
    if !has_terminals("top_draws_on_a_terminal_and_gives_it_back") {
        return;
    }
    let lab = Lab::new();
    let (_listening, _dialing) = pair(&lab);
    // Ends it by a key, whose signal the terminal generates, and by signals; with the resulting status.
    type End = fn(&Lab, &mut Running);
    let kill = |lab: &Lab, how| {
        let pid = fs::read_to_string(lab.dir.path().join("pid")).unwrap();
        signal(how, pid.trim().parse().unwrap());
    };
    let ends: [(End, i32); 5] = [
        (|_, top| top.send(b"q"), 0),
        (|_, top| top.send(b"n\x1b[Bnq"), 0),
        (|_, top| top.send(b"\x03"), 130),
        (|_, top| top.send(b"\x1c"), 131),
        (|_, _| (), 143),
    ];
    for (number, (end, wanted)) in ends.into_iter().enumerate() {
        let mut top = Running::start(top_on_terminal(&lab, "--interval 0.1", &[]));
        top.wait_for_stdout(" direct ");
        top.wait_for_stdout("q quit");
        end(&lab, &mut top);
        if wanted == 143 {
            kill(&lab, Signal::TERM);
        }
        let top = top.wait_for_end();
        assert_eq!(top.status.code(), Some(wanted), "end {number}: {:?}", top.text());
        let shown = top.text();
        assert_eq!((shown.matches(ENTER).count(), shown.matches(LEAVE).count()), (1, 1), "{shown:?}");
        assert!(shown.trim_end().ends_with(LEAVE), "{shown:?}");
        assert!(is_coloured(shown), "{shown:?}");
    }
}

#[test]
fn top_leaves_the_modes_of_the_terminal_as_they_were() {
    if !has_terminals("top_leaves_the_modes_of_the_terminal_as_they_were") {
        return;
    }
    let lab = Lab::new();
    let (_listening, _dialing) = pair(&lab);
    let (program, state) = (env!("CARGO_BIN_EXE_peersock"), lab.state("listener"));
    let line = format!(
        "stty -a; '{program}' top --state '{}' --interval 0.1; echo status $?; stty -a",
        state.display()
    );
    let mut top = Running::start(on_terminal(&line, &[("NO_COLOR", "1")]));
    top.wait_for_stdout(" direct ");
    top.send(b"q");
    let top = top.wait_for_end().success();
    let (before, rest) = top.text().split_once(ENTER).expect("a table");
    let (shown, after) = rest.rsplit_once(LEAVE).expect("it was given back");
    assert!(before.contains(" icanon") && before.contains(" echo "), "{before:?}");
    let after = after.split_once("status 0").expect("it ended well").1;
    assert_eq!(after.trim(), before.trim());
    // Cursor movements also appear without colours.
    assert!(!is_coloured(shown) && shown.contains("\x1b[H"), "{shown:?}");
}

/// A terminal that was stopped by Ctrl-S accepts no text, in the middle of drawing or not.
#[test]
fn top_gives_a_halted_terminal_its_echo_back_when_it_is_killed() {
    if !has_terminals("top_gives_a_halted_terminal_its_echo_back_when_it_is_killed") {
        return;
    }
    let lab = Lab::new();
    let (_listening, _dialing) = pair(&lab);
    let (program, state, dir) = (env!("CARGO_BIN_EXE_peersock"), lab.state("listener"), lab.dir.path());
    for interval in ["0.1", "3600"] {
        let _ = fs::remove_file(dir.join("ended"));
        let line = format!(
            "tty > '{dir}/tty'; stty ixon; stty -a; \
             sh -c 'echo $$ > \"{dir}/pid\"; exec \"{program}\" top --state \"{}\" --interval {interval}'; \
             echo status $? > '{dir}/ended'; stty -a",
            state.display(),
            dir = dir.display()
        );
        let mut top = Running::start(on_terminal(&line, &[("NO_COLOR", "1")]));
        top.wait_for_stdout(" direct ");
        top.wait_for_stdout("q quit");
        top.send(b"\x13");
        let mut shown = usize::MAX;
        while shown != top.received() {
            shown = top.received();
            thread::sleep(Duration::from_millis(500));
        }
        let pid = fs::read_to_string(dir.join("pid")).unwrap();
        signal(Signal::TERM, pid.trim().parse().unwrap());
        // The shell's next step needs no terminal.
        let deadline = Instant::now() + PATIENCE;
        while !fs::read_to_string(dir.join("ended")).is_ok_and(|text| text.ends_with('\n')) {
            assert!(Instant::now() < deadline, "top does not end, interval {interval}");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(fs::read_to_string(dir.join("ended")).unwrap(), "status 143\n");
        let tty = fs::read_to_string(dir.join("tty")).unwrap();
        let mut stty = Command::new("stty");
        stty.args(["-F", tty.trim(), "-a"]);
        let modes = run(stty).success();
        assert!(modes.text().contains(" icanon") && modes.text().contains(" echo "), "{}", modes.text());
        // Ctrl-Q lets the terminal continue.
        top.send(b"\x11");
        top.wait_for_end().success();
    }
}

#[test]
fn top_follows_the_size_of_the_terminal() {
    if !has_terminals("top_follows_the_size_of_the_terminal") {
        return;
    }
    let lab = Lab::new();
    let (_listening, _dialing) = pair(&lab);
    // It redraws for no other reason.
    let mut top = Running::start(top_on_terminal(&lab, "--interval 3600", &[("NO_COLOR", "1")]));
    top.wait_for_stdout("a age\x1b[K");
    let tty = fs::read_to_string(lab.dir.path().join("tty")).unwrap();
    let mut stty = Command::new("stty");
    stty.args(["-F", tty.trim(), "rows", "12", "cols", "21"]);
    run(stty).success();
    top.wait_for_stdout("q quit  t total*  i i\x1b[K");
    top.send(b"i");
    top.wait_for_stdout("q quit  t total  i in\x1b[K");
    top.send(b"q");
    top.wait_for_end().success();
}

#[test]
fn top_refuses_a_terminal_that_cannot_be_drawn_on() {
    if !has_terminals("top_refuses_a_terminal_that_cannot_be_drawn_on") {
        return;
    }
    let lab = Lab::new();
    let (_listening, _dialing) = pair(&lab);
    let refused = run(top_on_terminal(&lab, "", &[("TERM", "dumb")]));
    assert_eq!(refused.status.code(), Some(2), "{}", refused.text());
    assert!(refused.text().contains("--once") && !refused.text().contains('\x1b'), "{:?}", refused.text());
    let plain = run(top_on_terminal(&lab, "--once -i 0.1", &[("NO_COLOR", "1")])).success();
    assert!(plain.text().contains("PEER ") && !plain.text().contains('\x1b'), "{:?}", plain.text());
}

#[test]
fn events_are_told_as_they_happen_over_restarts() {
    let lab = Lab::new();
    run(lab.command("listener", &["events"])).failure(1, &["no node is running"]);
    let listening = lab.listen(&["-k", &PORT.to_string()]);
    let events = Running::start(lab.command("listener", &["events", "-i", "0.1"]));
    let objects = Running::start(lab.command("listener", &["events", "--json", "-i", "0.1"]));
    for events in [&events, &objects] {
        events.wait_for_stderr("watching node ");
    }
    let mut dialing = lab.dial(&listening.target, &[]);
    dialing.send(b"x");
    listening.running.wait_for_stdout("x");
    for said in ["peer found: ", "peer connected: ", ", direct 127.0.0.1:"] {
        events.wait_for_stdout(said);
    }
    // Each program polls at different times, and misses changes between two polls.
    objects.wait_for_stdout("peer-connected");
    dialing.interrupt().failure(130, &[]);
    events.wait_for_stdout("peer gone: ");
    objects.wait_for_stdout("peer-gone");
    listening.running.interrupt().failure(130, &[]);
    events.wait_for_stdout("node stopped: ");
    let _again = lab.listen(&["-k", &PORT.to_string()]);
    events.wait_for_stdout("network joined: ");
    objects.wait_for_stdout("network-joined");
    let (events, objects) = (events.interrupt(), objects.interrupt());
    for (events, form) in [(&events, "text"), (&objects, "JSON")] {
        events.failure(130, &[]);
        assert!(!events.text().contains('\x1b'), "{form}");
    }
    // Both report the events in this order.
    let wanted = [
        "peer-found",
        "peer-connected",
        "peer-disconnected",
        "peer-gone",
        "node-stopped",
        "node-started",
        "network-joined",
    ];
    let objects: Vec<Value> = objects
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object in each line"))
        .collect();
    // Other nodes of this machine may exist, but none in this network.
    let told: Vec<_> = objects.iter().map(|object| object["event"].as_str().unwrap()).collect();
    let told: Vec<_> = told.into_iter().filter(|event| wanted.contains(event)).collect();
    assert_eq!(told, wanted);
    for object in &objects {
        assert!(object["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{object}");
    }
    assert_eq!(objects[1]["path"]["kind"], "direct", "{objects:?}");
    assert_eq!(objects[0]["network"], lab.network.as_str());
    assert_eq!(objects[0]["peer"]["address"], objects[1]["peer"]["address"]);
}

/// A thread stands in for a node that is killed while it answers, and for its successor.
#[test]
fn an_answer_that_was_cut_is_an_end_of_the_node_and_no_error() {
    let lab = Lab::new();
    let (listening, dialing) = pair(&lab);
    let whole = run(lab.command("listener", &["status", "--json"])).success().text().to_owned();
    let numbers = run(lab.command("listener", &["status", "--prometheus"])).success().text().to_owned();
    dialing.interrupt().failure(130, &[]);
    listening.running.interrupt().failure(130, &[]);

    let half = |text: &str| text[..text.len() / 2].to_owned();
    // The first answers are for `status`, the others for `events`.
    let answers = [half(&numbers), half(&whole), whole.clone(), half(&whole), whole.clone()];
    let listener = UnixListener::bind(lab.state("listener").join("management.sock")).unwrap();
    let node = thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    // A partial answer is not mistaken for a whole one.
    for form in ["--prometheus", "--json"] {
        let cut = run(lab.command("listener", &["status", form]));
        cut.failure(1, &["does not answer", "in the middle of its answer"]);
        assert!(cut.text().is_empty(), "{form}: {}", cut.text());
    }
    let events = Running::start(lab.command("listener", &["events", "-i", "0.1"]));
    events.wait_for_stdout("node stopped: ");
    events.wait_for_stdout("node started: ");
    events.wait_for_stdout("network joined: ");
    node.join().unwrap();
    events.interrupt().failure(130, &[]);
}
