//! The server as its clients see it: two members of one network in this process, and hand-written clients, so
//! that the tests show the exact bytes sent.

mod access;
mod client;
mod ends;
mod hostile;
mod listeners;
mod node;
mod p2pd;
mod pipes;
mod scene;
mod websocket;
