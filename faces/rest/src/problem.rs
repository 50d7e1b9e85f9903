//! Errors for clients: RFC 9457, or P2PD's form.

use std::fmt;
use std::io;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, UPGRADE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::json;

/// The reason of a failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    kind: Kind,
    /// The fault of this request, with advice.
    detail: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    BadRequest,
    NoToken,
    ForeignOrigin,
    ForeignHost,
    NoRoute,
    NoMethod,
    NoPipe,
    NoSubscription,
    NoMessage,
    NoListener,
    NameTaken,
    Busy,
    WrongProtocol,
    Ended,
    TooLarge,
    TooSlow,
    TooMany,
    NotReached,
    NoAnswer,
    NotAllowed,
    UpgradeNeeded,
    Down,
    Internal,
}

impl Kind {
    /// Returns the status, a name for programs, and P2PD's number, which is 1 where P2PD has none.
    const fn parts(self) -> (StatusCode, &'static str, u8) {
        match self {
            Kind::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", 1),
            Kind::NoToken => (StatusCode::UNAUTHORIZED, "no-token", 1),
            Kind::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign-origin", 1),
            Kind::ForeignHost => (StatusCode::MISDIRECTED_REQUEST, "foreign-host", 1),
            Kind::NoRoute => (StatusCode::NOT_FOUND, "no-route", 1),
            Kind::NoMethod => (StatusCode::METHOD_NOT_ALLOWED, "no-method", 1),
            Kind::NoPipe => (StatusCode::NOT_FOUND, "no-pipe", 1),
            Kind::NoSubscription => (StatusCode::NOT_FOUND, "no-subscription", 1),
            Kind::NoMessage => (StatusCode::NOT_FOUND, "no-message", 6),
            Kind::NoListener => (StatusCode::NOT_FOUND, "no-listener", 1),
            Kind::NameTaken => (StatusCode::CONFLICT, "name-taken", 2),
            Kind::Busy => (StatusCode::CONFLICT, "busy", 1),
            Kind::WrongProtocol => (StatusCode::CONFLICT, "wrong-protocol", 1),
            Kind::Ended => (StatusCode::GONE, "ended", 1),
            Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", 1),
            Kind::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too-slow", 1),
            Kind::TooMany => (StatusCode::SERVICE_UNAVAILABLE, "too-many", 1),
            Kind::NotReached => (StatusCode::BAD_GATEWAY, "not-reached", 3),
            Kind::NoAnswer => (StatusCode::GATEWAY_TIMEOUT, "no-answer", 3),
            Kind::NotAllowed => (StatusCode::FORBIDDEN, "not-allowed", 3),
            Kind::UpgradeNeeded => (StatusCode::UPGRADE_REQUIRED, "upgrade-needed", 1),
            Kind::Down => (StatusCode::SERVICE_UNAVAILABLE, "node-down", 1),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", 1),
        }
    }

    pub(crate) fn because(self, detail: impl fmt::Display) -> Problem {
        Problem { kind: self, detail: detail.to_string() }
    }
}

impl Problem {
    /// Converts an error of a socket.
    pub(crate) fn of_io(error: &io::Error, what: &str) -> Problem {
        let kind = match error.kind() {
            io::ErrorKind::NetworkDown => Kind::Down,
            io::ErrorKind::TimedOut => Kind::NoAnswer,
            io::ErrorKind::PermissionDenied => Kind::NotAllowed,
            io::ErrorKind::AddrInUse => Kind::NameTaken,
            io::ErrorKind::InvalidInput => Kind::BadRequest,
            _ => Kind::NotReached,
        };
        kind.because(format_args!("{what}: {error}"))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Makes the answer in P2PD's form: a number and a text.
    pub(crate) fn into_p2pd(self) -> Response<Body> {
        let (.., number) = self.kind.parts();
        let body = json!({"error": number, "msg": &self.detail});
        self.answer("application/json", body)
    }

    fn answer(&self, content: &'static str, body: serde_json::Value) -> Response<Body> {
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.kind.parts().0;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(content));
        match self.kind {
            Kind::NoToken => {
                // Basic is accepted (curl -u), but not offered, because a browser would keep the token and
                // add it to the requests of any page.
                fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"peersock\""));
            }
            Kind::UpgradeNeeded => {
                fields.insert(UPGRADE, HeaderValue::from_static("tcp, websocket"));
                fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            }
            // The rest of such a body is not read.
            Kind::TooLarge | Kind::TooSlow => {
                fields.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let (status, code, _) = self.kind.parts();
        let title = status.canonical_reason().unwrap_or("Problem");
        let body = json!({
            "type": "about:blank",
            "title": title,
            "status": status.as_u16(),
            "code": code,
            "detail": &self.detail,
        });
        self.answer("application/problem+json", body)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}
