//! Certificates that clients accept, and certificates that servers show.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use peersock_streams::{
    CertificateError, ConnectError, Connector, ProxySettings, RootKey, ServerOptions, ServerTls, Target,
    Transport,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::certificates::{Authority, write_self_signed};
use crate::common::{Bench, identity};

/// Variable with the folder of the test's authority, for the process that trusts it.
const FOLDER: &str = "PEERSOCK_TEST_AUTHORITY";

#[tokio::test]
async fn a_root_with_another_key_is_refused() {
    let bench = Bench::start(ServerOptions::default()).await;
    for transport in [Transport::Tls, Transport::WebSocket] {
        for target in [bench.target(transport).with_key([9; 32]), without_key(&bench.target(transport))] {
            let error = bench.connector().connect(&target).await.expect_err("another key");
            assert!(matches!(error, ConnectError::Certificate { .. }), "{error:?}");
            assert!(error.to_string().contains("check the KEY@ of the root"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_copied_certificate_is_of_no_use_without_the_secret_key() {
    let thief = RootKey::new(*identity().public().ed25519(), |_: &[u8]| [0; 64]);
    let tls = Some(ServerTls::new(Some(thief), None).expect("a certificate"));
    let bench = Bench::start(ServerOptions { tls, ..ServerOptions::default() }).await;
    let error = bench.connector().connect(&bench.target(Transport::Tls)).await.expect_err("no secret key");
    assert!(
        error.to_string().contains("BadSignature") || error.to_string().contains("bad signature"),
        "{error}"
    );
}

#[tokio::test]
async fn a_port_without_tls_says_so() {
    let server = peersock_streams::Server::new(ServerOptions::default());
    let address = server.listen("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let target = Target::new(Transport::Tls, "127.0.0.1", address.port());
    let connector = Connector::new(peersock_streams::ConnectOptions::default());
    let error = connector.connect(&target).await.expect_err("no TLS");
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn new_files_are_read_and_bad_ones_are_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, first) = write_self_signed(folder.path());
    let tls = ServerTls::new(None, Some(files.clone())).expect("good files");
    let mut bench = Bench::start(ServerOptions { tls: Some(tls.clone()), ..ServerOptions::default() }).await;
    let target = |key| Target::new(Transport::Tls, "localhost", 0).with_key(key);
    let connect = async |bench: &Bench, key| {
        let target = Target { port: bench.address.port(), ..target(key) };
        bench.connector().connect(&target).await
    };
    let standing = connect(&bench, first).await.expect("the first certificate");
    let peersock_streams::ServerEvent::Opened { id, .. } = bench.event().await else {
        panic!("a connection")
    };

    fs::write(&files.key, "nothing").expect("a folder");
    let error = bench.server.handle().reload_certificates().expect_err("no key");
    assert!(matches!(&error, CertificateError::File { file, .. } if *file == files.key), "{error}");
    assert!(tls.reload_if_changed().is_err());
    connect(&bench, first).await.expect("the first certificate is still used");

    let (_, second) = write_self_signed(folder.path());
    assert_eq!(tls.reload_if_changed(), Ok(true));
    assert_eq!(tls.reload_if_changed(), Ok(false), "nothing has changed since");
    connect(&bench, second).await.expect("the second certificate");
    connect(&bench, first).await.expect_err("the first certificate is gone");

    let (_, third) = write_self_signed(folder.path());
    bench.server.handle().reload_certificates().expect("good files");
    connect(&bench, third).await.expect("the third certificate");
    fs::remove_file(&files.chain).expect("it is there");
    assert_eq!(tls.reload_if_changed(), Ok(false), "it is just being replaced");

    standing.send(&b"still here"[..]).expect("connections outlive their certificate");
    loop {
        match bench.event().await {
            peersock_streams::ServerEvent::Datagram { id: from, .. } => break assert_eq!(from, id),
            peersock_streams::ServerEvent::Closed { id: closed, .. } => assert_ne!(closed, id),
            _ => {}
        }
    }
}

#[tokio::test]
async fn clients_that_name_no_host_get_the_certificate_of_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, of_files) = write_self_signed(folder.path());
    let tls = ServerTls::new(Some(crate::common::root_key()), Some(files)).expect("good files");
    let bench = Bench::start(ServerOptions { tls: Some(tls), ..ServerOptions::default() }).await;
    let by_address = bench.target(Transport::Tls);
    bench.connector().connect(&by_address).await.expect("the key of the root");
    let by_name = Target { host: "localhost".into(), ..by_address.clone() };
    bench
        .connector()
        .connect(&by_name.clone().with_key(of_files))
        .await
        .expect("the certificate of the files");
    bench.connector().connect(&by_name).await.expect_err("not the key of the root");
}

/// Runs the test again in a process whose environment names the authority.
#[tokio::test]
async fn certificates_that_the_system_trusts_need_no_key() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return trusting(folder.as_ref()).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    fs::write(folder.path().join("authority.pem"), authority.pem()).expect("a folder");
    authority.issue("localhost", folder.path());
    let itself = std::env::current_exe().expect("a program");
    let output = Command::new(itself)
        .args(["--exact", "tls::certificates_that_the_system_trusts_need_no_key", "--nocapture"])
        .env(FOLDER, folder.path())
        .env("SSL_CERT_FILE", folder.path().join("authority.pem"))
        .output()
        .expect("it starts");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

async fn trusting(folder: &std::path::Path) {
    let files =
        peersock_streams::CertificateFiles { chain: folder.join("chain.pem"), key: folder.join("key.pem") };
    let tls = ServerTls::new(None, Some(files)).expect("good files");
    let mut bench = Bench::start(ServerOptions { tls: Some(tls.clone()), ..ServerOptions::default() }).await;
    let target = Target::new(Transport::WebSocket, "localhost", bench.address.port());
    let connection = bench.connector().connect(&target).await.expect("a valid certificate");
    let peersock_streams::ServerEvent::Opened { id, .. } = bench.event().await else {
        panic!("a connection")
    };
    bench.end(connection, id).await;

    let by_address = Target { host: "127.0.0.1".into(), ..target.clone() };
    let error = bench.connector().connect(&by_address).await.expect_err("a certificate for another name");
    assert!(matches!(error, ConnectError::Certificate { .. }), "{error:?}");

    // A proxy that the client reaches by TLS.
    let proxy = tls_proxy(&folder.join("chain.pem"), &folder.join("key.pem")).await;
    let proxy = format!("https://u:p@localhost:{proxy}").parse().expect("a proxy");
    bench.options.proxy = ProxySettings::all_by(proxy);
    let connection = bench.connector().connect(&target).await.expect("connected through the proxy");
    connection.send(&b"TLS in TLS"[..]).expect("open");
    let peersock_streams::ServerEvent::Opened { id, .. } = bench.event().await else {
        panic!("a connection")
    };
    assert_eq!(bench.datagram(id).await, b"TLS in TLS");
}

/// Runs a proxy with TLS that connects once. Returns its port.
async fn tls_proxy(chain: &std::path::Path, key: &std::path::Path) -> u16 {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let chain = vec![CertificateDer::from_pem_file(chain).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut client = acceptor.accept(stream).await.expect("TLS");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(client.read_u8().await.expect("a request"));
        }
        let request = String::from_utf8(request).expect("text");
        let to = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).expect("CONNECT");
        assert!(request.contains("Proxy-Authorization: Basic dTpw\r\n"), "{request}");
        let mut server = TcpStream::connect(to).await.expect("the root listens");
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("open");
        let _ = copy_bidirectional(&mut client, &mut server).await;
    });
    port
}

fn without_key(target: &Target) -> Target {
    Target { key: None, ..target.clone() }
}
