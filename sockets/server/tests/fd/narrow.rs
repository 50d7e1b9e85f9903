//! A path that carries less than the smallest datagram. A sender waiting for acknowledgements gets an error,
//! by descriptors (C, Python, `peersock run`) and by streams of the library.
//!
//! The test uses a separate network namespace, whose loopback interface drops long packets. This needs root,
//! `ip` and `nft`; otherwise the test is skipped.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream};
use peersock_fd::{Errno, SocketFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::common::{Served, overlay};

/// The promised time limit.
const ERROR_TIMEOUT: Duration = Duration::from_secs(15);

/// Acknowledgements and keepalives still pass.
const MESSAGE_BYTES: u32 = 150;

#[test]
fn a_path_that_carries_too_little_is_told_within_fifteen_seconds() {
    who_sends_is_told("a_path_that_carries_too_little_is_told", true);
}

#[test]
fn it_is_told_within_fifteen_seconds_where_datagrams_travel_together() {
    who_sends_is_told("it_is_told_where_datagrams_travel_together", false);
}

fn who_sends_is_told(test: &str, one_by_one: bool) {
    let Some(place) = Place::build(test, one_by_one) else { return };
    place.within(|| {
        let (a, b) = Served::pair();
        let (listener, address) = b.listen(SocketFlags::CLOEXEC);
        let client = a.socket(SocketFlags::CLOEXEC);
        overlay(&client).connect(Some(address)).expect("somebody listens");
        let (server, _) = overlay(&listener).accept(SocketFlags::CLOEXEC).expect("a connection");
        let of_library = TcpListener::bind_on(b.node(), (b.network.address(), 0)).expect("a port");
        let to = of_library.local_addr().expect("an address");
        let mut stream = TcpStream::connect_on(a.node(), to).expect("somebody listens");
        let (mut accepted, _) = of_library.accept().expect("a connection");
        stream.write_all(&[7; 5000]).expect("room");
        accepted.read_exact(&mut [0; 5000]).expect("it comes");

        place.carry_at_most(MESSAGE_BYTES);
        let began = Instant::now();
        rustix::io::write(&client, &[7; 5000]).expect("room");
        stream.write_all(&[7; 5000]).expect("room");
        stream.set_read_timeout(Some(2 * ERROR_TIMEOUT)).expect("a timeout");
        let error = stream.read(&mut [0]).expect_err("nothing comes");
        let took = began.elapsed();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{error}");
        assert!(took <= ERROR_TIMEOUT, "the library: {took:?}");

        let wait = |fd: &std::os::fd::OwnedFd| {
            let timeout = Timespec { tv_sec: 30, tv_nsec: 0 };
            let mut fds = [PollFd::new(fd, PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1));
            rustix::io::read(fd, &mut [0; 1]).expect_err("nothing comes")
        };
        let error = wait(&client);
        let took = began.elapsed();
        assert_eq!((error, overlay(&client).stream_error(error)), (Errno::CONNRESET, Errno::MSGSIZE));
        assert!(took <= ERROR_TIMEOUT, "descriptors: {took:?}");
        // The error is reported once.
        assert_eq!(overlay(&client).take_error(), Ok(None));
        // The peer sees a reset, after the data that has come.
        assert_eq!(accepted.read(&mut [0]).expect_err("no end").raw_os_error(), Some(libc::ECONNRESET));
        let error = wait(&server);
        assert_eq!((error, overlay(&server).stream_error(error)), (Errno::CONNRESET, Errno::CONNRESET));
    });
}

/// A network namespace.
struct Place(String);

impl Place {
    /// Creates a namespace. If that is impossible, prints the reason and returns `None`. Unless its datagrams
    /// travel `one_by_one`, several cross it as one packet, which is longer than each of them.
    fn build(test: &str, one_by_one: bool) -> Option<Place> {
        let name = format!("ps-narrow-{}-{}", std::process::id(), test.len());
        if Command::new("nft").arg("--version").output().is_err() || !ip(&["netns", "add", &name]) {
            eprintln!("SKIP {test}: network namespaces need root and the programs ip and nft");
            return None;
        }
        let place = Place(name);
        assert!(ip(&["-n", &place.0, "link", "set", "lo", "up"]));
        if one_by_one {
            assert!(ip(&["-n", &place.0, "link", "set", "lo", "gso_max_segs", "1"]));
        }
        Some(place)
    }

    /// Makes it drop longer packets silently.
    fn carry_at_most(&self, bytes: u32) {
        let rules = format!(
            "table inet small {{ chain arriving {{ type filter hook input priority 0; meta length > {bytes} drop; }}; }}"
        );
        assert!(ip(&["netns", "exec", &self.0, "nft", &rules]));
    }

    /// Runs `work` inside; threads started there stay there.
    fn within(&self, work: impl FnOnce() + Send) {
        let namespace = File::open(format!("/run/netns/{}", self.0)).expect("it is there");
        let worker = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).expect("root may enter namespaces");
            work();
        };
        thread::scope(|scope| scope.spawn(worker).join().expect("as it should be"));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(words: &[&str]) -> bool {
    Command::new("ip").args(words).output().is_ok_and(|output| output.status.success())
}
