//! What a registered node costs: an allocator that counts every byte, and real handshakes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use peersock_overlay::Identity;
use peersock_root::{Config, Root, Source};

#[expect(dead_code, reason = "the crate's own tests use all of it")]
#[path = "../src/tests/node.rs"]
mod node;

/// The system's allocator, counted: bytes that are asked for and not given back.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: each call is passed on unchanged to the system's allocator, which keeps the contract.
#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn config() -> Config {
    let mut config = Config::new(Arc::new(Identity::from_seed(&[200; 32])));
    // The test makes handshakes faster than anybody should.
    config.limits.handshakes_per_second = 1_000_000;
    config.limits.handshake_burst = 1_000_000;
    config
}

struct World {
    root: Root,
    now: Instant,
}

impl World {
    fn send(&mut self, from: Source, datagram: &[u8]) -> Vec<(Source, Vec<u8>)> {
        self.root.handle_datagram(self.now, from, datagram);
        let mut out = Vec::new();
        std::iter::from_fn(|| Some((self.root.poll_transmit(&mut out)?, out.clone()))).collect()
    }
}

#[test]
fn a_registered_node_costs_less_than_a_kibibyte() {
    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    let now = Instant::now();
    let mut world = World { root: Root::new(config(), &[1; 32], now, Duration::ZERO), now };
    let mut number = 0u32;
    // One more than a power of two, where tables have just grown, and a full one.
    for most in [1025, 2048, 4097] {
        while number < most {
            let mut seed = [3; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            let [.., a, b, c] = number.to_be_bytes();
            // The worst case: each at a prefix of its own.
            let source = Source::Udp { socket: 0, remote: SocketAddr::from(([a + 11, b, c, 1], 4000)) };
            let mut node = node::Node::of(Identity::from_seed(&seed), source);
            node.connect(&mut world);
            // The session before is kept for a while, too.
            node.connect(&mut world);
            node.register(&mut world, 600);
            number += 1;
            world.now += Duration::from_millis(1);
        }
        let empty = {
            let before = IN_USE.load(Ordering::Relaxed);
            let root = Root::new(config(), &[1; 32], now, Duration::ZERO);
            let size = IN_USE.load(Ordering::Relaxed) - before;
            drop(root);
            size
        };
        let before = IN_USE.load(Ordering::Relaxed);
        assert_eq!(world.root.registered(), most as usize);
        // What is given back when the root goes is what it had.
        let size = measure(&mut world, before);
        let each = (size - empty) / most as usize;
        eprintln!("{most} nodes: {each} bytes each, {empty} for a root without nodes");
        assert!(each <= 1024, "{each} bytes per node with {most}");
        assert!(each >= 300, "{each} bytes per node cannot be all");
        // The next round begins anew.
        number = 0;
    }
}

/// Bytes that a root holds: what is free once it is gone. Another one takes its place.
fn measure(world: &mut World, before: usize) -> usize {
    let fresh = Root::new(config(), &[1; 32], world.now, Duration::ZERO);
    let made = IN_USE.load(Ordering::Relaxed) - before;
    drop(std::mem::replace(&mut world.root, fresh));
    before + made - IN_USE.load(Ordering::Relaxed)
}
