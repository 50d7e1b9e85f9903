//! QUIC streams by quinn, tuned: windows of several MiB and full-size packets from the start.
//!
//! One connection carries everything. A `connect` workload opens a new stream each time, the counterpart of a
//! new TCP connection inside a tunnel. AES-128-GCM is quinn's fastest suite. Certificates are not checked,
//! because this only measures.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::report;
use crate::workload::Workload;

mod certificate;
mod streams;

const SERVER_NAME: &str = "bench";
const ALPN: &[u8] = b"peersock-bench";
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// UDP payload in bytes of a 1500-byte packet over IPv6, where quinn's discovery ends too.
const INITIAL_MTU: u16 = 1452;

/// Serves until the process is ended.
pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    runtime()?.block_on(async {
        let endpoint = Endpoint::server(server_config()?, address)?;
        report::print_ready(endpoint.local_addr()?);
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    streams::serve(&connection).await;
                }
            });
        }
        Ok(())
    })
}

/// Runs a workload over one connection.
pub(crate) fn client(address: SocketAddr, workload: &Workload) -> io::Result<()> {
    runtime()?.block_on(async {
        let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let mut endpoint = Endpoint::client(local.parse().map_err(io::Error::other)?)?;
        endpoint.set_default_client_config(client_config()?);
        let connection = endpoint.connect(address, SERVER_NAME).map_err(io::Error::other)?.await?;
        let report = streams::run(&connection, workload).await?;
        report.print()?;
        connection.close(0u32.into(), b"");
        endpoint.wait_idle().await;
        Ok(())
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn server_config() -> io::Result<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec![SERVER_NAME.to_owned()]).map_err(io::Error::other)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .map_err(io::Error::other)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

fn client_config() -> io::Result<ClientConfig> {
    let provider = provider();
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(certificate::AcceptAny(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.stream_receive_window(STREAM_WINDOW.into());
    config.receive_window(CONNECTION_WINDOW.into());
    config.send_window(CONNECTION_WINDOW.into());
    config.initial_mtu(INITIAL_MTU);
    Arc::new(config)
}
