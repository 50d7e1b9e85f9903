//! Fields of HTTP/1.1 requests that name the member: they are set in each request of a connection, and those
//! that the client has sent under such names are removed.
//!
//! A request whose end is not certain is refused, because the service could find another request in it, with
//! fields of the client's. The service must not read bytes as a request that were passed on as something
//! else, so bytes after a request that asks for another protocol wait for the service's answer.

/// Maximum length of a head, of a chunk's size line and of the trailers, in bytes each.
const MAX_HEAD: usize = 64 << 10;

/// Maximum number of fields of a head.
const MAX_FIELDS: usize = 100;

/// Answer to a request that is refused. The connection ends after it.
pub(crate) const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 53\r\nConnection: close\r\n\r\nThis request is ambiguous or malformed for peersock.\r\n";

/// A request was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Rewriter of one connection's requests.
pub(crate) struct Requests {
    /// Lines of the fields to set.
    fields: Vec<u8>,
    /// Bytes of the client that are not a whole head or line yet.
    pending: Vec<u8>,
    state: State,
    is_first: bool,
    /// Bytes of the service's answer that are not a whole head yet.
    answer: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// This many bytes of the body are left.
    Body(u64),
    ChunkSize,
    /// This many bytes of the chunk are left, with its line end.
    Chunk(u64),
    Trailers,
    /// The service's answer decides about what comes next.
    Answer,
    /// Another protocol; everything is passed on.
    Tunnel,
}

impl Requests {
    /// Sets these fields, whose names begin with `Peersock-`. Bytes that fields cannot have become `?`.
    pub(crate) fn new(fields: &[(&str, String)]) -> Requests {
        let mut lines = Vec::new();
        for (name, value) in fields {
            lines.extend_from_slice(name.as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend(value.bytes().map(|byte| if matches!(byte, b' '..=b'~') { byte } else { b'?' }));
            lines.extend_from_slice(b"\r\n");
        }
        Requests {
            fields: lines,
            pending: Vec::new(),
            state: State::Head,
            is_first: true,
            answer: Vec::new(),
        }
    }

    /// Returns true if bytes of the client are held until the service has answered. Then no more should be
    /// read from the client.
    pub(crate) fn waits_for_answer(&self) -> bool {
        self.state == State::Answer
    }

    /// Takes bytes of the client, and adds to `out` what the service gets.
    ///
    /// # Errors
    /// [`Refused`] if they are no certain request. The service then gets no more.
    pub(crate) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        self.pending.extend_from_slice(bytes);
        loop {
            let taken = match self.state {
                State::Tunnel => {
                    out.append(&mut self.pending);
                    return Ok(());
                }
                State::Answer => return Ok(()),
                State::Body(left) => {
                    let count = self.part(left);
                    out.extend_from_slice(&self.pending[..count]);
                    let left = left - count as u64;
                    self.state = if left == 0 { State::Head } else { State::Body(left) };
                    count
                }
                State::Chunk(left) => {
                    let count = self.part(left);
                    // The line end is written here, so that nothing else can stand in its place.
                    let data = count.min(usize::try_from(left.saturating_sub(2)).unwrap_or(usize::MAX));
                    out.extend_from_slice(&self.pending[..data]);
                    for (at, byte) in self.pending[data..count].iter().enumerate() {
                        let place = left - data as u64 - at as u64;
                        let wanted = if place == 2 { b'\r' } else { b'\n' };
                        if *byte != wanted {
                            return Err(Refused);
                        }
                        out.push(wanted);
                    }
                    let left = left - count as u64;
                    self.state = if left == 0 { State::ChunkSize } else { State::Chunk(left) };
                    count
                }
                State::ChunkSize => {
                    let Some(line) = line(&self.pending)? else { return Ok(()) };
                    let size = chunk_size(line)?;
                    // Without extensions, which no service needs.
                    out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                    self.state = match size {
                        0 => State::Trailers,
                        size => State::Chunk(size + 2),
                    };
                    line.len() + 2
                }
                State::Trailers => {
                    // Trailers are not passed on: some services treat them as fields.
                    let Some(line) = line(&self.pending)? else { return Ok(()) };
                    let length = line.len() + 2;
                    if line.is_empty() {
                        out.extend_from_slice(b"\r\n");
                        self.state = State::Head;
                    }
                    length
                }
                State::Head => {
                    // Empty lines before a request are left out (RFC 9112 2.2).
                    let empty = self.pending.chunks_exact(2).take_while(|two| *two == b"\r\n").count() * 2;
                    self.pending.drain(..empty);
                    if self.pending.is_empty() || self.pending == b"\r" {
                        return Ok(());
                    }
                    match self.head(out)? {
                        Some(length) => length,
                        None if self.pending.len() > MAX_HEAD => return Err(Refused),
                        None => return Ok(()),
                    }
                }
            };
            self.pending.drain(..taken);
            if taken == 0 && self.pending.is_empty() {
                return Ok(());
            }
        }
    }

