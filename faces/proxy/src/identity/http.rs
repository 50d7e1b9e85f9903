//! Fields of HTTP/1.1 requests that name the member: they are set in each request of a connection, and those
//! that the client has sent under such names are removed.
//!
//! A request whose end is not certain is refused, because the service could find another request in it, with
//! fields of the client's. The service must not read bytes as a request that were passed on as something
//! else, so bytes after a request that asks for another protocol wait for the service's answer. A request
//! with a body is the last of its connection with the service: `Connection: close` keeps a service that has
//! left the body unread from reading it as the next request (RFC 9112 9.6).

/// Maximum length of a head, of a chunk's size line and of the trailers, in bytes each.
const MAX_HEAD: usize = 64 << 10;

/// Maximum number of fields of a head.
const MAX_FIELDS: usize = 100;

/// Answer to a request that is refused. The connection ends after it.
pub(crate) const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 54\r\nConnection: close\r\n\r\nThis request is ambiguous or malformed for peersock.\r\n";

/// Answer to a request whose head comes too slowly. The connection ends after it.
pub(crate) const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain\r\n\
    Content-Length: 54\r\nConnection: close\r\n\r\nThe head of this request came too late for peersock.\r\n";

/// A request was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Rewriter of one connection's requests.
pub(crate) struct Requests {
    /// Lines of the fields to set.
    fields: Vec<u8>,
    /// Bytes of the client that are not a whole head or line yet.
    pending: Vec<u8>,
    /// Number of pending bytes that are used already.
    used: usize,
    /// Number of bytes behind those, in which no end was found. So each byte is looked at once.
    searched: usize,
    state: State,
    /// Number of requests whose heads were passed.
    passed: u64,
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
    /// This many bytes of trailers may come.
    Trailers(usize),
    /// The service's answer decides about what comes next.
    Answer,
    /// Another protocol; everything is passed on.
    Tunnel,
    /// The service was told that it got the last request.
    Last,
    /// The client's bytes are dropped.
    Ended,
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
            used: 0,
            searched: 0,
            state: State::Head,
            passed: 0,
            answer: Vec::new(),
        }
    }

    /// Returns true if bytes of the client are held until the service has answered. Then no more should be
    /// read from the client.
    pub(crate) fn waits_for_answer(&self) -> bool {
        self.state == State::Answer
    }

    /// Returns true if the service gets no more, and what the client still sends is dropped.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Returns true if the service has got no more than the first request, so that no answer to an earlier
    /// one can be missing.
    pub(crate) fn is_first(&self) -> bool {
        self.passed <= 1
    }

    /// Returns the number of the request whose head has begun and is not whole.
    pub(crate) fn open_head(&self) -> Option<u64> {
        (self.state == State::Head && !self.pending.is_empty()).then_some(self.passed)
    }

    /// Refuses a head.
    ///
    /// # Errors
    /// [`Refused`] if it is the first one. A later one only ends the requests, because the client still waits
    /// for answers, and would take the refusal for one of them.
    pub(crate) fn refuse_head(&mut self) -> Result<(), Refused> {
        if self.passed == 0 {
            return Err(Refused);
        }
        self.state = State::Ended;
        Ok(())
    }

    /// Takes bytes of the client, and adds to `out` what the service gets.
    ///
    /// # Errors
    /// [`Refused`] if they are no certain request. The service then gets no more.
    pub(crate) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        self.pending.extend_from_slice(bytes);
        let passed = self.pass_pending(out);
        self.pending.drain(..self.used);
        self.used = 0;
        passed
    }

    /// Passes what can be passed.
    fn pass_pending(&mut self, out: &mut Vec<u8>) -> Result<(), Refused> {
        while self.used < self.pending.len() {
            let rest = &self.pending[self.used..];
            match self.state {
                State::Tunnel => {
                    out.extend_from_slice(rest);
                    self.take(rest.len());
                }
                State::Answer => return Ok(()),
                State::Ended => self.take(rest.len()),
                // Old clients send an empty line after a body (RFC 9112 2.2).
                State::Last if rest.iter().all(|byte| matches!(byte, b'\r' | b'\n')) => self.take(rest.len()),
                State::Last => self.state = State::Ended,
                State::Body(left) => {
                    let count = part(rest, left);
                    out.extend_from_slice(&rest[..count]);
                    let left = left - count as u64;
                    self.state = if left == 0 { State::Last } else { State::Body(left) };
                    self.take(count);
                }
                State::Chunk(left) => {
                    let count = part(rest, left);
                    // The line end is written here, so that nothing else can stand in its place.
                    let data = part(&rest[..count], left.saturating_sub(2));
                    out.extend_from_slice(&rest[..data]);
                    for (at, byte) in rest[data..count].iter().enumerate() {
                        let place = left - data as u64 - at as u64;
                        let wanted = if place == 2 { b'\r' } else { b'\n' };
                        if *byte != wanted {
                            return Err(Refused);
                        }
                        out.push(wanted);
                    }
                    let left = left - count as u64;
                    self.state = if left == 0 { State::ChunkSize } else { State::Chunk(left) };
                    self.take(count);
                }
                State::ChunkSize => {
                    let Some(length) = self.find(b"\r\n", MAX_HEAD)? else { return Ok(()) };
                    let size = chunk_size(&self.pending[self.used..][..length - 2])?;
                    // Without extensions, which no service needs.
                    out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                    self.state = match size {
                        0 => State::Trailers(MAX_HEAD),
                        size => State::Chunk(size + 2),
                    };
                    self.take(length);
                }
                State::Trailers(room) => {
                    // Trailers are not passed on: some services treat them as fields.
                    let Some(length) = self.find(b"\r\n", room)? else { return Ok(()) };
                    self.state = State::Trailers(room - length);
                    if length == 2 {
                        out.extend_from_slice(b"\r\n");
                        self.state = State::Last;
                    }
                    self.take(length);
                }
                // Empty lines before a request are left out (RFC 9112 2.2).
                State::Head if rest.starts_with(b"\r\n") => self.take(2),
                State::Head => match self.whole_head(out) {
                    Ok(Some(length)) => self.take(length),
                    Ok(None) => return Ok(()),
                    Err(Refused) => self.refuse_head()?,
                },
            }
        }
        Ok(())
    }

    fn take(&mut self, count: usize) {
        self.used += count;
        self.searched = 0;
    }

    /// Finds the first place of `end`, which lines of pending bytes lead to. Returns the length with it;
    /// `None` if more bytes must come. A line that ends with LF alone is refused, because services differ on
    /// it, and so is CR elsewhere.
    fn find(&mut self, end: &[u8], most: usize) -> Result<Option<usize>, Refused> {
        let rest = &self.pending[self.used..];
        for at in self.searched..rest.len().min(most) {
            let follows_cr = at > 0 && rest[at - 1] == b'\r';
            if follows_cr != (rest[at] == b'\n') {
                return Err(Refused);
            }
            if rest[..=at].ends_with(end) {
                return Ok(Some(at + 1));
            }
        }
        self.searched = rest.len();
        if rest.len() < most { Ok(None) } else { Err(Refused) }
    }

    /// Passes a head on if it is whole; returns its length.
    fn whole_head(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>, Refused> {
        let Some(length) = self.find(b"\r\n\r\n", MAX_HEAD)? else { return Ok(None) };
        self.state = head(&self.pending[self.used..][..length], &self.fields, self.passed == 0, out)?;
        self.passed += 1;
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

/// Passes a whole head on, with these fields. Returns what comes after it.
fn head(head: &[u8], set: &[u8], is_first: bool, out: &mut Vec<u8>) -> Result<State, Refused> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    // It refuses folded lines, and white space before a colon.
    if request.parse(head).map_err(|_| Refused)? != httparse::Status::Complete(head.len()) {
        return Err(Refused);
    }
    let (Some(method), Some(path), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refused);
    };
    // A service that is no proxy could answer in the affirmative, and take what follows for requests.
    if method == "CONNECT" {
        return Err(Refused);
    }
    let (mut size, mut is_chunked, mut is_websocket) = (None, false, false);
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
                if size.replace(length).is_some() {
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
    if is_chunked && (size.is_some() || version == 0) {
        return Err(Refused);
    }
    let size = size.unwrap_or(0);
    let has_body = is_chunked || size > 0;
    // Other protocols, as `h2c`, carry requests again. Answers to earlier requests may still come, so none
    // could be told for that of a later request.
    is_websocket &= is_first && method == "GET" && !has_body;
    out.extend_from_slice(format!("{method} {path} HTTP/1.{version}\r\n").as_bytes());
    // Before the client's, because some services leave out fields beyond a number.
    out.extend_from_slice(set);
    if has_body {
        // Alone in the only field of this name, because some services compare the whole value.
        out.extend_from_slice(b"Connection: close\r\n");
    }
    for (name, value) in kept {
        let is_left_out = name.eq_ignore_ascii_case("upgrade") && !is_websocket
            || name.eq_ignore_ascii_case("connection") && has_body;
        if is_left_out {
            continue;
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(match size {
        _ if is_websocket => State::Answer,
        _ if is_chunked => State::ChunkSize,
        0 => State::Head,
        size => State::Body(size),
    })
}

/// Returns the number of the first bytes that belong to a part of which so much is left.
fn part(bytes: &[u8], left: u64) -> usize {
    bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))
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

/// Returns what a service gets of a client's bytes, which come in pieces, if it refuses other protocols.
pub fn passed<'a>(fields: &[(&str, String)], pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut requests, mut out) = (Requests::new(fields), Vec::new());
    for piece in pieces {
        let mut passed = requests.pass(piece, &mut out);
        if requests.waits_for_answer() && requests.answered(b"HTTP/1.1 200 OK\r\n\r\n").is_ok() {
            passed = requests.pass(b"", &mut out);
        }
        if passed.is_err() {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests;
