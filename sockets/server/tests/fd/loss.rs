//! A sender gets an error if something was not delivered, at every stage at which a peer can go. Where kernel
//! TCP reports success, so does the overlay.

#[path = "../../../../tests/delivery/receiver.rs"]
mod receiver;
#[path = "../../../../tests/delivery/scenario.rs"]
mod scenario;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use peersock_fd::{Errno, RecvFlags, SocketFlags};
use rustix::event::PollFlags;
use rustix::net::{Shutdown, sockopt};

use self::receiver::{Stream, receive};
use self::scenario::{Outcome, Step, content, judge, table};
use crate::common::{Served, overlay, poll, set, set_bytes};

/// Behavior of the peer on a connection that carries data to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    ReadsAll,
    /// Closes before any data has come.
    ClosesAtOnce,
    /// Closes when data has come, without reading it.
    ClosesUnread,
    ClosesAfterHalf,
    /// SO_LINGER of zero.
    ResetsAtOnce,
    ResetsAfterHalf,
    /// Reads everything and then resets.
    ResetsAtTheEnd,
    /// Ends its own direction first, and still reads.
    ShutsAndReads,
    /// Writes data itself, and closes without reading.
    AnswersUnread,
}

const PEERS: [Peer; 9] = [
    Peer::ReadsAll,
    Peer::ClosesAtOnce,
    Peer::ClosesUnread,
    Peer::ClosesAfterHalf,
    Peer::ResetsAtOnce,
    Peer::ResetsAfterHalf,
    Peer::ResetsAtTheEnd,
    Peer::ShutsAndReads,
    Peer::AnswersUnread,
];

const DATA_SIZES: [usize; 4] = [1, 4000, 300_000, 10_000_000];

/// Result that a sender sees.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    AllIsWell,
    Error(&'static str, ErrorKind),
}

/// Network of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Kernel,
    Overlay,
}

impl Side {
    fn shutdown(self, file: &File) -> Result<(), Errno> {
        match self {
            Side::Overlay => overlay(file).shutdown(Shutdown::Write),
            Side::Kernel => rustix::net::shutdown(file, Shutdown::Write),
        }
    }

    fn take_error(self, file: &File) -> Option<Errno> {
        match self {
            Side::Overlay => overlay(file).take_error().expect("an option"),
            Side::Kernel => sockopt::socket_error(file).expect("an option").err(),
        }
    }

    fn reset_on_close(self, file: &File) {
        match self {
            Side::Overlay => set_bytes(file, libc::SOL_SOCKET, libc::SO_LINGER, &[1, 0, 0, 0, 0, 0, 0, 0]),
            Side::Kernel => sockopt::set_socket_linger(file, Some(Duration::ZERO)),
        }
        .expect("an option");
    }

    /// Sends, ends the direction, and reads until the peer's end comes.
    fn send(self, mut file: &File, size: usize) -> Told {
        let told = |what, error: io::Error| Told::Error(what, error.kind());
        if let Err(error) = file.write_all(&vec![7; size]) {
            return told("write", error);
        }
        if let Err(error) = self.shutdown(file) {
            return told("shutdown", error.into());
        }
        let mut answer = Vec::new();
        if let Err(error) = file.read_to_end(&mut answer) {
            return told("read", error);
        }
        self.take_error(file).map_or(Told::AllIsWell, |error| told("SO_ERROR", error.into()))
    }

    /// Acts as the peer. Returns true if it has received everything.
    fn receive(self, peer: Peer, mut file: File, size: usize) -> bool {
        let half = |file: &mut File| {
            let mut buf = vec![0; size.div_ceil(2)];
            file.read_exact(&mut buf).expect("what was sent");
            buf.len() == size
        };
        match peer {
            Peer::ClosesAtOnce => false,
            Peer::ClosesUnread | Peer::AnswersUnread => {
                assert!(poll(&file, PollFlags::IN).contains(PollFlags::IN));
                if peer == Peer::AnswersUnread {
                    file.write_all(b"no, thanks").expect("room");
                }
                false
            }
            Peer::ClosesAfterHalf => half(&mut file),
            Peer::ResetsAtOnce => {
                self.reset_on_close(&file);
                false
            }
            Peer::ResetsAfterHalf => {
                self.reset_on_close(&file);
                half(&mut file)
            }
            Peer::ReadsAll | Peer::ResetsAtTheEnd | Peer::ShutsAndReads => {
                if peer == Peer::ShutsAndReads {
                    self.shutdown(&file).expect("it is connected");
                }
                let mut all = Vec::new();
                file.read_to_end(&mut all).expect("what was sent");
                if peer == Peer::ResetsAtTheEnd {
                    self.reset_on_close(&file);
                }
                all.len() == size
            }
        }
    }

