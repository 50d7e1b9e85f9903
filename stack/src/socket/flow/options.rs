//! Options that may change during the life of a connection.

use std::time::Duration;

use super::Flow;
use crate::tcp::Marking;
use crate::{Error, IpOptions, KeepAlive};

/// Minimum time between two keep-alives: the resolution of timers.
const MIN_KEEPALIVE: Duration = Duration::from_millis(1);

impl Flow {
    /// Returns the settings of its IP headers.
    pub fn ip_options(&self) -> IpOptions {
        self.lock().ip()
    }

    /// Changes the IP headers of further packets: IP_TTL, IPV6_UNICAST_HOPS, IP_TOS, IPV6_TCLASS.
    ///
    /// Of the traffic class only the differentiated services are used; the connection controls the two ECN
    /// bits, see [`TcpOptions::ecn`](crate::TcpOptions::ecn). The settings for multicast and fragmentation
    /// have no effect, because segments fit the path and are never fragmented.
    /// Errors: [`Error::InvalidInput`] for a hop limit of 0.
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

    /// Returns the keep-alive settings.
    pub fn keepalive(&self) -> KeepAlive {
        self.lock().keepalive()
    }

    /// Sets SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT. A plain interval converts as by
    /// [`KeepAlive::every`]. If the peer has already been silent for longer, the next
    /// [`egress`](Self::egress) sends a probe; that call also sets the timer.
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
        if cold.keepalive != keepalive {
            cold.keepalive = keepalive;
            // A peer that has been silent for long must get a probe before it counts as dead. Setting the
            // same again does not begin anew, because every option of a socket sets all of them.
            cold.watched = None;
        }
        inner.apply_probing();
    }

    /// Sets TCP_MAXSEG, see [`TcpOptions::max_segment_size`](crate::TcpOptions::max_segment_size). The size
    /// announced in the handshake stays.
    pub fn set_max_segment_size(&self, size: Option<u16>) {
        if let Some(connection) = self.lock().live() {
            connection.set_max_segment(size);
        }
    }

    /// Returns the payload of a full segment, bytes, as of the last packet: TCP_MAXSEG. `None` once the
    /// connection has ended.
    pub fn max_segment_size(&self) -> Option<usize> {
        self.lock().live().map(|connection| connection.mss() as usize)
    }

    /// Returns the largest IP packet that the path carries, bytes, as of the last packet: IP_MTU, IPV6_MTU.
    /// Before the first packet it is the minimum of every path, 576 (IPv4) or 1280 (IPv6). `None` once the
    /// connection has ended.
    pub fn path_mtu(&self) -> Option<usize> {
        self.lock().live().map(|connection| connection.path_mtu(self.local()) as usize)
    }
}

/// Returns settings with positive times and at least one probe.
pub(super) fn sane(keepalive: KeepAlive) -> KeepAlive {
    let KeepAlive { on, idle, interval, probes } = keepalive;
    let [idle, interval] = [idle, interval].map(|time| time.max(MIN_KEEPALIVE));
    KeepAlive { on, idle, interval, probes: probes.max(1) }
}
