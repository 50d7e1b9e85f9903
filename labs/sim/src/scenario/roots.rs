//! Roots of a scenario, each on a separate LAN, killed and cut off now and then.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peersock_overlay::{Identity, RootConfig};

use crate::net::{Gateway, LanId, Pipe, Prefixes, Stage};
use crate::world::{RootPlace, World};
use crate::{Random, Violation};

const PORT: u16 = 7420;

/// Recovery time of pairs whose new connections may need a root. A node detects a restarted root by a query
/// every 25 s, and retries an absent root every 30 s.
pub(super) const RECOVERY: Duration = Duration::from_secs(60);

/// A root and its place.
#[derive(Debug, Clone)]
pub(super) struct RootPlan {
    pub(super) place: RootPlace,
    pub(super) lan: LanId,
    pub(super) config: RootConfig,
}

impl RootPlan {
    /// Starts root `number` with an address of each selected family.
    pub(super) fn start(
        world: &mut World,
        random: &mut Random,
        number: u8,
        [has_v4, has_v6]: [bool; 2],
    ) -> Result<Self, Violation> {
        let v4 = has_v4.then_some([198, 52, number, 0]);
        let v6 = has_v6.then(|| [0x2001, 0xdb8, 1, number.into(), 0, 0, 0, 0]);
        let lan = world.net.add_lan(Prefixes { ipv4: v4.map(Into::into), ipv6: v6.map(Into::into) });
        let delay = random.duration(Duration::from_millis(1)..=Duration::from_millis(30));
        let pipe = || Pipe::new([Stage::Mtu(1500), Stage::Delay { base: delay, jitter: delay / 10 }]);
        world.net.set_gateway(lan, Some(Gateway { out: pipe(), into: pipe(), ..Gateway::default() }));
        let host = world.net.add_host();
        let v4 = v4.map(|[a, b, c, _]| [a, b, c, 1].into());
        let v6 = v6.map(|net: [u16; 8]| [net[0], net[1], net[2], net[3], 0, 0, 0, 1].into());
        world.attach(host, lan, (v4, v6), (Pipe::default(), Pipe::default()))?;
        let identity = Identity::from_seed(&random.bytes());
        let addresses = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
        let sockets = addresses.map(|address| SocketAddr::new(address, PORT)).collect();
        let config = RootConfig::new(*identity.public(), sockets);
        world.add_root((host, PORT), identity, Duration::from_secs(1_800_000_000));
        Ok(Self { place: (host, PORT), lan, config })
    }
}
