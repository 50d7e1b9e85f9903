//! The two hosts: settings, addresses, and the way packets travel between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_stack::{Cidr, Config, InterfaceConfig, Listener, TcpOptions};
use peersock_testnet::StackHost;

pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

/// Port of the listeners.
pub(super) const PORT: u16 = 80;

/// Bytes of a flow's queues.
pub(super) const SEND_BUFFER: usize = 16 << 10;
pub(super) const RECEIVE_BUFFER: usize = 64 << 10;
/// Maximum number of flows of one stack.
pub(super) const MAX_FLOWS: usize = 64;

/// Way that packets travel. Packets with checksums cannot be coalesced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Travel {
    Plain,
    Coalesced,
    Checked,
}

/// Makes host A or B, with an address of each family.
pub(super) fn host(side: usize, now: Instant, travel: Travel) -> StackHost {
    let config = Config {
        send_buffer: SEND_BUFFER,
        receive_buffer: RECEIVE_BUFFER,
        user_timeout: Duration::from_secs(100),
        max_flows: MAX_FLOWS,
        ..Config::default()
    };
    let cidr = |ipv6| Cidr::new(address(side, ipv6).ip(), 8).expect("a prefix");
    let mut interface = InterfaceConfig::new("net", [cidr(false), cidr(true)]);
    interface.checksums = travel == Travel::Checked;
    let coalesces = travel == Travel::Coalesced;
    StackHost::new(config, [side as u8; 32], interface, coalesces, now)
}

/// Listens on [`PORT`] of all addresses of one family.
pub(super) fn listen(host: &StackHost, now: Instant, ipv6: bool, backlog: usize) -> Arc<Listener> {
    let any = SocketAddr::new(if ipv6 { "::" } else { "0.0.0.0" }.parse().expect("an address"), PORT);
    let options = TcpOptions { reuse_address: true, ..TcpOptions::default() };
    host.stack.tcp_listen(now, Some(host.net), any, backlog, options).expect("the port is free")
}

/// Returns the address of a host's listener.
pub(super) fn address(side: usize, ipv6: bool) -> SocketAddr {
    let ip = match (side, ipv6) {
        (A, true) => "fd00::a",
        (_, true) => "fd00::b",
        (A, false) => "10.0.0.1",
        (_, false) => "10.0.0.2",
    };
    SocketAddr::new(ip.parse().expect("an address"), PORT)
}
