//! The pattern IKpsk2 itself, with any prologue and any payloads:
//!
//! ```text
//! IKpsk2:
//!   <- s
//!   ...
//!   -> e, es, s, ss
//!   <- e, ee, se, psk
//! ```

use std::fmt;

use x25519_dalek::{PublicKey, StaticSecret};

use super::symmetric::{Split, Symmetric, Unauthentic};
use crate::crypto::TAG;

/// Writes the first message, appending it to `out`. `ephemeral` is 32 random bytes, never used again.
/// Returns an error if `responder` is a key of low order.
pub(super) fn write_first(
    prologue: &[u8],
    secret: &StaticSecret,
    responder: &[u8; 32],
    ephemeral: StaticSecret,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<FirstSent, Unauthentic> {
    let mut symmetric = Symmetric::new(prologue, responder);
    let public = PublicKey::from(&ephemeral).to_bytes();
    let start = out.len();
    out.extend_from_slice(&public);
    symmetric.mix_ephemeral(&public);
    symmetric.mix_dh(&ephemeral, responder).inspect_err(|_| out.truncate(start))?;
    // After the token `es`: only the responder can read who the initiator is.
    symmetric.encrypt(PublicKey::from(secret).as_bytes(), out);
    symmetric.mix_dh(secret, responder).inspect_err(|_| out.truncate(start))?;
    symmetric.encrypt(payload, out);
    Ok(FirstSent { symmetric, ephemeral })
}

/// Reads the first message and returns its payload.
/// Returns an error if the message is not authentic.
pub(super) fn read_first(
    prologue: &[u8],
    secret: &StaticSecret,
    message: &[u8],
) -> Result<(FirstReceived, Vec<u8>), Unauthentic> {
    let (&ephemeral, rest) = message.split_first_chunk::<32>().ok_or(Unauthentic)?;
    let (sealed_static, sealed_payload) = rest.split_at_checked(32 + TAG).ok_or(Unauthentic)?;

    let mut symmetric = Symmetric::new(prologue, PublicKey::from(secret).as_bytes());
    symmetric.mix_ephemeral(&ephemeral);
    symmetric.mix_dh(secret, &ephemeral)?;
    let mut initiator = [0; 32];
    symmetric.decrypt(sealed_static, &mut initiator)?;
    symmetric.mix_dh(secret, &initiator)?;
    let payload = decrypt(&mut symmetric, sealed_payload)?;
    Ok((FirstReceived { symmetric, ephemeral, initiator }, payload))
}

/// Initiator's state between the two messages. Erased on drop.
pub(super) struct FirstSent {
    symmetric: Symmetric,
    ephemeral: StaticSecret,
}

impl FirstSent {
    /// Returns the state after the first message.
    pub(super) fn symmetric(&self) -> &Symmetric {
        &self.symmetric
    }

    /// Reads the second message and returns its payload. A forged one leaves the state unchanged.
    ///
    /// `header`, unless empty, is mixed into the transcript before the message, which is an addition to
    /// Noise.
    /// Returns an error if the message is not authentic.
    pub(super) fn read_second(
        &self,
        header: &[u8],
        secret: &StaticSecret,
        psk: &[u8; 32],
        message: &[u8],
    ) -> Result<(Split, Vec<u8>), Unauthentic> {
        let (ephemeral, sealed) = message.split_first_chunk::<32>().ok_or(Unauthentic)?;
        // On a copy, because a forged message must not spoil the state for the authentic one.
        let mut symmetric = self.symmetric.clone();
        mix_header(&mut symmetric, header);
        symmetric.mix_ephemeral(ephemeral);
        symmetric.mix_dh(&self.ephemeral, ephemeral)?;
        symmetric.mix_dh(secret, ephemeral)?;
        // Last (psk2), because the responder learns from the first message which network is meant.
        symmetric.mix_psk(psk);
        let payload = decrypt(&mut symmetric, sealed)?;
        Ok((symmetric.split(), payload))
    }
}

/// Responder's state between the two messages. Erased on drop.
pub(super) struct FirstReceived {
    symmetric: Symmetric,
    ephemeral: [u8; 32],
    initiator: [u8; 32],
}

impl FirstReceived {
    /// Returns the state after the first message.
    pub(super) fn symmetric(&self) -> &Symmetric {
        &self.symmetric
    }

    /// Returns the initiator's static public key, whose ownership is now proved.
    pub(super) fn initiator(&self) -> &[u8; 32] {
        &self.initiator
    }

    /// Writes the second message, appending it to `out`. `ephemeral` is 32 random bytes, never used again.
    ///
    /// `header`, unless empty, is mixed into the transcript before the message, which is an addition to
    /// Noise.
    /// Returns an error if the initiator's ephemeral key is of low order.
    pub(super) fn write_second(
        mut self,
        header: &[u8],
        psk: &[u8; 32],
        ephemeral: &StaticSecret,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Split, Unauthentic> {
        let public = PublicKey::from(ephemeral).to_bytes();
        mix_header(&mut self.symmetric, header);
        self.symmetric.mix_ephemeral(&public);
        // Token `ee`: the session's keys stay secret even if both static keys become known later.
        self.symmetric.mix_dh(ephemeral, &self.ephemeral)?;
        self.symmetric.mix_dh(ephemeral, &self.initiator)?;
        self.symmetric.mix_psk(psk);
        out.extend_from_slice(&public);
        self.symmetric.encrypt(payload, out);
        Ok(self.symmetric.split())
    }
}

impl fmt::Debug for FirstSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstSent([redacted])")
    }
}

impl fmt::Debug for FirstReceived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstReceived([redacted])")
    }
}

fn mix_header(symmetric: &mut Symmetric, header: &[u8]) {
    if !header.is_empty() {
        symmetric.mix_hash(header);
    }
}

fn decrypt(symmetric: &mut Symmetric, sealed: &[u8]) -> Result<Vec<u8>, Unauthentic> {
    let len = sealed.len().checked_sub(TAG).ok_or(Unauthentic)?;
    let mut plaintext = vec![0; len];
    symmetric.decrypt(sealed, &mut plaintext)?;
    Ok(plaintext)
}
