//! `root`: a real root on the loopback interface, and clients made of the overlay's messages.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use peersock::RootAddress;
use peersock::overlay::noise::{InitiationPayload, Initiator, MacWriter, SessionKeys, Timestamp};
use peersock::overlay::wire::{
    Announcement, Channel, Control, Data, Entry, LookUpKey, MessageType, NoticeCode, Registration,
    RelayToken, Relayed, RootMessage,
};
use peersock::overlay::{
    DATA_HEADER, DATA_OVERHEAD, Identity, NetworkId, Psk, PublicIdentity, SessionIndex, SuiteSet,
    default_provider,
};
use peersock_testnet::free_port;
use rustix::process::Signal;

use serde_json::Value;

use crate::common::{Lab, PATIENCE, PORT, Running, address_of, http, peersock, run, signal, write_file};

#[test]
fn a_root_serves_and_ends_when_all_nodes_have_been_told() {
    let root = Root::start(&["--metrics", "127.0.0.1:0", "--relay-rate", "1M", "--drain", "3600"]);
    let (mut a, mut b) = (Client::new(1, &root), Client::new(2, &root));
    a.register(b"");
    b.register(b"");
    // The node finds itself and the other one.
    let prefix = b.identity.node_id().as_bytes()[..10].try_into().unwrap();
    for (key, identity, channel) in [
        (LookUpKey::Id(a.identity.node_id()), *a.identity.public(), a.channel),
        (LookUpKey::Prefix(prefix), *b.identity.public(), b.channel),
    ] {
        let entry = a.look_up(key).expect("registered");
        assert_eq!((entry.identity, entry.channel), (identity, channel));
        assert!(entry.registration.verify(&identity, &root.identity.node_id()));
    }

    // Frames pass in both directions, unread.
    let large = vec![7; 1400];
    a.relay(b.channel, &large);
    assert_eq!(b.relayed(), (a.channel, large));
    b.relay(a.channel, b"back");
    assert_eq!(a.relayed(), (b.channel, b"back".to_vec()));
    // A train of frames arrives in order and complete.
    for n in 0..20u8 {
        a.relay(b.channel, &[n; 500]);
    }
    for n in 0..20 {
        assert_eq!(b.relayed(), (a.channel, vec![n; 500]));
    }

    let metrics = root.running.wait_for_stderr("metrics on http://");
    let address = metrics.trim_end_matches("/metrics");
    let text = http(address, "/metrics");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for line in [
        "peersock_root_registered 2",
        "peersock_root_relayed_total 22",
        "peersock_root_look_ups_found_total 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(http(address, "/health").ends_with("ok\n"));

    signal(Signal::TERM, root.running.id());
    for client in [&mut a, &mut b] {
        let told = client.message(|message| matches!(message, RootMessage::Notice { .. }));
        assert_eq!(told, RootMessage::Notice { code: NoticeCode::Drains, channel: Channel(0) });
    }
    // Load balancers then send no new nodes there.
    let health = http(address, "/health");
    assert!(health.starts_with("HTTP/1.1 503") && health.ends_with("draining\n"), "{health}");
    a.relay(b.channel, b"still");
    assert_eq!(b.relayed(), (a.channel, b"still".to_vec()));
    // When the last node has left, the root ends without further waiting.
    let mut close = Vec::new();
    Control::Close { reason: 0 }.emit(&mut close);
    a.send(&close);
    b.send(&close);
    root.running.finish().success();
}

#[test]
fn who_does_not_show_the_token_is_refused() {
    let lab = Lab::new();
    let token = lab.dir.path().join("token");
    write_file(&token, "open sesame\n", 0o600);
    let root = Root::start(&["--access-token-file", token.to_str().unwrap(), "--no-relay"]);
    let mut client = Client::new(1, &root);
    assert!(!client.try_register(b"open"));
    client.register(b"open sesame");
    drop(client);

    write_file(&token, "\n", 0o600);
    let words = ["root", "--listen", "127.0.0.1", "--port", "0", "--ephemeral", "--access-token-file"];
    let mut command = peersock(&words);
    command.arg(&token);
    run(command).failure(2, &["no token", "1 to 255"]);
}

#[test]
fn a_new_token_is_strong_private_and_made_once() {
    let lab = Lab::new();
    let path = lab.dir.path().join("token");
    let root = Root::start(&["--new-token", path.to_str().unwrap()]);
    let token = fs::read_to_string(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(token.trim().len() >= 32, "192 bits");
    let mut client = Client::new(1, &root);
    assert!(!client.try_register(b"open"));
    client.register(token.trim().as_bytes());
    drop(client);

    let words = ["root", "--listen", "127.0.0.1", "--port", "0", "--ephemeral", "--new-token"];
    let mut again = peersock(&words);
    again.arg(&path);
    run(again).failure(1, &["cannot be written", "--access-token-file"]);
    write_file(&path, "weak\n", 0o600);
    let weak = Root::start(&["--access-token-file", path.to_str().unwrap()]);
    weak.running.wait_for_stderr("warning: the access token has only 4 bytes");
}

/// The root has the peer registered, and the node knows why the handshake fails.
#[test]
fn whoever_has_another_secret_is_told_so() {
    let (lab, root) = (Lab::new(), Root::start(&[]));
    let with_secret = |node: &str, words: &[&str], secret: &str| {
        let mut command = lab.node(node, words);
        command.args(["--root", &root.text()]).env("PEERSOCK_SECRET", secret);
        Running::start(command)
    };
    let listener = with_secret("listener", &["listen", &PORT.to_string()], "one");
    let target = listener.wait_for_target();
    let dialer = with_secret("dialer", &["dial", &target, "--timeout", "6"], "two");
    dialer.finish().failure(1, &["another secret", "the same passphrase"]);
}

/// Both sides are told: the one that is not admitted, and the one with the older file.
#[test]
fn whoever_is_in_the_newer_of_two_files_only_is_told_so_and_so_is_the_other_side() {
    let (lab, root) = (Lab::new(), Root::start(&[]));
    let (old, new) = (lab.dir.path().join("old.toml"), lab.dir.path().join("new.toml"));
    let edit = |node: &str, word: &str, file: &Path| {
        run(lab.command(node, &["network", word, file.to_str().unwrap(), "--name", node])).success();
    };
    edit("alpha", "new", &old);
    fs::copy(&old, &new).unwrap();
    edit("beta", "add", &new);
    let start = |node: &str, words: &[&str], file: &Path| {
        let mut command = lab.node_in(file.to_str().unwrap(), node, words);
        command.args(["--root", &root.text()]);
        Running::start(command)
    };
    let listener = start("alpha", &["listen", &PORT.to_string()], &old);
    listener.wait_for_target();
    let words = ["dial", &format!("alpha:{PORT}"), "--timeout", "6"];
    start("beta", &words, &new).finish().failure(1, &["a root knows", "names this node, too"]);
    listener.wait_for_stderr("no member of the network");
}

#[test]
fn whoever_finds_nobody_is_told_what_the_roots_have_to_do_with_it() {
    let lab = Lab::new();
    let token = lab.dir.path().join("token");
    write_file(&token, "open sesame\n", 0o600);
    let open = Root::start(&[]);
    let closed = Root::start(&["--access-token-file", token.to_str().unwrap()]);
    let nobody = format!("[{}]:{PORT}", address_of(&lab, "absent"));
    let dial = |root: &str| {
        let mut command = lab.node("dialer", &["dial", &nobody, "--timeout", "6"]);
        command.args(["--root", root]);
        run(command)
    };
    dial(&open.text())
        .failure(1, &["no member", "127.0.0.1", "was reached", "was not found there", "the same root"]);
    dial(&closed.text()).failure(1, &["no member", "refuses this node", "token"]);
    // The text has the key of another root.
    let text = open.text();
    let (_, place) = text.split_once('@').unwrap();
    let wrong = format!("{}@{place}", closed.identity);
    let other_key = ["no member", &format!("{place} answers, but not with the key that --root names")];
    dial(&wrong).failure(1, &other_key);
}

#[test]
fn the_command_that_listen_prints_names_the_root() {
    let lab = Lab::new();
    let root = Root::start(&[]);
    let secret = lab.dir.path().join("the secret");
    write_file(&secret, "words that only we know\n", 0o600);
    let secret = secret.to_str().unwrap();
    let mut command = lab.node("listener", &["listen", &PORT.to_string(), "--secret-file", secret]);
    command.args(["--root", &root.text()]);
    let mut listening = Running::start(command);
    let command = listening.wait_for_stderr("connect with: ");
    assert!(command.contains(&format!(" --root '{}' ", root.text())), "{command}");
    // It can be pasted into a shell.
    let program = format!("'{}'", env!("CARGO_BIN_EXE_peersock"));
    let command = command.replacen("peersock", &program, 1);
    let command = command.replacen("--secret-file FILE", &format!("--secret-file '{secret}'"), 1);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("echo found | {command} --interface lo")]);
    listening.end_stdin();
    run(shell).success();
    assert_eq!(listening.finish().success().text(), "found\n");
}

