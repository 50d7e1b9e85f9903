//! `forward`, both ways: connections, datagrams, Unix domain sockets, and sockets from systemd.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking;
use rustix::process::Signal;

use crate::common::{Lab, PATIENCE, PORT, Running, lacks, run, signal, vanish};
use crate::proxy_clients::{Scene, check_resets};

/// Returns the address in a TCP or UDP place.
fn address(place: &str) -> SocketAddr {
    let (_, rest) = place.split_once(':').expect("a protocol");
    let rest = rest.strip_prefix("overlay:").unwrap_or(rest);
    rest.parse().unwrap_or_else(|error| panic!("{place}: {error}"))
}

fn connect(place: &str) -> TcpStream {
    let stream = TcpStream::connect(address(place)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn a_port_here_leads_to_a_member_and_keeps_what_tcp_says() {
    let scene = Scene::new();
    let (forward, places) = scene.forward("a", &["0", &scene.own.to_string()]);
    // No listener exists yet, and the client sees a reset, not the end of an empty stream.
    let mut client = connect(&places[0]);
    assert_eq!(client.read(&mut [0; 1]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    forward.wait_for_stderr("nothing listens on that port");

    let listener = scene.listen();
    assert!(places[0].starts_with("tcp:127.0.0.1:"), "{places:?}");
    assert_eq!(forward.shown(), format!("{} tcp:overlay:{}\n", places[0], scene.own));
    let pair = || {
        let client = connect(&places[0]);
        (client, listener.accept().expect("a connection").0)
    };
    let content: Vec<u8> = (0..5_000_000u32).map(|number| (number % 251) as u8).collect();
    let (mut client, mut server) = pair();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let (mut reads, mut writes) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&content).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| server.read_to_end(&mut up).unwrap());
        scope.spawn(|| reads.read_to_end(&mut down).unwrap());
        writes.write_all(&content).unwrap();
        writes.shutdown(Shutdown::Write).unwrap();
    });
    assert!(up == content && down == content, "{} bytes up, {} down", up.len(), down.len());

    check_resets(pair);
}

#[test]
fn a_port_of_the_overlay_leads_to_services_here() {
    let scene = Scene::new();
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = scene.lab.dir.path().join("service");
    let by_path = UnixListener::bind(&path).unwrap();
    let port = service.local_addr().unwrap().port().to_string();
    let (_forward, places) =
        scene.forward("a", &["overlay:0", &port, "overlay:0", &format!("unix:{}", path.display())]);
    assert_eq!(places.len(), 2, "{places:?}");
    let member = || blocking::TcpStream::connect_on(&scene.node, address(&places[0])).expect("it listens");
    let mut client = member();
    let mut server = service.accept().unwrap().0;
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    server.write_all(b"answer").unwrap();
    drop(server);
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "requestanswer");

    let mut client = blocking::TcpStream::connect_on(&scene.node, address(&places[1])).expect("it listens");
    let mut server = by_path.accept().unwrap().0;
    server.write_all(b"by path").unwrap();
    drop(server);
    text.clear();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "by path");

    drop(service);
    let refused = member().read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(refused.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn each_client_of_datagrams_has_its_own_answers_both_ways() {
    let scene = Scene::new();
    // The target is an echo server on the overlay; the way back has one here that returns its sender's
    // address.
    let there = blocking::UdpSocket::bind_on(&scene.node, scene.own).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((count, from)) = there.recv_from(&mut buffer) {
            let _ = there.send_to(&buffer[..count], from);
        }
    });
    let here = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = here.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((count, from)) = here.recv_from(&mut buffer) {
            let _ = here.send_to(&buffer[..count], from);
        }
    });
    let (_forward, places) = scene.forward(
        "a",
        &[
            "udp:0",
            &scene.own.to_string(),
            "overlay:0",
            &format!("udp:127.0.0.1:{port}"),
            "--udp-idle",
            "0.5",
        ],
    );
    let clients: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let members: Vec<_> = (0..3)
        .map(|_| blocking::UdpSocket::bind_on(&scene.node, SocketAddr::new(scene.own.ip(), 0)).unwrap())
        .collect();
    let mut buffer = [0; 2000];
    for round in 0..3u8 {
        for (number, client) in clients.iter().enumerate() {
            client.connect(address(&places[0])).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send(&[round, number as u8]).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let count = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..count], [round, number as u8]);
        }
        for (number, member) in members.iter().enumerate() {
            member.connect(address(&places[1])).unwrap();
            member.set_read_timeout(Some(PATIENCE)).unwrap();
            member.send(&[round, number as u8]).unwrap();
        }
        for (number, member) in members.iter().enumerate() {
            let count = member.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..count], [round, number as u8]);
        }
        // Flows have ended by the next round, and new ones are created.
        thread::sleep(Duration::from_millis(700));
    }
}

