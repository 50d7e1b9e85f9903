//! Why a target was not reached, and what a client is told.

use std::io::{self, ErrorKind};

use hyper::StatusCode;

use crate::socks::Reply;

/// Why there is no connection to a target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// An address that is none of the networks'.
    #[error("it is no address of the network, and others are not reached")]
    ForeignAddress,
    /// A name that no member has.
    #[error("no member of the network has that name, and other hosts are not reached")]
    ForeignName,
    /// A name that the system does not know.
    #[error("no host has that name")]
    UnknownName,
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// The overlay, or the system, has refused it.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl DialError {
    /// What SOCKS says of it.
    pub(crate) fn reply(&self) -> Reply {
        match self {
            DialError::ForeignAddress | DialError::ForeignName => Reply::NotAllowed,
            DialError::UnknownName => Reply::HostUnreachable,
            DialError::TimedOut => Reply::TtlExpired,
            DialError::Failed(error) => match error.kind() {
                ErrorKind::PermissionDenied => Reply::NotAllowed,
                ErrorKind::ConnectionRefused => Reply::Refused,
                ErrorKind::HostUnreachable | ErrorKind::NotFound => Reply::HostUnreachable,
                ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown | ErrorKind::AddrNotAvailable => {
                    Reply::NetworkUnreachable
                }
                ErrorKind::TimedOut => Reply::TtlExpired,
                _ => Reply::Failure,
            },
        }
    }

    /// What HTTP says of it.
    pub(crate) fn status(&self) -> StatusCode {
        match self.reply() {
            Reply::NotAllowed => StatusCode::FORBIDDEN,
            Reply::TtlExpired => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_code() {
        use Reply::{Failure, HostUnreachable, NetworkUnreachable, NotAllowed, Refused, TtlExpired};
        for (error, reply, status) in [
            (DialError::ForeignAddress, NotAllowed, 403),
            (DialError::ForeignName, NotAllowed, 403),
            (DialError::UnknownName, HostUnreachable, 502),
            (DialError::TimedOut, TtlExpired, 504),
            (io::Error::from(ErrorKind::ConnectionRefused).into(), Refused, 502),
            (io::Error::from(ErrorKind::HostUnreachable).into(), HostUnreachable, 502),
            (io::Error::from(ErrorKind::NetworkUnreachable).into(), NetworkUnreachable, 502),
            (io::Error::from(ErrorKind::PermissionDenied).into(), NotAllowed, 403),
            (io::Error::from(ErrorKind::TimedOut).into(), TtlExpired, 504),
            (io::Error::from(ErrorKind::OutOfMemory).into(), Failure, 502),
        ] {
            assert_eq!((error.reply(), error.status().as_u16()), (reply, status), "{error}");
        }
    }
}