    fn part(&self, left: u64) -> usize {
        self.pending.len().min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Passes a whole head on; returns its length.
    fn head(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>, Refused> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        // It refuses folded lines, and white space before a colon.
        let length = match request.parse(&self.pending).map_err(|_| Refused)? {
            httparse::Status::Complete(length) if length <= MAX_HEAD => length,
            httparse::Status::Complete(_) => return Err(Refused),
            httparse::Status::Partial => return Ok(None),
        };
        let head = &self.pending[..length];
        // Services differ on a line that ends with LF alone, and on CR elsewhere.
        if head.iter().enumerate().any(|(at, byte)| match byte {
            b'\n' => at == 0 || head[at - 1] != b'\r',
            b'\r' => head.get(at + 1) != Some(&b'\n'),
            _ => false,
        }) {
            return Err(Refused);
        }
        let (Some(method), Some(path), Some(version)) = (request.method, request.path, request.version)
        else {
            return Err(Refused);
        };
        // A service that is no proxy could answer in the affirmative, and take what follows for requests.
        if method == "CONNECT" {
            return Err(Refused);
        }
        let (mut body, mut is_chunked, mut is_websocket) = (None, false, false);
        let mut kept = Vec::with_capacity(request.headers.len());
        for field in request.headers.iter() {
            if is_of_peersock(field.name) {
                continue;
            }
            // Services that fold `_` to `-` could take it for the real one.
            let name = field.name.replace('_', "-").to_ascii_lowercase();
            let is_plain = !field.name.contains('_');
            match name.as_str() {
                "content-length" | "transfer-encoding" if !is_plain => return Err(Refused),
                "content-length" => {
                    // A second one is refused, also an equal one, as a list of equal ones is.
                    let length = decimal(field.value)?;
                    if body.replace(length).is_some() {
                        return Err(Refused);
                    }
                }
                "transfer-encoding" if is_chunked || !field.value.eq_ignore_ascii_case(b"chunked") => {
                    return Err(Refused);
                }
                "transfer-encoding" => is_chunked = true,
                "upgrade" => is_websocket |= field.value.eq_ignore_ascii_case(b"websocket"),
                // A name of this list is removed by the next server, and so would be a field set here.
                "connection" if names_peersock(field.value) => return Err(Refused),
                _ => {}
            }
            kept.push((field.name, field.value));
        }
        if is_chunked && (body.is_some() || version == 0) {
            return Err(Refused);
        }
        // Other protocols, as `h2c`, carry requests again. Answers to earlier requests may still come, so
        // none could be told for that of a later request.
        is_websocket &= self.is_first && method == "GET" && !is_chunked && body.is_none_or(|size| size == 0);
        out.extend_from_slice(format!("{method} {path} HTTP/1.{version}\r\n").as_bytes());
        for (name, value) in kept {
            if name.eq_ignore_ascii_case("upgrade") && !is_websocket {
                continue;
            }
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&self.fields);
        out.extend_from_slice(b"\r\n");
        self.is_first = false;
        self.state = match body {
            _ if is_websocket => State::Answer,
            _ if is_chunked => State::ChunkSize,
            Some(size) if size > 0 => State::Body(size),
            _ => State::Head,
        };
        Ok(Some(length))
    }

    /// Looks at bytes of the service's answers, which are all passed on. Returns true if bytes of the client
    /// that were held can now be passed, by [`pass`](Self::pass) without new ones.
    ///
    /// # Errors
    /// [`Refused`] if the answer to a request for another protocol is malformed.
    pub(crate) fn answered(&mut self, bytes: &[u8]) -> Result<bool, Refused> {
        if self.state != State::Answer {
            return Ok(false);
        }
        self.answer.extend_from_slice(bytes);
        loop {
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut response = httparse::Response::new(&mut fields);
            let (length, code) = match response.parse(&self.answer) {
                Ok(httparse::Status::Complete(length)) => (length, response.code.unwrap_or_default()),
                Ok(httparse::Status::Partial) if self.answer.len() <= MAX_HEAD => return Ok(false),
                _ => return Err(Refused),
            };
            self.state = match code {
                101 => State::Tunnel,
                100..=199 => {
                    self.answer.drain(..length);
                    continue;
                }
                _ => State::Head,
            };
            self.answer = Vec::new();
            return Ok(true);
        }
    }
}

/// Returns the line at the beginning, without its end; `None` if it is not whole.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Refused> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) if at > 0 && at < MAX_HEAD && bytes[at - 1] == b'\r' => {
            let line = &bytes[..at - 1];
            if line.contains(&b'\r') { Err(Refused) } else { Ok(Some(line)) }
        }
        Some(_) => Err(Refused),
        None if bytes.len() >= MAX_HEAD => Err(Refused),
        None => Ok(None),
    }
}

