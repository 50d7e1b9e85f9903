//! WireGuard in separate programs. All have WireGuard's usual MTU. Their addresses are IPv6 like in an ad-hoc
//! network, so that headers have the same size.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tunnel::{Tunnel, try_until, wait_for};
use super::{Lab, file};
use crate::Result;
use crate::bench::network::Side;
use crate::process::Process;

const MTU: &str = "1420";
/// Port of the server behind onetun, and the address on which onetun listens.
const ONETUN_SERVER_PORT: u16 = 5003;
const ONETUN_ENTRANCE: &str = "127.0.0.1:7001";
/// IPv4 addresses of onetun.
const ONETUN_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 206, 0, 1), Ipv4Addr::new(10, 206, 0, 2)];
/// Memory limit of onetun, which accepts uploads faster than it sends them.
const ONETUN_MEMORY: &str = "--as=3000000000";

/// One program's tunnel.
struct Implementation {
    /// Words of the command, before the interface's name.
    words: &'static [&'static str],
    /// Prefix of the interfaces' names.
    prefix: &'static str,
    /// Last part of the network's prefix, and of the port.
    number: u16,
}

/// Runs wireguard-go on both sides.
pub(super) fn go(lab: &Lab) -> Result<Tunnel> {
    both(lab, &Implementation { words: &["wireguard-go", "-f"], prefix: "wg", number: 1 })
}

/// Runs boringtun on both sides, with as many threads as the usual machine has processors.
pub(super) fn boringtun(lab: &Lab) -> Result<Tunnel> {
    let words = &["boringtun-cli", "-f", "--disable-drop-privileges", "-t", "2"];
    both(lab, &Implementation { words, prefix: "bt", number: 2 })
}

/// Runs gotatun on both sides.
pub(super) fn gotatun(lab: &Lab) -> Result<Tunnel> {
    let words = &["gotatun", "-f", "--disable-drop-privileges"];
    both(lab, &Implementation { words, prefix: "gt", number: 3 })
}

/// Runs onetun on the client's side, and wireguard-go on the server's, because onetun only connects out.
pub(super) fn onetun(lab: &Lab) -> Result<Tunnel> {
    let implementation = Implementation { words: &["wireguard-go", "-f"], prefix: "ot", number: 4 };
    let keys = [key(lab, "ot", Side::A)?, key(lab, "ot", Side::B)?];
    let [own, other] = ONETUN_ADDRESSES.map(IpAddr::from);
    let server = implementation.start(lab, Side::B, &keys, [other, own])?;
    let mut command = lab.network.command(Side::A, Path::new("prlimit"));
    command.args([ONETUN_MEMORY, "onetun", &format!("{ONETUN_ENTRANCE}:{other}:{ONETUN_SERVER_PORT}")]);
    command.args(["--endpoint-addr", &format!("{}:{}", lab.network.address(Side::B), implementation.port())]);
    command.args(["--endpoint-public-key", &keys[1].public, "--source-peer-ip", &own.to_string()]);
    command.arg("--private-key").arg(fs::read_to_string(&keys[0].file)?.trim());
    command.args(["--max-transmission-unit", MTU, "--log", "error"]);
    let client = Process::spawn("onetun", command)?;
    Ok(Tunnel {
        carriers: vec![server, client],
        host: other,
        port: ONETUN_SERVER_PORT,
        entrance: Some(ONETUN_ENTRANCE.to_owned()),
    })
}

fn both(lab: &Lab, implementation: &Implementation) -> Result<Tunnel> {
    let (prefix, number) = (implementation.prefix, implementation.number);
    let keys = [key(lab, prefix, Side::A)?, key(lab, prefix, Side::B)?];
    let [a, b] = [1, 2].map(|host| IpAddr::from(Ipv6Addr::new(0xfd10, 0, 0, number, 0, 0, 0, host)));
    let client = implementation.start(lab, Side::A, &keys, [a, b])?;
    let server = implementation.start(lab, Side::B, &keys, [b, a])?;
    wait_for(&lab.network, b)?;
    Ok(Tunnel::new(vec![client, server], b))
}

impl Implementation {
    fn port(&self) -> String {
        (51820 + self.number).to_string()
    }

    /// Runs the program on one side, with the addresses of that side and of the other.
    fn start(&self, lab: &Lab, side: Side, keys: &[Key; 2], addresses: [IpAddr; 2]) -> Result<Process> {
        let other = if side == Side::A { Side::B } else { Side::A };
        // The control sockets of all namespaces lie in one folder, so names must differ.
        let device = format!("{}-{}-{side:?}", self.prefix, std::process::id() % 100_000);
        let mut command = lab.network.command(side, Path::new(self.words[0]));
        command.args(&self.words[1..]).arg(&device);
        command.env("WG_PROCESS_FOREGROUND", "1").env("WG_SUDO", "1");
        let carrier = Process::spawn(&format!("{}, {side:?}", self.words[0]), command)?;
        let port = self.port();
        let endpoint = format!("{}:{port}", lab.network.address(other));
        let bits = if addresses[0].is_ipv6() { (64, 128) } else { (24, 32) };
        let (own, allowed) = (format!("{}/{}", addresses[0], bits.0), format!("{}/{}", addresses[1], bits.1));
        let private = keys[side as usize].file.display().to_string();
        let public = &keys[other as usize].public;
        let mut set = vec!["wg", "set", &device, "listen-port", &port, "private-key", &private];
        set.extend(["peer", public, "endpoint", &endpoint, "allowed-ips", &allowed]);
        try_until(&lab.network, side, &set)?;
        let mut add = vec!["ip", "addr", "add", &own, "dev", &device];
        add.extend(addresses[0].is_ipv6().then_some("nodad"));
        try_until(&lab.network, side, &add)?;
        try_until(&lab.network, side, &["ip", "link", "set", &device, "mtu", MTU, "up"])?;
        Ok(carrier)
    }
}

/// File of a new private key, and the public key.
struct Key {
    file: PathBuf,
    public: String,
}

fn key(lab: &Lab, prefix: &str, side: Side) -> Result<Key> {
    let private = Command::new("wg").arg("genkey").output()?.stdout;
    let file = file(lab.folder.path(), &format!("key-{prefix}-{side:?}"), &String::from_utf8(private)?)?;
    let public = Command::new("wg").arg("pubkey").stdin(fs::File::open(&file)?).output()?.stdout;
    Ok(Key { file, public: String::from_utf8(public)?.trim().to_owned() })
}
