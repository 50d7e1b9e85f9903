//! Methods that several kinds of connections have.

/// What all connections have. Each has its `core`.
macro_rules! connection_methods {
    ($name:ty) => {
        impl $name {
            /// The network, as it was dialed or listened in.
            pub fn network(&self) -> crate::Network {
                self.core().network()
            }

            /// Reads what is there, or waits for something: up to `n` bytes of a stream and 64 KiB, or one
            /// datagram, of which more than `n` bytes are cut off. Nothing at the end of a stream.
            ///
            /// # Errors
            /// [`Closed`](crate::SocketError::Closed) if it is closed, or gets closed meanwhile,
            /// [`Deadline`](crate::SocketError::Deadline), and what has ended the connection.
            pub async fn read(&self, n: usize) -> Result<Vec<u8>, crate::SocketError> {
                self.core().read(n).await
            }

            /// As [`read`](Self::read), into a buffer. Returns the number of bytes.
            ///
            /// # Errors
            /// Those of [`read`](Self::read).
            pub async fn read_into(&self, buffer: &mut [u8]) -> Result<usize, crate::SocketError> {
                Ok(self.core().read_into(buffer).await?.0)
            }

            /// Writes all of it to a stream, or as one datagram. Returns the number of bytes. What a future
            /// had written that is dropped stays written.
            ///
            /// # Errors
            /// Those of [`read`](Self::read); [`written`](crate::SocketError::written) says how many bytes
            /// went out.
            pub async fn write(&self, data: &[u8]) -> Result<usize, crate::SocketError> {
                self.core().write(data).await
            }

            /// Closes it. What waits in other tasks ends with [`Closed`](crate::SocketError::Closed). Does
            /// nothing the second time. Dropping it closes it as well.
            pub fn close(&self) {
                self.core().close();
            }

            /// Whether it was closed.
            pub fn is_closed(&self) -> bool {
                self.core().is_closed()
            }

            /// Closes the direction from the other end: reads, also those that wait, give nothing from now
            /// on.
            ///
            /// # Errors
            /// Those of [`shutdown`](Self::shutdown).
            pub fn close_read(&self) -> Result<(), crate::SocketError> {
                self.shutdown(std::net::Shutdown::Read)
            }

            /// Closes the direction to the other end, which comes to the end of the stream once it has read
            /// all.
            ///
            /// # Errors
            /// Those of [`shutdown`](Self::shutdown).
            pub fn close_write(&self) -> Result<(), crate::SocketError> {
                self.shutdown(std::net::Shutdown::Write)
            }

            /// Closes one direction, or both.
            ///
            /// # Errors
            /// [`Closed`](crate::SocketError::Closed); it is not connected (ENOTCONN).
            pub fn shutdown(&self, how: std::net::Shutdown) -> Result<(), crate::SocketError> {
                self.core().shutdown(how)
            }

            /// Sets until when reads and writes may wait; `None`, the default, for ever.
            ///
            /// From then on they fail with [`Deadline`](crate::SocketError::Deadline), those that wait as
            /// well as later ones, whether or not there is something to read. A new deadline counts at once,
            /// for those that wait, too.
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

            /// As [`set_deadline`](Self::set_deadline), for reads only.
            ///
            /// # Errors
            /// [`Closed`](crate::SocketError::Closed).
            pub fn set_read_deadline(
                &self,
                deadline: impl Into<Option<std::time::Instant>>,
            ) -> Result<(), crate::SocketError> {
                self.core().set_deadline(&[crate::wait::Direction::Read], deadline.into())
            }

            /// As [`set_deadline`](Self::set_deadline), for writes only.
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

/// What connections have that may be streams.
macro_rules! stream_methods {
    ($name:ty) => {
        impl $name {
            /// Reads a line, with its newline if it has one. Nothing at the end.
            ///
            /// # Errors
            /// The line is longer than `limit` bytes (EMSGSIZE): it can be read by [`read`](Self::read); and
            /// those of that.
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
