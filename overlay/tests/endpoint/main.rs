//! The control state machine in virtual time.

mod handshake;
mod net;
