//! Main loop: waits for the first event, hands it to the state machine, and sends the results.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use peersock_overlay::wire::MessageType;
use quinn_udp::RecvMeta;
use tokio::sync::mpsc;

use super::batch::{self, Gathering};
use super::directory::Heard;
use super::streams::{Arrived, Streams};
use super::udp::{SPACING, Sockets, TRAIN, TRAINS};
use super::{Gauges, clocks};
use crate::{Root, Source, stun};

/// Number of datagrams read from one socket before the resulting frames leave, and other sockets get their
/// turn. More of them mean more frames per train. Under load that shortens the wait of each datagram.
const DATAGRAMS_PER_TURN: u64 = 512;

/// Interval at which the state machine gets the system's clock, because it may be set.
const CLOCK: Duration = Duration::from_secs(60);

/// Time that stream connections have to end, and the interval of the check.
const STREAMS_END: Duration = Duration::from_millis(1500);
const STREAMS_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Running server.
pub(super) struct Run {
    root: Root,
    sockets: Sockets,
    streams: Option<Streams>,
    /// Receiver of the shared directory's messages.
    heard: Option<mpsc::Receiver<Heard>>,
    gauges: Arc<Gauges>,
    gathering: Gathering,
    buffers: Box<[u8]>,
    transmit: Vec<u8>,
    /// Number of the socket to poll first.
    next_socket: usize,
    clock_told: Instant,
}

enum Woken {
    Readable(usize),
    Arrived(Vec<Arrived>),
    Heard(Option<Heard>),
    Time,
    Shutdown,
}

impl Run {
    pub(super) fn new(
        root: Root,
        sockets: Sockets,
        streams: Option<Streams>,
        gathering: Gathering,
        gauges: Arc<Gauges>,
        heard: Option<mpsc::Receiver<Heard>>,
    ) -> Self {
        Self {
            root,
            sockets,
            streams,
            heard,
            gauges,
            gathering,
            buffers: vec![0; SPACING * TRAINS].into_boxed_slice(),
            transmit: Vec::new(),
            next_socket: 0,
            clock_told: clocks().0,
        }
    }

    pub(super) async fn until(
        mut self,
        shutdown: impl Future<Output = ()>,
        drain: Duration,
    ) -> io::Result<()> {
        let mut shutdown = std::pin::pin!(shutdown);
        // `None` while serving, then the time to end.
        let mut end: Option<Instant> = None;
        // One timer, reset only when the next deadline changes: most datagrams change none.
        let mut armed = self.clock_told + CLOCK;
        let mut timer = std::pin::pin!(tokio::time::sleep_until(armed.into()));
        loop {
            self.show();
            let (now, _) = clocks();
            if let Some(end) = end
                && (now >= end || self.root.nodes() == 0)
            {
                return self.close().await;
            }
            let wake = [self.root.poll_timeout(), end]
                .into_iter()
                .flatten()
                .fold(self.clock_told + CLOCK, Instant::min);
            if wake != armed {
                armed = wake;
                timer.as_mut().reset(wake.into());
            }
            let (sockets, first) = (&self.sockets, self.next_socket);
            let woken = tokio::select! {
                readable = poll_fn(|context| sockets.poll_readable(context, first)) => Woken::Readable(readable?),
                Some(arrived) = arrived(&mut self.streams) => Woken::Arrived(arrived),
                heard = receive(&mut self.heard), if self.heard.is_some() => Woken::Heard(heard),
                () = &mut timer => Woken::Time,
                () = &mut shutdown, if end.is_none() => Woken::Shutdown,
            };
            let (now, unix_time) = clocks();
            match woken {
                Woken::Readable(number) => self.receive(number),
                Woken::Arrived(arrived) => arrived.into_iter().for_each(|one| self.take_arrived(now, one)),
                Woken::Heard(Some(Heard::Answer(question, answer))) => {
                    self.root.handle_answer(now, question, answer);
                }
                Woken::Heard(Some(Heard::Back)) => self.root.handle_directory_back(now),
                Woken::Heard(None) => self.heard = None,
                Woken::Time => {}
                Woken::Shutdown => {
                    tracing::info!(nodes = self.root.nodes(), seconds = drain.as_secs(), "draining");
                    end = Some(now + drain);
                    self.gauges.draining.store(1, Ordering::Relaxed);
                    self.root.drain(now);
                }
            }
            if now >= self.clock_told + CLOCK {
                self.clock_told = now;
                self.root.set_unix_time(now, unix_time);
            }
            // Checked after every event, because under load the timer may never be the first one.
            if self.root.poll_timeout().is_some_and(|at| at <= now) {
                self.root.handle_timeout(now);
            }
            self.transmit();
        }
    }

