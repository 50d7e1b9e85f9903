#![forbid(unsafe_code)]
//! The TCP/IP stack of peersock: IP packets in, IP packets out, time as an argument.

mod batch;
mod checksum;
mod clock;
mod config;
mod counters;
mod demux;
mod engine;
mod error;
mod flow;
mod gro;
mod gso;
mod icmp;
mod interface;
mod ip;
mod keyed;
mod listener;
mod ports;
mod queue;
mod ready;
mod receive;
mod stack;
mod tcp;
mod timers;
mod udp;

pub use batch::{Batch, Reply};
pub use config::{Cidr, Config, InterfaceConfig, InterfaceId, ParseCidrError, TcpOptions, UdpOptions};
pub use counters::Counters;
pub use error::Error;
pub use flow::{Egress, Flow};
pub use gro::{Coalescer, Flushed};
pub use gso::SuperSegment;
pub use icmp::{EchoReply, EchoRequest, IcmpSocket};
pub use ip::MAX_PACKET;
pub use listener::Listener;
pub use ready::{Ready, State};
pub use stack::Stack;
pub use udp::{Received, UdpRoute, UdpSocket};
