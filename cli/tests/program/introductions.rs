//! `forward --identity`: services of this machine learn which member has connected.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use crate::common::{Lab, Running, lacks, peersock, run, wait_until};
use crate::exec::network_of;
use crate::machines::Machines;

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
    let (_python, port) = python_service(application);
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

/// Starts a service of HTTP/1.1 that keeps connections, and reads no bodies. It answers with the path and the
/// member. Returns its port.
fn careless_service() -> (Running, String) {
    let service = "
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        text = repr((self.path, self.headers.get_all('Peersock-Member'))).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    do_POST = do_GET
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
";
    python_service(service)
}

/// Starts a service in Python that prints its port. Returns the port, too.
fn python_service(code: &str) -> (Running, String) {
    let mut python = Command::new("python3");
    python.args(["-c", code]);
    crate::common::without_variables(&mut python);
    let python = Running::start(python);
    let port = python.wait_for_stdout("\n").trim().to_owned();
    (python, port)
}

#[test]
fn a_body_that_a_service_leaves_unread_is_no_request() {
    if lacks("a_body_that_a_service_leaves_unread_is_no_request", &["python3"]) {
        return;
    }
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    let (_service, port) = careless_service();
    let (_forward, place) = forward(&lab, &network, "http", &port);
    let forged = "GET /forged HTTP/1.1\r\nPeersock-Member: alpha\r\n\r\n";
    for fields in ["", "Connection: keep-alive\r\n", "Expect: 100-continue\r\n"] {
        let length = forged.len();
        // Requests without a body share the connection.
        let request = format!(
            "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n\
             POST /c HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n{forged}"
        );
        let answer = ask(&lab, &network, "beta", &place, &request);
        for path in ["/a", "/b", "/c"] {
            assert!(answer.contains(&format!("('{path}', ['beta'])")), "{answer}");
        }
        assert!(!answer.contains("forged"), "{answer}");
    }
}

#[test]
fn a_shared_service_learns_the_node_that_has_opened_the_ticket() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = service.local_addr().unwrap().port().to_string();
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = Vec::new();
    for form in ["http", "proxy-v2"] {
        let mut sharing = peersock(&["share", "--interface", "lo", "--identity", form, &port]);
        sharing.current_dir(dir.path());
        let sharing = Running::start(sharing);
        let ticket = sharing.wait_for_stdout("\n").trim().to_owned();
        let mut dialing = peersock(&["dial", "--interface", "lo", &ticket]);
        dialing.current_dir(dir.path());
        let mut dialing = Running::start(dialing);
        dialing.send(b"GET / HTTP/1.1\r\nPeersock-Member: forged\r\n\r\n");
        dialing.end_stdin();
        let (mut connection, _) = service.accept().unwrap();
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).unwrap();
        connection.write_all(b"answer").unwrap();
        drop(connection);
        assert_eq!(dialing.finish().success().text(), "answer");
        if form == "proxy-v2" {
            let value = bytes.windows(3).position(|head| *head == *b"\xe1\0\x40").expect("a node's ID");
            nodes.push(String::from_utf8(bytes[value + 3..][..64].to_vec()).unwrap());
            continue;
        }
        let text = String::from_utf8(bytes).unwrap();
        let mut lines = text.lines().skip(1);
        // Members of a ticket's network have no names.
        let member = lines.next().and_then(|line| line.strip_prefix("Peersock-Member: ")).expect("a field");
        assert!(text.contains(&format!("Peersock-Node: {member}\r\n")) && !text.contains("forged"), "{text}");
        nodes.push(member.to_owned());
    }
    assert!(nodes.iter().all(|node| node.len() == 64 && node.bytes().all(|byte| byte.is_ascii_hexdigit())));
    assert_ne!(nodes[0], nodes[1], "each dialer has keys of its own");
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

#[test]
fn nginx_decides_by_the_tags_that_the_controller_gives() {
    if lacks("nginx_decides_by_the_tags_that_the_controller_gives", &["nginx"]) {
        return;
    }
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    for (machine, tags) in
        [("service", &[][..]), ("beta", &["--tag", "admin", "--tag", "db"]), ("gamma", &[])]
    {
        let invite = machines.invite(&[&["--name", machine], tags].concat());
        machines.ok(machine, &["join", &invite, "--as", "team"]);
    }
    let folder = machines.directory("nginx");
    std::fs::create_dir(&folder).unwrap();
    let place = folder.to_str().unwrap();
    // Sockets with names, because nginx takes no port that the system chooses.
    let config = format!(
        "daemon off; master_process off; pid {place}/pid; error_log {place}/error; events {{}}
        http {{
          access_log off;
          client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
          uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
          map $http_peersock_tags $is_admin {{ default 0; \"~(^|,)admin(,|$)\" 1; }}
          server {{
            listen unix:{place}/http;
            if ($is_admin = 0) {{ return 403 \"no $http_peersock_member\"; }}
            return 200 \"yes $http_peersock_member\";
          }}
          server {{ listen unix:{place}/proxied proxy_protocol; return 200 \"from $proxy_protocol_addr\"; }}
        }}"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let mut nginx = Command::new("nginx");
    nginx.args(["-p", place, "-c"]).arg(&file);
    let _nginx = Running::start(nginx);
    wait_until("nginx does not listen", || folder.join("proxied").exists());
    let places = |form: &str, socket: &str| {
        let words =
            ["forward", "-n", "team", "--identity", form, "overlay:0", &format!("unix:{place}/{socket}")];
        let running = Running::start(machines.command("service", &words));
        let line = running.wait_for_stdout("\n");
        let port =
            line.split(' ').next().and_then(|place| place.rsplit(':').next()).expect("a port").to_owned();
        (running, format!("service:{port}"))
    };
    let (_http, http) = places("http", "http");
    let (_proxied, proxied) = places("proxy-v2", "proxied");
    let request = |member: &str, place: &str| {
        let mut dialing = Running::start(machines.command(member, &["dial", "-n", "team", place]));
        // The client's word about its tags does not count.
        dialing.send(b"GET / HTTP/1.1\r\nHost: a\r\nPeersock-Tags: admin\r\nConnection: close\r\n\r\n");
        String::from_utf8_lossy(&dialing.finish().stdout).into_owned()
    };
    assert!(request("beta", &http).ends_with("yes beta"));
    assert!(request("gamma", &http).ends_with("no gamma"));
    let listed = machines.members();
    for member in ["beta", "gamma"] {
        let known = listed.iter().find(|one| one["name"] == member).expect("a member");
        let answer = request(member, &proxied);
        let from = answer.rsplit("from ").next().expect("an answer");
        let addresses = known["addresses"].to_string();
        // A name leads to the granted address or to the one that follows from the key.
        assert!(addresses.contains(from) || from.starts_with("fd"), "{answer} and {addresses}");
    }
    machines.ok("alpha", &["network", "change", "beta", "--untag", "admin"]);
    machines.ok("alpha", &["network", "change", "gamma", "--tag", "admin"]);
    wait_until("beta keeps its tag", || request("beta", &http).ends_with("no beta"));
    wait_until("gamma gets no tag", || request("gamma", &http).ends_with("yes gamma"));
}
