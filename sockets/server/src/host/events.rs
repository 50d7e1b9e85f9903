//! Events of the node, which a program reads from a descriptor.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, mpsc};
use std::task::Waker;

use peersock::attach::Wakeup;
use peersock::{Event, Events};
use peersock_fd::{Errno, peer_credentials};
use rustix::net::{AddressFamily, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType};

use super::{Hosted, Resident, down};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Time for which the node's side waits for the caller, which connects at once.
const CALLER_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Source of a program's events.
pub trait EventSource {
    /// Returns the next event, if one is available now. Otherwise the next event, or the end, wakes `waker`.
    fn poll_next(&self, waker: &Waker) -> Option<Event>;

    /// Returns true if the source has ended and all events were read.
    fn is_over(&self) -> bool;
}

impl EventSource for Events {
    fn poll_next(&self, waker: &Waker) -> Option<Event> {
        Events::poll_next(self, waker)
    }

    fn is_over(&self) -> bool {
        Events::is_over(self)
    }
}

impl<S: EventSource> EventSource for Arc<S> {
    fn poll_next(&self, waker: &Waker) -> Option<Event> {
        (**self).poll_next(waker)
    }

    fn is_over(&self) -> bool {
        (**self).is_over()
    }
}

/// Connects the caller with a resident's thread that sends it the events.
///
/// The two descriptor tables cannot exchange descriptors, so both ends meet at a socket name that the system
/// chooses.
pub(super) fn socket<R: Resident, S: EventSource>(
    hosted: &Hosted<R>,
    events: impl FnOnce(&R::Shared) -> io::Result<S> + Send + 'static,
    encode: impl Fn(&Event) -> Vec<u8> + Send + 'static,
) -> io::Result<OwnedFd> {
    let (done, name) = mpsc::sync_channel(1);
    hosted.send(move |resident, apart| {
        let (listener, name) = match listen() {
            Ok(listening) => listening,
            Err(error) => return drop(done.send(Err(io::Error::from(error)))),
        };
        // The caller connects as soon as it knows the name; the connection waits in the backlog.
        apart.spawn(resident.shared(), move |shared| {
            let events = match events(shared) {
                Ok(events) => events,
                Err(error) => return drop(done.send(Err(error))),
            };
            let _ = done.send(Ok(name));
            if let Some(end) = accept(&listener) {
                drop(listener);
                forward(&events, &end, encode);
            }
        });
    })?;
    let name = name.recv().map_err(|_| down())??;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let own = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&own, &name)?;
    Ok(own)
}

fn listen() -> Result<(OwnedFd, SocketAddrAny), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new_unnamed())?;
    rustix::net::listen(&listener, 1)?;
    let name = rustix::net::getsockname(&listener)?;
    Ok((listener, name))
}

/// Accepts the first connection of this process. Other programs can see the name, too.
fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    let own = rustix::process::getpid();
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        // After an interruption or a timeout `revents` is empty.
        let waited = poll(&mut fds, Some(&CALLER_TIMEOUT));
        if waited == Err(Errno::INTR) {
            continue;
        }
        if fds[0].revents().is_empty() {
            return None;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let end = rustix::net::accept_with(listener, flags).ok()?;
        if peer_credentials(end.as_fd()).is_ok_and(|peer| peer.pid == own.as_raw_pid()) {
            return Some(end);
        }
    }
}

/// Sends events until their source or the reader ends.
fn forward(events: &impl EventSource, end: &OwnedFd, encode: impl Fn(&Event) -> Vec<u8>) {
    let Ok(wakeup) = Wakeup::new() else { return };
    let wakeup = Arc::new(wakeup);
    let waker = Waker::from(Arc::clone(&wakeup));
    loop {
        while let Some(event) = events.poll_next(&waker) {
            match rustix::net::send(end, &encode(&event), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => tracing::debug!("an event found no room"),
                Err(_) => return,
            }
        }
        if events.is_over() {
            return;
        }
        // No flags: only detects whether the reader has gone.
        let mut fds = [PollFd::new(end, PollFlags::empty()), PollFd::new(&*wakeup, PollFlags::IN)];
        // After an interruption the loop checks again.
        let _ = poll(&mut fds, None);
        if !fds[0].revents().is_empty() {
            return;
        }
        wakeup.clear();
    }
}
