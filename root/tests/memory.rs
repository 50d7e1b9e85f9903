//! Tests of the memory of a registered node and of a relayed frame: an allocator that counts, and real
//! handshakes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::wire::{NicknameClaim, NicknameMessage, Relayed, RootMessage};
use peersock_overlay::{Identity, Nickname};
use peersock_root::{Config, Root, Source};
use peersock_testnet::Counting;

#[expect(dead_code, reason = "the crate's own tests use all of it")]
#[path = "../src/tests/node.rs"]
mod node;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn config() -> Config {
    let mut config = Config::new(Arc::new(Identity::from_seed(&[200; 32])));
    // The test makes handshakes faster than the limits allow.
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
    // Sizes at which hash tables have just grown, which happens when seven eighths of a power of two are
    // full, or half of that with two entries for each node. Vectors have grown then, too.
    for most in [449, 513, 897, 1025] {
        while number < most {
            let mut seed = [3; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            let [.., a, b, c] = number.to_be_bytes();
            // The worst case: each node in a different prefix.
            let source = Source::Udp { socket: 0, remote: SocketAddr::from(([a + 11, b, c, 1], 4000)) };
            let mut node = node::Node::of(Identity::from_seed(&seed), source);
            node.connect(&mut world);
            // The replaced session is kept for a while, too.
            node.connect(&mut world);
            node.register(&mut world, 600);
            number += 1;
            world.now += Duration::from_millis(1);
        }
        let empty = {
            let before = Counting::in_use();
            let root = Root::new(config(), &[1; 32], now, Duration::ZERO);
            let size = Counting::in_use() - before;
            drop(root);
            size
        };
        let before = Counting::in_use();
        assert_eq!(world.root.registered(), most as usize);
        // The memory that is freed with the root is the memory that it had.
        let size = measure(&mut world, before);
        let each = (size - empty) / most as isize;
        eprintln!("{most} nodes: {each} bytes each, {empty} for a root without nodes");
        assert!(each <= 1024, "{each} bytes per node with {most}");
        assert!(each >= 300, "{each} bytes per node cannot be all");
        // The next round starts again.
        number = 0;
    }
}

#[test]
fn a_nickname_costs_less_than_a_kibibyte() {
    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    let now = Instant::now();
    let mut world = World { root: Root::new(config(), &[1; 32], now, Duration::ZERO), now };
    let (root, mut used) = (config().identity.node_id(), 0);
    for number in 0..300u32 {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let [.., b, c] = number.to_be_bytes();
        let remote = SocketAddr::from(([11, b, c, 1], 4000));
        let mut node = node::Node::of(Identity::from_seed(&seed), Source::Udp { socket: 0, remote });
        node.connect(&mut world);
        node.register(&mut world, 600);
        let name: Nickname = format!("{number:032}").parse().expect("the longest");
        let claim = NicknameClaim::sign(&node.identity, &root, &name, 1, 3600, 1);
        let message = RootMessage::Nickname(NicknameMessage::Claim { nickname: name, claim });
        let datagram = node.seal_message(&message);
        let before = Counting::in_use();
        world.root.handle_datagram(world.now, node.source, &datagram);
        let mut out = Vec::new();
        while world.root.poll_transmit(&mut out).is_some() {}
        drop(out);
        used += Counting::in_use() - before;
    }
    assert_eq!(world.root.nicknames(), 300);
    let each = used / 300;
    eprintln!("{each} bytes for a nickname");
    assert!((200..=1024).contains(&each), "{each} bytes for a nickname");
}

#[test]
fn a_frame_is_relayed_without_allocating() {
    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    let now = Instant::now();
    let mut world = World { root: Root::new(config(), &[1; 32], now, Duration::ZERO), now };
    let [a, b] = [1, 2].map(|seed| {
        let remote = SocketAddr::from(([10, 0, seed, 1], 4000));
        let mut node = node::Node::new(seed, Source::Udp { socket: 0, remote });
        node.connect(&mut world);
        node.register(&mut world, 600);
        node
    });
    let mut frame = a.frame(b.channel, &[0xd4; 1400]);
    let before = Counting::calls();
    for _ in 0..1000 {
        world.now += Duration::from_millis(1);
        frame[..12].copy_from_slice(&Relayed { token: a.token, channel: b.channel }.to_bytes());
        assert_eq!(world.root.relay(world.now, a.source, &mut frame), Some(b.source));
    }
    assert_eq!(Counting::calls() - before, 0);
}

/// Returns the bytes that a root holds: the memory freed when another root replaces it.
fn measure(world: &mut World, before: isize) -> isize {
    let fresh = Root::new(config(), &[1; 32], world.now, Duration::ZERO);
    let made = Counting::in_use() - before;
    drop(std::mem::replace(&mut world.root, fresh));
    before + made - Counting::in_use()
}
