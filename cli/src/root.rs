//! `peersock root`

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use peersock::overlay::Identity;
use peersock::overlay::wire::DISCOVERY_PORT;
use peersock::state::{StateDir, read_secret_file};
use peersock::{RootAddress, RootEndpoint, RootTransport};
use peersock_root::server::{
    CertificateFiles, Listen, RedisConfig, SecondPort, Server, ServerHandle, StreamLimits, StreamListen,
    advertised, interface_addresses,
};
use peersock_root::{Config, RelayPolicy};
use peersock_socket_server::FdServer;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::args::{parse_port, parse_seconds};
use crate::failure::{Failure, Outcome};
use crate::in_use;
use crate::nickname_limits::NicknameLimits;
use crate::output::{note, print};
use crate::root_controller::{AtEnd, WithController};
use crate::root_line::{self, Chosen, private_of_families};
use crate::servers::{STRONG_TOKEN, new_token, read_token};
use crate::signals;

/// Port for streams that networks without UDP let through.
const HTTPS: u16 = 443;

/// Default name of the state directory. It differs from a node's, because a node on the same machine has
/// another identity.
const DIRECTORY: &str = "peersock-root";

/// Serve as a root: nodes find each other here, and the root relays what they cannot send directly
///
/// The first line on stdout is the text that nodes need: give it to them as PEERSOCK_ROOTS. It holds the
/// root's key and the addresses of this machine's interfaces, or the endpoints of --advertise. A root sees
/// which nodes are registered, from which addresses, and how much data passes between which nodes. It cannot
/// read or forge that data, and does not learn which networks exist. docs/use/ROOT.md says more, and how to
/// size a root. With --controller, the same process serves a managed network, whose members it then knows.
///
/// The root also takes TCP, TLS and WebSocket, for nodes in networks that block UDP: at port 443, which
/// passes most proxies, or where that is not permitted or in use, at TCP port 7420. SIGHUP reloads the files
/// of --certificate.
///
/// Ctrl-C or SIGTERM tells all nodes to move to another root, if they have one. The program ends with status
/// 0 after --drain seconds; a second signal ends it at once.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock root
  peersock root --advertise root.example.org:7420 --metrics 127.0.0.1:9420
  peersock root --announce
  peersock root --advertise root.example.org:7420 --controller team
  peersock root --stream 443 --stream 80
  peersock root --certificate fullchain.pem --certificate-key privkey.pem \\
    --advertise root.example.org:7420 --advertise wss:root.example.org:443
  peersock root --new-token ./new-token
  peersock root --access-token-file ./token --relay-rate 2M
  peersock root --directory redis://10.0.0.5 --directory-password-file ./password
  peersock root --listen 127.0.0.1 --port 0 --ephemeral")]
pub(crate) struct Args {
    /// Address of this machine to listen on, with or without a port; may be repeated [default: all]
    #[arg(short, long, value_name = "ADDR", value_parser = parse_listen)]
    listen: Vec<Where>,

    /// UDP port for --listen addresses without one; 0 picks a free one
    #[arg(short, long, value_name = "PORT", value_parser = parse_port, default_value_t = 7420)]
    port: u16,

    /// Second UDP port of the --listen addresses, for STUN alone; 0 picks a free one [default: the one after
    /// the first]
    ///
    /// With it, one root suffices to tell a node whether its NAT is symmetric.
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    second_port: Option<u16>,

    /// Open no second UDP port
    #[arg(long, conflicts_with = "second_port")]
    no_second_port: bool,

