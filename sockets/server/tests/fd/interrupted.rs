//! Signals in the middle of everything that the library and the node do together, at each system call of the
//! library. The same program runs with kernel sockets for comparison. A fork, and another call, are injected
//! likewise.

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use peersock_fd::{Errno, Kind, SendFlags, Shutdown, Socket, SocketFlags};
use rustix::event::PollFlags;
use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::common::{Served, overlay, poll};
use crate::requests::{FORKS, SIGNALS, is_the_same};
use crate::tracer::{Again, Signals, Steps, is_allowed};
use crate::world::World;

const SENT_BYTES: &[u8; 100] = &[b'a'; 100];

/// The bytes that another call writes.
const WRITTEN_BETWEEN: &[u8; 3] = b"bbb";

/// Ways in which a program goes on after an interrupted or non-blocking connect(2).
#[derive(Debug, Clone, Copy)]
enum How {
    ConnectsAgain,
    Polls,
    PollsWithoutWaiting,
    ConnectsAgainWithALimit,
}

/// A second call in the middle of a first one that may be connecting the socket. It connects the socket, or
/// writes to it.
#[derive(Clone, Default)]
struct Second(Arc<SecondCall>);

/// The action of a second call.
#[derive(Clone, Copy, Default, PartialEq)]
enum Action {
    #[default]
    Connects,
    Writes,
    WritesAndEnds,
}

#[derive(Default)]
struct SecondCall {
    action: Action,
    /// The number of bytes that it has written.
    written: AtomicUsize,
    /// The socket's number, or 0.
    fd: AtomicI32,
    /// Its first return value other than EALREADY and EISCONN, plus one.
    returned: AtomicI32,
}

impl Second {
    fn writing() -> Self {
        Self(Arc::new(SecondCall { action: Action::Writes, ..SecondCall::default() }))
    }

    fn ending() -> Self {
        Self(Arc::new(SecondCall { action: Action::WritesAndEnds, ..SecondCall::default() }))
    }

    /// Returns true if the call has ended the stream.
    fn has_ended(&self) -> bool {
        self.0.action == Action::WritesAndEnds && self.0.written.load(Ordering::Relaxed) > 0
    }

    /// Enables the call.
    fn begin(&self, fd: &OwnedFd) {
        self.0.written.store(0, Ordering::Relaxed);
        self.0.returned.store(0, Ordering::Relaxed);
        self.0.fd.store(fd.as_raw_fd(), Ordering::Relaxed);
    }

    /// Disables the call.
    fn end(&self) {
        self.0.fd.store(0, Ordering::Relaxed);
    }

    /// Returns true if the call has returned this value.
    fn has_returned(&self, returned: Result<(), Errno>) -> bool {
        self.0.returned.load(Ordering::Relaxed) == errno_of(returned) + 1
    }

    fn of(&self, remote: SocketAddr) -> Again {
        let second = Arc::clone(&self.0);
        Box::new(move || {
            let number = second.fd.load(Ordering::Relaxed);
            if number == 0 {
                return;
            }
            // SAFETY: it is open as long as its number is set.
            #[allow(unsafe_code)]
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            if second.action != Action::Connects {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                let written = rustix::net::send(fd, WRITTEN_BETWEEN, flags).unwrap_or(0);
                second.written.fetch_add(written, Ordering::Relaxed);
                if second.action == Action::WritesAndEnds && written > 0 {
                    let _ = rustix::net::shutdown(fd, Shutdown::Write);
                }
                return;
            }
            let returned = match Socket::of(fd) {
                Some(socket) if socket.kind() == Kind::Stream => socket.begin_connect(Some(remote)),
                Some(socket) => socket.connect(Some(remote)),
                None => rustix::net::connect(fd, &remote),
            };
            if !matches!(returned, Err(Errno::ALREADY | Errno::ISCONN)) {
                let (seen, order) = (errno_of(returned) + 1, Ordering::Relaxed);
                let _ = second.returned.compare_exchange(0, seen, order, order);
            }
        })
    }
}

fn errno_of(returned: Result<(), Errno>) -> i32 {
    returned.map_or_else(Errno::raw_os_error, |()| 0)
}

/// A client that sends data and reads the echo.
struct Echoed(World, SocketAddr, How, Second);