#[test]
fn nodes_with_the_token_meet_at_the_root_and_see_how() {
    let lab = Lab::new();
    let token = lab.dir.path().join("token");
    write_file(&token, "open sesame\n", 0o600);
    let token = token.to_str().unwrap();
    let root = Root::start(&["--access-token-file", token]);
    let text = root.text();
    let with_root = |mut command: Command, token: Option<&str>| {
        command.args(["--root", &text]);
        command.args(token.map(|token| ["--root-token-file", token]).iter().flatten());
        command
    };
    let state_of = |node: &str| {
        let status = run(lab.command(node, &["status", "--json"]));
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["roots"][0]["state"].as_str().unwrap_or_default().to_owned()
    };
    let wait_for = |node: &str, wanted: &str| {
        let deadline = Instant::now() + PATIENCE;
        while state_of(node) != wanted {
            assert!(Instant::now() < deadline, "{node} is not {wanted} but {}", state_of(node));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let port = PORT.to_string();
    let listening = Running::start(with_root(lab.node("listener", &["listen", &port]), Some(token)));
    wait_for("listener", "registered");
    let refused = Running::start(with_root(lab.node("stranger", &["listen", &port]), None));
    wait_for("stranger", "refused");
    drop(refused);

    let target = listening.wait_for_target();
    let address = target.rsplit_once(':').unwrap().0.trim_matches(['[', ']']);
    let ping = |words: &[&str]| {
        let mut command = with_root(lab.node("dialer", &["ping", address, "-i", "0.05"]), Some(token));
        command.args(words);
        run(command)
    };
    // On one machine beacons also work; whichever path is first, it ends direct.
    let finished = ping(&["--until-direct", "-c", "1000"]).success();
    assert!(finished.text().contains("path taken: ") && finished.text().contains("direct to 127.0.0.1:"));
    let json: Value = serde_json::from_slice(&ping(&["-c", "1", "--json"]).stdout).unwrap();
    assert!(json["path"]["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{json}");
    let mut command = lab.node("dialer", &["ping", address, "--root-token-file", token]);
    command.args(["-c", "1"]);
    run(command).failure(2, &["--root"]);
    listening.interrupt();
}

#[test]
fn a_root_announces_itself_where_it_listens() {
    // No other program uses this port for discovery.
    let listener = UdpSocket::bind("0.0.0.0:0").unwrap();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    let root = Root::start(&[&format!("--announce={}", listener.local_addr().unwrap().port())]);
    let mut datagram = [0; 2000];
    let (len, from) = listener.recv_from(&mut datagram).expect("an announcement");
    let announcement = Announcement::parse(&datagram[..len]).expect("its form");
    assert_eq!((announcement.identity, from), (root.identity, root.address));
}

#[test]
fn a_directory_that_is_away_is_told_and_its_password_never() {
    let lab = Lab::new();
    let password = lab.dir.path().join("password");
    write_file(&password, "hush-hush\n", 0o600);
    // There is no TCP listener, because the socket is a UDP socket.
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let url = format!("redis://{free}");
    let words = ["--directory", &url, "--directory-password-file", password.to_str().unwrap()];
    let mut command = peersock(&["root", "--listen", "127.0.0.1", "--port", "0", "--ephemeral"]);
    command.args(words).env("PEERSOCK_LOG", "trace");
    let running = Running::start(command);
    running.wait_for_stdout("\n");
    running.wait_for_stderr(&format!("sharing the directory at {free}"));
    running.wait_for_stderr("the shared directory is away");
    // A node that looks for a peer there is told at once, and not that the peer needs the same root.
    let text = running.shown();
    let lab_root = ["--root", text.trim()];
    let target = format!("[{}]:{PORT}", address_of(&lab, "nobody"));
    let mut dialing = lab.node("dialer", &["dial", &target, "--timeout", "8"]);
    dialing.args(lab_root);
    let dialing = Running::start(dialing);
    let told = Instant::now();
    dialing.wait_for_stderr("the directory which it shares with other roots does not answer");
    eprintln!("told {:?} after the start of dial", told.elapsed());
    assert!(told.elapsed() < Duration::from_secs(5), "{}", dialing.said());
    let failed = dialing.wait_for_end();
    failed.failure(1, &["its directory does not answer"]);
    assert!(!failed.stderr.contains("the same root, if it has another"), "{}", failed.stderr);
    signal(Signal::INT, running.id());
    let said = running.finish().success();
    assert!(!said.stderr.contains("hush-hush"), "{}", said.stderr);

    for (words, status, needles) in [
        (["--directory", "redis://:hush-hush@127.0.0.1"], 2, ["password in it", "--directory-password-file"]),
        (["--directory", "http://127.0.0.1"], 2, ["not the URL of a Redis", "redis://HOST:PORT"]),
    ] {
        let mut command = peersock(&["root", "--listen", "127.0.0.1", "--port", "0", "--ephemeral"]);
        command.args(words);
        let failed = run(command);
        failed.failure(status, &needles);
        assert!(!failed.stderr.contains("hush-hush"), "{}", failed.stderr);
    }
}

#[test]
fn the_identity_stays_and_what_is_advertised_is_printed() {
    let lab = Lab::new();
    let start = || {
        let words = ["root", "--listen", "127.0.0.1:0", "--advertise", "root.example.org:7420"];
        let running = Running::start(lab.command("root", &words));
        let first = running.wait_for_stdout("\n");
        signal(Signal::INT, running.id());
        running.finish().success();
        first
    };
    let first = start();
    assert!(first.ends_with("@root.example.org:7420\n"), "{first}");
    assert_eq!(RootAddress::parse_list(&first).expect("a root").len(), 1);
    assert_eq!(start(), first);
}

#[test]
fn streams_are_announced_counted_and_their_certificate_is_read_again() {
    let lab = Lab::new();
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| lab.dir.path().join(name));
    write_file(&chain, CERTIFICATE, 0o644);
    write_file(&key, KEY, 0o600);
    let mut command =
        peersock(&["root", "--listen", "127.0.0.1:0", "--ephemeral", "--metrics", "127.0.0.1:0"]);
    command.args(["--stream", "0", "--drain", "0", "--certificate"]).arg(&chain);
    command.arg("--certificate-key").arg(&key);
    let root = Running::start(command);
    let text: RootAddress = root.wait_for_stdout("\n").trim().parse().expect("the text for PEERSOCK_ROOTS");
    let ways: Vec<_> = text.endpoints().iter().map(|endpoint| endpoint.transport.name()).collect();
    assert_eq!(ways, ["udp", "wss", "tcp", "tls"]);
    let stream = root.wait_for_stderr("taking streams on ");
    assert!(text.endpoints()[1..].iter().all(|way| way.address() == stream.parse().ok()), "{text}");
    // A browser gets an explanation, and is counted.
    assert!(http(&stream, "/").contains("This is a root of peersock"));
    let metrics = root.wait_for_stderr("metrics on http://");
    let metrics = http(metrics.trim_end_matches("/metrics"), "/metrics");
    for line in ["peersock_root_connections 0", "peersock_root_streams_pages_total 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }

    signal(Signal::HUP, root.id());
    root.wait_for_stderr("the certificate was read again");
    write_file(&chain, "nothing\n", 0o644);
    signal(Signal::HUP, root.id());
    let why = root.wait_for_stderr("the certificate stays as it is: ");
    assert!(why.contains("chain.pem"), "{why}");
    signal(Signal::TERM, root.id());
    root.finish().success();

    let mut command = peersock(&["root", "--listen", "127.0.0.1:0", "--ephemeral", "--stream", "0"]);
    command.arg("--certificate").arg(&chain).arg("--certificate-key").arg(&key);
    run(command).failure(1, &["chain.pem", "--certificate"]);
}

/// A certificate made by `openssl req -x509 -newkey ed25519 -nodes -subj /CN=root.example.org`.
pub(crate) const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBSjCB/aADAgECAhRfSNKnOmyCt/1EqjLEi5KQnhhSWDAFBgMrZXAwGzEZMBcG
A1UEAwwQcm9vdC5leGFtcGxlLm9yZzAeFw0yNjExMjExNDQ4NDlaFw0zNjExMTgx
NDQ4NDlaMBsxGTAXBgNVBAMMEHJvb3QuZXhhbXBsZS5vcmcwKjAFBgMrZXADIQBc
7n0wjssopsSBvtlCnVFudM2PvSYKHf5V0kw0dp6hr6NTMFEwHQYDVR0OBBYEFIVl
JAVaCkjYgsPhYgEuraG75ueFMB8GA1UdIwQYMBaAFIVlJAVaCkjYgsPhYgEuraG7
5ueFMA8GA1UdEwEB/wQFMAMBAf8wBQYDK2VwA0EAzyAvhPyNLE6OwivstUOvIgS0
Zf4pE2Yh1Nd/g4zBUr1SG9OEq619t8HKR2YJ2lMhZex9vCuMZMtzRKjZfM2jBg==
-----END CERTIFICATE-----
";
pub(crate) const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIFNPNZ6k0C6hSUZhdWfYZZaO44aKfpEhg6eXAysk9Yr1
-----END PRIVATE KEY-----
";

#[test]
fn a_port_in_use_is_told() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let place = other.local_addr().unwrap().to_string();
    let command = peersock(&["root", "--ephemeral", "--listen", &place]);
    run(command).failure(1, &[&place, "--port"]);
}

#[test]
fn a_second_port_in_use_is_an_error_only_if_it_was_asked_for() {
    let nodes = |root: &Running| root.wait_for_stdout("\n");
    // The next port of a free one may be in use by another program, which is the same to the root.
    let place = SocketAddr::from(([127, 0, 0, 3], free_port()));
    let _next = UdpSocket::bind((place.ip(), place.port().wrapping_add(1)));
    let root =
        Running::start(peersock(&["root", "--ephemeral", "--drain", "0", "--listen", &place.to_string()]));
    nodes(&root);
    root.wait_for_stderr("no second UDP port (127.0.0.3:");
    signal(Signal::TERM, root.id());
    root.finish().success();

    let taken = UdpSocket::bind("127.0.0.3:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let words = ["root", "--ephemeral", "--drain", "0", "--listen", "127.0.0.3:0"];
    let command = peersock(&[&words[..], &["--second-port", &port]].concat());
    run(command).failure(1, &[&format!("127.0.0.3:{port}"), "--second-port"]);
    for (option, is_there) in
        [(&["--no-second-port"][..], false), (&["--second-port", "0"], true), (&[], true)]
    {
        let root = Running::start(peersock(&[&words[..], option].concat()));
        nodes(&root);
        root.wait_for_stderr("listening on 127.0.0.3:");
        signal(Signal::TERM, root.id());
        let said = root.finish().success().stderr;
        assert_eq!(said.contains("answering STUN on 127.0.0.3:"), is_there, "{said}");
    }
}

#[test]
fn a_root_takes_streams_where_it_may() {
    // An address of this test, so that no other one has its port 443.
    let [.., a, b] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 113, a, b.max(1));
    let place = UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
    let state = Lab::new();
    let start = |words: &[&str], note: Option<&str>| -> String {
        let mut command = state.command("root", &["root", "--drain", "0", "--listen", &place.to_string()]);
        command.args(words);
        let root = Running::start(command);
        let line = root.wait_for_stdout("\n");
        root.wait_for_stderr("listening on ");
        signal(Signal::TERM, root.id());
        let said = root.finish().success().stderr;
        assert_eq!(said.contains("443 is not used"), note == Some("443 is not used"), "{said}");
        assert_eq!(said.contains("no port for streams"), note == Some("no port for streams"), "{said}");
        let line = line.trim();
        assert!(line.len() <= 200, "{line}");
        line.split_once('@').expect("an address").1.to_owned()
    };
    let without = format!("{place},wss:{place}");
    // The port 443 of this address: free, or not permitted; then in use, or not permitted.
    let https = std::net::TcpListener::bind((ip, 443));
    let is_permitted = https.is_ok();
    let words = ["--advertise", "root.example.org:7420"];
    let advertised = format!("root.example.org:7420,wss:root.example.org:{}", place.port());
    assert_eq!(start(&[], Some("443 is not used")), without);
    assert_eq!(start(&words, Some("443 is not used")), advertised);
    let both = std::net::TcpListener::bind(place).expect("the port is free for TCP");
    assert_eq!(start(&[], Some("no port for streams")), place.to_string());
    drop((https, both));
    assert_eq!(start(&["--no-stream"], None), place.to_string());
    let all = format!("{place},wss:{ip}:443");
    let note = Some("443 is not used").filter(|_| !is_permitted);
    assert_eq!(start(&[], note), if is_permitted { all } else { without });
    let named = [&words[..], &["--advertise", "tcp:root.example.org:80"]].concat();
    assert_eq!(start(&named, note), "root.example.org:7420,tcp:root.example.org:80");
}

/// A running root, with the values it has printed.
pub(crate) struct Root {
    pub(crate) running: Running,
    pub(crate) identity: PublicIdentity,
    pub(crate) address: SocketAddr,
}

impl Root {
    /// Returns the text for PEERSOCK_ROOTS.
    pub(crate) fn text(&self) -> String {
        format!("{}@{}", self.identity, self.address)
    }

    pub(crate) fn start(words: &[&str]) -> Root {
        Root::start_with(&[&["--port", "0", "--ephemeral"], words].concat())
    }

    /// Starts a root as [`Root::start`] does, with the test's choice of port and identity.
    pub(crate) fn start_with(words: &[&str]) -> Root {
        let mut command = peersock(&["root", "--listen", "127.0.0.1", "--no-stream"]);
        command.args(words);
        let running = Running::start(command);
        let line = running.wait_for_stdout("\n");
        let address: RootAddress = line.lines().next().unwrap().parse().expect("the text for PEERSOCK_ROOTS");
        let [endpoint] = address.endpoints() else { panic!("one endpoint: {line}") };
        let identity = *address.identity();
        Root { running, identity, address: endpoint.address().expect("an address") }
    }
}

/// A minimal node, as far as a root can tell. It repeats lost messages.
struct Client {
    identity: Identity,
    root: PublicIdentity,
    socket: UdpSocket,
    keys: SessionKeys,
    next: u64,
    token: RelayToken,
    channel: Channel,
}

/// Time without an answer after which a message is repeated.
const REPEAT: Duration = Duration::from_millis(500);

impl Client {
    fn new(seed: u8, root: &Root) -> Client {
        let identity = Identity::from_seed(&[seed; 32]);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(root.address).unwrap();
        socket.set_read_timeout(Some(REPEAT)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let keys = loop {
            assert!(Instant::now() < deadline, "no session");
            let payload = InitiationPayload {
                network: NetworkId::ROOTS,
                timestamp: Timestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap()),
                instance: 1,
                receive_buffer: 1 << 20,
                suites: SuiteSet::CHACHA20_POLY1305,
                introduction: Vec::new(),
                room: 0,
            };
            let (index, mut initiation) = (SessionIndex::from_be_bytes([0, 0, seed]), Vec::new());
            let ephemeral = [seed | 0x80; 32];
            let begun =
                Initiator::start(&identity, &root.identity, ephemeral, index, &payload, &mut initiation)
                    .unwrap();
            MacWriter::new(&root.identity.node_id()).append(Instant::now(), &mut initiation);
            socket.send(&initiation).unwrap();
            let mut response = [0; 2000];
            let Ok(len) = socket.recv(&mut response) else { continue };
            if let Ok((keys, _)) = begun.read_response(&identity, &Psk::open(), &response[..len]) {
                break keys;
            }
        };
        Client {
            identity,
            root: root.identity,
            socket,
            keys,
            next: 0,
            token: RelayToken::from_be_bytes([0; 3]),
            channel: Channel(0),
        }
    }

    fn register(&mut self, access: &[u8]) {
        assert!(self.try_register(access));
    }

    /// Registers the node; returns false if the root refuses.
    fn try_register(&mut self, access: &[u8]) -> bool {
        let millis = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let registration = Registration::sign(&self.identity, &self.root.node_id(), millis, 600);
        let message = RootMessage::Register { registration, access: access.to_vec() };
        let own = self.socket.local_addr().unwrap();
        match self
            .ask(&message, |answer| matches!(answer, RootMessage::Registered(_) | RootMessage::Notice { .. }))
        {
            RootMessage::Registered(answer) => {
                assert_eq!(answer.voucher.address, own);
                assert!(answer.voucher.verify(&self.root, &self.identity.node_id()));
                (self.token, self.channel) = (answer.token, answer.channel);
                true
            }
            answer => {
                assert_eq!(answer, RootMessage::Notice { code: NoticeCode::Refused, channel: Channel(0) });
                false
            }
        }
    }

    fn look_up(&mut self, key: LookUpKey) -> Option<Entry> {
        let message = RootMessage::LookUp { id: 9, key };
        match self.ask(&message, |answer| matches!(answer, RootMessage::Found { id: 9, .. })) {
            RootMessage::Found { result, .. } => result.ok(),
            _ => None,
        }
    }

    fn ask(&mut self, message: &RootMessage, is_answer: impl Fn(&RootMessage) -> bool) -> RootMessage {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut plaintext = Vec::new();
            message.emit(&mut plaintext);
            self.send(&plaintext);
            if let Some(answer) = self.receive().and_then(|datagram| self.open(&datagram)) {
                match RootMessage::parse(&answer) {
                    Ok(answer) if is_answer(&answer) => return answer,
                    _ => {}
                }
            }
        }
        panic!("no answer to {message:?}");
    }

    /// Waits for an unsolicited message.
    fn message(&mut self, is_it: impl Fn(&RootMessage) -> bool) -> RootMessage {
        self.wait_for(|client, datagram| RootMessage::parse(&client.open(datagram)?).ok().filter(&is_it))
    }

    fn relay(&self, to: Channel, datagram: &[u8]) {
        let header = Relayed { token: self.token, channel: to }.to_bytes();
        self.socket.send(&[&header[..], datagram].concat()).unwrap();
    }

    /// Returns the next frame: its sender and content.
    fn relayed(&mut self) -> (Channel, Vec<u8>) {
        let token = self.token;
        self.wait_for(|_, datagram| {
            let (header, inner) = Relayed::parse(datagram).ok()?;
            assert_eq!(header.token, token);
            Some((header.channel, inner.to_vec()))
        })
    }

    fn wait_for<T>(&mut self, find: impl Fn(&Client, &[u8]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(found) = self.receive().and_then(|datagram| find(self, &datagram)) {
                return found;
            }
        }
        panic!("nothing came");
    }

    fn receive(&self) -> Option<Vec<u8>> {
        let mut datagram = vec![0; 2000];
        let len = self.socket.recv(&mut datagram).ok()?;
        datagram.truncate(len);
        Some(datagram)
    }

    fn send(&mut self, plaintext: &[u8]) {
        let key = default_provider().key(self.keys.suite, &self.keys.send).unwrap();
        let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
        Data::write_header(&mut datagram, self.keys.remote_index, self.next);
        key.seal(self.next, plaintext, &mut datagram[DATA_HEADER..]);
        self.next += 1;
        self.socket.send(&datagram).unwrap();
    }

    fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        assert_ne!(MessageType::of(datagram), None, "of this protocol");
        let data = Data::parse(datagram).ok()?;
        let key = default_provider().key(self.keys.suite, &self.keys.receive).unwrap();
        let mut plaintext = vec![0; datagram.len() - DATA_OVERHEAD];
        key.open(data.counter, data.sealed, &mut plaintext).ok()?;
        Some(plaintext)
    }
}
