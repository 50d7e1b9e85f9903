//! Attacks by other users of the machine, who see all abstract names and may connect to them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;

use peersock_fd::{
    Client, Errno, Family, Filling, Kind, Message, Name, NameKey, NodeTag, Opened, RecvFlags, Reply, Request,
    Socket, SocketFlags, Token, VERSION, address, decode, encode, name_of, receive, send_with,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType};
use rustix::thread::set_thread_res_uid;

use crate::common::{self, Served, overlay, private, send_to, try_receive};

/// Returns a connection to the request socket of a node.
fn connect(tag: NodeTag) -> Result<OwnedFd, Errno> {
    let fd = socket();
    rustix::net::connect(&fd, &address(&Name::Requests(tag)))?;
    Ok(fd)
}

fn socket() -> OwnedFd {
    let kind = SocketType::SEQPACKET;
    rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("a socket")
}

fn ask(fd: &OwnedFd, token: Token, request: Request) -> Option<Reply> {
    let message = Message { version: VERSION, token, request };
    send_with(fd.as_fd(), &encode(&message), None, SendFlags::empty()).ok()?;
    answer(fd)
}

/// Returns the next reply, or `None` at the end.
fn answer(fd: &OwnedFd) -> Option<Reply> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(
        rustix::event::poll(&mut fds, Some(&patience)),
        Ok(1),
        "there is neither an answer nor an end"
    );
    let mut buf = [0; 1024];
    let (length, _) = receive(fd.as_fd(), &mut buf).ok()?;
    (length > 0).then(|| decode(&buf[..length]).expect("a reply"))
}

/// Runs `job` as another user of the machine, which only root can do.
fn as_stranger<T: Send>(job: impl FnOnce() -> T + Send) -> Option<T> {
    if !rustix::process::geteuid().is_root() {
        let name = thread::current().name().unwrap_or_default().to_owned();
        eprintln!("SKIP {name}: only root can be another user");
        return None;
    }
    let job = || {
        let nobody = rustix::process::Uid::from_raw(65534);
        // The kernel changes the user of this thread only.
        set_thread_res_uid(nobody, nobody, nobody).expect("root may");
        job()
    };
    Some(thread::scope(|scope| scope.spawn(job).join().expect("it does not panic")))
}

#[test]
fn a_user_without_the_token_is_answered_nothing() {
    let served = Served::new("ff0001ffff000000");
    let tag = served.client.tag();
    as_stranger(|| {
        for token in [Token::NONE, Token(12345)] {
            let fd = connect(tag).expect("everybody may connect");
            assert_eq!(ask(&fd, token, Request::Routes), Some(Reply::Failed(libc::EPERM)));
            assert_eq!(answer(&fd), None, "the connection is not ended");
        }
    });
}

#[test]
fn requests_that_come_together_are_all_answered_in_their_order() {
    let served = Served::new("ff0001ffff000000");
    let fd = connect(served.client.tag()).expect("everybody may connect");
    let send = |request| {
        let message = Message { version: VERSION, token: Token::NONE, request };
        send_with(fd.as_fd(), &encode(&message), None, SendFlags::empty()).expect("room");
    };
    for _ in 0..40 {
        send(Request::Prove(1));
        send(Request::Routes);
    }
    for _ in 0..40 {
        assert!(matches!(answer(&fd), Some(Reply::Proof(_))));
        assert!(matches!(answer(&fd), Some(Reply::Routes(_))));
    }
}

#[test]
fn the_connections_of_users_without_the_token_are_limited() {
    const MANY_STRANGERS: usize = 300;
    let served = Served::new("ff0001ffff000000");
    let tag = served.client.tag();
    as_stranger(|| {
        let held: Vec<_> =
            (0..MANY_STRANGERS).map(|_| connect(tag).expect("everybody may connect")).collect();
        // The node has accepted all once it answers a later one.
        let last = connect(tag).expect("everybody may connect");
        assert!(matches!(ask(&last, Token::NONE, Request::Prove(1)), Some(Reply::Proof(_))));
        let open =
            held.iter().filter(|fd| receive(fd.as_fd(), &mut [0]).is_err_and(|error| error == Errno::AGAIN));
        let open = open.count();
        assert!(open <= 64, "{open} of {MANY_STRANGERS} are still open");
    });
    let (fd, _) = served.bound();
    drop(fd);
}

