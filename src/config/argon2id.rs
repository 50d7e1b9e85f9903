//! Argon2id (RFC 9106), version 0x13, as networks use it: with one lane.

use std::io;

use argon2::{Algorithm, Argon2, Error, Params, Version};

/// Number of passes, and the memory of each in MiB, which is released afterwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) memory: u32,
    pub(super) passes: u32,
}

/// Fills `out` with the stretched secret. `purpose` says in an error what the memory was for.
///
/// # Errors
/// Returns `OutOfMemory` if the system refuses the memory, and `InvalidInput` for a secret over 4 GiB.
///
/// # Panics
/// Panics if the cost, the salt or the output is beyond RFC 9106's limits.
pub(super) fn stretch(
    secret: &[u8],
    salt: &[u8],
    cost: Cost,
    out: &mut [u8],
    purpose: &str,
) -> io::Result<()> {
    let params = Params::new(cost.memory * 1024, cost.passes, 1, Some(out.len()))
        .expect("callers keep RFC 9106's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(secret, salt, out).map_err(
        |error| match error {
            Error::OutOfMemory => io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("there is no memory to {purpose}: {} MiB", cost.memory),
            ),
            error => io::Error::new(io::ErrorKind::InvalidInput, error.to_string()),
        },
    )
}
