//! The subset of HTTP/1.1 (RFC 9112) that routers need: one request per connection, an answer of limited
//! size.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Protocol, Type};

use super::super::Gateway;
use crate::socket;

/// Limit of an answer; routers' descriptions have 3 to 30 kB.
const MAX_ANSWER: usize = 256 * 1024;

/// Limit of the fields of an answer.
const MAX_FIELDS: usize = 100;

/// An `http` URL with an address instead of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::portmap) struct Url {
    pub(in crate::portmap) at: SocketAddr,
    /// The path, including the leading `/`.
    pub(in crate::portmap) path: String,
}

impl Url {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let at = match host.parse() {
            Ok(at) => at,
            Err(_) => SocketAddr::new(host.parse().ok()?, 80),
        };
        // Only printable ASCII, because other characters could add lines to the request.
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        is_plain.then(|| Self { at, path: if path.is_empty() { "/".into() } else { path.to_owned() } })
    }

    /// Resolves a reference in this URL's document; `None` if it leads to another host.
    pub(super) fn join(&self, reference: &str) -> Option<Self> {
        let url = if reference.starts_with("http://") {
            Self::parse(reference)?
        } else {
            let folder = self.path.rfind('/').map_or("/", |slash| &self.path[..=slash]);
            let folder = if reference.starts_with('/') { "" } else { folder };
            Self::parse(&format!("http://{}{folder}{reference}", self.at))?
        };
        // Keep the address of the connection, because only it knows the scope of a link-local address.
        let mut at = self.at;
        at.set_port(url.at.port());
        (url.at.ip() == self.at.ip()).then_some(Self { at, ..url })
    }
}

/// The source and deadline of requests.
#[derive(Debug)]
pub(super) struct Http {
    local: IpAddr,
    interface: Option<String>,
    until: Instant,
}

impl Http {
    pub(super) fn new(gateway: &Gateway, until: Instant) -> Self {
        Self { local: gateway.local, interface: gateway.interface.clone(), until }
    }

    pub(super) fn get(&self, at: SocketAddr, path: &str) -> io::Result<String> {
        let host = host(at);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        match self.exchange(at, &request)? {
            (200, body) => Ok(body),
            (status, _) => Err(io::Error::other(format!("HTTP status {status}"))),
        }
    }

    /// Sends a SOAP call. Returns the status and the body.
    pub(super) fn post(
        &self,
        at: SocketAddr,
        path: &str,
        action: &str,
        body: &str,
    ) -> io::Result<(u16, String)> {
        let (length, host) = (body.len(), host(at));
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nSOAPAction: {action}\r\n\
             Content-Type: text/xml; charset=\"utf-8\"\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.exchange(at, &request)
    }

    fn exchange(&self, at: SocketAddr, request: &str) -> io::Result<(u16, String)> {
        let left = self.left()?;
        let mut stream = connect(SocketAddr::new(self.local, 0), self.interface.as_deref(), at, left)?;
        stream.write_all(request.as_bytes())?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        let invalid = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
        loop {
            stream.set_read_timeout(Some(self.left()?))?;
            let read = match stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            answer.extend_from_slice(&buffer[..read]);
            if answer.len() > MAX_ANSWER {
                return Err(invalid("the answer is too long"));
            }
            match parse(&answer) {
                // Some routers ignore `Connection: close`.
                Some((is_complete, status, body)) if is_complete || read == 0 => return Ok((status, body)),
                None if read == 0 => return Err(invalid("no HTTP")),
                _ => {}
            }
        }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// Returns the value of the Host field, without a zone (RFC 6874, 3).
fn host(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip(), at.port())
}

/// Returns true if the answer is complete, the status and the body. `None` if this is no HTTP, or if the head
/// or a chunk is incomplete.
pub(in crate::portmap) fn parse(answer: &[u8]) -> Option<(bool, u16, String)> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    // A router may have faults in fields that do not matter here.
    let mut config = httparse::ParserConfig::default();
    let parsed = config.ignore_invalid_headers_in_responses(true).parse_response(&mut head, answer);
    let Ok(httparse::Status::Complete(start)) = parsed else { return None };
    let field = |wanted: &str| {
        let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(wanted))?;
        str::from_utf8(found.value).ok().map(str::trim)
    };
    let body = &answer[start..];
    let length = field("content-length").and_then(|length| length.parse().ok());
    let (is_complete, body) = match field("transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => (true, unchunk(body)?),
        _ => {
            let end = length.map_or(body.len(), |length: usize| length.min(body.len()));
            (length == Some(end), body[..end].to_vec())
        }
    };
    Some((is_complete, head.code?, String::from_utf8_lossy(&body).into_owned()))
}

/// Decodes a chunked body (RFC 9112, 7.1); `None` if the last chunk is missing.
fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    while let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(body) {
        if size == 0 {
            return Some(whole);
        }
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        whole.extend_from_slice(body.get(start..end)?);
        body = body.get(end.checked_add(2)?..)?;
    }
    None
}

/// Connects from a local address, within a timeout. Reading and writing have the same timeout each.
fn connect(
    local: SocketAddr,
    interface: Option<&str>,
    remote: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let socket = socket::open(Type::STREAM, Protocol::TCP, local, interface)?;
    let timeout = timeout.max(Duration::from_millis(1));
    socket.connect_timeout(&remote.into(), timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_read_with_a_length_in_chunks_and_to_the_end() {
        let cases: [(&[u8], bool); 3] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", true),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
                true,
            ),
            (b"HTTP/1.0 200 OK\r\n\r\nhello", false),
        ];
        for (answer, complete) in cases {
            assert_eq!(parse(answer), Some((complete, 200, "hello".into())));
            assert!(parse(&answer[..answer.len() - 6]).is_none_or(|(is_complete, ..)| !is_complete));
        }
    }

    #[test]
    fn urls_have_an_address_and_a_plain_path() {
        let url = |text: &str| Url::parse(text).map(|url| (url.at.to_string(), url.path));
        assert_eq!(url("http://192.0.2.1/a"), Some(("192.0.2.1:80".into(), "/a".into())));
        assert_eq!(url("http://[2001:db8::1]:99"), Some(("[2001:db8::1]:99".into(), "/".into())));
        for bad in
            ["https://192.0.2.1/", "http://router/", "http://192.0.2.1/a b", "http://192.0.2.1/\r\nX: y"]
        {
            assert_eq!(url(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100), chunked: bool) {
            let coding = if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 7" };
            let mut answer = format!("HTTP/1.1 200 OK\r\n{coding}\r\n\r\n").into_bytes();
            answer.extend(bytes);
            let _ = (parse(&answer), parse(&answer[17..]));
        }
    }
}