    /// Accept streams (TCP, TLS and WebSocket) at this address and port; may be repeated; 0 picks a free port
    /// [default: 443, or the number of the UDP port]
    ///
    /// PORT alone means this port of all --listen addresses. The first bytes of a stream tell its kind. By
    /// default, ports that cannot be used are left out, and there are no streams if the UDP port is 0.
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = parse_stream)]
    stream: Vec<StreamPlace>,

    /// Accept no streams
    #[arg(long, conflicts_with_all = ["stream", "certificate"])]
    no_stream: bool,

    /// PEM file with the certificate chain for streams [default: made with the root's key, which nodes know]
    ///
    /// Holds the certificate, and the authorities that lead to a known one. It is read again on SIGHUP
    /// and when it has changed.
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    certificate: Option<PathBuf>,

    /// PEM file with the certificate's secret key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,

    /// Accept at most N stream connections; each takes a file descriptor
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_streams: usize,

    /// Accept at most N stream connections from one IPv4 /24 or IPv6 /56; all nodes behind one proxy count
    /// together
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_streams_per_prefix: usize,

    /// Endpoint for the first line, as nodes reach it, in place of the interfaces' addresses; may be repeated
    ///
    /// HOST:PORT is for UDP; the prefixes tcp:, tls: and wss: are for streams.
    #[arg(long, value_name = "[WAY:]HOST:PORT", value_parser = parse_advertised)]
    advertise: Vec<RootEndpoint>,

    /// Announce this root on the local networks, for nodes with `--root lan`
    ///
    /// PORT is the discovery port of the nodes, 7473 unless they use another one.
    #[arg(long, value_name = "PORT", value_parser = parse_port, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = DISCOVERY_PORT_TEXT)]
    announce: Option<u16>,

    /// File (mode 0600) with a text that nodes must show to register, at most 255 bytes [default: every node
    /// may register]
    #[arg(long, value_name = "FILE")]
    access_token_file: Option<PathBuf>,

    /// Require nodes to show a new random text (192 bits), written to FILE (mode 0600, must not exist)
    #[arg(long, value_name = "FILE", conflicts_with = "access_token_file")]
    new_token: Option<PathBuf>,

    /// Relay at most BYTES per second for one node; 0 for no limit
    ///
    /// The suffixes k, M and G mean thousands, millions and billions.
    #[arg(long, value_name = "BYTES", value_parser = parse_rate, default_value = "8M")]
    relay_rate: u32,

    /// Relay at most BYTES per second for all nodes of one IPv4 /24 or IPv6 /56 [default: four times the rate
    /// of one node]
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    relay_prefix_rate: Option<u32>,

    /// Share the directory with other roots through this Redis, so that their nodes find each other
    ///
    /// URL is redis:// or, over TLS, rediss://, then `[USER@]HOST[:PORT][/DATABASE]`.
    #[arg(long, value_name = "URL")]
    directory: Option<String>,

    /// File (mode 0600) with the password for --directory [env: PEERSOCK_DIRECTORY_PASSWORD] [default: none]
    ///
    /// The variable holds the password itself.
    #[arg(long, value_name = "FILE", requires = "directory")]
    directory_password_file: Option<PathBuf>,

    /// Relay only what two nodes need to meet: handshakes, and 2 kB/s
    #[arg(long, conflicts_with_all = ["relay_rate", "relay_prefix_rate"])]
    no_relay: bool,

    /// Also answer STUN requests that are shorter than the answer, a few per second and prefix
    ///
    /// Longer requests are always answered.
    #[arg(long)]
    stun: bool,

    /// Serve /metrics (for Prometheus) and /health over HTTP at this address; everyone who can connect can
    /// read them
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,

    /// Register at most N nodes; each takes up to 1 KiB
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    max_nodes: usize,

    /// Register at most N nodes of one IPv4 /24 or IPv6 /56
    #[arg(long, value_name = "N", default_value_t = 4096)]
    max_nodes_per_prefix: u32,

    /// Drop the registration of a node SECONDS after its last renewal
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    max_lifetime: u32,

    #[command(flatten)]
    nicknames: NicknameLimits,

    #[command(flatten)]
    with_controller: WithController,

    /// Give nodes SECONDS to move to another root before the end
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "10")]
    drain: Duration,

    /// Directory that holds this root's identity [env: PEERSOCK_STATE] [default: peersock-root under
    /// $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Use a new identity and forget it on exit
    #[arg(long, conflicts_with = "state")]
    ephemeral: bool,
}

/// An address to listen on; without a port, --port applies.
#[derive(Debug, Clone, Copy)]
enum Where {
    Ip(IpAddr),
    Socket(SocketAddr),
}

