//! Connections to servers: consecutive requests of one client to one server share a connection while it
//! lasts.

use std::sync::Mutex;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::answer::Body;
use super::{MAX_FIELDS, MAX_HEAD_BYTES};
use crate::error::DialError;
use crate::gate::Dialed;
use crate::stop::Stop;
use crate::target::Target;

/// The connection that one client's last request has used.
pub(super) struct Upstream {
    last: Mutex<Option<(Target, SendRequest<Body>)>>,
    stop: Stop,
}

/// Reasons for having no response.
pub(super) enum Failed {
    /// The connection failed.
    Dial(DialError),
    /// The connection broke HTTP, or has ended.
    Http(hyper::Error),
}

impl Upstream {
    pub(super) fn new(stop: Stop) -> Upstream {
        Upstream { last: Mutex::default(), stop }
    }

    /// Sends a request to a server and waits for the head of the response.
    pub(super) async fn send<D>(
        &self,
        target: &Target,
        request: Request<Body>,
        dial: impl FnOnce() -> D,
    ) -> Result<Response<Incoming>, Failed>
    where
        D: Future<Output = Result<Dialed, DialError>>,
    {
        let mut request = request;
        if let Some(mut sender) = self.take(target) {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(target, sender);
                    return Ok(response);
                }
                // The server has closed the connection in the meantime, before any of the request has left.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failed::Http(error.into_error())),
                },
            }
        }
        let dialed = dial().await.map_err(Failed::Dial)?;
        let mut builder = http1::Builder::new();
        builder.max_headers(MAX_FIELDS).max_buf_size(MAX_HEAD_BYTES);
        let made = builder.handshake(TokioIo::new(dialed.link)).await;
        let (mut sender, connection) = made.map_err(Failed::Http)?;
        let stop = self.stop.clone();
        tokio::spawn(async move {
            if let Ok(Err(error)) = stop.unless_cut(connection).await {
                tracing::debug!(%error, "a connection to a server has broken");
            }
        });
        let response = sender.send_request(request).await.map_err(Failed::Http)?;
        self.keep(target, sender);
        Ok(response)
    }

    /// Takes the previous connection, if it leads to the target and is idle.
    fn take(&self, target: &Target) -> Option<SendRequest<Body>> {
        let last = self.last.lock().expect("no panic under this lock").take();
        last.filter(|(to, sender)| to == target && sender.is_ready()).map(|(_, sender)| sender)
    }

    fn keep(&self, target: &Target, sender: SendRequest<Body>) {
        *self.last.lock().expect("no panic under this lock") = Some((target.clone(), sender));
    }
}
