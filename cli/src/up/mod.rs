//! `peersock up`

mod names;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use peersock::{IdentitySource, Network, PublicIdentity, Seed};
use peersock_tun::{OpenError, Settings, Tun, give_up_privileges};

use crate::args::{NetworkArgs, NodeArgs};
use crate::failure::{Failure, Outcome};
use crate::root_watch;
use crate::session::Session;
use crate::stdio::{self, print};

/// Make a network an interface of this machine: all its programs reach the members with their own sockets
///
/// Until this is stopped, the interface has this node's addresses in the network, and the kernel sends there
/// what has one of the network's prefixes. A static network's file may say what lies behind a member
/// (`routes`): where that runs this, and its kernel forwards (sysctl net.ipv4.ip_forward,
/// net.ipv6.conf.all.forwarding), it is a gateway to there. Programs need not know of it; what they listen on
/// is reached by the members as far as the machine's firewall lets them.
///
/// Needs CAP_NET_ADMIN (run it with sudo) to make the interface, and gives up that and all other capabilities
/// before it talks to anybody. The addresses are printed to stdout, one per line, once packets are passed on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock up -n ff0001ffff000000                # as root, or after: setcap cap_net_admin+ep PROGRAM
  peersock up -n office.toml --name office0 --state /var/lib/peersock
  peersock up -n office.toml --dns               # and then: ping alpha.peersock.internal")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: NodeArgs,

    /// Name of the interface
    #[arg(long, default_value = "peersock0")]
    name: String,

    /// Largest IP packet that the kernel sends, bytes; where a path takes less, it is told
    #[arg(long, value_name = "BYTES", default_value_t = 1420, value_parser = clap::value_parser!(u16).range(1280..))]
    mtu: u16,

    /// Answer the machine's resolver what members are called: alpha.peersock.internal, where the network's
    /// file has the name alpha. systemd-resolved is told so, if it is there
    #[arg(long)]
    dns: bool,

    /// Port of the name server, at the interface's first address
    #[arg(long, value_name = "PORT", default_value_t = 53, requires = "dns", value_parser = clap::value_parser!(u16).range(1..))]
    dns_port: u16,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let network = args.network.resolve()?;
    let (source, identity) = identity(args)?;
    let addresses = network.addresses_of(&identity).ok_or_else(|| {
        Failure::new(
            format_args!("this node is not a member of network {}; its key is {identity}", network.id()),
            "add it to the network's file with `peersock network add`",
        )
    })?;
    let names = args.dns.then(|| names::of(&network)).transpose()?;
    let first = addresses[0];
    let (addresses, routes) = placed(&network, &identity, &addresses);
    let settings = Settings { mtu: args.mtu, addresses, routes, ..Settings::new(&*args.name) };
    let tun = Arc::new(Tun::open(&settings).map_err(|error| explain(&args.name, &error))?);
    // The port may need a privilege, and is taken while there is no other thread.
    let server = names.map(|names| names::Server::bind(first, args.dns_port, names)).transpose()?;
    // Other threads would keep theirs.
    give_up_privileges().map_err(|error| {
        Failure::new(
            format_args!("cannot give up the privileges that are not needed any more: {error}"),
            "check that prctl(2) and capset(2) are allowed here (a sandbox may forbid them)",
        )
    })?;
    if let Some(server) = server {
        server.start(tun.name())?;
    }
    let session = Session::open_for_device(&args.node, network, source, tun.name(), tun.clone())?;
    let _roots = root_watch::start(&session.node)?;
    stdio::note(format_args!("{} is up in network {}", tun.name(), session.network.id()));
    session.joined.addresses().iter().try_for_each(print)?;
    let sender = session.joined.device_sender().expect("it was joined for a device");
    let error = tun.serve(sender);
    Err(Failure::new(
        format_args!("the interface {} is gone: {error}", tun.name()),
        "look who removes it (`ip monitor link` tells when), and start the command again",
    ))
}

/// The identity, before there is a node: its addresses are the interface's, which is made first.
fn identity(args: &Args) -> Outcome<(IdentitySource, PublicIdentity)> {
    if args.node.state.ephemeral {
        let seed = Seed::generate().map_err(Failure::no_randomness)?;
        let identity = seed.public_identity();
        return Ok((IdentitySource::Seed(seed), identity));
    }
    let identity = args.node.state.public_identity()?;
    Ok((IdentitySource::StateDir(args.node.state.path()?), identity))
}

/// Addresses and routes, each with the bits of its prefix.
type Placed = (Vec<(IpAddr, u8)>, Vec<(IpAddr, u8)>);

/// The addresses, each with the length of the network's prefix in which it lies; and the prefixes in which
/// none of them lies, but which have one of the same family to answer to. What lies behind this node is
/// reached by its other interfaces.
fn placed(network: &Network, identity: &PublicIdentity, addresses: &[IpAddr]) -> Placed {
    let own = network.members().iter().find(|member| member.identity == *identity);
    let behind = own.map(|member| member.routes.as_slice()).unwrap_or_default();
    let mut prefixes = network.summary().prefixes;
    prefixes.retain(|prefix| !behind.contains(prefix));
    let whole = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let within = |address: &IpAddr| {
        let prefix = prefixes.iter().find(|prefix| prefix.contains(*address));
        (*address, prefix.map_or(whole(address), |prefix| prefix.length()))
    };
    let others = prefixes.iter().filter(|prefix| {
        !addresses.iter().any(|address| prefix.contains(*address))
            && addresses.iter().any(|address| address.is_ipv4() == prefix.address().is_ipv4())
    });
    (
        addresses.iter().map(within).collect(),
        others.map(|prefix| (prefix.address(), prefix.length())).collect(),
    )
}

fn explain(name: &str, error: &OpenError) -> Failure {
    let hint = match error {
        OpenError::Kernel { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => {
                "run it as root, or give the program CAP_NET_ADMIN: sudo setcap cap_net_admin+ep PROGRAM"
            }
            io::ErrorKind::ResourceBusy | io::ErrorKind::InvalidInput => {
                "choose another name with --name: an interface of this name is there already"
            }
            io::ErrorKind::NotFound => {
                "run `modprobe tun`, which loads the driver; a container needs --device /dev/net/tun"
            }
            _ => {
                "look what `ip link` and `ip address` say of the interface, or choose another name with --name"
            }
        },
        _ => "choose another one with --name or --mtu",
    };
    match error {
        // The step has the interface's name in it.
        OpenError::Kernel { step, source } => Failure::new(format_args!("{step} failed: {source}"), hint),
        _ => Failure::new(format_args!("cannot make the interface {name}: {error}"), hint),
    }
}
