//! Halves of a [`TcpStream`].

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{Shared, TcpStream};

/// Reading half of a borrowed [`TcpStream`], see [`TcpStream::split`].
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a TcpStream);

/// Writing half of a borrowed [`TcpStream`], see [`TcpStream::split`].
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a TcpStream);

/// Owned reading half of a [`TcpStream`], see [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    stream: TcpStream,
}

/// Owned writing half of a [`TcpStream`], see [`TcpStream::into_split`]. Dropping it ends sending.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: TcpStream,
    ends: bool,
}

/// Error for two halves that do not belong to one stream.
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves belong to different streams")
    }
}

impl std::error::Error for ReuniteError {}

pub(super) fn borrowed(stream: &mut TcpStream) -> (ReadHalf<'_>, WriteHalf<'_>) {
    (ReadHalf(stream), WriteHalf(stream))
}

pub(super) fn owned(stream: TcpStream) -> (OwnedReadHalf, OwnedWriteHalf) {
    let other = TcpStream { shared: Arc::clone(&stream.shared) };
    (OwnedReadHalf { stream: other }, OwnedWriteHalf { stream, ends: true })
}

impl OwnedReadHalf {
    /// Joins the halves of one stream again.
    ///
    /// # Errors
    /// Returns both halves if they belong to different streams.
    pub fn reunite(self, other: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        if !Arc::ptr_eq(&self.stream.shared, &other.stream.shared) {
            return Err(ReuniteError(self, other));
        }
        // Dropping it must not end sending.
        other.forget();
        Ok(self.stream)
    }
}

impl AsRef<TcpStream> for OwnedReadHalf {
    fn as_ref(&self) -> &TcpStream {
        &self.stream
    }
}

impl OwnedWriteHalf {
    /// Drops the half without ending sending.
    pub fn forget(mut self) {
        self.ends = false;
    }
}

impl AsRef<TcpStream> for OwnedWriteHalf {
    fn as_ref(&self) -> &TcpStream {
        &self.stream
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.ends {
            // The connection may be gone already, which is no error of a drop.
            let _ = self.stream.shared.shutdown_write();
        }
    }
}

macro_rules! reads {
    ($type:ty, $shared:expr) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let shared: fn(&Self) -> &Shared = $shared;
                shared(&self).poll_read(cx, buf)
            }
        }
    };
}

macro_rules! writes {
    ($type:ty, $shared:expr) => {
        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                data: &[u8],
            ) -> Poll<io::Result<usize>> {
                let shared: fn(&Self) -> &Shared = $shared;
                shared(&self).poll_write(cx, data)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffers: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let shared: fn(&Self) -> &Shared = $shared;
                shared(&self).poll_write_vectored(cx, buffers)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                let shared: fn(&Self) -> &Shared = $shared;
                Poll::Ready(shared(&self).shutdown_write())
            }
        }
    };
}

reads!(ReadHalf<'_>, |half| &half.0.shared);
reads!(OwnedReadHalf, |half| &half.stream.shared);
writes!(WriteHalf<'_>, |half| &half.0.shared);
writes!(OwnedWriteHalf, |half| &half.stream.shared);
