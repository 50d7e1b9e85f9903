//! SOCKS 5 (RFC 1928), with user name and password (RFC 1929).
//!
//! No library is used, because the protocol has only a few messages. They are parsed without I/O, so a fuzzer
//! can reach the parser and each refusal gets a helpful text.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Credentials, Proxy};
use crate::carrier::BoxedStream;
use crate::error::ConnectError;

const VERSION: u8 = 5;
/// Authentication methods (RFC 1928, 3).
const NONE: u8 = 0;
const USERNAME: u8 = 2;
const UNACCEPTABLE: u8 = 0xff;
/// Version of the subnegotiation of RFC 1929, and its success code.
const USERNAME_VERSION: u8 = 1;
const SUCCESS: u8 = 0;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// A reply of a SOCKS proxy to a request (RFC 1928, 6).
///
/// ```
/// use peersock_streams::SocksReply;
///
/// let reply = [5, 0, 0, 1, 192, 0, 2, 1, 0, 80, 7];
/// let parsed = SocksReply::parse(&reply)?.expect("complete");
/// assert_eq!((parsed.code, parsed.length), (0, 10));
/// assert!(SocksReply::parse(&reply[..9])?.is_none());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocksReply {
    /// The reply code: 0 means connected, the others give the reason of the failure.
    pub code: u8,
    /// Length of the reply in bytes. The bytes after it belong to the connection.
    pub length: usize,
}

impl SocksReply {
    /// Parses a reply; `None` means that it is incomplete. A reply that refuses may end after its code.
    ///
    /// # Errors
    /// The fault, if this is no reply.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, String> {
        if let Some(version) = bytes.first().filter(|version| **version != VERSION) {
            return Err(format!("version {version} instead of {VERSION}"));
        }
        let Some(code) = bytes.get(1).copied() else { return Ok(None) };
        if code != SUCCESS {
            return Ok(Some(Self { code, length: bytes.len().min(2) }));
        }
        let Some(kind) = bytes.get(3) else { return Ok(None) };
        let address = match *kind {
            IPV4 => 4,
            IPV6 => 16,
            NAME => match bytes.get(4) {
                Some(length) => 1 + usize::from(*length),
                None => return Ok(None),
            },
            kind => return Err(format!("an address of the unknown kind {kind}")),
        };
        let length = 4 + address + 2;
        Ok((bytes.len() >= length).then_some(Self { code, length }))
    }

    fn refusal(self) -> (String, &'static str) {
        let ask = "ask who runs the proxy to allow it, or use a server at port 443";
        let check = "the proxy does not reach the server; check its name and port";
        let (reason, hint) = match self.code {
            1 => ("a general failure", check),
            2 => ("its rules do not allow it", ask),
            3 => ("the network is unreachable", check),
            4 => ("the host is unreachable", check),
            5 => ("the connection was refused", check),
            6 => ("it took too long", check),
            7 => ("it does not take CONNECT", "use another proxy"),
            8 => (
                "it does not take this kind of address",
                "use another proxy, or another of the server's addresses",
            ),
            code => return (format!("the unknown code {code}"), check),
        };
        (reason.to_owned(), hint)
    }
}

/// Asks the proxy to connect to a host. The proxy resolves names.
pub(crate) async fn connect(
    stream: &mut BoxedStream,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<Vec<u8>, ConnectError> {
    authenticate(stream, proxy).await?;
    let request = request(host, port).ok_or_else(|| ConnectError::Host(host.to_owned()))?;
    send(stream, proxy, &request).await?;
    let mut reply = Vec::new();
    loop {
        let mut chunk = [0; 300];
        match stream.read(&mut chunk).await.map_err(|error| broken(proxy, error))? {
            0 => return Err(no_proxy(proxy, "it closed the connection".to_owned())),
            read => reply.extend_from_slice(&chunk[..read]),
        }
        let Some(parsed) = SocksReply::parse(&reply).map_err(|reason| no_proxy(proxy, reason))? else {
            continue;
        };
        if parsed.code == SUCCESS {
            return Ok(reply.split_off(parsed.length));
        }
        let (reason, hint) = parsed.refusal();
        let to = crate::target::authority(host, port);
        return Err(ConnectError::ProxyRefused { proxy: proxy.to_string(), to, reason, hint });
    }
}

/// Authenticates as in RFC 1928, 3, and RFC 1929.
async fn authenticate(stream: &mut BoxedStream, proxy: &Proxy) -> Result<(), ConnectError> {
    let greeting: &[u8] =
        if proxy.credentials.is_some() { &[VERSION, 2, NONE, USERNAME] } else { &[VERSION, 1, NONE] };
    send(stream, proxy, greeting).await?;
    let method = match receive(stream, proxy).await? {
        [VERSION, method] => method,
        [version, _] => return Err(no_proxy(proxy, format!("version {version} instead of {VERSION}"))),
    };
    match (method, &proxy.credentials) {
        (NONE, _) => Ok(()),
        (USERNAME, Some(credentials)) => {
            let message = credentials.message().ok_or_else(|| refused_credentials(proxy))?;
            send(stream, proxy, &message).await?;
            match receive(stream, proxy).await? {
                [_, SUCCESS] => Ok(()),
                _ => Err(refused_credentials(proxy)),
            }
        }
        (UNACCEPTABLE, None) => Err(ConnectError::ProxyAuthentication {
            proxy: proxy.to_string(),
            setting: proxy.setting.clone(),
            with: proxy.with_credentials(),
        }),
        (UNACCEPTABLE, Some(_)) => Err(refused_credentials(proxy)),
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

impl Credentials {
    /// Encodes the message of RFC 1929, 2. `None` if a part is empty or too long for the message.
    fn message(&self) -> Option<Vec<u8>> {
        let mut message = vec![USERNAME_VERSION];
        for part in [&self.user, &self.password] {
            message.push(u8::try_from(part.len()).ok().filter(|length| *length > 0)?);
            message.extend_from_slice(part.as_bytes());
        }
        Some(message)
    }
}

/// Encodes the request of RFC 1928, 4. `None` if the name is empty or too long for the message.
fn request(host: &str, port: u16) -> Option<Vec<u8>> {
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            request.push(NAME);
            request.push(u8::try_from(host.len()).ok().filter(|length| *length > 0)?);
            request.extend_from_slice(host.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    Some(request)
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

    #[test]
    fn addresses_are_sent_as_such() {
        assert_eq!(request("192.0.2.1", 80), Some(vec![5, 1, 0, 1, 192, 0, 2, 1, 0, 80]));
        assert_eq!(request("::1", 80).map(|request| (request[3], request.len())), Some((4, 22)));
        assert_eq!(request(&"a".repeat(256), 80), None);
    }
}
