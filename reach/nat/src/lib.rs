//! Examination of a node's network: its external addresses, the NAT in front of it, the ports that its router
//! opens, and the routes of its addresses.
//!
//! * [`stun`]: binding requests and their answers;
//! * [`probe`]: asks STUN servers, without I/O ([`probe::Prober`]) or on sockets ([`probe::run`]);
//! * [`Observations::decide`]: decides which NAT the answers show, a pure function;
//! * [`nat64`]: the IPv4 Internet from a network that has IPv6 only;
//! * [`portmap`]: ports that routers open by PCP, NAT-PMP and UPnP;
//! * [`turn`]: an address on a TURN server, sans-IO;
//! * [`interfaces`]: the machine's interfaces with routes and route pools;
//! * [`netcheck`]: a report about all of it, for people.
//!
//! Two features are on by default: `portmap` asks routers for ports, `turn` has the client of TURN servers.
//!
//! Functions that do I/O block the calling thread, for at most a time that the caller gives. This crate knows
//! no servers: all come from the caller. Answers of servers and routers are unproven, so an address from here
//! is only a candidate, and a peer that uses it tests it.
//!
//! ```
//! use peersock_nat::stun::{Answer, AnswerFrom, TransactionId, binding_request, request_id};
//!
//! // A server's whole work:
//! let request = binding_request(TransactionId::new(1), AnswerFrom::Same);
//! let id = request_id(&request).expect("it is a binding request");
//! let answer = Answer { id, mapped: "203.0.113.9:7420".parse()?, origin: None, other: None, second_port: None }.emit();
//! assert!(answer.len() <= request.len());
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
#![forbid(unsafe_code)]

mod behavior;
pub mod host;
pub mod interfaces;
pub mod nat64;
pub mod netcheck;
#[cfg_attr(not(feature = "portmap"), path = "no_portmap.rs")]
pub mod portmap;
pub mod probe;
#[cfg(feature = "turn")]
mod quiet;
mod scope;
mod server_paths;
mod socket;
pub mod stun;
#[cfg_attr(not(feature = "turn"), path = "no_turn.rs")]
pub mod turn;

pub use behavior::{Delta, DeltaKind, Filtering, Mapping, Nat, NatKind, Observations, Sample};
pub use scope::may_name;
