//! The server's choice of certificate.

use std::sync::Arc;

use peersock_primitives::sync::{self, RwLock};
use rustls::ServerConfig as RustlsConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::certificate_error::CertificateError;
pub use super::files::CertificateFiles;
use super::files::Loaded;
use super::self_signed::RootKey;
use super::{ALPN, ALPN_HTTP, provider};

/// The certificates of a server. Clones share them.
///
/// With both a key and files, clients that name a host get the certificate of the files. Clients that connect
/// to an IP address, which TLS does not name, get the one for the key.
///
/// ```
/// use peersock_overlay::Identity;
/// use peersock_streams::{RootKey, ServerTls};
///
/// let identity = Identity::from_seed(&[7; 32]);
/// let key = RootKey::new(*identity.public().ed25519(), move |message: &[u8]| identity.sign(message));
/// let tls = ServerTls::new(Some(key), None)?;
/// assert!(!tls.reload_if_changed()?);
/// # Ok::<(), peersock_streams::CertificateError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ServerTls {
    certificates: Arc<Certificates>,
    config: Arc<RustlsConfig>,
}

#[derive(Debug)]
struct Certificates {
    own: Option<Arc<CertifiedKey>>,
    files: Option<(CertificateFiles, RwLock<Loaded>)>,
}

impl ServerTls {
    /// Makes certificates from a key, from files, or from both.
    /// Fails if there is neither, or the files cannot be used.
    pub fn new(key: Option<RootKey>, files: Option<CertificateFiles>) -> Result<Self, CertificateError> {
        if key.is_none() && files.is_none() {
            return Err(CertificateError::Nothing);
        }
        let own = key.map(|key| key.certificate().map(Arc::new)).transpose()?;
        let load = |files: CertificateFiles| {
            let loaded = load(&files)?;
            Ok((files, RwLock::new(loaded)))
        };
        let certificates = Arc::new(Certificates { own, files: files.map(load).transpose()? });
        let mut config = RustlsConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has suites of TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![ALPN.to_vec(), ALPN_HTTP.to_vec()];
        // No resumption, because session state costs memory and clients connect seldom.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { certificates, config: Arc::new(config) })
    }

    /// Reads the files again. Existing connections keep the old certificate. If the new one cannot be used,
    /// the old one stays.
    /// Fails if the files cannot be used.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let Some((files, loaded)) = &self.certificates.files else { return Ok(()) };
        *sync::write(loaded) = load(files)?;
        Ok(())
    }

    /// Reads the files again if they have changed, and returns true if so.
    ///
    /// # Errors
    /// If they have changed and cannot be used: the old certificate stays, and the next call tries again.
    pub fn reload_if_changed(&self) -> Result<bool, CertificateError> {
        let Some((files, loaded)) = &self.certificates.files else { return Ok(false) };
        let stamp = files.stamp();
        // A file may be missing for a moment while it is being replaced.
        if stamp.is_none() || stamp == sync::read(loaded).stamp {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }
}

fn load(files: &CertificateFiles) -> Result<Loaded, CertificateError> {
    // Before the files are read, so that the next check sees a change during the read.
    let stamp = files.stamp();
    Ok(Loaded { certificate: Arc::new(files.load()?), stamp })
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let from_files = || Some(sync::read(&self.files.as_ref()?.1).certificate.clone());
        match hello.server_name() {
            Some(_) => from_files().or_else(|| self.own.clone()),
            None => self.own.clone().or_else(from_files),
        }
    }
}
