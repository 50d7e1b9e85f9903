//! `peersock rest`

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use peersock::state::read_secret_file;
use peersock_proxy::Place;
use peersock_rest::{Origin, Rest, RestError, RestSettings, Token};

use crate::args::{NetworkArgs, SharedNodeArgs};
use crate::failure::{Failure, Outcome};
use crate::serving::{Said, Serving, ServingArgs, listen_failure, tell};
use crate::{open_network, output, stdio};

/// Name of the token's file in the state directory.
const TOKEN_FILE: &str = "rest-token";

/// Name of the file that servers with this token lock.
const LOCK_FILE: &str = "rest-lock";

/// Offer the node over HTTP to programs of this machine: its state, and pipes to members
///
/// For programs without a peersock library: curl, scripts, pages in a browser. A pipe is a named connection
/// or UDP socket in this program. Requests send and take its messages, and it can become a raw relay or a
/// WebSocket. GET /v1/openapi.json describes all routes, and docs/use/REST.md explains them; the routes of
/// P2PD are also available. When clients can connect, stdout shows one line for each PLACE.
///
/// PLACE is PORT or ADDRESS:PORT with a loopback address, unix:PATH, or systemd:NAME for a socket that
/// systemd has opened. Programs show a token, which is written to a file that only this user can read. At
/// unix:PATH they need no token, because only this user can connect. Web pages can use the node if --origin
/// names them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock rest -n office.toml
  curl -u :$(cat ~/.local/state/peersock/rest-token) http://127.0.0.1:12333/v1/status
  peersock rest -n office.toml --listen unix:/run/user/1000/node
  curl --unix-socket /run/user/1000/node http://localhost/open/web/alpha:80")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    node: SharedNodeArgs,

    /// Listen at PLACE; may be repeated [default: the sockets of systemd, or else 127.0.0.1:12333]
    #[arg(short, long, value_name = "PLACE")]
    listen: Vec<Place>,

    /// File (mode 0600) with the token; created with a new token if missing [default: rest-token in the state
    /// directory, new at each start]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Let every program and user of this machine use the node without a token
    #[arg(long, conflicts_with = "token_file")]
    no_token: bool,

    /// Let web pages of this origin (SCHEME://HOST:PORT) use the node; may be repeated
    #[arg(long = "origin", value_name = "URL")]
    origins: Vec<Origin>,

    /// Let a member have NUMBER connections to listeners at once; further ones are reset
    ///
    /// All members together share 256 pipes.
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    max_clients_of_member: u16,

    #[command(flatten)]
    serving: ServingArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    output::check_open()?;
    let mut serving = Serving::open("rest", &args.serving, &args.node, &args.network)?;
    let listen = places(args, &serving);
    let needs_token = !args.no_token && listen.iter().any(|place| !matches!(place, Place::Unix(_)));
    let shown = if needs_token { Some(token(args)?) } else { None };
    let (token, file, _lock) = match shown {
        Some(Shown { token, path, lock }) => (Some(token), Some(path), lock),
        None => (None, None, None),
    };
    let settings = RestSettings {
        listen,
        token,
        origins: args.origins.clone(),
        timeout: args.serving.timeout(&args.node),
        most: args.serving.most(),
        most_of_member: args.max_clients_of_member.into(),
    };
    let rest =
        serving.begin(async |overlay, activated| Rest::listen(overlay, settings, activated, tell()).await);
    let rest = rest.map_err(failure)?;
    let lines: Vec<_> = rest.places().iter().map(url).collect();
    let stopper = rest.stopper();
    let network = serving.member.network().id();
    stdio::note(format_args!("network {network} by HTTP; GET /v1/openapi.json says what there is"));
    open_network::tell([serving.member.network()]);
    match file {
        Some(path) => stdio::note(format_args!("programs show the token in {}", path.display())),
        None if rest.asks_for_token() => {
            stdio::note(
                "warning: every program and every user of this machine can use it: leave --no-token out",
            );
        }
        None => {}
    }
    serving.run(&lines, stopper, rest.run())
}

/// Returns the places to listen at.
fn places(args: &Args, serving: &Serving) -> Vec<Place> {
    match &args.listen[..] {
        [] if serving.activated.is_empty() => RestSettings::default().listen,
        [] => serving.activated.names().into_iter().map(Place::Activated).collect(),
        places => places.to_vec(),
    }
}

/// Returns a place as a URL.
fn url(place: &Place) -> String {
    match place {
        Place::System { .. } => format!("http://{place}"),
        place => place.to_string(),
    }
}

/// The token, and the path of its file.
struct Shown {
    token: Token,
    path: PathBuf,
    /// Held while the token of the state directory is used.
    lock: Option<File>,
}

fn token(args: &Args) -> Outcome<Shown> {
    match &args.token_file {
        Some(path) if path.exists() => existing_token(path),
        Some(path) => new_token(path),
        None if args.node.state.ephemeral => Err(Failure::usage(
            "a node with an ephemeral identity has no place for the token",
            "give a file with --token-file FILE, or --no-token if every user of this machine may use it",
        )),
        None => token_of_state(&args.node.state.path()?),
    }
}

/// Returns the token of the state directory: a new one, unless another server of the directory uses one.
fn token_of_state(state: &Path) -> Outcome<Shown> {
    let (path, locked) = (state.join(TOKEN_FILE), state.join(LOCK_FILE));
    let unusable = |error: io::Error| {
        Failure::new(
            format_args!("cannot lock {}: {error}", locked.display()),
            "check that the directory belongs to you, or give a file with --token-file FILE",
        )
    };
    let mut options = File::options();
    let lock =
        options.write(true).create(true).truncate(false).mode(0o600).open(&locked).map_err(unusable)?;
    if lock.try_lock().is_ok() {
        new_token(&path)?;
    }
    // A server that starts in between may have replaced the token, so it is read behind this lock only.
    lock.lock_shared().map_err(unusable)?;
    Ok(Shown { lock: Some(lock), ..existing_token(&path)? })
}

fn existing_token(path: &Path) -> Outcome<Shown> {
    let text = read_secret_file(path).map_err(|error| {
        Failure::file(error, "write the token into a file of mode 0600, or name one that does not exist")
    })?;
    let token = Token::parse(&text).map_err(|error| {
        Failure::usage(
            format_args!("{}: {error}", path.display()),
            "name a file that does not exist: it is created with a new token",
        )
    })?;
    Ok(Shown { token, path: path.to_owned(), lock: None })
}

fn new_token(path: &Path) -> Outcome<Shown> {
    let token = Token::generate()?;
    token.write(path).map_err(|error: io::Error| {
        Failure::new(
            format_args!("cannot write the token to {}: {error}", path.display()),
            "give a file in a folder that can be written to with --token-file FILE",
        )
    })?;
    Ok(Shown { token, path: path.to_owned(), lock: None })
}

/// Returns the failure if clients cannot connect.
fn failure(error: RestError) -> Failure {
    match error {
        RestError::Listen(error) => listen_failure(error, Said::Listen),
        error => Failure::usage(
            format_args!("{error}"),
            "give a loopback address, such as 127.0.0.1:12333, or unix:PATH: other machines need their own \
             nodes",
        ),
    }
}
