//! Message structures in another process's memory: `msghdr`, its vectors and its ancillary data.

use libc::{c_void, iovec, msghdr};
use peersock_bsd::{Errno, Result};

use crate::target::Target;

/// Maximum number of pieces of one message (UIO_MAXIOV).
const MAX_PIECES: u64 = 1024;

/// Maximum length of accepted ancillary data, bytes. Linux's own limit (net.core.optmem_max) is 20 to 128
/// KiB.
const MAX_CONTROL: u64 = 20 << 10;

/// Maximum length of an address, bytes.
const MAX_NAME: u32 = size_of::<libc::sockaddr_storage>() as u32;

/// Maximum number of bytes moved by one call: no datagram is longer, and a stream may take less than offered.
pub(crate) const MAX_CALL_BYTES: usize = 64 << 10;

/// Length of the kernel structure `user_msghdr` on the supported architectures, and of `mmsghdr`, which
/// appends a length; bytes.
const HEADER: usize = 56;
pub(crate) const MANY_STRIDE: u64 = 64;

/// A message that a thread has passed.
#[derive(Debug)]
pub(crate) struct Message {
    /// Address of the structure.
    at: u64,
    name: u64,
    name_length: u32,
    pieces: Vec<(u64, usize)>,
    control: u64,
    control_length: u64,
}

impl Message {
    /// # Errors
    /// EMSGSIZE for too many pieces, EINVAL for invalid lengths, ENOBUFS for too much ancillary data, and
    /// errors of [`Target::read`].
    pub(crate) fn read(target: &Target, at: u64) -> Result<Self> {
        let mut header = [0; HEADER];
        target.read(at, &mut header)?;
        let word = |offset: usize| {
            u64::from_ne_bytes(header[offset..offset + 8].try_into().expect("eight bytes are there"))
        };
        let count = word(24);
        if count > MAX_PIECES {
            return Err(Errno::MSGSIZE);
        }
        let name_length = word(8) as u32;
        if i32::try_from(name_length).is_err() {
            return Err(Errno::INVAL);
        }
        let mut vectors = vec![0; count as usize * 16];
        target.read(word(16), &mut vectors)?;
        let vectors = vectors.as_chunks::<8>().0.as_chunks::<2>().0;
        let mut left = MAX_CALL_BYTES;
        let pieces = vectors.iter().map(|[base, length]| {
            let length = usize::try_from(u64::from_ne_bytes(*length)).map_err(|_| Errno::INVAL)?;
            if length > isize::MAX as usize {
                return Err(Errno::INVAL);
            }
            // One byte more than the maximum shows that it is too long.
            let taken = length.min(left + 1);
            left -= taken.min(left);
            Ok((u64::from_ne_bytes(*base), taken))
        });
        let pieces = pieces.collect::<Result<_>>()?;
        let name_length = name_length.min(MAX_NAME);
        Ok(Self { at, name: word(0), name_length, pieces, control: word(32), control_length: word(40) })
    }

    /// Returns the location and the length of its address.
    pub(crate) fn name(&self) -> (u64, u32) {
        (self.name, self.name_length)
    }

    /// Returns true if it contains only data.
    pub(crate) fn is_plain(&self) -> bool {
        self.name == 0 && (self.control == 0 || self.control_length == 0)
    }

    /// Returns the data, of which a stream may take a part.
    /// Errors: EMSGSIZE for more than [`MAX_CALL_BYTES`] bytes that must be `whole`, and errors of
    /// [`Target::read`].
    pub(crate) fn data(&self, target: &Target, whole: bool) -> Result<Vec<u8>> {
        let mut data = vec![0; self.size()];
        if data.len() > MAX_CALL_BYTES && whole {
            return Err(Errno::MSGSIZE);
        }
        let mut rest = &mut data[..];
        for (base, length) in &self.pieces {
            let (piece, others) = rest.split_at_mut(*length);
            target.read(*base, piece)?;
            rest = others;
        }
        data.truncate(MAX_CALL_BYTES);
        Ok(data)
    }

