//! Which certificates a client accepts.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::self_signed::public_key_info;
use super::{ALPN, ALPN_HTTP, TLS_BUFFER, provider};
use crate::carrier::BoxedStream;
use crate::error::ConnectError;
use crate::target::Transport;

/// The certificates of the system; read once, because that takes milliseconds.
static AUTHORITIES: OnceLock<Arc<RootCertStore>> = OnceLock::new();

/// Begins TLS on a stream, as a client that expects this root or, without a transport, a proxy.
pub(crate) async fn start(
    stream: BoxedStream,
    host: &str,
    key: Option<[u8; 32]>,
    transport: Option<Transport>,
) -> Result<BoxedStream, ConnectError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Host(host.to_owned()))?;
    let tls_error = |error| tls_error(host, error);
    let mut config = config(key).await.map_err(tls_error)?;
    config.alpn_protocols = match transport {
        Some(Transport::Tls) => vec![ALPN.to_vec()],
        _ => vec![ALPN_HTTP.to_vec()],
    };
    let connector = TlsConnector::from(Arc::new(config));
    let limit = |connection: &mut rustls::ClientConnection| connection.set_buffer_limit(Some(TLS_BUFFER));
    let stream = connector.connect_with(name, stream, limit).await.map_err(tls_error)?;
    Ok(Box::new(stream))
}

async fn config(key: Option<[u8; 32]>) -> io::Result<ClientConfig> {
    let authorities = tokio::task::spawn_blocking(|| AUTHORITIES.get_or_init(authorities).clone()).await?;
    let provider = provider();
    let names = WebPkiServerVerifier::builder_with_provider(authorities, provider.clone());
    let names = names.build().map_err(io::Error::other)?;
    let verifier = Verifier { key: key.map(|key| public_key_info(&key)), names, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// The system's certificates; those of Mozilla's list where there are none, as in small containers.
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

fn tls_error(host: &str, error: io::Error) -> ConnectError {
    let host = host.to_owned();
    let certificate = error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(|inner| match inner {
        Error::InvalidCertificate(error) => Some(error.to_string()),
        _ => None,
    });
    match certificate {
        Some(reason) => ConnectError::Certificate { host, reason },
        None => ConnectError::Tls { host, error },
    }
}

#[derive(Debug)]
struct Verifier {
    /// The root's key, as it stands in a certificate.
    key: Option<Vec<u8>>,
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
