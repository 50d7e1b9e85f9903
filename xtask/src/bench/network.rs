//! The link between the two sides: two network namespaces with a veth pair, or the loopback interface.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{self, Command, Stdio};

use clap::ValueEnum;

use crate::Result;
use crate::cleanup::{Guard, Undo};

/// Kind of link between the two sides.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Mode {
    /// Namespaces with packets of 1500 bytes, which cross one by one and are merged by the receiver: like two
    /// machines
    Wire,
    /// Namespaces with batches of 64 KB, which cross whole: like two containers on one machine
    Gso,
    /// Loopback interface; needs no privilege
    Loopback,
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Side {
    /// Runs the clients.
    A = 0,
    /// Runs the servers.
    B = 1,
}

/// The link's device in either namespace.
const DEVICE: &str = "veth0";
const NAME_PREFIX: &str = "peersock-bench-";
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 201, 0, 1), Ipv4Addr::new(10, 201, 0, 2)];
/// Offloads that make the pair behave like two machines: software segmentation on output, and merging on
/// input.
const WIRE_OFFLOADS: [(&str, bool); 7] = [
    ("tx-tcp-segmentation", false),
    ("tx-tcp6-segmentation", false),
    ("tx-tcp-ecn-segmentation", false),
    ("tx-tcp-mangleid-segmentation", false),
    ("tx-udp-segmentation", false),
    ("tx-generic-segmentation", false),
    ("rx-gro", true),
];
/// Settings for many new connections per second. Without them, ports in TIME-WAIT would exhaust the kernel
/// TCP.
const SETTINGS: [(&str, &str); 2] =
    [("net/ipv4/ip_local_port_range", "1024 65000"), ("net/ipv4/tcp_tw_reuse", "1")];

/// A link that exists until it is dropped.
pub(crate) struct Testbed {
    mode: Mode,
    /// Names of the namespaces, if there are any.
    namespaces: Option<[String; 2]>,
    _guards: Vec<Guard>,
}

impl Testbed {
    /// Returns the best mode that this process may set up, and the reason if it is not `wire`.
    pub(crate) fn default_mode() -> (Mode, Option<&'static str>) {
        if !rustix::process::geteuid().is_root() {
            (Mode::Loopback, Some("not root, so no network namespaces"))
        } else if !has_ip() {
            (
                Mode::Loopback,
                Some("the program ip is missing (apt-get install iproute2), so no network namespaces"),
            )
        } else {
            (Mode::Wire, None)
        }
    }

    /// Makes the link.
    /// Fails if namespaces are required and cannot be made. Partial state is removed.
    pub(crate) fn new(mode: Mode) -> Result<Testbed> {
        if mode == Mode::Loopback {
            return Ok(Testbed { mode, namespaces: None, _guards: Vec::new() });
        }
        remove_stale();
        let names = ["a", "b"].map(|side| format!("{NAME_PREFIX}{}-{side}", process::id()));
        let mut guards = Vec::new();
        for name in &names {
            run(ip(&["netns", "add", name]))?;
            guards.push(Guard::new(Undo::RemoveNamespace(name.clone())));
        }
        let [a, b] = &names;
        run(ip(&["link", "add", DEVICE, "netns", a, "type", "veth", "peer", "name", DEVICE, "netns", b]))?;
        for (name, address) in names.iter().zip(ADDRESSES) {
            run(ip(&["-n", name, "link", "set", "lo", "up"]))?;
            // All contenders use IPv4 below, so that their packets carry the same number of bytes.
            run(ip(&["-n", name, "link", "set", DEVICE, "mtu", "1500", "addrgenmode", "none"]))?;
            run(ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", DEVICE]))?;
            run(ip(&["-n", name, "link", "set", DEVICE, "up"]))?;
        }
        let network = Testbed { mode, namespaces: Some(names), _guards: guards };
        for side in [Side::A, Side::B] {
            for (key, value) in SETTINGS {
                let script = format!("echo {value} >/proc/sys/{key}");
                let mut shell = network.command(side, Path::new("sh"));
                shell.args(["-c", &script]);
                run(shell)?;
            }
            if mode == Mode::Wire {
                let mut xtask = network.command(side, &std::env::current_exe()?);
                xtask.args(["offloads", DEVICE]);
                for (feature, on) in WIRE_OFFLOADS {
                    xtask.arg(format!("{feature}={}", if on { "on" } else { "off" }));
                }
                run(xtask)?;
            }
        }
        Ok(network)
    }

    /// Returns the link's mode.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the address of a side.
    pub(crate) fn address(&self, side: Side) -> IpAddr {
        match self.namespaces {
            Some(_) => ADDRESSES[side as usize].into(),
            None => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Returns a command that runs a program on one side.
    pub(crate) fn command(&self, side: Side, program: &Path) -> Command {
        match &self.namespaces {
            Some(names) => {
                let mut command = ip(&["netns", "exec", &names[side as usize]]);
                command.arg(program);
                command
            }
            None => Command::new(program),
        }
    }
}

fn has_ip() -> bool {
    ip(&["-V"]).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn ip(arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(arguments);
    command
}

/// Runs a command, and returns its output as the error if it fails.
fn run(mut command: Command) -> Result<()> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}

/// Removes namespaces that a killed run has left behind. Namespaces of living runs stay.
fn remove_stale() {
    let Ok(output) = ip(&["netns", "list"]).output() else { return };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        if stale(name, |pid| Path::new("/proc").join(pid).exists())
            && run(ip(&["netns", "del", name])).is_ok()
        {
            println!("removed {name}, left by a run that was killed");
        }
    }
}

fn stale(name: &str, alive: impl Fn(&str) -> bool) -> bool {
    let pid = name.strip_prefix(NAME_PREFIX).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
    pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !alive(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_dead_runs_are_stale() {
        let alive = |pid: &str| pid == "7";
        assert!(stale("peersock-bench-8-a", alive));
        for other in ["peersock-bench-7-a", "peersock-bench-x-a", "peersock-bench-", "mine"] {
            assert!(!stale(other, alive), "{other}");
        }
    }
}