impl Echoed {
    fn connect(&self, fd: &OwnedFd) -> Result<(), Errno> {
        match self.connect_once_or_again(fd) {
            // The other call has returned that it is connected, or in progress.
            Err(Errno::ISCONN) if self.3.has_returned(Ok(())) || self.3.has_ended() => Ok(()),
            Err(Errno::ALREADY) if self.3.has_returned(Err(Errno::INPROGRESS)) => {
                poll(fd, PollFlags::OUT);
                self.0.take_error(fd)
            }
            connected => connected,
        }
    }

    fn connect_once_or_again(&self, fd: &OwnedFd) -> Result<(), Errno> {
        let Self(world, remote, how, _) = self;
        let mut connected = world.connect(fd, *remote);
        match how {
            How::ConnectsAgain | How::ConnectsAgainWithALimit => {
                while let Err(Errno::INTR | Errno::INPROGRESS | Errno::ALREADY) = connected {
                    thread::sleep(Duration::from_micros(100));
                    connected = world.connect(fd, *remote);
                }
                connected
            }
            How::Polls | How::PollsWithoutWaiting => match connected {
                Err(Errno::INTR | Errno::INPROGRESS) => {
                    poll(fd, PollFlags::OUT);
                    world.take_error(fd)
                }
                connected => connected,
            },
        }
    }

    fn exchange(&self, fd: &OwnedFd) -> Result<String, Errno> {
        let Self(world, remote, ..) = self;
        // A connection whose other end has ended too has no peer any more.
        if self.3.0.action != Action::WritesAndEnds {
            assert_eq!(world.names(fd).1, *remote);
        }
        let send = || rustix::net::send(fd, SENT_BYTES, SendFlags::NOSIGNAL);
        let sent = match retry_on_intr(send) {
            Err(Errno::PIPE) if self.3.has_ended() => &SENT_BYTES[..0],
            sent => &SENT_BYTES[..sent?],
        };
        match world.shut_writing(fd) {
            Err(_) if self.3.has_ended() => {}
            shut => shut?,
        }
        let mut came = Vec::new();
        loop {
            let mut buf = [0; 512];
            match retry_on_intr(|| rustix::io::read(fd, &mut buf)) {
                Ok(0) => break,
                Ok(length) => came.extend_from_slice(&buf[..length]),
                Err(Errno::AGAIN) => drop(poll(fd, PollFlags::IN)),
                Err(error) => return Err(error),
            }
        }
        let between = came.extract_if(.., |byte| *byte == WRITTEN_BETWEEN[0]).count();
        if came == sent && between == self.3.0.written.load(Ordering::Relaxed) {
            Ok("all came back".into())
        } else {
            Ok(format!("{came:?} came back, and {between} bytes of the other call"))
        }
    }
}

impl Steps for Echoed {
    type Prepared = Option<OwnedFd>;

    fn prepare(&mut self) -> Self::Prepared {
        None
    }

    fn interrupted(&mut self, prepared: &mut Self::Prepared) -> String {
        let Self(world, _, how, second) = &*self;
        let flags = match how {
            How::PollsWithoutWaiting => SocketFlags::NONBLOCK,
            _ => SocketFlags::empty(),
        };
        let fd = world.open(Kind::Stream, flags);
        if let How::ConnectsAgainWithALimit = how {
            let limit = Some(Duration::from_millis(1));
            sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, limit).expect("an option");
        }
        second.begin(&fd);
        let seen = self.connect(&fd).and_then(|()| self.exchange(&fd));
        second.end();
        *prepared = Some(fd);
        seen.unwrap_or_else(|error| error.to_string())
    }

    fn after(&mut self, prepared: Self::Prepared) -> String {
        let Self(world, ..) = self;
        format!("SO_ERROR {:?}", world.take_error(&prepared.expect("it was opened")))
    }

    fn again(&self) -> Option<Again> {
        Some(self.3.of(self.1))
    }
}

/// A server with one client in the same process.
struct Accepts(World, Ipv6Addr);