/// Reads the size of a chunk, which an extension may follow.
fn chunk_size(line: &[u8]) -> Result<u64, Refused> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Refused);
    }
    let digits = str::from_utf8(digits).map_err(|_| Refused)?;
    u64::from_str_radix(digits, 16).map_err(|_| Refused)
}

fn decimal(value: &[u8]) -> Result<u64, Refused> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refused);
    }
    str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(Refused)
}

/// Returns true for a name that only this program may set, in any spelling that a service may take for it.
/// CGI and WSGI make `_` of `-`, and some servers make it of every other sign.
fn is_of_peersock(name: &str) -> bool {
    let mut name = name.bytes();
    let begins =
        b"peersock".iter().all(|wanted| name.next().is_some_and(|byte| byte.eq_ignore_ascii_case(wanted)));
    begins && name.next().is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

fn names_peersock(list: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|name| str::from_utf8(name.trim_ascii()).is_ok_and(is_of_peersock))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SET: &str = "Peersock-Member: beta\r\n";

    fn requests() -> Requests {
        Requests::new(&[("Peersock-Member", "beta".to_owned())])
    }

    /// Passes a text in pieces of this length.
    fn pass(text: &str, piece: usize) -> Result<String, Refused> {
        let (mut requests, mut out) = (requests(), Vec::new());
        for piece in text.as_bytes().chunks(piece) {
            requests.pass(piece, &mut out)?;
        }
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn every_request_of_a_connection_gets_the_fields() {
        let sent = "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\r\n\
            POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nPeersock-Member: x\r\n\
            \r\nGET /d HTTP/1.0\r\n\r\n";
        let wanted = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{SET}\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n{SET}\r\nabc\
             POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{SET}\r\n3\r\nabc\r\n0\r\n\r\n\
             GET /d HTTP/1.0\r\n{SET}\r\n"
        );
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(pass(sent, piece), Ok(wanted.clone()), "{piece}");
        }
    }

    #[test]
    fn what_the_client_says_of_itself_is_removed_in_every_spelling() {
        for name in [
            "Peersock-Member",
            "peersock-tags",
            "PEERSOCK_MEMBER",
            "Peersock_Tags",
            "peersock.node",
            "Peersock",
        ] {
            let sent = format!("GET / HTTP/1.1\r\n{name}: x\r\nA: b\r\n{name}: y\r\n\r\n");
            assert_eq!(pass(&sent, 5), Ok(format!("GET / HTTP/1.1\r\nA: b\r\n{SET}\r\n")), "{name}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for fields in [
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: 3\r\nContent-Length: 3",
            "Content-Length: 3, 3",
            "Content-Length: +3",
            "Content-Length:",
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer_Encoding: chunked",
            "Content_Length: 3",
            "A: b\r\n Peersock-Member: x",
            "A: b\r\n\tPeersock-Member: x",
            "Peersock-Member : x",
            "A: b\nPeersock-Member: x",
            "A: b\rPeersock-Member: x",
            "A: b\0",
            "Connection: close, Peersock-Member",
        ] {
            let sent = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(pass(&sent, 1000), Err(Refused), "{fields}");
        }
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in ["x\r\n", "+1\r\n", "1\nab", "1\r\nabc", "1 \r\na\r\n", "\r\n", "0x1\r\n", "1\r\na\n\r"] {
            assert_eq!(pass(&format!("{chunked}{body}"), 1000), Err(Refused), "{body:?}");
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(pass(old, 1000), Err(Refused));
        let long = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD));
        assert_eq!(pass(&long, 1000), Err(Refused));
    }

    #[test]
    fn another_protocol_passes_untouched_once_the_service_has_agreed() {
        let upgrade = "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let forged = "GET /b HTTP/1.1\r\nPeersock-Member: x\r\n\r\n";
        for (answers, is_agreed) in [
            (&["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 10", "1 S\r\n\r\n"][..], true),
            (&["HTTP/1.1 200 OK\r\n\r\n"], false),
        ] {
            let (mut requests, mut out) = (requests(), Vec::new());
            requests.pass(format!("{upgrade}{forged}").as_bytes(), &mut out).expect("a request");
            assert!(requests.waits_for_answer());
            assert!(!String::from_utf8_lossy(&out).contains("/b"), "nothing passes before the answer");
            out.clear();
            let freed = answers.iter().map(|answer| requests.answered(answer.as_bytes()));
            assert_eq!(freed.last(), Some(Ok(true)));
            requests.pass(b"", &mut out).expect("certain");
            let wanted = format!("GET /b HTTP/1.1\r\n{SET}\r\n");
            assert_eq!(String::from_utf8_lossy(&out), if is_agreed { forged } else { &wanted });
        }
    }

    #[test]
    fn only_a_first_request_may_become_a_websocket() {
        let sent = "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
        assert!(!pass(sent, 9).expect("requests").contains("websocket"));
        for other in ["h2c", "websocket, h2c", "TLS/1.0"] {
            let sent = format!("GET / HTTP/1.1\r\nUpgrade: {other}\r\nHost: a\r\n\r\n");
            assert_eq!(pass(&sent, 9), Ok(format!("GET / HTTP/1.1\r\nHost: a\r\n{SET}\r\n")), "{other}");
        }
        let posted = "POST / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na";
        assert!(!pass(posted, 9).expect("a request").contains("websocket"));
        for sent in ["CONNECT a:1 HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            assert_eq!(pass(sent, 9), Err(Refused), "{sent}");
        }
    }

    /// Reads requests as a naive service does: lines, a length, or chunks. Returns the field lines of all.
    fn naive(mut text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some((head, rest)) = text.split_once("\r\n\r\n") {
            text = rest;
            let fields: Vec<_> = head.split("\r\n").skip(1).map(str::to_ascii_lowercase).collect();
            if fields.iter().any(|line| line == "transfer-encoding: chunked") {
                text = text.split_once("0\r\n\r\n").map_or("", |(_, rest)| rest);
            } else if let Some(size) = fields.iter().find_map(|line| line.strip_prefix("content-length: ")) {
                text = text.get(size.parse().unwrap_or(0)..).unwrap_or("");
            }
            lines.extend(fields);
        }
        lines
    }

    proptest! {
        #[test]
        fn no_service_sees_a_forged_field(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\n", "\r\n", "\n", "\r", " ", "3\r\n", "0\r\n",
                    "abc", "Content-Length: 3\r\n", "Content-Length: 30\r\n", "A: b\r\n",
                    "Transfer-Encoding: chunked\r\n", "Peersock-Member: forged\r\n",
                    "peersock_member: forged\r\n", "\r\n\r\n", "Upgrade: websocket\r\n",
                ]),
                0..24,
            ),
            piece in 1usize..40,
        ) {
            let (mut requests, mut out) = (requests(), Vec::new());
            let text = parts.concat();
            let mut refused = false;
            for piece in text.as_bytes().chunks(piece) {
                refused = refused || requests.pass(piece, &mut out).is_err();
            }
            let (mut again, mut whole) = (self::requests(), Vec::new());
            let is_refused = again.pass(text.as_bytes(), &mut whole).is_err();
            prop_assert_eq!((refused, &out), (is_refused, &whole), "pieces make no difference");
            let seen = naive(&String::from_utf8_lossy(&out));
            let forged = seen.iter().any(|line| line.starts_with("peersock") && line.contains("forged"));
            prop_assert!(!forged, "{:?} became {:?}", text, String::from_utf8_lossy(&out));
        }
    }
}