    fn run(self, (sender, receiver): (File, File), peer: Peer, size: usize) -> (Told, bool) {
        let receiving = thread::spawn(move || self.receive(peer, receiver, size));
        let told = self.send(&sender, size);
        (told, receiving.join().expect("no panic"))
    }
}

fn kernels() -> (File, File) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (server, _) = listener.accept().expect("a connection");
    (OwnedFd::from(client).into(), OwnedFd::from(server).into())
}

#[test]
fn whoever_sends_is_told_of_what_was_not_delivered() {
    let (a, b) = Served::pair();
    for peer in PEERS {
        for size in DATA_SIZES {
            for round in 0..5 {
                let what = format!("{peer:?}, {size} bytes, round {round}");
                let (kernel, _) = Side::Kernel.run(kernels(), peer, size);
                let (told, has_all) = Side::Overlay.run(a.connect(&b), peer, size);
                match has_all {
                    // The reset may come before or after the last acknowledgement, as with the kernel.
                    true if matches!(peer, Peer::ResetsAtTheEnd | Peer::ResetsAfterHalf) => {}
                    true => assert_eq!(told, Told::AllIsWell, "{what}, of the kernel {kernel:?}"),
                    false => assert_ne!(told, Told::AllIsWell, "{what}, of the kernel {kernel:?}"),
                }
            }
        }
    }
}

impl Stream for File {
    fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll(self, PollFlags::IN);
        Ok(rustix::net::recv(self, buf, RecvFlags::PEEK).map(|(length, _)| length)?)
    }

    fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
        let how = match how {
            std::net::Shutdown::Read => Shutdown::Read,
            std::net::Shutdown::Write => Shutdown::Write,
            std::net::Shutdown::Both => Shutdown::Both,
        };
        Ok(overlay(self).shutdown(how)?)
    }

    fn reset_on_close(&self) -> io::Result<()> {
        // Even if the connection has ended meanwhile.
        Ok(set_bytes(self, libc::SOL_SOCKET, libc::SO_LINGER, &[1, 0, 0, 0, 0, 0, 0, 0])?)
    }
}

/// The sender of the table, which waits for delivery by closing with SO_LINGER.
fn deliver(fd: OwnedFd, size: usize) -> io::Result<()> {
    let mut file = File::from(fd.try_clone()?);
    file.write_all(&content(size))?;
    overlay(&fd).shutdown(Shutdown::Write)?;
    file.read_to_end(&mut Vec::new())?;
    drop(file);
    let (client, which) = (overlay(&fd).client(), overlay(&fd).which());
    Ok(client.close_lingering(which, Duration::from_secs(60), || drop(fd)).1?)
}

#[test]
fn the_table_of_deliveries_holds_for_descriptors() {
    let (a, b) = Served::pair();
    let (scenarios, sizes) = table();
    // Receivers that die or stop need a separate process; the tests of `run` and of the C library have those.
    for scenario in scenarios.iter().filter(|scenario| !scenario.ends_process()) {
        for &size in &sizes {
            let (listener, address) = match scenario.steps[0] {
                Step::Refuse => (None, (b.ip(), 9).into()),
                _ => {
                    let (listener, address) = b.listen(SocketFlags::empty());
                    // Half of the largest size must exceed its buffer, which grows when data is read.
                    set(&listener, libc::SOL_SOCKET, libc::SO_RCVBUF, 1 << 17).expect("a size");
                    (Some(listener), address)
                }
            };
            let (connected, is_connected) = mpsc::channel();
            let (told, read) = thread::scope(|scope| {
                let receiving = scope.spawn(move || {
                    receive(scenario, size, listener, &is_connected, |listener| {
                        let listener = listener.as_ref().expect("somebody listens");
                        Ok(File::from(overlay(listener).accept(SocketFlags::empty())?.0))
                    })
                });
                let client = a.socket(SocketFlags::empty());
                let told = overlay(&client).connect(Some(address)).map_err(io::Error::from).and_then(|()| {
                    // A receiver that is done already does not wait for it.
                    let _ = connected.send(());
                    if scenario.steps[0] == Step::Unlisten {
                        // The listener must be gone before the end is read.
                        thread::sleep(Duration::from_millis(50));
                    }
                    deliver(client, size)
                });
                (told, receiving.join().expect("no panic"))
            });
            let told = if told.is_ok() { Outcome::Delivered } else { Outcome::Error };
            judge(scenario, size, "descriptors", told, &read);
        }
    }
}

