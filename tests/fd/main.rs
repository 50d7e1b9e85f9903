//! Overlay sockets as file descriptors, between nodes on the loopback interface.

mod common;
mod connect;
mod limits;
mod listen;
mod stream;