    /// Returns the ancillary data to send.
    /// Errors: ENOBUFS, and errors of [`Target::read`].
    pub(crate) fn control(&self, target: &Target) -> Result<Vec<u64>> {
        if self.control == 0 {
            return Ok(Vec::new());
        }
        if self.control_length > MAX_CONTROL {
            return Err(Errno::NOBUFS);
        }
        let mut bytes = vec![0; self.control_length as usize];
        target.read(self.control, &mut bytes)?;
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Ok(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect())
    }

    pub(crate) fn control_length(&self) -> usize {
        if self.control == 0 { 0 } else { self.control_length.min(MAX_CONTROL) as usize }
    }

    /// Returns the total length of its pieces, up to slightly more than [`MAX_CALL_BYTES`].
    pub(crate) fn size(&self) -> usize {
        self.pieces.iter().map(|(_, length)| length).sum()
    }

    /// Writes a received message: the data, the address, the ancillary data and the flags.
    /// Fails with the errors of [`Target::write`].
    pub(crate) fn write(&self, target: &Target, data: &[u8], received: &Received) -> Result<()> {
        let mut rest = data;
        for (base, length) in &self.pieces {
            let (piece, others) = rest.split_at(rest.len().min(*length));
            target.write(*base, piece)?;
            rest = others;
        }
        if self.name != 0 {
            let whole = received.header.msg_namelen;
            let fits = self.name_length.min(whole) as usize;
            target.write(self.name, &received.name[..fits.min(received.name.len())])?;
            target.write(self.at + 8, &whole.to_ne_bytes())?;
        }
        // The field's type differs between C libraries.
        #[allow(clippy::unnecessary_cast)]
        let used = received.header.msg_controllen as u64;
        let control: Vec<u8> = received.control.iter().flat_map(|word| word.to_ne_bytes()).collect();
        target.write(self.control, &control[..(used as usize).min(self.control_length())])?;
        target.write(self.at + 40, &used.to_ne_bytes())?;
        target.write(self.at + 48, &received.header.msg_flags.to_ne_bytes())
    }

    /// Writes the number of bytes moved, for one of many messages (`msg_len` of `mmsghdr`).
    /// Fails with the errors of [`Target::write`].
    pub(crate) fn write_length(&self, target: &Target, moved: i64) -> Result<()> {
        target.write(self.at + HEADER as u64, &(moved as u32).to_ne_bytes())
    }
}

/// Local buffers for a received message.
pub(crate) struct Received {
    pub(crate) header: msghdr,
    name: Vec<u8>,
    control: Vec<u64>,
    _piece: Box<iovec>,
}

impl Received {
    /// Creates a message whose data goes to `data`, with as much room for the other parts as `message`.
    pub(crate) fn for_message(message: &Message, data: &mut [u8]) -> Self {
        let mut name = vec![0; message.name_length as usize];
        let mut control = vec![0_u64; message.control_length().div_ceil(8)];
        let mut piece = Box::new(iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() });
        let mut header = empty();
        (header.msg_iov, header.msg_iovlen) = (&raw mut *piece, 1);
        if message.name != 0 {
            (header.msg_name, header.msg_namelen) = (name.as_mut_ptr().cast(), message.name_length);
        }
        if !control.is_empty() {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = message.control_length() as _;
        }
        Self { header, name, control, _piece: piece }
    }
}

/// Returns an empty message.
pub(crate) fn empty() -> msghdr {
    // SAFETY: zeros are a message.
    unsafe { std::mem::zeroed() }
}

/// Returns a vector for one piece of data.
pub(crate) fn piece(data: &[u8]) -> iovec {
    iovec { iov_base: data.as_ptr().cast_mut().cast::<c_void>(), iov_len: data.len() }
}
