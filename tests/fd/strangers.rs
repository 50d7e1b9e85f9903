//! What other users of the machine try: every user sees the abstract names, and may connect to them.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use peersock_fd::{
    Errno, Kind, Message, Name, NodeTag, Reply, Request, Socket, SocketFlags, Token, VERSION, address,
    decode, encode, receive, send_with,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SendFlags, SocketType};
use rustix::thread::set_thread_res_uid;

use crate::common::{Served, overlay};

/// A connection to the request socket of a node.
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

/// What comes next; `None` if it is the end.
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

/// Does something as another user of the machine; only root can.
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
fn the_connections_of_users_without_the_token_are_limited() {
    const MANY: usize = 300;
    let served = Served::new("ff0001ffff000000");
    let tag = served.client.tag();
    as_stranger(|| {
        let held: Vec<_> = (0..MANY).map(|_| connect(tag).expect("everybody may connect")).collect();
        // The node has accepted all once it answers one that comes later.
        let last = connect(tag).expect("everybody may connect");
        assert!(matches!(ask(&last, Token::NONE, Request::Prove(1)), Some(Reply::Proof(_))));
        let open =
            held.iter().filter(|fd| receive(fd.as_fd(), &mut [0]).is_err_and(|error| error == Errno::AGAIN));
        let open = open.count();
        assert!(open <= 64, "{open} of {MANY} are still open");
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
        // What it asks next it would ask the impostor.
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
    const MANY: usize = 400;
    let served = Served::new("ff0001ffff000000");
    let ports: Vec<_> = (0..MANY)
        .map(|_| {
            let fd = served.open(Kind::Stream);
            let socket: Socket<'_> = overlay(&fd);
            socket.bind((served.ip(), 0).into()).expect("a free port");
            socket.local_addr().expect("it is bound")
        })
        .collect();
    let is_free = |local: &&std::net::SocketAddr| {
        peersock::blocking::TcpListener::bind_on(served.node(), **local).is_ok()
    };
    let free = ports.iter().filter(is_free).count();
    assert!(free >= MANY / 2, "only {free} of {MANY} ports are free again");
}

#[test]
fn who_takes_the_name_of_a_listener_that_is_closed_gets_no_connection() {
    let (a, b) = Served::pair();
    let (listener, address_of_b) = b.listen(SocketFlags::empty());
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
        // The stack had accepted it already: then it is reset.
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
    let (listener, address) = served.listen(SocketFlags::empty());
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
