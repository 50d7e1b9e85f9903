//! Tickets of `share`, `listen`, `open` and `dial`: reading their texts, and starting the nodes for them.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use peersock::state::read_secret_file;
use peersock::{IdentitySource, RootSource};
use peersock_proxy::{Ticket, TicketError};
use zeroize::Zeroizing;

use crate::args::{PATIENCE_WITH_DHT, UnderlayArgs};
use crate::failure::{Failure, Outcome};
use crate::member::Member;
use crate::session::Session;
use crate::{root_watch, stdio, waiting};

/// Environment variable for a ticket, because other users can see the command line.
pub(crate) const TICKET_VARIABLE: &str = "PEERSOCK_TICKET";

/// Limit of characters below which a text is no ticket without its beginning, but a mistake of another kind.
const MIN_DIGITS: usize = 40;

/// Issues a ticket, and starts the node that it leads to. On Ctrl-C, `farewell` runs first.
pub(crate) fn issue(
    args: &UnderlayArgs,
    farewell: impl FnOnce() + Send + 'static,
) -> Outcome<(Ticket, Member)> {
    let dht = args.named_dht()?.unwrap_or_default();
    let (ticket, seed) = Ticket::issue(args.roots_with_tokens()?, dht).map_err(|error| {
        Failure::new(format_args!("no ticket can be made: {error}"), "name fewer roots or nodes of the DHT")
    })?;
    let (session, roots) =
        start(args, &ticket, IdentitySource::Seed(seed), ticket.roots().to_vec(), farewell)?;
    Ok((ticket, Member::Own(session, roots)))
}

/// Starts a node that finds the program of a ticket. On Ctrl-C, `farewell` runs first.
pub(crate) fn find(
    args: &UnderlayArgs,
    ticket: &Ticket,
    within: Option<Duration>,
    quiet: bool,
    farewell: impl FnOnce() + Send + 'static,
) -> Outcome<Member> {
    // First, because a node uses eight at most, and the program of the ticket is at these.
    let mut roots = ticket.roots().to_vec();
    roots.extend(args.roots_with_tokens()?.into_iter().filter(|root| !ticket.roots().contains(root)));
    let (session, roots) = start(args, ticket, IdentitySource::Ephemeral, roots, farewell)?;
    wait(&session, ticket, within.unwrap_or_else(|| patience(args, ticket)), quiet)?;
    Ok(Member::Own(session, roots))
}

/// Returns the timeout for reaching the program of a ticket unless an option sets it.
pub(crate) fn patience(args: &UnderlayArgs, ticket: &Ticket) -> Duration {
    if ticket.dht().is_on() { PATIENCE_WITH_DHT } else { args.patience() }
}

fn start(
    args: &UnderlayArgs,
    ticket: &Ticket,
    identity: IdentitySource,
    roots: Vec<RootSource>,
    farewell: impl FnOnce() + Send + 'static,
) -> Outcome<(Session, root_watch::RootWatch)> {
    let session = Session::open_by_ticket(args, ticket, identity, roots, |signal, _| {
        farewell();
        128 + signal
    })?;
    let roots = session.watch_roots()?;
    Ok((session, roots))
}

/// Waits until the program of a ticket has answered.
fn wait(session: &Session, ticket: &Ticket, within: Duration, quiet: bool) -> Outcome {
    let address = ticket.address().ip();
    let text = session.looking_for("the program of this ticket", within);
    let waiting = if quiet { None } else { Some(waiting::start(text)?) };
    let found = session.joined.wait_peer(address, within);
    drop(waiting);
    found.map_err(|error| match error.kind() {
        ErrorKind::TimedOut | ErrorKind::HostUnreachable => {
            session.log_silence(address, within);
            let (servers, root) = session.servers_to_check();
            let reached = match (root, session.node.status().dht) {
                (Some(root), _) => format!("; {root} was reached, and it was not found there"),
                (None, None) => {
                    ", and that both machines are on the same LAN, or make the ticket with --root or \
                                 --dht"
                        .to_owned()
                }
                (None, Some(_)) => String::new(),
            };
            Failure::new(
                format_args!(
                    "the program that made this ticket has not answered within {} s",
                    within.as_secs_f64()
                ),
                format_args!(
                    "check that it still runs, because a ticket ends with its program{reached}; {servers}-v \
                     shows what was tried"
                ),
            )
        }
        _ => error.into(),
    })
}

/// Says who can use a new ticket, as far as that may surprise.
pub(crate) fn announce(args: &UnderlayArgs, ticket: &Ticket) {
    if ticket.has_token() {
        stdio::note(
            "the ticket contains the access token of a root: who has the ticket can use the root as well",
        );
    }
    if !args.names_meeting_place() {
        stdio::note(NO_MEETING_PLACE);
    }
}

/// Note for commands whose peers find this node on the local networks alone.
pub(crate) const NO_MEETING_PLACE: &str = "no root is named, so it is found on this LAN only; start it with --dht, or with --root, to be found from \
     everywhere";

/// Returns the ticket that an argument names: itself, `@FILE`, or `-` for a line of stdin. Returns `None` for
/// an argument that is no ticket.
pub(crate) fn named(argument: &str) -> Outcome<Option<Ticket>> {
    let text = match argument {
        "-" => first_line(&mut File::from(io::stdin().as_fd().try_clone_to_owned()?)).map_err(|error| {
            Failure::new(
                format_args!("cannot read a ticket from stdin: {error}"),
                "give the ticket as an argument, as @FILE, or in PEERSOCK_TICKET",
            )
        })?,
        text if Ticket::is_claimed_by(text) || is_bare(text) => Zeroizing::new(text.to_owned()),
        _ => match argument.strip_prefix('@') {
            Some(path) => read_secret_file(Path::new(path)).map_err(|error| {
                Failure::file(error, "write the ticket into a file of mode 0600, and give its path")
            })?,
            None => return Ok(None),
        },
    };
    parse(&text).map(Some)
}

/// Returns true for a text that may be a ticket without its beginning, and is no address or name with a port.
fn is_bare(text: &str) -> bool {
    let text = text.trim();
    text.len() >= MIN_DIGITS && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
}

/// Parses a ticket; typing errors are detected here, without contacting a peer.
pub(crate) fn parse(text: &str) -> Outcome<Ticket> {
    let parsed = match is_bare(text) {
        true => Zeroizing::new(Ticket::PREFIX.to_owned() + text.trim()).parse(),
        false => text.parse(),
    };
    parsed.map_err(|error: TicketError| {
        Failure::usage(
            format_args!("{error}"),
            "give it as `peersock share` or `peersock listen --ticket` has printed it, whole and on one line",
        )
    })
}

/// Reads up to the end of the first line, and nothing of what follows, which is data. Reads no more than a
/// ticket's length.
fn first_line(input: &mut impl Read) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(Vec::with_capacity(Ticket::MAX_LEN + 1));
    let mut byte = [0];
    while line.len() <= Ticket::MAX_LEN && input.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    let text = str::from_utf8(&line).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_on_stdin_is_one_line_and_data_follows_it() {
        let mut input = &b"peersock://x\nhello"[..];
        assert_eq!(*first_line(&mut input).unwrap(), "peersock://x");
        assert_eq!(input, b"hello");
        assert_eq!(*first_line(&mut input).unwrap(), "hello");
        let mut endless = io::repeat(b'x');
        assert_eq!(first_line(&mut endless).unwrap().len(), Ticket::MAX_LEN + 1);
        assert!(first_line(&mut &b"\xff\n"[..]).is_err());
    }
}
