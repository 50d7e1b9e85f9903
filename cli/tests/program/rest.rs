//! `rest`: a node over HTTP, with curl, Node.js, Go and pages in a browser.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::common::{Lab, PATIENCE, Running, lacks, run, wait_until, write_file};
use crate::machines::Machines;

/// A running server.
struct Rest {
    lab: Lab,
    running: Running,
    /// `http://127.0.0.1:PORT`
    url: String,
}

impl Rest {
    fn start(words: &[&str]) -> Rest {
        let lab = Lab::new();
        let words = [&["rest", "--listen", "127.0.0.1:0"], words].concat();
        let running = Running::start(lab.node("rest", &words));
        let url = running.wait_for_stdout("\n").trim().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        Rest { lab, running, url }
    }

    fn token_file(&self) -> PathBuf {
        self.lab.state("rest").join("rest-token")
    }

    fn token(&self) -> String {
        fs::read_to_string(self.token_file()).expect("it is written before the line").trim().to_owned()
    }

    /// Runs curl with the token.
    fn curl(&self, words: &[&str], path: &str) -> String {
        let token = format!(":{}", self.token());
        let done = curl(&[&["-u", &token], words].concat(), &format!("{}{path}", self.url));
        assert!(done.status.success(), "{path}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("a text")
    }
}

fn curl(words: &[&str], url: &str) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--globoff", "--fail-with-body", "--max-time", "100"]).args(words).arg(url);
    curl.stdin(Stdio::null()).output().expect("curl runs")
}

