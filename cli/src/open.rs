//! `peersock open`

use std::env;
use std::net::SocketAddr;
use std::time::Duration;

use peersock_proxy::{Forward, ForwardSettings, Forwards, Place, Protocol};
use zeroize::Zeroizing;

use crate::args::UnderlayArgs;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::serving::{Said, Serving, ServingArgs, listen_failure, tell};
use crate::tickets::{self, TICKET_VARIABLE};

/// Open a ticket: a local port leads to the service that `peersock share` shares
///
/// Needs nothing but the ticket, and leaves nothing behind. When programs can connect, stdout shows the local
/// address, such as 127.0.0.1:8080. The command fails if the program that made the ticket does not answer.
///
/// Other users see the ticket in the process list while the command runs; @FILE (a file of mode 0600), - (a
/// line of stdin) and the variable PEERSOCK_TICKET do not show it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock open 'peersock://TEXT THAT share PRINTED'
  peersock open @ticket 8080 &
  curl http://127.0.0.1:8080/")]
pub(crate) struct Args {
    /// Ticket, @FILE with it, or - for a line of stdin
    #[arg(env = TICKET_VARIABLE, hide_env_values = true)]
    ticket: String,

    /// Place for local programs: PORT of 127.0.0.1, ADDRESS:PORT, *:PORT or unix:PATH [default: a free port]
    #[arg(value_name = "LOCAL")]
    local: Option<String>,

    #[command(flatten)]
    underlay: UnderlayArgs,

    #[command(flatten)]
    serving: ServingArgs,

    /// Do not report the search for the program of the ticket
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let of_environment = env::var(TICKET_VARIABLE).ok().filter(|text| !text.is_empty()).map(Zeroizing::new);
    let (lead, local) = match (tickets::named(&args.ticket)?, &args.local, of_environment) {
        (Some(lead), local, _) => (lead, local.as_ref()),
        // With the variable, the first argument is LOCAL.
        (None, None, Some(text)) => (tickets::parse(&text)?, Some(&args.ticket)),
        // Says how tickets begin.
        (None, local, _) => (tickets::parse(&args.ticket)?, local.as_ref()),
    };
    let forward = forward(local.map_or("0", |local| local), lead.ticket.address())?;
    output::check_open()?;
    let timeout = args.serving.given_timeout();
    let mut serving = Serving::open_with(&args.serving, |farewell| {
        tickets::find(&args.underlay, &lead, timeout, args.quiet, farewell)
    })?;
    let settings = ForwardSettings {
        introduction: None,
        timeout: timeout.unwrap_or_else(|| tickets::reach_timeout(&args.underlay, &lead)),
        udp_idle: Duration::ZERO,
        most: args.serving.most(),
    };
    let listening = serving.begin(async |overlay, activated| {
        Forwards::listen(overlay, &[forward], settings, activated, tell()).await
    });
    let listening = listening.map_err(|error| listen_failure(error, Said::Local))?;
    let lines: Vec<_> = listening.lines().iter().map(|line| place(line, lead.ticket.address())).collect();
    let stopper = listening.stopper();
    serving.run(&lines, stopper, listening.run())
}

/// Returns the forward from a local place to the service.
fn forward(local: &str, service: SocketAddr) -> Outcome<Forward> {
    const HINT: &str = "write PORT, ADDRESS:PORT or unix:PATH, as in `peersock open TICKET 8080`";
    let forward = Forward::parse(local, &format!("overlay:{service}"))
        .map_err(|error| Failure::usage(format_args!("{error}"), HINT))?;
    match (&forward.protocol, &forward.local) {
        (Protocol::Tcp, Place::System { .. } | Place::Unix(_) | Place::Activated(_)) => Ok(forward),
        _ => Err(Failure::usage(format_args!("`{local}` is no local place for connections"), HINT)),
    }
}

/// Returns the place at which a forward listens, from its line.
fn place(line: &str, service: SocketAddr) -> String {
    let local = line.strip_suffix(&format!(" tcp:overlay:{service}")).unwrap_or(line);
    local.strip_prefix("tcp:").unwrap_or(local).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_place_is_shown_as_programs_write_it() {
        let service: SocketAddr = "[fd00::1]:7422".parse().unwrap();
        for (local, shown) in
            [("8080", "127.0.0.1:8080"), ("[::1]:80", "[::1]:80"), ("unix:/a b", "unix:/a b")]
        {
            let opened = forward(local, service).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(place(&opened.to_string(), service), shown);
        }
        for local in ["", "http", "overlay:80", "udp:53", "70000"] {
            assert_eq!(forward(local, service).unwrap_err().status(), 2, "{local}");
        }
    }
}
