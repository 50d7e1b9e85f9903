//! The handshake: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` with the message flow of WireGuard.
//!
//! ```text
//! initiator                                         responder
//!   Initiator::start          -- Initiation -->     CookieJar::check_mac1 (cheap), then
//!                                                   Received::read  (X25519: who is it, which network?)
//!                                                   Received::respond (X25519, with the network's key)
//!   Initiator::read_response  <--  Response  --
//!           SessionKeys                                     SessionKeys
//! ```
//!
//! Reading an initiation takes two steps, because its encrypted payload names the network, and with it the
//! pre-shared key, and because a responder drops a replay (an old [`Timestamp`]) between the two.
//!
//! # Under load
//!
//! Every handshake message ends in two MACs. MAC1 shows that the sender knows which node it talks to, and
//! costs one hash to check. A busy node also requires MAC2, made with a cookie that it gave to that source
//! address, and answers a message without it by a [`CookieReply`](crate::wire::CookieReply). [`CookieJar`]
//! makes and checks cookies, [`MacWriter`] keeps them. So a flood from forged addresses costs no X25519.
//!
//! # A clock that went back
//!
//! The answer to an authentic initiation that is not newer than an earlier one is a
//! [`StaleReply`](crate::wire::StaleReply): the newest timestamp that the responder has read, sealed under a
//! key that only the two nodes have and only for this initiation. A live initiator begins again with a newer
//! one; a replayer learns nothing.
//!
//! # What is authenticated
//!
//! The Noise transcript begins with a prologue of a label, the initiation's header and the responder's node
//! ID, and includes the response's header before the response. So the session keys bind the versions, the
//! suite, both session indices and all four public keys. The initiator's Ed25519 key is in the encrypted
//! payload.
//!
//! The functions take no clock and no generator: ephemeral keys, indices, nonces and times are arguments.

mod cookie;
mod handshake;
mod ik;
mod payload;
mod stale;
mod symmetric;
#[cfg(test)]
mod tests;
mod timestamp;

pub use cookie::{CookieJar, MacWriter, Origin};
pub use handshake::{HandshakeError, Initiator, Received, SessionKeys};
pub use payload::{InitiationPayload, ResponsePayload};
pub use timestamp::Timestamp;
