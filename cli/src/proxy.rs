//! `peersock proxy`

use std::env;
use std::path::PathBuf;

use peersock::state::read_secret_file;
use peersock_proxy::{Credentials, Place, Proxy, ProxySettings};
use zeroize::Zeroizing;

use crate::args::{NetworkArgs, SharedNodeArgs};
use crate::failure::{Failure, Outcome};
use crate::serving::{Said, Serving, ServingArgs, listen_failure, tell};
use crate::{open_network, output, stdio};

/// Environment variable with users and passwords, an alternative to `--auth-file`.
const AUTH_VARIABLE: &str = "PEERSOCK_PROXY_AUTH";

/// Format of users and passwords.
const AUTH_HINT: &str = "write a line USER:PASSWORD for each user, 1 to 255 bytes each";

/// Offer the network to browsers and other programs as a SOCKS5 and HTTP proxy
///
/// Serves both protocols on one port, for this machine only: SOCKS5 with CONNECT, BIND and UDP ASSOCIATE,
/// HTTP with CONNECT and plain requests. Clients reach members by address and, in networks with names, by
/// name. Other targets are refused unless --direct is given. When clients can connect, stdout shows one line
/// with the proxy's URL for each PLACE.
///
/// PLACE is PORT or ADDRESS:PORT on this machine, overlay:PORT for the members of the network, unix:PATH, or
/// systemd:NAME for a socket that systemd has opened. A place that others than this machine's programs can
/// reach needs users and passwords.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock proxy -n office.toml
  curl --proxy socks5h://127.0.0.1:1080 http://alpha:8080/
  ssh -o ProxyCommand='nc -X 5 -x 127.0.0.1:1080 %h %p' alpha
  peersock proxy -n office.toml --listen 192.0.2.1:1080 --auth-file users --direct")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: SharedNodeArgs,

    /// Listen at PLACE; may be repeated [default: the sockets of systemd, or else 127.0.0.1:1080]
    #[arg(short, long, value_name = "PLACE")]
    listen: Vec<Place>,

    /// File (mode 0600) with a line USER:PASSWORD for each user of the proxy [env: PEERSOCK_PROXY_AUTH]
    ///
    /// The variable holds the lines themselves.
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,

    /// Let every client that can connect use the proxy, also from other machines
    #[arg(long, conflicts_with = "auth_file")]
    no_password: bool,

    /// Reach targets outside the network through the system
    ///
    /// Clients can then reach this machine's own network and services.
    #[arg(long)]
    direct: bool,

    #[command(flatten)]
    serving: ServingArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let credentials = credentials(args)?;
    output::check_open()?;
    let mut serving = Serving::open("proxy", &args.serving, &args.node, &args.network)?;
    let settings = ProxySettings {
        listen: places(args, &serving)?,
        credentials,
        without_password: args.no_password,
        direct: args.direct,
        timeout: args.serving.timeout(&args.node),
        most: args.serving.most(),
    };
    let proxy =
        serving.begin(async |overlay, activated| Proxy::listen(overlay, settings, activated, tell()).await);
    let proxy = proxy.map_err(|error| listen_failure(error, Said::Listen))?;
    let lines: Vec<_> = proxy.places().iter().map(url).collect();
    let stopper = proxy.stopper();
    let network = serving.member.network().id();
    stdio::note(format_args!(
        "a proxy for SOCKS5 and HTTP into network {network}; programs without SOCKS take http:// for socks5h://"
    ));
    if proxy.places().iter().any(|place| matches!(place, Place::Overlay { .. })) {
        open_network::tell([serving.member.network()]);
    }
    serving.run(&lines, stopper, proxy.run())
}

/// Returns the places to listen at.
fn places(args: &Args, serving: &Serving) -> Outcome<Vec<Place>> {
    let activated = || serving.activated.names().into_iter().map(Place::Activated).collect::<Vec<_>>();
    Ok(match &args.listen[..] {
        [] if serving.activated.is_empty() => ProxySettings::default().listen,
        [] => activated(),
        places => places.to_vec(),
    })
}

/// Returns a place as a proxy URL.
fn url(place: &Place) -> String {
    match place {
        Place::System { host, port } => {
            // Shows loopback for all addresses, because it works from this machine.
            let host = host.as_ref().map_or("127.0.0.1".to_owned(), ToString::to_string);
            format!("socks5h://{host}:{port}")
        }
        Place::Overlay { host, port } => {
            let host = host.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("socks5h://{host}:{port}")
        }
        place => place.to_string(),
    }
}

/// Returns the permitted users, if not everyone may connect.
fn credentials(args: &Args) -> Outcome<Option<Credentials>> {
    let (text, origin) = match &args.auth_file {
        Some(path) => {
            let text = read_secret_file(path).map_err(|error| {
                Failure::file(error, "write the users into a file of mode 0600, and give its path")
            })?;
            (text, path.display().to_string())
        }
        None => match env::var(AUTH_VARIABLE) {
            Ok(text) if !text.is_empty() => (Zeroizing::new(text), format!("variable {AUTH_VARIABLE}")),
            Ok(_) | Err(env::VarError::NotPresent) => return Ok(None),
            Err(env::VarError::NotUnicode(_)) => {
                return Err(Failure::usage(format_args!("variable {AUTH_VARIABLE} is not UTF-8"), AUTH_HINT));
            }
        },
    };
    let credentials = Credentials::parse(&text);
    credentials.map(Some).map_err(|error| Failure::usage(format_args!("{origin}: {error}"), AUTH_HINT))
}