/// Actions of a program on a connection whose peer has reset it, so that sent data is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    Closes,
    KeepsItOpen,
    Writes,
    Reads,
    Shuts,
    AsksForTheError,
}

/// Returns a connection reset by its peer, while `size` bytes of this end were in the buffers.
fn reset_by_peer(a: &Served, b: &Served, size: usize) -> File {
    let (sender, receiver) = a.connect(b);
    rustix::io::ioctl_fionbio(&sender, true).expect("a flag");
    rustix::io::write(&sender, &vec![7; size]).expect("room for some");
    // Data in the last of all buffers is not acknowledged, so large sizes fill them until nothing moves.
    let mut pauses = 0;
    while size > 1_000_000 && pauses < 50 {
        pauses += 1;
        match rustix::io::write(&sender, &vec![7; size]) {
            Ok(_) => pauses = 0,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    rustix::io::ioctl_fionbio(&sender, false).expect("a flag");
    assert!(poll(&receiver, PollFlags::IN).contains(PollFlags::IN));
    Side::Overlay.reset_on_close(&receiver);
    drop(receiver);
    assert!(poll(&sender, PollFlags::empty()).contains(PollFlags::HUP), "it is not reset");
    sender
}

#[test]
fn losses_that_no_call_has_told_of_are_said_at_the_end() {
    use Afterwards::*;
    for how in [Closes, KeepsItOpen, Writes, Reads, Shuts, AsksForTheError] {
        for size in [4000, 10_000_000] {
            let (a, b) = Served::pair();
            let mut sender = reset_by_peer(&a, &b, size);
            // The libraries ask for the meaning of a kernel error.
            let meaning = |error: io::Error| {
                overlay(&sender).stream_error(Errno::from_io_error(&error).expect("the kernel's"))
            };
            match how {
                Closes | KeepsItOpen => {}
                Writes => {
                    let error = (&sender).write(b"more").expect_err("it is reset");
                    assert_eq!(meaning(error), Errno::PIPE);
                }
                Reads => {
                    let error = (&sender).read(&mut [0; 1]).expect_err("it is reset");
                    assert_eq!(meaning(error), Errno::CONNRESET);
                }
                Shuts => assert_eq!(Side::Overlay.shutdown(&sender), Err(Errno::NOTCONN)),
                AsksForTheError => assert_eq!(Side::Overlay.take_error(&sender), Some(Errno::CONNRESET)),
            }
            let is_told = !matches!(how, Closes | KeepsItOpen);
            if how == KeepsItOpen {
                sender = sender.try_clone().expect("a copy");
            } else {
                drop(sender);
                sender = File::open("/dev/null").expect("a file");
            }
            let left = a.server.undelivered();
            assert_eq!(left.lost_before, usize::from(!is_told), "{how:?} {size}");
            // For a few bytes, the peer's node has acknowledged all before they were discarded.
            assert_eq!(left.lost_before_bytes > 0, !is_told && size > 1_000_000, "{how:?} {size}");
            let delivered = match how {
                KeepsItOpen => a.server.drain_and_reset(Duration::from_secs(20)),
                _ => a.server.drain(Duration::from_secs(20)),
            };
            assert_eq!(delivered, is_told, "{how:?} {size}");
            drop(sender);
        }
    }
}

/// Returns the sender of a connection that the receiver has reset with `unread` bytes unread.
fn read_and_reset(a: &Served, b: &Served, unread: usize) -> File {
    let (sender, mut receiver) = a.connect(b);
    (&sender).write_all(&[7; 5000]).expect("room");
    receiver.read_exact(&mut vec![0; 5000 - unread]).expect("it comes");
    // The rest has come, too.
    assert!(unread == 0 || poll(&receiver, PollFlags::IN).contains(PollFlags::IN));
    Side::Overlay.reset_on_close(&receiver);
    drop(receiver);
    assert!(poll(&sender, PollFlags::empty()).contains(PollFlags::HUP), "it is not reset");
    sender
}

#[test]
fn a_reset_by_who_has_read_everything_loses_nothing() {
    for (unread, lost) in [(0, 0), (1, 1)] {
        let (a, b) = Served::pair();
        let sender = read_and_reset(&a, &b, unread);
        // As in the kernel, the call fails because the peer accepts nothing more.
        let copy = sender.try_clone().expect("a copy");
        drop(sender);
        assert_eq!(a.server.undelivered().lost_before, lost, "{unread} bytes unread");
        assert_eq!((&copy).read(&mut [0; 1]).expect_err("it is reset").kind(), ErrorKind::ConnectionReset);
        drop(copy);
        assert_eq!(a.server.drain(Duration::from_secs(20)), lost == 0, "{unread} bytes unread");
    }
}

/// The node may begin to end before it sees that the application has closed its descriptor. Busy traffic
/// meanwhile delays that event.
#[test]
fn what_a_program_has_not_read_when_it_ends_is_lost_though_its_node_ends_too() {
    for round in 0..60 {
        let (a, b) = Served::pair();
        let (mut sender, receiver) = a.connect(&b);
        let (busy, mut echo) = a.connect(&b);
        let busy = thread::spawn(move || {
            let echoing = thread::spawn(move || {
                let mut buf = [0; 1000];
                while echo.read_exact(&mut buf).and_then(|()| echo.write_all(&buf)).is_ok() {}
            });
            while (&busy).write_all(&[1; 1000]).and_then(|()| (&busy).read_exact(&mut [0; 1000])).is_ok() {}
            echoing.join().expect("no panic");
        });
        sender.write_all(&[7; 4000]).expect("room");
        Side::Overlay.shutdown(&sender).expect("it is connected");
        assert!(poll(&receiver, PollFlags::IN).contains(PollFlags::IN));
        drop(receiver);
        match round % 2 {
            0 => b.server.drain(Duration::from_secs(20)),
            _ => b.server.drain_and_reset(Duration::from_secs(20)),
        };
        let error = sender.read_to_end(&mut Vec::new()).expect_err("it was not read");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "round {round}");
        drop(sender);
        a.server.drain_and_reset(Duration::from_secs(20));
        busy.join().expect("no panic");
    }
}

/// A copy of the descriptor, for example the launcher's, may outlive the program for a moment.
#[test]
fn what_is_unread_when_a_node_ends_is_not_delivered_though_a_descriptor_is_still_open() {
    for resets in [false, true] {
        let (a, b) = Served::pair();
        let (mut sender, receiver) = a.connect(&b);
        sender.write_all(&[7; 4000]).expect("room");
        Side::Overlay.shutdown(&sender).expect("it is connected");
        // Data and end are there.
        assert!(poll(&receiver, PollFlags::RDHUP).contains(PollFlags::RDHUP));
        match resets {
            false => b.server.drain(Duration::from_secs(20)),
            true => b.server.drain_and_reset(Duration::from_secs(20)),
        };
        let error = sender.read_to_end(&mut Vec::new()).expect_err("it was not read");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "reset {resets}");
    }
}

