//! HTTP: CONNECT, and plain requests with a whole URI in their first line (RFC 9110, RFC 9112).
//!
//! The library parses, frames and bounds messages. Forwarded messages are written anew, so that nothing
//! ambiguous, which two servers might parse differently, passes through.

mod answer;
mod headers;
mod upstream;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, PROXY_AUTHORIZATION, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;

use self::answer::{Body, Problem};
use self::upstream::Upstream;
use crate::attempts::{Attempt, Attempts};
use crate::gate::Dialed;
use crate::owner::Owner;
use crate::proxy::{Client, Shared};
use crate::relay::relay;
use crate::serve::called;
use crate::slots::Standing;
use crate::stream::Link;
use crate::target::{Host, Target};

/// Timeout for an admitted client's request head, and for idle time between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Limits of a head: bytes kept, and number of fields.
pub(crate) const MAX_HEAD_BYTES: usize = 64 << 10;
pub(crate) const MAX_FIELDS: usize = 100;

/// The default port of a URI.
const HTTP_PORT: u16 = 80;

/// State shared by one client's requests.
struct Connection {
    shared: Arc<Shared>,
    /// Name of the client.
    client: String,
    /// The owner whose password attempts count together.
    owner: Option<Owner>,
    standing: Standing,
    upstream: Upstream,
}

/// Serves one client to its end.
pub(crate) async fn serve(client: Client, shared: Arc<Shared>) {
    let Client { link, peer, owner, standing, .. } = client;
    let stop = shared.stop.clone();
    let upstream = Upstream::new(stop.clone());
    let connection = Arc::new(Connection { shared, client: called(peer), owner, standing, upstream });
    let service = service_fn(move |request| {
        let connection = Arc::clone(&connection);
        async move {
            let answered = connection.answer(request).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(|problem| problem.answer()))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.max_headers(MAX_FIELDS).max_buf_size(MAX_HEAD_BYTES);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(link), service).with_upgrades());
    let served = tokio::select! {
        served = &mut serving => served,
        () = stop.draining() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                served = &mut serving => served,
                // Dropping resets the connection.
                () = stop.cut() => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a client of HTTP is served no more");
    }
}

impl Connection {
    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let admitted = match &self.shared.attempts {
            Some(attempts) => check_password(request.headers(), self.owner, attempts).await,
            None => Ok(()),
        };
        if admitted.is_ok() {
            self.standing.prove();
        }
        if request.method() == Method::CONNECT && admitted.is_ok() {
            return self.tunnel(request).await;
        }
        shut_down_after_upgrade(&mut request);
        admitted?;
        let target = plain_target(request.uri())?;
        if let Some(answer) = headers::answer_last_hop(&request) {
            return Ok(answer);
        }
        let request = headers::request_to_pass_on(request, &target)?;
        let dial = || self.shared.gate.dial(&target);
        match self.upstream.send(&target, request, dial).await {
            Ok(response) => Ok(headers::response_to_pass_on(&target, response)?.map(|body| body.boxed())),
            Err(upstream::Failed::Dial(error)) => {
                self.shared.tell_failed(self.client.clone(), &target, &error);
                Err(Problem::of_dial(&target, &error))
            }
            Err(upstream::Failed::Http(error)) => Err(Problem::bad_gateway(&target, &error)),
        }
    }

    /// Handles CONNECT: everything after the request is relayed unchanged.
    async fn tunnel(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let dialed = match self.dial_tunnel(request.uri()).await {
            Ok(dialed) => dialed,
            Err(problem) => {
                shut_down_after_upgrade(&mut request);
                return Err(problem);
            }
        };
        let stop = self.shared.stop.clone();
        tokio::spawn(async move {
            // The client may take its time, because only its own connection waits.
            let Ok(Some(link)) = stop.unless_cut(upgraded(hyper::upgrade::on(request))).await else {
                return dialed.link.reset();
            };
            relay(link, dialed.link, &stop).await;
        });
        Ok(Response::new(answer::empty()))
    }

    async fn dial_tunnel(&self, uri: &Uri) -> Result<Dialed, Problem> {
        let target = tunnel_target(uri)?;
        self.shared.gate.dial(&target).await.map_err(|error| {
            self.shared.tell_failed(self.client.clone(), &target, &error);
            Problem::of_dial(&target, &error)
        })
    }
}

/// Ends the client's connection in an orderly way, as after other requests. After CONNECT or the field
/// Upgrade, the library hands over a connection that it closes, whatever the answer was. If it were dropped,
/// it would be reset.
fn shut_down_after_upgrade(request: &mut Request<Incoming>) {
    if request.method() != Method::CONNECT && !request.headers().contains_key(UPGRADE) {
        return;
    }
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        if let Some(mut link) = upgraded(upgrade).await {
            let _ = link.shutdown().await;
        }
    });
}

