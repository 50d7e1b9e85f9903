//! SO_LINGER with a time.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, SocketFlags};

use crate::common::{Served, overlay, set_bytes};

const DATA: usize = 300_000;

fn set_linger(fd: &OwnedFd, seconds: i32) {
    let value = [1i32.to_ne_bytes(), seconds.to_ne_bytes()].concat();
    set_bytes(fd, libc::SOL_SOCKET, libc::SO_LINGER, &value).expect("an option");
}

/// As the libraries close; gives how long it took.
fn close(fd: OwnedFd) -> Duration {
    close_and_ask(fd).0
}

/// The same, with what closing has said.
fn close_and_ask(fd: OwnedFd) -> (Duration, Result<(), Errno>) {
    let socket = overlay(&fd);
    let (client, which) = (socket.client(), socket.which());
    let time = socket.linger().expect("it lingers");
    let began = Instant::now();
    let ((), delivered) = client.close_lingering(which, time, || drop(fd));
    (began.elapsed(), delivered)
}

/// Writes as much as goes without somebody reading.
fn fill(fd: &OwnedFd) {
    rustix::io::ioctl_fionbio(fd, true).expect("a flag");
    let mut quiet = 0;
    while quiet < 20 {
        match rustix::io::write(fd, &[7; 65_536]) {
            Ok(_) => quiet = 0,
            Err(_) => {
                quiet += 1;
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
    File::from(fd.try_clone().expect("a copy")).write_all(&[7; DATA]).expect("room");
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        server.read_to_end(&mut all).map(|_| all.len())
    });
    close(fd);
    a.node().shutdown(Duration::ZERO);
    assert_eq!(reader.join().expect("no panic").expect("no error"), DATA);
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
