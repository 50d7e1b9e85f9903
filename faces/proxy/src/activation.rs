//! Sockets passed at the program's start: systemd's socket activation (sd_listen_fds(3)).

use std::env;
use std::fmt;
use std::io;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UdpSocket, UnixListener};

use crate::listener::Listener;

/// The passed sockets, each of which may be taken once.
pub struct Activated {
    sockets: ListenFd,
    /// LISTEN_FDNAMES, in the order of the sockets. By default all sockets of one unit have one name.
    names: Vec<String>,
}

impl Activated {
    /// Returns an empty set.
    pub fn none() -> Activated {
        Activated { sockets: ListenFd::empty(), names: Vec::new() }
    }

    /// Takes the sockets that LISTEN_FDS counts, if LISTEN_PID is this process or not set. Call this once,
    /// while the process has one thread, because it removes the variables.
    pub fn from_environment() -> Activated {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).collect();
        Activated { sockets: ListenFd::from_env(), names }
    }

    /// Returns true if there are no sockets.
    pub fn is_empty(&self) -> bool {
        self.sockets.len() == 0
    }

    /// Returns the names of the sockets, each once. A socket without a name has its number.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for at in 0..self.sockets.len() {
            let name = self.names.get(at).filter(|name| !name.is_empty());
            let name = name.cloned().unwrap_or(at.to_string());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Takes the stream listeners of that name, or the listener of that number.
    pub(crate) fn listeners(&mut self, name: &str) -> io::Result<Vec<Listener>> {
        let mut listeners = Vec::new();
        let mut problem = io::Error::from(io::ErrorKind::NotFound);
        for at in self.find(name)? {
            match self.listener(at) {
                Ok(listener) => listeners.extend(listener),
                Err(error) => problem = error,
            }
        }
        if listeners.is_empty() { Err(problem) } else { Ok(listeners) }
    }

    /// Takes one listener; `None` if it was already taken.
    fn listener(&mut self, at: usize) -> io::Result<Option<Listener>> {
        // A socket of another type stays available.
        if let Ok(listener) = self.sockets.take_tcp_listener(at) {
            let Some(listener) = listener else { return Ok(None) };
            listener.set_nonblocking(true)?;
            return Ok(Some(Listener::Tcp(TcpListener::from_std(listener)?)));
        }
        let Some(listener) = self.sockets.take_unix_listener(at)? else { return Ok(None) };
        listener.set_nonblocking(true)?;
        Ok(Some(Listener::Unix { listener: UnixListener::from_std(listener)?, _path: None }))
    }

    /// Takes the datagram sockets of that name, or the socket of that number.
    pub(crate) fn datagrams(&mut self, name: &str) -> io::Result<Vec<UdpSocket>> {
        let mut taken = Vec::new();
        let mut problem = io::Error::from(io::ErrorKind::NotFound);
        for at in self.find(name)? {
            match self.sockets.take_udp_socket(at) {
                Ok(None) => {}
                Ok(Some(socket)) => {
                    socket.set_nonblocking(true)?;
                    taken.push(UdpSocket::from_std(socket)?);
                }
                Err(error) => problem = error,
            }
        }
        if taken.is_empty() { Err(problem) } else { Ok(taken) }
    }

    /// Returns the positions of the sockets of that name, or of that number.
    fn find(&self, name: &str) -> io::Result<Vec<usize>> {
        let count = self.sockets.len();
        let is_named = |at: &usize| self.names.get(*at).is_some_and(|known| known == name);
        let mut found: Vec<_> = (0..count).filter(is_named).collect();
        if found.is_empty() {
            found.extend(name.parse::<usize>().ok().filter(|at| *at < count));
        }
        if found.is_empty() {
            let message = match count {
                0 => "the program was started without sockets (LISTEN_FDS)".to_owned(),
                _ => format!("the program was started with the sockets {}", self.names().join(", ")),
            };
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(found)
    }
}

impl fmt::Debug for Activated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activated").field("names", &self.names()).finish()
    }
}
