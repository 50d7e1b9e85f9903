//! `rest` at the node that programs share.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{PATIENCE, Running, run, signal, vanish};
use crate::lab::Lab;

/// A server, and the way to ask it.
struct Rest {
    running: Running,
    port: u16,
    token: String,
}

impl Rest {
    fn start(lab: &Lab, member: &str, words: &[&str]) -> Rest {
        let words = [&["rest", "--listen", "127.0.0.1:0"], words].concat();
        let running = Running::start(lab.as_member(member, &words));
        let url = running.wait_for_stdout("\n");
        let port = url.trim().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let token = fs::read_to_string(lab.path(member).join("rest-token")).expect("it is written first");
        Rest { running, port, token: token.trim().to_owned() }
    }

    fn connect(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        let (port, token, length) = (self.port, &self.token, body.len());
        write!(
            stream,
            "{head} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .expect("it is read");
        stream
    }

    /// Sends a request. Returns the status code and the body of the answer.
    fn ask(&self, head: &str, body: &str) -> (u16, String) {
        let mut answer = String::new();
        self.connect(head, body).read_to_string(&mut answer).expect("an answer");
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
        (code, answer.split_once("\r\n\r\n").expect("a head").1.to_owned())
    }

    fn open(&self, name: &str, to: &str) {
        let (code, said) = self.ask("POST /v1/pipes", &format!(r#"{{"name": "{name}", "to": "{to}"}}"#));
        assert_eq!(code, 201, "{said}");
    }

    fn exchange(&self, pipe: &str, text: &str) {
        let (code, said) = self.ask(&format!("POST /v1/pipes/{pipe}/messages"), text);
        assert_eq!(code, 200, "{said}");
        let mut got = String::new();
        while got.len() < text.len() {
            let (code, said) = self.ask(&format!("GET /v1/pipes/{pipe}/messages?timeout=50"), "");
            assert_eq!(code, 200, "{said}");
            got += &said;
        }
        assert_eq!(got, text);
    }

    fn json(&self, path: &str) -> Value {
        let (code, said) = self.ask(&format!("GET {path}"), "");
        assert_eq!(code, 200, "{said}");
        serde_json::from_str(&said).expect("JSON")
    }
}

#[test]
fn servers_of_one_member_share_the_node_and_the_token() {
    let Some(lab) = Lab::with("servers_of_one_member_share_the_node", &["python3"]) else { return };
    let serving = lab.echo("alpha", "7000");
    let first = Rest::start(&lab, "beta", &[]);
    let node = lab.node("beta");
    assert_ne!(node, first.running.id());
    let second = Rest::start(&lab, "beta", &[]);
    assert_eq!(lab.node("beta"), node, "one node serves both");
    assert_eq!(first.token, second.token);
    for (rest, name) in [(&first, "one"), (&second, "two")] {
        rest.open(name, "alpha:7000");
        rest.exchange(name, "by way of a shared node");
    }
    // A name of this node, a place that leads nowhere, and a port that another program has.
    let own = lab.echo("beta", "7001");
    second.open("own", "self:7001");
    second.exchange("own", "among programs");
    second.open("echo", "self");
    second.exchange("echo", "inside");
    let taken = second.ask("POST /v1/listeners", r#"{"name": "web", "port": 7001}"#);
    assert_eq!(taken.0, 409, "{}", taken.1);
    let foreign = second.ask("POST /v1/pipes", r#"{"name": "x", "to": "192.0.2.1:80"}"#);
    assert_eq!(foreign.0, 403, "{}", foreign.1);
    let described = second.json("/v1/node");
    assert_eq!(described["addresses"].as_array().map(Vec::len), Some(3), "{described}");
    assert_eq!(described["node_id"], second.json("/v1/status")["node_id"]);
    // A killed server's peers do not take its end for a regular one; the other server goes on.
    vanish(Signal::KILL, first.running.id());
    serving.wait_for_stdout("lost 104");
    second.exchange("two", "and goes on");
    // While a server uses the token, a new one does not replace it; afterwards it does.
    let third = Rest::start(&lab, "beta", &[]);
    assert_eq!(third.token, second.token);
    drop((first, own));
    second.running.interrupt().failure(130, &[]);
    third.running.interrupt().failure(130, &[]);
    lab.wait_for_end(node);
    assert_ne!(Rest::start(&lab, "beta", &[]).token, second.token);
}

#[test]
fn members_connect_to_listeners_and_datagrams_pass() {
    let Some(lab) = Lab::with("members_connect_to_listeners_and_datagrams", &[]) else { return };
    let rest = Rest::start(&lab, "alpha", &["--max-clients-of-member", "2"]);
    let (code, said) = rest.ask("POST /v1/listeners", r#"{"name": "web", "port": 7000}"#);
    assert_eq!(code, 201, "{said}");
    let mut dials = Vec::new();
    for number in 0..2 {
        // One after the other, because two at once may arrive in either order.
        let mut dial = lab.dial("beta", &["10.77.0.1:7000"]);
        let text = format!("hello {number}");
        dial.send(text.as_bytes());
        let name = format!("web.{}", number + 1);
        assert_eq!(rest.json("/v1/listeners/web/next?timeout=50")["name"], name.as_str());
        let (code, got) = rest.ask(&format!("GET /v1/pipes/{name}/messages?timeout=50"), "");
        assert_eq!((code, got), (200, text.clone()));
        assert_eq!(rest.ask(&format!("POST /v1/pipes/{name}/messages"), "an answer").0, 200);
        dial.wait_for_stdout("an answer");
        dials.push(dial);
    }
    let mut refused = lab.dial("beta", &["[fd77::1]:7000"]);
    refused.send(b"one too many");
    refused.wait_for_end().failure(1, &["the connection broke"]);
    // A closed pipe delivers what was sent, and then ends in order.
    for (number, mut dial) in dials.into_iter().enumerate() {
        assert_eq!(rest.ask(&format!("DELETE /v1/pipes/web.{}", number + 1), "").0, 204);
        dial.end_stdin();
        assert_eq!(dial.finish().success().text(), "an answer");
    }
    let (code, said) = rest.ask("POST /v1/pipes", r#"{"name": "all", "udp_port": 7001}"#);
    assert_eq!(code, 201, "{said}");
    let mut udp = lab.dial("beta", &["--udp", "10.77.0.1:7001"]);
    udp.send(b"datagram\n");
    let mut from = String::new();
    rest.connect("GET /v1/pipes/all/messages?timeout=50", "").read_to_string(&mut from).expect("an answer");
    assert!(from.contains("datagram"), "{from}");
    let from =
        from.lines().find_map(|line| line.strip_prefix("peersock-from: ")).expect("a sender").to_owned();
    let (code, said) = rest.ask(&format!("POST /v1/pipes/all/messages?to={from}"), "back\n");
    assert_eq!(code, 200, "{said}");
    udp.wait_for_stdout("back");
}

#[test]
fn clients_see_events_of_the_server_s_network_and_its_end_with_the_node() {
    let Some(lab) = Lab::with("clients_see_events_of_the_server_s_network", &[]) else { return };
    let rest = Rest::start(&lab, "alpha", &[]);
    let mut events = BufReader::new(rest.connect("GET /v1/events", "")).lines().map_while(Result::ok);
    assert!(events.by_ref().any(|line| line == ": events"), "it begins");
    let listening = lab.listen("beta", &["7000"]);
    rest.open("beta", "beta:7000");
    assert!(events.by_ref().any(|line| line == "event: peer-reachable"), "it is told");
    assert!(rest.ask("GET /v1/metrics", "").1.contains("peersock_node_uptime_seconds"));
    signal(Signal::KILL, lab.node("alpha"));
    // They end with the node.
    events.for_each(drop);
    rest.running.wait_for_end().failure(1, &["the node that programs share has ended"]);
    drop(listening);
}

#[test]
fn a_server_with_a_node_of_its_own_keeps_the_directory() {
    let Some(lab) = Lab::with("a_server_with_a_node_of_its_own", &[]) else { return };
    let rest = Rest::start(&lab, "alpha", &["--own-node"]);
    assert_eq!(lab.node("alpha"), rest.running.id());
    run(lab.as_member("alpha", &["dial", "beta:7000"])).failure(1, &["is in use by process"]);
    let refused = lab.as_member("alpha", &["rest", "--own-node", "--listen", "127.0.0.1:0"]);
    run(refused).failure(1, &["is in use by process"]);
}

#[test]
fn servers_that_start_together_show_one_token() {
    let Some(lab) = Lab::with("servers_that_start_together_show_one_token", &[]) else { return };
    for _ in 0..3 {
        let servers: Vec<_> = thread::scope(|scope| {
            let start = || Rest::start(&lab, "alpha", &[]);
            let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            starts.into_iter().map(|one| one.join().expect("it starts")).collect()
        });
        let begun = Instant::now();
        for rest in &servers {
            // The file has the token of all of them, whichever server has written it.
            let token = fs::read_to_string(lab.path("alpha").join("rest-token")).expect("it is there");
            assert_eq!(token.trim(), servers[0].token);
            assert_eq!(rest.ask("GET /v1/version", "").0, 200);
        }
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
}