#[test]
fn who_takes_the_name_of_a_node_that_is_gone_is_not_taken_for_it() {
    let served = Served::new("ff0001ffff000000");
    let (client, fd) = (std::sync::Arc::clone(&served.client), served.open(Kind::Stream));
    let tag = client.tag();
    let local = (served.ip(), 0).into();
    drop(served);
    let impostor = socket();
    rustix::net::bind(&impostor, &address(&Name::Requests(tag))).expect("the name is free");
    rustix::net::listen(&impostor, 8).expect("it is bound");
    let seen = thread::spawn(move || {
        let end = rustix::net::accept(&impostor).expect("the application connects");
        let mut buf = [0; 1024];
        let mut fds = [PollFd::new(&end, PollFlags::IN)];
        rustix::event::poll(&mut fds, None).expect("it asks");
        let (length, _) = receive(end.as_fd(), &mut buf).expect("a request");
        let reply = Reply::Proof(1);
        send_with(end.as_fd(), &encode(&reply), None, SendFlags::empty()).expect("it waits for the answer");
        // Its next request would go to the impostor.
        let mut fds = [PollFd::new(&end, PollFlags::IN)];
        rustix::event::poll(&mut fds, None).expect("it goes on or away");
        let next = receive(end.as_fd(), &mut [0; 1024]);
        (decode::<Message>(&buf[..length]).expect("a request"), next.map(|(length, _)| length))
    });
    assert_eq!(overlay(&fd).bind(local), Err(Errno::NETDOWN));
    let (message, next) = seen.join().expect("no panic");
    assert_eq!(message.token, Token::NONE, "the token was told to the impostor");
    assert!(matches!(message.request, Request::Prove(_)), "the request was told to the impostor");
    assert_eq!(next, Ok(0), "the application asked more");
}

#[test]
fn sockets_that_are_closed_give_up_their_ports_unasked() {
    const MANY_STRANGERS: usize = 400;
    let served = Served::new("ff0001ffff000000");
    let ports: Vec<_> = (0..MANY_STRANGERS)
        .map(|_| {
            let fd = served.open(Kind::Stream);
            let socket: Socket<'_> = overlay(&fd);
            socket.bind((served.ip(), 0).into()).expect("a free port");
            socket.local_addr().expect("it is bound")
        })
        .collect();
    let is_free =
        |local: &&SocketAddr| peersock::blocking::TcpListener::bind_on(served.node(), **local).is_ok();
    let free = ports.iter().filter(is_free).count();
    assert!(free >= MANY_STRANGERS / 2, "only {free} of {MANY_STRANGERS} ports are free again");
}

/// Strangers that connect to a listener's name would fill its backlog, and make the application accept
/// useless connections.
#[test]
fn nobody_but_the_node_can_connect_to_a_listener() {
    let (a, b) = Served::pair();
    let (listener, address_of_b) = b.listen(SocketFlags::empty());
    let own = rustix::net::getsockname(&listener).expect("it has a name");
    let inode = rustix::fs::fstat(&listener).expect("it is open").st_ino;
    let listed = std::fs::read_to_string("/proc/net/unix").expect("proc(5)");
    let is_listener = |line: &&str| line.split_ascii_whitespace().nth(6) == Some(&inode.to_string());
    let line = listed.lines().find(is_listener).expect("it is listed");
    let name = line.split_ascii_whitespace().nth(7).expect("it has a name");
    as_stranger(|| {
        let name = SocketAddrUnix::new(name).expect("it fits");
        let by_id = address(&Name::Opened(b.client.tag(), overlay(&listener).opened()));
        for to in [own, name.into(), by_id.into()] {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let kind = SocketType::STREAM;
            let fd = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).expect("a socket");
            let connected = rustix::net::connect(&fd, &to);
            assert!(
                matches!(connected, Err(Errno::CONNREFUSED | Errno::NOENT | Errno::NOTDIR)),
                "{connected:?}"
            );
        }
    });
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&listener, PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&now)), Ok(0), "somebody waits to be accepted");
    let client = a.socket(SocketFlags::empty());
    overlay(&client).connect(Some(address_of_b)).expect("somebody listens");
    let (server, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    rustix::io::write(&client, b"x").expect("it is connected");
    assert_eq!(rustix::io::read(&server, &mut [0; 10]), Ok(1));
}

