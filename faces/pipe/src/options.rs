//! The options of pipes, with P2PD's names and defaults.

use std::time::Duration;

use crate::queue::Limits;

/// Default number of messages in a queue.
const DEFAULT_QUEUED_MESSAGES: usize = 1024;

/// The options of a pipe. A timeout of `None` waits forever.
///
/// ```
/// use std::time::Duration;
///
/// use peersock_pipe::{Options, Pipe, Proto};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), peersock_pipe::PipeError> {
/// let options = Options::new().recv_timeout(Duration::from_secs(10)).max_qsize(100);
/// let pipe = Pipe::listen(Proto::Udp, "127.0.0.1:0").options(options).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) dns_timeout: Option<Duration>,
    pub(crate) con_timeout: Option<Duration>,
    pub(crate) recv_timeout: Option<Duration>,
    pub(crate) max_qsize: usize,
    pub(crate) max_qbytes: usize,
    pub(crate) enable_msg_ids: bool,
    pub(crate) max_msg_ids: usize,
    pub(crate) broadcast: bool,
    pub(crate) reader_limit: usize,
    pub(crate) linger: Option<Duration>,
    pub(crate) send_retry: u32,
    pub(crate) max_clients: usize,
    pub(crate) max_clients_of_member: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            dns_timeout: Some(Duration::from_secs(2)),
            con_timeout: Some(Duration::from_secs(2)),
            recv_timeout: Some(Duration::from_secs(2)),
            max_qsize: DEFAULT_QUEUED_MESSAGES,
            max_qbytes: 4 << 20,
            enable_msg_ids: false,
            max_msg_ids: 1000,
            broadcast: false,
            reader_limit: 1 << 16,
            linger: None,
            send_retry: 2,
            max_clients: 1024,
            max_clients_of_member: 64,
        }
    }
}

impl Options {
    /// Makes the default options.
    pub fn new() -> Options {
        Options::default()
    }

    /// Returns the limits of a queue that logs call `what`.
    pub(crate) fn limits(&self, what: &'static str) -> Limits {
        Limits { messages: self.max_qsize, bytes: self.max_qbytes, budget: None, what }
    }

    /// Sets the timeout for resolving a name. Default: 2 s. For a connection, `con_timeout` includes it.
    pub fn dns_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Options {
        self.dns_timeout = timeout.into();
        self
    }

    /// Sets the timeout of connecting, for all addresses of a name together. Default: 2 s. TCP only.
    pub fn con_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Options {
        self.con_timeout = timeout.into();
        self
    }

    /// Sets the default timeout of [`Pipe::recv`](crate::Pipe::recv). Default: 2 s.
    pub fn recv_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Options {
        self.recv_timeout = timeout.into();
        self
    }

    /// Sets the limit of messages in a queue. Default, and the meaning of 0: 1,024.
    pub fn max_qsize(mut self, messages: usize) -> Options {
        self.max_qsize = if messages == 0 { DEFAULT_QUEUED_MESSAGES } else { messages };
        self
    }

    /// Sets the limit of bytes in a queue; it holds one message in any case. Default: 4 MiB.
    pub fn max_qbytes(mut self, bytes: usize) -> Options {
        self.max_qbytes = bytes;
        self
    }

    /// Enables dropping of a datagram that repeats a recent one from the same address and port. Default: no.
    /// UDP only.
    pub fn enable_msg_ids(mut self, enable: bool) -> Options {
        self.enable_msg_ids = enable;
        self
    }

    /// Sets the number of datagrams that are remembered for that, at least 1. Default: 1,000. UDP only.
    pub fn max_msg_ids(mut self, datagrams: usize) -> Options {
        self.max_msg_ids = datagrams.max(1);
        self
    }

    /// Sets SO_BROADCAST on kernel sockets. Default: no. UDP and IPv4 only.
    pub fn broadcast(mut self, enable: bool) -> Options {
        self.broadcast = enable;
        self
    }

    /// Sets the largest size of one message of a stream in bytes, 1 to 65,536. Default: 65,536. TCP only.
    pub fn reader_limit(mut self, bytes: usize) -> Options {
        self.reader_limit = bytes.clamp(1, 1 << 16);
        self
    }

    /// Sets SO_LINGER. `None`, the default, is off; zero resets the connection when the pipe is closed.
    /// Rounded up to whole seconds, the unit of the kernel, because less than one would become zero. TCP
    /// only.
    pub fn linger(mut self, linger: impl Into<Option<Duration>>) -> Options {
        let whole_seconds = |time: Duration| {
            let begun = u64::from(time.subsec_nanos() > 0);
            Duration::from_secs(time.as_secs().saturating_add(begun))
        };
        self.linger = linger.into().map(whole_seconds);
        self
    }

    /// Sets how often [`Pipe::request`](crate::Pipe::request) repeats an unanswered datagram. Default: 2. UDP
    /// only.
    pub fn send_retry(mut self, times: u32) -> Options {
        self.send_retry = times;
        self
    }

    /// Sets the limit of a server's simultaneous clients, at least 1; others wait in the system's queue.
    /// Default: 1,024. TCP only.
    pub fn max_clients(mut self, clients: usize) -> Options {
        self.max_clients = clients.max(1);
        self
    }

    /// Sets the limit of a server's clients from one member of the overlay, at least 1. Further connections
    /// of that member are reset, which leaves the other places to others. Default: 64. TCP only; clients from
    /// the machine's own network are not counted by source.
    pub fn max_clients_of_member(mut self, clients: usize) -> Options {
        self.max_clients_of_member = clients.max(1);
        self
    }
}
