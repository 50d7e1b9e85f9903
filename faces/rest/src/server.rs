//! The server: its listeners, and the serving of each client.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, Request, Response};
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use peersock_proxy::serving::{Client, Listener, Reception, Slots, Standing, Stop, listen};
use peersock_proxy::{Activated, Host, ListenError, Overlay, Place, Stopper, Tell};

use crate::access::{Access, Admitted, Origin, Way, let_read};
use crate::api::{Api, Presence, router};
use crate::limits::{DEFAULT_CONNECTIONS_PER_MEMBER, HEAD_TIMEOUT, MAX_FIELDS, MAX_HEAD_BYTES};
use crate::problem::Kind;
use crate::token::Token;

/// Settings of the server.
///
/// ```
/// use peersock_rest::RestSettings;
///
/// let settings = RestSettings::default();
/// assert_eq!(settings.listen[0].to_string(), "127.0.0.1:12333");
/// assert!(settings.token.is_none(), "a program makes one, or does without");
/// ```
#[derive(Debug)]
pub struct RestSettings {
    /// The places to listen at: loopback addresses, Unix domain sockets, sockets passed at the program's
    /// start. Default: `127.0.0.1:12333`, as P2PD.
    pub listen: Vec<Place>,
    /// The token that clients need at loopback addresses, and at Unix domain sockets passed at the program's
    /// start. Default: none, so every program and user of the machine may use the node.
    pub token: Option<Token>,
    /// Origins of web pages that may use the server. Default: none.
    pub origins: Vec<Origin>,
    /// Timeout of connecting to a member. Default: 15 s.
    pub timeout: Duration,
    /// Limit of simultaneous connections. Default: 512.
    pub most: usize,
    /// Limit of the pipes that are connections which one member has opened, at all listeners; further ones
    /// are reset. Default: 64.
    pub most_of_member: usize,
}

impl Default for RestSettings {
    fn default() -> RestSettings {
        RestSettings {
            listen: vec![Place::System { host: Host::parse("127.0.0.1"), port: 12333 }],
            token: None,
            origins: Vec::new(),
            timeout: Duration::from_secs(15),
            most: 512,
            most_of_member: DEFAULT_CONNECTIONS_PER_MEMBER,
        }
    }
}

/// Error: the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestError {
    /// The system refuses the place.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Clients on other machines could connect.
    #[error("{0} can be reached from elsewhere, and this server is for programs of the same machine")]
    Exposed(String),
}

/// A listening server.
///
/// ```
/// use std::sync::Arc;
///
/// use peersock::{IdentitySource, Interfaces, Network, Node};
/// use peersock_proxy::Activated;
/// use peersock_rest::{Rest, RestSettings, Token};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
/// let token = Some(Token::generate()?);
/// let settings = RestSettings { listen: vec!["127.0.0.1:0".parse()?], token, ..RestSettings::default() };
/// let tell = Arc::new(|event| eprintln!("{event}"));
/// let rest = Rest::listen(&node, settings, &mut Activated::none(), tell).await?;
/// println!("http://{}", rest.places()[0]);
/// let stopper = rest.stopper();
/// let running = tokio::spawn(rest.run());
/// # tokio::task::spawn_blocking(move || stopper.stop(std::time::Duration::ZERO)).await?;
/// running.await??;
/// # Ok(())
/// # }
/// ```
pub struct Rest {
    listeners: Vec<Listener>,
    reception: Arc<Reception>,
    stopper: Stopper,
    access: Arc<Access>,
    api: Api,
    router: Router,
}

