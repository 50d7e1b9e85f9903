//! Options of a connection that may change while it stands.

use std::time::Duration;

use super::Flow;
use crate::tcp::Marking;
use crate::{Error, IpOptions, KeepAlive};

/// The shortest time between two keep-alives: what timers can tell apart.
const LEAST_KEEPALIVE: Duration = Duration::from_millis(1);

impl Flow {
    /// What its packets' IP headers say.
    pub fn ip_options(&self) -> IpOptions {
        self.lock().ip()
    }

    /// Changes what its packets' IP headers say, from the next one on: IP_TTL, IPV6_UNICAST_HOPS, IP_TOS,
    /// IPV6_TCLASS.
    ///
    /// Of the traffic class only the differentiated services count; the two bits of ECN are the connection's,
    /// see [`TcpOptions::ecn`](crate::TcpOptions::ecn). The settings of multicasts and fragments mean nothing
    /// here: segments fit the path and are never cut.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # use peersock_stack::*;
    /// # let now = Instant::now();
    /// # let stack = Stack::new(Config::default(), [7; 32], now);
    /// # let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
    /// let flow = stack.tcp_connect(now, net, None, "10.0.0.2:80".parse()?, TcpOptions::default())?;
    /// let expedited = TrafficClass::new(46, Ecn::NotCapable);
    /// flow.set_ip_options(IpOptions { traffic_class: expedited, ..flow.ip_options() })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a hop limit of 0.
    pub fn set_ip_options(&self, options: IpOptions) -> Result<(), Error> {
        if options.hop_limit == 0 {
            return Err(Error::InvalidInput);
        }
        let mut inner = self.lock();
        inner.cold().ip = options;
        if let Some(connection) = inner.live() {
            connection.set_marking(Marking::from(&options));
        }
        Ok(())
    }

    /// How a silent peer is dealt with.
    pub fn keepalive(&self) -> KeepAlive {
        self.lock().keepalive()
    }

    /// Sets SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT. An interval stands for
    /// [`KeepAlive::every`]. If the peer has been silent for longer already, the next
    /// [`egress`](Self::egress) probes it; that also sets the timer.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use peersock_stack::*;
    /// # let now = Instant::now();
    /// # let stack = Stack::new(Config::default(), [7; 32], now);
    /// # let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
    /// let flow = stack.tcp_connect(now, net, None, "10.0.0.2:80".parse()?, TcpOptions::default())?;
    /// flow.set_keepalive(KeepAlive { on: true, ..flow.keepalive() });
    /// flow.set_keepalive(KeepAlive { idle: Duration::from_secs(600), ..flow.keepalive() });
    /// assert_eq!(flow.keepalive().probes, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_keepalive(&self, keepalive: impl Into<KeepAlive>) {
        let keepalive = sane(keepalive.into());
        let mut inner = self.lock();
        let cold = inner.cold();
        cold.keepalive = keepalive;
        // A peer that was silent for long has not known that it would be asked.
        cold.watched = None;
        inner.apply_probing();
    }

    /// Sets TCP_MAXSEG, see [`TcpOptions::max_segment_size`](crate::TcpOptions::max_segment_size). What the
    /// peer was told in the handshake stays.
    pub fn set_max_segment_size(&self, size: Option<u16>) {
        if let Some(connection) = self.lock().live() {
            connection.set_max_segment(size);
        }
    }

    /// Payload of a full segment, bytes, as of the last packet: TCP_MAXSEG. `None` once the connection has
    /// ended.
    pub fn max_segment_size(&self) -> Option<usize> {
        self.lock().live().map(|connection| connection.mss() as usize)
    }

    /// The largest IP packet that the path takes, bytes, as of the last packet: IP_MTU, IPV6_MTU. Before the
    /// first it is what every path takes, 576 (IPv4) or 1280 (IPv6). `None` once the connection has ended.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # use peersock_stack::*;
    /// # let now = Instant::now();
    /// # let stack = Stack::new(Config::default(), [7; 32], now);
    /// # let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
    /// let flow = stack.tcp_connect(now, net, None, "10.0.0.2:80".parse()?, TcpOptions::default())?;
    /// assert_eq!((flow.path_mtu(), flow.max_segment_size()), (Some(576), Some(536)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn path_mtu(&self) -> Option<usize> {
        self.lock().live().map(|connection| connection.path_mtu(self.local()) as usize)
    }
}

/// Settings that let time pass between two probes.
pub(super) fn sane(keepalive: KeepAlive) -> KeepAlive {
    let KeepAlive { on, idle, interval, probes } = keepalive;
    let [idle, interval] = [idle, interval].map(|time| time.max(LEAST_KEEPALIVE));
    KeepAlive { on, idle, interval, probes: probes.max(1) }
}
