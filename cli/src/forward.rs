//! `peersock forward`

use std::time::Duration;

use peersock_proxy::{Forward, ForwardSettings, Forwards};

use crate::args::{NetworkArgs, NodeArgs, parse_seconds, parse_targets};
use crate::failure::{Failure, Outcome};
use crate::member::Member;
use crate::output;
use crate::serving::{Said, Serving, ServingArgs, listen_failure, tell};

/// Forward connections and datagrams into the network, or from the network to a local service
///
/// A client that connects to LOCAL is connected to REMOTE. One of the two is on the overlay: LOCAL if it
/// begins with overlay:, which is a port of this node, and otherwise REMOTE. Several pairs may be given. When
/// clients can connect to a LOCAL, a line on stdout shows the pair as it was given, with the chosen port in
/// place of 0.
///
/// LOCAL is PORT (of 127.0.0.1), ADDRESS:PORT, *:PORT for all addresses, unix:PATH, systemd:NAME for a socket
/// that systemd has opened, or overlay:PORT or overlay:ADDRESS:PORT. REMOTE is a member's ADDRESS:PORT or
/// NAME:PORT. If LOCAL is on the overlay, REMOTE is HOST:PORT, PORT or unix:PATH of the system. The prefix
/// udp: on either one forwards datagrams: each client address has a separate flow, which ends after
/// --udp-idle without a datagram.
///
/// If a node runs that programs share (see `peersock node`), it is used.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock forward -n ff0001ffff000000 127.0.0.1:8080 '[fd12:3456:789a:…]:80'
  peersock forward -n office.toml overlay:8080 127.0.0.1:80
  peersock forward -n office.toml 2222 alpha:22 udp:5353 alpha:53 unix:/run/web alpha:80")]
pub(crate) struct Args {
    #[arg(help = "Pairs of places: LOCAL accepts clients, REMOTE is their destination")]
    #[arg(value_names = ["LOCAL", "REMOTE"], required = true)]
    places: Vec<String>,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: NodeArgs,

    /// End a flow of datagrams after SECONDS without a datagram
    #[arg(long, value_name = "SECONDS", value_parser = parse_idle, default_value = "60")]
    udp_idle: Duration,

    #[command(flatten)]
    serving: ServingArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let forwards = forwards(&args.places)?;
    output::check_open()?;
    let mut serving = Serving::open("forward", &args.serving, &args.node, &args.network)?;
    forwards.iter().try_for_each(|forward| check_remote(&serving.member, forward))?;
    let settings = ForwardSettings {
        timeout: args.serving.timeout(&args.node),
        udp_idle: args.udp_idle,
        most: args.serving.most(),
    };
    let listening = serving.begin(async |overlay, activated| {
        Forwards::listen(overlay, &forwards, settings, activated, tell()).await
    });
    let listening = listening.map_err(|error| listen_failure(error, Said::Local))?;
    let (lines, stopper) = (listening.lines().to_vec(), listening.stopper());
    serving.run(&lines, stopper, listening.run())
}

/// Parses pairs of places.
fn forwards(places: &[String]) -> Outcome<Vec<Forward>> {
    let (pairs, rest) = places.as_chunks::<2>();
    if let [alone] = rest {
        return Err(Failure::usage(
            format_args!("`{alone}` has no REMOTE: places come in pairs"),
            "give LOCAL and REMOTE, as in `peersock forward 8080 alpha:80`",
        ));
    }
    pairs.iter().map(parse).collect()
}

fn parse([local, remote]: &[String; 2]) -> Outcome<Forward> {
    Forward::parse(local, remote).map_err(|error| {
        Failure::usage(
            format_args!("{error}"),
            "write LOCAL and REMOTE as in `peersock forward 8080 alpha:80` or `peersock forward overlay:80 8080`",
        )
    })
}

/// Rejects impossible targets: names that no member has, and ports that the network does not allow.
fn check_remote(member: &Member, forward: &Forward) -> Outcome {
    let remote = forward.remote.to_string();
    let Some(target) = remote.strip_prefix("overlay:") else { return Ok(()) };
    let port = parse_targets(member.network(), target)?[0].port();
    member.check_port(port)
}

fn parse_idle(text: &str) -> Result<Duration, String> {
    match parse_seconds(text)? {
        Duration::ZERO => Err("give more than 0 seconds, such as 60".to_owned()),
        idle => Ok(idle),
    }
}
