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
mod nat;
mod net;
mod paths;
mod punching;
mod reach;
mod readdress;
mod recovery;
mod referrals;
mod reflection;
mod roots;
mod signals;
mod streams;
mod third_parties;
mod watched;
