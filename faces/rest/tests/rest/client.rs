//! A hand-written HTTP client.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::scene::{TEST_TIMEOUT, TOKEN};

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: BufReader<Box<dyn Stream>>,
    host: String,
}

pub(crate) trait Stream: Read + Write + Send {
    /// Sets the read timeout.
    fn set_patience(&self, patience: Duration);
}

impl Stream for TcpStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).expect("some time");
    }
}

impl Stream for UnixStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).expect("some time");
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Fields, with names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the code of the problem.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub(crate) fn connect(at: SocketAddr) -> Client {
        let stream = TcpStream::connect(at).expect("the server listens");
        stream.set_patience(TEST_TIMEOUT);
        Client { stream: BufReader::new(Box::new(stream)), host: at.to_string() }
    }

    pub(crate) fn connect_path(path: &Path) -> Client {
        let stream = UnixStream::connect(path).expect("the server listens");
        stream.set_patience(TEST_TIMEOUT);
        Client { stream: BufReader::new(Box::new(stream)), host: "localhost".to_owned() }
    }

    /// Sends a request with the token, and reads the answer.
    pub(crate) fn ask(&mut self, method: &str, path: &str, fields: &[&str], body: &[u8]) -> Reply {
        let authorization = format!("Authorization: Bearer {TOKEN}");
        self.ask_bare(method, path, &[&[authorization.as_str()], fields].concat(), body)
    }

    /// Sends a request with those fields and Host, and reads the answer.
    pub(crate) fn ask_bare(&mut self, method: &str, path: &str, fields: &[&str], body: &[u8]) -> Reply {
        let host = format!("Host: {}", self.host);
        self.begin(method, path, &[&[host.as_str()], fields].concat(), Some(body.len()));
        self.write(body);
        self.reply()
    }

    /// Writes the head of a request; without a length the body comes in chunks, if there is one.
    pub(crate) fn begin(&mut self, method: &str, path: &str, fields: &[&str], length: Option<usize>) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        for field in fields {
            head += &format!("{field}\r\n");
        }
        match length {
            Some(0) => {}
            Some(length) => head += &format!("Content-Length: {length}\r\n"),
            None => head += "Transfer-Encoding: chunked\r\n",
        }
        self.write(format!("{head}\r\n").as_bytes());
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // The server may already have answered and closed.
        let _ = self.stream.get_mut().write_all(bytes);
    }

    pub(crate) fn chunk(&mut self, data: &[u8]) {
        self.write(format!("{:x}\r\n", data.len()).as_bytes());
        self.write(data);
        self.write(b"\r\n");
    }

    /// Reads the head of an answer.
    pub(crate) fn head(&mut self) -> Reply {
        let status = self.line();
        let number = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let mut reply = Reply {
            status: number.unwrap_or_else(|| panic!("no answer: {status:?}")),
            fields: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else { return reply };
            reply.fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    /// Reads an answer.
    pub(crate) fn reply(&mut self) -> Reply {
        let mut reply = self.head();
        if reply.field("transfer-encoding").is_some() {
            while let Some(chunk) = self.next_chunk() {
                reply.body.extend(chunk);
            }
        } else if let Some(length) = reply.field("content-length") {
            reply.body = vec![0; length.parse().expect("a length")];
            self.stream.read_exact(&mut reply.body).expect("a whole body");
        }
        reply
    }

    /// Reads a chunk of a body; `None` at its end.
    pub(crate) fn next_chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line();
        let size =
            usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("the body breaks off: {size:?}"));
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk).expect("a whole chunk");
        assert_eq!(self.line(), "");
        (size > 0).then_some(chunk)
    }

    /// Reads to the end of the connection.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.stream.read_to_end(&mut all).expect("an end, and no reset");
        all
    }

    pub(crate) fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("as many bytes");
        bytes
    }
}
