//! SO_LINGER with a time.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use peersock::Event;
use peersock_fd::{Errno, SocketFlags};
use rustix::net::Shutdown;

use crate::common::{Served, get_bytes, overlay, set_bytes};

const DATA_BYTES: usize = 300_000;

fn set_linger(fd: &OwnedFd, seconds: i32) {
    let value = [1i32.to_ne_bytes(), seconds.to_ne_bytes()].concat();
    set_bytes(fd, libc::SOL_SOCKET, libc::SO_LINGER, &value).expect("an option");
}

/// Closes as the libraries do, and returns the duration.
fn close(fd: OwnedFd) -> Duration {
    close_and_ask(fd).0
}

/// Does the same, and also returns the result of closing.
fn close_and_ask(fd: OwnedFd) -> (Duration, Result<(), Errno>) {
    let socket = overlay(&fd);
    let (client, which) = (socket.client(), socket.which());
    let time = socket.linger().expect("it lingers");
    let began = Instant::now();
    let ((), delivered) = client.close_lingering(which, time, || drop(fd));
    (began.elapsed(), delivered)
}

/// Returns the room that the peer has told, `tcpi_snd_wnd` of TCP_INFO.
fn peer_window(fd: &OwnedFd) -> u32 {
    let info = get_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO).expect("a structure");
    u32::from_ne_bytes(*info.last_chunk().expect("its last field"))
}

/// Writes as much as possible without a reader. A peer on a busy machine may take nothing for a while though
/// it has room, and all of it later, so only a peer without room counts.
fn fill(fd: &OwnedFd) {
    rustix::io::ioctl_fionbio(fd, true).expect("a flag");
    let until = Instant::now() + Duration::from_secs(60);
    let mut quiet = 0;
    while quiet < 20 {
        assert!(Instant::now() < until, "the peer has room: {}", peer_window(fd));
        match rustix::io::write(fd, &[7; 65_536]) {
            Ok(_) => quiet = 0,
            Err(_) => {
                quiet = if peer_window(fd) == 0 { quiet + 1 } else { 0 };
                std::thread::sleep(Duration::from_millis(25));
            }
        }
    }
}

#[test]
fn what_was_written_has_arrived_when_closing_returns() {
    let (a, b) = Served::pair();
    let (client, mut server) = a.connect(&b);
    let fd = OwnedFd::from(client);
    set_linger(&fd, 60);
    File::from(fd.try_clone().expect("a copy")).write_all(&[7; DATA_BYTES]).expect("room");
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        server.read_to_end(&mut all).map(|_| all.len())
    });
    close(fd);
    a.node().shutdown(Duration::ZERO);
    assert_eq!(reader.join().expect("no panic").expect("no error"), DATA_BYTES);
}

#[test]
fn closing_waits_no_longer_than_it_should() {
    let (a, b) = Served::pair();
    let (client, server) = a.connect(&b);
    let fd = OwnedFd::from(client);
    set_linger(&fd, 1);
    fill(&fd);
    let took = close(fd);
    assert!((Duration::from_millis(990)..Duration::from_secs(30)).contains(&took), "{took:?}");
    drop(server);
}

#[test]
fn only_the_last_descriptor_waits() {
    let (a, b) = Served::pair();
    let (client, server) = a.connect(&b);
    let fd = OwnedFd::from(client);
    set_linger(&fd, 600);
    fill(&fd);
    let copy = fd.try_clone().expect("a copy");
    assert!(close(fd) < Duration::from_secs(60));
    assert_eq!(overlay(&copy).linger(), Some(Duration::from_secs(600)));
    drop((copy, server));
}

