#![forbid(unsafe_code)]
//! The TCP/IP stack of peersock: IP packets in, IP packets out, time as an argument.

mod batch;
mod config;
mod counters;
mod error;
mod flow;
mod gro;
mod gso;
mod icmp;
mod listener;
mod ready;
mod stack;
mod udp;

pub use batch::{Batch, Reply};
pub use config::{Cidr, Config, InterfaceConfig, InterfaceId, ParseCidrError, TcpOptions, UdpOptions};
pub use counters::Counters;
pub use error::Error;
pub use flow::{Egress, Flow};
pub use gro::{Coalescer, Flushed};
pub use gso::SuperSegment;
pub use icmp::{EchoReply, EchoRequest, IcmpSocket};
pub use listener::Listener;
pub use ready::{Ready, State};
pub use stack::Stack;
pub use udp::{Received, UdpRoute, UdpSocket};
