//! The routes, and the state that their handlers share.

mod events;
mod extract;
mod listeners;
mod node;
mod p2pd;
mod pipes;
mod progress;
mod streams;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode, Uri};
use axum::response::IntoResponse as _;
use peersock_proxy::Overlay;
use peersock_proxy::serving::Stop;
use serde_json::Value;

use crate::pipe::{Listeners, Pipes};
use crate::problem::{Kind, Problem};
pub(crate) use extract::Presence;
pub(crate) use p2pd::subscription_in;
pub(crate) use websocket::messages_in;

/// The OpenAPI 3.1 description of the routes under `/v1`, and of P2PD's.
///
/// ```
/// assert!(peersock_rest::OPENAPI.contains("\"/v1/pipes/{name}/messages\""));
/// ```
pub const OPENAPI: &str = include_str!("../../openapi.json");

/// State shared by all handlers.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) overlay: Overlay,
    pub(crate) pipes: Pipes,
    pub(crate) listeners: Listeners,
    pub(crate) stop: Stop,
    /// Timeout of connecting.
    pub(crate) timeout: Duration,
}

impl std::ops::Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    pub(crate) fn new(overlay: &Overlay, stop: Stop, timeout: Duration, most_of_member: usize) -> Api {
        let (pipes, listeners) = (Pipes::new(most_of_member), Listeners::default());
        Api(Arc::new(Shared { overlay: overlay.clone(), pipes, listeners, stop, timeout }))
    }

    /// Waits for `work`, unless the server ends in the meantime.
    async fn unless_ending<T>(&self, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        tokio::select! {
            done = work => done,
            () = self.stop.draining() => Err(Kind::Down.because("the server ends: ask later")),
        }
    }
}

/// Makes the router, and the list of its routes.
macro_rules! routes {
    ($($method:ident $path:literal => $handler:path;)*) => {
        /// Methods and paths of the router.
        #[cfg(test)]
        const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        fn routes() -> Router<Api> {
            Router::new()$(.route($path, axum::routing::$method($handler)))*
        }
    };
}

routes! {
    get "/v1/version" => node::version;
    get "/v1/openapi.json" => node::openapi;
    get "/v1/node" => node::node;
    get "/v1/interfaces" => node::interfaces;
    get "/v1/networks" => node::networks;
    get "/v1/peers" => node::peers;
    get "/v1/status" => node::status;
    get "/v1/metrics" => node::metrics;
    get "/v1/events" => events::events;
    get "/v1/pipes" => pipes::list;
    post "/v1/pipes" => pipes::open;
    get "/v1/pipes/{name}" => pipes::info;
    delete "/v1/pipes/{name}" => pipes::close;
    get "/v1/pipes/{name}/messages" => pipes::receive;
    post "/v1/pipes/{name}/messages" => pipes::send;
    delete "/v1/pipes/{name}/messages/{number}" => pipes::remove;
    post "/v1/pipes/{name}/subscriptions" => pipes::subscribe;
    delete "/v1/pipes/{name}/subscriptions/{subscription}" => pipes::unsubscribe;
    get "/v1/pipes/{name}/stream" => streams::read;
    put "/v1/pipes/{name}/stream" => streams::write;
    delete "/v1/pipes/{name}/stream" => streams::finish;
    get "/v1/pipes/{name}/tunnel" => streams::tunnel;
    get "/v1/pipes/{name}/websocket" => websocket::open;
    get "/v1/listeners" => listeners::list;
    post "/v1/listeners" => listeners::open;
    delete "/v1/listeners/{name}" => listeners::close;
    get "/v1/listeners/{name}/next" => listeners::next;
    get "/version" => p2pd::version;
    get "/ifs" => p2pd::interfaces;
    get "/addr" => p2pd::address;
    get "/open/{name}/{address}" => p2pd::open;
    get "/info/{name}" => p2pd::info;
    get "/send/{name}/{*text}" => p2pd::send;
    get "/recv/{name}" => p2pd::receive;
    get "/recv/{name}/{*options}" => p2pd::receive_of;
    get "/close/{name}" => p2pd::close;
    post "/binary/{name}" => p2pd::send_binary;
    get "/binary/{name}" => p2pd::receive_binary;
    get "/binary/{name}/{*options}" => p2pd::receive_binary_of;
    get "/tunnel/{name}" => streams::tunnel;
    get "/sub/{name}/name/{subscription}/msg_p/{*pattern}" => p2pd::subscribe;
    delete "/sub/{name}/name/{subscription}" => p2pd::unsubscribe;
}

/// Makes the router of admitted requests.
pub(crate) fn router(api: Api) -> Router {
    let no_method = async || {
        Kind::NoMethod.because("this method is not for that path; GET /v1/openapi.json lists what there is")
    };
    routes().method_not_allowed_fallback(no_method).fallback(no_route).with_state(api)
}

async fn no_route(uri: Uri) -> Response<Body> {
    let path = uri.path();
    Kind::NoRoute
        .because(format_args!("there is nothing at `{path:.200}`; GET /v1/openapi.json lists what there is"))
        .into_response()
}

/// Returns flags for the fuzz targets: if the query is valid, and if the body opens a pipe, a subscription or
/// a listener.
pub(crate) fn understands(query: &str, body: &[u8]) -> [bool; 4] {
    let asked = extract::Query::read(query).and_then(|query| {
        query.deadline()?;
        query.subscription()?;
        query.flag("keep")?;
        query.only(&["keep", "subscription", "timeout", "to"])
    });
    let [pipe, messages] = pipes::understands(body);
    [asked.is_ok(), pipe, messages, listeners::understands(body)]
}

/// Makes an answer with JSON.
fn json(status: StatusCode, value: &Value) -> Response<Body> {
    text(status, "application/json", value.to_string())
}

fn text(status: StatusCode, content: &'static str, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

/// Makes an answer without a body.
fn nothing() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

#[cfg(test)]
mod tests;
