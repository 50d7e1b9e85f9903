//! Tunnels that carry kernel packets between the two sides, and the servers behind them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Rival, START_TIMEOUT, peersock};
use crate::Result;
use crate::bench::network::{Side, Testbed};
use crate::bench::processor_time;
use crate::process::Process;

/// Time within which a tunnel must end after the request to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A path between the two sides.
pub(super) struct Tunnel {
    /// Programs that carry packets. The memory figure is that of the last one: the server side's program,
    /// except for onetun, which runs only on the client's side.
    pub(super) carriers: Vec<Process>,
    /// Address of the server in the tunnel.
    pub(super) host: IpAddr,
    /// Port of the server; 0 picks any.
    pub(super) port: u16,
    /// Address of the server on the client's side, if it differs.
    pub(super) entrance: Option<String>,
}

impl Tunnel {
    /// Returns the bare link.
    pub(super) fn none(network: &Testbed) -> Tunnel {
        Tunnel::new(Vec::new(), network.address(Side::B))
    }

    /// Makes a tunnel of programs that carry packets to an address.
    pub(super) fn new(carriers: Vec<Process>, host: IpAddr) -> Tunnel {
        Tunnel { carriers, host, port: 0, entrance: None }
    }

    /// Asks the tunnel's programs to end, and waits for that.
    pub(super) fn close(self) {
        self.carriers.into_iter().for_each(|carrier| carrier.end(ENDS_WITHIN));
    }

    /// Returns the processor time that the tunnel's programs have used so far, in seconds.
    pub(super) fn processor_time(&self) -> Result<f64> {
        let mut ticks = 0;
        for carrier in &self.carriers {
            ticks += processor_time::of_process(carrier.id())?;
        }
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

/// Starts a rival's server behind a tunnel. Returns the server and its address.
pub(super) fn serve(rival: Rival, tunnel: &Tunnel, load: impl Fn() -> Command) -> Result<(Process, String)> {
    // The interface may get its address a moment later.
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let mut command = load();
        match rival {
            Rival::Peersock => command.args(["serve", peersock::SERVER]),
            Rival::PeersockFd => command.args(["serve", peersock::SERVER_OF_DESCRIPTORS]),
            _ => command.args(["serve", &SocketAddr::new(tunnel.host, tunnel.port).to_string()]),
        };
        let server = Process::spawn(&format!("the server, {rival}"), command)?;
        match server.line(START_TIMEOUT) {
            Ok((_, line)) => {
                let ready: Value = serde_json::from_str(&line)?;
                let address = ready["address"].as_str().ok_or("the server names no address")?;
                return Ok((server, address.to_owned()));
            }
            Err(e) if Instant::now() >= deadline => return Err(e),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Runs a command on one side until it succeeds, because an interface may come up a moment later.
pub(super) fn try_until(network: &Testbed, side: Side, words: &[&str]) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let mut command = network.command(side, Path::new(words[0]));
        let output = command.args(&words[1..]).stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {}", words.join(" "), said.trim()).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the other side answers a ping.
pub(super) fn wait_for(network: &Testbed, host: IpAddr) -> Result<()> {
    try_until(network, Side::A, &["ping", "-n", "-c1", "-W1", &host.to_string()])
}