/// A place to accept streams; without an address, the addresses of --listen apply.
#[derive(Debug, Clone, Copy)]
enum StreamPlace {
    Port(u16),
    Socket(SocketAddr),
}

pub(crate) fn run(args: &Args) -> Outcome {
    // Held until the end, so that no other process uses the identity meanwhile.
    let (_state, identity) = args.identity()?;
    let config = args.config(identity)?;
    let token = config.access.clone();
    let directory = args.directory()?;
    let listen = Listen {
        udp: args.addresses(),
        second_port: args.second_port(),
        streams: args.streams(),
        metrics: args.metrics,
        drain: args.drain,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
    let (begin_end, end) = oneshot::channel();
    let (has_ended, ended) = mpsc::channel::<()>();
    let (ends, controllers_end) = mpsc::channel::<AtEnd>();
    signals::end_with(move |_| {
        // The controller needs this root until its own end.
        if let Ok(end) = controllers_end.try_recv() {
            end();
        }
        // Fails if the program is already ending.
        let _ = begin_end.send(());
        let _ = ended.recv();
        0
    })
    .map_err(cannot_start)?;
    let outcome = runtime.block_on(async {
        let mut server = Server::bind(config, listen).await.map_err(|error| cannot_listen(&error))?;
        if let Some(error) = server.second_port_error() {
            if args.second_port.is_some() {
                return Err(cannot_listen(error));
            }
            note(format_args!(
                "no second UDP port ({error}): nodes with this root alone cannot tell whether their NAT is \
                 symmetric; --second-port chooses another one"
            ));
        }
        if args.stream.is_empty() {
            tell_stream_errors(&server);
        }
        if let Some(port) = args.announce {
            server.announce(port).map_err(cannot_start)?;
        }
        let announcement = args.announcement(&mut server)?;
        if let Some(redis) = directory {
            let endpoints: Vec<_> = announcement.endpoints().iter().map(ToString::to_string).collect();
            note(format_args!("sharing the directory at {redis}"));
            server.share(redis, &endpoints.join(",")).map_err(cannot_start)?;
        }
        if announcement.endpoints().is_empty() {
            note(
                "warning: no address for nodes is known; give --advertise ADDR:PORT, or bring an interface \
                 up and start again",
            );
        }
        // Names may lead to any address.
        let addresses: Option<Vec<_>> = announcement.endpoints().iter().map(RootEndpoint::address).collect();
        print(&announcement)?;
        tell_private(&private_of_families(&addresses.unwrap_or_default()));
        for address in server.udp_addresses() {
            note(format_args!("listening on {address}"));
        }
        for address in server.second_addresses() {
            note(format_args!("answering STUN on {address}, too"));
        }
        for address in server.stream_addresses() {
            note(format_args!("taking streams on {address}"));
        }
        let streams = server.streams();
        signals::on_hangup(move || match streams.as_ref().map(ServerHandle::reload_certificates) {
            None => note("there is no certificate to be read again"),
            Some(Ok(())) => note("the certificate was read again"),
            Some(Err(error)) => note(format_args!("the certificate stays as it is: {error}")),
        })
        .map_err(cannot_start)?;
        if let Some(address) = server.metrics_address() {
            note(format_args!("metrics on http://{address}/metrics"));
        }
        let shutdown = async {
            // Without the signal thread the server runs on.
            if end.await.is_err() {
                std::future::pending::<()>().await;
            }
            note(format_args!(
                "ending: nodes have {} s to move to other roots; a second signal ends at once",
                args.drain.as_secs_f64()
            ));
        };
        let controller =
            args.with_controller.start(&announcement, token.as_ref().map(|token| &***token), ends)?;
        let failed = async {
            let Some(controller) = controller else { return std::future::pending().await };
            let ended = |_| Failure::new("the controller has ended", "start the root again");
            controller.await.unwrap_or_else(ended)
        };
        tokio::select! {
            served = server.run(shutdown) => served.map_err(|error| cannot_listen(&error)),
            failure = failed => Err(failure),
        }
    });
    drop(has_ended);
    outcome
}

impl Args {
    fn identity(&self) -> Outcome<(Option<StateDir>, Identity)> {
        if self.ephemeral {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut_slice()).map_err(Failure::no_randomness)?;
            return Ok((None, Identity::from_seed(&seed)));
        }
        let path = match (&self.state, std::env::var_os("PEERSOCK_STATE").filter(|path| !path.is_empty())) {
            (Some(path), _) => path.clone(),
            // The machine's own directory, whose identity is that of its node.
            (None, Some(path)) if self.with_controller.is_wanted() => below_machines(path.into())?,
            (None, Some(path)) => path.into(),
            (None, None) => StateDir::default_path()?.with_file_name(DIRECTORY),
        };
        let state = in_use::open(&path)?;
        let identity = state.identity()?;
        Ok((Some(state), identity))
    }

    fn config(&self, identity: Identity) -> Outcome<Config> {
        let mut config = Config::new(Arc::new(identity));
        config.access = self.access()?;
        config.short_stun = self.stun;
        config.relay = match (self.no_relay, self.relay_rate) {
            (true, _) => RelayPolicy::Off,
            (false, 0) => RelayPolicy::Unlimited,
            (false, per_node) => {
                let per_prefix = self.relay_prefix_rate.filter(|rate| *rate > 0);
                RelayPolicy::Limited {
                    per_node,
                    per_prefix: per_prefix.unwrap_or(per_node.saturating_mul(4)),
                }
            }
        };
        config.limits.nodes = self.max_nodes;
        config.limits.nodes_per_prefix = self.max_nodes_per_prefix;
        config.limits.lifetime = self.max_lifetime;
        self.nicknames.apply(&mut config.limits);
        Ok(config)
    }

    fn directory(&self) -> Outcome<Option<RedisConfig>> {
        let Some(url) = &self.directory else { return Ok(None) };
        let password = match &self.directory_password_file {
            Some(path) => Some(read_secret_file(path).map_err(|error| {
                Failure::file(error, "write the password into a file of mode 0600, and give its path")
            })?),
            None => std::env::var("PEERSOCK_DIRECTORY_PASSWORD").ok().map(Zeroizing::new),
        };
        let password = password.map(|text| Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
        let config = RedisConfig::new(url, password.as_ref().filter(|text| !text.is_empty()));
        config.map(Some).map_err(|error| {
            Failure::usage(
                format_args!("--directory: {error}"),
                "give redis://HOST:PORT, and a password by --directory-password-file",
            )
        })
    }

    fn access(&self) -> Outcome<Option<Zeroizing<Vec<u8>>>> {
        if let Some(path) = &self.new_token {
            let token = new_token(path)?;
            note(format_args!(
                "nodes show the token in {0}: give it to them as --root-token-file {0}",
                path.display()
            ));
            return Ok(Some(Zeroizing::new(token.as_bytes().to_vec())));
        }
        let Some(path) = &self.access_token_file else { return Ok(None) };
        let token = read_token(path)?;
        if token.len() < STRONG_TOKEN {
            note(format_args!(
                "warning: the access token has only {} bytes: other roots that nodes are referred to can \
                 guess a weak one; make a strong one with --new-token FILE",
                token.len()
            ));
        }
        Ok(Some(Zeroizing::new(token.as_bytes().to_vec())))
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        if !self.listen.is_empty() {
            let with_port = |place: &Where| match *place {
                Where::Ip(ip) => SocketAddr::new(ip, self.port),
                Where::Socket(address) => address,
            };
            return self.listen.iter().map(with_port).collect();
        }
        let mut all = vec![SocketAddr::from(([0; 4], self.port))];
        // A machine may lack IPv6.
        if UdpSocket::bind("[::]:0").is_ok() {
            all.push(SocketAddr::from(([0u16; 8], self.port)));
        }
        all
    }

    fn second_port(&self) -> SecondPort {
        match self.second_port {
            Some(port) => SecondPort::Number(port),
            None if self.no_second_port => SecondPort::None,
            // A test's root, or another short-lived one, is not in the way of others.
            None if self.addresses().iter().any(|address| address.port() == 0) => SecondPort::Number(0),
            None => SecondPort::Next,
        }
    }

    fn streams(&self) -> Option<StreamListen> {
        let udp = self.addresses();
        let at_port = |port| udp.iter().map(move |own| SocketAddr::new(own.ip(), port));
        let addresses: Vec<_> = match &self.stream[..] {
            [] if self.no_stream || udp.iter().any(|address| address.port() == 0) => return None,
            [] => at_port(HTTPS).collect(),
            places => {
                let at = |place: &StreamPlace| match *place {
                    StreamPlace::Socket(address) => vec![address],
                    StreamPlace::Port(port) => at_port(port).collect(),
                };
                places.iter().flat_map(at).collect()
            }
        };
        // Each connection takes a descriptor.
        FdServer::raise_descriptor_limit();
        let files = self.certificate.clone().zip(self.certificate_key.clone());
        Some(StreamListen {
            addresses,
            instead: self.stream.is_empty().then_some(udp),
            certificate: files.map(|(chain, key)| CertificateFiles { chain, key }),
            limits: StreamLimits {
                connections: self.max_streams,
                per_prefix: self.max_streams_per_prefix,
                ..StreamLimits::default()
            },
        })
    }

    /// Returns the address under which others reach this root.
    fn announcement(&self, server: &mut Server) -> Outcome<RootAddress> {
        let identity = *server.root_mut().identity();
        if !self.advertise.is_empty() {
            let mut endpoints = self.advertise.clone();
            let streams = server.stream_addresses();
            if self.stream.is_empty() && endpoints.iter().all(|one| one.transport == RootTransport::Udp) {
                let port = streams.first().map(SocketAddr::port);
                let of_host = |udp: &RootEndpoint| match udp.address() {
                    Some(address) => {
                        Some(RootEndpoint::at(RootTransport::WebSocket, SocketAddr::new(address.ip(), port?)))
                    }
                    None => format!("{}:{}:{}", RootTransport::WebSocket, udp.host(), port?).parse().ok(),
                };
                let ways: Vec<_> = endpoints.iter().filter_map(of_host).collect();
                root_line::add_while_short(&identity, &mut endpoints, ways);
            }
            return Ok(RootAddress::new(identity, endpoints));
        }
        let own = interface_addresses().unwrap_or_default();
        let udp = advertised(&server.udp_addresses(), &own);
        let streams = advertised(server.stream_addresses(), &own);
        if self.stream.is_empty() {
            let Chosen { endpoints, left_out } = root_line::choose(&identity, udp, streams);
            tell_left_out(&left_out);
            return Ok(RootAddress::new(identity, endpoints));
        }
        let mut endpoints: Vec<_> =
            udp.into_iter().map(|address| RootEndpoint::at(RootTransport::Udp, address)).collect();
        // Lists each transport at all addresses before the next one, because the list is truncated.
        for way in [RootTransport::WebSocket, RootTransport::Tcp, RootTransport::Tls] {
            endpoints.extend(streams.iter().map(|address| RootEndpoint::at(way, *address)));
        }
        endpoints.truncate(RootAddress::MAX_ENDPOINTS);
        Ok(RootAddress::new(identity, endpoints))
    }
}

/// Returns the root's directory under the machine's, unless that may be a root's own.
fn below_machines(path: PathBuf) -> Outcome<PathBuf> {
    let own = path.join(DIRECTORY);
    if path.join("identity.key").exists() && !path.join("controllers").exists() && !own.exists() {
        return Err(Failure::usage(
            format_args!(
                "with --controller, PEERSOCK_STATE is the directory of this machine's node, and {} has no network's \
                 controller: it may be a root's",
                path.display()
            ),
            "give the root's directory as --state DIR, and the machine's as PEERSOCK_STATE",
        ));
    }
    Ok(own)
}

/// Reports addresses that only machines of the same private network reach.
fn tell_private(addresses: &[SocketAddr]) {
    if !addresses.is_empty() {
        note(format_args!(
            "warning: only machines of the same private network reach {}; start with --advertise HOST:7420 \
             for others, a public address or name that leads here",
            list(addresses)
        ));
    }
}

/// Reports addresses for which the line has no room.
fn tell_left_out(addresses: &[SocketAddr]) {
    if !addresses.is_empty() {
        note(format_args!(
            "the line leaves out {}, to stay short; --advertise chooses its addresses",
            list(addresses)
        ));
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Reports the ports for streams that the user has not asked for and that cannot be used.
fn tell_stream_errors(server: &Server) {
    let (addresses, errors) = (server.stream_addresses(), server.stream_errors());
    match (addresses, errors) {
        (_, []) => {}
        ([], [.., last]) => note(format_args!(
            "no port for streams ({last}): nodes in networks without UDP do not reach this root; --stream \
             chooses a port"
        )),
        ([_, ..], [first, ..]) => note(format_args!(
            "port 443 is not used for streams ({first}): networks that pass nothing else do not reach this root; it \
             needs the administrator or CAP_NET_BIND_SERVICE, and no other program there"
        )),
    }
}

pub(crate) fn cannot_start(error: io::Error) -> Failure {
    Failure::new(
        format_args!("the root cannot start: {error}"),
        "check the limits of the process (ulimit -a)",
    )
}

fn cannot_listen(error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "end the program that uses it, or give another one with --port or --listen, or --second-port or \
             --stream if it is that one"
        }
        io::ErrorKind::AddrNotAvailable => {
            "give --listen an address that this machine has (see `ip address`)"
        }
        io::ErrorKind::InvalidInput => "give --certificate and --certificate-key files in PEM form",
        io::ErrorKind::PermissionDenied => {
            "give a port from 1024 on with --port, --listen or --stream, or run with CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::Unsupported => {
            "allow it in the profile of the sandbox or container (Docker: --security-opt seccomp=unconfined), or \
             use a newer kernel"
        }
        _ => "check the addresses, and what the system says of its network",
    };
    Failure::new(format_args!("the root cannot serve: {error}"), hint)
}

/// The port as text, as clap requires.
const DISCOVERY_PORT_TEXT: &str = "7473";
const _: () = assert!(DISCOVERY_PORT == 7473);

fn parse_listen(text: &str) -> Result<Where, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().map(Where::Ip);
    ip.or_else(|_| text.parse().map(Where::Socket))
        .map_err(|_| "give an IP address, or IPV4:PORT, or '[IPV6]:PORT'".to_owned())
}

