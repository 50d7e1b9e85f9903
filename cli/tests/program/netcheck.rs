//! Detection of the machine's network, only on the loopback interface, with test servers there.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use peersock_nat::stun::{Answer, request_id};
use serde_json::Value;

use crate::common::{Lab, PORT, peersock, run};
use crate::root::Root;

/// Starts a STUN server (RFC 8489) that answers from the address that was asked.
fn stun_server() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, mapped)) = socket.recv_from(&mut buffer) {
            if let Some(id) = request_id(&buffer[..len]) {
                let answer = Answer { id, mapped, origin: None, other: None, second_port: None };
                socket.send_to(&answer.emit(), mapped).unwrap();
            }
        }
    });
    address.to_string()
}

#[test]
fn servers_and_their_round_trips_are_shown() {
    let (one, two) = (stun_server(), stun_server());
    let words = ["netcheck", "--interface", "lo", "--json", "--stun", &one, "--stun", &two];
    let output = run(peersock(&words)).success();
    let report: Value = serde_json::from_str(output.text()).unwrap();
    assert_eq!(report["udp"], true);
    let [lo] = report["interfaces"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&lo["name"], &lo["ipv4"]["translated"]), (&Value::from("lo"), &Value::from(false)));
    assert_eq!(lo["ipv4"]["delta"]["type"], "equal");
    for (server, target) in report["servers"].as_array().unwrap().iter().zip([&one, &two]) {
        assert_eq!(server["target"], target.as_str());
        assert!(server["addresses"][0]["rtt_ms"].as_f64().unwrap() > 0.0, "{server}");
    }
    let words = ["netcheck", "--interface", "lo", "--stun", &one];
    let text = run(peersock(&words)).success();
    assert!(text.text().contains("no NAT, seen as 127.0.0.1:"), "{}", text.text());
    assert!(text.text().contains("What this means"), "{}", text.text());
}

#[test]
fn a_node_that_runs_is_mentioned_with_its_port() {
    let lab = Lab::new();
    let check = || {
        let mut command = peersock(&["netcheck", "--interface", "lo", "--json"]);
        command.env("PEERSOCK_STATE", lab.state("listener"));
        run(command).success()
    };
    assert!(!check().stderr.contains("a node runs"));
    let listening = lab.listen(&[&PORT.to_string()]);
    let status = run(lab.command("listener", &["status", "--json"])).success();
    let status: Value = serde_json::from_str(status.text()).unwrap();
    let port = status["endpoints"][0].as_str().unwrap().rsplit_once(':').unwrap().1;
    let checked = check();
    assert!(
        checked.stderr.contains("a node runs here") && checked.stderr.contains(port),
        "{}",
        checked.stderr
    );
    assert!(serde_json::from_str::<Value>(checked.text()).is_ok(), "{}", checked.text());
    listening.running.interrupt().failure(130, &[]);
}

