//! IP addresses with ports.

use std::fmt;
use std::net::{self, SocketAddr};
use std::str::FromStr;

use super::IpAddr;
use crate::host_port::numeric_port;
use crate::{AddressError, Network, join_host_port, split_host_port};

macro_rules! address_with_port {
    ($(#[$doc:meta])* $name:ident, $network:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
        pub struct $name {
            at: IpAddr,
            port: u16,
        }

        impl $name {
            /// Creates an address from an IP address and a port.
            pub fn new(at: impl Into<IpAddr>, port: u16) -> $name {
                $name { at: at.into(), port }
            }

            /// Creates an address without an IP: every local address to listeners, this machine to dialers.
            pub fn any(port: u16) -> $name {
                $name { at: IpAddr::default(), port }
            }

            /// Returns the IP address with its zone.
            pub fn ip_addr(&self) -> &IpAddr {
                &self.at
            }

            /// Returns the IP address without its zone; `None` if it is unspecified.
            pub fn ip(&self) -> Option<net::IpAddr> {
                self.at.ip()
            }

            /// Returns the port.
            pub fn port(&self) -> u16 {
                self.port
            }

            /// Returns the interface that an IPv6 address belongs to; see [`IpAddr::zone`].
            pub fn zone(&self) -> &str {
                self.at.zone()
            }

            /// Returns the index of the zone's interface; 0 without a zone.
            ///
            /// # Errors
            /// The zone names no existing interface.
            pub fn scope_id(&self) -> Result<u32, AddressError> {
                self.at.scope_id()
            }

            /// Returns the flow label of an IPv6 address.
            pub fn flowinfo(&self) -> u32 {
                self.at.flowinfo()
            }

            /// Returns true if the address is IPv6.
            pub fn is_ipv6(&self) -> bool {
                self.at.is_ipv6()
            }

            /// Returns the network of the address.
            pub fn network(&self) -> Network {
                $network
            }

            /// Returns the standard library's address, `[::]` if the IP address is unspecified. The flow
            /// label is in network byte order, because kernel sockets expect that.
            ///
            /// # Errors
            /// The zone names no existing interface.
            pub fn to_socket_addr(&self) -> Result<SocketAddr, AddressError> {
                self.at.to_socket_addr(self.port)
            }
        }

        impl From<SocketAddr> for $name {
            fn from(address: SocketAddr) -> $name {
                $name::new(address, address.port())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&join_host_port(&self.at.to_string(), self.port))
            }
        }

        impl FromStr for $name {
            type Err = AddressError;

            /// Parses a numeric address; the resolving functions accept names.
            fn from_str(text: &str) -> Result<$name, AddressError> {
                let (host, port) = split_host_port(text)?;
                let number = numeric_port(port)?.ok_or_else(|| AddressError::new("invalid port", port))?;
                Ok($name::new(host.parse::<IpAddr>()?, number))
            }
        }
    };
}

address_with_port! {
    /// The address of a TCP endpoint.
    ///
    /// ```
    /// use std::net::Ipv6Addr;
    ///
    /// use peersock_net::TcpAddr;
    ///
    /// let addr = TcpAddr::new(Ipv6Addr::LOCALHOST, 80);
    /// assert_eq!(addr.to_string(), "[::1]:80");
    /// assert_eq!("[::1]:80".parse(), Ok(addr));
    /// assert_eq!(TcpAddr::any(80).to_string(), ":80");
    /// ```
    TcpAddr, Network::Tcp
}

address_with_port! {
    /// The address of a UDP endpoint.
    ///
    /// ```
    /// use peersock_net::UdpAddr;
    ///
    /// let addr: UdpAddr = "[::ffff:10.0.0.1]:53".parse()?;
    /// assert_eq!(addr.to_string(), "10.0.0.1:53");
    /// assert!(!addr.is_ipv6());
    /// # Ok::<(), peersock_net::AddressError>(())
    /// ```
    UdpAddr, Network::Udp
}