#[test]
fn a_socket_that_is_not_connected_does_not_wait_and_a_listener_s_connections_have_its_time() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    assert_eq!(overlay(&listener).linger(), None);
    set_linger(&listener, 600);
    let fd = a.socket(SocketFlags::empty());
    overlay(&fd).connect(Some(address)).expect("somebody listens");
    let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    assert_eq!(overlay(&accepted).linger(), Some(Duration::from_secs(600)));
    drop(fd);
    // Its peer is there to acknowledge.
    assert!(close(accepted) < Duration::from_secs(60));
    assert!(close(listener) < Duration::from_secs(60));
    let fresh = a.socket(SocketFlags::empty());
    set_linger(&fresh, 600);
    assert!(close(fresh) < Duration::from_secs(60));
}

/// Does what `peersock run` does at its end, for a program that ends as soon as it has connected. The node
/// may not have its descriptor yet.
#[test]
fn the_end_of_a_connection_that_was_closed_at_once_is_delivered() {
    for said in [&b""[..], b"hello"].repeat(10) {
        let (a, b) = Served::pair();
        let (listener, address) = b.listen(SocketFlags::empty());
        let fd = a.socket(SocketFlags::empty());
        overlay(&fd).connect(Some(address)).expect("somebody listens");
        rustix::io::write(&fd, said).expect("there is room");
        drop(fd);
        a.server.begin_drain();
        let until = Instant::now() + Duration::from_secs(20);
        while let left = a.server.undelivered()
            && (left.waiting > 0 || left.ends > 0)
        {
            assert!(Instant::now() < until, "{left:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        a.node().shutdown(Duration::ZERO);
        let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
        let mut come = Vec::new();
        File::from(accepted).read_to_end(&mut come).expect("its end, and not a reset");
        assert_eq!(come, said);
    }
}

/// Writes after the peer's end, and ends this direction, too.
fn write_last(client: &OwnedFd, write: impl Fn(&OwnedFd)) {
    assert_eq!(rustix::io::read(client, &mut [0; 1]), Ok(0));
    write(client);
    // A direct system call, as of programs without the library, whose shutdown waits for acknowledgements.
    rustix::net::shutdown(client, Shutdown::Write).expect("a socket");
}

fn write_late(fd: &OwnedFd) {
    rustix::io::write(fd, b"late").expect("room");
}

/// Waits until nothing waits for an acknowledgement (SIOCOUTQ), and returns the pending error (SO_ERROR).
fn told(client: &OwnedFd) -> Option<Errno> {
    let until = Instant::now() + Duration::from_secs(20);
    while overlay(client).outq().unwrap_or(0) > 0 {
        assert!(Instant::now() < until, "the data has an end");
        std::thread::sleep(Duration::from_millis(1));
    }
    overlay(client).take_error().expect("a socket")
}

/// The peer has closed before it gets anything. A program that has ended its direction last waits until its
/// data is acknowledged, and asks for the error.
#[test]
fn data_that_comes_after_the_peer_has_closed_is_an_error() {
    let (a, b) = Served::pair();
    for round in 0..20 {
        let (client, server) = a.connect(&b);
        let client = OwnedFd::from(client);
        drop(server);
        write_last(&client, write_late);
        let error = match round % 2 {
            0 => told(&client),
            _ => {
                set_linger(&client, 60);
                close_and_ask(client).1.err()
            }
        };
        assert!(matches!(error, Some(Errno::CONNRESET | Errno::PIPE)), "{error:?} in round {round}");
    }
}

/// Returns the number of resets that the node has received.
fn resets(served: &Served) -> u64 {
    let counters = served.node().status().counters;
    counters.get("tcp_resets_received").copied().expect("a counter")
}

/// The peer has acknowledged all data, and resets the connection while the end of this direction is on its
/// way.
#[test]
fn a_reset_that_comes_before_the_end_is_acknowledged_is_an_error() {
    let (a, b) = Served::pair();
    let mut resets_seen = 0;
    for round in 0..300 {
        let (client, server) = a.connect(&b);
        let client = OwnedFd::from(client);
        overlay(&server).shutdown(Shutdown::Write).expect("a connection");
        assert_eq!(rustix::io::read(&client, &mut [0; 1]), Ok(0));
        assert_eq!(rustix::io::write(&client, &[7; 5000]), Ok(5000));
        assert_eq!(told(&client), None, "all is acknowledged");
        let before = resets(&a);
        let closing = std::thread::spawn(move || drop(server));
        std::thread::sleep(Duration::from_micros(round % 10 * 20));
        rustix::net::shutdown(&client, Shutdown::Write).expect("a socket");
        let error = told(&client);
        closing.join().expect("no panic");
        // A peer that had received the end first acknowledges it, and sends no reset.
        if resets(&a) > before {
            resets_seen += 1;
            assert!(matches!(error, Some(Errno::CONNRESET | Errno::PIPE)), "{error:?} in round {round}");
        }
    }
    assert!(resets_seen > 0, "no reset has come before the end");
}

/// The kernel shows a descriptor whose directions have both ended like a closed one.
#[test]
fn a_program_that_has_shut_down_both_directions_is_told_of_a_reset() {
    let (a, b) = Served::pair();
    for round in 0..4 {
        let (client, server) = a.connect(&b);
        let client = OwnedFd::from(client);
        fill(&client);
        let waiting = overlay(&client).unacknowledged().expect("a connection");
        match round % 2 {
            0 => overlay(&client).shutdown(Shutdown::Both).expect("a connection"),
            _ => {
                overlay(&client).shutdown(Shutdown::Write).expect("a connection");
                overlay(&client).shutdown(Shutdown::Read).expect("a connection");
            }
        }
        assert_eq!(overlay(&client).outq(), Ok(waiting + 1), "in round {round}");
        if round < 2 {
            drop(server);
            assert!(matches!(told(&client), Some(Errno::CONNRESET | Errno::PIPE)), "in round {round}");
        } else {
            set_linger(&client, 1);
            assert_eq!(close_and_ask(client).1, Err(Errno::TIMEDOUT), "in round {round}");
        }
    }
}

/// Closing resets the connection as long as data is unread, also if both directions have ended before.
#[test]
fn a_peer_that_ends_both_directions_before_it_closes_has_read_nothing() {
    let (a, b) = Served::pair();
    for round in 0..60 {
        let (client, server) = a.connect(&b);
        let (client, server) = (OwnedFd::from(client), OwnedFd::from(server));
        rustix::io::write(&client, b"x").expect("room");
        let until = Instant::now() + Duration::from_secs(20);
        while rustix::io::ioctl_fionread(&server).expect("a socket") == 0 {
            assert!(Instant::now() < until, "it arrives");
            std::thread::sleep(Duration::from_millis(1));
        }
        match round % 3 {
            0 => overlay(&server).shutdown(Shutdown::Both).expect("a connection"),
            _ => {
                let [first, second] = match round % 3 {
                    1 => [Shutdown::Write, Shutdown::Read],
                    _ => [Shutdown::Read, Shutdown::Write],
                };
                overlay(&server).shutdown(first).expect("a connection");
                overlay(&server).shutdown(second).expect("a connection");
            }
        }
        if round < 30 {
            assert_eq!(rustix::io::read(&client, &mut [0; 1]), Ok(0), "in round {round}");
        }
        drop(server);
        let error = loop {
            if let Some(error) = overlay(&client).take_error().expect("a socket") {
                break error;
            }
            assert!(Instant::now() < until, "nothing is told in round {round}");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(matches!(error, Errno::CONNRESET | Errno::PIPE), "{error:?} in round {round}");
    }
}

/// The end of receiving is no end of sending: only a reset follows, never an end of the data.
#[test]
fn a_peer_that_reads_no_more_and_closes_with_data_unread_resets() {
    let (a, b) = Served::pair();
    for round in 0..100 {
        let (mut client, server) = a.connect(&b);
        let server = OwnedFd::from(server);
        client.write_all(b"x").expect("room");
        let until = Instant::now() + Duration::from_secs(20);
        while rustix::io::ioctl_fionread(&server).expect("a socket") == 0 {
            assert!(Instant::now() < until, "it arrives");
            std::thread::sleep(Duration::from_millis(1));
        }
        overlay(&server).shutdown(Shutdown::Read).expect("a connection");
        drop(server);
        let read = client.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(read, Err(std::io::ErrorKind::ConnectionReset), "in round {round}");
    }
}

/// As in Linux, a copy in another place keeps the connection, and what comes then resets it.
#[test]
fn a_program_that_has_shut_down_both_directions_has_a_connection_until_its_last_copy_is_closed() {
    let (a, b) = Served::pair();
    let (client, server) = a.connect(&b);
    let (client, copy) = (OwnedFd::from(client.try_clone().expect("a copy")), OwnedFd::from(client));
    overlay(&client).shutdown(Shutdown::Both).expect("a connection");
    drop(client);
    assert_eq!(told(&copy), None);
    assert!(overlay(&copy).peer_addr().is_ok(), "the peer has not ended its direction");
    assert_eq!(a.server.meter().usage().streams, 1);
    (&server).write_all(b"late").expect("room");
    let until = Instant::now() + Duration::from_secs(20);
    while overlay(&copy).take_error().expect("a socket") != Some(Errno::CONNRESET) {
        assert!(Instant::now() < until, "nothing is told");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (client, server) = a.connect(&b);
    overlay(&client).shutdown(Shutdown::Both).expect("a connection");
    drop(client);
    while a.server.meter().usage().streams > 0 {
        assert!(Instant::now() < until, "it is still there");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(server);
}

/// As in Linux, a connection has a peer as long as one direction is open.
#[test]
fn both_ends_have_a_peer_until_both_directions_have_ended() {
    let (a, b) = Served::pair();
    let until = Instant::now() + Duration::from_secs(20);
    let wait = |fd: &OwnedFd| {
        while overlay(fd).peer_addr() != Err(Errno::NOTCONN) {
            assert!(Instant::now() < until, "it still has a peer");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for is_client_first in [true, false] {
        let (client, server) = a.connect(&b);
        let (client, server) = (OwnedFd::from(client), OwnedFd::from(server));
        let (first, last) = if is_client_first { (&client, &server) } else { (&server, &client) };
        overlay(first).shutdown(Shutdown::Write).expect("a connection");
        assert_eq!(rustix::io::read(last, &mut [0; 1]), Ok(0));
        assert!([first, last].iter().all(|fd| overlay(fd).peer_addr().is_ok()));
        overlay(last).shutdown(Shutdown::Write).expect("a connection");
        assert_eq!(rustix::io::read(first, &mut [0; 1]), Ok(0));
        wait(first);
        wait(last);
        assert_eq!(overlay(first).shutdown(Shutdown::Both), Err(Errno::NOTCONN));
        assert_eq!(overlay(last).shutdown(Shutdown::Write), Err(Errno::NOTCONN));
        let (client, server) = a.connect(&b);
        let (client, server) = (OwnedFd::from(client), OwnedFd::from(server));
        let (first, last) = if is_client_first { (client, server) } else { (server, client) };
        let value = [1i32.to_ne_bytes(), [0; 4]].concat();
        set_bytes(&first, libc::SOL_SOCKET, libc::SO_LINGER, &value).expect("an option");
        drop(first);
        wait(&last);
    }
}

/// As in Linux, data that comes after both ends resets the connection, although written data still waits.
#[test]
fn data_for_a_program_that_has_shut_down_both_directions_resets_at_once() {
    let (a, b) = Served::pair();
    for round in 0..3 {
        let (client, mut server) = a.connect(&b);
        let client = OwnedFd::from(client);
        fill(&client);
        overlay(&client).shutdown(Shutdown::Both).expect("a connection");
        // The node answers after it has noticed that.
        (0..3).for_each(|_| assert!(overlay(&client).outq().is_ok_and(|bytes| bytes > 1)));
        server.write_all(b"late").expect("room");
        let until = Instant::now() + Duration::from_secs(20);
        while overlay(&client).take_error().expect("a socket") != Some(Errno::CONNRESET) {
            assert!(Instant::now() < until, "nothing is told in round {round}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let read = server.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        assert_eq!(read, Err(std::io::ErrorKind::ConnectionReset), "in round {round}");
    }
}

/// Linux counts the end of a direction as a byte that waits for its acknowledgement.
#[test]
fn the_end_of_a_direction_counts_until_it_is_acknowledged() {
    let (a, b) = Served::pair();
    let (client, mut server) = a.connect(&b);
    let client = OwnedFd::from(client);
    fill(&client);
    let waiting = overlay(&client).outq().expect("a connection");
    assert_eq!(overlay(&client).unacknowledged(), Ok(waiting));
    rustix::net::shutdown(&client, Shutdown::Write).expect("a socket");
    assert_eq!(overlay(&client).outq(), Ok(waiting + 1));
    assert_eq!(overlay(&client).unacknowledged(), Ok(waiting));
    server.read_to_end(&mut Vec::new()).expect("the data and its end");
    assert_eq!(told(&client), None);
    assert_eq!(overlay(&client).outq(), Ok(0));
}

/// A connection whose peer has ended first goes as soon as the last acknowledgement has come.
#[test]
fn nothing_is_left_of_connections_that_both_sides_have_ended() {
    let (a, b) = Served::pair();
    for is_closed in [true, false] {
        let (client, server) = a.connect(&b);
        let client = OwnedFd::from(client);
        overlay(&server).shutdown(Shutdown::Write).expect("a connection");
        write_last(&client, write_late);
        let client = (!is_closed).then_some(client);
        let until = Instant::now() + Duration::from_secs(20);
        while a.server.meter().usage().streams > 0 {
            assert!(Instant::now() < until, "it is still there");
            std::thread::sleep(Duration::from_millis(1));
        }
        drop((client, server));
    }
}

/// The peer has only ended its direction, and reads.
#[test]
fn data_that_comes_after_the_peers_end_is_delivered() {
    let (a, b) = Served::pair();
    for (write, is_closed) in [(write_late as fn(&OwnedFd), false), (write_late, true), (fill, false)] {
        let (client, server) = a.connect(&b);
        let (client, mut server) = (OwnedFd::from(client), server);
        overlay(&server).shutdown(Shutdown::Write).expect("a connection");
        write_last(&client, write);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).map(|_| all.len())
        });
        if is_closed {
            drop(client);
        } else {
            assert_eq!(told(&client), None);
        }
        let read = reader.join().expect("no panic").expect("the data and its end");
        assert!(read >= 4, "{read} bytes");
    }
    // Nothing is left of them.
    a.server.begin_drain();
    let until = Instant::now() + Duration::from_secs(20);
    while a.server.undelivered().ends > 0 {
        assert!(Instant::now() < until, "{:?}", a.server.undelivered());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(a.server.undelivered().lost, 0);
}

/// The peer has read the answer and closed, so nothing is lost when its node leaves before this end is
/// closed.
#[test]
fn a_peer_that_leaves_after_it_has_closed_resets_nothing() {
    let (a, b) = Served::pair();
    let (mut client, mut server) = a.connect(&b);
    let mut buf = [0; 6];
    client.write_all(b"ask").expect("there is room");
    server.read_exact(&mut buf[..3]).expect("it comes");
    server.write_all(b"answer").expect("there is room");
    client.read_exact(&mut buf).expect("it comes");
    drop(client);
    a.server.begin_drain();
    let until = Instant::now() + Duration::from_secs(20);
    while a.server.undelivered().ends > 0 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    let events = b.node().events();
    a.node().shutdown(Duration::ZERO);
    while !matches!(events.next_timeout(Duration::from_secs(20)).expect("it leaves"), Event::PeerLost { .. })
    {
    }
    assert_eq!(server.read(&mut buf).expect("the end, and not a reset"), 0);
    b.server.begin_drain();
    drop(server);
    assert_eq!(b.server.undelivered().lost, 0);
}