#[test]
fn who_takes_the_name_of_a_listener_that_is_closed_gets_no_connection() {
    let (a, b) = Served::pair();
    let (listener, address_of_b) = b.listen_by_abstract_name();
    let name = rustix::net::getsockname(&listener).expect("it has a name");
    drop(listener);
    let Some(intruder) = as_stranger(|| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = SocketType::STREAM;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).expect("a socket");
        rustix::net::bind(&fd, &name).expect("the name is free");
        rustix::net::listen(&fd, 8).expect("it is bound");
        fd
    }) else {
        return;
    };
    let client = a.socket(SocketFlags::empty());
    let connected = overlay(&client).connect(Some(address_of_b));
    if connected.is_ok() {
        // If the stack had accepted it already, it is reset.
        let mut buf = [0; 1];
        assert_eq!(rustix::io::read(&client, &mut buf), Err(Errno::CONNRESET));
    }
    let (accepted, _) = match rustix::net::acceptfrom_with(&intruder, SocketFlags::NONBLOCK) {
        Err(error) => return assert_eq!(error, Errno::AGAIN),
        Ok(accepted) => accepted,
    };
    // It was closed at once, and never carried anything.
    assert_eq!(rustix::io::read(&accepted, &mut [0; 1]), Ok(0));
    let again = b.socket(SocketFlags::empty());
    assert_eq!(overlay(&again).bind(address_of_b), Ok(()), "the port is not free again");
}

#[test]
fn who_takes_the_name_of_a_listener_does_not_keep_its_port() {
    let served = Served::new("ff0001ffff000000");
    let (listener, address) = served.listen_by_abstract_name();
    let name = rustix::net::getsockname(&listener).expect("it has a name");
    drop(listener);
    let Some(_intruder) = as_stranger(|| {
        let fd = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&fd, &name).expect("the name is free");
        fd
    }) else {
        return;
    };
    let again = served.socket(SocketFlags::empty());
    assert_eq!(overlay(&again).bind(address), Ok(()), "the port is not free again");
}

/// Returns another user's socket of this abstract name, or `None` if that is impossible.
fn named_by_stranger(name: &Name) -> Option<OwnedFd> {
    as_stranger(|| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let fd = fd.expect("a socket");
        rustix::net::bind(&fd, &address(name)).expect("the name is free");
        fd
    })
}

#[test]
fn who_takes_the_name_that_a_listener_had_before_it_was_bound_changes_nothing() {
    let (a, b) = Served::pair();
    let (listener, address_of_b) = b.listen(SocketFlags::empty());
    let name = Name::Opened(b.client.tag(), overlay(&listener).opened());
    let Some(intruder) = named_by_stranger(&name) else { return };
    rustix::net::listen(&intruder, 8).expect("it is bound");
    let other = b.socket(SocketFlags::empty());
    // An existing connection leaves the port free for this one.
    common::set(&other, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).expect("an option");
    assert_eq!(overlay(&other).bind(address_of_b), Err(Errno::ADDRINUSE), "the listener is taken for closed");
    let client = a.socket(SocketFlags::empty());
    overlay(&client).connect(Some(address_of_b)).expect("somebody listens");
    overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    drop(listener);
    assert_eq!(overlay(&other).bind(address_of_b), Ok(()), "the port is not free again");
    let accepted = rustix::net::acceptfrom_with(&intruder, SocketFlags::NONBLOCK);
    assert_eq!(accepted.err(), Some(Errno::AGAIN));
}

/// Connects to the node under the name of another process's socket, and prints the result.
const IMPOSTOR: &str = "import socket, sys
fd = socket.socket(socket.AF_UNIX)
fd.bind('\\0' + sys.argv[1])
fd.connect('\\0' + sys.argv[2])
print('connected', flush=True)
print('received', fd.recv(10))
";

/// Returns a listener, and a socket that the node has connected to it, while the application's descriptor is
/// not connected yet; and the library's first piece.
fn half_connected((a, b): &(Served, Served), client: &OwnedFd) -> (OwnedFd, Opened, Filling) {
    let (listener, remote) = b.listen(SocketFlags::empty());
    let socket = overlay(client).opened();
    let request = Request::Connect { socket, remote, wait: true, timeout: None };
    match a.client.ask(request) {
        Ok(Reply::Established(first)) => (listener, socket, first),
        reply => panic!("somebody listens: {reply:?}"),
    }
}

