//! Other virtual networks, with an interface on both sides.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::tunnel::{Tunnel, wait_for};
use super::{Lab, file};
use crate::Result;
use crate::bench::network::Side;
use crate::process::Process;

/// Returns the two addresses in the tunnel network with this number.
fn addresses(number: u8) -> [Ipv4Addr; 2] {
    [1, 2].map(|host| Ipv4Addr::new(10, number, 0, host))
}

/// Waits until the other side answers, and returns the tunnel.
fn answering(lab: &Lab, carriers: Vec<Process>, host: Ipv4Addr) -> Result<Tunnel> {
    let host = IpAddr::from(host);
    wait_for(&lab.network, host)?;
    Ok(Tunnel::new(carriers, host))
}

/// Runs EasyTier on both sides, over UDP and encrypted (AES-128-GCM).
pub(super) fn easytier(lab: &Lab) -> Result<Tunnel> {
    let hosts = addresses(205);
    let mut carriers = Vec::new();
    for side in [Side::A, Side::B] {
        let mut command = lab.network.command(side, Path::new("easytier-core"));
        command.args(["--network-name", "rivals", "--network-secret", "rivals", "--disable-ipv6"]);
        command.args(["--multi-thread", "--rpc-portal", "0", "--default-protocol", "udp"]);
        command.args(["--dev-name", "easytier0", "--hostname", &format!("{side:?}")]);
        command.args(["--ipv4", &hosts[side as usize].to_string(), "-l", "udp://0.0.0.0:11010"]);
        if side == Side::A {
            command.args(["-p", &format!("udp://{}:11010", lab.network.address(Side::B))]);
        }
        carriers.push(Process::spawn(&format!("easytier-core, {side:?}"), command)?);
    }
    answering(lab, carriers, hosts[1])
}

/// Runs Nebula on both sides (AES-256-GCM).
pub(super) fn nebula(lab: &Lab) -> Result<Tunnel> {
    let hosts = addresses(203);
    let folder = lab.folder.path();
    let certify = |words: &[&str]| -> Result<()> {
        let mut command = Command::new("nebula-cert");
        let output = command.args(words).current_dir(folder).stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("nebula-cert: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    };
    certify(&["ca", "-name", "rivals"])?;
    let mut carriers = Vec::new();
    // The server's side is the lighthouse and is started last, because it must be the last carrier.
    for side in [Side::A, Side::B] {
        let name = format!("nebula-{side:?}");
        certify(&["sign", "-name", &name, "-ip", &format!("{}/24", hosts[side as usize])])?;
        let (is_lighthouse, lighthouses) = match side {
            Side::A => (false, format!("\"{}\"", hosts[1])),
            Side::B => (true, String::new()),
        };
        let path = folder.display();
        let config = format!(
            r#"pki: {{ca: {path}/ca.crt, cert: {path}/{name}.crt, key: {path}/{name}.key}}
static_host_map: {{"{host}": ["{outer}:4242"]}}
lighthouse: {{am_lighthouse: {is_lighthouse}, interval: 60, hosts: [{lighthouses}]}}
listen: {{host: 0.0.0.0, port: 4242, batch: 64, read_buffer: 10485760, write_buffer: 10485760}}
cipher: aes
tun: {{dev: nebula0, mtu: 1420}}
logging: {{level: error, format: text}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"#,
            host = hosts[1],
            outer = lab.network.address(Side::B),
        );
        let config = file(folder, &format!("{name}.yml"), &config)?;
        let mut command = lab.network.command(side, Path::new("nebula"));
        command.arg("-config").arg(config);
        carriers.push(Process::spawn(&name, command)?);
    }
    answering(lab, carriers, hosts[1])
}

/// Runs tinc on both sides, with its default cipher.
pub(super) fn tinc(lab: &Lab) -> Result<Tunnel> {
    let hosts = addresses(204);
    let folders = [Side::A, Side::B].map(|side| lab.folder.path().join(format!("tinc-{side:?}")));
    let names = ["a", "b"];
    for (side, folder) in [Side::A, Side::B].into_iter().zip(&folders) {
        let (own, host) = (names[side as usize], hosts[side as usize]);
        fs::create_dir_all(folder.join("hosts"))?;
        let connect = if side == Side::A { "ConnectTo = b\n" } else { "" };
        let text =
            format!("Name = {own}\nDeviceType = tun\nInterface = tinc0\nAddressFamily = ipv4\n{connect}");
        file(folder, "tinc.conf", &text)?;
        let text = format!("Address = {}\nSubnet = {host}/32\n", lab.network.address(side));
        file(&folder.join("hosts"), own, &text)?;
        let text =
            format!("#!/bin/sh\nip link set $INTERFACE up mtu 1400\nip addr add {host}/24 dev $INTERFACE\n");
        let up = file(folder, "tinc-up", &text)?;
        fs::set_permissions(up, fs::Permissions::from_mode(0o755))?;
        let mut command = Command::new("tincd");
        command.arg("-c").arg(folder).arg("-K2048").stdin(Stdio::null()).stdout(Stdio::null());
        if !command.stderr(Stdio::null()).status()?.success() {
            return Err("tincd makes no keys".into());
        }
    }
    for (own, other) in [(0, 1), (1, 0)] {
        let host = Path::new("hosts").join(names[own]);
        fs::copy(folders[own].join(&host), folders[other].join(&host))?;
    }
    let mut carriers = Vec::new();
    for (side, folder) in [Side::A, Side::B].into_iter().zip(&folders) {
        let mut command = lab.network.command(side, Path::new("tincd"));
        command.arg("-D").arg("-c").arg(folder).arg(format!("--pidfile={}", folder.join("pid").display()));
        carriers.push(Process::spawn(&format!("tincd, {side:?}"), command)?);
    }
    answering(lab, carriers, hosts[1])
}
