//! The client's check of certificates.

use std::io;
use std::sync::{Arc, OnceLock};

use peersock_primitives::blocking;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore};
use rustls::{SignatureScheme, SupportedProtocolVersion};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;

use super::{ALPN, ALPN_HTTP, Expected, TLS_BUFFER, provider};
use crate::carrier::BoxedStream;
use crate::error::ConnectError;
use crate::target::Transport;

/// The system's certificates; read once, because that takes milliseconds.
static AUTHORITIES: OnceLock<Arc<RootCertStore>> = OnceLock::new();

impl Expected {
    /// Returns the ALPN protocols to offer. TURN servers know `stun.turn` (RFC 7443), but a TLS terminator in
    /// front of them may refuse protocols it does not know.
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Root { transport: Transport::Tls, .. } => vec![ALPN.to_vec()],
            Self::Root { .. } | Self::Proxy => vec![ALPN_HTTP.to_vec()],
            Self::TurnServer(_) => Vec::new(),
        }
    }

    /// Returns the versions of TLS. RFC 8489 (6.2.3) requires 1.2 of TURN servers, and some support nothing
    /// newer.
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            Self::TurnServer(_) => &BOTH,
            Self::Root { .. } | Self::Proxy => &BOTH[..1],
        }
    }

    /// Returns the advice for a certificate that is not accepted.
    fn hint(self) -> &'static str {
        match self {
            Self::Root { .. } | Self::Proxy => {
                "check the KEY@ of the root; if a proxy opens TLS here, its authority must be in the \
                 system's store of certificates or in the file that SSL_CERT_FILE names"
            }
            Self::TurnServer(Some(_)) => {
                "if the server has a new certificate, put its SHA-256 behind ?sha256= in the server's text"
            }
            Self::TurnServer(None) => {
                "its authority must be in the system's store of certificates or in the file that \
                 SSL_CERT_FILE names, or its fingerprint behind ?sha256= in the server's text"
            }
        }
    }
}

/// Begins TLS on a stream, as a client.
pub(crate) async fn start(
    stream: BoxedStream,
    host: &str,
    expected: Expected,
) -> Result<BoxedStream, ConnectError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Host(host.to_owned()))?;
    let tls_error = |error| tls_error(host, expected.hint(), error);
    let mut config = config(expected).await.map_err(tls_error)?;
    config.alpn_protocols = expected.protocols();
    let connector = TlsConnector::from(Arc::new(config));
    let limit = |connection: &mut rustls::ClientConnection| connection.set_buffer_limit(Some(TLS_BUFFER));
    let stream = connector.connect_with(name, stream, limit).await.map_err(tls_error)?;
    Ok(Box::new(stream))
}

async fn config(expected: Expected) -> io::Result<ClientConfig> {
    let authorities = blocking(|| AUTHORITIES.get_or_init(authorities).clone()).await?;
    let provider = provider();
    let names = WebPkiServerVerifier::builder_with_provider(authorities, provider.clone());
    let names = names.build().map_err(io::Error::other)?;
    let (key, fingerprint) = match expected {
        Expected::Root { key, .. } => (key.map(|key| public_key_info(&key)), None),
        Expected::Proxy => (None, None),
        Expected::TurnServer(fingerprint) => (None, fingerprint),
    };
    let verifier = Verifier { key, fingerprint, names, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(expected.versions())
        .map_err(io::Error::other)?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// Returns the system's certificates, or Mozilla's list where there are none, as in small containers.
fn authorities() -> Arc<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate of the system is not used");
    }
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Arc::new(store)
}

fn tls_error(host: &str, hint: &'static str, error: io::Error) -> ConnectError {
    let host = host.to_owned();
    let certificate = error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(|inner| match inner {
        Error::InvalidCertificate(CertificateError::Other(OtherError(error))) => Some(error.to_string()),
        Error::InvalidCertificate(error) => Some(error.to_string()),
        _ => None,
    });
    match certificate {
        Some(reason) => ConnectError::Certificate { host, reason, hint },
        None => ConnectError::Tls { host, error },
    }
}

/// Encodes a public key as in a certificate: SubjectPublicKeyInfo (RFC 8410, 4).
fn public_key_info(key: &[u8; 32]) -> Vec<u8> {
    const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    [&PREFIX[..], key].concat()
}

#[derive(Debug)]
struct Verifier {
    /// The root's key, encoded as in a certificate.
    key: Option<Vec<u8>>,
    /// The SHA-256 of the only accepted certificate.
    fingerprint: Option<[u8; 32]>,
    names: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(fingerprint) = &self.fingerprint {
            let found = Sha256::digest(certificate);
            if found[..] == fingerprint[..] {
                return Ok(ServerCertVerified::assertion());
            }
            let hex: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
            let text = format!("its SHA-256 is {hex}, and another one was named");
            let other = OtherError(Arc::new(io::Error::other(text)));
            return Err(Error::InvalidCertificate(CertificateError::Other(other)));
        }
        if let Some(key) = &self.key {
            let parsed = ParsedCertificate::try_from(certificate)?;
            if parsed.subject_public_key_info().as_ref() == key.as_slice() {
                return Ok(ServerCertVerified::assertion());
            }
        }
        self.names.verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
