//! The control state machine in virtual time.

mod discovery;
mod duplicates;
mod forgetting;
mod handshake;
mod hostile;
mod names;
mod net;
mod paths;
mod recovery;
mod signals;
