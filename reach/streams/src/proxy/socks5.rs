//! SOCKS 5 (RFC 1928), with user name and password (RFC 1929): the client's side.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Proxy;
use crate::carrier::BoxedStream;
use crate::error::ConnectError;
use crate::socks::{
    Login, METHOD_LOGIN, METHOD_NONE, METHOD_UNACCEPTABLE, Reply, Request, SocksError, VERSION,
};

/// Explains a refusal: its reason, and a hint.
fn refusal(reply: Reply) -> (String, &'static str) {
    let ask = "ask who runs the proxy to allow it, or use a server at port 443";
    let check = "the proxy does not reach the server; check its name and port";
    let (reason, hint) = match reply {
        Reply::FAILURE => ("a general failure", check),
        Reply::NOT_ALLOWED => ("its rules do not allow it", ask),
        Reply::NETWORK_UNREACHABLE => ("the network is unreachable", check),
        Reply::HOST_UNREACHABLE => ("the host is unreachable", check),
        Reply::REFUSED => ("the connection was refused", check),
        Reply::TTL_EXPIRED => ("it took too long", check),
        Reply::COMMAND_NOT_SUPPORTED => ("it does not take CONNECT", "use another proxy"),
        Reply::ADDRESS_TYPE_NOT_SUPPORTED => (
            "it does not take this kind of address",
            "use another proxy, or another of the server's addresses",
        ),
        Reply(code) => return (format!("the unknown code {code}"), check),
    };
    (reason.to_owned(), hint)
}

/// Asks the proxy to connect to a host. The proxy resolves names.
pub(crate) async fn connect(
    stream: &mut BoxedStream,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<Vec<u8>, ConnectError> {
    authenticate(stream, proxy).await?;
    let request = Request::emit_connect(host, port).ok_or_else(|| ConnectError::Host(host.to_owned()))?;
    send(stream, proxy, &request).await?;
    let mut reply = Vec::new();
    loop {
        let mut chunk = [0; 300];
        match stream.read(&mut chunk).await.map_err(|error| broken(proxy, error))? {
            0 => return Err(no_proxy(proxy, "it closed the connection".to_owned())),
            read => reply.extend_from_slice(&chunk[..read]),
        }
        let Some((code, length)) =
            Reply::parse(&reply).map_err(|fault| no_proxy(proxy, fault.to_string()))?
        else {
            continue;
        };
        if code == Reply::SUCCEEDED {
            return Ok(reply.split_off(length));
        }
        let (reason, hint) = refusal(code);
        let to = crate::target::authority(host, port);
        return Err(ConnectError::ProxyRefused { proxy: proxy.to_string(), to, reason, hint });
    }
}

/// Authenticates as in RFC 1928, 3, and RFC 1929.
async fn authenticate(stream: &mut BoxedStream, proxy: &Proxy) -> Result<(), ConnectError> {
    let greeting: &[u8] = if proxy.credentials.is_some() {
        &[VERSION, 2, METHOD_NONE, METHOD_LOGIN]
    } else {
        &[VERSION, 1, METHOD_NONE]
    };
    send(stream, proxy, greeting).await?;
    let method = match receive(stream, proxy).await? {
        [VERSION, method] => method,
        [version, _] => return Err(no_proxy(proxy, SocksError::Version(version).to_string())),
    };
    match (method, &proxy.credentials) {
        (METHOD_NONE, _) => Ok(()),
        (METHOD_LOGIN, Some(credentials)) => {
            let message = Login::emit(&credentials.user, &credentials.password);
            send(stream, proxy, &message.ok_or_else(|| refused_credentials(proxy))?).await?;
            match receive(stream, proxy).await? {
                // The first byte is not checked, because some proxies send their own version.
                [_, 0] => Ok(()),
                _ => Err(refused_credentials(proxy)),
            }
        }
        (METHOD_UNACCEPTABLE, None) => Err(ConnectError::ProxyAuthentication {
            proxy: proxy.to_string(),
            setting: proxy.setting.clone(),
            with: proxy.with_credentials(),
        }),
        (METHOD_UNACCEPTABLE, Some(_)) => Err(refused_credentials(proxy)),
        (method, _) => Err(no_proxy(proxy, format!("it chose the method {method}, which was not offered"))),
    }
}

async fn send(stream: &mut BoxedStream, proxy: &Proxy, bytes: &[u8]) -> Result<(), ConnectError> {
    stream.write_all(bytes).await.map_err(|error| broken(proxy, error))?;
    stream.flush().await.map_err(|error| broken(proxy, error))
}

async fn receive(stream: &mut BoxedStream, proxy: &Proxy) -> Result<[u8; 2], ConnectError> {
    let mut bytes = [0; 2];
    match stream.read_exact(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(no_proxy(proxy, "it closed the connection".to_owned()))
        }
        Err(error) => Err(broken(proxy, error)),
    }
}

