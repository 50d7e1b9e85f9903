//! `proxy`: SOCKS 5 and HTTP, with programs that speak them and by hand.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking;
use peersock_testnet::free_port;
use rustix::process::Signal;

use crate::common::{Lab, PATIENCE, Running, lacks, run, signal, write_file};
use crate::proxy_clients::{Scene, check_resets, read, reply, request, web_server};

#[test]
fn curl_fetches_by_socks_and_by_http() {
    if lacks("curl_fetches_by_socks_and_by_http", &["curl"]) {
        return;
    }
    let scene = Scene::new();
    let (_web, at) = scene.web();
    let proxy = scene.proxy(&[]);
    let body = "x".repeat(100_000);
    let (socks, http) = (format!("socks5h://{}", proxy.place), format!("http://{}", proxy.place));
    let local = format!("socks5://{}", proxy.place);
    for options in
        [&["--proxy", &socks][..], &["--proxy", &local], &["--proxy", &http], &["-p", "--proxy", &http]]
    {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--globoff", "--max-time", "100", "--data", &body]).args(options);
        // Sends two requests over one connection.
        let url = format!("http://{at}/some/path?query");
        let got = run_curl(curl.args([&url, &url]));
        assert_eq!(got.matches("POST /SOME/PATH?QUERY HTTP/1.1\r\n").count(), 2, "{options:?}: {got:.500}");
        assert_eq!(got.matches(&body.to_uppercase()).count(), 2, "{options:?}");
    }
    proxy.running.interrupt().failure(130, &[]);
}

/// Only the proxy knows the names of members.
#[test]
fn curl_reaches_members_by_their_names() {
    if lacks("curl_reaches_members_by_their_names", &["curl"]) {
        return;
    }
    let mut lab = Lab::new();
    let file = lab.dir.path().join("office.toml").to_str().unwrap().to_owned();
    for (node, word) in [("proxy", "new"), ("web", "add")] {
        run(lab.command(node, &["network", word, &file, "--name", node])).success();
    }
    lab.network = file;
    let forward = Running::start(lab.node("web", &["forward", "overlay:0", &web_server().to_string()]));
    let line = forward.wait_for_stdout("\n");
    let port = line.split(' ').next().and_then(|place| place.rsplit(':').next()).unwrap();
    let proxy = Running::start(lab.node("proxy", &["proxy", "--listen", "127.0.0.1:0"]));
    let line = proxy.wait_for_stdout("\n");
    let place = line.trim().strip_prefix("socks5h://").expect("the URL of a proxy");
    let url = format!("http://web:{port}/some/path");
    for options in
        [&["--socks5-hostname", place][..], &["--proxy", place], &["--proxytunnel", "--proxy", place]]
    {
        let mut curl = Command::new("curl");
        let got = run_curl(curl.args(["-sS", "--max-time", "100"]).args(options).arg(&url));
        assert!(got.contains("GET /SOME/PATH HTTP/1.1\r\n"), "{options:?}: {got}");
    }
}

