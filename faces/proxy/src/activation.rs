//! Sockets that the program was started with: systemd's socket activation (sd_listen_fds(3)).

use std::env;
use std::fmt;
use std::io;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UdpSocket, UnixListener};

use crate::listener::Listener;

/// The sockets, each of which may be taken once.
///
/// ```
/// use peersock_proxy::Activated;
///
/// let activated = Activated::from_environment();
/// assert!(activated.is_empty(), "a test is started without any");
/// ```
pub struct Activated {
    sockets: ListenFd,
    /// LISTEN_FDNAMES, in the order of the sockets.
    names: Vec<String>,
}

impl Activated {
    /// None.
    pub fn none() -> Activated {
        Activated { sockets: ListenFd::empty(), names: Vec::new() }
    }

    /// Those that LISTEN_FDS counts, if LISTEN_PID is this process or not set. To be called once, while the
    /// process has one thread: it takes the variables away.
    pub fn from_environment() -> Activated {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Activated { sockets: ListenFd::from_env(), names }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sockets.len() == 0
    }

    /// What each is called: its name, or else its number.
    pub fn names(&self) -> Vec<String> {
        (0..self.sockets.len()).map(|at| self.names.get(at).cloned().unwrap_or(at.to_string())).collect()
    }

    /// Takes a listener for connections.
    pub(crate) fn listener(&mut self, name: &str) -> io::Result<Listener> {
        let at = self.find(name)?;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        // What it is not for stays.
        if let Ok(listener) = self.sockets.take_tcp_listener(at) {
            let listener = listener.ok_or_else(missing)?;
            listener.set_nonblocking(true)?;
            return Ok(Listener::Tcp(TcpListener::from_std(listener)?));
        }
        let listener = self.sockets.take_unix_listener(at)?.ok_or_else(missing)?;
        listener.set_nonblocking(true)?;
        Ok(Listener::Unix { listener: UnixListener::from_std(listener)?, _path: None })
    }

    /// Takes a socket for datagrams.
    pub(crate) fn datagrams(&mut self, name: &str) -> io::Result<UdpSocket> {
        let at = self.find(name)?;
        let socket = self.sockets.take_udp_socket(at)?.ok_or(io::ErrorKind::NotFound)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        let by_name = self.names.iter().position(|known| known == name);
        let found = by_name.or_else(|| name.parse().ok()).filter(|at| *at < self.sockets.len());
        found.ok_or_else(|| {
            let message = match self.sockets.len() {
                0 => "the program was started without sockets (LISTEN_FDS)".to_owned(),
                _ => format!("the program was started with the sockets {}", self.names().join(", ")),
            };
            io::Error::new(io::ErrorKind::NotFound, message)
        })
    }
}

impl fmt::Debug for Activated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activated").field("names", &self.names()).finish()
    }
}