#[test]
fn servers_and_roots_of_the_environment_are_asked() {
    let (server, root) = (stun_server(), stun_server());
    let key = run(peersock(&["id", "--ephemeral", "--key"])).success();
    let mut command = peersock(&["netcheck", "--interface", "lo", "--json"]);
    command.env("PEERSOCK_STUN", &server).env("PEERSOCK_ROOTS", format!("{}@{root}", key.text().trim()));
    let report: Value = serde_json::from_str(run(command).success().text()).unwrap();
    let targets: Vec<_> =
        report["servers"].as_array().unwrap().iter().map(|server| &server["target"]).collect();
    assert_eq!(targets, [server.as_str(), root.as_str()]);
    assert_eq!(report["udp"], true);

    // An option overrides the variable.
    let text = format!("{}@{root}", key.text().trim());
    let mut command = peersock(&["netcheck", "--json", &format!("--root={text}")]);
    command.env("PEERSOCK_INTERFACE", "lo").env("PEERSOCK_ROOTS", "nonsense");
    let report: Value = serde_json::from_str(run(command).success().text()).unwrap();
    assert_eq!(report["interfaces"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["servers"][0]["target"], root.as_str());
}

#[test]
fn roots_that_a_domain_lists_are_asked_and_their_origin_is_shown() {
    let root = stun_server();
    let key = run(peersock(&["id", "--ephemeral", "--key"])).success();
    let nameserver = nameserver(format!("{}@{root}", key.text().trim()));
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let lists =
        [nameserver, silent.local_addr().unwrap().to_string()].map(|at| format!("dns:example.org@{at}"));
    let netcheck = |words: &[&str]| {
        let mut command = peersock(&["netcheck", "--interface", "lo"]);
        command.args(words).env("PEERSOCK_ROOTS", lists.join(" "));
        run(command).success()
    };
    let report: Value = serde_json::from_str(netcheck(&["--json"]).text()).unwrap();
    let [server] = report["servers"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&server["target"], &server["origin"]), (&root.as_str().into(), &lists[0].as_str().into()));
    assert!(server["addresses"][0]["rtt_ms"].as_f64().unwrap() > 0.0, "{server}");
    let [listed, unknown] = report["lists"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&listed["source"], &listed["roots"]), (&lists[0].as_str().into(), &1.into()));
    assert_eq!((&unknown["source"], &unknown["roots"]), (&lists[1].as_str().into(), &0.into()));
    assert!(listed["error"].is_null() && unknown["error"].is_string(), "{report}");
    let text = netcheck(&[]);
    assert!(text.text().contains(&format!("(listed by {})", lists[0])), "{}", text.text());
}

/// An invalid variable is ignored if servers are given by option.
#[test]
fn a_root_proves_its_key_whatever_the_variable_for_other_servers_says() {
    let (server, root) = (stun_server(), Root::start(&[]));
    let mut command = peersock(&["netcheck", "--interface", "lo", "--json", "--stun", &server]);
    command.env("PEERSOCK_ROOTS", root.text()).env("PEERSOCK_STUN", "nonsense");
    let report: Value = serde_json::from_str(run(command).success().text()).unwrap();
    let [checked] = report["roots"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&checked["has_key"], &checked["state"]), (&true.into(), &"registered".into()), "{report}");
    let servers = report["servers"].as_array().unwrap();
    let of_root = servers.iter().find(|server| server["target"] == root.address.to_string());
    let time = of_root.and_then(|server| server["addresses"][0]["rtt_ms"].as_f64());
    assert!(time.is_some_and(|time| time > 0.0), "{report}");
}

/// Starts a nameserver that answers each question with one TXT record.
fn nameserver(text: String) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..len].to_vec();
            // RFC 1035, 4.1.1: a response with one answer.
            answer[2] |= 0x80;
            answer[7] = 1;
            // The name of the question, TXT, IN, a minute.
            answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
            let strings: Vec<u8> = text
                .as_bytes()
                .chunks(200)
                .flat_map(|part| std::iter::once(part.len() as u8).chain(part.iter().copied()))
                .collect();
            answer.extend((strings.len() as u16).to_be_bytes());
            answer.extend(strings);
            socket.send_to(&answer, from).unwrap();
        }
    });
    address.to_string()
}

#[test]
fn silence_ends_within_six_seconds_and_is_told_from_a_missing_server() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap().to_string();
    let begin = Instant::now();
    let output = run(peersock(&["netcheck", "--interface", "lo", "--stun", &server])).success();
    // The promise is 6 s of waiting; a busy machine may need longer for the rest.
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert!(output.text().contains("no server answers over UDP"), "{}", output.text());

    let output = run(peersock(&["netcheck", "--interface", "lo"])).success();
    assert!(output.text().contains("no server was given"), "{}", output.text());
}

#[test]
fn what_cannot_be_asked_is_refused() {
    for words in [&["--stun", "no port"][..], &["--interface", "no such interface"]] {
        let mut command = peersock(&["netcheck"]);
        command.args(words);
        assert_eq!(run(command).status.code(), Some(2), "{words:?}");
    }
    let mut command = peersock(&["netcheck", "--interface", "lo"]);
    command.env("PEERSOCK_ROOTS", "nonsense");
    assert_eq!(run(command).status.code(), Some(2));
}
