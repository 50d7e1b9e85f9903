//! Parsers and checks for the fuzz targets. Not a stable interface.

use std::net::SocketAddr;

use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::access::{Access, Admitted, Origin, Way};
use crate::api::{messages_in, subscription_in, understands};
use crate::pipe::{parse_name, parse_pattern, parse_target};
use crate::token::Token;

/// The way of a request: a loopback address with this port, or another user's Unix domain socket.
#[derive(Debug, Clone, Copy)]
pub enum Came {
    /// The address 127.0.0.1.
    Loopback,
    /// A Unix domain socket.
    Socket,
}

/// Returns true if a server with this token, and with pages of `https://app.example` allowed, serves a
/// request. `None` if the request is no valid HTTP.
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

/// Parses the name of a pipe, of a subscription or of a listener.
pub fn name(text: &str) -> Option<String> {
    parse_name(text).ok()
}

/// Returns true if a text is a target, true if it is a pattern, and the subscription in it as options of
/// P2PD.
pub fn texts(text: &str) -> (bool, bool, Option<String>) {
    (parse_target(text).is_ok(), parse_pattern(text).is_ok(), subscription_in(text))
}

/// Returns flags for the validity of a query and of a JSON body.
pub fn parts(query: &str, body: &[u8]) -> [bool; 4] {
    understands(query, body)
}

/// Returns the messages in the frames of a WebSocket client.
pub fn websocket(frames: &[u8]) -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without I/O takes nothing of the system");
    runtime.block_on(messages_in(frames)).into_iter().map(|data| data.to_vec()).collect()
}
