//! Replaces `websocket` in builds without the feature `tls`: these have no WebSockets.

use std::task::{Context, Poll};

use super::{Arrived, BoxedStream, Flushed, Source};
use crate::connection::Closed;
use crate::error::ConnectError;
use crate::target::Target;

pub(crate) enum WebSocket {}

impl WebSocket {
    /// Fails. In practice TLS, the layer below, has failed before.
    pub(crate) async fn connect(_: BoxedStream, target: &Target) -> Result<Self, ConnectError> {
        Err(ConnectError::NoTls(target.host.clone()))
    }

    pub(crate) fn poll_receive(
        &mut self,
        _: &mut Context<'_>,
        _: &mut dyn FnMut(Arrived),
    ) -> Poll<Result<(), Closed>> {
        match *self {}
    }

    pub(crate) fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        _: &mut Source<'_>,
        _: &mut u64,
    ) -> Poll<Result<Flushed, Closed>> {
        match *self {}
    }

    pub(crate) fn keepalive(&mut self) {
        match *self {}
    }

    pub(crate) fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        match *self {}
    }

    pub(crate) fn written(&self) -> u64 {
        match *self {}
    }
}
