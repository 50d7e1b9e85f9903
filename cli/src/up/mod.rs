//! `peersock up`

mod exit;
mod exit_names;
mod filter;
mod fork;
mod guard;
mod keeper;
mod names;
mod plan;
mod resolved;
mod user;

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use peersock::state::{DirectorySocket, StateDir};
use peersock::{IdentitySource, Joined, Network, PublicIdentity, RootSource, Seed};
use peersock_tun::{ExitRoutes, Filter, OpenError, Tun, Upkeep, give_up_privileges};

use crate::args::{NetworksArgs, NodeArgs, StateArgs};
use crate::failure::{Failure, Outcome};
use crate::node::{Beside, Host};
use crate::open_network;
use crate::session::Session;
use crate::signals;
use crate::stdio::{self, print};
use exit::{Chosen, ExitArgs};
use exit_names::ExitNamesArgs;
use guard::Guard;
use plan::Plan;
pub(crate) use user::Caller;
use user::{GoesOnAs, OwnState};

/// Make networks into interfaces of this machine, so that all its programs reach the members with their own
/// sockets
///
/// Until the command is stopped, each network has an interface with this node's addresses in the network. The
/// kernel sends packets for the network's prefixes there. A static network's file may list address blocks
/// behind a member (`routes`). A member that runs this command, and whose kernel forwards (sysctl
/// net.ipv4.ip_forward, net.ipv6.conf.all.forwarding), is a gateway to its blocks. Programs need no changes.
/// Members reach a program's listeners as far as the machine's firewall allows. A separate filter (nf_tables)
/// keeps all others on the machine's local networks from the addresses of the interfaces.
///
/// The command needs CAP_NET_ADMIN to make the interfaces (run it with sudo). It gives up all capabilities
/// before it sends or receives anything. By sudo, its identity and settings are those of the user who has
/// called sudo, unless --state names a directory. If root starts it, it continues as another user: the one of
/// --user, the owner of its state, or one that owns nothing. A second small process keeps only CAP_NET_ADMIN.
/// If other programs remove addresses, routes, the MTU or the rules of an exit, this process sets them again,
/// and a line says so. When packets are passed on, stdout shows the addresses, one per line and in the order
/// of the networks. The command ends when one of the interfaces is gone.
///
/// Programs with the same state directory share the node: `run`, `dial`, `listen`, `forward`, `proxy` and
/// `rest`.
///
/// With --exit, all traffic outside the local network goes to a member, from which it reaches the Internet. A
/// remote login to this machine then breaks, because its answers would go through the exit.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sudo peersock up -n office.toml                # this user's identity
  peersock up -n office.toml --name office0 --state /var/lib/peersock
  peersock up -n office.toml --name office0 -n home.toml --name home0
  peersock up -n office.toml --dns               # and then: ping alpha.peersock.internal
  peersock up -n office.toml --exit gate --user peersock --state /var/lib/peersock")]
pub(crate) struct Args {
    #[command(flatten)]
    networks: NetworksArgs,

    #[command(flatten)]
    node: NodeArgs,

    /// Name of a network's interface; may be repeated, in the order of the networks [default: peersock0,
    /// peersock1, …]
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,

    /// Limit IP packets from the kernel to BYTES; the kernel is told if a path takes less
    #[arg(long, value_name = "BYTES", default_value_t = 1420, value_parser = clap::value_parser!(u16).range(1280..))]
    mtu: u16,

    /// Serve members' names to the machine's resolver, such as alpha.peersock.internal for the member alpha
    ///
    /// If several networks have the name, the first one counts. systemd-resolved is configured for it, if
    /// present.
    #[arg(long)]
    dns: bool,

    /// Port of the name server, at the first address of the first interface
    #[arg(long, value_name = "PORT", default_value_t = 53, requires = "dns", value_parser = clap::value_parser!(u16).range(1..))]
    dns_port: u16,

