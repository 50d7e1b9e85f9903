//! The program as its users run it.

mod beacons;
mod blocked;
mod cells;
mod common;
mod copies;
mod delivery;
mod errors;
mod identity;
mod lan;
mod manual;
mod nat64;
mod nats;
mod netcat;
mod netcheck;
mod networks;
mod observe;
mod office;
mod root;
mod root_watch;
mod settings;
mod signals;
mod status_manual;
mod terminal;
mod trouble;
mod turn;
mod verbose;