impl Rest {
    /// Listens. [`Rest::run`] serves the clients. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`RestError`]; then no listener stays open.
    pub async fn listen(
        node: impl Into<Overlay>,
        settings: RestSettings,
        activated: &mut Activated,
        tell: Tell,
    ) -> Result<Rest, RestError> {
        let (overlay, mut listeners) = (node.into(), Vec::new());
        for place in &settings.listen {
            if matches!(place, Place::Overlay { .. } | Place::System { host: None, .. }) {
                return Err(RestError::Exposed(place.to_string()));
            }
            let refused = |source| ListenError::Refused { place: place.to_string(), source };
            let found = listen(&overlay, place, activated).await.map_err(refused)?;
            if found.iter().any(Listener::is_exposed) {
                return Err(RestError::Exposed(place.to_string()));
            }
            listeners.extend(found);
        }
        let slots = Slots::with_reserve(settings.most);
        let (stopper, stop) = Stopper::new(slots.clone());
        let api = Api::new(&overlay, stop.clone(), settings.timeout, settings.most_of_member);
        let router = router(api.clone());
        let access = Arc::new(Access { token: settings.token, origins: settings.origins });
        let reception = Arc::new(Reception { overlay, slots, stop, tell, asks_for_proof: true });
        Ok(Rest { listeners, reception, stopper, access, api, router })
    }

    /// Returns the places at which clients connect.
    pub fn places(&self) -> Vec<Place> {
        self.listeners.iter().filter_map(Listener::place).collect()
    }

    /// Returns true if some clients need a token, if one is set.
    pub fn asks_for_token(&self) -> bool {
        self.listeners.iter().any(|listener| !listener.is_own_users())
    }

    /// Returns a handle that ends the server.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves clients until stopped. Pipes end with the server: the node delivers their sent data, and a pipe
    /// with an incomplete body is reset.
    ///
    /// # Errors
    /// `NetworkDown` if the node has ended.
    pub async fn run(self) -> io::Result<()> {
        let serve = |listener: Listener| {
            let (router, access) = (self.router.clone(), Arc::clone(&self.access));
            let (stop, is_own_users) = (self.reception.stop.clone(), listener.is_own_users());
            let serve = move |client: Client| {
                let way = match client.local {
                    Some(own) => Way::Loopback(own),
                    None if is_own_users => Way::OwnSocket,
                    None => Way::Socket,
                };
                serve(client, way, router.clone(), Arc::clone(&access), stop.clone())
            };
            (listener, serve)
        };
        self.reception.accept(self.listeners.into_iter().map(serve).collect()).await?;
        self.reception.stop.cut().await;
        self.api.listeners.close_all();
        self.api.pipes.close_all().await;
        Ok(())
    }
}

/// Serves one client to its end.
async fn serve(client: Client, way: Way, router: Router, access: Arc<Access>, stop: Stop) {
    let (presence, standing) = (Presence::of(&client.link), client.standing);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (router, access, standing) = (router.clone(), Arc::clone(&access), standing.clone());
        request.extensions_mut().insert(presence.clone());
        async move { Ok::<_, Infallible>(answer(request.map(Body::new), way, router, &access, &standing).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.max_headers(MAX_FIELDS).max_buf_size(MAX_HEAD_BYTES);
    let mut serving =
        std::pin::pin!(builder.serve_connection(TokioIo::new(client.link), service).with_upgrades());
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
        tracing::debug!(%error, "a client is served no more");
    }
}

/// Answers a request, if it is allowed.
async fn answer(
    request: Request<Body>,
    way: Way,
    router: Router,
    access: &Access,
    standing: &Standing,
) -> Response<Body> {
    let admitted = access.check(&request, way);
    if matches!(admitted, Ok(Admitted::Served(_))) {
        standing.prove();
    }
    let mut response = match admitted {
        Err(problem) => problem.into_response(),
        Ok(Admitted::Preflight(response)) => response,
        // Many GET requests take or send a message, which HEAD must not do.
        Ok(Admitted::Served(_)) if request.method() == Method::HEAD => {
            Kind::NoMethod.because("HEAD is not served: ask by GET").into_response()
        }
        Ok(Admitted::Served(origin)) => {
            let mut response = match TowerToHyperService::new(router).call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let_read(&mut response, origin);
            response
        }
    };
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
