//! Addresses of Unix domain sockets.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use socket2::SockAddr;
use tokio::net::unix::SocketAddr;

use crate::{AddressError, Network};

/// The address of a Unix domain socket: a path, `@` and a name in Linux's abstract namespace, or empty for an
/// endpoint without a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixAddr {
    name: OsString,
    is_stream: bool,
}

impl UnixAddr {
    /// Creates the address of a stream socket (`unix`).
    ///
    /// # Errors
    /// The path contains a NUL.
    pub fn stream(name: impl AsRef<OsStr>) -> Result<UnixAddr, AddressError> {
        UnixAddr::new(name.as_ref(), true)
    }

    /// Creates the address of a datagram socket (`unixgram`).
    ///
    /// # Errors
    /// The path contains a NUL.
    pub fn datagram(name: impl AsRef<OsStr>) -> Result<UnixAddr, AddressError> {
        UnixAddr::new(name.as_ref(), false)
    }

    pub(crate) fn new(name: &OsStr, is_stream: bool) -> Result<UnixAddr, AddressError> {
        let bytes = name.as_bytes();
        if bytes.contains(&0) && !bytes.starts_with(b"@") {
            return Err(AddressError::new("a path has no NUL in it", name.display()));
        }
        Ok(UnixAddr { name: name.to_owned(), is_stream })
    }

    /// Converts an address that the system reports.
    pub(crate) fn of_system(address: &SockAddr, is_stream: bool) -> UnixAddr {
        UnixAddr::told(address.as_abstract_namespace(), address.as_pathname(), is_stream)
    }

    /// Converts an address that tokio reports.
    pub(crate) fn of_tokio(address: &SocketAddr, is_stream: bool) -> UnixAddr {
        UnixAddr::told(address.as_abstract_name(), address.as_pathname(), is_stream)
    }

    fn told(name: Option<&[u8]>, path: Option<&Path>, is_stream: bool) -> UnixAddr {
        let name = match name {
            Some(name) => OsString::from_vec([b"@", name].concat()),
            None => path.map(OsString::from).unwrap_or_default(),
        };
        UnixAddr { name, is_stream }
    }

    /// Returns the address of a socket without a name.
    pub(crate) fn unnamed(is_stream: bool) -> UnixAddr {
        UnixAddr { name: OsString::new(), is_stream }
    }

    /// Returns the path, or the name in the abstract namespace with its `@`.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns the path; `None` for abstract names and for sockets without a name.
    pub fn path(&self) -> Option<&Path> {
        let has_path = !self.name.is_empty() && !self.name.as_bytes().starts_with(b"@");
        has_path.then(|| Path::new(&self.name))
    }

    /// Returns the network of the address: `unix` for streams, `unixgram` for datagrams.
    pub fn network(&self) -> Network {
        if self.is_stream { Network::Unix } else { Network::Unixgram }
    }

    /// Returns the address for system sockets.
    pub(crate) fn place(&self) -> Result<SockAddr, AddressError> {
        let mut name = self.name.as_bytes().to_vec();
        if let Some(first) = name.first_mut().filter(|first| **first == b'@') {
            *first = 0;
        }
        SockAddr::unix(OsStr::from_bytes(&name)).map_err(|error| AddressError::new(error.to_string(), self))
    }
}

impl fmt::Display for UnixAddr {
    /// Writes the name; bytes that are not valid Unicode are replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.display().fmt(f)
    }
}