#[test]
fn a_unix_domain_socket_is_its_owner_s_and_goes_with_the_program() {
    let scene = Scene::new();
    let listener = scene.listen();
    let path = scene.lab.dir.path().join("a socket");
    let place = format!("unix:{}", path.display());
    // A stale socket without a listener is replaced.
    drop(UnixListener::bind(&path).unwrap());
    // The check for a listener leaves a connection behind that is not served.
    let (forward, places) = scene.forward("a", &[&place, &scene.own.to_string(), "--linger", "0.1"]);
    assert_eq!(forward.shown(), format!("{place} tcp:overlay:{}\n", scene.own));
    drop(places);
    let found = fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let mut client = UnixStream::connect(&path).unwrap();
    let mut server = listener.accept().unwrap().0;
    client.write_all(b"hello").unwrap();
    drop(client);
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    drop(server);
    // A socket with a listener is not replaced.
    let taken = scene.lab.node("b", &["forward", &place, &scene.own.to_string()]);
    run(taken).failure(1, &["cannot listen at unix:", "in use", "choose another"]);
    forward.interrupt().failure(130, &[]);
    assert!(!path.exists());
}

/// Starts the program with two sockets as systemd passes them: as descriptors from 3 on, with their names and
/// the target process.
fn activated(scene: &Scene, words: &[&str], names: &str, [first, second]: [OwnedFd; 2]) -> Child {
    let program = scene.lab.node("a", words);
    let script =
        format!("exec 3<&0 4<&1 1>&2; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES={names} exec \"$@\"");
    let mut bash = Command::new("bash");
    bash.args(["-c", &script, "bash"]).arg(program.get_program()).args(program.get_args());
    crate::common::without_variables(&mut bash);
    bash.stdin(first).stdout(second).stderr(Stdio::piped()).spawn().unwrap()
}

/// Kills the program and returns all it has printed.
fn killed(mut child: Child) -> String {
    signal(Signal::KILL, child.id());
    child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

#[test]
fn sockets_of_systemd_are_taken_by_name_and_by_number() {
    let test = "sockets_of_systemd_are_taken_by_name_and_by_number";
    if lacks(test, &["bash"]) {
        return;
    }
    let scene = Scene::new();
    let listener = scene.listen();
    let (web, dns) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (at, dns_at) = (web.local_addr().unwrap(), dns.local_addr().unwrap());
    let own = scene.own.to_string();
    let words = ["forward", "systemd:web", &own, "udp:systemd:1", &own];
    let child = activated(&scene, &words, "web:dns", [web.into(), dns.into()]);
    let mut client = TcpStream::connect(at).unwrap();
    let mut server = listener.accept().unwrap().0;
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let datagrams = blocking::UdpSocket::bind_on(&scene.node, scene.own).unwrap();
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"question", dns_at).unwrap();
    let mut buffer = [0; 100];
    let count = datagrams.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"question");
    let said = killed(child);
    assert!(
        said.contains(&format!("tcp:{at} tcp:overlay:{own}\nudp:{dns_at} udp:overlay:{own}\n")),
        "{said}"
    );
}

