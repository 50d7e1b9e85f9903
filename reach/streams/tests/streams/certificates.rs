//! Certificates for tests.

use std::fs;
use std::path::Path;

use data_encoding::BASE64;
use peersock_streams::CertificateFiles;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PublicKeyData as _,
};

/// An authority that no system trusts.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).expect("a certificate").der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(crate) fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    /// Writes a certificate for this name, and its key, into a folder.
    pub(crate) fn issue(&self, name: &str, folder: &Path) -> CertificateFiles {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        write(folder, certificate.der(), &key)
    }
}

/// Writes a self-signed certificate of a new Ed25519 key, and returns the key's public half.
pub(crate) fn write_self_signed(folder: &Path) -> (CertificateFiles, [u8; 32]) {
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let params = CertificateParams::new(Vec::new()).expect("no names");
    let certificate = params.self_signed(&key).expect("a certificate");
    let public = key.der_bytes().try_into().expect("32 bytes");
    (write(folder, certificate.der(), &key), public)
}

fn write(folder: &Path, certificate: &[u8], key: &KeyPair) -> CertificateFiles {
    let files = CertificateFiles { chain: folder.join("chain.pem"), key: folder.join("key.pem") };
    fs::write(&files.chain, pem("CERTIFICATE", certificate)).expect("a folder");
    fs::write(&files.key, pem("PRIVATE KEY", &key.serialize_der())).expect("a folder");
    files
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("base64")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
