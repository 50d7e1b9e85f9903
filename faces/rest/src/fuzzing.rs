//! Parsers and checks for the fuzz targets. No stable interface.

use std::net::SocketAddr;

use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::access::{Access, Admitted, Origin, Way};
use crate::api::{messages_in, subscription_in, understands};
use crate::pipe::{parse_name, parse_pattern, parse_target};
use crate::token::Token;

/// By which way a request comes: a loopback address with this port, or a Unix domain socket of somebody else.
#[derive(Debug, Clone, Copy)]
pub enum Came {
    /// At 127.0.0.1.
    Loopback,
    /// At a Unix domain socket.
    Socket,
}

/// Returns true if a server with this token, and with pages of `https://app.example` allowed, serves a
/// request. `None` if it is none of HTTP.
pub fn serves(
    token: &str,
    came: Came,
    method: &[u8],
    target: &[u8],
    fields: &[(&[u8], &[u8])],
) -> Option<bool> {
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.uri_mut() = Uri::try_from(target).ok()?;
    for (name, value) in fields {
        let (name, value) = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        request.headers_mut().append(name, value);
    }
    let origins = Origin::parse("https://app.example").into_iter().collect();
    let access = Access { token: Some(Token::parse(token).ok()?), origins };
    let way = match came {
        Came::Loopback => Way::Loopback(SocketAddr::from(([127, 0, 0, 1], 12333))),
        Came::Socket => Way::Socket,
    };
    Some(matches!(access.check(&request, way), Ok(Admitted::Served(_))))
}

/// The name of a pipe, of a subscription or of a listener.
pub fn name(text: &str) -> Option<String> {
    parse_name(text).ok()
}

/// Tells if a text is a target, and if it is a pattern; returns the subscription in it as options of P2PD.
pub fn texts(text: &str) -> (bool, bool, Option<String>) {
    (parse_target(text).is_ok(), parse_pattern(text).is_ok(), subscription_in(text))
}

/// Tells if a query and the bodies of JSON are understood.
pub fn parts(query: &str, body: &[u8]) -> [bool; 4] {
    understands(query, body)
}

/// The messages that the client of a WebSocket has sent, as frames.
pub fn websocket(frames: &[u8]) -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without I/O takes nothing of the system");
    runtime.block_on(messages_in(frames)).into_iter().map(|data| data.to_vec()).collect()
}
