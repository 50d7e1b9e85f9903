//! A BitTorrent DHT (BEP 5, BEP 44) without a connection to any other.

use std::net::{Ipv4Addr, SocketAddrV4};

use futures_lite::future::block_on;
use mainline::async_dht::AsyncDht;
use mainline::{Dht, Testnet};

/// Nodes of a DHT, which run until it is dropped.
pub struct LocalDht {
    nodes: Vec<AsyncDht>,
}

impl LocalDht {
    /// Starts nodes that know each other, on loopback only.
    ///
    /// # Panics
    /// The system has no sockets or threads left.
    pub fn new(nodes: usize) -> Self {
        let testnet = Testnet::builder(nodes).bind_address(Ipv4Addr::LOCALHOST).build();
        Self { nodes: testnet.expect("sockets").nodes.into_iter().map(Dht::as_async).collect() }
    }

    /// Starts one node on each address from `first` on, which this machine must have. Each enters by the
    /// first node.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn on_addresses(first: Ipv4Addr, nodes: u32) -> Self {
        const PORT: u16 = 6881;
        let start = |i| {
            let address = Ipv4Addr::from_bits(first.to_bits() + i);
            let mut builder = Dht::builder();
            builder.server_mode().bind_address(address).public_ip(address).port(PORT);
            match i {
                0 => builder.no_bootstrap(),
                _ => builder.bootstrap(&[SocketAddrV4::new(first, PORT)]),
            };
            builder.build().expect("sockets").as_async()
        };
        let nodes: Vec<AsyncDht> = (0..nodes).map(start).collect();
        for node in &nodes {
            block_on(node.bootstrapped());
        }
        Self { nodes }
    }

    /// Adds a node at that address of this machine.
    ///
    /// # Panics
    /// The address is not free, or as [`Self::new`].
    pub fn join_at(&mut self, address: SocketAddrV4) {
        let mut builder = Dht::builder();
        builder.server_mode().bind_address(*address.ip()).port(address.port()).bootstrap(&self.entries());
        let node = builder.build().expect("sockets").as_async();
        block_on(node.bootstrapped());
        self.nodes.push(node);
    }

    /// Ends the last `count` nodes.
    pub fn kill(&mut self, count: usize) {
        self.nodes.truncate(self.nodes.len().saturating_sub(count));
    }

    /// Returns the nodes' addresses.
    pub fn addresses(&self) -> Vec<SocketAddrV4> {
        self.nodes.iter().map(|node| block_on(node.info()).local_addr()).collect()
    }

    /// Returns the nodes by which others enter the DHT.
    pub fn entries(&self) -> Vec<SocketAddrV4> {
        self.addresses().into_iter().take(3).collect()
    }
}
