//! A node with a separate descriptor table.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use peersock::{Event, IdentitySource, Interfaces, Network, Node, NodeBuilder};
use peersock_fd::{Client, Errno, Family, Kind, SocketFlags};
use peersock_socket_server::Host;
use rustix::event::PollFlags;

use crate::common::{overlay, poll, port};

const LINGER: Duration = Duration::from_secs(10);

#[test]
fn jobs_get_the_node_and_their_panics_come_back() {
    let host = Host::start(settings()).expect("a host");
    let id = host.run(|node| node.id()).expect("it runs");
    assert_eq!(host.run_apart(|node| node.id()).expect("it runs"), id);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| host.run(|_| panic!("no"))));
    assert!(panic.is_err());
    assert!(host.is_running());
    assert!(host.stop(LINGER));
    let error = host.run(|node| node.id()).expect_err("it has stopped");
    assert_eq!(error.raw_os_error(), Some(Errno::NETDOWN.raw_os_error()));
    assert!(!host.is_running());
}

#[test]
fn a_host_starts_again_in_the_same_state_directory_while_somebody_waits_for_a_peer() {
    let place = tempfile::tempdir().expect("a directory");
    let start = || Host::start(settings().identity(IdentitySource::StateDir(place.path().join("state"))));
    let first = start().expect("a host");
    let id = first.run(|node| node.id()).expect("it runs");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            first.run_apart(move |node| {
                let joined =
                    node.join(Network::ad_hoc(NETWORK.parse().expect("an ID"))).expect("a new network");
                let mut address = joined.address().octets();
                address[15] ^= 1;
                joined.wait_peer(IpAddr::from(address), Duration::from_secs(600))
            })
        });
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        first.stop(LINGER);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(start().expect("again").run(|node| node.id()).expect("it runs"), id);
        let waited = waiting.join().expect("no panic").expect("it has run");
        assert_eq!(waited.expect_err("nobody is there").kind(), std::io::ErrorKind::NetworkDown);
    });
}

#[test]
fn stopping_delivers_what_was_written() {
    let (a, b) = (Host::start(settings()).expect("a host"), Host::start(settings()).expect("a host"));
    let (sender, mut receiver) = connection(&a, &b);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        receiver.read_to_end(&mut all).expect("it ends in order");
        all.len()
    });
    std::fs::File::from(sender).write_all(&vec![7; 4 << 20]).expect("it is taken");
    assert!(a.stop(LINGER));
    assert_eq!(reader.join().expect("no panic"), 4 << 20);
}

#[test]
fn stopping_resets_what_is_open_and_finishing_ends_it() {
    for exits in [false, true] {
        let (a, b) = (Host::start(settings()).expect("a host"), Host::start(settings()).expect("a host"));
        let (sender, mut receiver) = connection(&a, &b);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            let end = receiver.read_to_end(&mut all).map(drop).map_err(|error| error.kind());
            (all.len(), end)
        });
        rustix::net::send(&sender, &[7; 100_000], rustix::net::SendFlags::empty()).expect("it is taken");
        assert!(if exits { a.finish(Some(LINGER)).is_none() } else { a.stop(LINGER) });
        let end = if exits { Ok(()) } else { Err(std::io::ErrorKind::ConnectionReset) };
        assert_eq!(reader.join().expect("no panic"), (100_000, end));
        if !exits {
            let told = rustix::net::recv(&sender, &mut [0; 1][..], rustix::net::RecvFlags::empty());
            assert_eq!(told.expect_err("the node is gone"), Errno::CONNRESET);
        }
    }
}

