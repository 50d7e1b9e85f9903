//! Conversion of messages' pieces from C's form to Rust's slices.

use std::borrow::Cow;
use std::io::IoSliceMut;
use std::{ptr, slice};

use libc::{c_uint, c_void, iovec, mmsghdr, msghdr};
use peersock_fd::Errno;

use crate::Result;

/// Maximum number of bytes that one call moves: Linux's MAX_RW_COUNT for pages of 4 KiB.
pub(crate) const MAX_BYTES: usize = 0x7fff_f000;

/// Maximum number of pieces of one message (UIO_MAXIOV).
const MAX_PIECES: usize = 1024;

/// Returns a message's pieces in a form valid for Rust's slices: limited to the length that Linux accepts,
/// and none at null. Borrows the message's own pieces if they are valid.
/// Errors: EMSGSIZE for too many pieces, EINVAL for a piece of negative length, EFAULT.
///
/// # Safety
/// The message's vectors are valid, except for null with a length of 0.
pub(crate) unsafe fn vectors(message: &msghdr) -> Result<Cow<'_, [iovec]>> {
    // The field's type differs between C libraries.
    #[allow(clippy::unnecessary_cast)]
    let count = message.msg_iovlen as usize;
    if count == 0 {
        return Ok(Cow::Borrowed(&[]));
    }
    if count > MAX_PIECES {
        return Err(Errno::MSGSIZE);
    }
    if message.msg_iov.is_null() {
        return Err(Errno::FAULT);
    }
    // SAFETY: the caller says that this many are there.
    let mut vectors = Cow::Borrowed(unsafe { slice::from_raw_parts(message.msg_iov, count) });
    let mut left = MAX_BYTES;
    for at in 0..count {
        let iovec { iov_base, iov_len } = vectors[at];
        if iov_len > isize::MAX as usize {
            return Err(Errno::INVAL);
        }
        if iov_base.is_null() && iov_len > 0 {
            return Err(Errno::FAULT);
        }
        if iov_base.is_null() {
            vectors.to_mut()[at].iov_base = ptr::NonNull::<c_void>::dangling().as_ptr();
        }
        if iov_len > left {
            vectors.to_mut()[at].iov_len = left;
        }
        left -= iov_len.min(left);
    }
    Ok(vectors)
}

/// Like [`vectors`], for writing; adjusted pieces are stored in `own`.
///
/// # Safety
/// As for [`vectors`]; the pieces are valid for writing, and no other code uses the message's vectors.
pub(crate) unsafe fn pieces_mut<'a>(
    message: &msghdr,
    own: &'a mut Vec<iovec>,
) -> Result<&'a mut [IoSliceMut<'a>]> {
    // SAFETY: the caller's.
    let (first, count) = match unsafe { vectors(message) }? {
        Cow::Borrowed([]) => return Ok(&mut []),
        Cow::Borrowed(vectors) => (message.msg_iov, vectors.len()),
        Cow::Owned(vectors) => {
            *own = vectors;
            (own.as_mut_ptr(), own.len())
        }
    };
    // SAFETY: `IoSliceMut` is guaranteed to be an `iovec`; the rest is the caller's.
    Ok(unsafe { slice::from_raw_parts_mut(first.cast::<IoSliceMut<'a>>(), count) })
}

/// # Safety
/// `messages` points to `count` messages.
pub(crate) unsafe fn many<'a>(messages: *mut mmsghdr, count: c_uint) -> Result<&'a mut [mmsghdr]> {
    let count = (count as usize).min(MAX_PIECES);
    match (messages.is_null(), count) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Errno::FAULT),
        // SAFETY: the caller's.
        (false, _) => Ok(unsafe { slice::from_raw_parts_mut(messages, count) }),
    }
}

/// Skips `bytes` bytes of the pieces, which must have at least that many.
pub(crate) fn skip(pieces: &mut Vec<iovec>, mut bytes: usize) {
    let whole = pieces.iter().take_while(|piece| {
        let is_whole = piece.iov_len <= bytes;
        bytes -= if is_whole { piece.iov_len } else { 0 };
        is_whole
    });
    let whole = whole.count();
    pieces.drain(..whole);
    if let Some(first) = pieces.first_mut() {
        first.iov_base = first.iov_base.wrapping_byte_add(bytes);
        first.iov_len -= bytes;
    }
}

/// Copies as much as fits and returns the number of bytes copied.
pub(crate) fn scatter(mut data: &[u8], pieces: &mut [IoSliceMut<'_>]) -> usize {
    let whole = data.len();
    for piece in pieces {
        let fits = piece.len().min(data.len());
        piece[..fits].copy_from_slice(&data[..fits]);
        data = &data[fits..];
    }
    whole - data.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(vectors: &[(*const u8, usize)]) -> Result<Vec<(bool, usize)>> {
        let mut vectors: Vec<iovec> = vectors
            .iter()
            .map(|&(base, length)| iovec { iov_base: base.cast_mut().cast(), iov_len: length })
            .collect();
        // SAFETY: zeros are a message.
        let mut message: msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (vectors.as_mut_ptr(), vectors.len() as _);
        // SAFETY: the vectors are there; their targets are not read.
        let checked = unsafe { super::vectors(&message) }?;
        Ok(checked.iter().map(|vector| (vector.iov_base.is_null(), vector.iov_len)).collect())
    }

    #[test]
    fn pieces_are_taken_as_linux_takes_them() {
        let (null, data) = (ptr::null(), b"data".as_ptr());
        assert_eq!(checked(&[]), Ok(vec![]));
        assert_eq!(checked(&[(data, 4), (null, 0), (data, 2)]), Ok(vec![(false, 4), (false, 0), (false, 2)]));
        assert_eq!(checked(&[(null, 1)]), Err(Errno::FAULT));
        assert_eq!(checked(&[(data, usize::MAX)]), Err(Errno::INVAL));
        let much = isize::MAX as usize;
        assert_eq!(checked(&[(data, 4), (data, much)]), Ok(vec![(false, 4), (false, MAX_BYTES - 4)]));
        assert_eq!(checked(&[(data, much), (data, much)]), Ok(vec![(false, MAX_BYTES), (false, 0)]));
        assert_eq!(checked(&vec![(data, 1); MAX_PIECES + 1]), Err(Errno::MSGSIZE));
    }

    #[test]
    fn what_is_skipped_is_left_out_to_the_byte() {
        let lengths = [3, 0, 4];
        for skipped in 0..=7 {
            let mut pieces = lengths.map(|iov_len| iovec { iov_base: ptr::null_mut(), iov_len }).to_vec();
            skip(&mut pieces, skipped);
            let left: Vec<_> = pieces.iter().map(|piece| (piece.iov_base as usize, piece.iov_len)).collect();
            let wanted = match skipped {
                0..3 => vec![(skipped, 3 - skipped), (0, 0), (0, 4)],
                3..7 => vec![(skipped - 3, 7 - skipped)],
                _ => vec![],
            };
            assert_eq!(left, wanted, "{skipped}");
        }
    }
}