    #[command(flatten)]
    exit: ExitArgs,

    #[command(flatten)]
    exit_names: ExitNamesArgs,
}

/// Advice for giving the program its capability.
const PRIVILEGE: &str = "run it as root, or give it to a group of users: sudo chgrp GROUP PROGRAM && sudo chmod 0750 PROGRAM && sudo \
     setcap cap_net_admin+ep PROGRAM (every user who may run it may then lead the traffic of the whole machine)";

pub(crate) fn run(args: &Args) -> Outcome {
    user::check_file()?;
    let named = args.exit.user()?;
    let own_state = OwnState::of(named, &args.node.state)?;
    let user = GoesOnAs::of(named, &own_state)?;
    let Opened { mut networks, source, identity, roots, shared } = described(args, &own_state, &user)?;
    // As their files describe them, because programs name them so.
    let plain = networks.clone();
    let mut chosen = args.exit.choose(&mut networks, &identity)?;
    args.exit_names.check(chosen.as_ref(), args.dns)?;
    let mut plans = plan::of(&networks, &identity, &args.names, args.mtu)?;
    let has_ipv6 = !is_ipv6_off();
    if !has_ipv6 {
        plan::leave_out_ipv6(&networks, &mut plans)?;
        stdio::note(
            "this machine has IPv6 switched off: its programs reach members by their IPv4 addresses alone",
        );
    }
    if args.dns {
        names::check(&networks)?;
    }
    let tuns = plans.iter().map(open).collect::<Outcome<Vec<_>>>()?;
    // The filters exist until the process and its guard have ended.
    let filters = filter::set(&networks, &identity, &plans, &tuns);
    // Binds the port now, because that may need a privilege and there is no other thread yet.
    let mut server = args.dns.then(|| names::Server::bind(plans[0].first, args.dns_port)).transpose()?;
    if let Some(server) = &mut server {
        let prefixes = plans.iter().flat_map(|plan| plan.settings.addresses.iter().copied());
        server.announce(tuns[0].name(), &prefixes.collect::<Vec<_>>());
    }
    if let Some(chosen) = &chosen {
        args.exit_names.announce(tuns[chosen.at].name())?;
        exit::check_filters()?;
    }
    let own: Vec<_> = tuns.iter().map(|tun| tun.name().to_owned()).collect();
    let node = user.acting(|| Session::prepare_for_devices(&args.node, source, own, roots.clone()))?;
    // Handles signals now, because an earlier one would leave the rules and block the machine's traffic.
    let noted = chosen.is_some().then(signals::note).transpose()?;
    let routes = chosen.as_mut().zip(user.goes_on_as()).map(|(chosen, user)| {
        chosen.ipv6 &= has_ipv6;
        (chosen.routes(user), &*tuns[chosen.at])
    });
    let upkeep = keep_up(&plans, &tuns, filters, routes)?;
    let closing = Closing(Arc::new(Mutex::new(Some(begin(upkeep, routes, &user)?))));
    let programs = Programs::default();
    // Changes the user now, because other threads would keep their privileges.
    user.become_it().and_then(|()| give_up_privileges()).map_err(|error| {
        Failure::new(
            format_args!("cannot give up the privileges that are not needed any more: {error}"),
            "check that setresuid(2), prctl(2) and capset(2) are allowed here (a sandbox may forbid them)",
        )
    })?;
    let described = networks.clone();
    let mut wanted = networks.into_iter().zip(&tuns);
    let (network, tun) = wanted.next().expect("no network is an error above");
    let (ending, told) = (closing.0.clone(), programs.clone());
    let farewell = move |signal| {
        open_again(&ending);
        told.end();
        128 + signal
    };
    let session = Session::open_for_device(&args.node, node, network, tun.clone(), farewell)?;
    match noted.map_or(0, |noted| noted.load(Ordering::SeqCst)) {
        0 => {}
        signal => signals::exit_after(128 + signal as i32, || open_again(&closing.0)),
    }
    let others: Vec<_> =
        wanted.map(|(network, tun)| session.join_device(network, tun.clone())).collect::<Outcome<_>>()?;
    let _roots = session.watch_roots()?;
    let joined = || std::iter::once(&session.joined).chain(&others);
    for (joined, tun) in joined().zip(&tuns) {
        stdio::note(format_args!("{} is up in network {}", tun.name(), joined.id()));
    }
    if let Some(server) = server {
        server.start(names::of(&described, &session.node))?;
    }
    open_network::tell(&described);
    if let Some(chosen) = &chosen {
        let roots: Vec<_> = args.node.named_roots().into_iter().chain(roots_of(&described)).collect();
        chosen.describe(&roots, args.exit_names.servers());
    }
    if let Some((state, socket)) = shared {
        let beside = Beside {
            node: session.node.clone(),
            state,
            socket,
            networks: plain.iter().cloned().zip(joined().cloned()).collect(),
            roots: roots.into_iter().chain(roots_of(&plain)).collect(),
            command: "peersock up",
        };
        programs.start(Host::beside(beside, &args.node)?);
    }
    let addresses = joined().flat_map(Joined::addresses);
    addresses.filter(|address| has_ipv6 || address.is_ipv4()).try_for_each(print)?;
    let (ended, first_end) = mpsc::channel();
    for (joined, tun) in joined().zip(&tuns) {
        let sender = joined.device_sender().expect("it was joined for a device");
        let (tun, id, ended) = (tun.clone(), joined.id(), ended.clone());
        // The main thread waits for the first end, and ends the process.
        thread::Builder::new().name(tun.name().into()).spawn(move || {
            let error = tun.serve(sender);
            let _ = ended.send((tun, id, error));
        })?;
    }
    if let Some(guard) = closing.lock().as_mut() {
        guard.note_up();
    }
    let (tun, id, error) = first_end.recv().expect("this has a sender itself");
    programs.end();
    // Leaves the rules, because traffic for the exit must not go elsewhere when the interface is gone.
    if let Some(guard) = closing.lock().take() {
        guard.leave();
    }
    Err(Failure::new(
        format_args!("the interface {} is gone, and with it network {id}: {error}", tun.name()),
        "check which program removes it (`ip monitor link` shows when), and start the command again",
    ))
}