/// Losses on a connection that was closed before concern only the node, as with the kernel.
#[test]
fn losses_of_what_was_closed_before_are_said_by_the_end_alone() {
    let (a, b) = Served::pair();
    let (mut sender, receiver) = a.connect(&b);
    sender.write_all(&[7; 4000]).expect("room");
    assert!(poll(&receiver, PollFlags::IN).contains(PollFlags::IN));
    drop(sender);
    Side::Overlay.reset_on_close(&receiver);
    drop(receiver);
    let mut probe = a.connect(&b);
    for _ in 0..10 {
        // The reset arrives with this traffic.
        probe.0.write_all(b"?").expect("room");
        probe.1.read_exact(&mut [0; 1]).expect("it comes");
        probe.1.write_all(b"!").expect("room");
        probe.0.read_exact(&mut [0; 1]).expect("it comes");
    }
    assert_eq!(a.server.undelivered().lost_before, 0);
    drop(probe);
    assert!(!a.server.drain(Duration::from_secs(20)));
}

#[test]
fn of_calls_that_nobody_sees_every_one_may_have_told() {
    let (a, b) = Served::pair();
    a.server.note_unseen_calls();
    let mut sender = reset_by_peer(&a, &b, 4000);
    sender.write_all(b"more").expect_err("it is reset");
    drop(sender);
    assert_eq!(a.server.undelivered().lost_before, 0);
    assert!(a.server.drain(Duration::from_secs(20)));
}

#[test]
fn a_node_that_ends_loses_nothing_that_its_own_sockets_have_read_from_each_other() {
    // The order of the two ends is random.
    for round in 0..8 {
        let (a, _b) = Served::pair();
        let (mut one, mut other) = a.connect(&a);
        one.write_all(b"hello").expect("room");
        other.read_exact(&mut [0; 5]).expect("what was sent");
        if round % 2 == 0 {
            other.write_all(b"hello").expect("room");
            one.read_exact(&mut [0; 5]).expect("what was sent");
        }
        assert!(a.server.drain_and_reset(Duration::from_secs(20)), "round {round}");
        drop((one, other));
    }
}
