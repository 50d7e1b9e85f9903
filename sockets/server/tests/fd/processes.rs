//! Processes and threads at the limits of a call: a process without a free descriptor, a process that is
//! killed in a call, a descriptor that another thread closes, and a handler that restarts calls.
#![allow(unsafe_code)]

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use peersock_fd::{Errno, Family, Kind, Shutdown, SocketFlags};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::child::Child;
use crate::common::{Served, errno, overlay, poll, send_to};
use crate::world::World;

/// Time after which a call certainly waits.
const WAIT_TIME: Duration = Duration::from_millis(200);

#[test]
fn a_process_without_a_free_descriptor_goes_on_with_the_sockets_that_it_has() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    let child = Child::new(|| {
        let opened = |kind| peersock_fd::open(&a.client, Family::V6, kind, SocketFlags::empty());
        let [stream, server] = [(); 2].map(|()| opened(Kind::Stream).expect("a socket"));
        let [bound, unbound] = [(); 2].map(|()| opened(Kind::Datagram).expect("a socket"));
        let limit = libc::rlimit { rlim_cur: 3, rlim_max: 3 };
        // SAFETY: the pointer is to a live variable.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        assert_eq!(errno(opened(Kind::Stream)), Errno::MFILE);
        let any = SocketAddr::new(a.ip(), 0);
        overlay(&stream).connect(Some(address)).expect("somebody listens");
        assert_eq!(rustix::io::write(&stream, b"x"), Ok(1));
        overlay(&server).bind(any).expect("a free port");
        overlay(&server).listen(1).expect("it listens");
        overlay(&bound).bind(any).expect("a free port");
        assert_eq!(send_to(&unbound, b"x", SocketAddr::new(b.ip(), 9)), Ok(1));
    });
    assert_eq!(child.wait(), 0);
    drop(listener);
}

/// The socket stays open in the test, which begins another attempt.
#[test]
fn the_attempt_of_a_process_that_is_killed_ends() {
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    let fd = a.socket(SocketFlags::empty());
    let child = Child::new(|| assert_eq!(overlay(&fd).connect(Some(a.silent())), Ok(())));
    while overlay(&fd).local_addr().expect("the node is there").port() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    drop(child);
    // The node hears a moment later that the process is gone. Without that the attempt would end after 5 s.
    let has_ended = (0..300).any(|_| {
        thread::sleep(Duration::from_millis(10));
        overlay(&fd).local_addr().expect("the node is there").port() == 0
    });
    assert!(has_ended, "the attempt goes on");
    overlay(&fd).connect(Some(address)).expect("somebody listens");
    let (accepted, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
    assert_eq!(rustix::io::write(&accepted, b"x"), Ok(1));
    assert_eq!(rustix::io::read(&fd, &mut [0; 2]), Ok(1));
}

/// A call keeps its socket until it returns, and leaves a file alone that has the number meanwhile.
#[test]
fn another_thread_may_close_a_descriptor_while_it_connects() {
    let a = Served::new("ff0001ffff000000");
    let fd = a.socket(SocketFlags::empty());
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(2 * WAIT_TIME)).expect("an option");
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let other = rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK, None).expect("a socket");
    let connected = thread::scope(|scope| {
        // The second one waits for the attempt of the first one.
        let connecting = [(); 2].map(|()| scope.spawn(|| overlay(&fd).connect(Some(a.silent()))));
        thread::sleep(WAIT_TIME);
        // SAFETY: the number stays open, and belongs to a socket that nothing else uses.
        let mut number = unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) };
        rustix::io::dup2(&other, &mut number).expect("the number is open");
        std::mem::forget(number);
        connecting.map(|connecting| connecting.join().expect("no panic"))
    });
    let mut connected = connected.map(errno);
    connected.sort_by_key(|error| error.raw_os_error());
    assert_eq!(connected, [Errno::ALREADY, Errno::INPROGRESS]);
    assert_eq!(errno(rustix::net::getpeername(&other)), Errno::NOTCONN, "it was connected to the node");
}

/// The same for a call that waits for an attempt which began without waiting. It leaves the error of a file
/// that has the number meanwhile.
#[test]
fn another_thread_may_close_a_descriptor_while_a_second_connect_waits() {
    let a = Served::new("ff0001ffff000000");
    let fd = a.socket(SocketFlags::NONBLOCK);
    assert_eq!(errno(overlay(&fd).connect(Some(a.silent()))), Errno::INPROGRESS);
    rustix::io::ioctl_fionbio(&fd, false).expect("a socket");
    let copy = rustix::io::dup(&fd).expect("a descriptor");
    let closed = UdpSocket::bind("[::1]:0").expect("a free port").local_addr().expect("it is bound");
    let other = UdpSocket::bind("[::1]:0").expect("a free port");
    other.connect(closed).expect("an address");
    other.send(b"x").expect("it leaves");
    assert!(poll(&other, PollFlags::IN).contains(PollFlags::ERR));
    let connected = thread::scope(|scope| {
        let connecting = scope.spawn(|| overlay(&fd).connect(Some(a.silent())));
        thread::sleep(WAIT_TIME);
        // SAFETY: the number stays open, and belongs to a socket that nothing else uses.
        let mut number = unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) };
        rustix::io::dup2(&other, &mut number).expect("the number is open");
        std::mem::forget(number);
        overlay(&copy).shutdown(Shutdown::Both).expect("the attempt goes on");
        connecting.join().expect("no panic")
    });
    assert_eq!(connected, Err(Errno::CONNRESET));
    assert_eq!(sockopt::socket_error(&other), Ok(Err(Errno::CONNREFUSED)), "it was told to another call");
}

/// connect(2) with SO_SNDTIMEO is never restarted, see signal(7).
#[test]
fn a_handler_that_restarts_calls_interrupts_a_connect_with_a_time_limit() {
    extern "C" fn handle(_: libc::c_int) {}
    let a = Served::new("ff0001ffff000000");
    // The kernel drops connections beyond a full backlog.
    let listener = TcpListener::bind("[::1]:0").expect("a free port");
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let full = listener.local_addr().expect("it is bound");
    let _first = std::net::TcpStream::connect(full).expect("the backlog has one place");
    for (world, remote) in [(World::Kernels, full), (World::Overlays(a.client.clone()), a.silent())] {
        let fd = world.open(Kind::Stream, SocketFlags::empty());
        let limit = Some(Duration::from_secs(10));
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, limit).expect("an option");
        let child = Child::new(|| {
            // SAFETY: the handler does nothing; all bytes of the struct may be zero.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handle as *const () as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
            }
            assert_eq!(world.connect(&fd, remote), Err(Errno::INTR));
        });
        // Before the child has its handler, the signal ends it.
        thread::sleep(2 * WAIT_TIME);
        // SAFETY: no pointers. The child has not been waited for.
        unsafe { libc::kill(child.0, libc::SIGUSR1) };
        assert_eq!(child.wait(), 0, "{remote}");
    }
}