fn roots_of(networks: &[Network]) -> impl Iterator<Item = RootSource> {
    networks.iter().flat_map(|network| network.roots().to_vec())
}

/// The programs that share the node, told of its end when this is dropped or before.
#[derive(Clone, Default)]
struct Programs(Arc<Mutex<Option<Host>>>);

impl Programs {
    fn start(&self, host: Host) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(host);
    }

    fn end(&self) {
        let host = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(host) = host {
            host.end();
        }
    }
}

/// The exit's rules, removed when the command ends by itself or by a signal.
struct Closing(Arc<Mutex<Option<Guard>>>);

impl Closing {
    fn lock(&self) -> MutexGuard<'_, Option<Guard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        open_again(&self.0);
    }
}

/// Removes the exit's rules, unless they were left permanently.
fn open_again(guard: &Mutex<Option<Guard>>) {
    let guard = guard.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(guard) = guard {
        guard.release();
    }
}

/// The routes of an exit and its interface.
type Leads<'a> = Option<(ExitRoutes, &'a Tun)>;

/// Collects all settings that the guard keeps.
fn keep_up(plans: &[Plan], tuns: &[Arc<Tun>], filters: Vec<Filter>, routes: Leads<'_>) -> Outcome<Upkeep> {
    let devices = tuns.iter().zip(plans).map(|(tun, plan)| (&**tun, &plan.settings));
    let mut upkeep = Upkeep::new(devices, filters)?;
    if let Some((routes, tun)) = routes {
        upkeep.keep_exit(routes, tun)?;
    }
    Ok(upkeep)
}

