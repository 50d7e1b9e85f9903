//! Replaces `tls` in builds without the feature of that name: TLS is an error that names the feature.

#[expect(dead_code, reason = "what is expected matters to TLS alone")]
#[path = "tls/expected.rs"]
mod expected;

pub(crate) use expected::Expected;

/// Names the protocol that a client of `tls:` asks for (ALPN, RFC 7301), unencrypted.
pub const ALPN: &[u8] = b"peersock";

pub(crate) mod client {
    use super::Expected;
    use crate::carrier::BoxedStream;
    use crate::error::ConnectError;

    /// Fails.
    pub(crate) async fn start(_: BoxedStream, host: &str, _: Expected) -> Result<BoxedStream, ConnectError> {
        Err(ConnectError::NoTls(host.to_owned()))
    }
}
