//! Signals in the middle of everything that the library and the node do together: at each of the library's
//! system calls, with the same program on the kernel's sockets beside it.

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peersock_fd::{Client, Errno, Family, Kind, RecvFlags, SendFlags, Shutdown, SocketFlags};
use rustix::event::PollFlags;
use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::common::{Served, overlay, poll};
use crate::tracer::{Signals, Steps, is_allowed, trace};

/// The owner of the sockets that a program uses.
#[derive(Clone)]
enum World {
    Overlays(Arc<Client>),
    Kernels,
}

impl World {
    fn open(&self, kind: Kind, flags: SocketFlags) -> OwnedFd {
        match self {
            World::Overlays(client) => peersock_fd::open(client, Family::V6, kind, flags).expect("a socket"),
            World::Kernels => {
                let kind = if kind == Kind::Stream { SocketType::STREAM } else { SocketType::DGRAM };
                rustix::net::socket_with(AddressFamily::INET6, kind, flags, None).expect("a socket")
            }
        }
    }

    fn connect(&self, fd: &OwnedFd, remote: SocketAddr) -> Result<(), Errno> {
        match self {
            World::Overlays(_) => overlay(fd).connect(Some(remote)),
            World::Kernels => rustix::net::connect(fd, &remote),
        }
    }

    fn take_error(&self, fd: &OwnedFd) -> Result<(), Errno> {
        match self {
            World::Overlays(_) => overlay(fd).take_error().expect("an answer").map_or(Ok(()), Err),
            World::Kernels => sockopt::socket_error(fd).expect("an answer"),
        }
    }

    fn shut_writing(&self, fd: &OwnedFd) -> Result<(), Errno> {
        match self {
            World::Overlays(_) => overlay(fd).shutdown(Shutdown::Write),
            World::Kernels => rustix::net::shutdown(fd, Shutdown::Write),
        }
    }

    fn names(&self, fd: &OwnedFd) -> (SocketAddr, SocketAddr) {
        match self {
            World::Overlays(_) => {
                (overlay(fd).local_addr().expect("it is bound"), overlay(fd).peer_addr().expect("connected"))
            }
            World::Kernels => {
                let name = rustix::net::getsockname(fd).expect("it is bound");
                let peer = rustix::net::getpeername(fd).expect("a stream").expect("connected");
                (name.try_into().expect("of this family"), peer.try_into().expect("of this family"))
            }
        }
    }

    /// Binds a socket to a free port of this address, and gives it.
    fn bind(&self, fd: &OwnedFd, ip: Ipv6Addr) -> Result<SocketAddr, Errno> {
        let any = SocketAddr::new(ip.into(), 0);
        match self {
            World::Overlays(_) => {
                overlay(fd).bind(any)?;
                overlay(fd).local_addr()
            }
            World::Kernels => {
                rustix::net::bind(fd, &any)?;
                Ok(rustix::net::getsockname(fd)?.try_into().expect("of this family"))
            }
        }
    }

    fn listen(&self, fd: &OwnedFd) -> Result<(), Errno> {
        match self {
            World::Overlays(_) => overlay(fd).listen(4),
            World::Kernels => rustix::net::listen(fd, 4),
        }
    }

    fn accept(&self, fd: &OwnedFd) -> Result<OwnedFd, Errno> {
        match self {
            World::Overlays(_) => overlay(fd).accept(SocketFlags::empty()).map(|(fd, _)| fd),
            World::Kernels => rustix::net::accept(fd),
        }
    }

    fn send_to(&self, fd: &OwnedFd, data: &[u8], to: Option<SocketAddr>) -> Result<usize, Errno> {
        let data = [std::io::IoSlice::new(data)];
        match (self, to) {
            (World::Overlays(_), Some(to)) => overlay(fd).send_to(&data, SendFlags::empty(), to, None),
            (World::Overlays(_), None) => overlay(fd).send(&data, SendFlags::empty(), None),
            (World::Kernels, Some(to)) => rustix::net::sendto(fd, &data[0], SendFlags::empty(), &to),
            (World::Kernels, None) => rustix::net::send(fd, &data[0], SendFlags::empty()),
        }
    }

    fn receive_from(&self, fd: &OwnedFd, buf: &mut [u8]) -> Result<(usize, Option<SocketAddr>), Errno> {
        match self {
            World::Overlays(_) => {
                let received =
                    overlay(fd).recv_from(&mut [std::io::IoSliceMut::new(buf)], RecvFlags::empty())?;
                Ok((received.length, received.remote))
            }
            World::Kernels => {
                let (length, _, from) = rustix::net::recvfrom(fd, buf, RecvFlags::empty())?;
                Ok((length, from.map(|from| from.try_into().expect("of this family"))))
            }
        }
    }
}

const SENT: &[u8; 100] = &[b'a'; 100];

/// The ways in which a program goes on whose connect(2) was interrupted, or does not wait.
#[derive(Debug, Clone, Copy)]
enum How {
    ConnectsAgain,
    Polls,
    PollsWithoutWaiting,
    ConnectsAgainWithALimit,
}

/// A client that sends something and reads what comes back.
struct Echoed(World, SocketAddr, How);

impl Echoed {
    fn connect(&self, fd: &OwnedFd) -> Result<(), Errno> {
        let Self(world, remote, how) = self;
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
        let Self(world, remote, _) = self;
        let (_, peer) = world.names(fd);
        assert_eq!(peer, *remote);
        assert_eq!(retry_on_intr(|| rustix::io::write(fd, SENT))?, SENT.len());
        world.shut_writing(fd)?;
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
        if came == SENT { Ok("all came back".into()) } else { Ok(format!("{came:?} came back")) }
    }
}

impl Steps for Echoed {
    type Prepared = Option<OwnedFd>;

