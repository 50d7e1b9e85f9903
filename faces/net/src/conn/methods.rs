//! Methods that several kinds of connections share.

/// Implements the methods that all connections have, on top of `core`.
macro_rules! connection_methods {
    ($name:ty) => {
        impl $name {
            /// Returns the network the connection was dialed or accepted on.
            pub fn network(&self) -> crate::Network {
                self.core().network()
            }

            /// Reads available data, or waits for some: up to `n` bytes (at most 64 KiB) of a stream, or one
            /// datagram, truncated to `n` bytes. Returns nothing at the end of a stream.
            ///
            /// # Errors
            /// [`Closed`](crate::SocketError::Closed) if the connection is closed before or during the call,
            /// [`Deadline`](crate::SocketError::Deadline), and the error that ended the connection.
            pub async fn read(&self, n: usize) -> Result<Vec<u8>, crate::SocketError> {
                self.core().read(n).await
            }

            /// Reads into a buffer, as [`read`](Self::read) does. Returns the number of bytes.
            /// Errors: see [`read`](Self::read).
            pub async fn read_into(&self, buffer: &mut [u8]) -> Result<usize, crate::SocketError> {
                Ok(self.core().read_into(buffer).await?.0)
            }

            /// Writes all data to a stream, or sends it as one datagram. Returns the number of bytes. Bytes
            /// that a dropped future has already written stay written.
            ///
            /// # Errors
            /// See [`read`](Self::read); [`written`](crate::SocketError::written) returns how many bytes were
            /// sent.
            pub async fn write(&self, data: &[u8]) -> Result<usize, crate::SocketError> {
                self.core().write(data).await
            }

            /// Closes the connection, as dropping it does. Pending calls in other tasks fail with
            /// [`Closed`](crate::SocketError::Closed). A second call does nothing.
            pub fn close(&self) {
                self.core().close();
            }

            /// Returns true if the connection was closed.
            pub fn is_closed(&self) -> bool {
                self.core().is_closed()
            }

            /// Closes the receiving direction: reads, pending ones too, return nothing from now on.
            /// Errors: see [`shutdown`](Self::shutdown).
            pub fn close_read(&self) -> Result<(), crate::SocketError> {
                self.shutdown(std::net::Shutdown::Read)
            }

            /// Closes the sending direction: the peer reaches the stream's end after reading all data.
            /// Errors: see [`shutdown`](Self::shutdown).
            pub fn close_write(&self) -> Result<(), crate::SocketError> {
                self.shutdown(std::net::Shutdown::Write)
            }

            /// Closes one direction, or both.
            ///
            /// # Errors
            /// [`Closed`](crate::SocketError::Closed), or ENOTCONN if the socket is not connected.
            pub fn shutdown(&self, how: std::net::Shutdown) -> Result<(), crate::SocketError> {
                self.core().shutdown(how)
            }

            /// Sets the deadline of reads and writes; `None`, the default, disables it.
            ///
            /// After the deadline, pending and later calls fail with
            /// [`Deadline`](crate::SocketError::Deadline), even if data is available. A new deadline takes
            /// effect at once, for pending calls too.
            ///
            /// # Errors
            /// [`Closed`](crate::SocketError::Closed).
            pub fn set_deadline(
                &self,
                deadline: impl Into<Option<std::time::Instant>>,
            ) -> Result<(), crate::SocketError> {
                use crate::wait::Direction;
                self.core().set_deadline(&[Direction::Read, Direction::Write], deadline.into())
            }

            /// Sets the deadline of reads only; see [`set_deadline`](Self::set_deadline).
            ///
            /// # Errors
            /// [`Closed`](crate::SocketError::Closed).
            pub fn set_read_deadline(
                &self,
                deadline: impl Into<Option<std::time::Instant>>,
            ) -> Result<(), crate::SocketError> {
                self.core().set_deadline(&[crate::wait::Direction::Read], deadline.into())
            }

            /// Sets the deadline of writes only; see [`set_deadline`](Self::set_deadline).
            ///
            /// # Errors
            /// [`Closed`](crate::SocketError::Closed).
            pub fn set_write_deadline(
                &self,
                deadline: impl Into<Option<std::time::Instant>>,
            ) -> Result<(), crate::SocketError> {
                self.core().set_deadline(&[crate::wait::Direction::Write], deadline.into())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("network", &self.network())
                    .field("is_closed", &self.is_closed())
                    .finish_non_exhaustive()
            }
        }
    };
}

/// Implements the methods of connections that may be streams.
macro_rules! stream_methods {
    ($name:ty) => {
        impl $name {
            /// Reads a line, with its newline if it has one. Returns nothing at the end of the stream.
            ///
            /// # Errors
            /// EMSGSIZE if the line is longer than `limit` bytes; [`read`](Self::read) can still read it.
            /// Otherwise as [`read`](Self::read).
            pub async fn read_line(&self, limit: usize) -> Result<Vec<u8>, crate::SocketError> {
                self.core().read_line(limit).await
            }
        }

        stream_methods!(@io $name);
        stream_methods!(@io &$name);
    };
    (@io $name:ty) => {
        impl tokio::io::AsyncRead for $name {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                self.core().poll_read(cx, buf)
            }
        }

        impl tokio::io::AsyncWrite for $name {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                data: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                self.core().poll_write(cx, data)
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                self.core().poll_shutdown()
            }
        }
    };
}

pub(super) use {connection_methods, stream_methods};
