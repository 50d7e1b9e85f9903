//! Answers that the proxy itself makes.

use std::error::Error;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, PROXY_AUTHENTICATE};
use hyper::{Response, StatusCode};

use crate::error::DialError;
use crate::target::Target;

/// The body of an answer, from the proxy or from the server.
pub(super) type Body = BoxBody<Bytes, hyper::Error>;

/// Reasons for not forwarding a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(
        "this is a proxy, and no web server: a program that uses it asks for a whole URI (GET http://host/path)"
    )]
    NotForProxy,
    #[error("only http:// is asked for in plain: use CONNECT for anything else")]
    Scheme,
    #[error("a URI with a user or a password is not passed on")]
    Userinfo,
    #[error("the URI names no host and port")]
    NoHost,
    #[error("CONNECT needs HOST:PORT")]
    NoTunnelTarget,
    #[error("a field that only one version of HTTP or one hop understands makes no sense here")]
    Fields,
    #[error("the body has a transfer coding other than chunks")]
    Coding,
    #[error("it changes to a protocol that it was not asked for")]
    Protocol,
    #[error("this proxy needs a user and a password")]
    NoPassword,
    #[error("the user or the password is wrong")]
    WrongPassword,
    #[error("too many passwords are tried from this address: wait some seconds")]
    TooManyPasswords,
    #[error("{0}")]
    Elsewhere(String, StatusCode),
}

impl Problem {
    /// Reports that a target was not reached.
    pub(super) fn of_dial(target: &Target, error: &DialError) -> Problem {
        Problem::Elsewhere(format!("{target} is not reached: {error}"), error.status())
    }

    /// Reports that a server's answer is no valid HTTP, or cannot be forwarded.
    pub(super) fn bad_gateway(target: &Target, error: &dyn Error) -> Problem {
        Problem::Elsewhere(format!("{target} does not answer as it should: {error}"), StatusCode::BAD_GATEWAY)
    }

    /// Makes the client's answer. The connection ends with it, because later bytes may be the rest of a
    /// request that was not understood.
    pub(super) fn answer(&self) -> Response<Body> {
        let status = match self {
            Problem::NoPassword | Problem::WrongPassword => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Problem::TooManyPasswords => StatusCode::TOO_MANY_REQUESTS,
            Problem::Elsewhere(_, status) => *status,
            Problem::Coding => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        };
        let body = Full::from(format!("peersock: {self}\n")).map_err(|never| match never {}).boxed();
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match status {
            // The client may send its password on the same connection.
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let challenge = "Basic realm=\"peersock\", charset=\"UTF-8\"";
                headers.insert(PROXY_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            _ => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        answer
    }
}

/// Returns an empty body.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}