fn run_curl(curl: &mut Command) -> String {
    let done = curl.stdin(Stdio::null()).output().expect("curl runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("a text")
}

#[test]
fn plain_requests_lose_what_is_for_one_hop() {
    let scene = Scene::new();
    let (_web, at) = scene.web();
    let proxy = scene.proxy(&[]);
    let request = format!(
        "GET http://{at}/x HTTP/1.1\r\nHost: another.example\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nX-End: 1\r\n\r\n"
    );
    let answer = proxy.answer(request.as_bytes());
    let said = answer.to_lowercase();
    assert!(said.starts_with("http/1.1 200 ok\r\n"), "{answer}");
    let (head, passed_on) = said.split_once("\r\n\r\n").expect("a head and a body");
    assert!(
        head.contains("x-end: 1") && !head.contains("x-hop") && head.contains("via: 1.1 peersock"),
        "{head}"
    );
    assert!(passed_on.starts_with("get /x http/1.1\r\n"), "{passed_on}");
    for (field, is_there) in [
        (&format!("host: {at}\r\n")[..], true),
        ("x-end: 1", true),
        ("via: 1.1 peersock", true),
        ("another.example", false),
        ("x-secret", false),
        ("proxy-connection", false),
        ("te: ", false),
    ] {
        assert_eq!(passed_on.contains(field), is_there, "{field}: {passed_on}");
    }
    // A chunked request with a contradicting length: the length is dropped, and nothing is smuggled.
    let smuggled = format!(
        "POST http://{at}/x HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: 4\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET http://{at}/smuggled HTTP/1.1\r\n\r\n"
    );
    let answer = proxy.answer(smuggled.as_bytes()).to_lowercase();
    assert!(!answer.contains("content-length: 4") && !answer.contains("smuggled"), "{answer}");
}

/// Starts a server that answers each request with the same bytes and closes, behind an overlay port. Returns
/// the requests through a channel.
fn raw_server(scene: &Scene, answer: &'static str) -> (Running, String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut came = Vec::new();
            // All requests here end with an empty line, or with chunks that do.
            let is_whole = |came: &[u8]| {
                let text = String::from_utf8_lossy(came).to_lowercase();
                match text.contains("transfer-encoding") {
                    true => text.ends_with("0\r\n\r\n"),
                    false => text.ends_with("\r\n\r\n"),
                }
            };
            let mut piece = [0; 4096];
            while !is_whole(&came) {
                match stream.read(&mut piece) {
                    Ok(count) if count > 0 => came.extend_from_slice(&piece[..count]),
                    _ => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
            let _ = tell.send(String::from_utf8_lossy(&came).to_lowercase());
        }
    });
    let (running, places) = scene.forward("raw", &["overlay:0", &address.to_string()]);
    let at = places[0].strip_prefix("tcp:overlay:").expect("a place on the overlay").to_owned();
    (running, at, asked)
}

