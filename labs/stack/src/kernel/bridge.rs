//! An impaired link with the Linux kernel's TCP at both ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock_stack::MAX_PACKET;
use rustix::event::{EventfdFlags, eventfd};

use super::node::{PER_ROUND, device, wait_readable};
use super::road::Road;
use super::tun::Tun;
use super::{Namespace, Options, Punctuality, Side};
use crate::{Random, Time};

/// A link between two namespaces, with a kernel in place of the stack of a [`Node`](super::Node).
pub struct Bridge {
    stop: Arc<Stop>,
    punctuality: Arc<Punctuality>,
    carrier: Option<JoinHandle<()>>,
}

struct Stop {
    now: AtomicBool,
    wake: OwnedFd,
}

impl Bridge {
    /// Creates the link between `far`, which gets the stack's addresses, and `near`.
    /// Fails if creating a device fails, for example because it exists already.
    pub fn start(far: &Namespace, near: &Namespace, options: &Options) -> io::Result<Bridge> {
        let mut random = Random::new(options.seed);
        let punctuality = Arc::<Punctuality>::default();
        let line = Line {
            tuns: [device(far, options, Side::Stack)?, device(near, options, Side::Kernel)?],
            roads: [&options.outward, &options.inward]
                .map(|link| Road::new(link, options.delay, &mut random, punctuality.clone())),
            origin: Instant::now(),
        };
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let stop = Arc::new(Stop { now: AtomicBool::new(false), wake });
        let stopped = stop.clone();
        let carrier = thread::Builder::new().name("bridge".to_owned()).spawn(move || line.run(&stopped))?;
        Ok(Bridge { stop, punctuality, carrier: Some(carrier) })
    }

    /// Returns the timing record of the link.
    pub fn punctuality(&self) -> &Punctuality {
        &self.punctuality
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop.now.store(true, Ordering::Relaxed);
        // The thread may sleep until the next packet is due, so the event wakes it.
        let _ = rustix::io::write(&self.stop.wake, &1u64.to_ne_bytes());
        if let Some(carrier) = self.carrier.take() {
            // The thread returns no result.
            let _ = carrier.join();
        }
    }
}

struct Line {
    /// Devices of the far and the near end.
    tuns: [Tun; 2],
    /// Roads out of each device.
    roads: [Road; 2],
    origin: Instant,
}

impl Line {
    fn run(mut self, stop: &Stop) {
        let mut buf = vec![0; MAX_PACKET];
        while !stop.now.load(Ordering::Relaxed) {
            let arrival = self.roads.iter().filter_map(Road::next).min();
            let sleep = arrival.map(|at| Duration::from_nanos(at.saturating_sub(self.time())));
            wait_readable([self.tuns[0].as_fd(), self.tuns[1].as_fd(), stop.wake.as_fd()], sleep);
            let now = self.time();
            for (tun, road) in self.tuns.iter().zip(&mut self.roads) {
                for _ in 0..PER_ROUND {
                    let Ok(Some(len)) = tun.receive(&mut buf) else { break };
                    road.push(now, &buf[..len]);
                }
            }
            let [far, near] = &self.tuns;
            for (road, to) in self.roads.iter_mut().zip([near, far]) {
                road.deliver(now, |packet| to.send(packet));
            }
        }
    }

    fn time(&self) -> Time {
        self.origin.elapsed().as_nanos() as Time
    }
}