#[test]
fn curl_uses_a_node_as_in_p2pd_s_examples() {
    if lacks("curl_uses_a_node_as_in_p2pd_s_examples", &["curl"]) {
        return;
    }
    let rest = Rest::start(&["--no-token"]);
    let get = |words: &[&str], path: &str| {
        let done = curl(words, &format!("{}{path}", rest.url));
        assert!(done.status.success(), "{path}: {}", String::from_utf8_lossy(&done.stdout));
        String::from_utf8(done.stdout).expect("a text")
    };
    assert!(get(&[], "/version").contains(r#""title":"peersock""#));
    assert!(get(&[], "/addr").contains(r#""error":0"#));
    assert!(get(&[], "/open/con_name/self").contains(r#""name":"con_name""#));
    assert!(get(&[], "/send/con_name/long_p2pd_test_string_abcd123").contains(r#""sent":29"#));
    assert!(get(&[], "/recv/con_name").contains(r#""data":"long_p2pd_test_string_abcd123""#));
    let post = ["-H", "Content-Type: application/octet-stream", "-d", "binary", "-X", "POST"];
    assert!(get(&post, "/binary/con_name").contains(r#""sent":6"#));
    assert_eq!(get(&[], "/binary/con_name"), "binary");
    assert!(get(&[], "/close/con_name").contains(r#""closed":"con_name""#));
    assert!(rest.running.said().contains("every program and every user"), "{}", rest.running.said());
    rest.running.interrupt().failure(130, &[]);
}

#[test]
fn curl_shows_the_token_of_the_state_directory() {
    if lacks("curl_shows_the_token_of_the_state_directory", &["curl"]) {
        return;
    }
    let rest = Rest::start(&[]);
    let mode = fs::metadata(rest.token_file()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(rest.curl(&[], "/v1/status").contains(r#""node_id""#));
    assert!(rest.curl(&[], "/v1/metrics").contains("peersock_node_uptime_seconds"));
    let refused = curl(&[], &format!("{}/v1/status", rest.url));
    assert_eq!(refused.status.code(), Some(22));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("no-token"));
    // Sends a body from a file as it is read.
    let data: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let (path, back) = (rest.lab.dir.path().join("data"), rest.lab.dir.path().join("back"));
    fs::write(&path, &data).expect("written");
    let body = r#"{"name": "echo", "to": "self"}"#;
    rest.curl(&["-H", "Content-Type: application/json", "-d", body], "/v1/pipes");
    thread::scope(|scope| {
        let file = path.to_str().expect("a text");
        scope.spawn(|| rest.curl(&["-T", file], "/v1/pipes/echo/stream?end=true"));
        rest.curl(&["-o", back.to_str().expect("a text")], "/v1/pipes/echo/stream");
    });
    assert!(fs::read(&back).expect("it is there") == data);
    let token = rest.token();
    let said = rest.running.interrupt();
    said.failure(130, &[]);
    assert!(!said.stderr.contains(&token), "no secret is said");
}

#[test]
fn a_unix_domain_socket_and_a_token_of_one_s_own() {
    if lacks("a_unix_domain_socket_and_a_token_of_one_s_own", &["curl"]) {
        return;
    }
    let lab = Lab::new();
    let (socket, token) = (lab.dir.path().join("socket"), lab.dir.path().join("token"));
    let listen = format!("unix:{}", socket.display());
    let running = Running::start(lab.node("rest", &["rest", "--listen", &listen]));
    assert_eq!(running.wait_for_stdout("\n").trim(), listen);
    let got = curl(&["--unix-socket", socket.to_str().expect("a text")], "http://localhost/v1/version");
    assert!(got.status.success() && String::from_utf8_lossy(&got.stdout).contains("v1"));
    assert!(!lab.state("rest").join("rest-token").exists(), "nobody needs one");
    running.interrupt().failure(130, &[]);
    assert!(!socket.exists());
    // An existing token is used, and a missing one is created.
    write_file(&token, "0123456789abcdef0123\n", 0o600);
    let words = ["rest", "--listen", "127.0.0.1:0", "--token-file", token.to_str().expect("a text")];
    let running = Running::start(lab.node("rest", &words));
    let url = running.wait_for_stdout("\n").trim().to_owned();
    let got = curl(&["-H", "Authorization: Bearer 0123456789abcdef0123"], &format!("{url}/v1/version"));
    assert!(got.status.success());
    running.interrupt().failure(130, &[]);
    assert!(token.exists());
}

#[test]
fn what_a_server_cannot_be_started_with() {
    let lab = Lab::new();
    let (exposed, short) = (lab.dir.path().join("exposed"), lab.dir.path().join("short"));
    write_file(&exposed, "0123456789abcdef0123\n", 0o644);
    write_file(&short, "short\n", 0o600);
    let text = |path: &PathBuf| path.to_str().expect("a text").to_owned();
    for (words, status, said) in [
        (&["--listen", "0.0.0.0:0"][..], 2, &["can be reached from elsewhere", "unix:PATH"][..]),
        (&["--listen", "*:0"], 2, &["can be reached from elsewhere"]),
        (&["--listen", "overlay:80"], 2, &["can be reached from elsewhere"]),
        (&["--listen", "systemd:rest"], 1, &["without sockets"]),
        (&["--listen", "nowhere"], 2, &["`nowhere` is no place"]),
        (&["--origin", "null"], 2, &["`null` is no origin"]),
        (&["--listen", "127.0.0.1:0", "--token-file", &text(&exposed)], 1, &["chmod 600"]),
        (&["--listen", "127.0.0.1:0", "--token-file", &text(&short)], 2, &["16 to 255"]),
        (&["--listen", "127.0.0.1:0", "--token-file", "/no/such/folder/x"], 1, &["--token-file FILE"]),
        (&["--no-token", "--token-file", "x"], 2, &["--no-token"]),
    ] {
        run(lab.node("rest", &[&["rest"], words].concat())).failure(status, said);
    }
    let mut ephemeral = crate::common::peersock(&["rest", "--ephemeral", "--interface", "lo"]);
    ephemeral.args(["--network", &lab.network]);
    run(ephemeral).failure(2, &["no place for the token", "--token-file FILE"]);
}

#[test]
fn a_client_in_node_js() {
    if lacks("a_client_in_node_js", &["node"]) {
        return;
    }
    let rest = Rest::start(&[]);
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/rest_clients/client.mjs");
    let mut node = Command::new("node");
    node.args([program, &rest.url, &rest.token()]);
    assert_eq!(run(node).success().text(), "all is well\n");
}

#[test]
fn a_client_in_go() {
    if lacks("a_client_in_go", &["go"]) {
        return;
    }
    let rest = Rest::start(&[]);
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/rest_clients/client.go");
    let mut go = Command::new("go");
    go.args(["run", program, &rest.url, &rest.token()]);
    // Compiles one file without a module; the build cache is kept between runs, outside the user's folder.
    go.env("GO111MODULE", "off").env("GOCACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/go"));
    assert_eq!(run(go).success().text(), "all is well\n");
}

/// Starts a web server with one page for every name. Returns the page's final messages through a channel.
fn serve_page(page: &str) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it listens").port();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{page}",
        page.len()
    );
    let (said, heard) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answer, said) = (answer.clone(), said.clone());
            thread::spawn(move || {
                let (head, body) = read_request(&stream);
                let _ = (&stream).write_all(answer.as_bytes());
                if head.starts_with("POST /done ") {
                    let _ = said.send(body);
                }
            });
        }
    });
    (port, heard)
}

/// Reads the header and the body of a request.
fn read_request(stream: &TcpStream) -> (String, String) {
    stream.set_read_timeout(Some(PATIENCE)).expect("some time");
    let (mut reader, mut head, mut length) = (BufReader::new(stream), String::new(), 0);
    loop {
        let mut line = String::new();
        if !matches!(reader.read_line(&mut line), Ok(1..)) || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a length");
        }
        head += &line;
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    (head, String::from_utf8_lossy(&body).into_owned())
}

/// Returns the page's final message, from a browser that maps some names to this machine.
fn browse(rest: &Rest, profile: &str, url: &str, heard: &Receiver<String>) -> String {
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
    // The browser runs until it is killed.
    chromium.arg("--remote-debugging-port=0");
    chromium.arg(format!("--user-data-dir={}", rest.lab.dir.path().join(profile).display()));
    chromium.args(["--host-resolver-rules=MAP *.example 127.0.0.1", url]);
    let browser = Running::start(chromium);
    let said = heard.recv_timeout(PATIENCE);
    said.unwrap_or_else(|_| panic!("the page says nothing: {}", browser.said()))
}

#[test]
fn a_browser_uses_a_node_for_pages_that_may_and_for_no_others() {
    if lacks("a_browser_uses_a_node_for_pages_that_may_and_for_no_others", &["chromium", "curl"]) {
        return;
    }
    let template = include_str!("rest_clients/page.html");
    // The page is served before the server knows it, because both need the other's port.
    let place = format!("127.0.0.1:{}", peersock_testnet::free_port());
    let lab = Lab::new();
    let token_file = lab.dir.path().join("token");
    write_file(&token_file, "0123456789abcdef0123\n", 0o600);
    let to = |server: &str| template.replace("SERVER", server).replace("TOKEN", "0123456789abcdef0123");
    let (page, heard) = serve_page(&to(&format!("http://{place}")));
    let port = place.rsplit_once(':').expect("a port").1;
    let (rebound, heard_rebound) = serve_page(&to(&format!("http://evil.example:{port}")));
    let (allowed, evil) = (format!("http://app.example:{page}"), format!("http://evil.example:{rebound}"));
    let token = token_file.to_str().expect("a text");
    // The origin under a name that leads here is allowed, so only the Host check keeps it out.
    let words = ["rest", "--listen", &place, "--token-file", token, "--origin", &allowed, "--origin", &evil];
    let running = Running::start(lab.node("rest", &words));
    let url = running.wait_for_stdout("\n").trim().to_owned();
    let rest = Rest { lab, running, url };
    let pipes = || {
        let done = curl(&["-u", ":0123456789abcdef0123"], &format!("{}/v1/pipes", rest.url));
        String::from_utf8(done.stdout).expect("a text")
    };

    let shown = browse(&rest, "foreign", &format!("http://other.example:{page}/"), &heard);
    assert!(shown.contains("failed: ") && !shown.contains("opened"), "{shown}");
    assert_eq!(pipes(), "[]", "not even a picture does anything");

    let shown = browse(&rest, "rebound", &format!("{evil}/"), &heard_rebound);
    assert!(shown.contains("failed: ") && !shown.contains("opened"), "{shown}");
    assert_eq!(pipes(), "[]");

    let shown = browse(&rest, "allowed", &format!("{allowed}/"), &heard);
    for wanted in ["opened: 201", "back: by fetch", "echoed: by WebSocket"] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    assert!(!pipes().contains("picture"));
}

#[test]
fn a_pipe_to_a_member_of_a_managed_network_ends_with_its_removal() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    ["beta", "gamma"].iter().for_each(|machine| machines.admit(machine));
    let words = ["listen", "-k", "-n", "team", "7000", "--exec", "cat"];
    let listening = Running::start(machines.command("beta", &words));
    listening.wait_for_stderr("listening on ");
    let words = ["rest", "-n", "team", "--listen", "127.0.0.1:0", "--no-token"];
    let rest = Running::start(machines.command("gamma", &words));
    let url = rest.wait_for_stdout("\n").trim().to_owned();
    let address = url.strip_prefix("http://").expect("a URL");
    let open = |name: &str| {
        let pipe = format!(r#"{{"name": "{name}", "to": "beta:7000"}}"#);
        request(address, "POST", "/v1/pipes", &pipe)
    };
    let made = open("echo");
    assert_eq!(made.0, 201, "{}", made.1);
    assert_eq!(request(address, "POST", "/v1/pipes/echo/messages", "to a member").0, 200);
    let got = request(address, "GET", "/v1/pipes/echo/messages?timeout=50", "");
    assert_eq!(got, (200, "to a member".to_owned()));
    let state = || -> serde_json::Value {
        let (code, said) = request(address, "GET", "/v1/pipes/echo", "");
        assert_eq!(code, 200, "{said}");
        serde_json::from_str(&said).expect("JSON")
    };
    let before = state();
    assert_eq!((&before["state"], &before["peer"]["name"]), (&"open".into(), &"beta".into()), "{before}");

    machines.ok("alpha", &["network", "revoke", "beta"]);
    wait_until("the pipe stays open", || state()["state"] == "broken");
    let (code, said) = request(address, "POST", "/v1/pipes/echo/messages", "too late");
    assert_eq!(code, 410, "{said}");
    let (code, said) = open("again");
    assert!(
        code == 403 && said.contains("no member of the node's networks is called beta"),
        "{code}: {said}"
    );
    rest.interrupt().failure(130, &[]);
}

/// Sends a request to a server that needs no token. Returns the status code and the body of the answer.
fn request(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, answer.split_once("\r\n\r\n").expect("a head").1.to_owned())
}
