//! The control state machine in virtual time.

mod adversary;
mod attack;
mod discovery;
mod duplicates;
mod floods;
mod forgery;
mod forgetting;
mod handshake;
mod hostile;
mod lying_roots;
mod names;
mod net;
mod paths;
mod reach;
mod readdress;
mod recovery;
mod reflection;
mod roots;
mod signals;
mod streams;
mod watched;
