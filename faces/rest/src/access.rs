//! Access checks: no web page without permission is served, and on loopback addresses only holders of the
//! token.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION,
    HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL, VARY,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use crate::problem::{Kind, Problem};
use crate::token::Token;

/// The default port of a URI.
const HTTP_PORT: u16 = 80;

/// The field by which browsers name the site of the requesting page.
const FETCH_SITE: &str = "sec-fetch-site";

/// Prefix of a protocol name that carries a page's token, because pages cannot set Authorization for
/// WebSockets.
const TOKEN_PROTOCOL: &str = "token.";

/// The scheme, host and port of web pages that may use the server (RFC 6454), as `https://example.org`.
///
/// ```
/// use peersock_rest::Origin;
///
/// assert_eq!(Origin::parse("HTTPS://Example.org/")?.to_string(), "https://example.org");
/// assert!(Origin::parse("null").is_err(), "every page can have that one");
/// # Ok::<(), peersock_rest::OriginError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// Error: a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no origin of web pages: write SCHEME://HOST or SCHEME://HOST:PORT")]
pub struct OriginError(String);

impl Origin {
    /// Parses `SCHEME://HOST[:PORT]`.
    ///
    /// # Errors
    /// If the text is no origin. `null` is refused too, because every page can have it.
    pub fn parse(text: &str) -> Result<Origin, OriginError> {
        let wrong = || OriginError(text.to_owned());
        let plain = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
        let (scheme, authority) = plain.split_once("://").ok_or_else(wrong)?;
        let is_scheme = !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let authority: Authority = authority.parse().map_err(|_| wrong())?;
        let is_plain = !authority.as_str().contains('@') && !authority.host().is_empty();
        (is_scheme && is_plain).then(|| Origin(plain.clone())).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Origin, OriginError> {
        Origin::parse(text)
    }
}

/// The token and origins against which requests at loopback addresses are checked.
#[derive(Debug, Default)]
pub(crate) struct Access {
    pub(crate) token: Option<Token>,
    pub(crate) origins: Vec<Origin>,
}

/// The way by which a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A Unix domain socket to which only this user can connect, so neither a browser nor another user can.
    OwnSocket,
    /// Any other Unix domain socket.
    Socket,
    /// A loopback address, which is the server's address.
    Loopback(SocketAddr),
}

/// The result of a successful check.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// A browser asked if a page may send requests; this is the answer.
    Preflight(Response<Body>),
    /// The request may be served; the page with that origin may read the answer.
    Served(Option<HeaderValue>),
}

impl Access {
    /// Checks a request.
    ///
    /// # Errors
    /// The reason why the client is refused.
    pub(crate) fn check<B>(&self, request: &Request<B>, way: Way) -> Result<Admitted, Problem> {
        let fields = request.headers();
        let own = match way {
            Way::OwnSocket => return Ok(Admitted::Served(None)),
            Way::Socket => return self.check_token(request).map(|()| Admitted::Served(None)),
            Way::Loopback(own) => own,
        };
        check_host(request, own)?;
        let origin = self.check_origin(fields)?;
        if request.method() == Method::OPTIONS && fields.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            let origin = origin.ok_or_else(|| foreign("a page without an origin"))?;
            return Ok(Admitted::Preflight(preflight(origin)));
        }
        self.check_token(request)?;
        Ok(Admitted::Served(origin.cloned()))
    }

    /// Returns the origin of the requesting page, if there is one and it is allowed.
    fn check_origin<'a>(&self, fields: &'a HeaderMap) -> Result<Option<&'a HeaderValue>, Problem> {
        let mut origins = fields.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            // A page can fetch pictures, forms and frames without Origin; for these, browsers name the page's
            // site.
            let site = fields.get(FETCH_SITE).map(HeaderValue::as_bytes);
            return match site {
                None | Some(b"none" | b"same-origin") => Ok(None),
                Some(_) => Err(foreign("a page of another site")),
            };
        };
        if origins.next().is_some() {
            return Err(Kind::BadRequest.because("the field Origin is there more than once"));
        }
        let shown = String::from_utf8_lossy(origin.as_bytes());
        let is_allowed = match origin.as_bytes() {
            // A page opened as a file, or one that any site put into a frame: only the token identifies it.
            b"null" => self.token.is_some(),
            _ => self.origins.iter().any(|allowed| allowed.0 == shown),
        };
        if is_allowed { Ok(Some(origin)) } else { Err(foreign(&format!("the origin {shown}"))) }
    }

    fn check_token<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let Some(token) = &self.token else { return Ok(()) };
        let fields = request.headers();
        // Once a browser knows Basic credentials, it adds them to the requests of any page, so they prove
        // nothing. A page cannot make it add Bearer.
        let is_browser = fields.contains_key(ORIGIN) || fields.contains_key(FETCH_SITE);
        let in_field = fields
            .get(AUTHORIZATION)
            .map(HeaderValue::as_bytes)
            .is_some_and(|value| token.is_bearer(value) || !is_browser && token.is_basic(value));
        let in_query = || {
            let query = request.uri().query().unwrap_or_default().as_bytes();
            form_urlencoded::parse(query).any(|(key, value)| key == "token" && token.is(value.as_bytes()))
        };
        let in_protocol = || {
            protocols(fields)
                .any(|name| name.strip_prefix(TOKEN_PROTOCOL).is_some_and(|shown| token.is(shown.as_bytes())))
        };
        if in_field || in_query() || in_protocol() {
            return Ok(());
        }
        Err(Kind::NoToken.because(match is_browser {
            true => {
                "show the token that the server has written into its file: Authorization: Bearer TOKEN, or \
                 ?token=TOKEN; Basic is not taken from browsers"
            }
            false => {
                "show the token that the server has written into its file: Authorization: Bearer TOKEN, \
                 curl -u :TOKEN, or ?token=TOKEN"
            }
        }))
    }
}