/// Data written before the end has begun counts, even if a thread writes on, faster than the peer reads.
#[test]
fn a_thread_that_writes_on_keeps_no_end_waiting() {
    for exits in [true, false] {
        let (a, b) = (Host::start(settings()).expect("a host"), Host::start(settings()).expect("a host"));
        let (sender, mut receiver) = connection(&a, &b);
        let written = AtomicUsize::new(0);
        let wait_for_much = || {
            while written.load(Ordering::SeqCst) < 4 << 20 {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let flags = rustix::net::SendFlags::NOSIGNAL;
                while let Ok(sent) = rustix::net::send(&sender, &[7; 50_000], flags) {
                    written.fetch_add(sent, Ordering::SeqCst);
                }
            });
            let reader = scope.spawn(|| {
                wait_for_much();
                let (mut all, mut buf) = (0, vec![0; 1 << 14]);
                loop {
                    match receiver.read(&mut buf) {
                        Ok(0) => return (all, Ok(())),
                        Ok(length) => all += length,
                        Err(error) => return (all, Err(error.kind())),
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            wait_for_much();
            let before = written.load(Ordering::SeqCst);
            let wait = Duration::from_secs(30);
            assert!(if exits { a.finish(Some(wait)).is_none() } else { a.stop(wait) }, "exits: {exits}");
            let (all, end) = reader.join().expect("no panic");
            assert!(all >= before, "{all} of {before} bytes");
            assert_eq!(end, if exits { Ok(()) } else { Err(std::io::ErrorKind::ConnectionReset) });
            // The writer gets an error in the end.
            writer.join().expect("no panic");
        });
    }
}

/// Reads to the end. Returns the number of bytes, and the kind of the end.
fn end_of(mut receiver: std::fs::File) -> (usize, Result<(), std::io::ErrorKind>) {
    let mut all = Vec::new();
    let end = receiver.read_to_end(&mut all).map(drop).map_err(|error| error.kind());
    (all.len(), end)
}

#[test]
fn what_a_process_has_that_is_no_child_any_more_is_reset_at_the_exit() {
    let (a, b) = (Host::start(settings()).expect("a host"), Host::start(settings()).expect("a host"));
    let (sender, receiver) = connection(&a, &b);
    rustix::net::send(&sender, &[7; 1000], rustix::net::SendFlags::empty()).expect("it is taken");
    // Its parent ends, and init adopts it.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec 3<&0; sleep 600 <&3 >&- 2>&- & echo $!"])
        .stdin(sender.try_clone().expect("a copy"));
    let orphan = String::from_utf8(shell.output().expect("a shell").stdout).expect("a number");
    let lost = a.finish(Some(LINGER));
    let killed = Command::new("kill").arg(orphan.trim()).status().expect("kill(1)");
    assert!(killed.success());
    assert_eq!(lost, None);
    assert_eq!(end_of(receiver), (1000, Err(std::io::ErrorKind::ConnectionReset)));
    drop(sender);
}

#[test]
#[expect(unsafe_code, reason = "a child that was forked and has executed nothing yet is made so only")]
fn what_a_child_has_until_it_executes_another_program_ends_in_order() {
    let (a, b) = (Host::start(settings()).expect("a host"), Host::start(settings()).expect("a host"));
    let (sender, receiver) = connection(&a, &b);
    rustix::io::fcntl_setfd(&sender, rustix::io::FdFlags::CLOEXEC).expect("a flag");
    rustix::net::send(&sender, &[7; 1000], rustix::net::SendFlags::empty()).expect("it is taken");
    let pipe = || std::io::pipe().expect("a pipe");
    let ((may_go, go), (mut is_there, there)) = (pipe(), pipe());
    std::thread::scope(|scope| {
        let child = scope.spawn(move || {
            let mut command = Command::new("sleep");
            let wait = move || {
                rustix::io::write(&there, &[0])?;
                rustix::io::read(&may_go, &mut [0; 1]).map(drop).map_err(std::io::Error::from)
            };
            // SAFETY: the closure makes two system calls.
            unsafe { command.arg("600").pre_exec(wait) };
            command.spawn().expect("sleep(1)")
        });
        is_there.read_exact(&mut [0]).expect("the child");
        let goes = scope.spawn(move || {
            // Lets the exit look first, which only makes it harder.
            std::thread::sleep(Duration::from_millis(20));
            (&go).write_all(&[0]).expect("the child waits");
        });
        assert!(a.finish(Some(LINGER)).is_none());
        goes.join().expect("no panic");
        let mut child = child.join().expect("no panic");
        let end = end_of(receiver);
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        assert_eq!(end, (1000, Ok(())));
    });
    drop(sender);
}

#[test]
fn what_waits_when_the_host_stops_and_what_comes_later_is_told_that_it_is_down() {
    let host = Host::start(settings()).expect("a host");
    let address = join(&host);
    let client = Client::new(host.tag(), host.token());
    let open = |kind, flags| peersock_fd::open(&client, Family::V6, kind, flags).expect("a socket");
    for flags in [SocketFlags::empty(), SocketFlags::NONBLOCK] {
        let (listener, own) = (open(Kind::Stream, flags), open(Kind::Datagram, flags));
        for socket in [&listener, &own] {
            overlay(socket).bind((address, 0).into()).expect("a free port");
        }
        overlay(&listener).listen(1).expect("it listens");
        let calls = || {
            let accepted = overlay(&listener).accept(SocketFlags::empty()).map(drop);
            let mut buf = [0];
            let pieces = &mut [std::io::IoSliceMut::new(&mut buf)];
            let received = overlay(&own).recv_from(pieces, peersock_fd::RecvFlags::empty()).map(drop);
            [accepted, received]
        };
        if flags.is_empty() {
            std::thread::scope(|scope| {
                let waiting = scope.spawn(calls);
                std::thread::sleep(Duration::from_millis(200));
                let left = host.run(|node| node.leave(NETWORK.parse().expect("an ID"))).expect("it runs");
                assert!(left);
                assert_eq!(waiting.join().expect("no panic"), [Err(Errno::NETDOWN); 2]);
            });
            assert_eq!(join(&host), address);
        } else {
            assert_eq!(calls(), [Err(Errno::AGAIN); 2]);
            host.stop(LINGER);
        }
        for _ in 0..3 {
            assert_eq!(calls(), [Err(Errno::NETDOWN); 2]);
        }
    }
}

#[test]
fn events_are_read_from_a_descriptor_until_the_node_stops() {
    let (a, b) = (Host::start(settings()).expect("a host"), Host::start(settings()).expect("a host"));
    let encode = |event: &Event| match event {
        Event::PeerReachable { id, .. } => id.to_string().into_bytes(),
        _ => b"other".to_vec(),
    };
    let events = a.event_socket(encode).expect("a socket");
    let address = join(&b);
    join(&a);
    let wait = move |node: &Node| node.networks()[0].wait_peer(address.into(), LINGER);
    a.run_apart(wait).expect("it runs").expect("they find each other");
    let id = b.run(|node| node.id().to_string()).expect("it runs");
    let mut buf = [0; 100];
    loop {
        assert_eq!(poll(&events, PollFlags::IN), PollFlags::IN);
        let length = rustix::io::read(&events, &mut buf).expect("it is readable");
        if &buf[..length] == id.as_bytes() {
            break;
        }
        assert_eq!(&buf[..length], b"other");
    }
    a.stop(LINGER);
    while rustix::io::read(&events, &mut buf).expect("its end") > 0 {}
    // It is the caller's: its number refers to this socket here.
    assert!(rustix::fs::fstat(events.as_fd()).is_ok() && events.as_raw_fd() > 2);
}

const NETWORK: &str = "ff0001ffff000000";

fn settings() -> NodeBuilder {
    Node::builder()
        .identity(IdentitySource::Ephemeral)
        .interfaces(Interfaces::Loopback)
        .discovery_port(port())
}

fn join(host: &Host) -> std::net::Ipv6Addr {
    let network = Network::ad_hoc(NETWORK.parse().expect("an ID"));
    host.run(|node| node.join(network).expect("a new network").address()).expect("it runs")
}

/// Returns a stream from the first host to the second, by its two ends.
fn connection(a: &Host, b: &Host) -> (OwnedFd, std::fs::File) {
    let address = join(b);
    join(a);
    let (client, server) = (Client::new(a.tag(), a.token()), Client::new(b.tag(), b.token()));
    let open = |client| peersock_fd::open(client, Family::V6, Kind::Stream, SocketFlags::empty());
    let (listener, sender) = (open(&server).expect("a socket"), open(&client).expect("a socket"));
    overlay(&listener).bind((address, 7000).into()).expect("a free port");
    overlay(&listener).listen(1).expect("it listens");
    overlay(&sender).connect(Some((address, 7000).into())).expect("somebody listens");
    let (receiver, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    (sender, std::fs::File::from(receiver))
}
