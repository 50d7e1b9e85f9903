//! Roots that announce themselves on the local networks.
//!
//! Any host there can send announcements, at any rate. Parsing one costs more than receiving it, because its
//! key is a point on a curve, which must be decompressed. So their rate is limited before they are parsed.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Instant;

use peersock_overlay::PublicIdentity;
use peersock_overlay::load::{Limiter, Rate};
use peersock_overlay::wire::Announcement;

use super::{RECEIVE_BATCH, UdpSockets, UdpStats, as_slices, receive_buffers};
use crate::driver::canonical;
use crate::sync;
use crate::sys::poll::{self, PollFd, PollFlags};

/// Rates and bursts of announcements that are parsed, in total and of each address. A root sends one from
/// each of its addresses in five seconds.
const ALL: (u32, u32) = (500, 250);
const EACH: (u32, u32) = (1, 4);

/// Callback for a root's announcement. It runs on the thread that reads the sockets, so it must not block.
pub(crate) type OnAnnouncement = dyn Fn(SocketAddr, PublicIdentity) + Send + Sync;

/// Callback with its rate limit.
pub(super) struct Announcements {
    listener: Box<OnAnnouncement>,
    limiter: Mutex<Limiter>,
}

impl Announcements {
    /// Builds the limiter.
    ///
    /// # Errors
    /// Fails if the system has no randomness.
    pub(super) fn new(listener: Box<OnAnnouncement>) -> io::Result<Announcements> {
        // Secret, so that strangers cannot choose addresses that share a bucket.
        let mut key = [0; 8];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let rate = |(rate, burst)| Rate::per_second(rate, burst);
        let limiter = Limiter::new(rate(ALL), rate(EACH), u64::from_be_bytes(key), Instant::now());
        Ok(Announcements { listener, limiter: Mutex::new(limiter) })
    }

    /// Parses an announcement, unless the rate is exceeded.
    pub(super) fn take(&self, now: Instant, remote: SocketAddr, datagram: &[u8], stats: &UdpStats) {
        if !sync::lock(&self.limiter).take_address(remote, now) {
            return stats.announcements_limited.increment();
        }
        if let Ok(announcement) = Announcement::parse(datagram) {
            (self.listener)(remote, announcement.identity);
        }
    }
}

impl UdpSockets {
    /// Reads announcements, and nothing else, until `until` or until `is_enough`. For programs that have
    /// sockets and no node that reads them.
    pub(crate) fn hear_announcements(&self, until: Instant, is_enough: impl Fn() -> bool) {
        let mut buffers = receive_buffers(BUFFER);
        let discovery = 0..self.discovery.len();
        while !is_enough() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let fd = |index| PollFd::from_borrowed_fd(self.fd(index), PollFlags::IN);
            let mut fds: Vec<_> = discovery.clone().map(fd).collect();
            poll::readable(&mut fds, Some(left));
            let readable = fds.iter().zip(discovery.clone()).filter(|(fd, _)| !fd.revents().is_empty());
            for (_, index) in readable {
                self.hear_once(index, &mut buffers);
            }
        }
    }

    fn hear_once(&self, index: usize, buffers: &mut [Vec<u8>; RECEIVE_BATCH]) {
        let mut meta = [quinn_udp::RecvMeta::default(); RECEIVE_BATCH];
        let received = self.receive(index, &mut as_slices(buffers), &mut meta).unwrap_or_default();
        for (meta, buffer) in meta.iter().zip(&*buffers).take(received) {
            // Unicast may come from outside the local network.
            if self.origin(index, meta).is_some_and(|origin| origin.multicast) {
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    self.take_announcement(Instant::now(), canonical(meta.addr), datagram);
                }
            }
        }
    }
}

/// Size limit of a GRO batch in bytes.
const BUFFER: usize = 65536;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use peersock_overlay::Identity;

    use super::*;

    #[test]
    fn a_flood_is_not_read_and_takes_nothing_from_other_addresses() {
        let heard = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&heard);
        let listener = move |_, _| _ = count.fetch_add(1, Ordering::SeqCst);
        let announcements = Announcements::new(Box::new(listener)).expect("randomness");
        let mut datagram = Vec::new();
        Announcement { identity: *Identity::from_seed(&[7; 32]).public() }.emit(&mut datagram);
        let (stats, now) = (UdpStats::default(), Instant::now());
        let flooder = SocketAddr::from(([192, 0, 2, 66], 4000));
        for _ in 0..10_000 {
            announcements.take(now, flooder, &datagram, &stats);
        }
        assert_eq!(heard.swap(0, Ordering::SeqCst), EACH.1 as usize);
        assert_eq!(stats.announcements_limited.get(), 10_000 - u64::from(EACH.1));
        // A neighbour in the same prefix, and another port of the same machine.
        for other in [([192, 0, 2, 1], 7420).into(), SocketAddr::new(flooder.ip(), 7420)] {
            announcements.take(now, other, &datagram, &stats);
        }
        assert_eq!(heard.swap(0, Ordering::SeqCst), 2);
        // Many addresses share a limit, which recovers.
        for port in 1..=u16::MAX {
            announcements.take(now, ([198, 51, 100, 1], port).into(), &datagram, &stats);
        }
        assert!(heard.swap(0, Ordering::SeqCst) < ALL.1 as usize);
        let later = now + Duration::from_secs(10);
        announcements.take(later, flooder, &datagram, &stats);
        assert_eq!(heard.load(Ordering::SeqCst), 1);
    }
}