impl Accepts {
    fn serve(&self) -> Result<String, Errno> {
        let Self(world, ip) = self;
        let listener = world.open(Kind::Stream, SocketFlags::empty());
        let address = world.bind(&listener, *ip)?;
        world.listen(&listener)?;
        let client = world.open(Kind::Stream, SocketFlags::NONBLOCK);
        assert_eq!(world.connect(&client, address), Err(Errno::INPROGRESS));
        poll(&client, PollFlags::OUT);
        world.take_error(&client)?;
        retry_on_intr(|| rustix::io::write(&client, SENT_BYTES))?;
        world.shut_writing(&client)?;
        let accepted = retry_on_intr(|| world.accept(&listener))?;
        assert_eq!(world.names(&accepted), (address, world.names(&client).0));
        let mut came = Vec::new();
        std::fs::File::from(accepted).read_to_end(&mut came).expect("it comes and ends");
        if came == SENT_BYTES { Ok("all came".into()) } else { Ok(format!("{came:?} came")) }
    }
}

impl Steps for Accepts {
    type Prepared = ();

    fn prepare(&mut self) {}

    fn interrupted(&mut self, (): &mut ()) -> String {
        self.serve().unwrap_or_else(|error| error.to_string())
    }

    fn after(&mut self, (): ()) -> String {
        String::new()
    }
}

/// Two UDP sockets that send to each other.
struct Datagrams(World, Ipv6Addr);

impl Datagrams {
    fn exchange(&self) -> Result<String, Errno> {
        let Self(world, ip) = self;
        let [server, client] = [(); 2].map(|()| world.open(Kind::Datagram, SocketFlags::empty()));
        let address = world.bind(&server, *ip)?;
        world.connect(&client, address)?;
        retry_on_intr(|| world.send_to(&client, b"there", None))?;
        let mut buf = [0; 100];
        let (length, from) = retry_on_intr(|| world.receive_from(&server, &mut buf))?;
        let from = from.expect("a sender");
        assert_eq!((&buf[..length], from), (&b"there"[..], world.names(&client).0));
        retry_on_intr(|| world.send_to(&server, b"and back", Some(from)))?;
        let (length, from) = retry_on_intr(|| world.receive_from(&client, &mut buf))?;
        assert_eq!((&buf[..length], from), (&b"and back"[..], Some(address)));
        Ok("both came".into())
    }
}

impl Steps for Datagrams {
    type Prepared = ();

    fn prepare(&mut self) {}

    fn interrupted(&mut self, (): &mut ()) -> String {
        self.exchange().unwrap_or_else(|error| error.to_string())
    }

    fn after(&mut self, (): ()) -> String {
        String::new()
    }
}

/// Starts an overlay listener and a kernel listener that echo all data at its end.
fn echo(served: &Served) -> (SocketAddr, SocketAddr) {
    let (listener, overlays) = served.listen(SocketFlags::empty());
    thread::spawn(move || {
        while let Ok((accepted, _)) = overlay(&listener).accept(SocketFlags::empty()) {
            send_back(accepted);
        }
    });
    let listener = TcpListener::bind("[::1]:0").expect("a free port");
    let kernels = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        while let Ok((accepted, _)) = listener.accept() {
            send_back(accepted.into());
        }
    });
    (overlays, kernels)
}

fn send_back(accepted: OwnedFd) {
    let mut came = Vec::new();
    let mut file = std::fs::File::from(accepted);
    // A connection that was closed without data needs no answer.
    if file.read_to_end(&mut came).is_ok() {
        let _ = std::io::Write::write_all(&mut file, &came);
    }
}

fn everything_arrives_as_it_was_sent(test: &str, signals: &[Signals], how: How) {
    everything_arrives_with_a_second_call(test, signals, how, Second::default);
}

fn everything_arrives_with_a_second_call(test: &str, signals: &[Signals], how: How, second: fn() -> Second) {
    if !is_allowed(test) {
        return;
    }
    let (a, b) = Served::pair();
    let (overlays, kernels) = echo(&b);
    let steps = |is_overlay| match is_overlay {
        true => Echoed(World::Overlays(Arc::clone(&a.client)), overlays, how, second()),
        false => Echoed(World::Kernels, kernels, how, second()),
    };
    is_the_same(test, signals, steps, "all came back; SO_ERROR Ok(())");
}

#[test]
pub(crate) fn who_connects_again_after_a_signal_sends_and_receives_what_was_sent() {
    let test = "who_connects_again_after_a_signal_sends_and_receives_what_was_sent";
    everything_arrives_as_it_was_sent(test, &SIGNALS, How::ConnectsAgain);
}