#[test]
fn who_takes_the_name_of_a_client_that_was_bound_does_not_get_its_connection() {
    let test = "who_takes_the_name_of_a_client_that_was_bound_does_not_get_its_connection";
    let Some(mut impostor) = common::python(test, IMPOSTOR) else { return };
    let pair = Served::pair();
    let client = private(pair.0.socket(SocketFlags::empty()));
    let (listener, socket, first) = half_connected(&pair, &client);
    let tag = pair.0.client.tag();
    let (name, data) = (Name::Opened(tag, socket), Name::Data(tag));
    impostor.args([name.to_string(), data.to_string()]).stdout(Stdio::piped());
    let mut impostor = impostor.spawn().expect("it can be run");
    let mut lines = BufReader::new(impostor.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "connected");
    let (server, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    rustix::io::write(&server, b"secret").expect("it is connected");
    rustix::net::connect(&client, &address(&data)).expect("the node is there");
    rustix::io::write(&client, &first.bytes()).expect("what the library writes first");
    let mut buf = [0; 10];
    assert_eq!(rustix::io::read(&client, &mut buf), Ok(6));
    assert_eq!(lines.next().expect("a line").expect("text"), "received b''");
    assert!(impostor.wait().expect("it ends").success());
}

/// As above, for an unbound client. The ID must differ, because no two sockets of a node have the same.
#[test]
fn who_takes_the_name_of_a_client_under_another_tag_does_not_get_its_connection() {
    let pair = Served::pair();
    let client = pair.0.socket(SocketFlags::empty());
    let (listener, socket, first) = half_connected(&pair, &client);
    let data = Name::Data(pair.0.client.tag());
    let Some(stranger) = named_by_stranger(&Name::Opened(NodeTag(0), socket)) else { return };
    as_stranger(|| rustix::net::connect(&stranger, &address(&data)).expect("everybody may connect"));
    rustix::net::connect(&client, &address(&data)).expect("the node is there");
    rustix::io::write(&client, &first.bytes()).expect("what the library writes first");
    let (server, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    rustix::io::write(&server, b"secret").expect("it is connected");
    let mut buf = [0; 10];
    assert_eq!(rustix::io::read(&client, &mut buf), Ok(6));
    rustix::io::ioctl_fionbio(&stranger, false).expect("an option");
    assert_eq!(rustix::io::read(&stranger, &mut buf), Ok(0), "somebody else has the connection");
}

#[test]
fn who_takes_the_name_of_a_client_that_has_closed_it_does_not_get_its_connection() {
    let test = "who_takes_the_name_of_a_client_that_has_closed_it_does_not_get_its_connection";
    let Some(mut impostor) = common::python(test, IMPOSTOR) else { return };
    let pair = Served::pair();
    let client = pair.0.socket(SocketFlags::empty());
    let (listener, socket, _) = half_connected(&pair, &client);
    drop(client);
    let tag = pair.0.client.tag();
    let (name, data) = (Name::Opened(tag, socket), Name::Data(tag));
    let impostor = impostor.args([name.to_string(), data.to_string()]).stderr(Stdio::inherit());
    let (server, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    rustix::io::write(&server, b"secret").expect("it is connected");
    let said = impostor.output().expect("it can be run");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "connected\nreceived b''\n");
}

/// Returns a datagram socket with the name of a node's end, as far as it can be forged without the node's
/// key.
fn impostor(application: &impl AsFd, remote: SocketAddr) -> OwnedFd {
    let Some(Name::Opened(tag, socket)) = name_of(rustix::net::getsockname(application).expect("a name"))
    else {
        panic!("it is an application's socket")
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).expect("a socket");
    let name = Name::Remote(tag, NameKey(1).remote(socket.id, remote, None));
    rustix::net::bind(&fd, &address(&name)).expect("the name is free");
    fd
}

#[test]
fn who_is_there_before_the_node_gets_no_datagram() {
    let (a, b) = Served::pair();
    let ((client, _), (server, there)) = (a.bound(), b.bound());
    let Some(intruder) = as_stranger(|| impostor(&client, there)) else { return };
    send_to(&client, b"secret", there).expect("a route");
    assert_eq!(common::receive(&server).0, b"secret");
    overlay(&client).connect(Some(there)).expect("its far end is free");
    rustix::io::write(&client, b"more").expect("it is connected");
    assert_eq!(common::receive(&server).0, b"more");
    assert_eq!(rustix::io::read(&intruder, &mut [0; 10]), Err(Errno::AGAIN));
    as_stranger(|| {
        let fd = connect(a.client.tag()).expect("everybody may connect");
        assert_eq!(ask(&fd, Token::NONE, Request::NameKey), Some(Reply::Failed(libc::EPERM)));
    });
}

/// Names the node to the child of the test below, which sees no process of its parent's namespace.
const NODE_VARIABLE: &str = "PEERSOCK_TEST_NODE";

#[test]
fn where_the_nodes_process_cannot_be_seen_nobody_else_is_taken_for_it() {
    if let Ok(node) = std::env::var(NODE_VARIABLE) {
        return receive_in_another_namespace(&node);
    }
    let (a, b) = Served::pair();
    let (sender, _) = b.bound();
    let name = thread::current().name().expect("the test's name").to_owned();
    let mut child = Command::new("unshare");
    child.args(["--pid", "--fork"]).arg(std::env::current_exe().expect("this program"));
    child.args(["--exact", &name, "--nocapture"]).stdout(Stdio::piped());
    child.env(NODE_VARIABLE, format!("{},{},{}", a.client.tag().0, a.server.token().0, a.ip()));
    let mut child = match child.spawn() {
        Ok(child) => child,
        Err(error) => return eprintln!("SKIP {name}: unshare: {error}"),
    };
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut told = |what: &str| {
        let line =
            lines.find_map(|line| line.expect("text").split_once(what).map(|(_, rest)| rest.to_owned()));
        line.filter(|line| !line.is_empty())
    };
    let Some(local) = told("bound ") else {
        child.wait().expect("it has ended");
        return eprintln!("SKIP {name}: only root can make a namespace");
    };
    let (id, local) = local.split_once(' ').expect("both");
    let socket = Opened {
        family: Family::V6,
        kind: Kind::Datagram,
        id: peersock_fd::SocketId(id.parse().expect("a number")),
    };
    let tag = a.client.tag();
    let forged = NameKey(1).remote(socket.id, "[fd00::1]:53".parse().expect("an address"), None);
    let intruder = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).expect("a socket");
    rustix::net::bind(&intruder, &address(&Name::Remote(tag, forged))).expect("the name is free");
    let to = address(&Name::Opened(tag, socket));
    rustix::net::sendto(&intruder, b"forged", SendFlags::empty(), &to).expect("everybody may send");
    send_to(&sender, b"genuine", local.parse().expect("an address")).expect("a route");
    let received = told("received ");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(received.as_deref(), Some("genuine"));
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn receive_in_another_namespace(node: &str) {
    let mut parts = node.split(',');
    let mut next = || parts.next().expect("three parts");
    let tag = NodeTag(next().parse().expect("a number"));
    let client = Client::new(tag, Token(next().parse().expect("a number")));
    let local = SocketAddr::new(next().parse().expect("an address"), 0);
    let fd = peersock_fd::open(&client, Family::V6, Kind::Datagram, SocketFlags::empty()).expect("a socket");
    overlay(&fd).bind(local).expect("a free port");
    let Some(Name::Opened(_, socket)) = name_of(rustix::net::getsockname(&fd).expect("a name")) else {
        panic!("it is an application's socket")
    };
    println!("bound {} {}", socket.id.0, overlay(&fd).local_addr().expect("it is bound"));
    let (data, _) = try_receive(&fd, RecvFlags::empty()).expect("a datagram");
    println!("received {}", String::from_utf8_lossy(&data));
}

/// Returns the name of one of the node's ends, as every user of the machine sees it.
fn end_of(client: &impl AsFd, remote: SocketAddr) -> String {
    let Some(Name::Opened(_, socket)) = name_of(rustix::net::getsockname(client).expect("a name")) else {
        panic!("it is an application's socket")
    };
    let listed = std::fs::read_to_string("/proc/net/unix").expect("proc(5)");
    let names = listed.lines().filter_map(|line| line.split_ascii_whitespace().nth(7)?.strip_prefix('@'));
    let is_end = |name: &&str| match Name::parse(name.as_bytes()) {
        Some(Name::Remote(_, end)) => (end.id, end.address) == (socket.id, remote),
        _ => false,
    };
    names.into_iter().find(is_end).expect("the node has an end for it").to_owned()
}

#[test]
fn nobody_else_sends_from_a_socket_by_its_name_under_another_tag() {
    let (a, b) = Served::pair();
    let ((client, _), (server, there)) = (a.bound(), b.bound());
    let (_other, elsewhere) = b.bound();
    // While the client is connected elsewhere, the end for another address is not connected to it.
    overlay(&client).connect(Some(elsewhere)).expect("a route");
    send_to(&client, b"genuine", there).expect("a route");
    assert_eq!(common::receive(&server).0, b"genuine");
    let end = end_of(&client, there);
    let sent = as_stranger(|| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        let (fd, socket) = (fd.expect("a socket"), overlay(&client).opened());
        rustix::net::bind(&fd, &address(&Name::Opened(NodeTag(0), socket))).expect("the name is free");
        let to = SocketAddrUnix::new_abstract_name(end.as_bytes()).expect("it fits");
        rustix::net::sendto(&fd, b"forged", SendFlags::empty(), &to).map(drop)
    });
    if sent.is_none() {
        return;
    }
    send_to(&client, b"more", there).expect("a route");
    assert_eq!(common::receive(&server).0, b"more");
}

#[test]
fn who_takes_the_name_of_a_datagram_socket_that_is_closed_gets_nothing_and_keeps_no_port() {
    let (a, b) = Served::pair();
    let ((client, _), (server, there)) = (a.bound(), b.bound());
    send_to(&client, b"before", there).expect("a route");
    assert_eq!(common::receive(&server).0, b"before");
    let name = rustix::net::getsockname(&server).expect("it has a name");
    drop(server);
    let Some(intruder) = as_stranger(|| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        let fd = fd.expect("a socket");
        rustix::net::bind(&fd, &name).expect("the name is free");
        fd
    }) else {
        return;
    };
    // The node's end for this client was connected to the closed socket.
    send_to(&client, b"secret", there).expect("a route");
    let again = b.open(Kind::Datagram);
    assert_eq!(overlay(&again).bind(there), Ok(()), "the port is not free again");
    send_to(&client, b"after", there).expect("a route");
    assert!([&b"secret"[..], b"after"].contains(&&common::receive(&again).0[..]));
    assert_eq!(rustix::io::read(&intruder, &mut [0; 10]), Err(Errno::AGAIN), "somebody else got it");
}

