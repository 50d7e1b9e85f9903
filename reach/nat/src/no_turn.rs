//! Replaces `turn` in builds without the feature of that name. The text of servers is still parsed, so that a
//! user who names one gets an error that names the missing feature.

#[expect(dead_code, reason = "the password is for the client")]
#[path = "turn/server.rs"]
mod server;

pub use server::{TurnServer, TurnServerError, TurnTransport};
