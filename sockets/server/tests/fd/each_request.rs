//! Programs that use each kind of request, with signals, forks and other calls at each of their system calls;
//! see `requests`. The same programs run with kernel sockets for comparison.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Kind, Reply, Request, SendFlags, Shutdown, SocketFlags, SocketId, Which};
use rustix::event::PollFlags;
use rustix::io::retry_on_intr;

use crate::c_calls::{close, get, leave_network, receive_with, send_with, set, set_linger, unacknowledged};
use crate::child::Child;
use crate::common::{Served, overlay, poll};
use crate::requests::{FORKS, SIGNALS, is_the_same, is_the_same_by};
use crate::tracer::{Again, Signals, Steps, is_allowed, trace_anew, use_all};
use crate::world::World;

/// A program, with the address at which it may bind.
type Program = fn(&World, Ipv6Addr) -> Result<String, Errno>;

/// Runs a program again and again, with a pause before each run.
struct Runs(World, Ipv6Addr, Program, Duration);

impl Steps for Runs {
    type Prepared = ();

    fn prepare(&mut self) {
        sleep(self.3);
    }

    fn interrupted(&mut self, (): &mut ()) -> String {
        let Self(world, ip, program, _) = self;
        program(world, *ip).unwrap_or_else(|error| error.to_string())
    }

    fn after(&mut self, (): ()) -> String {
        String::new()
    }

    fn again(&self) -> Option<Again> {
        Some(Box::new(use_all))
    }
}

/// All disturbances.
fn all() -> Vec<Signals> {
    [&SIGNALS[..], &others()].concat()
}

/// Forked children and other calls. Tests of long programs separate these from [`SIGNALS`].
fn others() -> Vec<Signals> {
    [&FORKS[..], &[Signals::Again]].concat()
}

/// Checks that a program sees the same in both worlds, whatever disturbs it.
fn check(test: &str, program: Program, wanted: &str) {
    check_with(test, &all(), program, wanted);
}

fn check_with(test: &str, all: &[Signals], program: Program, wanted: &str) {
    if !is_allowed(test) {
        return;
    }
    let served = Served::new("ff0001ffff000000");
    is_the_same(test, all, |is_overlay| runs(&served, is_overlay, program), &format!("{wanted}; "));
}

fn runs(served: &Served, is_overlay: bool, program: Program) -> Runs {
    let (world, ip) = match is_overlay {
        true => (World::Overlays(Arc::clone(&served.client)), served.network.address()),
        false => (World::Kernels, Ipv6Addr::LOCALHOST),
    };
    Runs(world, ip, program, Duration::ZERO)
}

/// Returns a listener and its address.
fn listen(world: &World, ip: Ipv6Addr) -> Result<(OwnedFd, SocketAddr), Errno> {
    let listener = world.open(Kind::Stream, SocketFlags::empty());
    let address = world.bind_privately(&listener, ip)?;
    world.listen(&listener)?;
    Ok((listener, address))
}

