//! HTTP CONNECT (RFC 9110, 9.3.6) with Basic authentication (RFC 7617).

use std::io;

use data_encoding::BASE64;
use peersock_primitives::is_deceptive;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Credentials, Proxy};
use crate::carrier::BoxedStream;
use crate::error::ConnectError;

/// Largest head of an answer, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// Bytes that one call reads of the answer.
const READ: usize = 1024;

/// The answer of a proxy to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectAnswer {
    /// The status; 2xx means connected.
    pub status: u16,
    /// The text beside the status, without control characters, at most 100 characters.
    pub reason: String,
    /// True if the proxy accepts a user name and password by Basic authentication.
    pub takes_basic: bool,
    /// Length of the head in bytes. The bytes after it belong to the connection.
    pub length: usize,
}

impl ConnectAnswer {
    /// Parses the head of an answer; `None` means that it is incomplete.
    /// Fails with the fault, if this is no HTTP answer.
    pub fn parse(head: &[u8]) -> Result<Option<Self>, String> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(head) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("no answer of HTTP ({error})")),
        };
        let status = response.code.ok_or("no answer of HTTP (no status)")?;
        let reason = response.reason.unwrap_or_default().chars().filter(|c| !is_deceptive(*c));
        let takes_basic = response.headers.iter().any(|header| {
            let value = header.value.trim_ascii_start();
            header.name.eq_ignore_ascii_case("proxy-authenticate")
                && value.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
        });
        Ok(Some(Self { status, reason: reason.take(100).collect(), takes_basic, length }))
    }
}

/// Asks the proxy to connect to `to`. Returns bytes that the other end has already sent.
pub(crate) async fn connect(
    stream: &mut BoxedStream,
    proxy: &Proxy,
    to: &str,
) -> Result<Vec<u8>, ConnectError> {
    let broken = |error: io::Error| ConnectError::Broken { to: proxy.to_string(), error };
    stream.write_all(request(proxy.credentials.as_ref(), to).as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let no_proxy = |reason: String| ConnectError::NoProxy {
        proxy: proxy.to_string(),
        reason,
        setting: proxy.setting.clone(),
    };
    let mut head = Vec::new();
    loop {
        let mut chunk = [0; READ];
        match stream.read(&mut chunk).await.map_err(broken)? {
            0 => return Err(no_proxy("it closed the connection".to_owned())),
            read => head.extend_from_slice(&chunk[..read]),
        }
        match ConnectAnswer::parse(&head).map_err(no_proxy)? {
            Some(answer) => {
                judge(&answer, proxy, to)?;
                return Ok(head.split_off(answer.length));
            }
            None if head.len() > MAX_HEAD => return Err(no_proxy("its answer is too long".to_owned())),
            None => {}
        }
    }
}

fn request(credentials: Option<&Credentials>, to: &str) -> String {
    let authorization = credentials.map(|Credentials { user, password }| {
        let token = BASE64.encode(format!("{user}:{password}").as_bytes());
        format!("Proxy-Authorization: Basic {token}\r\n")
    });
    let authorization = authorization.unwrap_or_default();
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: peersock\r\n{authorization}\r\n")
}

fn judge(answer: &ConnectAnswer, proxy: &Proxy, to: &str) -> Result<(), ConnectError> {
    let refused = |hint| {
        let reason = format!("{} {}", answer.status, answer.reason).trim_end().to_owned();
        ConnectError::ProxyRefused { proxy: proxy.to_string(), to: to.to_owned(), reason, hint }
    };
    Err(match answer.status {
        200..300 => return Ok(()),
        407 if proxy.credentials.is_some() && answer.takes_basic => {
            ConnectError::ProxyCredentials { proxy: proxy.to_string(), setting: proxy.setting.clone() }
        }
        407 if answer.takes_basic => ConnectError::ProxyAuthentication {
            proxy: proxy.to_string(),
            setting: proxy.setting.clone(),
            with: proxy.with_credentials(),
        },
        407 => refused(
            "it wants another authentication than Basic; use a local proxy that knows it, such as cntlm",
        ),
        403 | 405 => refused("ask who runs the proxy to allow it, or use a server at port 443"),
        500..600 => refused("the proxy does not reach the server; check its name and port"),
        _ => refused("check the address of the proxy and of the server"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: &str, headers: &str, proxy: &str) -> String {
        let head = format!("HTTP/1.1 {status}\r\n{headers}\r\n");
        let answer = ConnectAnswer::parse(head.as_bytes()).expect("HTTP").expect("complete");
        let proxy = Proxy::parse(proxy, "HTTPS_PROXY").expect("a proxy");
        match judge(&answer, &proxy, "root.example.org:443") {
            Ok(()) => "connected".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_user_is_told_what_to_do() {
        assert_eq!(judged("200 Connection established", "", "http://p:1"), "connected");
        let basic = "Proxy-Authenticate: Negotiate\r\nproxy-authenticate:  basic realm=\"a\"\r\n";
        assert_eq!(
            judged("407 Proxy Authentication Required", basic, "http://p:1"),
            "the proxy at http://p:1 asks for a user name and password: put them into HTTPS_PROXY as \
             http://USER:PASSWORD@p:1"
        );
        assert_eq!(
            judged("407 Proxy Authentication Required", basic, "http://u:pw@p:1"),
            "the proxy at http://p:1 does not accept the user name and password in HTTPS_PROXY: correct them \
             there"
        );
        assert!(judged("407 Who?", "Proxy-Authenticate: NTLM\r\n", "http://p:1").contains("than Basic"));
        assert!(
            judged("403 Forbidden", "", "http://p:1").contains("root.example.org:443: 403 Forbidden; ask")
        );
        assert!(judged("503", "", "http://p:1").contains("does not reach the server"));
    }

    #[test]
    fn a_request_names_host_and_user() {
        let credentials = Credentials { user: "Aladdin".into(), password: "open sesame".into() };
        // The example of RFC 7617, 2.
        assert_eq!(
            request(Some(&credentials), "a:443"),
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nUser-Agent: peersock\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
        assert!(!request(None, "a:443").contains("Authorization"));
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        assert!(ConnectAnswer::parse(b"SSH-2.0-OpenSSH\r\n").is_err());
        assert!(ConnectAnswer::parse(&[5, 0]).is_err());
    }
}
