//! Socket addresses in another process's memory.

use std::net::SocketAddr;

use libc::{c_int, sockaddr, socklen_t};
use peersock_bsd::{Errno, Result};

use crate::call::Pointers;
use crate::target::Target;

/// Length of a `sockaddr_storage`, bytes: no address is longer.
const MAX_ADDRESS_BYTES: usize = size_of::<libc::sockaddr_storage>();

/// An address that was passed; none if the pointer was null.
#[derive(Debug)]
pub(crate) struct Address(Option<Vec<u8>>);

impl Address {
    /// # Errors
    /// EINVAL for a length that no address has, and errors of [`Target::read`].
    pub(crate) fn read(target: &Target, at: u64, length: c_int) -> Result<Self> {
        if at == 0 {
            return Ok(Self(None));
        }
        let length =
            usize::try_from(length).ok().filter(|length| *length <= MAX_ADDRESS_BYTES).ok_or(Errno::INVAL)?;
        let mut bytes = vec![0; length];
        target.read(at, &mut bytes)?;
        Ok(Self(Some(bytes)))
    }

    /// Returns true if its family is one that the overlay has, or AF_UNSPEC.
    pub(crate) fn is_internets(&self) -> bool {
        let family = self.0.as_ref().and_then(|bytes| Some([*bytes.first()?, *bytes.get(1)?]));
        let family = family.map(|family| c_int::from(u16::from_ne_bytes(family)));
        matches!(family, Some(libc::AF_INET | libc::AF_INET6 | libc::AF_UNSPEC))
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the address, or `None` for AF_UNSPEC.
    /// Errors: EFAULT, EINVAL, EAFNOSUPPORT.
    pub(crate) fn get(&self) -> Result<Option<SocketAddr>> {
        // SAFETY: it is as long as the given length.
        unsafe { peersock_bsd::read_address(self.pointer(), self.length()) }
    }

    pub(crate) fn pointer(&self) -> *const sockaddr {
        self.0.as_ref().map_or(std::ptr::null(), |bytes| bytes.as_ptr().cast())
    }

    pub(crate) fn length(&self) -> socklen_t {
        self.0.as_ref().map_or(0, |bytes| bytes.len() as socklen_t)
    }
}

/// A returned address, with its destination and the room there.
#[derive(Debug)]
pub(crate) struct Answer {
    at: u64,
    length_at: u64,
    room: usize,
    bytes: [u8; MAX_ADDRESS_BYTES],
    length: socklen_t,
}

impl Answer {
    /// # Errors
    /// EINVAL for a negative length, EFAULT, and errors of [`Target::read`].
    pub(crate) fn read(target: &Target, at: u64, length_at: u64) -> Result<Self> {
        if at == 0 || length_at == 0 {
            return Err(Errno::FAULT);
        }
        let room = target.read_u32(length_at)?;
        if i32::try_from(room).is_err() {
            return Err(Errno::INVAL);
        }
        let room = (room as usize).min(MAX_ADDRESS_BYTES);
        Ok(Self { at, length_at, room, bytes: [0; MAX_ADDRESS_BYTES], length: room as socklen_t })
    }

    pub(crate) fn pointers(&mut self) -> Pointers {
        Pointers { address: self.bytes.as_mut_ptr().cast(), length: &raw mut self.length }
    }

    /// Writes the stored address, as much as fits, and its whole length.
    /// Fails with the errors of [`Target::write`].
    pub(crate) fn write(&self, target: &Target) -> Result<()> {
        target.write(self.at, &self.bytes[..self.room.min(self.length as usize)])?;
        target.write(self.length_at, &self.length.to_ne_bytes())
    }
}