/// Returns both ends of a connection to a listener.
fn connect(world: &World, listener: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Errno> {
    let client = world.open(Kind::Stream, SocketFlags::empty());
    world.connect_and_wait(&client, world.local(listener)?)?;
    Ok((client, retry_on_intr(|| world.accept(listener))?))
}

fn send(fd: &OwnedFd, text: &str) -> Result<(), Errno> {
    let sent = retry_on_intr(|| rustix::net::send(fd, text.as_bytes(), SendFlags::NOSIGNAL))?;
    assert_eq!(sent, text.len());
    Ok(())
}

/// Returns two UDP sockets that do not wait, and their addresses.
fn datagrams(world: &World, ip: Ipv6Addr) -> Result<[(OwnedFd, SocketAddr); 2], Errno> {
    let one = || {
        let fd = world.open(Kind::Datagram, SocketFlags::NONBLOCK);
        let address = world.bind(&fd, ip)?;
        Ok((fd, address))
    };
    Ok([one()?, one()?])
}

fn send_to(world: &World, fd: &OwnedFd, text: &str, to: Option<SocketAddr>) -> Result<(), Errno> {
    let sent = retry_on_intr(|| world.send_to(fd, text.as_bytes(), to))?;
    assert_eq!(sent, text.len());
    Ok(())
}

/// Returns the next datagram, once it has come, and its sender. A socket that is shut down is always
/// readable.
fn next(world: &World, fd: &OwnedFd) -> Result<(String, Option<SocketAddr>), Errno> {
    let begun = Instant::now();
    loop {
        let mut buf = [0; 100];
        match retry_on_intr(|| world.receive_from(fd, &mut buf)) {
            Ok((0, _)) | Err(Errno::AGAIN) if begun.elapsed() < Duration::from_secs(10) => {
                sleep(Duration::from_micros(300));
            }
            received => {
                let (length, from) = received?;
                return Ok((String::from_utf8_lossy(&buf[..length]).into_owned(), from));
            }
        }
    }
}

/// Returns an address where no program listens: that of a service which no machine has any more. The port of
/// a socket that was closed would do, but forked children keep copies of such a socket.
fn nobody(ip: Ipv6Addr) -> SocketAddr {
    SocketAddr::new(ip.into(), 9)
}

#[test]
pub(crate) fn options_are_what_was_set() {
    check("options_are_what_was_set", options, "Ok(1) Ok(1) Ok(33) Ok(8)");
}

fn options(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let (listener, _) = listen(world, ip)?;
    set(&listener, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 33)?;
    let client = world.open(Kind::Stream, SocketFlags::empty());
    set(&client, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    world.connect_and_wait(&client, world.local(&listener)?)?;
    let server = retry_on_intr(|| world.accept(&listener))?;
    set(&client, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set(&client, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 8)?;
    let keepalive = get(&client, libc::SOL_SOCKET, libc::SO_KEEPALIVE);
    let no_delay = get(&client, libc::IPPROTO_TCP, libc::TCP_NODELAY);
    let inherited = get(&server, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE);
    let class = get(&client, libc::IPPROTO_IPV6, libc::IPV6_TCLASS);
    Ok(format!("{keepalive:?} {no_delay:?} {inherited:?} {class:?}"))
}

#[test]
pub(crate) fn a_connection_that_is_dissolved_may_connect_again() {
    let wanted = format!("{} first, then again", Errno::CONNRESET);
    check_with("a_connection_that_is_dissolved_may_connect_again", &SIGNALS, dissolved, &wanted);
}

#[test]
fn others_do_not_disturb_a_connection_that_is_dissolved() {
    let wanted = format!("{} first, then again", Errno::CONNRESET);
    check_with("others_do_not_disturb_a_connection_that_is_dissolved", &others(), dissolved, &wanted);
}

fn dissolved(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let (listener, address) = listen(world, ip)?;
    let (client, server) = connect(world, &listener)?;
    send(&server, "lost")?;
    world.dissolve(&client)?;
    let told = world.receive(&server).map_or_else(|error| error.to_string(), |got| format!("{got:?}"));
    world.connect_and_wait(&client, address)?;
    let server = retry_on_intr(|| world.accept(&listener))?;
    send(&client, "again")?;
    Ok(format!("{told} first, then {}", world.receive(&server)?))
}

#[test]
fn a_datagram_socket_that_is_dissolved_hears_everybody() {
    let wanted = format!("one; peer {}; all, and back", Errno::NOTCONN);
    check("a_datagram_socket_that_is_dissolved_hears_everybody", dissolved_datagrams, &wanted);
}

fn dissolved_datagrams(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let [(one, one_address), (other, other_address)] = datagrams(world, ip)?;
    let client = world.open(Kind::Datagram, SocketFlags::NONBLOCK);
    world.bind(&client, ip)?;
    world.connect_and_wait(&client, one_address)?;
    send_to(world, &client, "one", None)?;
    let (first, _) = next(world, &one)?;
    world.dissolve(&client)?;
    let peer = world.peer(&client).map_or_else(|error| error.to_string(), |peer| peer.to_string());
    send_to(world, &client, "all", Some(other_address))?;
    let (second, from) = next(world, &other)?;
    assert_eq!(from, world.local(&client).ok());
    send_to(world, &one, "and back", from)?;
    let (third, by) = next(world, &client)?;
    assert_eq!(by, Some(one_address));
    Ok(format!("{first}; peer {peer}; {second}, {third}"))
}

#[test]
fn a_datagram_socket_that_is_shut_for_reading_connects_and_receives_again() {
    let test = "a_datagram_socket_that_is_shut_for_reading_connects_and_receives_again";
    check(test, shut_for_reading, "there, and back, and on");
}

fn shut_for_reading(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let [(client, own), (server, remote)] = datagrams(world, ip)?;
    world.connect_and_wait(&client, remote)?;
    world.shut(&client, Shutdown::Read)?;
    world.connect_and_wait(&client, remote)?;
    assert_eq!((world.local(&client), world.peer(&client)), (Ok(own), Ok(remote)));
    send_to(world, &client, "there", None)?;
    let (there, from) = next(world, &server)?;
    send_to(world, &server, "and back", from)?;
    let (back, _) = next(world, &client)?;
    send_to(world, &server, "and on", from)?;
    Ok(format!("{there}, {back}, {}", next(world, &client)?.0))
}

#[test]
pub(crate) fn a_listener_that_is_shut_down_listens_again() {
    let wanted = format!("first, {}, second", Errno::CONNREFUSED);
    check_with("a_listener_that_is_shut_down_listens_again", &SIGNALS, listens_again, &wanted);
}

#[test]
fn others_do_not_disturb_a_listener_that_listens_again() {
    let wanted = format!("first, {}, second", Errno::CONNREFUSED);
    check_with("others_do_not_disturb_a_listener_that_listens_again", &others(), listens_again, &wanted);
}

fn listens_again(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let (listener, address) = listen(world, ip)?;
    let (client, server) = connect(world, &listener)?;
    send(&client, "first")?;
    let first = world.receive(&server)?;
    world.shut(&listener, Shutdown::Read)?;
    let refused = world.open(Kind::Stream, SocketFlags::empty());
    let refused =
        world.connect_and_wait(&refused, address).map_or_else(|error| error.to_string(), |()| "none".into());
    world.listen(&listener)?;
    let (client, server) = connect(world, &listener)?;
    send(&client, "second")?;
    Ok(format!("{first}, {refused}, {}", world.receive(&server)?))
}

#[test]
pub(crate) fn a_listener_that_is_shut_down_refuses() {
    let wanted = format!("before, {}, {}", Errno::INVAL, Errno::CONNREFUSED);
    check("a_listener_that_is_shut_down_refuses", ends_listening, &wanted);
}

fn ends_listening(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let (listener, address) = listen(world, ip)?;
    if let World::Overlays(client) = world {
        // A copy of the descriptor was closed.
        client.ask(Request::Closed(overlay(&listener).opened()))?;
    }
    let (client, server) = connect(world, &listener)?;
    send(&client, "before")?;
    let before = world.receive(&server)?;
    world.shut_for_good(&listener)?;
    let accepted = world.accept(&listener).map_or_else(|error| error.to_string(), |_| "a connection".into());
    let refused = world.open(Kind::Stream, SocketFlags::empty());
    let refused =
        world.connect_and_wait(&refused, address).map_or_else(|error| error.to_string(), |()| "none".into());
    Ok(format!("{before}, {accepted}, {refused}"))
}

#[test]
pub(crate) fn a_closed_stream_has_delivered_wherever_signals_come() {
    check("a_closed_stream_has_delivered_wherever_signals_come", closes_lingering, "all, and the end");
}

fn closes_lingering(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let (listener, _) = listen(world, ip)?;
    let (client, server) = connect(world, &listener)?;
    set_linger(&client, 20)?;
    send(&client, "all")?;
    while unacknowledged(&client)? > 0 {
        sleep(Duration::from_micros(300));
    }
    // A signal ends the wait for the peer, and the descriptor is closed all the same.
    match close(client) {
        Ok(()) | Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    let (all, end) = (world.receive(&server)?, world.receive(&server)?);
    Ok(format!("{all}, and {}", if end.is_empty() { "the end" } else { &end }))
}

#[test]
pub(crate) fn an_attempt_is_ended_wherever_signals_come() {
    let wanted = format!("Err(INPROGRESS), ended, {}, then nothing", Errno::CONNRESET);
    check("an_attempt_is_ended_wherever_signals_come", ends_attempt, &wanted);
}

fn ends_attempt(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let (silent, _kept) = world.silent(ip)?;
    let fd = world.open(Kind::Stream, SocketFlags::NONBLOCK);
    let begun = match world.connect(&fd, silent) {
        Err(Errno::INPROGRESS) => "Err(INPROGRESS)".into(),
        other => format!("{other:?}"),
    };
    world.shut(&fd, Shutdown::Both)?;
    let told = world.take_error(&fd).map_or_else(|error| error.to_string(), |()| "nothing".into());
    let later = world.take_error(&fd).map_or_else(|error| error.to_string(), |()| "nothing".into());
    Ok(format!("{begun}, ended, {told}, then {later}"))
}

#[test]
pub(crate) fn closing_with_unread_data_is_a_reset_after_the_end_of_both_directions() {
    let test = "closing_with_unread_data_is_a_reset_after_the_end_of_both_directions";
    check(test, leaves_data_unread, &format!("the end, then {}", Errno::PIPE));
}

fn leaves_data_unread(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let (listener, _) = listen(world, ip)?;
    let (client, server) = connect(world, &listener)?;
    send(&client, "unread")?;
    let begun = Instant::now();
    while rustix::io::ioctl_fionread(&server)? == 0 && begun.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_micros(300));
    }
    world.shut(&server, Shutdown::Both)?;
    let end = world.receive(&client)?;
    drop(server);
    loop {
        match world.take_error(&client) {
            Ok(()) if begun.elapsed() < Duration::from_secs(10) => sleep(Duration::from_micros(300)),
            told => {
                let told = told.map_or_else(|error| error.to_string(), |()| "nothing".into());
                return Ok(format!("{}, then {told}", if end.is_empty() { "the end" } else { &end }));
            }
        }
    }
}

#[test]
pub(crate) fn a_listener_on_both_networks_accepts_from_both() {
    let test = "a_listener_on_both_networks_accepts_from_both";
    check(test, both_networks, "near, far, near and far datagrams, and back");
}

fn both_networks(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let (listener, far) = listen(world, ip)?;
    let near = world.put_on_both(&listener, Kind::Stream)?;
    let mut came = Vec::new();
    for (from, to, text) in [(&World::Kernels, near, "near"), (world, far, "far")] {
        let client = from.open(Kind::Stream, SocketFlags::empty());
        from.connect_and_wait(&client, to)?;
        send(&client, text)?;
        let server = retry_on_intr(|| world.accept(&listener))?;
        // A connection of the machine's network is the kernel's own.
        came.push(from.receive(&server)?);
    }
    drop(listener);
    if let World::Overlays(client) = world {
        client.ask(Request::Vacate(far.port()))?;
    }
    let [(socket, far), (other, _)] = datagrams(world, ip)?;
    let near = world.put_on_both(&socket, Kind::Datagram)?;
    let neighbour = World::Kernels.open(Kind::Datagram, SocketFlags::NONBLOCK);
    World::Kernels.bind(&neighbour, Ipv6Addr::LOCALHOST)?;
    send_to(&World::Kernels, &neighbour, "near", Some(near))?;
    let (first, from) = next(world, &socket)?;
    send_to(world, &other, "far datagrams", Some(far))?;
    let (second, _) = next(world, &socket)?;
    send_to(world, &socket, "and back", from)?;
    let (back, _) = next(&World::Kernels, &neighbour)?;
    Ok(format!("{}, {first} and {second}, {back}", came.join(", ")))
}

#[test]
pub(crate) fn an_error_is_kept_for_the_next_call() {
    let wanted = format!("{}, then {}", Errno::CONNREFUSED, Errno::AGAIN);
    check("an_error_is_kept_for_the_next_call", keeps_error, &wanted);
}

fn keeps_error(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let client = world.open(Kind::Datagram, SocketFlags::NONBLOCK);
    match world {
        World::Overlays(_) => {
            // Somebody is there, so only the call's own error can be seen.
            let [(_held, address), _] = datagrams(world, ip)?;
            world.connect_and_wait(&client, address)?;
            overlay(&client).keep_error(Errno::CONNREFUSED);
        }
        World::Kernels => {
            world.connect_and_wait(&client, nobody(ip))?;
            send_to(world, &client, "anybody?", None)?;
        }
    }
    assert!(poll(&client, PollFlags::IN).contains(PollFlags::ERR), "no error");
    let [first, then] = [(); 2].map(|()| {
        retry_on_intr(|| world.receive_from(&client, &mut [0]))
            .map_or_else(|error| error.to_string(), |_| "data".into())
    });
    Ok(format!("{first}, then {then}"))
}

#[test]
pub(crate) fn errors_of_datagrams_are_reported_once() {
    let wanted =
        format!("{}: origin 3, type 1, code 4 of anybody?; then {}", libc::ECONNREFUSED, Errno::AGAIN);
    let test = "errors_of_datagrams_are_reported_once";
    if !is_allowed(test) {
        return;
    }
    let served = Served::new("ff0001ffff000000");
    // A node sends ten ICMP errors a second to one peer.
    let steps = |is_overlay| {
        let Runs(world, ip, program, _) = runs(&served, is_overlay, reports);
        Runs(world, ip, program, Duration::from_millis(if is_overlay { 105 } else { 0 }))
    };
    is_the_same(test, &[Signals::One, Signals::Storm, Signals::Again], steps, &format!("{wanted}; "));
}

fn reports(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let client = world.open(Kind::Datagram, SocketFlags::NONBLOCK);
    set(&client, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    world.connect_and_wait(&client, nobody(ip))?;
    send_to(world, &client, "anybody?", None)?;
    assert!(poll(&client, PollFlags::IN).contains(PollFlags::ERR), "no error");
    let (quoted, control) = receive_with(&client, libc::MSG_ERRQUEUE)?;
    let report = control.iter().find(|(.., name, _)| *name == libc::IPV6_RECVERR).expect("a report");
    let [a, b, c, d, origin, kind, code, ..] = report.2[..] else { panic!("a short report") };
    let errno = i32::from_ne_bytes([a, b, c, d]);
    let then =
        receive_with(&client, libc::MSG_ERRQUEUE).map_or_else(|error| error.to_string(), |_| "more".into());
    let quoted = String::from_utf8_lossy(&quoted).into_owned();
    Ok(format!("{errno}: origin {origin}, type {kind}, code {code} of {quoted}; then {then}"))
}

#[test]
pub(crate) fn what_is_asked_of_one_datagram_arrives() {
    let wanted = "limit 7 of hops, options [85, 0, 30, 4, 1, 2, 3, 4] of options, 1300 bytes whole";
    check("what_is_asked_of_one_datagram_arrives", details, wanted);
}

fn details(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let [(server, remote), (client, _)] = datagrams(world, ip)?;
    for name in [libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVDSTOPTS] {
        set(&server, libc::IPPROTO_IPV6, name, 1)?;
    }
    let came = |kind| {
        poll(&server, PollFlags::IN);
        let (data, control) = retry_on_intr(|| receive_with(&server, libc::MSG_DONTWAIT))?;
        let value = control.into_iter().find(|(.., name, _)| *name == kind).map(|(.., value)| value);
        Ok((data, value.unwrap_or_default()))
    };
    let hops = (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, 7i32.to_ne_bytes().to_vec());
    retry_on_intr(|| send_with(&client, b"hops", remote, &hops))?;
    let (first, limit) = came(libc::IPV6_HOPLIMIT)?;
    let limit = i32::from_ne_bytes(limit[..].try_into().expect("an int"));
    // An option that hosts pass over; the kernel fills in the next header, which receivers see as 17.
    let header = (libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, vec![0x55, 0, 0x1e, 4, 1, 2, 3, 4]);
    retry_on_intr(|| send_with(&client, b"options", remote, &header))?;
    let (second, mut options) = came(libc::IPV6_DSTOPTS)?;
    options[0] = 0x55;
    set(&client, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)?;
    retry_on_intr(|| send_with(&client, &[b'x'; 1300], remote, &hops))?;
    let (whole, _) = came(libc::IPV6_HOPLIMIT)?;
    let [first, second] = [first, second].map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok(format!("limit {limit} of {first}, options {options:?} of {second}, {} bytes whole", whole.len()))
}

#[test]
pub(crate) fn raw_packets_come_wherever_signals_come() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!(
            "SKIP raw_packets_come_wherever_signals_come: only root opens raw sockets of the kernel"
        );
    }
    check("raw_packets_come_wherever_signals_come", raw, "raw");
}

fn raw(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    // A protocol for experiments (RFC 3692).
    let [server, client] = [(); 2].map(|()| world.open(Kind::Raw(253), SocketFlags::NONBLOCK));
    send_to(world, &client, "raw", Some(SocketAddr::new(ip.into(), 0)))?;
    Ok(next(world, &server)?.0)
}

#[test]
pub(crate) fn questions_are_answered_wherever_signals_come() {
    let test = "questions_are_answered_wherever_signals_come";
    if !is_allowed(test) {
        return;
    }
    let served = Served::new("ff0001ffff000000");
    let world = World::Overlays(Arc::clone(&served.client));
    let wanted = questions(&world, served.network.address()).expect("answers");
    // The kernel has no such questions.
    let steps = |_| runs(&served, true, questions);
    is_the_same(test, &all(), steps, &format!("{wanted}; "));
}

fn questions(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let World::Overlays(client) = world else { return Err(Errno::NOSYS) };
    let mut answers = Vec::new();
    for request in [
        Request::Routes,
        Request::Resolve("nobody".into()),
        Request::NameOf(ip.into()),
        Request::Interfaces,
        Request::HasSecret(0xff00_01ff_ff00_0000),
        Request::MayListen(80),
        Request::WhyBroken(Which::Accepted(SocketId::new(1))),
    ] {
        answers.push(client.ask(request)?);
    }
    assert!(matches!(answers[4], Reply::HasSecret(Some(false))), "{:?}", answers[4]);
    Ok(format!("{answers:?}"))
}

#[test]
pub(crate) fn a_new_process_is_served_wherever_signals_come() {
    let test = "a_new_process_is_served_wherever_signals_come";
    if !is_allowed(test) {
        return;
    }
    let served = Served::new("ff0001ffff000000");
    let trace = |signals, is_overlay| trace_anew(signals, runs(&served, is_overlay, exchanges));
    is_the_same_by(test, &all(), trace, "stream, datagram; ");
}

fn exchanges(world: &World, ip: Ipv6Addr) -> Result<String, Errno> {
    let (listener, _) = listen(world, ip)?;
    let (client, server) = connect(world, &listener)?;
    send(&client, "stream")?;
    let first = world.receive(&server)?;
    let [(client, _), (server, remote)] = datagrams(world, ip)?;
    send_to(world, &client, "datagram", Some(remote))?;
    Ok(format!("{first}, {}", next(world, &server)?.0))
}

/// A connection that a child has from its parent, in a network namespace without the node's name.
struct Confined(World, OwnedFd, OwnedFd);

impl Steps for Confined {
    type Prepared = ();

    fn prepare(&mut self) {
        leave_network().expect("it was allowed before");
    }

    fn interrupted(&mut self, (): &mut ()) -> String {
        self.ask().unwrap_or_else(|error| error.to_string())
    }

    fn after(&mut self, (): ()) -> String {
        String::new()
    }

    fn again(&self) -> Option<Again> {
        Some(Box::new(use_all))
    }
}

impl Confined {
    fn ask(&self) -> Result<String, Errno> {
        let Self(world, client, server) = self;
        set(client, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        let no_delay = get(client, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
        let is_other = world.peer(client)? == world.local(server)?;
        send(client, "confined")?;
        Ok(format!("{no_delay}, {is_other}, {}", world.receive(server)?))
    }
}

#[test]
pub(crate) fn a_child_of_another_network_asks_through_its_parent() {
    let test = "a_child_of_another_network_asks_through_its_parent";
    if Child::new(|| leave_network().expect("it is allowed")).wait() != 0 {
        return eprintln!("SKIP {test}: this process may not make a network namespace");
    }
    if !is_allowed(test) {
        return;
    }
    let served = Served::new("ff0001ffff000000");
    let confined = |is_overlay| {
        let Runs(world, ip, ..) = runs(&served, is_overlay, exchanges);
        let (listener, _) = listen(&world, ip).expect("it listens");
        let (client, server) = connect(&world, &listener).expect("somebody listens");
        Confined(world, client, server)
    };
    let trace = |signals, is_overlay| trace_anew(signals, confined(is_overlay));
    is_the_same_by(test, &all(), trace, "1, true, confined; ");
}
