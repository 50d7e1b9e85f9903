//! TURN servers by TCP and TLS: the bytes on the wire, certificates, proxies.

use std::net::SocketAddr;
use std::sync::Arc;

use peersock_streams::{
    ConnectError, ConnectOptions, Connection, Connector, ProxySettings, TurnTarget, TurnTls,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::common::{TEST_TIMEOUT, patient_client};

/// A STUN message without attributes.
const STUN: &[u8] = b"\x01\x01\x00\x00\x21\x12\xa4\x42transaction!";

#[tokio::test]
async fn messages_are_padded_on_the_wire_and_urgent_ones_overtake() {
    let (server, listener) = listen().await;
    let connection = connect(&TurnTarget::new("127.0.0.1", server.port())).await.expect("it listens");
    assert_eq!((connection.remote_addr(), connection.proxy()), (server, None));
    let (mut stream, client) = listener.accept().await.expect("a client");
    assert_eq!(connection.local_addr(), client);
    let (sender, mut receiver) = connection.split();
    // The connection's task, which shares this thread, sees all three at once.
    sender.send(&b"\x40\x01\x00\x05hello"[..]).expect("open");
    sender.send(&b"\x40\x01\x00\x04word"[..]).expect("open");
    sender.send_urgent(STUN).expect("open");
    let expected = [STUN, b"\x40\x01\x00\x05hello\0\0\0", b"\x40\x01\x00\x04word"].concat();
    let mut read = vec![0; expected.len()];
    stream.read_exact(&mut read).await.expect("it arrives");
    assert_eq!(read, expected, "no keepalive stands in between");
    for byte in [STUN, b"\x40\x01\x00\x01x\0\0\0"].concat() {
        stream.write_all(&[byte]).await.expect("connected");
    }
    assert_eq!(receiver.recv().await.expect("open"), STUN);
    assert_eq!(receiver.recv().await.expect("open"), &b"\x40\x01\x00\x01x\0\0\0"[..]);
    stream.write_all(b"\x90").await.expect("connected");
    let reason = receiver.recv().await.expect_err("that is no message").to_string();
    assert!(reason.contains("no message of a TURN server"), "{reason}");
}

#[tokio::test]
async fn a_certificate_of_the_server_s_own_is_accepted_by_its_fingerprint_and_no_other_one() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let (server, fingerprint) = serve_tls(version).await;
        let target = |tls| TurnTarget::new("127.0.0.1", server.port()).with_tls(tls);
        let good = connect(&target(TurnTls::Fingerprint(fingerprint))).await.expect("it is that one");
        assert_eq!(echo(good).await, STUN);
        let error = connect(&target(TurnTls::Fingerprint([7; 32]))).await.expect_err("another one");
        let hex: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = error.to_string();
        assert!(text.contains(&hex) && text.contains("?sha256="), "{text}");
        let error = connect(&target(TurnTls::Names)).await.expect_err("nobody vouches for it");
        assert!(matches!(error, ConnectError::Certificate { .. }), "{error:?}");
        assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
    }
}

#[tokio::test]
async fn a_port_without_tls_is_told_from_a_bad_certificate() {
    let (server, listener) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.write_all(b"this is no TLS\r\n").await.expect("connected");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let target = TurnTarget::new("127.0.0.1", server.port()).with_tls(TurnTls::Names);
    let error = connect(&target).await.expect_err("no TLS");
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_server_and_where_it_names_another_for_that_one() {
    let (server, fingerprint) = serve_tls(&rustls::version::TLS13).await;
    let (proxy, listener) = listen().await;
    tokio::spawn(async move {
        for asked in ["turn.test:5349", "192.0.2.7:99"] {
            let (mut client, _) = listener.accept().await.expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(client.read_u8().await.expect("a request"));
            }
            let request = String::from_utf8(request).expect("text");
            assert!(request.starts_with(&format!("CONNECT {asked} HTTP/1.1\r\n")), "{request}");
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("open");
            let mut there = TcpStream::connect(server).await.expect("it listens");
            tokio::spawn(async move { _ = copy_bidirectional(&mut client, &mut there).await });
        }
    });
    let proxy_text = format!("http://{proxy}");
    let options = ConnectOptions {
        proxy: ProxySettings::all_by(proxy_text.parse().expect("a proxy")),
        ..patient_client(ConnectOptions::default())
    };
    let target = TurnTarget::new("turn.test", 5349).with_tls(TurnTls::Fingerprint(fingerprint));
    let elsewhere = target.clone().at("192.0.2.7:99".parse().expect("an address"));
    for target in [target, elsewhere] {
        let connection =
            Connector::new(options.clone()).connect_turn(&target).await.expect("through the proxy");
        assert_eq!((connection.remote_addr(), connection.proxy()), (proxy, Some(&*proxy_text)));
        assert_eq!(echo(connection).await, STUN);
    }
}

async fn connect(target: &TurnTarget) -> Result<Connection, ConnectError> {
    Connector::new(patient_client(ConnectOptions::default())).connect_turn(target).await
}

/// Sends a message and returns the server's echo.
async fn echo(mut connection: Connection) -> Vec<u8> {
    connection.send(STUN).expect("open");
    timeout(TEST_TIMEOUT, connection.recv()).await.expect("in time").expect("open").to_vec()
}

async fn listen() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    (listener.local_addr().expect("bound"), listener)
}

/// Starts an echo server with a certificate that no authority has signed. Returns its address and the
/// SHA-256.
async fn serve_tls(version: &'static SupportedProtocolVersion) -> (SocketAddr, [u8; 32]) {
    let key = KeyPair::generate().expect("randomness");
    let made = CertificateParams::new(vec!["turn.test".to_owned()]).expect("a name").self_signed(&key);
    let certificate = made.expect("a certificate").der().clone();
    let fingerprint = Sha256::digest(&certificate).into();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (address, listener) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            // Clients that refuse the certificate close the connection.
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    send_back(stream).await;
                }
            });
        }
    });
    (address, fingerprint)
}

async fn send_back(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = [0; 2048];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
