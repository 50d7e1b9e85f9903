//! Non-blocking connects followed by a poll, a read or a write, with kernel sockets for comparison.

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use peersock_fd::{Errno, SocketFlags};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SendFlags, SocketType, sockopt};

use crate::common::{Served, errno, overlay, poll, poll_for};

const ATTEMPTS: usize = 200;

/// Returns a socket that connects to a closed port, and that `polls` has found writable.
fn refused(
    world: Option<&Served>,
    remote: SocketAddr,
    polls: fn(&OwnedFd) -> PollFlags,
) -> (OwnedFd, PollFlags) {
    let flags = SocketFlags::NONBLOCK;
    let (fd, connected) = match world {
        Some(served) => {
            let fd = served.socket(flags);
            let connected = overlay(&fd).connect(Some(remote));
            (fd, connected)
        }
        None => {
            let (family, kind) = (AddressFamily::INET6, SocketType::STREAM);
            let fd = rustix::net::socket_with(family, kind, flags, None).expect("a socket");
            let connected = rustix::net::connect(&fd, &remote);
            (fd, connected)
        }
    };
    assert_eq!(errno(connected), Errno::INPROGRESS);
    let found = polls(&fd);
    assert!(found.contains(PollFlags::OUT), "{found:?}");
    (fd, found)
}

fn sleeps(fd: &OwnedFd) -> PollFlags {
    poll(fd, PollFlags::OUT)
}

/// Spins, to see it as early as possible.
fn spins(fd: &OwnedFd) -> PollFlags {
    loop {
        let found = poll_for(fd, PollFlags::OUT, 0);
        if found.contains(PollFlags::OUT) {
            return found;
        }
    }
}

/// Reads twice, with SO_ERROR in between, and returns the results.
fn reads(world: Option<&Served>, fd: &OwnedFd) -> [Result<usize, Errno>; 3] {
    let read = || {
        rustix::io::read(fd, &mut [0; 1]).map_err(|error| match world {
            Some(_) => overlay(fd).stream_error(error),
            None => error,
        })
    };
    let first = read();
    let error = match world {
        Some(_) => overlay(fd).take_error().expect("an answer").map_or(Ok(()), Err),
        None => sockopt::socket_error(fd).expect("an answer"),
    };
    [first, error.map(|()| 0), read()]
}

/// Returns a kernel address without a listener, and the socket that holds it.
fn closed() -> (OwnedFd, SocketAddr) {
    let fd = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).expect("a socket");
    rustix::net::bind(&fd, &SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0)).expect("a free port");
    let address = rustix::net::getsockname(&fd).expect("it is bound").try_into().expect("of its family");
    (fd, address)
}

#[test]
fn who_reads_first_is_told_of_a_refusal_once_as_by_the_kernel() {
    let (a, b) = Served::pair();
    let (_held, kernels) = closed();
    let worlds =
        [(None, kernels), (Some(&a), SocketAddr::new(a.ip(), 9)), (Some(&a), SocketAddr::new(b.ip(), 9))];
    for (world, remote) in worlds {
        for polls in [sleeps, spins] {
            for tried in 0..ATTEMPTS {
                let (fd, _) = refused(world, remote, polls);
                let told = reads(world, &fd);
                assert_eq!(told, [Err(Errno::CONNREFUSED), Ok(0), Ok(0)], "{remote}, try {tried}");
                let flags = rustix::fs::fcntl_getfl(&fd).expect("it is open");
                assert!(flags.contains(rustix::fs::OFlags::NONBLOCK), "{flags:?}");
            }
        }
    }
}

#[test]
fn a_refusal_by_the_own_node_has_all_the_events_of_the_kernels() {
    let a = Served::new("ff0001ffff000000");
    let (_held, kernels) = closed();
    let all = PollFlags::OUT | PollFlags::ERR | PollFlags::HUP;
    for (world, remote) in [(None, kernels), (Some(&a), SocketAddr::new(a.ip(), 9))] {
        for polls in [sleeps, spins] {
            for _ in 0..ATTEMPTS {
                assert_eq!(refused(world, remote, polls).1, all, "{remote}");
            }
        }
    }
}

/// Models programs that no library reaches, whose calls the supervisor begins for them.
#[test]
fn a_descriptor_that_blocks_does_so_after_a_refusal_too() {
    let (a, b) = Served::pair();
    for remote in [a.ip(), b.ip()] {
        let fd = a.socket(SocketFlags::empty());
        assert_eq!(errno(overlay(&fd).begin_connect(Some(SocketAddr::new(remote, 9)))), Errno::INPROGRESS);
        assert!(sleeps(&fd).contains(PollFlags::OUT));
        assert_eq!(overlay(&fd).take_error(), Ok(Some(Errno::CONNREFUSED)));
        let flags = rustix::fs::fcntl_getfl(&fd).expect("it is open");
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "{flags:?}");
    }
}

/// One thread writes while another one connects, and continues after it. A kernel socket would take nothing
/// before it is connected.
#[test]
fn what_another_thread_writes_while_the_descriptor_is_filled_arrives() {
    let (a, b) = Served::pair();
    for of in [&a, &b] {
        (0..ATTEMPTS).for_each(|_| write_beside_filling(&a, of, 2, 100_000));
    }
}

/// The filling is long, too.
#[test]
fn so_does_what_it_writes_to_a_buffer_that_it_has_enlarged() {
    let (a, b) = Served::pair();
    for of in [&a, &b] {
        (0..ATTEMPTS / 4).for_each(|_| write_beside_filling(&a, of, 50_000, 600_000));
    }
}

fn write_beside_filling(a: &Served, of: &Served, chunk: usize, most: usize) {
    let (listener, address) = of.listen(SocketFlags::empty());
    let fd = a.socket(SocketFlags::NONBLOCK);
    let is_over = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let mut written = Vec::new();
            while !is_over.load(Ordering::Relaxed) && written.len() < most {
                if chunk > 1000 {
                    sockopt::set_socket_send_buffer_size(&fd, 1 << 20).expect("an option");
                }
                // Includes zeros.
                let data = [0, written.len() as u8].repeat(chunk / 2);
                if let Ok(length) = rustix::net::send(&fd, &data, SendFlags::NOSIGNAL) {
                    written.extend_from_slice(&data[..length]);
                }
            }
            written
        });
        assert_eq!(errno(overlay(&fd).connect(Some(address))), Errno::INPROGRESS);
        assert!(poll(&fd, PollFlags::OUT).contains(PollFlags::OUT));
        is_over.store(true, Ordering::Relaxed);
        writes.join().expect("no panic")
    });
    assert_eq!(overlay(&fd).take_error(), Ok(None));
    let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    let reads = thread::spawn(move || {
        let mut came = Vec::new();
        std::fs::File::from(accepted).read_to_end(&mut came).expect("it ends in order");
        came
    });
    drop(fd);
    let came = reads.join().expect("no panic");
    assert!(came == written, "{} bytes instead of {}", came.len(), written.len());
}
