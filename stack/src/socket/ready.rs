//! Readiness of a socket, and the states of a connection.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// Readiness of a socket, as reported by `poll(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready(u8);

impl Ready {
    /// No readiness.
    pub const EMPTY: Self = Self(0);
    /// Reading does not block: data, the end of the stream or an error is available, or a connection can be
    /// accepted (POLLIN).
    pub const READABLE: Self = Self(1);
    /// Writing does not block (POLLOUT). After the buffer was full, set once a quarter is free.
    pub const WRITABLE: Self = Self(1 << 1);
    /// The peer has sent all its data (POLLRDHUP).
    pub const READ_CLOSED: Self = Self(1 << 2);
    /// Writing is no longer possible.
    pub const WRITE_CLOSED: Self = Self(1 << 3);
    /// An error is pending (POLLERR).
    pub const ERROR: Self = Self(1 << 4);
    /// The handshake is done. Stays set afterwards.
    pub const CONNECTED: Self = Self(1 << 5);

    /// Unread urgent data is announced: [`Flow::urgent_left`](crate::Flow::urgent_left) (POLLPRI).
    pub const URGENT: Self = Self(1 << 6);

    /// Returns true if all of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns true if any of `other` is set.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns true if nothing is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl BitOr for Ready {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Ready {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["READABLE", "WRITABLE", "READ_CLOSED", "WRITE_CLOSED", "ERROR", "CONNECTED", "URGENT"];
        let mut set = f.debug_set();
        for (bit, name) in names.iter().enumerate() {
            if self.0 >> bit & 1 == 1 {
                set.entry(&format_args!("{name}"));
            }
        }
        set.finish()
    }
}

/// State of a TCP connection (RFC 9293 3.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the standard's.
pub enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

impl State {
    /// Returns true during the handshake.
    pub fn is_connecting(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
        })
    }
}
