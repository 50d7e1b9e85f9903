//! Header fields of forwarded messages (RFC 9110, 7.6).

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, ALLOW, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, MAX_FORWARDS, VIA};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use super::HTTP_PORT;
use super::answer::{Body, Problem, empty};
use crate::target::Target;

/// Fields of a single hop (RFC 9110, 7.6.1), and proxy fields that older clients send.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The field that each proxy adds (RFC 9110, 7.6.3). It begins with the version of the received message.
const VIA_1_1: HeaderValue = HeaderValue::from_static("1.1 peersock");
const VIA_1_0: HeaderValue = HeaderValue::from_static("1.0 peersock");

/// Handles Max-Forwards; returns the answer if this is the last hop (RFC 9110, 7.6.2). TRACE is never
/// forwarded, because it would reveal fields that others add to a request.
pub(super) fn answer_last_hop(request: &Request<Incoming>) -> Option<Response<Body>> {
    let is_last = request.headers().get(MAX_FORWARDS).is_some_and(|left| left.as_bytes() == b"0");
    let mut answer = Response::new(empty());
    match *request.method() {
        Method::TRACE => *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED,
        Method::OPTIONS if is_last => {}
        _ => return None,
    }
    let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT";
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    Some(answer)
}

/// Makes the request that the server gets.
pub(super) fn request_to_pass_on(
    request: Request<Incoming>,
    target: &Target,
) -> Result<Request<Body>, Problem> {
    let (mut parts, body) = request.into_parts();
    parts.uri = origin_form(&parts.uri);
    let via = via(parts.version);
    parts.version = Version::HTTP_11;
    if is_coded(&parts.headers) {
        return Err(Problem::Coding);
    }
    strip(&mut parts.headers);
    // Without this, hyper would forward no body of unknown length for a GET.
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // The host of the URI counts, and not the host field (RFC 9112, 3.2.2).
    let host = HeaderValue::from_str(&host_field(target)).map_err(|_| Problem::NoHost)?;
    parts.headers.insert(HOST, host);
    if parts.method == Method::OPTIONS
        && let Some(left) = parts.headers.get(MAX_FORWARDS)
    {
        let left = left.to_str().ok().and_then(|left| left.parse::<u32>().ok()).ok_or(Problem::Fields)?;
        parts.headers.insert(MAX_FORWARDS, left.saturating_sub(1).into());
    }
    parts.headers.append(VIA, via);
    Ok(Request::from_parts(parts, body.boxed()))
}

/// Makes the response that the client gets.
pub(super) fn response_to_pass_on(
    target: &Target,
    mut response: Response<Incoming>,
) -> Result<Response<Incoming>, Problem> {
    // The request cannot have asked for another protocol, because the field is for one hop and was removed.
    // The client would wait for another response, or mistake the server's bytes for another protocol.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Problem::bad_gateway(target, &Problem::Protocol));
    }
    let via = via(response.version());
    let headers = response.headers_mut();
    if is_coded(headers) {
        return Err(Problem::bad_gateway(target, &Problem::Coding));
    }
    // RFC 9112, 6.3: with chunks a length has no meaning, and the client would take it for the end.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    strip(headers);
    headers.append(VIA, via);
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// Returns true if the body has a transfer coding other than chunks. No one would decode it, and the receiver
/// would not know of it.
fn is_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// Removes the fields of a single hop: the fixed ones, and those that Connection names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // These fields delimit and address the message, so Connection must not remove them.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != HOST)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Returns the URI without its host.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
}

/// Returns the field Host, without the default port.
fn host_field(target: &Target) -> String {
    if target.port == HTTP_PORT { target.host.to_string() } else { target.to_string() }
}

fn via(version: Version) -> HeaderValue {
    if version == Version::HTTP_10 { VIA_1_0 } else { VIA_1_1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_one_hop_is_taken_away() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Own ,, content-length, host, b@d"),
            ("connection", "x-other"),
            ("x-own", "1"),
            ("x-other", "1"),
            ("keep-alive", "1"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("content-length", "1"),
            ("host", "alpha"),
            ("x-stays", "1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-stays"]);
    }

    #[test]
    fn servers_are_asked_without_their_own_host() {
        let form = |text: &str| origin_form(&text.parse().unwrap()).to_string();
        assert_eq!(form("http://a/x?y=1"), "/x?y=1");
        assert_eq!(form("http://a"), "/");
        assert_eq!(form("http://a?x"), "/?x");
        let host = |text| host_field(&Target::parse(text).unwrap());
        assert_eq!((host("a:80").as_str(), host("[fd00::1]:81").as_str()), ("a", "[fd00::1]:81"));
    }
}
