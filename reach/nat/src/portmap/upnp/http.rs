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
        let answer = self.read(&mut stream)?;
        parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP"))
    }

    /// Reads until the answer is complete, the connection ends, or no time is left.
    fn read(&self, stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !is_complete(&answer) {
            stream.set_read_timeout(Some(self.left()?))?;
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => answer.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if answer.len() > MAX_ANSWER {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
            }
        }
        Ok(answer)
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

/// Returns true if the answer is complete; some routers ignore `Connection: close`.
pub(in crate::portmap) fn is_complete(answer: &[u8]) -> bool {
    let Some((head, body)) = split(answer) else { return false };
    match (field(head, "content-length"), is_chunked(head)) {
        (Some(length), false) => length.parse().is_ok_and(|length: usize| body.len() >= length),
        (_, true) => unchunk(body).is_some(),
        (None, false) => false,
    }
}

/// Parses the status and the body.
pub(in crate::portmap) fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let (head, body) = split(answer)?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let body = if is_chunked(head) { unchunk(body)? } else { body.to_vec() };
    let length = field(head, "content-length").and_then(|length| length.parse().ok());
    let body = &body[..length.map_or(body.len(), |length: usize| length.min(body.len()))];
    Some((status, String::from_utf8_lossy(body).into_owned()))
}

fn split(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    Some((str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]))
}

fn field<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
}

fn is_chunked(head: &str) -> bool {
    field(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
}

/// Decodes a chunked body (RFC 9112, 7.1); `None` if the last chunk is missing.
fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|bytes| bytes == b"\r\n")?;
        let size = str::from_utf8(&body[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        body = &body[line + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..size)?);
        body = body.get(size.checked_add(2)?..)?;
    }
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
            assert_eq!(parse(answer), Some((200, "hello".into())));
            assert_eq!(is_complete(answer), complete);
            assert!(!is_complete(&answer[..answer.len() - 6]));
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
            let _ = (parse(&answer), is_complete(&answer), parse(&answer[17..]));
        }
    }
}