/// Returns the client's connection after CONNECT, with the bytes that the library has read ahead.
async fn upgraded(upgrade: OnUpgrade) -> Option<Link> {
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Link>>().ok()?;
    let mut link = parts.io.into_inner();
    link.put_back(&parts.read_buf);
    Some(link)
}

/// Returns the target of CONNECT: only a host and a port (RFC 9110, 9.3.6).
fn tunnel_target(uri: &Uri) -> Result<Target, Problem> {
    let is_alone = uri.scheme().is_none() && uri.path_and_query().is_none();
    let target = uri.authority().filter(|_| is_alone).and_then(|at| Target::parse(at.as_str()));
    target.filter(|target| target.port != 0).ok_or(Problem::NoTunnelTarget)
}

/// Returns the target of a plain request. A request without a host in its first line is meant for a server,
/// not for a proxy. A web page in a browser can send only such requests.
fn plain_target(uri: &Uri) -> Result<Target, Problem> {
    match uri.scheme_str() {
        None => return Err(Problem::NotForProxy),
        Some("http") => {}
        Some(_) => return Err(Problem::Scheme),
    }
    let authority = uri.authority().ok_or(Problem::NotForProxy)?;
    if authority.as_str().contains('@') {
        return Err(Problem::Userinfo);
    }
    let host = Host::parse(authority.host()).ok_or(Problem::NoHost)?;
    let port = match authority.port() {
        Some(port) => port.as_str().parse().ok().filter(|port| *port != 0).ok_or(Problem::NoHost)?,
        // The port may be empty (RFC 3986, 3.2.3), but not malformed.
        None if authority.as_str().trim_end_matches(':') == authority.host() => HTTP_PORT,
        None => return Err(Problem::NoHost),
    };
    Ok(Target { host, port })
}

/// Checks the password (RFC 7617).
async fn check_password(
    headers: &HeaderMap,
    client: Option<Owner>,
    attempts: &Attempts,
) -> Result<(), Problem> {
    let Some(shown) = headers.get(PROXY_AUTHORIZATION) else { return Err(Problem::NoPassword) };
    // An unreadable password counts as a wrong one.
    let (user, password) = basic(shown.as_bytes()).unwrap_or_default();
    match attempts.check(client, &user, &password).await {
        Attempt::Right => Ok(()),
        Attempt::Wrong => Err(Problem::WrongPassword),
        Attempt::TooMany => Err(Problem::TooManyPasswords),
    }
}

/// Decodes the user and the password of a header field with the scheme Basic.
fn basic(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut user = BASE64.decode(rest.trim_ascii()).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon + 1);
    user.truncate(colon);
    Some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_a_proxy_name_a_host() {
        let plain = |text: &str| plain_target(&text.parse().unwrap()).map(|target| target.to_string());
        for (uri, target) in [
            ("http://alpha/x?y", "alpha:80"),
            ("http://alpha:8080", "alpha:8080"),
            ("HTTP://[fd00::1]:1/", "[fd00::1]:1"),
            ("http://[fd00::1]/", "[fd00::1]:80"),
            ("http://alpha:/", "alpha:80"),
        ] {
            assert_eq!(plain(uri).expect(uri), target);
        }
        for uri in ["/", "/x", "*", "alpha:80", "https://alpha/", "ftp://a/", "http://u:p@a/", "http://a:0/"]
        {
            assert!(plain(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn tunnels_lead_to_a_host_and_a_port() {
        let tunnel = |text: &str| tunnel_target(&text.parse().unwrap()).map(|target| target.to_string());
        for uri in ["alpha:443", "[fd00::1]:443", "192.0.2.1:1"] {
            assert_eq!(tunnel(uri).expect(uri), uri);
        }
        for uri in ["alpha", "http://alpha:1/", "/", "u@alpha:1", "alpha:0", "alpha:"] {
            assert!(tunnel(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn passwords_are_read_as_the_standard_has_them() {
        let pair =
            |user: &str, password: &str| Some((user.as_bytes().to_vec(), password.as_bytes().to_vec()));
        assert_eq!(basic(b"Basic YW5uYTpwOnc="), pair("anna", "p:w"));
        assert_eq!(basic(b"bAsIc  YW5uYTo= "), pair("anna", ""));
        for value in ["", "Basic", "Basic ", "Basic YW5uYQ==", "Basic YW5uYTpw!", "Bearer YW5uYTpwOnc="] {
            assert_eq!(basic(value.as_bytes()), None, "{value}");
        }
    }
}
