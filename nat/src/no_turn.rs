//! Stands in for `turn` in builds without the feature of that name: how users write servers is read all the
//! same, so that whoever names one can be told what is missing.

#[expect(dead_code, reason = "the password is for the client")]
#[path = "turn/server.rs"]
mod server;

pub use server::{TurnServer, TurnServerError, TurnTransport};