/// Uses systemd's program for testing services with sockets.
#[test]
fn the_first_connection_starts_a_forward_at_a_socket_of_systemd() {
    let test = "the_first_connection_starts_a_forward";
    if lacks(test, &["systemd-socket-activate"]) {
        return;
    }
    let scene = Scene::new();
    let listener = scene.listen();
    let path = scene.lab.dir.path().join("socket");
    let program = scene.lab.node("a", &["forward", "systemd:web", &scene.own.to_string()]);
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--fdname=web").arg(format!("--listen={}", path.display()));
    command.arg(program.get_program()).args(program.get_args());
    crate::common::without_variables(&mut command);
    let activated = Running::start(command);
    activated.wait_for_stderr("Listening on");
    for text in ["the first", "another one"] {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(text.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut server = listener.accept().unwrap().0;
        let mut read = String::new();
        server.read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
    }
}

/// All sockets of a unit have its name, unless the unit names them separately.
#[test]
fn all_sockets_of_one_unit_are_served() {
    let test = "all_sockets_of_one_unit_are_served";
    if lacks(test, &["bash"]) {
        return;
    }
    let scene = Scene::new();
    let listener = scene.listen();
    let own = scene.own.to_string();
    for (names, words) in [
        ("p.socket:p.socket", &["forward", "systemd:p.socket", &own][..]),
        (":web", &["forward", "systemd:0", &own, "systemd:web", &own]),
    ] {
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let places = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
        let child = activated(&scene, words, names, sockets.map(OwnedFd::from));
        for place in places {
            let mut client = TcpStream::connect(place).unwrap();
            let mut server = listener.accept().unwrap().0;
            client.write_all(b"hello").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut text = String::new();
            server.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello", "{names}");
        }
        let said = killed(child);
        let lines = places.map(|at| format!("tcp:{at} tcp:overlay:{own}\n"));
        assert!(lines.iter().all(|line| said.contains(line)), "{names}: {said}");
    }
}

#[test]
fn a_forward_goes_on_when_its_member_vanishes_and_comes_back() {
    let scene = Scene::new();
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = service.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        let greet = |mut client: TcpStream| client.write_all(b"hello").map(|()| client);
        // The connections stay open.
        service.incoming().flatten().map(greet).collect::<Vec<_>>()
    });
    let there = format!("overlay:{PORT}");
    let (running, places) = scene.forward("there", &[&there, &port]);
    let to = address(&places[0]).to_string();
    let (_here, here) = scene.forward("here", &["0", &to, "--timeout", "1"]);
    let greeting = |client: &mut TcpStream| {
        let mut greeting = [0; 5];
        client.read_exact(&mut greeting).map(|()| assert_eq!(&greeting, b"hello"))
    };
    let mut held = connect(&here[0]);
    greeting(&mut held).expect("the member is there");
    vanish(Signal::KILL, running.id());
    drop(running);
    // Connections fail while the target is down, each with a reset.
    let failed = greeting(&mut connect(&here[0])).expect_err("nobody is there");
    assert_eq!(failed.kind(), ErrorKind::ConnectionReset);
    let _again = scene.forward("there", &[&there, &port]);
    let begin = Instant::now();
    while let Err(error) = greeting(&mut connect(&here[0])) {
        assert!(error.kind() == ErrorKind::ConnectionReset && begin.elapsed() < PATIENCE, "{error}");
    }
    // The old connection is reset, now or earlier, because the member does not know it.
    let asked = held.write_all(b"still there?").and_then(|()| held.read(&mut [0; 1]));
    assert_eq!(asked.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
}

#[test]
fn what_nobody_can_be_led_to_is_refused_at_the_start() {
    let lab = Lab::new();
    let other =
        format!("[{}]:81", run(lab.command("b", &["addr", "ff00500050000000"])).success().text().trim());
    for (remote, said) in [
        ("alpha:80", "is not an IP address"),
        (&*other, "outside the range 80-80"),
        ("127.0.0.1:80", "`overlay:PORT 80` to have members reach port 80"),
        ("[::]:80", ":: is this machine itself"),
        ("[fd00::1]:80", "no member of network ff00500050000000 can have address fd00::1"),
        ("alpha:80800", "ports end at 65535"),
    ] {
        run(lab.node_in("ff00500050000000", "a", &["forward", "0", remote])).failure(2, &[said]);
    }
    let file = lab.dir.path().join("office.toml");
    let file = file.to_str().unwrap();
    run(lab.command("a", &["network", "new", file, "--name", "alpha"])).success();
    run(lab.node_in(file, "a", &["forward", "overlay:80", "alpha:80"])).failure(2, &["`alpha` is a member"]);
    // A target outside the network is resolved by the system.
    let forward = lab.node_in("ff00500050000000", "a", &["forward", "overlay:80", "nobody.invalid:7"]);
    Running::start(forward).wait_for_stdout("tcp:overlay:");
}
