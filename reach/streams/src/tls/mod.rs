//! TLS 1.3, which hides the protocol and passes where nothing but HTTPS does.
//!
//! The session inside is authentic end to end, even if a third party terminates TLS. The terminator sees as
//! much as a router on the path of UDP datagrams: sizes, times and ciphertext. The client's checks hide even
//! that from an observer, unless the observer holds a certificate of an authority that the system trusts.
//!
//! A client accepts two kinds of certificates:
//!
//! * one that is valid for the host's name in the system's store of certificates, or in Mozilla's list if the
//!   system has none. The system's store also has the authorities of companies that open TLS in their
//!   proxies;
//! * one whose key *is* the Ed25519 key of the root's identity, whatever names and times are in it. TLS
//!   proves that the server has the secret half. Such a root needs neither a name nor an authority.
//!
//! The identity signs nothing but TLS 1.3's `CertificateVerify`, whose text begins with 64 spaces and a
//! context string (RFC 8446, 4.4.3). So no such signature can be mistaken for one of peersock's own
//! signatures. TLS 1.2 is not supported with it, because in TLS 1.2 the client chooses the first signed
//! bytes. A client of a root learns the root's public key from such a certificate; observers do not, because
//! TLS 1.3 encrypts it.

#[cfg(feature = "server")]
mod certificate_error;
pub(crate) mod client;
mod expected;
#[cfg(feature = "server")]
mod files;
#[cfg(feature = "server")]
mod self_signed;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub use certificate_error::CertificateError;
pub(crate) use expected::Expected;
#[cfg(feature = "server")]
pub use self_signed::RootKey;
#[cfg(feature = "server")]
pub use server::{CertificateFiles, ServerTls};

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The protocol that a client of `tls:` names in its first message (ALPN, RFC 7301), unencrypted.
pub const ALPN: &[u8] = b"peersock";

/// The protocol that clients of `wss:` name, as every WebSocket client does.
pub(crate) const ALPN_HTTP: &[u8] = b"http/1.1";

/// Bytes of records that TLS holds beyond what TCP has taken. They can no longer be dropped, like those in
/// the kernel.
pub(crate) const TLS_BUFFER: usize = 16 << 10;

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
