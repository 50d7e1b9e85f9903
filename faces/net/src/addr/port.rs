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
            /// An address of an IP address and a port.
            pub fn new(at: impl Into<IpAddr>, port: u16) -> $name {
                $name { at: at.into(), port }
            }

            /// A port at no IP address in particular: to listeners every own address, and to those who dial
            /// this machine.
            pub fn any(port: u16) -> $name {
                $name { at: IpAddr::default(), port }
            }

            /// The IP address with its zone.
            pub fn ip_addr(&self) -> &IpAddr {
                &self.at
            }

            /// The IP address, without its zone; `None` for none in particular.
            pub fn ip(&self) -> Option<net::IpAddr> {
                self.at.ip()
            }

            /// The port.
            pub fn port(&self) -> u16 {
                self.port
            }

            /// The interface that an IPv6 address belongs to; see [`IpAddr::zone`].
            pub fn zone(&self) -> &str {
                self.at.zone()
            }

            /// The index of the zone's interface; 0 without one.
            ///
            /// # Errors
            /// There is no such interface.
            pub fn scope_id(&self) -> Result<u32, AddressError> {
                self.at.scope_id()
            }

            /// The flow label of an IPv6 address.
            pub fn flowinfo(&self) -> u32 {
                self.at.flowinfo()
            }

            /// Whether it is an IPv6 address.
            pub fn is_ipv6(&self) -> bool {
                self.at.is_ipv6()
            }

            /// The network of the address.
            pub fn network(&self) -> Network {
                $network
            }

            /// The address as the standard library has it: `[::]` for no IP address in particular. The flow
            /// label is in the byte order of the network, as the system's sockets want it.
            ///
            /// # Errors
            /// There is no interface of the zone's name.
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

            /// Reads an address that is all numbers; names are for the functions that resolve.
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