#[test]
pub(crate) fn who_polls_after_a_signal_sends_and_receives_what_was_sent() {
    let test = "who_polls_after_a_signal_sends_and_receives_what_was_sent";
    everything_arrives_as_it_was_sent(test, &SIGNALS, How::Polls);
}

#[test]
pub(crate) fn signals_do_not_disturb_who_connects_without_waiting() {
    let test = "signals_do_not_disturb_who_connects_without_waiting";
    everything_arrives_as_it_was_sent(test, &SIGNALS, How::PollsWithoutWaiting);
}

#[test]
fn signals_do_not_disturb_who_waits_a_moment_only() {
    let test = "signals_do_not_disturb_who_waits_a_moment_only";
    everything_arrives_as_it_was_sent(test, &SIGNALS, How::ConnectsAgainWithALimit);
}

#[test]
fn children_that_are_forked_while_it_connects_disturb_nothing() {
    let test = "children_that_are_forked_while_it_connects_disturb_nothing";
    for how in [How::ConnectsAgain, How::PollsWithoutWaiting] {
        everything_arrives_as_it_was_sent(test, &FORKS, how);
    }
}

#[test]
fn a_second_call_while_it_connects_disturbs_nothing() {
    let test = "a_second_call_while_it_connects_disturbs_nothing";
    for how in [How::ConnectsAgain, How::Polls, How::PollsWithoutWaiting, How::ConnectsAgainWithALimit] {
        everything_arrives_as_it_was_sent(test, &[Signals::Again], how);
    }
}

#[test]
fn what_another_call_writes_while_it_connects_arrives_too() {
    let test = "what_another_call_writes_while_it_connects_arrives_too";
    for how in [How::ConnectsAgain, How::Polls, How::PollsWithoutWaiting] {
        everything_arrives_with_a_second_call(test, &[Signals::Again], how, Second::writing);
    }
}

#[test]
fn what_another_call_writes_and_ends_while_it_connects_arrives_whole() {
    let test = "what_another_call_writes_and_ends_while_it_connects_arrives_whole";
    for how in [How::ConnectsAgain, How::Polls, How::PollsWithoutWaiting] {
        everything_arrives_with_a_second_call(test, &[Signals::Again], how, Second::ending);
    }
}

#[test]
fn a_refusal_is_told_once_wherever_signals_come() {
    let test = "a_refusal_is_told_once_wherever_signals_come";
    if !is_allowed(test) {
        return;
    }
    let (a, b) = Served::pair();
    let closed = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).expect("a socket");
    let local = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0);
    rustix::net::bind(&closed, &local).expect("a free port");
    let kernels = rustix::net::getsockname(&closed).expect("it is bound").try_into().expect("of its family");
    for how in [How::ConnectsAgain, How::Polls] {
        let steps = |is_overlay| match is_overlay {
            true => Echoed(
                World::Overlays(Arc::clone(&a.client)),
                SocketAddr::new(b.ip(), 9),
                how,
                Second::default(),
            ),
            false => Echoed(World::Kernels, kernels, how, Second::default()),
        };
        is_the_same(
            test,
            &[SIGNALS, FORKS].concat(),
            steps,
            &format!("{}; SO_ERROR Ok(())", Errno::CONNREFUSED),
        );
    }
}

#[test]
pub(crate) fn whom_signals_interrupt_while_he_accepts_loses_nobody() {
    in_one_place("whom_signals_interrupt_while_he_accepts_loses_nobody", Accepts, "all came; ");
}

#[test]
pub(crate) fn datagrams_come_wherever_signals_come() {
    in_one_place("datagrams_come_wherever_signals_come", Datagrams, "both came; ");
}

/// Compares a program that has both ends of its sockets.
fn in_one_place<S: Steps>(test: &str, steps: fn(World, Ipv6Addr) -> S, wanted: &str) {
    if !is_allowed(test) {
        return;
    }
    let a = Served::new("ff0001ffff000000");
    let steps = |is_overlay| match is_overlay {
        true => steps(World::Overlays(Arc::clone(&a.client)), a.network.address()),
        false => steps(World::Kernels, Ipv6Addr::LOCALHOST),
    };
    is_the_same(test, &[SIGNALS, FORKS].concat(), steps, wanted);
}
