//! A program's place at a shared node.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock_attach::Attached;
use peersock_fd::{Client, Errno, Reply, Request, Route};

use crate::stream::{Inner, TcpStream};

/// Interval of checks while connections end.
const LOOK: Duration = Duration::from_millis(1);

/// A program's place at the node that it shares. Clones are the same.
#[derive(Debug, Clone)]
pub struct Member {
    attached: Arc<Attached>,
    client: Arc<Client>,
    routes: Arc<[Route]>,
    streams: Arc<Mutex<Vec<Weak<Inner>>>>,
}

impl Member {
    /// Returns the place that an attachment gives.
    ///
    /// # Errors
    /// `InvalidData` if the node has given no token; errors of the first request.
    pub fn new(attached: Arc<Attached>) -> io::Result<Member> {
        let client = Client::of_variable(attached.environment()).ok_or(io::ErrorKind::InvalidData)?;
        let Reply::Routes(routes) = client.ask(Request::Routes)? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        Ok(Member { attached, client, routes: routes.into(), streams: Arc::default() })
    }

    /// Returns the attachment.
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the node's addresses in the program's networks, the self-certifying one of each first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.attached.networks().iter().flat_map(|network| network.addresses.clone()).collect()
    }

    /// Fails once the node has ended.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn check_up(&self) -> io::Result<()> {
        match self.attached.has_ended() {
            true => Err(io::ErrorKind::NetworkDown.into()),
            false => Ok(()),
        }
    }

    /// Returns the prefixes of addresses that the program's networks lead to.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Returns the addresses of the members with a name; none if no member has it, and it may be another
    /// host's.
    ///
    /// # Errors
    /// `NotFound` if no member has it, and it ends with a network's name, so that no other host has it;
    /// `NetworkDown` if the node has ended; errors of the request, after which nothing is known of the name.
    pub fn addresses_named(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.client.resolve(name).map_err(|error| match error {
            Errno::NOENT => {
                let message = format!("no member of the network is named `{name}`");
                io::Error::new(io::ErrorKind::NotFound, message)
            }
            error => error.into(),
        })
    }

    /// Checks that members can reach a service at a port.
    ///
    /// # Errors
    /// `PermissionDenied` if no network of the program allows it; `NetworkDown` if the node has ended.
    pub fn check_port(&self, port: u16) -> io::Result<()> {
        self.check_up()?;
        match self.attached.port_refusal(port) {
            Some(refusal) => Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal)),
            None => Ok(()),
        }
    }

    /// Remembers a connection until it is closed.
    pub(crate) fn remember(&self, stream: &Arc<Inner>) {
        let mut streams = self.streams();
        if streams.len() == streams.capacity() {
            streams.retain(|known| known.strong_count() > 0);
        }
        streams.push(Arc::downgrade(stream));
    }

    /// Resets all open connections, so that no peer takes the end of the data for the regular one. Waits up
    /// to `within` until the node has done so.
    pub fn reset_all(&self, within: Duration) {
        let open: Vec<_> = self.streams().iter().filter_map(Weak::upgrade).map(TcpStream::of).collect();
        open.iter().for_each(TcpStream::reset);
        let until = Instant::now() + within;
        while open.iter().any(TcpStream::is_served) && Instant::now() < until {
            thread::sleep(LOOK);
        }
    }

    fn streams(&self) -> MutexGuard<'_, Vec<Weak<Inner>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
