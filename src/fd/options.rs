//! Socket options: what each means to the stack, and what it is answered with.

use std::time::Duration;

use peersock_fd::{Errno, Kind, Which};
use peersock_stack::{CongestionControl, KeepAlive, TcpOptions};

use super::server::{Entry, State};
use super::sockets::Phase;
use crate::socket::Connection;

/// What an application has set.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) reuse_address: bool,
    pub(super) v6_only: bool,
    keepalive: KeepAlive,
    nodelay: bool,
    user_timeout: Option<Duration>,
    /// SO_LINGER in seconds.
    linger: Option<u32>,
    congestion: CongestionControl,
    send_buffer: Option<usize>,
    receive_buffer: Option<usize>,
}

impl Options {
    /// What a connection or a listener is made with.
    pub(super) fn tcp(&self) -> TcpOptions {
        TcpOptions {
            nodelay: self.nodelay,
            keepalive: self.keepalive,
            reset_on_close: self.linger == Some(0),
            reuse_address: self.reuse_address,
            user_timeout: self.user_timeout,
            send_buffer: self.send_buffer,
            receive_buffer: self.receive_buffer,
            congestion: self.congestion,
            ..TcpOptions::default()
        }
    }

    /// Has a connection that exists follow.
    pub(super) fn apply(&self, connection: &Connection) {
        connection.set_nodelay(self.nodelay);
        connection.flow().set_reset_on_close(self.linger == Some(0));
        connection.flow().set_keepalive(self.keepalive);
        // The connection may have ended: then nothing has to follow.
        let _ = connection.set_user_timeout(self.user_timeout);
        if connection.congestion_control().is_ok_and(|now| now != self.congestion) {
            let _ = connection.set_congestion_control(self.congestion);
        }
    }

    fn set(&mut self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => self.reuse_address = integer(value)? != 0,
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => self.keepalive.on = integer(value)? != 0,
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let (on, seconds) = (integer(value)?, integer(value.get(4..).ok_or(Errno::INVAL)?)?);
                self.linger = (on != 0).then_some(seconds.max(0) as u32);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => self.v6_only = integer(value)? != 0,
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => self.nodelay = integer(value)? != 0,
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => self.keepalive.idle = seconds(value)?,
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => self.keepalive.interval = seconds(value)?,
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => match integer(value)? {
                probes @ 1..=127 => self.keepalive.probes = probes as u32,
                _ => return Err(Errno::INVAL),
            },
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => {
                let milliseconds = u64::try_from(integer(value)?).map_err(|_| Errno::INVAL)?;
                self.user_timeout = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
            }
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
                let name = std::str::from_utf8(value).map_err(|_| Errno::NOENT)?.trim_end_matches('\0');
                self.congestion = name.parse().map_err(|_| Errno::NOENT)?;
            }
            _ => return Err(Errno::NOPROTOOPT),
        }
        Ok(())
    }

    fn get(&self, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
        let flag = |on: bool| i32::from(on).to_ne_bytes().to_vec();
        let number = |number: i64| (number as i32).to_ne_bytes().to_vec();
        Ok(match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => flag(self.reuse_address),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => flag(self.keepalive.on),
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let mut value = flag(self.linger.is_some());
                value.extend(number(self.linger.unwrap_or(0).into()));
                value
            }
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => flag(self.v6_only),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => flag(self.nodelay),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => number(self.keepalive.idle.as_secs() as i64),
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => number(self.keepalive.interval.as_secs() as i64),
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => number(self.keepalive.probes.into()),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => {
                number(self.user_timeout.map_or(0, |timeout| timeout.as_millis() as i64))
            }
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
                // As Linux: TCP_CA_NAME_MAX bytes.
                let mut value = self.congestion.name().as_bytes().to_vec();
                value.resize(16, 0);
                value
            }
            _ => return Err(Errno::NOPROTOOPT),
        })
    }
}

impl State {
    /// setsockopt(2).
    pub(super) fn set_option(
        &mut self,
        which: Which,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        check(which, level)?;
        if let Some(stream) = self.stream_mut(which) {
            stream.options.set(level, name, value)?;
            stream.options.apply(&stream.connection);
            return Ok(());
        }
        let Which::Opened(socket) = which else { return Err(Errno::INVAL) };
        self.socket(socket).options.set(level, name, value)
    }

    /// getsockopt(2): the value, at most `length` bytes of it.
    pub(super) fn option(
        &mut self,
        which: Which,
        level: i32,
        name: i32,
        length: usize,
    ) -> Result<Vec<u8>, Errno> {
        check(which, level)?;
        let mut value = match (self.stream_mut(which), which) {
            (Some(stream), _) => stream.options.get(level, name)?,
            (None, Which::Opened(socket)) => self.socket(socket).options.get(level, name)?,
            (None, Which::Accepted(_)) => Options::default().get(level, name)?,
        };
        value.truncate(length);
        Ok(value)
    }

    fn stream_mut(&mut self, which: Which) -> Option<&mut super::stream::Stream> {
        let key = match which {
            Which::Accepted(id) => *self.accepted.get(&id)?,
            Which::Opened(socket) => match self.opened.get(&socket.id)?.phase {
                Phase::Connected(key) => key,
                _ => return None,
            },
        };
        match self.entry_mut(key)? {
            Entry::Stream(stream) => Some(stream),
            _ => None,
        }
    }
}

/// Whether a socket has options of this level.
fn check(which: Which, level: i32) -> Result<(), Errno> {
    match (which, level) {
        (_, libc::SOL_SOCKET | libc::IPPROTO_IP | libc::IPPROTO_IPV6) => Ok(()),
        (Which::Opened(socket), libc::IPPROTO_TCP) if socket.kind == Kind::Stream => Ok(()),
        (Which::Accepted(_), libc::IPPROTO_TCP) => Ok(()),
        _ => Err(Errno::NOPROTOOPT),
    }
}

/// An `int`, or a single byte as some programs pass.
fn integer(value: &[u8]) -> Result<i32, Errno> {
    let bytes = value.get(..4).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::INVAL)?;
    Ok(i32::from_ne_bytes(bytes))
}

/// A time of keep-alive: 1 to 32767 seconds, as Linux has it.
fn seconds(value: &[u8]) -> Result<Duration, Errno> {
    match integer(value)? {
        seconds @ 1..=32767 => Ok(Duration::from_secs(seconds as u64)),
        _ => Err(Errno::INVAL),
    }
}
