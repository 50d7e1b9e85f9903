//! TLS 1.3, which hides what is carried and passes where nothing but HTTPS does.
//!
//! The session inside is end-to-end authentic whoever terminates TLS: who does so sees as much as a router on
//! the way of the UDP datagrams, which is sizes, times and ciphertext. What the client's checks add is that
//! an observer on the way does not even see that, unless somebody whom the system's certificates name is one.
//!
//! A client accepts two kinds of certificates:
//!
//! * one that is valid for the host's name in the system's store of certificates, or in Mozilla's list if the
//!   system has none. The system's store also has the authorities of companies that open TLS in their
//!   proxies;
//! * one whose key *is* the Ed25519 key of the root's identity, whatever names and times are in it. TLS
//!   shows that the server has the secret half. A root so needs neither a name nor an authority.
//!
//! The identity signs nothing but TLS 1.3's `CertificateVerify`, whose text begins with 64 spaces and a name
//! of its purpose (RFC 8446, 4.4.3), so that no such signature can be taken for one of peersock's own. That
//! is why TLS 1.2, in which the client chooses the first signed bytes, is not spoken. Whoever connects to a
//! root learns its public key from such a certificate; observers do not, because TLS 1.3 encrypts it.

pub(crate) mod client;
mod expected;
#[cfg(feature = "server")]
mod files;
#[cfg(feature = "server")]
mod self_signed;
#[cfg(feature = "server")]
mod server;

pub(crate) use expected::Expected;
#[cfg(feature = "server")]
pub use self_signed::RootKey;
#[cfg(feature = "server")]
pub use server::{CertificateError, CertificateFiles, ServerTls};

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The protocol that a client of `tls:` names in its first message (ALPN, RFC 7301). It is not encrypted.
pub const ALPN: &[u8] = b"peersock";

/// What clients of `wss:` name, as every WebSocket does.
pub(crate) const ALPN_HTTP: &[u8] = b"http/1.1";

/// Records that TLS holds back beyond what TCP has taken, in bytes. As in the kernel, what lies there can no
/// longer be dropped.
pub(crate) const TLS_BUFFER: usize = 16 << 10;

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