    /// Reads a bounded number of batches from a socket.
    fn receive(&mut self, number: usize) {
        self.next_socket = (number + 1) % self.sockets.len();
        let mut memory = std::mem::take(&mut self.buffers);
        let end = self.gauges.traffic.received.get() + DATAGRAMS_PER_TURN;
        while self.gauges.traffic.received.get() < end {
            let mut metas = [RecvMeta::default(); TRAINS];
            let mut chunks = memory.chunks_exact_mut(SPACING);
            let mut next = || &mut chunks.next().expect("as many as trains")[..TRAIN];
            let mut buffers: [IoSliceMut<'_>; TRAINS] = std::array::from_fn(|_| IoSliceMut::new(next()));
            self.gauges.traffic.receive_calls.increment();
            // The socket is empty, or an error belongs to an earlier datagram, which a root ignores.
            let Ok(count) = self.sockets.receive(number, &mut buffers, &mut metas) else { break };
            let (now, _) = clocks();
            for (buffer, meta) in buffers.iter_mut().zip(&metas).take(count) {
                self.take_train(now, number, meta, &mut buffer[..meta.len]);
            }
            self.transmit();
            if count < TRAINS {
                break;
            }
        }
        // Single datagrams of all batches leave together, because a call costs the same for one and for many.
        self.gathering.flush(&self.sockets, &self.gauges);
        self.buffers = memory;
    }

    /// Handles datagrams of one source, `meta.stride` bytes each, the last one may be shorter.
    fn take_train(&mut self, now: Instant, number: usize, meta: &RecvMeta, train: &mut [u8]) {
        let source = self.sockets.source(number, meta);
        let is_second = self.sockets.is_second(number);
        let stride = meta.stride.max(1);
        self.gauges.traffic.received.add(train.len().div_ceil(stride) as u64);
        // Start and common destination of the current run of frames.
        let mut run: Option<(usize, (u16, std::net::SocketAddr))> = None;
        for start in (0..train.len()).step_by(stride) {
            let end = (start + stride).min(train.len());
            let frame = &mut train[start..end];
            // Relayed frames skip `handle_datagram`, because it would copy them.
            let to = if is_second {
                self.root.handle_stun(now, source, None, frame);
                None
            } else if frame[0] == MessageType::Relayed as u8 {
                self.root.relay(now, source, frame)
            } else if stun::is_stun(frame) {
                let second = self.sockets.second_port(source);
                self.root.handle_stun(now, source, second, frame);
                None
            } else {
                self.root.handle_datagram(now, source, frame);
                None
            };
            let there = to.and_then(batch::udp);
            if let Some(Source::Stream { number, .. }) = to {
                self.to_stream(number, train[start..end].to_vec());
            }
            if let Some((from, before)) = run
                && there != Some(before)
            {
                self.pass_on(before, &train[from..start], stride, meta);
                run = None;
            }
            if run.is_none() {
                run = there.map(|there| (start, there));
            }
        }
        if let Some((from, there)) = run {
            self.pass_on(there, &train[from..], stride, meta);
        }
    }

    fn pass_on(&mut self, to: (u16, std::net::SocketAddr), frames: &[u8], stride: usize, meta: &RecvMeta) {
        // The segment size of a single frame is its length.
        let segment = stride.min(frames.len());
        self.gathering.add(&self.sockets, &self.gauges, to, frames, segment, meta.ecn);
    }

    /// Handles an event of a stream connection.
    fn take_arrived(&mut self, now: Instant, arrived: Arrived) {
        let (source, mut datagram) = match arrived {
            Arrived::Datagram(source, datagram) => (source, datagram),
            Arrived::Closed(source) => return self.root.handle_disconnect(source),
        };
        // As for UDP: relayed frames are rewritten in place.
        if datagram.first() == Some(&(MessageType::Relayed as u8)) {
            if let Some(to) = self.root.relay(now, source, &mut datagram) {
                self.send(to, datagram);
            }
        } else {
            self.root.handle_datagram(now, source, &datagram);
        }
        if let (Some(streams), Source::Stream { number, .. }) = (&mut self.streams, source) {
            streams.admit_if(number, || self.root.is_used(&source));
        }
        // Answers leave before the next datagram is handled, because the outbox is bounded.
        self.transmit();
    }

    /// Sends the state machine's datagrams.
    fn transmit(&mut self) {
        let mut datagram = std::mem::take(&mut self.transmit);
        while let Some(to) = self.root.poll_transmit(&mut datagram) {
            self.send(to, std::mem::take(&mut datagram));
        }
        self.transmit = datagram;
    }

    fn send(&self, to: Source, datagram: Vec<u8>) {
        match to {
            Source::Udp { socket, remote } => {
                batch::send_one(&self.sockets, &self.gauges, (socket, remote), &datagram);
            }
            Source::Stream { number, .. } => self.to_stream(number, datagram),
        }
    }

    fn to_stream(&self, number: u64, datagram: Vec<u8>) {
        if !self.streams.as_ref().is_some_and(|streams| streams.send(number, datagram)) {
            self.gauges.traffic.stream_dropped.increment();
        }
    }

    /// Says goodbye to all nodes, a bounded number at a time.
    async fn close(mut self) -> io::Result<()> {
        self.root.close(clocks().0);
        self.transmit();
        while let Some(at) = self.root.poll_timeout().filter(|_| !self.root.has_told_all()) {
            tokio::time::sleep_until(at.into()).await;
            self.root.handle_timeout(clocks().0);
            self.transmit();
        }
        if let Some(streams) = self.streams.take() {
            let (handle, since) = (streams.handle().clone(), clocks().0);
            // Dropping the server ends the connections; their tasks have a second to write the rest.
            drop(streams);
            while handle.connections() > 0 && clocks().0 < since + STREAMS_END {
                tokio::time::sleep(STREAMS_POLL_INTERVAL).await;
            }
        }
        tracing::info!("ended");
        Ok(())
    }

    fn show(&self) {
        let Gauges { nodes, registered, nicknames, .. } = &*self.gauges;
        nodes.store(self.root.nodes() as u64, Ordering::Relaxed);
        registered.store(self.root.registered() as u64, Ordering::Relaxed);
        nicknames.store(self.root.nicknames() as u64, Ordering::Relaxed);
    }
}

/// Waits for events of stream connections; returns `None` at once without any.
async fn arrived(streams: &mut Option<Streams>) -> Option<Vec<Arrived>> {
    match streams {
        Some(streams) => Some(streams.recv().await),
        None => None,
    }
}

async fn receive(heard: &mut Option<mpsc::Receiver<Heard>>) -> Option<Heard> {
    match heard {
        Some(heard) => heard.recv().await,
        None => None,
    }
}
