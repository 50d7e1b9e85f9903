//! The control state machine in virtual time.

mod discovery;
mod duplicates;
mod forgetting;
mod handshake;
mod hostile;
mod net;
mod paths;
mod readdress;
mod recovery;
mod signals;
