//! The application's side of socket options.
//!
//! The process keeps no state, because a descriptor may come from another process. Facts needed without
//! asking the node are noted on the kernel socket, as options that have no effect on AF_UNIX.

use std::time::Duration;

use libc::IPPROTO_IPV6;
use rustix::io::Errno;
use rustix::net::sockopt;

use crate::headers::HeaderKind;
use crate::name::{Family, Kind};
use crate::option_table::{self, Note};
use crate::requests::{Reply, Request};
use crate::socket::Socket;

impl Socket<'_> {
    /// Sets an option that the node keeps, as setsockopt(2) does.
    ///
    /// # Errors
    /// ENOPROTOOPT, EINVAL, and errors of the particular option.
    pub fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        self.check_level(level)?;
        let client = self.client();
        let row = option_table::find(self.kind(), self.family(), level, name);
        // Options of other sockets are inherited by connections made after this has returned, so wait for the
        // node.
        let (which, is_connected) = self.which_connected();
        if is_connected && value.len() >= size_of::<i32>() && row.is_some_and(|row| row.is_told) {
            return client.tell(Request::TellOption(which, level, name, value.to_vec()), None);
        }
        client.ask(Request::SetOption(which, level, name, value.to_vec()))?;
        match row.map(|row| row.note) {
            Some(Note::Linger) => {
                let (on, seconds) = (number(value), number(value.get(4..).unwrap_or_default()));
                let linger = (on != 0).then(|| Duration::from_secs(seconds.max(0) as u64));
                sockopt::set_socket_linger(self.fd(), linger)?;
            }
            Some(Note::Cutting) => {
                client.forget_passed();
                if forbids_cutting(level, name, number(value)) {
                    sockopt::set_socket_broadcast(self.fd(), true)?;
                }
            }
            Some(Note::Nothing) | None => {}
        }
        Ok(())
    }

    /// Returns an option that the node keeps, as getsockopt(2) does: at most `length` bytes.
    ///
    /// # Errors
    /// ENOPROTOOPT, and errors of the particular option.
    pub fn option(&self, level: i32, name: i32, length: u32) -> Result<Vec<u8>, Errno> {
        self.check_level(level)?;
        match self.client().ask(Request::Option(self.which(), level, name, length))? {
            Reply::Option(value) => Ok(value),
            _ => Err(Errno::PROTO),
        }
    }

    /// IPv4 sockets have no options of IPv6. The node does not know the family of an accepted connection.
    fn check_level(&self, level: i32) -> Result<(), Errno> {
        let is_foreign = level == IPPROTO_IPV6 && self.family() == Family::V4;
        if is_foreign { Err(Errno::NOPROTOOPT) } else { Ok(()) }
    }

    /// Returns the time that closing waits: SO_LINGER with a time, as noted by
    /// [`set_option`](Self::set_option).
    pub fn linger(&self) -> Option<Duration> {
        let linger = sockopt::socket_linger(self.fd()).ok().flatten();
        linger.filter(|time| !time.is_zero() && self.kind() == Kind::Stream)
    }

    /// Returns true if datagrams may be forbidden to be fragmented, or have less room, as noted by
    /// [`set_option`](Self::set_option). The note stays when that ends; the node then gives the correct
    /// answer.
    pub(crate) fn may_forbid_cutting(&self) -> bool {
        sockopt::socket_broadcast(self.fd()).unwrap_or(false)
    }
}

fn forbids_cutting(level: i32, name: i32, value: i32) -> bool {
    match (level, name) {
        (IPPROTO_IPV6, libc::IPV6_DONTFRAG) => value != 0,
        // Extension headers reduce the room for data.
        (IPPROTO_IPV6, name) if HeaderKind::of_option(name).is_some() => true,
        _ => !matches!(value, libc::IP_PMTUDISC_DONT | libc::IP_PMTUDISC_WANT | libc::IP_PMTUDISC_OMIT),
    }
}

/// Parses an `int`, or a single byte; 0 for neither.
fn number(value: &[u8]) -> i32 {
    match value {
        [a, b, c, d, ..] => i32::from_ne_bytes([*a, *b, *c, *d]),
        [byte, ..] => (*byte).into(),
        [] => 0,
    }
}