/// Returns a TCP socket whose last close blocks for an hour.
fn slow_to_close() -> (std::net::TcpStream, std::net::TcpStream) {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let slow = std::net::TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (reader, _) = listener.accept().expect("a connection");
    slow.set_nonblocking(true).expect("an option");
    while (&slow).write(&[0; 1 << 16]).is_ok() {}
    slow.set_nonblocking(false).expect("an option");
    let hour = std::time::Duration::from_secs(3600);
    rustix::net::sockopt::set_socket_linger(&slow, Some(hour)).expect("an option");
    (slow, reader)
}

/// If the engine thread closed a stranger's descriptors, the node would block.
#[test]
fn a_stranger_cannot_have_the_node_wait_for_what_it_closes() {
    let (a, b) = Served::pair();
    let (listener, address_of_b) = b.listen(SocketFlags::empty());
    let tag = a.client.tag();
    let mut readers = Vec::new();
    for (kind, name) in [(SocketType::SEQPACKET, Name::Requests(tag)), (SocketType::STREAM, Name::Data(tag))]
    {
        let (slow, reader) = slow_to_close();
        readers.push(reader);
        // Use a thread that is not joined, because it may close the slow socket last.
        as_stranger(|| {
            thread::spawn(move || {
                let fd = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
                let fd = fd.expect("a socket");
                rustix::net::connect(&fd, &address(&name)).expect("everybody may connect");
                // Newer systems refuse this.
                let _ = send_with(fd.as_fd(), b"x", Some(slow.as_fd()), SendFlags::empty());
                drop((slow, fd));
            })
        });
    }
    thread::sleep(std::time::Duration::from_millis(50));
    let client = a.socket(SocketFlags::empty());
    overlay(&client).connect(Some(address_of_b)).expect("the node goes on");
    overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
}