/// Starts the guard, and sends the machine's traffic to the exit.
fn begin(upkeep: Upkeep, routes: Leads<'_>, user: &GoesOnAs) -> Outcome<Guard> {
    let guard = Guard::start(upkeep, routes.is_some(), user.goes_on_as())?;
    let mut guard = match routes {
        Some((routes, tun)) => Chosen::start(routes, tun, guard)?,
        None => guard,
    };
    guard.keep();
    Ok(guard)
}

/// The files that a node needs.
struct Opened {
    networks: Vec<Network>,
    source: IdentitySource,
    identity: PublicIdentity,
    roots: Vec<RootSource>,
    /// The state directory, and the socket for programs there; `None` if the identity is ephemeral.
    shared: Option<(StateDir, DirectorySocket)>,
}

/// Reads the files as their owner.
fn described(args: &Args, own: &OwnState, user: &GoesOnAs) -> Outcome<Opened> {
    user.acting(|| {
        own.check_free()?;
        // No network is joined here: a child would be root in part.
        let read = args.networks.resolve().and_then(|networks| opened(args, networks, &own.state, user));
        read.map_err(|failure| args.exit.explain(failure))
    })
}

/// Creates the interface of a network.
fn open(plan: &Plan) -> Outcome<Arc<Tun>> {
    Tun::open(&plan.settings).map(Arc::new).map_err(|error| explain(&plan.settings.name, &error))
}

/// Opens the identity before a node exists, because the interface needs its addresses and is created first.
fn opened(args: &Args, networks: Vec<Network>, state: &StateArgs, user: &GoesOnAs) -> Outcome<Opened> {
    let roots = args.node.roots_with_tokens()?;
    if state.ephemeral {
        let seed = Seed::generate().map_err(Failure::no_randomness)?;
        let identity = seed.public_identity();
        return Ok(Opened { networks, source: IdentitySource::Seed(seed), identity, roots, shared: None });
    }
    let state = user.open_state(state)?;
    let identity = *state.identity()?.public();
    let source = IdentitySource::Opened(state.clone());
    // Now, because the user that the process changes to may not make files there, and because programs wait
    // only shortly for the socket of a directory in use.
    let socket = state.bind_node_socket()?;
    Ok(Opened { networks, source, identity, roots, shared: Some((state, socket)) })
}

/// Returns true if new interfaces have no IPv6, which most containers disable and some kernels lack.
fn is_ipv6_off() -> bool {
    let is_off = |which| {
        let file = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
    };
    let has_none = Path::new("/proc/net").exists() && !Path::new("/proc/net/if_inet6").exists();
    has_none || is_off("all") || is_off("default")
}

fn explain(name: &str, error: &OpenError) -> Failure {
    let hint = match error {
        OpenError::Kernel { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => PRIVILEGE,
            io::ErrorKind::ResourceBusy | io::ErrorKind::InvalidInput => {
                "choose another name with --name: an interface with this name exists already"
            }
            io::ErrorKind::NotFound => {
                "run `modprobe tun`, which loads the driver; a container needs --device /dev/net/tun"
            }
            _ => "look at the interface with `ip link` and `ip address`, or choose another name with --name",
        },
        OpenError::Name => "choose another one with --name",
        _ => "choose another one with --mtu",
    };
    match error {
        // The step contains the interface's name.
        OpenError::Kernel { step, source } => Failure::new(format_args!("{step} failed: {source}"), hint),
        _ => Failure::usage(format_args!("cannot make the interface {name}: {error}"), hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_interface_has_is_a_mistake_in_the_command() {
        let failure = explain("bad/name", &OpenError::Name);
        assert_eq!(failure.status(), 2);
        let source = io::ErrorKind::PermissionDenied.into();
        let failure = explain("peersock0", &OpenError::Kernel { step: "the device".into(), source });
        assert_eq!(failure.status(), 1);
    }
}
