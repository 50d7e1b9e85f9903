//! Reasons why a target was not reached, and the codes for the client.

use std::io::{self, ErrorKind};

use hyper::StatusCode;
use peersock_streams::socks::Reply;

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
    #[error("{}", words(.0))]
    Failed(#[from] io::Error),
}

/// Returns an error as clients' users understand it.
fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::HostUnreachable => "it does not answer".to_owned(),
        ErrorKind::ConnectionRefused => "nothing listens on that port".to_owned(),
        _ => error.to_string(),
    }
}

impl DialError {
    /// Returns the corresponding reply of SOCKS.
    pub(crate) fn reply(&self) -> Reply {
        match self {
            DialError::ForeignAddress | DialError::ForeignName => Reply::NOT_ALLOWED,
            DialError::UnknownName => Reply::HOST_UNREACHABLE,
            DialError::TimedOut => Reply::TTL_EXPIRED,
            DialError::Failed(error) => match error.kind() {
                ErrorKind::PermissionDenied => Reply::NOT_ALLOWED,
                ErrorKind::ConnectionRefused => Reply::REFUSED,
                ErrorKind::HostUnreachable | ErrorKind::NotFound => Reply::HOST_UNREACHABLE,
                ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown | ErrorKind::AddrNotAvailable => {
                    Reply::NETWORK_UNREACHABLE
                }
                ErrorKind::TimedOut => Reply::TTL_EXPIRED,
                _ => Reply::FAILURE,
            },
        }
    }

    /// Returns the corresponding status of HTTP.
    pub(crate) fn status(&self) -> StatusCode {
        match self.reply() {
            Reply::NOT_ALLOWED => StatusCode::FORBIDDEN,
            Reply::TTL_EXPIRED => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_off_is_said_in_words() {
        let said = |code| DialError::from(io::Error::from_raw_os_error(code)).to_string();
        // EHOSTUNREACH, ECONNREFUSED, EACCES
        assert_eq!([113, 111].map(said), ["it does not answer", "nothing listens on that port"]);
        assert!(said(13).contains("denied"));
    }

    #[test]
    fn each_failure_has_its_code() {
        for (error, reply, status) in [
            (DialError::ForeignAddress, Reply::NOT_ALLOWED, 403),
            (DialError::ForeignName, Reply::NOT_ALLOWED, 403),
            (DialError::UnknownName, Reply::HOST_UNREACHABLE, 502),
            (DialError::TimedOut, Reply::TTL_EXPIRED, 504),
            (io::Error::from(ErrorKind::ConnectionRefused).into(), Reply::REFUSED, 502),
            (io::Error::from(ErrorKind::HostUnreachable).into(), Reply::HOST_UNREACHABLE, 502),
            (io::Error::from(ErrorKind::NetworkUnreachable).into(), Reply::NETWORK_UNREACHABLE, 502),
            (io::Error::from(ErrorKind::PermissionDenied).into(), Reply::NOT_ALLOWED, 403),
            (io::Error::from(ErrorKind::TimedOut).into(), Reply::TTL_EXPIRED, 504),
            (io::Error::from(ErrorKind::OutOfMemory).into(), Reply::FAILURE, 502),
        ] {
            assert_eq!((error.reply(), error.status().as_u16()), (reply, status), "{error}");
        }
    }
}