#[test]
fn answers_come_whole_whatever_their_fields_say_of_their_length() {
    let scene = Scene::new();
    let proxy = scene.proxy(&[]);
    let get = |at: &str| {
        proxy.answer(format!("GET http://{at}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
    };
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n\
                a\r\n0123456789\r\n0\r\n\r\n";
    let (web, at, _) = raw_server(&scene, both);
    let answer = get(&at).to_lowercase();
    assert!(answer.contains("0123456789") && !answer.contains("content-length"), "{answer}");
    drop(web);
    // The proxy does not remove this coding, and the client would not know it.
    let coded = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let (_web, at, _) = raw_server(&scene, coded);
    let answer = get(&at);
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("other than chunks"), "{answer}");
    let coded = format!(
        "POST http://{at}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    );
    let answer = proxy.answer(coded.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
}

/// The client asked for no other protocol, and the proxy does not pass the field on.
#[test]
fn a_switch_of_protocols_that_nobody_has_asked_for_is_no_answer() {
    let scene = Scene::new();
    let proxy = scene.proxy(&[]);
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nsmuggled";
    let (web, at, asked) = raw_server(&scene, switch);
    let request =
        format!("GET http://{at}/ HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    let answer = proxy.answer(request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 502 ") && !answer.contains("smuggled"), "{answer}");
    let asked = asked.recv_timeout(PATIENCE).expect("it was asked");
    assert!(!asked.contains("upgrade"), "{asked}");
    drop(web);
    // Another answer ends as for other requests, and not with a reset.
    let (_web, at, _) = raw_server(&scene, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let request =
        format!("GET http://{at}/ HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: x\r\n\r\n");
    assert!(proxy.answer(request.as_bytes()).ends_with("ok"));
}

#[test]
fn a_get_keeps_its_body() {
    let scene = Scene::new();
    let proxy = scene.proxy(&[]);
    let (web, at, asked) = raw_server(&scene, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let request = format!(
        "GET http://{at}/_search HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n"
    );
    let answer = proxy.answer(request.as_bytes());
    assert!(answer.ends_with("ok"), "{answer}");
    let asked = asked.recv_timeout(PATIENCE).expect("it was asked");
    assert!(asked.contains("transfer-encoding: chunked") && asked.contains("query"), "{asked}");
    // A request without a body gets none.
    drop(web);
    let (_web, at, asked) = raw_server(&scene, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let request = format!("GET http://{at}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(proxy.answer(request.as_bytes()).ends_with("ok"));
    let asked = asked.recv_timeout(PATIENCE).expect("it was asked");
    assert!(!asked.contains("transfer-encoding"), "{asked}");
}

#[test]
fn what_makes_no_sense_is_answered() {
    let scene = Scene::new();
    let proxy = scene.proxy(&[]);
    let own = scene.own;
    let long = format!("GET http://{own}/ HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET http://{own}/ HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(200));
    for (asked, status) in [
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 34\r\n\r\nCONNECT 127.0.0.1:22 HTTP/1.1\r\n\r\n\r\n",
            400,
        ),
        ("GET https://alpha/ HTTP/1.1\r\nHost: alpha\r\n\r\n", 400),
        ("GET http://u:p@alpha/ HTTP/1.1\r\nHost: alpha\r\n\r\n", 400),
        ("CONNECT alpha HTTP/1.1\r\nHost: alpha\r\n\r\n", 400),
        ("NONSENSE\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", 400),
        ("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        ("GET http://example.org/ HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        ("CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        (&format!("CONNECT {own} HTTP/1.1\r\nHost: x\r\n\r\n"), 502),
        (&format!("GET http://{own}/ HTTP/1.1\r\nHost: x\r\n\r\n"), 502),
        (&long, 431),
        (&many, 431),
    ] {
        let answer = proxy.answer(asked.as_bytes());
        let shown = asked.lines().next().unwrap_or_default();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {answer}");
        // A browser shows it to a person.
        let why = "is not reached: no member of the network has that name";
        assert!(!shown.contains("example.org") || answer.contains(why), "{shown}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown}: {answer}");
    }
    let name = |name: &[u8]| [&[5, 1, 0, 3, name.len() as u8], name, &[0, 80]].concat();
    for (asked, code) in [
        (request(1, own), 5),
        (request(1, "127.0.0.1:22".parse().unwrap()), 2),
        (request(2, "127.0.0.1:22".parse().unwrap()), 2),
        (name(b"example.org"), 2),
        (name(b"no name"), 1),
        (request(9, own), 7),
        (vec![5, 1, 0, 7], 8),
    ] {
        assert_eq!(proxy.code(&asked), code, "{asked:?}");
    }
    let mut stream = proxy.connect();
    stream.write_all(&[5, 1, 2, 1, 1, b'u', 1, b'p']).unwrap();
    assert_eq!(read::<4>(&mut stream), [5, 2, 1, 0], "a password may be shown");
    assert_eq!(proxy.answer(&[5, 1, 9]).as_bytes(), b"\x05\xef\xbf\xbd");
    assert!(proxy.answer(&[4, 1, 0, 80, 127, 0, 0, 1, 0]).starts_with("\0["));
    let said = proxy.running.interrupt();
    assert!(said.stderr.contains("see --direct"), "{}", said.stderr);
}

#[test]
fn others_are_reached_by_the_system_if_that_is_asked_for() {
    let scene = Scene::new();
    let web = web_server();
    let proxy = scene.proxy(&["--direct"]);
    let asked =
        format!("GET http://localhost:{}/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", web.port());
    assert!(proxy.answer(asked.as_bytes()).contains("GET /X HTTP/1.1"));
    let mut stream = proxy.socks(web);
    stream.write_all(b"GET /y HTTP/1.1\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    // The name does not exist; if the DNS does not answer, the proxy times out.
    let gone = proxy.answer(b"CONNECT nobody.invalid:1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(gone.starts_with("HTTP/1.1 502 ") || gone.starts_with("HTTP/1.1 504 "), "{gone}");

    // Datagrams work, too.
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = echo.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 100];
        let (count, from) = echo.recv_from(&mut buffer).unwrap();
        echo.send_to(&buffer[..count], from).unwrap();
    });
    let (_control, client) = associate(&proxy.place);
    let datagram = [&[0, 0, 0][..], &request(0, to)[3..], b"hello"].concat();
    client.send(&datagram).unwrap();
    let mut buffer = [0; 100];
    let count = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], &datagram[..]);
}

#[test]
fn users_show_their_password() {
    let scene = Scene::new();
    let users = scene.lab.dir.path().join("users");
    write_file(&users, "anna:correct horse\n", 0o600);
    let web = web_server();
    let proxy = scene.proxy(&["--direct", "--auth-file", users.to_str().unwrap()]);
    let get = |field: &str| {
        let asked = format!("GET http://{web}/x HTTP/1.1\r\nHost: x\r\n{field}Connection: close\r\n\r\n");
        proxy.answer(asked.as_bytes())
    };
    let refused = get("");
    assert!(refused.starts_with("HTTP/1.1 407 "), "{refused}");
    assert!(refused.to_lowercase().contains("proxy-authenticate: basic realm="), "{refused}");
    assert!(get("Proxy-Authorization: Basic YW5uYTp3cm9uZw==\r\n").starts_with("HTTP/1.1 407 "));
    let served = get("Proxy-Authorization: Basic YW5uYTpjb3JyZWN0IGhvcnNl\r\n");
    assert!(served.starts_with("HTTP/1.1 200 ") && !served.contains("PROXY-AUTHORIZATION"), "{served}");

    assert_eq!(proxy.answer(&[5, 1, 0]).as_bytes(), b"\x05\xef\xbf\xbd", "without a password");
    for (password, is_right) in [("correct horse", true), ("wrong", false)] {
        let mut stream = proxy.connect();
        stream.write_all(&[5, 2, 0, 2]).unwrap();
        assert_eq!(read::<2>(&mut stream), [5, 2]);
        let login = [&[1, 4][..], b"anna", &[password.len() as u8], password.as_bytes()].concat();
        stream.write_all(&login).unwrap();
        assert_eq!(read::<2>(&mut stream), [1, u8::from(!is_right)]);
        if is_right {
            stream.write_all(&request(1, web)).unwrap();
            assert_eq!(reply(&mut stream).0, 0);
        } else {
            assert_eq!(stream.read(&mut [0; 1]).expect("an end"), 0);
        }
    }
    // A password is required if others could use the proxy.
    let open = scene.lab.node("open", &["proxy", "--listen", "0.0.0.0:0"]);
    run(open).failure(2, &["without a password", "--auth-file", "--no-password"]);
    let of_variable = |text: &str| {
        let mut command = scene.lab.node("variable", &["proxy", "--listen", "0.0.0.0:0"]);
        command.env("PEERSOCK_PROXY_AUTH", text);
        command
    };
    let running = Running::start(of_variable("anna:pw"));
    running.wait_for_stdout("socks5h://");
    running.interrupt().failure(130, &[]);
    run(of_variable("anna")).failure(2, &["PEERSOCK_PROXY_AUTH", "line 1", "USER:PASSWORD"]);
}

/// Parallel connections do not speed up guessing, nor delay admitted clients of the same origin.
#[test]
fn who_guesses_passwords_gets_one_answer_a_second() {
    let scene = Scene::new();
    let users = scene.lab.dir.path().join("users");
    write_file(&users, "anna:correct horse\n", 0o600);
    let web = web_server();
    let proxy = scene.proxy(&["--direct", "--auth-file", users.to_str().unwrap()]);
    let get = |login: &str| {
        let field = format!("Proxy-Authorization: Basic {login}\r\nConnection: close\r\n");
        proxy.answer(format!("GET http://{web}/x HTTP/1.1\r\nHost: x\r\n{field}\r\n").as_bytes())
    };
    let right = || assert!(get("YW5uYTpjb3JyZWN0IGhvcnNl").starts_with("HTTP/1.1 200 "));
    let wrong = || get("YW5uYTp3cm9uZw==");
    right();
    let begin = Instant::now();
    thread::scope(|scope| {
        let guesses: Vec<_> = (0..4).map(|_| scope.spawn(wrong)).collect();
        right();
        for guess in guesses {
            let answer = guess.join().expect("no panic");
            assert!(answer.starts_with("HTTP/1.1 407 "), "{answer}");
        }
    });
    assert!(begin.elapsed() >= Duration::from_secs(4), "{:?}", begin.elapsed());
    // If more guesses arrive than fit into ten seconds, the last ones are refused at once.
    thread::scope(|scope| {
        let guesses: Vec<_> = (0..16).map(|_| scope.spawn(wrong)).collect();
        let answers: Vec<_> = guesses.into_iter().map(|guess| guess.join().expect("no panic")).collect();
        assert!(answers.iter().any(|answer| answer.starts_with("HTTP/1.1 429 ")), "{answers:?}");
        assert!(answers.iter().any(|answer| answer.starts_with("HTTP/1.1 407 ")), "{answers:?}");
    });
}

#[test]
fn half_closed_connections_go_on_and_resets_are_passed_on() {
    let scene = Scene::new();
    let listener = scene.listen();
    let proxy = scene.proxy(&[]);
    let connect = || {
        let client = proxy.socks(scene.own);
        let server = listener.accept().expect("a connection").0;
        (client, server)
    };
    // The client closes its side first, and still gets the answer.
    let (mut client, mut server) = connect();
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "request");
    server.write_all(b"answer").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    text.clear();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");
    // The server closes its side first, through HTTP.
    let mut client = proxy.connect();
    write!(client, "CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\nearly ", scene.own).unwrap();
    let mut server = listener.accept().expect("a connection").0;
    server.write_all(b"answer").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    text.clear();
    client.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\nanswer"), "{text}");
    client.write_all(b"late").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    text.clear();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "early late");

    check_resets(connect);
}

#[test]
fn who_reads_slowly_slows_the_sender_down_and_loses_nothing() {
    let scene = Scene::new();
    let listener = scene.listen();
    let proxy = scene.proxy(&[]);
    let mut client = proxy.socks(scene.own);
    let mut server = listener.accept().expect("a connection").0;
    // Besides the proxy's buffer the kernel has one, whose size differs between machines.
    server.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let content: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
    let mut sent = 0;
    let full = loop {
        match server.write(&content[sent % content.len()..]) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
        assert!(sent < 500_000_000, "all of it has found room somewhere");
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
    server.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), sent);
    assert!(received.chunks(content.len()).all(|chunk| content.starts_with(chunk)), "other bytes came");
}

#[test]
fn datagrams_go_there_and_back_as_long_as_the_connection_lasts() {
    let scene = Scene::new();
    let proxy = scene.proxy(&[]);
    let server = blocking::UdpSocket::bind_on(&scene.node, scene.own).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let (control, client) = associate(&proxy.place);
    // A stray datagram to the client's port is not the client's.
    let mistaken = UdpSocket::bind("127.0.0.1:0").unwrap();
    mistaken.send_to(b"garbage", client.peer_addr().unwrap()).unwrap();
    let header = [&[0, 0, 0][..], &request(0, scene.own)[3..]].concat();
    let mut buffer = [0; 2000];
    let mut heard = Vec::new();
    for (number, fragment) in [(1, 0), (2, 1), (3, 0)] {
        let mut datagram = [&header[..], &[number; 1000]].concat();
        datagram[2] = fragment;
        client.send(&datagram).unwrap();
        // A fragment is rejected; others wait until the peer is found.
        if fragment == 0 {
            let (count, from) = server.recv_from(&mut buffer).unwrap();
            heard.push(buffer[0]);
            server.send_to(&buffer[..count], from).unwrap();
            let count = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], &[&header[..], &[number; 1000]].concat()[..]);
        }
    }
    assert_eq!(heard, [1, 3]);
    // Other senders cannot use the relay, and answers come only from addresses that the client has contacted.
    let relay = client.peer_addr().unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&[&header[..], b"stranger"].concat(), relay).unwrap();
    client.send(&[&header[..], b"client"].concat()).unwrap();
    let (count, _) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"client");
    // Addresses outside the overlay are not reached.
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    outside.set_nonblocking(true).unwrap();
    let to = outside.local_addr().unwrap();
    client.send(&[&[0, 0, 0][..], &request(0, to)[3..], b"x"].concat()).unwrap();
    client.send(&[&header[..], b"last"].concat()).unwrap();
    let (count, _) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"last");
    assert_eq!(outside.recv_from(&mut buffer).expect_err("nothing").kind(), ErrorKind::WouldBlock);
    drop(control);
    // The relay's port is then closed, so a datagram to it is refused.
    loop {
        match client.send(&header) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Opens an association: its connection, and a socket connected to the relay.
fn associate(place: &str) -> (TcpStream, UdpSocket) {
    let mut control = TcpStream::connect(place).unwrap();
    control.set_read_timeout(Some(PATIENCE)).unwrap();
    control.write_all(&[5, 1, 0]).unwrap();
    assert_eq!(read::<2>(&mut control), [5, 0]);
    control.write_all(&request(3, "0.0.0.0:0".parse().unwrap())).unwrap();
    let (code, relay) = reply(&mut control);
    assert_eq!(code, 0);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(relay).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (control, client)
}

#[test]
fn a_member_connects_to_a_client_that_binds() {
    let scene = Scene::new();
    let proxy = scene.proxy(&[]);
    let mut client = proxy.connect();
    client.write_all(&[5, 1, 0]).unwrap();
    assert_eq!(read::<2>(&mut client), [5, 0]);
    client.write_all(&request(2, scene.own)).unwrap();
    let (code, bound) = reply(&mut client);
    assert_eq!(code, 0);
    let mut member = blocking::TcpStream::connect_on(&scene.node, bound).expect("it listens there");
    let (code, came) = reply(&mut client);
    assert_eq!((code, came), (0, member.local_addr().unwrap()));
    member.write_all(b"hello").unwrap();
    assert_eq!(&read::<5>(&mut client), b"hello");
    client.write_all(b"world").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    member.read_to_string(&mut text).unwrap();
    assert_eq!(text, "world");
    // The relay listens for a single connection.
    let second = blocking::TcpStream::connect_on(&scene.node, bound);
    assert_eq!(second.expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn clients_that_say_nothing_are_given_up_and_too_many_are_refused() {
    let scene = Scene::new();
    let proxy = scene.proxy(&["--max-connections", "2"]);
    let mut slow = [proxy.connect(), proxy.connect()];
    slow[0].write_all(&[5]).unwrap();
    proxy.running.wait_for_state(&scene.lab, "proxy");
    assert_eq!(proxy.code(&request(1, "127.0.0.1:1".parse().unwrap())), 2, "one of them has made room");
    for client in &mut slow {
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
        assert_ne!(client.read(&mut [0; 1]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    }
    // Clients being served are not displaced.
    let mut served = [associate(&proxy.place), associate(&proxy.place)];
    // The connection may be refused before or after the client has written.
    let mut third = proxy.connect();
    let refused = third.write_all(&[5, 1, 0]).and_then(|()| third.read(&mut [0; 2]));
    assert_eq!(refused.expect_err("too many").kind(), ErrorKind::ConnectionReset);
    assert!(proxy.running.wait_for_stderr("is refused: ").contains("too many"));
    for (control, _) in &mut served {
        control.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(control.read(&mut [0]).expect_err("it goes on").kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn connections_go_on_for_a_while_after_sigterm() {
    let scene = Scene::new();
    let listener = scene.listen();
    let proxy = scene.proxy(&["--linger", "100"]);
    let mut client = proxy.socks(scene.own);
    let mut server = listener.accept().expect("a connection").0;
    signal(Signal::TERM, proxy.running.id());
    proxy.running.wait_for_stderr("1 connection is still open");
    // New clients are refused; that takes a moment.
    while TcpStream::connect(&proxy.place).is_ok() {
        thread::sleep(Duration::from_millis(10));
    }
    server.write_all(b"still there").unwrap();
    assert_eq!(&read::<11>(&mut client), b"still there");
    client.write_all(b"the end").unwrap();
    drop(client);
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "the end");
    drop(server);
    proxy.running.wait_for_end().failure(143, &[]);

    let proxy = scene.proxy(&["--linger", "0.1"]);
    let mut client = proxy.socks(scene.own);
    let mut server = listener.accept().expect("a connection").0;
    signal(Signal::TERM, proxy.running.id());
    for error in
        [client.read(&mut [0; 1]).expect_err("cut off"), server.read(&mut [0; 1]).expect_err("cut off")]
    {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    proxy.running.wait_for_end().failure(143, &["1 connection was cut off"]);
}

#[test]
fn ssh_goes_through_the_proxy_and_by_dial() {
    if lacks("ssh_goes_through_the_proxy_and_by_dial", &["ssh", "sshd", "ssh-keygen", "nc"]) {
        return;
    }
    let scene = Scene::new();
    let dir = scene.lab.dir.path();
    let port = free_port();
    prepare_sshd(dir, &format!("ListenAddress 127.0.0.1:{port}\n"));
    let mut sshd = Command::new(peersock_testnet::find_in_path("sshd").unwrap());
    sshd.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config"));
    let sshd = Running::start(sshd);
    sshd.wait_for_stderr("listening on");
    let (_forward, places) = scene.forward("server", &["overlay:0", &port.to_string()]);
    let at: SocketAddr = places[0].strip_prefix("tcp:overlay:").unwrap().parse().unwrap();
    let proxy = scene.proxy(&[]);
    let through = |kind| format!("nc -X {kind} -x {} %h %p", proxy.place);
    let (program, network) = (env!("CARGO_BIN_EXE_peersock"), &scene.lab.network);
    let alone = format!("'{program}' dial --quiet --ephemeral --interface lo -n {network} '[%h]:%p'");
    for kind in [through("5"), through("connect"), alone] {
        let mut ssh = ssh(dir, &kind);
        ssh.args(["-p", &at.port().to_string(), &at.ip().to_string(), "echo $((6*7)); cat"]);
        let mut running = Running::start(ssh);
        running.send(b"through the proxy\n");
        assert_eq!(running.finish().success().text(), "42\nthrough the proxy\n", "{kind}");
    }
}

/// Makes keys, and a configuration with which sshd takes them.
pub(crate) fn prepare_sshd(dir: &Path, listen: &str) {
    for key in ["host", "user"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key));
        assert!(keygen.status().unwrap().success());
    }
    let shown = dir.display();
    let config = format!(
        "{listen}HostKey {shown}/host\nPidFile none\nAuthorizedKeysFile {shown}/user.pub\nStrictModes no\n\
         PasswordAuthentication no\nPermitRootLogin yes\nUsePAM no\nUseDNS no\nPrintMotd no\n"
    );
    write_file(&dir.join("sshd_config"), &config, 0o600);
    let _ = std::fs::create_dir("/run/sshd");
}

/// Returns a command of ssh with such keys, which connects by another command.
pub(crate) fn ssh(dir: &Path, by: &str) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", &format!("ProxyCommand={by}")]);
    ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]);
    ssh.args(["-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "-i"]).arg(dir.join("user"));
    ssh
}

#[test]
fn a_browser_goes_through_the_proxy() {
    if lacks("a_browser_goes_through_the_proxy", &["chromium"]) {
        return;
    }
    let scene = Scene::new();
    let (_web, at) = scene.web();
    let proxy = scene.proxy(&[]);
    for scheme in ["socks5", "http"] {
        let mut chromium = Command::new("chromium");
        chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--no-first-run"]);
        chromium.arg(format!("--user-data-dir={}", scene.lab.dir.path().join(scheme).display()));
        chromium.arg(format!("--proxy-server={scheme}://{}", proxy.place)).arg(format!("http://{at}/page"));
        let shown = run(chromium).success();
        assert!(shown.text().contains("GET /PAGE HTTP/1.1"), "{scheme}: {}", shown.text());
    }
}
