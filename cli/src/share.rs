//! `peersock share`

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use peersock_proxy::{Forward, ForwardSettings, Forwards, Protocol, Ticket};

use crate::args::UnderlayArgs;
use crate::failure::{Failure, Outcome};
use crate::serving::{IdentityArgs, Said, Serving, ServingArgs, listen_failure, tell};
use crate::{output, stdio, tickets};

/// Share a local service: the printed ticket leads to it, and to nothing else
///
/// `peersock open TICKET` on another machine gives a local port that leads to the service, and `peersock dial
/// TICKET` connects stdin and stdout to it. Both need nothing but the ticket. Each run makes a separate
/// secret network, in which only this service is. So holders of the ticket reach no other program of this
/// machine, and none of its other networks.
///
/// The ticket is a secret, like a password: everyone who has it reaches the service, as often as they like.
/// It ends with this command; the next run has another one. It holds the roots that --root or PEERSOCK_ROOTS
/// names, with their access tokens, and the use of the DHT. Without both, it leads here from the local
/// network alone.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock share 8080
  peersock share --dht 192.168.1.5:22
  peersock share --root 'TEXT THAT peersock root PRINTED' unix:/run/web.sock
  peersock open 'peersock://TEXT THAT share PRINTED' 8080   # on another machine")]
pub(crate) struct Args {
    /// Service to share: PORT of this machine, HOST:PORT or unix:PATH
    service: String,

    #[command(flatten)]
    underlay: UnderlayArgs,

    #[command(flatten)]
    identity: IdentityArgs,

    #[command(flatten)]
    serving: ServingArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let forward = forward(&args.service)?;
    output::check_open()?;
    let mut lead = None;
    let mut serving = Serving::open_with(&args.serving, |farewell| {
        let (issued, member) = tickets::issue(&args.underlay, farewell)?;
        lead = Some(issued);
        Ok(member)
    })?;
    let settings = ForwardSettings {
        introduction: args.identity.introduction(),
        timeout: args.serving.timeout(&args.underlay),
        udp_idle: Duration::ZERO,
        most: args.serving.most(),
    };
    let listening = serving.begin(async |overlay, activated| {
        Forwards::listen(overlay, &[forward], settings, activated, tell()).await
    });
    let listening = listening.map_err(|error| listen_failure(error, Said::Local))?;
    let lead = lead.expect("it was issued with the node");
    let text = lead.ticket.to_text();
    stdio::print(text.as_str())?;
    stdio::note(format_args!("{} is shared until Ctrl-C", args.service));
    // Journals and logs, which others may read, do not get the ticket.
    let shown = if io::stderr().is_terminal() { text.as_str() } else { "TICKET" };
    stdio::note(format_args!("open it with: peersock open {shown}"));
    tickets::announce(&args.underlay, &lead);
    let stopper = listening.stopper();
    serving.run(&[], stopper, listening.run())
}

/// Returns the forward from the ticket's port to a service.
fn forward(service: &str) -> Outcome<Forward> {
    const HINT: &str = "write PORT, HOST:PORT or unix:PATH, as in `peersock share 8080`";
    let forward = Forward::parse(&format!("overlay:{}", Ticket::PORT), service)
        .map_err(|error| Failure::usage(format_args!("{error}"), HINT))?;
    match forward.protocol {
        Protocol::Tcp => Ok(forward),
        Protocol::Udp => Err(Failure::usage(
            "a ticket leads to connections, and not to datagrams",
            "use `peersock forward` in a network for datagrams",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_places_of_the_system() {
        for (service, place) in
            [("8080", "127.0.0.1:8080"), ("localhost:22", "localhost:22"), ("unix:/x", "unix:/x")]
        {
            let shared = forward(service).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(shared.remote.to_string(), place);
            assert_eq!(shared.local.to_string(), "overlay:*:7422");
        }
        for service in ["", "0", "70000", "http", "overlay:80", "*:80", "systemd:x", "udp:53"] {
            assert_eq!(forward(service).unwrap_err().status(), 2, "{service}");
        }
    }
}
