//! Key derivation from a memorable passphrase to the 32-byte pre-shared key of a network.

use std::io;

use argon2::{Algorithm, Argon2, Error, Params, Version};
use peersock_overlay::{NetworkId, Psk};
use zeroize::Zeroizing;

/// Salt prefix that distinguishes this use of Argon2id from every other; the network's ID follows it.
const SALT_PREFIX: &[u8; 23] = b"peersock passphrase v1\0";

/// Memory per guess in KiB. With [`PASSES`] this is OWASP's recommended minimum; the memory is released
/// afterwards. All members of a network must agree on these numbers, so they are part of the protocol.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Stretches a passphrase with Argon2id (RFC 9106), version 0x13: 19 MiB, 2 passes, 1 lane, 32 bytes out,
/// salt `"peersock passphrase v1\0"` followed by the network's ID as 8 bytes in network order.
///
/// Takes some tens of milliseconds. Two networks with the same passphrase have different keys.
/// Fails with `OutOfMemory` if the system refuses the memory.
pub(super) fn stretch(network: NetworkId, passphrase: &str) -> io::Result<Psk> {
    let params =
        Params::new(MEMORY, PASSES, LANES, Some(32)).expect("the constants are within RFC 9106's limits");
    let mut salt = [0; SALT_PREFIX.len() + 8];
    salt[..SALT_PREFIX.len()].copy_from_slice(SALT_PREFIX);
    salt[SALT_PREFIX.len()..].copy_from_slice(&network.as_u64().to_be_bytes());
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &salt, key.as_mut_slice())
        .map_err(|error| match error {
            Error::OutOfMemory => io::Error::new(
                io::ErrorKind::OutOfMemory,
                "there is no memory to stretch a passphrase: 19 MiB",
            ),
            // Longer than 4 GiB, because the salt and the output have lengths that RFC 9106 allows.
            error => io::Error::new(io::ErrorKind::InvalidInput, error.to_string()),
        })?;
    Ok(Psk::new(*key))
}
