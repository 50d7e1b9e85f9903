//! Addresses and options of TCP connections, for both kinds of streams.

/// Implements the methods for a stream whose field `shared.connection` is the
/// [`Connection`](super::Connection).
macro_rules! tcp_options {
    ($stream:ty) => {
        impl $stream {
            /// Returns the local address.
            /// Never fails at present.
            pub fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
                Ok(self.shared.connection.local_addr())
            }

            /// Returns the remote address.
            ///
            /// # Errors
            /// Returns `NotConnected` if the connection was never established.
            pub fn peer_addr(&self) -> std::io::Result<std::net::SocketAddr> {
                self.shared.connection.peer_addr()
            }

            /// Returns who is at the other end, as of when the connection was established. It stays when the
            /// connection and the session have ended. `None` if the connection was never established.
            pub fn peer(&self) -> Option<crate::PeerIdentity> {
                self.shared.connection.peer()
            }

            /// Sets TCP_NODELAY: true if small writes leave at once instead of waiting for an
            /// acknowledgement. Default: false.
            /// Never fails at present.
            pub fn set_nodelay(&self, nodelay: bool) -> std::io::Result<()> {
                self.shared.connection.set_nodelay(nodelay);
                Ok(())
            }

            /// Returns TCP_NODELAY, see [`set_nodelay`](Self::set_nodelay).
            /// Never fails at present.
            pub fn nodelay(&self) -> std::io::Result<bool> {
                Ok(self.shared.connection.nodelay())
            }

            /// Returns TCP_CONGESTION, the algorithm that controls the sending rate. Default:
            /// [`CongestionControl::Bbr`](crate::CongestionControl::Bbr).
            ///
            /// # Errors
            /// Returns `NotConnected` once the connection has ended.
            pub fn congestion_control(&self) -> std::io::Result<crate::CongestionControl> {
                self.shared.connection.congestion_control()
            }

            /// Sets TCP_CONGESTION, at any time. The new algorithm starts with the current congestion window.
            /// It affects only what this end sends.
            ///
            /// ```
            /// use peersock::{CongestionControl, TcpStream};
            ///
            /// # async fn example(stream: TcpStream) -> std::io::Result<()> {
            /// stream.set_congestion_control(CongestionControl::Cubic)?;
            /// assert_eq!(stream.congestion_control()?.name(), "cubic");
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            /// Returns `NotConnected` once the connection has ended.
            pub fn set_congestion_control(
                &self,
                congestion: crate::CongestionControl,
            ) -> std::io::Result<()> {
                self.shared.connection.set_congestion_control(congestion)
            }

            /// Returns TCP_INFO: round-trip time, congestion window, bytes delivered, and further current
            /// state of the connection and its path.
            ///
            /// ```
            /// # async fn example(stream: peersock::TcpStream) -> std::io::Result<()> {
            /// let info = stream.info()?;
            /// println!("{:?}, {} bytes delivered", info.rtt, info.delivered);
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            /// Returns `NotConnected` once the connection has ended.
            pub fn info(&self) -> std::io::Result<crate::TcpInfo> {
                self.shared.connection.info()
            }

            /// Sets SO_KEEPALIVE and TCP_KEEPIDLE: a silent peer is probed at this interval, at least 1 ms.
            /// The connection fails (`TimedOut`) after eight probes without an answer, or after
            /// [`set_user_timeout`](Self::set_user_timeout) if that is set. `None`, the default: an idle
            /// connection lasts for ever.
            ///
            /// # Errors
            /// Returns `InvalidInput` for an interval of zero.
            pub fn set_keepalive(&self, interval: Option<std::time::Duration>) -> std::io::Result<()> {
                self.shared.connection.set_keepalive(interval)
            }

            /// Sets TCP_USER_TIMEOUT (RFC 5482): the time that sent data may wait for an acknowledgement, and
            /// the peer be silent, before the connection fails with `TimedOut`. `None`, the default: 924 s,
            /// as Linux.
            ///
            /// # Errors
            /// Returns `InvalidInput` for a timeout of zero.
            pub fn set_user_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                self.shared.connection.set_user_timeout(timeout)
            }

            /// Sets SO_LINGER: the time that dropping the stream waits (blocking the thread) for delivery,
            /// after which it resets the connection. `None`, the default: dropping does not wait, and
            /// delivery continues in the background.
            /// Never fails at present.
            pub fn set_linger(&self, linger: Option<std::time::Duration>) -> std::io::Result<()> {
                self.shared.connection.set_linger(linger);
                Ok(())
            }

            /// Returns SO_LINGER, see [`set_linger`](Self::set_linger).
            /// Never fails at present.
            pub fn linger(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.shared.connection.linger())
            }

            /// Returns the number of written bytes that the peer has not acknowledged (SIOCOUTQ). After the
            /// connection has failed, these are lost.
            pub fn unacked(&self) -> u64 {
                self.shared.connection.unacked()
            }

            /// Takes the pending error (SO_ERROR).
            /// Never fails at present.
            pub fn take_error(&self) -> std::io::Result<Option<std::io::Error>> {
                Ok(self.shared.connection.take_error())
            }
        }
    };
}

pub(crate) use tcp_options;
