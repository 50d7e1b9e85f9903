//! Overlay sockets as file descriptors, between nodes on the loopback interface.

mod aliases;
mod alongside;
mod ancillary;
mod closing;
mod common;
mod connect;
mod datagram;
mod headers;
mod host;
mod icmp;
mod interrupted;
mod limits;
mod linger;
mod listen;
mod loss;
mod multicast;
mod narrow;
mod options;
mod path_mtu;
mod pending;
mod raw;
mod segments;
mod strangers;
mod stream;
mod tracer;
mod world;
