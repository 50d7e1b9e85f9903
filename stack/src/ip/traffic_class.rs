//! Traffic class: the byte that requests a packet's treatment by routers.

/// Type of service of IPv4 and traffic class of IPv6: six bits of differentiated services (RFC 2474), two of
/// explicit congestion notification (RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TrafficClass(
    /// Byte as in the header, 0 by default: no special treatment.
    pub u8,
);

/// Codepoints of explicit congestion notification (RFC 3168 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ecn {
    /// Not-ECT: congestion drops the packet.
    #[default]
    NotCapable = 0,
    /// ECT(1), for low latency (RFC 9331).
    Capable1 = 1,
    /// ECT(0): congestion may mark the packet.
    Capable0 = 2,
    /// CE: the packet has met congestion.
    Congested = 3,
}

impl TrafficClass {
    /// Combines a differentiated services codepoint (its lower six bits) and an ECN codepoint.
    pub fn new(dscp: u8, ecn: Ecn) -> Self {
        Self(dscp << 2 | ecn as u8)
    }

    /// Returns the differentiated services codepoint, 0 to 63.
    pub fn dscp(self) -> u8 {
        self.0 >> 2
    }

    /// Returns the ECN codepoint.
    pub fn ecn(self) -> Ecn {
        match self.0 & 3 {
            0 => Ecn::NotCapable,
            1 => Ecn::Capable1,
            2 => Ecn::Capable0,
            _ => Ecn::Congested,
        }
    }

    /// Returns the same class with another ECN codepoint.
    #[must_use]
    pub fn with_ecn(self, ecn: Ecn) -> Self {
        Self::new(self.dscp(), ecn)
    }
}
