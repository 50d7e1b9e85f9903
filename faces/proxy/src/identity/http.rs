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
mod tests;
