//! The reply to an initiation that is not new, sealed between the two nodes and for that one initiation.

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};

use super::Timestamp;
use super::symmetric::Symmetric;
use crate::crypto::TAG;
use crate::wire::SessionIndex;
use crate::wire::StaleReply;

const LABEL: &[u8] = b"peersock stale v1";

/// Length of a timestamp, in bytes.
const TIMESTAMP: usize = 12;

/// Seals `newest` for the sender of the initiation that led to `state`, under a random `nonce`.
pub(super) fn seal(
    state: &Symmetric,
    receiver: SessionIndex,
    newest: Timestamp,
    nonce: [u8; 24],
) -> StaleReply {
    let (key, transcript) = state.derive(LABEL);
    // The nonce is random, because one initiation may be answered more than once.
    let mut sealed = [0; TIMESTAMP + TAG];
    let (value, tag) = sealed.split_at_mut(TIMESTAMP);
    value.copy_from_slice(newest.as_bytes());
    let made = XChaCha20Poly1305::new((&*key).into())
        .encrypt_inout_detached(&nonce.into(), transcript, value.into())
        .expect("sealing fails only beyond 256 GiB");
    tag.copy_from_slice(&made);
    StaleReply { receiver, nonce, sealed }
}

/// Opens a reply to the initiation that led to `state`; returns `None` if it is no such reply.
pub(super) fn open(state: &Symmetric, reply: &StaleReply) -> Option<Timestamp> {
    let (key, transcript) = state.derive(LABEL);
    let (value, tag) = reply.sealed.split_first_chunk::<TIMESTAMP>()?;
    let (mut value, tag): (_, [u8; TAG]) = (*value, tag.try_into().ok()?);
    XChaCha20Poly1305::new((&*key).into())
        .decrypt_inout_detached(&reply.nonce.into(), transcript, (&mut value[..]).into(), &tag.into())
        .ok()?;
    Some(Timestamp::from_bytes(value))
}
