//! Identities: secret seeds, and the IDs and keys derived from them.

use std::path::Path;

use libc::{c_char, size_t};
use peersock::Seed;
use peersock::state::{read_identity_file, write_identity_file};

use crate::boundary::answer;
use crate::config::read_seed;
use crate::result::{Answer, Failure, peersock_result};
use crate::text;

/// Size of a secret seed in bytes.
pub const PEERSOCK_SEED_SIZE: size_t = 32;

/// Makes a new secret seed from the operating system's randomness. `size` must be `PEERSOCK_SEED_SIZE`.
///
/// # Safety
/// `seed` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_identity_generate(seed: *mut u8, size: size_t) -> peersock_result {
    // SAFETY: the caller's.
    answer(|| unsafe { write_seed(&Seed::generate()?, seed, size) })
}

/// Reads a seed from a file that `peersock_identity_store()` or a node has written. Other users must not have
/// access to the file.
///
/// # Safety
/// `path` is NULL or a C string; `seed` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_identity_load(
    path: *const c_char,
    seed: *mut u8,
    size: size_t,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let path = unsafe { text::read(path, "the path") }?;
        // SAFETY: the caller's.
        unsafe { write_seed(&read_identity_file(Path::new(path))?, seed, size) }
    })
}

/// Writes a seed to a new file that only its owner may read. An existing file is not overwritten.
///
/// # Safety
/// `path` is NULL or a C string; `seed` is NULL or points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_identity_store(
    path: *const c_char,
    seed: *const u8,
    size: size_t,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let path = unsafe { text::read(path, "the path") }?;
        // SAFETY: the caller's.
        Ok(write_identity_file(Path::new(path), &unsafe { read_seed(seed, size) }?)?)
    })
}

/// Copies the node ID of a seed as text: `PEERSOCK_ID_SIZE` bytes with the final zero.
///
/// # Safety
/// `seed` is NULL or points to `seed_size` bytes; `id` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_identity_id(
    seed: *const u8,
    seed_size: size_t,
    id: *mut c_char,
    size: size_t,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let public = unsafe { read_seed(seed, seed_size) }?.public_identity();
        // SAFETY: the caller's.
        unsafe { text::write(&public.node_id().to_string(), id, size) }
    })
}

/// Copies the public key of a seed, in the form that the file of a static network lists: `PEERSOCK_KEY_SIZE`
/// bytes with the final zero.
///
/// # Safety
/// `seed` is NULL or points to `seed_size` bytes; `key` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_identity_key(
    seed: *const u8,
    seed_size: size_t,
    key: *mut c_char,
    size: size_t,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let public = unsafe { read_seed(seed, seed_size) }?.public_identity();
        // SAFETY: the caller's.
        unsafe { text::write(&public.to_string(), key, size) }
    })
}

/// # Safety
/// `place` is null or has room for `size` bytes.
unsafe fn write_seed(seed: &Seed, place: *mut u8, size: size_t) -> Answer {
    if place.is_null() || size != PEERSOCK_SEED_SIZE {
        return Err(Failure::invalid("a seed needs room for 32 bytes, and no more"));
    }
    // SAFETY: the caller says that the place has this much room.
    unsafe { place.cast::<[u8; 32]>().write(seed.0) };
    Ok(())
}
