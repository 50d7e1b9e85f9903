//! The peersock rivals.

use super::tunnel::Tunnel;
use super::{Lab, START_TIMEOUT};
use crate::Result;
use crate::bench::network::Side;
use crate::process::Process;

/// Network of the libraries, and the addresses of their servers.
pub(super) const NETWORK: &str = "ff0501ffff000000";
pub(super) const SERVER: &str = "[::]:5001";
pub(super) const SERVER_OF_DESCRIPTORS: &str = "[::]:5002";
/// Network of the interfaces.
const UP_NETWORK: &str = "ff0401ffff000000";
const DEVICE: &str = "peersock0";
/// MTU of WireGuard.
const MTU: &str = "1420";

/// Runs `peersock up` on both sides.
pub(super) fn up(lab: &Lab) -> Result<Tunnel> {
    let mut carriers = Vec::new();
    let mut address = None;
    for side in [Side::A, Side::B] {
        let mut command = lab.network.command(side, &lab.peersock);
        command.args(["up", "-n", UP_NETWORK, "--name", DEVICE, "--mtu", MTU, "--state"]);
        command.arg(lab.folder.path().join(format!("state-{side:?}")));
        let carrier = Process::spawn(&format!("peersock up, {side:?}"), command)?;
        let (_, line) = carrier.line(START_TIMEOUT)?;
        address = Some(line.trim().parse()?);
        carriers.push(carrier);
    }
    Ok(Tunnel::new(carriers, address.ok_or("no side has an address")?))
}
