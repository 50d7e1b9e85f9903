//! The control state machine in virtual time.

mod discovery;
mod handshake;
mod hostile;
mod net;
mod paths;
mod recovery;
