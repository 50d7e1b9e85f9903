//! `forward --identity`: services of this machine learn which member has connected.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use crate::common::{Lab, Running, lacks, peersock, run};
use crate::exec::network_of;

/// Starts `forward` to a port of this machine as alpha. Returns the place for members.
fn forward(lab: &Lab, network: &str, form: &str, port: &str) -> (Running, String) {
    let words = ["forward", "--identity", form, "overlay:0", port];
    let running = Running::start(lab.node_in(network, "alpha", &words));
    let line = running.wait_for_stdout("\n");
    let place = line.strip_prefix("tcp:overlay:").and_then(|rest| rest.split(' ').next());
    let place = place.expect("a place on the overlay").to_owned();
    (running, place)
}

fn ask(lab: &Lab, network: &str, member: &str, place: &str, request: &str) -> String {
    let mut dialing = Running::start(lab.node_in(network, member, &["dial", place]));
    dialing.send(request.as_bytes());
    let answer = dialing.finish();
    String::from_utf8_lossy(&answer.stdout).into_owned()
}

#[test]
fn a_wsgi_application_decides_by_the_member_and_not_by_what_the_client_says() {
    if lacks("a_wsgi_application_decides_by_the_member", &["python3"]) {
        return;
    }
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta", "gamma"]);
    let application = "
from wsgiref.simple_server import make_server
def application(environ, start):
    member = environ.get('HTTP_PEERSOCK_MEMBER')
    start('200 OK' if member == 'beta' else '403 Forbidden', [('Content-Type', 'text/plain')])
    names = sorted(name for name in environ if name.upper().startswith('HTTP_PEER'))
    return [repr((member, environ.get('HTTP_PEERSOCK_TAGS'), names)).encode()]
server = make_server('127.0.0.1', 0, application)
print(server.server_port, flush=True)
server.serve_forever()
";
    let mut python = Command::new("python3");
    python.args(["-c", application]);
    crate::common::without_variables(&mut python);
    let python = Running::start(python);
    let port = python.wait_for_stdout("\n").trim().to_owned();
    let (_forward, place) = forward(&lab, &network, "http", &port);
    let seen = "['HTTP_PEERSOCK_MEMBER', 'HTTP_PEERSOCK_NETWORK', 'HTTP_PEERSOCK_NODE']";
    for name in ["Peersock-Member", "peersock_member", "PEERSOCK_MEMBER", "Peersock_Tags", "Peersock-Tags"] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: beta\r\n{name}: admin\r\n\r\n");
        let answer = ask(&lab, &network, "beta", &place, &request);
        assert!(answer.contains("200 OK") && answer.contains(&format!("('beta', None, {seen})")), "{answer}");
        let answer = ask(&lab, &network, "gamma", &place, &request);
        assert!(answer.contains("403") && answer.contains(&format!("('gamma', None, {seen})")), "{answer}");
    }
    for fields in [
        "A: b\r\n Peersock-Member: beta",
        "Peersock-Member : beta",
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "A: b\nPeersock-Member: beta",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n");
        let answer = ask(&lab, &network, "gamma", &place, &request);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields}: {answer}");
    }
}

#[test]
fn a_header_of_the_proxy_protocol_precedes_the_data() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_forward, place) =
        forward(&lab, &network, "proxy-v2", &service.local_addr().unwrap().port().to_string());
    let mut dialing = Running::start(lab.node_in(&network, "beta", &["dial", &place]));
    dialing.send(b"data");
    dialing.end_stdin();
    let (mut connection, _) = service.accept().unwrap();
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).unwrap();
    connection.write_all(b"answer").unwrap();
    drop(connection);
    assert_eq!(bytes[..14], *b"\r\n\r\n\0\r\nQUIT\n\x21\x21");
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    assert_eq!(bytes[16 + length..], *b"data");
    let address = run(lab.command("beta", &["addr", &network])).success();
    let address: std::net::Ipv6Addr = address.text().lines().next().unwrap().parse().unwrap();
    assert_eq!(bytes[16..32], address.octets());
    assert_eq!(bytes[52..59], *b"\xe0\0\x04beta");
    assert_eq!(dialing.finish().success().text(), "answer");
}

#[test]
fn only_services_of_this_machine_are_told() {
    for places in [["8080", "[fd00::1]:80"], ["udp:overlay:53", "53"]] {
        let words = ["forward", "--ephemeral", "-n", "ff0001ffff000000", "--identity", "http"];
        run(peersock(&[&words[..], &places].concat()))
            .failure(2, &["--identity", "services", "overlay:PORT"]);
    }
}
