//! Extractors of handlers: parts of the path, the query, bodies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use peersock_proxy::serving::{Link, Probe};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Api;
use crate::limits::{BODY_TIMEOUT, DEFAULT_WAIT_SECONDS, MAX_BODY_BYTES, MAX_WAIT_SECONDS};
use crate::pipe::{ALL_MESSAGES, Taken, addresses_of, parse_name};
use crate::problem::{Kind, Problem};

/// The decoded parts of the path.
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + Send + 'static> FromRequestParts<Api> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Api) -> Result<Segments<T>, Problem> {
        let found = Path::<T>::from_request_parts(parts, state).await;
        found.map(|Path(found)| Segments(found)).map_err(|wrong| {
            Kind::BadRequest.because(format_args!(
                "the path cannot be read: {}; it is percent-encoded UTF-8",
                wrong.body_text()
            ))
        })
    }
}

/// Detects if the client that waits for an answer is still connected.
#[derive(Debug, Clone)]
pub(crate) struct Presence(Option<Arc<Probe>>);

impl Presence {
    pub(crate) fn of(link: &Link) -> Presence {
        Presence(link.probe().map(Arc::new))
    }

    /// Checks that the client is still there, because the server notices a client's end later than the system
    /// does. Messages taken in between are not for this client.
    pub(super) fn check(&self) -> Result<(), Problem> {
        match self.0.as_ref().is_some_and(|probe| probe.is_gone()) {
            true => Err(Kind::BadRequest.because("the client has closed its connection")),
            false => Ok(()),
        }
    }
}

impl FromRequestParts<Api> for Presence {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Presence, Problem> {
        Ok(parts.extensions.get().cloned().unwrap_or(Presence(None)))
    }
}

/// The query.
pub(super) struct Query(BTreeMap<String, String>);

impl FromRequestParts<Api> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Query, Problem> {
        Query::read(parts.uri.query().unwrap_or_default())
    }
}

impl Query {
    /// Parses a query.
    pub(super) fn read(text: &str) -> Result<Query, Problem> {
        let mut found = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            // The token was checked before.
            if key != "token" && found.insert(key.clone().into_owned(), value.into_owned()).is_some() {
                return Err(
                    Kind::BadRequest.because(format_args!("`{key:.64}` is in the query more than once"))
                );
            }
        }
        Ok(Query(found))
    }

    /// Checks that the query contains only known keys.
    pub(super) fn only(self, known: &[&str]) -> Result<Query, Problem> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(self),
            Some(key) if known.is_empty() => Err(Kind::BadRequest
                .because(format_args!("`{key:.64}` in the query means nothing here: leave it out"))),
            Some(key) => Err(Kind::BadRequest.because(format_args!(
                "`{key:.64}` in the query means nothing here: there is {}",
                known.join(", ")
            ))),
        }
    }

    /// Returns true if `key` or `key=true` is present.
    pub(super) fn flag(&self, key: &str) -> Result<bool, Problem> {
        match self.0.get(key).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(Kind::BadRequest.because(format_args!("`{key}` in the query is true or false"))),
        }
    }

    /// Returns the deadline of a wait.
    pub(super) fn deadline(&self) -> Result<Instant, Problem> {
        deadline(self.0.get("timeout").map(String::as_str))
    }

    /// Returns the name of the subscription.
    pub(super) fn subscription(&self) -> Result<String, Problem> {
        self.0.get("subscription").map_or_else(|| Ok(ALL_MESSAGES.to_owned()), |name| parse_name(name))
    }

    /// Returns the destination of a message.
    pub(super) fn destination(&self, api: &Api) -> Result<Option<SocketAddr>, Problem> {
        let Some(text) = self.0.get("to") else { return Ok(None) };
        let target =
            peersock_proxy::Target::parse(text).filter(|target| target.port != 0).ok_or_else(|| {
                Kind::BadRequest.because(format_args!(
                    "`{text:.100}` leads nowhere: write [IPV6]:PORT, IPV4:PORT or NAME:PORT"
                ))
            })?;
        Ok(addresses_of(&api.overlay, &target)?.first().copied())
    }
}

/// Returns the time `seconds` from now.
pub(super) fn deadline(seconds: Option<&str>) -> Result<Instant, Problem> {
    let seconds = seconds.map_or(Ok(DEFAULT_WAIT_SECONDS), str::parse);
    let wrong = || {
        Kind::BadRequest
            .because(format_args!("a timeout is a number of seconds from 0 to {MAX_WAIT_SECONDS}"))
    };
    let seconds: f64 =
        seconds.ok().filter(|seconds| (0.0..=MAX_WAIT_SECONDS).contains(seconds)).ok_or_else(wrong)?;
    Ok(Instant::now() + Duration::from_secs_f64(seconds))
}

/// Reads a body of bounded length.
pub(super) async fn whole(fields: &HeaderMap, mut body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        Kind::TooLarge.because(format_args!(
            "this body has {MAX_BODY_BYTES} bytes at most; the route `stream` takes as much as comes"
        ))
    };
    let announced = fields.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let mut all = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(BODY_TIMEOUT, body.frame()).await.map_err(|_| {
            let seconds = BODY_TIMEOUT.as_secs();
            Kind::TooSlow.because(format_args!("nothing of the body has come for {seconds} s"))
        })?;
        let Some(frame) = frame else { return Ok(all.freeze()) };
        let frame = frame.map_err(|error| broken_body(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        all.extend_from_slice(&data);
    }
}

pub(super) fn broken_body(error: &axum::Error) -> Problem {
    Kind::BadRequest.because(format_args!("the body has broken off: {error}"))
}

/// Reads a JSON body.
pub(super) async fn whole_json<T: DeserializeOwned>(fields: &HeaderMap, body: Body) -> Result<T, Problem> {
    // Require JSON, because a page of another site can send all other types without a preflight.
    let content = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = content.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(Kind::BadRequest.because("the body is JSON: say so with Content-Type: application/json"));
    }
    let whole = whole(fields, body).await?;
    serde_json::from_slice(&whole).map_err(|error| {
        Kind::BadRequest.because(format_args!("the body does not match its description: {error}"))
    })
}

/// A body with a message, which goes back into its queue unless the body was handed over.
struct Handover {
    data: Option<Bytes>,
    taken: Option<Taken>,
}

impl hyper::body::Body for Handover {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(taken) = self.taken.take() {
            taken.done();
        }
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// Makes an answer of a message, in the form that `body` gives it, if the client is still there.
pub(super) fn hand_over(
    presence: &Presence,
    content: &'static str,
    taken: Taken,
    body: impl FnOnce(&Bytes) -> Bytes,
) -> Result<Response<Body>, Problem> {
    // The message goes back into its queue if this fails.
    presence.check()?;
    let (number, from) = (taken.message().number, taken.message().from);
    let data = body(&taken.message().data);
    let body = match data.is_empty() {
        // Nothing is left to hand over.
        true => {
            taken.done();
            Body::empty()
        }
        false => Body::new(Handover { data: Some(data), taken: Some(taken) }),
    };
    let mut response = Response::new(body);
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    describe(fields, number, from);
    Ok(response)
}

/// Adds the message's number and sender to the fields.
pub(super) fn describe(fields: &mut HeaderMap, number: u64, from: SocketAddr) {
    fields.insert(HeaderName::from_static("peersock-message"), HeaderValue::from(number));
    if let Ok(from) = HeaderValue::try_from(from.to_string()) {
        fields.insert(HeaderName::from_static("peersock-from"), from);
    }
}
