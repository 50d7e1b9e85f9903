//! Reasons why a target was not reached, and the codes for the client.

use std::io::{self, ErrorKind};

use hyper::StatusCode;

use crate::socks::Reply;

/// Reasons for having no connection to a target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The address belongs to no network of the node.
    #[error("it is no address of the network, and others are not reached")]
    ForeignAddress,
    /// No member has the name.
    #[error("no member of the network has that name, and other hosts are not reached")]
    ForeignName,
    /// The system does not know the name.
    #[error("no host has that name")]
    UnknownName,
    /// The attempt timed out.
    #[error("no answer in time")]
    TimedOut,
    /// The overlay or the system has refused the connection.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl DialError {
    /// Returns the corresponding reply of SOCKS.
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

    /// Returns the corresponding status of HTTP.
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
