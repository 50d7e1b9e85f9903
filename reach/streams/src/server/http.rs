//! The subset of HTTP that a root needs: WebSockets (RFC 6455, 4.2), and a page for all other clients.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::carrier::BoxedStream;
use crate::client::PATH;

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 8 << 10;

/// Bytes that are read and discarded after an answer, because unread ones would make the system reset the
/// connection before the client has the page.
const MAX_UNREAD: usize = 64 << 10;

/// The parts of an HTTP request that a root uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// The key of a WebSocket; `None` if this is no WebSocket request at [`PATH`].
    pub key: Option<String>,
    /// The status of the answer.
    pub status: u16,
    /// True if the answer has no body (HEAD).
    pub head_only: bool,
    /// Length of the request's head in bytes. The bytes after it belong to the WebSocket.
    pub length: usize,
}

impl UpgradeRequest {
    /// Parses the head of a request; `None` means that it is incomplete.
    /// Fails with the fault, if this is no HTTP request.
    pub fn parse(head: &[u8]) -> Result<Option<Self>, String> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(head) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let header = |name: &str| {
            let mut matching = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            matching.next().map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
        };
        // Lists, whose tokens are case-insensitive.
        let lists = |name: &str, token: &str| {
            header(name)
                .is_some_and(|list| list.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
        };
        let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
        let method = request.method.unwrap_or_default();
        let upgrades = lists("upgrade", "websocket") && lists("connection", "upgrade");
        // 16 bytes in base64 (RFC 6455, 4.1).
        let key = header("sec-websocket-key").filter(|key| key.len() == 24);
        let version = header("sec-websocket-version").is_some_and(|version| version == "13");
        let (status, key) = match (method, path) {
            ("GET", PATH) if upgrades && version && key.is_some() => (101, key),
            ("GET" | "HEAD", PATH) => (426, None),
            ("GET" | "HEAD", "/") => (200, None),
            ("GET" | "HEAD", _) => (404, None),
            _ => (405, None),
        };
        Ok(Some(Self { key, status, head_only: method == "HEAD", length }))
    }

    fn answer(&self, page: &str) -> String {
        if let Some(key) = &self.key {
            let accept = derive_accept_key(key.as_bytes());
            return format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
        }
        let (reason, more) = match self.status {
            200 => ("OK", ""),
            405 => ("Method Not Allowed", "Allow: GET, HEAD\r\n"),
            426 => ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            _ => ("Not Found", ""),
        };
        let (status, length) = (self.status, page.len());
        let body = if self.head_only { "" } else { page };
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\n{more}Connection: close\r\n\r\n{body}"
        )
    }
}

/// Outcome of a request.
pub(super) enum Answered {
    /// The connection is a WebSocket from now on; the bytes were read after the request.
    WebSocket(BoxedStream, Vec<u8>),
    /// The client got a page.
    Page,
}

/// Reads a request, whose first bytes are in `head`, and answers it.
pub(super) async fn answer(mut stream: BoxedStream, mut head: Vec<u8>, page: &str) -> io::Result<Answered> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let request = loop {
        if let Some(request) = UpgradeRequest::parse(&head).map_err(invalid)? {
            break request;
        }
        if head.len() > MAX_HEAD {
            return Err(invalid("the request is too long".to_owned()));
        }
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&chunk[..read]),
        }
    };
    stream.write_all(request.answer(page).as_bytes()).await?;
    stream.flush().await?;
    if request.key.is_some() {
        return Ok(Answered::WebSocket(stream, head.split_off(request.length)));
    }
    stream.shutdown().await?;
    let mut unread = 0;
    let mut chunk = [0; 1024];
    while unread < MAX_UNREAD {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => unread += read,
        }
    }
    Ok(Answered::Page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn status(line: &str, headers: &str) -> u16 {
        let head = format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        UpgradeRequest::parse(head.as_bytes()).expect("HTTP").expect("complete").status
    }

    #[test]
    fn only_websockets_at_the_path_are_taken() {
        let upgrade = format!(
            "Connection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n{KEY}"
        );
        assert_eq!(status("GET /peersock", &upgrade), 101);
        assert_eq!(status("GET /peersock?a=b", &upgrade), 101);
        assert_eq!(status("GET /", &upgrade), 200);
        assert_eq!(status("GET /other", &upgrade), 404);
        assert_eq!(status("POST /peersock", &upgrade), 405);
        for missing in ["13", "upgrade", "WebSocket\r", "dGhl"] {
            assert_eq!(status("GET /peersock", &upgrade.replacen(missing, "", 1)), 426, "{missing}");
        }
    }

    #[test]
    fn answers_are_as_the_standard_has_them() {
        let request = UpgradeRequest {
            key: Some("dGhlIHNhbXBsZSBub25jZQ==".into()),
            status: 101,
            head_only: false,
            length: 0,
        };
        // The example of RFC 6455, 1.3.
        assert!(request.answer("").contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        let request = UpgradeRequest { key: None, status: 200, head_only: true, length: 0 };
        let answer = request.answer("page");
        assert!(answer.contains("Content-Length: 4\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
}
