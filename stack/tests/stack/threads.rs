//! Tests of flows and the stack called by several threads at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::pair::*;
use peersock_stack::*;

const LIMITS: Egress =
    Egress { segment: 1000, max_segments: 44, in_flight_cap: usize::MAX, checksums: false };

/// A stack with its interface and the outgoing wire.
struct Node {
    stack: Stack,
    net: InterfaceId,
    wire: Sender<Vec<u8>>,
}

impl Node {
    fn new(side: usize, start: Instant) -> (Self, Receiver<Vec<u8>>) {
        let stack = Stack::new(Config::default(), [side as u8; 32], start);
        let cidr = Cidr::new(address(side, true, 0).ip(), 8).unwrap();
        let net = stack.add_interface(InterfaceConfig::new("net", [cidr]));
        let (wire, packets) = channel();
        (Self { stack, net, wire }, packets)
    }

    #[expect(clippy::disallowed_methods, reason = "real threads need real time")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn kick(&self, flow: &Flow) {
        let mut buf = vec![0; MAX_PACKET];
        while let Some(mut packets) = flow.egress(self.now(), &LIMITS, &mut buf) {
            while let Some(packet) = packets.next(&mut buf) {
                // The other side may have finished.
                let _ = self.wire.send(packet.to_vec());
            }
        }
    }

    /// Runs the engine's thread.
    fn run(&self, arriving: Receiver<Vec<u8>>, stop: &AtomicBool) {
        let mut batch = Batch::new();
        while !stop.load(Ordering::Relaxed) {
            let first = arriving.recv_timeout(Duration::from_millis(1)).ok();
            for mut packet in first.into_iter().chain(arriving.try_iter().take(50)) {
                self.stack.receive(self.now(), self.net, &mut packet, &mut batch);
            }
            self.stack.handle_timeout(self.now(), &mut batch);
            for reply in batch.replies() {
                let _ = self.wire.send(reply.packet.to_vec());
            }
            for flow in &batch.flows {
                self.kick(flow);
            }
            batch.clear();
        }
    }

    fn send_all(&self, flow: &Flow, total: usize) {
        let mut sent = 0;
        while sent < total {
            let chunk: Vec<u8> = (sent..total.min(sent + 7777)).map(pattern).collect();
            match flow.write(self.now(), &chunk) {
                Ok(len) => sent += len,
                Err(Error::WouldBlock) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
            self.kick(flow);
        }
        flow.shutdown_write(self.now()).unwrap();
        self.kick(flow);
    }

    fn check_all(&self, flow: &Flow, total: usize) {
        let mut buf = vec![0; 5555];
        let mut read = 0;
        loop {
            match flow.read(self.now(), &mut buf) {
                Ok(0) => break,
                Ok(len) => {
                    assert!(buf[..len].iter().enumerate().all(|(at, &byte)| byte == pattern(read + at)));
                    read += len;
                    self.kick(flow);
                }
                Err(Error::WouldBlock) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(read, total);
    }
}

#[test]
fn two_threads_per_direction_and_an_engine_thread_per_side() {
    const TOTAL: usize = 5 << 20;
    #[expect(clippy::disallowed_methods, reason = "real threads need real time")]
    let start = Instant::now();
    let (a, to_b) = Node::new(A, start);
    let (b, to_a) = Node::new(B, start);
    let (a, b, stop) = (&a, &b, &AtomicBool::new(false));
    let listener =
        b.stack.tcp_listen(start, Some(b.net), address(B, true, 80), 8, TcpOptions::default()).unwrap();
    let client: Arc<Flow> =
        a.stack.tcp_connect(start, a.net, None, address(B, true, 80), TcpOptions::default()).unwrap();
    a.kick(&client);
    std::thread::scope(|scope| {
        scope.spawn(move || a.run(to_a, stop));
        scope.spawn(move || b.run(to_b, stop));
        let server: Arc<Flow> = loop {
            match listener.accept(b.now()) {
                Ok(flow) => break flow,
                Err(_) => std::thread::yield_now(),
            }
        };
        // Stops the threads even if an assertion below fails.
        let _stop = StopOnDrop(stop);
        std::thread::scope(|scope| {
            for (node, flow) in [(a, &client), (b, &server)] {
                scope.spawn(move || node.send_all(flow, TOTAL));
                scope.spawn(move || node.check_all(flow, TOTAL));
            }
        });
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
