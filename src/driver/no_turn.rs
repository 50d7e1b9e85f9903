//! Replacement of `turn` in builds without that feature: there are no allocations. A named TURN server was
//! already refused earlier.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use peersock_datapath::Transmit;
use peersock_nat::turn::TurnServer;
use peersock_overlay::{SocketIndex, SocketInfo};

use super::Driver;
use crate::TurnStatus;
use crate::config::Feature;
use crate::interfaces::TurnCheck;

/// Empty set of allocations.
pub(crate) struct TurnSockets;

impl TurnSockets {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn start(self: &Arc<Self>, _: &Arc<Driver>, _: &[TurnServer]) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn on_change(&self, _: Box<dyn Fn() + Send + Sync>) {}

    pub(crate) fn interfaces_changed(&self) {}

    pub(super) fn was_suspended(&self) {}

    pub(super) fn stop(&self) {}

    pub(crate) fn statuses(&self) -> Vec<TurnStatus> {
        Vec::new()
    }

    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    pub(crate) fn is_settled(&self) -> bool {
        true
    }

    pub(super) fn infos(&self) -> Vec<SocketInfo> {
        Vec::new()
    }

    pub(super) fn max_segments(&self, _: SocketIndex) -> usize {
        1
    }

    pub(super) fn send(&self, _: &Transmit<'_>) {}
}

/// Reports the missing feature for each server.
pub(crate) fn check_turn(servers: &[TurnServer], _: &[String]) -> Vec<TurnCheck> {
    let check = |server: &TurnServer| TurnCheck {
        server: server.to_string(),
        proxy: None,
        reached: false,
        rtt_ms: None,
        relayed: None,
        error: Some(Feature::Turn.missing("a TURN server").to_string()),
        what_to_do: None,
    };
    servers.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_to_need_the_feature() {
        let server: TurnServer = "turn:alice:sesame@192.0.2.1".parse().expect("a server");
        let [check] = &check_turn(&[server], &[])[..] else { panic!("one server") };
        let error = check.error.as_deref().expect("it was not asked");
        assert!(error.contains("feature `turn`") && !check.reached, "{error}");
    }
}
