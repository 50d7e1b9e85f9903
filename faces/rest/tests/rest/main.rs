//! The server as its clients see it: two members of one network in this process, and clients by hand, so that
//! what they send is exactly what stands here.

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