    fn prepare(&mut self) -> Self::Prepared {
        None
    }

    fn interrupted(&mut self, prepared: &mut Self::Prepared) -> String {
        let Self(world, _, how) = self;
        let flags = match how {
            How::PollsWithoutWaiting => SocketFlags::NONBLOCK,
            _ => SocketFlags::empty(),
        };
        let fd = world.open(Kind::Stream, flags);
        if let How::ConnectsAgainWithALimit = how {
            let limit = Some(Duration::from_millis(1));
            sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, limit).expect("an option");
        }
        let seen = self.connect(&fd).and_then(|()| self.exchange(&fd));
        *prepared = Some(fd);
        seen.unwrap_or_else(|error| error.to_string())
    }

    fn after(&mut self, prepared: Self::Prepared) -> String {
        let Self(world, ..) = self;
        format!("SO_ERROR {:?}", world.take_error(&prepared.expect("it was opened")))
    }
}

/// A server of one client, which is in the same process.
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
        retry_on_intr(|| rustix::io::write(&client, SENT))?;
        world.shut_writing(&client)?;
        let accepted = retry_on_intr(|| world.accept(&listener))?;
        assert_eq!(world.names(&accepted), (address, world.names(&client).0));
        let mut came = Vec::new();
        std::fs::File::from(accepted).read_to_end(&mut came).expect("it comes and ends");
        if came == SENT { Ok("all came".into()) } else { Ok(format!("{came:?} came")) }
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

/// The program sees the same with the kernel's sockets, wherever signals come, and with the overlay's.
fn is_the_same<S: Steps>(steps: impl Fn(bool) -> S, wanted: &str) {
    for signals in [Signals::One, Signals::OneThenWait, Signals::Storm] {
        for is_overlay in [false, true] {
            let seen = trace(signals, steps(is_overlay));
            // A socket is opened at least, and connected.
            assert!(seen.len() > 2, "{}", seen.len());
            for (call, seen) in seen.iter().enumerate() {
                assert_eq!(seen, wanted, "{signals:?} at call {call}, overlay: {is_overlay}");
            }
        }
    }
}

/// Sends back what comes, once it has all come: an overlay listener, and one of the kernel's.
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
    // Those that ask for nothing close at once.
    if file.read_to_end(&mut came).is_ok() {
        let _ = std::io::Write::write_all(&mut file, &came);
    }
}

fn everything_arrives_as_it_was_sent(test: &str, how: How) {
    if !is_allowed(test) {
        return;
    }
    let (a, b) = Served::pair();
    let (overlays, kernels) = echo(&b);
    let steps = |is_overlay| match is_overlay {
        true => Echoed(World::Overlays(Arc::clone(&a.client)), overlays, how),
        false => Echoed(World::Kernels, kernels, how),
    };
    is_the_same(steps, "all came back; SO_ERROR Ok(())");
}

#[test]
fn who_connects_again_after_a_signal_sends_and_receives_what_was_sent() {
    let test = "who_connects_again_after_a_signal_sends_and_receives_what_was_sent";
    everything_arrives_as_it_was_sent(test, How::ConnectsAgain);
}

#[test]
fn who_polls_after_a_signal_sends_and_receives_what_was_sent() {
    let test = "who_polls_after_a_signal_sends_and_receives_what_was_sent";
    everything_arrives_as_it_was_sent(test, How::Polls);
}

#[test]
fn signals_do_not_disturb_who_connects_without_waiting() {
    let test = "signals_do_not_disturb_who_connects_without_waiting";
    everything_arrives_as_it_was_sent(test, How::PollsWithoutWaiting);
}

#[test]
fn signals_do_not_disturb_who_waits_a_moment_only() {
    let test = "signals_do_not_disturb_who_waits_a_moment_only";
    everything_arrives_as_it_was_sent(test, How::ConnectsAgainWithALimit);
}

#[test]
fn a_refusal_is_told_once_wherever_signals_come() {
    if !is_allowed("a_refusal_is_told_once_wherever_signals_come") {
        return;
    }
    let (a, b) = Served::pair();
    let closed = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).expect("a socket");
    let local = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0);
    rustix::net::bind(&closed, &local).expect("a free port");
    let kernels = rustix::net::getsockname(&closed).expect("it is bound").try_into().expect("of its family");
    for how in [How::ConnectsAgain, How::Polls] {
        let steps = |is_overlay| match is_overlay {
            true => Echoed(World::Overlays(Arc::clone(&a.client)), SocketAddr::new(b.ip(), 9), how),
            false => Echoed(World::Kernels, kernels, how),
        };
        is_the_same(steps, &format!("{}; SO_ERROR Ok(())", Errno::CONNREFUSED));
    }
}

#[test]
fn whom_signals_interrupt_while_he_accepts_loses_nobody() {
    if !is_allowed("whom_signals_interrupt_while_he_accepts_loses_nobody") {
        return;
    }
    let a = Served::new("ff0001ffff000000");
    let steps = |is_overlay| match is_overlay {
        true => Accepts(World::Overlays(Arc::clone(&a.client)), a.network.address()),
        false => Accepts(World::Kernels, Ipv6Addr::LOCALHOST),
    };
    is_the_same(steps, "all came; ");
}

#[test]
fn datagrams_come_wherever_signals_come() {
    if !is_allowed("datagrams_come_wherever_signals_come") {
        return;
    }
    let a = Served::new("ff0001ffff000000");
    let steps = |is_overlay| match is_overlay {
        true => Datagrams(World::Overlays(Arc::clone(&a.client)), a.network.address()),
        false => Datagrams(World::Kernels, Ipv6Addr::LOCALHOST),
    };
    is_the_same(steps, "both came; ");
}