fn refused_credentials(proxy: &Proxy) -> ConnectError {
    ConnectError::ProxyCredentials { proxy: proxy.to_string(), setting: proxy.setting.clone() }
}

fn no_proxy(proxy: &Proxy, reason: String) -> ConnectError {
    ConnectError::NoProxy { proxy: proxy.to_string(), reason, setting: proxy.setting.clone() }
}

fn broken(proxy: &Proxy, error: io::Error) -> ConnectError {
    ConnectError::Broken { to: proxy.to_string(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the proxy. Each pair of the script is an expected message and its answer.
    async fn with(proxy: &str, script: &[(&'static [u8], &'static [u8])]) -> Result<Vec<u8>, String> {
        let (client, mut server) = tokio::io::duplex(1000);
        let script = script.to_vec();
        let playing = tokio::spawn(async move {
            for (expected, answer) in script {
                let mut bytes = vec![0; expected.len()];
                server.read_exact(&mut bytes).await.expect("as much as expected");
                assert_eq!(bytes, *expected);
                // Byte by byte, as TCP may split it.
                for byte in answer {
                    server.write_all(&[*byte]).await.expect("the client reads");
                }
            }
        });
        let mut stream: BoxedStream = Box::new(client);
        let proxy = Proxy::parse(proxy, "ALL_PROXY").expect("a proxy");
        let result = connect(&mut stream, &proxy, "a.b", 443).await;
        drop(stream);
        playing.await.expect("the script was followed");
        result.map_err(|error| error.to_string())
    }

    const REQUEST: &[u8] = &[5, 1, 0, 3, 3, b'a', b'.', b'b', 1, 0xbb];
    const CONNECTED: &[u8] = &[5, 0, 0, 3, 1, b'x', 0, 9];

    #[tokio::test]
    async fn a_proxy_without_users_connects() {
        let early = with("socks5://p", &[(&[5, 1, 0], &[5, 0]), (REQUEST, CONNECTED)]).await;
        assert_eq!(early, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn users_are_asked_for_and_tried() {
        let greeting: &[u8] = &[5, 2, 0, 2];
        let user: &[u8] = &[1, 1, b'u', 2, b'p', b'w'];
        let script = &[(greeting, &[5, 2][..]), (user, &[1, 0]), (REQUEST, CONNECTED)];
        assert_eq!(with("socks5://u:pw@p", script).await, Ok(Vec::new()));
        for script in [&[(greeting, &[5, 2][..]), (user, &[1, 1])][..], &[(greeting, &[5, 0xff])]] {
            let error = with("socks5://u:pw@p", script).await.expect_err("refused");
            assert!(error.contains("does not accept the user name and password in ALL_PROXY"), "{error}");
        }
        let error = with("socks5://p", &[(&[5, 1, 0], &[5, 0xff])]).await.expect_err("refused");
        assert!(error.contains("put them into ALL_PROXY as socks5://USER:PASSWORD@p:1080"), "{error}");
    }

    #[tokio::test]
    async fn refusals_say_why() {
        let error =
            with("socks5://p", &[(&[5, 1, 0], &[5, 0]), (REQUEST, &[5, 2])]).await.expect_err("refused");
        assert!(error.contains("does not connect to a.b:443: its rules do not allow it"), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_socks_is_an_error() {
        for answer in [&b"HT"[..], &[5, 9], &[4]] {
            let script = &[(&[5, 1, 0][..], answer)];
            let error = with("socks5://p", script).await.expect_err("no SOCKS");
            assert!(error.contains("check the scheme and the port in ALL_PROXY"), "{error}");
        }
    }
}
