//! Reasons for which a client could not connect, with advice.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// Reasons for a failed connection. The texts give advice; none contains a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name of the root, or of the proxy, has no address.
    #[error("the name {host} cannot be resolved: {error}; {hint}")]
    Resolve {
        /// The name.
        host: String,
        /// The system's error.
        error: io::Error,
        /// Advice.
        hint: &'static str,
    },
    /// TCP to the root, or to the proxy, failed.
    #[error("cannot connect to {to}: {error}; {hint}")]
    Connect {
        /// The root or the proxy, with the port.
        to: String,
        /// The error of the last address that was tried.
        error: io::Error,
        /// Advice.
        hint: &'static str,
    },
    /// A step timed out.
    #[error("{step} took longer than {} s; {hint}", .limit.as_secs_f32())]
    TimedOut {
        /// The step, and the peer.
        step: String,
        /// The timeout.
        limit: Duration,
        /// Advice.
        hint: &'static str,
    },
    /// A setting that names a proxy cannot be parsed.
    #[error(transparent)]
    ProxySetting(#[from] crate::proxy::ParseProxyError),
    /// The proxy demands authentication, and no user name and password are set.
    #[error("the proxy at {proxy} asks for a user name and password: put them into {setting} as {with}")]
    ProxyAuthentication {
        /// The proxy, without user name and password.
        proxy: String,
        /// The variable or the setting that names the proxy.
        setting: String,
        /// The text to write there.
        with: String,
    },
    /// The proxy rejects the user name and password that it got.
    #[error(
        "the proxy at {proxy} does not accept the user name and password in {setting}: correct them there"
    )]
    ProxyCredentials {
        /// The proxy, without user name and password.
        proxy: String,
        /// The variable or the setting that names the proxy.
        setting: String,
    },
    /// The proxy does not connect to the root.
    #[error("the proxy at {proxy} does not connect to {to}: {reason}; {hint}")]
    ProxyRefused {
        /// The proxy, without user name and password.
        proxy: String,
        /// The root, with the port.
        to: String,
        /// The proxy's answer.
        reason: String,
        /// Advice.
        hint: &'static str,
    },
    /// The answer does not come from a proxy of this scheme.
    #[error(
        "{proxy} does not answer as such a proxy does: {reason}; check the scheme and the port in {setting}"
    )]
    NoProxy {
        /// The proxy, without user name and password.
        proxy: String,
        /// The fault in the answer.
        reason: String,
        /// The variable or the setting that names the proxy.
        setting: String,
    },
    /// The host's name cannot be in a certificate.
    #[error("{0} is neither a host name nor an IP address")]
    Host(String),
    /// The certificate is neither valid for the name nor the expected one.
    #[error("the certificate of {host} is not accepted: {reason}; {hint}")]
    Certificate {
        /// The host.
        host: String,
        /// The fault in the certificate.
        reason: String,
        /// Advice.
        hint: &'static str,
    },
    /// This build has no TLS.
    #[error("{0} is reached by TLS, for which this program needs the feature `tls` of the crate peersock")]
    NoTls(String),
    /// TLS failed otherwise.
    #[error("TLS with {host} failed: {error}; check that the port is one of TLS")]
    Tls {
        /// The host.
        host: String,
        /// The error.
        error: io::Error,
    },
    /// The listener there does not accept WebSockets for datagrams.
    #[error("{host} is no root: {reason}; check the name and the port")]
    NoRoot {
        /// The host.
        host: String,
        /// The server's answer.
        reason: String,
    },
    /// The connection broke while it was being made.
    #[error("the connection to {to} broke while it was made: {error}; try again")]
    Broken {
        /// The peer.
        to: String,
        /// The error.
        error: io::Error,
    },
}