/// Returns the protocols that a WebSocket request offers.
pub(crate) fn protocols(fields: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = fields.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',').map(str::trim))
}

fn foreign(whose: &str) -> Problem {
    Kind::ForeignOrigin.because(format_args!(
        "{whose} may not use this node; start the server with --origin SCHEME://HOST:PORT for pages that may"
    ))
}

/// Checks the field Host. A page whose DNS name leads to this machine has that name in Host, and is refused
/// (DNS rebinding).
fn check_host<B>(request: &Request<B>, own: SocketAddr) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let wrong = |shown: &str| {
        Kind::ForeignHost.because(format_args!(
            "the request is for `{shown}`, and this is http://{own}: ask for that address or for localhost"
        ))
    };
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(
            Kind::BadRequest.because(format_args!("a request needs one field Host, as `Host: {own}`"))
        );
    };
    let shown = String::from_utf8_lossy(host.as_bytes());
    if !is_own(&shown, own) {
        return Err(wrong(&shown));
    }
    // A request with a whole URI names the host there, too.
    match request.uri().authority() {
        Some(authority) if !is_own(authority.as_str(), own) => Err(wrong(authority.as_str())),
        _ => Ok(()),
    }
}

/// Returns true if a host and a port denote this server.
fn is_own(shown: &str, own: SocketAddr) -> bool {
    let (host, port) = match shown.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            match port.parse() {
                Ok(port) if is_number => (host, port),
                _ => return false,
            }
        }
        _ => (shown, HTTP_PORT),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = inner.unwrap_or(host).parse::<IpAddr>();
    // Only an IPv6 address has brackets, and it must have them.
    let is_loopback = address.is_ok_and(|ip| ip.is_ipv6() == inner.is_some() && ip.is_loopback());
    port == own.port() && (is_loopback || host.eq_ignore_ascii_case("localhost"))
}

/// Answers an allowed page's preflight request.
fn preflight(origin: &HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (ACCESS_CONTROL_MAX_AGE, "600"),
        // Allows pages of the Internet to access a server of the machine (Private Network Access).
        (HeaderName::from_static("access-control-allow-private-network"), "true"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    let_read(&mut response, Some(origin.clone()));
    response
}

/// Lets a page read an answer.
pub(crate) fn let_read(response: &mut Response<Body>, origin: Option<HeaderValue>) {
    let fields = response.headers_mut();
    fields.insert(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let own = "peersock-from, peersock-message, peersock-dropped, location";
        fields.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(own));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_addresses_of_this_machine_are_the_server() {
        let own = "127.0.0.1:12333".parse().expect("an address");
        for host in
            ["127.0.0.1:12333", "localhost:12333", "LOCALHOST.:12333", "[::1]:12333", "127.9.9.9:12333"]
        {
            assert!(is_own(host, own), "{host}");
        }
        for host in [
            "",
            ":12333",
            "127.0.0.1",
            "localhost",
            "localhost:80",
            "localhost:",
            "localhost:+12333",
            "evil.example:12333",
            "localhost.evil.example:12333",
            "127.0.0.1.evil.example:12333",
            "::1:12333",
            "[127.0.0.1]:12333",
            "192.0.2.1:12333",
            "0.0.0.0:12333",
            "u@localhost:12333",
        ] {
            assert!(!is_own(host, own), "{host}");
        }
        assert!(is_own("localhost", "127.0.0.1:80".parse().expect("an address")));
        assert!(is_own("[::1]", "[::1]:80".parse().expect("an address")));
    }

    #[test]
    fn origins_are_texts_of_one_form() {
        for text in ["http://a", "http://127.0.0.1:8000", "chrome-extension://abc", "http://[::1]:1"] {
            assert_eq!(Origin::parse(text).expect(text).to_string(), text);
        }
        for text in
            ["", "null", "*", "a.example", "http://", "http://a/b", "http://u@a", "://a", "http://a b"]
        {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }
}