fn parse_stream(text: &str) -> Result<StreamPlace, String> {
    let port = text.parse().map(StreamPlace::Port);
    port.or_else(|_| text.parse().map(StreamPlace::Socket))
        .map_err(|_| "give a port, or IPV4:PORT, or '[IPV6]:PORT'".to_owned())
}

fn parse_advertised(text: &str) -> Result<RootEndpoint, String> {
    text.parse().map_err(|error: peersock::ParseRootError| error.to_string())
}

/// Parses `250000`, `250k`, `8M` and `1G`.
fn parse_rate(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'm' | 'M')) => (&text[..at], 1_000_000),
        Some((at, 'g' | 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let rate = number.parse().ok().filter(|_| is_number).and_then(|number: u32| number.checked_mul(unit));
    rate.ok_or_else(|| "give a number of bytes per second up to 4G, such as 8M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units_of_thousands() {
        assert_eq!(
            ["0", "77", "250k", "8M", "4G"].map(parse_rate),
            [Ok(0), Ok(77), Ok(250_000), Ok(8_000_000), Ok(4_000_000_000)]
        );
        for text in ["", "M", "-1", "+1", "5G", "1.5M", "8MB", "8 M"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn places_to_listen_have_a_port_or_not() {
        assert!(matches!(parse_listen("::1"), Ok(Where::Ip(_))));
        assert!(matches!(parse_listen("[::1]"), Ok(Where::Ip(_))));
        assert!(matches!(parse_listen("[::1]:5"), Ok(Where::Socket(_))));
        assert!(matches!(parse_listen("127.0.0.1:5"), Ok(Where::Socket(_))));
        for text in ["", "localhost", ":5", "127.0.0.1:"] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
    }
}
