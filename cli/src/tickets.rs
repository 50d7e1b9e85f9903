//! Tickets of `share`, `listen`, `open` and `dial`, and codes of `listen` and `dial`: reading their texts,
//! and starting the nodes for them.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use peersock::state::read_secret_file;
use peersock::{IdentitySource, Invite, RootSource, Seed};
use peersock_files::Code;
use peersock_proxy::{Ticket, TicketError};
use zeroize::Zeroizing;

use crate::args::{REACH_TIMEOUT_WITH_DHT, UnderlayArgs};
use crate::failure::{Failure, Outcome};
use crate::files::parse_code;
use crate::member::Member;
use crate::session::Session;
use crate::{root_watch, stdio, waiting};

/// Environment variable for a ticket, because other users can see the command line.
pub(crate) const TICKET_VARIABLE: &str = "PEERSOCK_TICKET";

/// Limit of characters below which a text is no ticket without its beginning, but a mistake of another kind.
const MIN_DIGITS: usize = 40;

/// Text that leads to one program: a ticket, or a code for people to type.
pub(crate) struct Lead {
    pub(crate) ticket: Ticket,
    /// The code from which both ends have derived the ticket.
    code: Option<Code>,
}

impl Lead {
    /// Returns the lead of a code. That takes some tenths of a second.
    fn of_code(code: Code) -> Outcome<(Lead, Seed)> {
        let keys = code.pipe()?;
        Ok((Lead { ticket: Ticket::derived(keys.secret, &keys.seed), code: Some(code) }, keys.seed))
    }

    /// Returns the words with which the other end uses it, `options` included if both ends need the same.
    pub(crate) fn words(&self, args: &UnderlayArgs) -> Zeroizing<String> {
        match &self.code {
            None => self.ticket.to_text(),
            Some(code) => {
                let (options, text) = (args.as_options(), code.to_text());
                let mut words = Zeroizing::new(String::with_capacity(options.len() + text.len()));
                words.push_str(options.trim_start());
                words.push_str(if options.is_empty() { "" } else { " " });
                words.push_str(&text);
                words
            }
        }
    }

    /// Returns the text's kind, for people.
    pub(crate) fn kind(&self) -> &'static str {
        if self.code.is_some() { "code" } else { "ticket" }
    }
}

/// Issues a ticket, and starts the node that it leads to. On Ctrl-C, `farewell` runs first.
pub(crate) fn issue(
    args: &UnderlayArgs,
    farewell: impl FnOnce() + Send + 'static,
) -> Outcome<(Lead, Member)> {
    let dht = args.named_dht()?.unwrap_or_default();
    let (ticket, seed) = Ticket::issue(args.roots_with_tokens()?, dht).map_err(|error| {
        Failure::new(format_args!("no ticket can be made: {error}"), "name fewer roots or nodes of the DHT")
    })?;
    let roots = ticket.roots().to_vec();
    start_issuer(args, Lead { ticket, code: None }, seed, roots, farewell)
}

/// Draws a code, and starts the node that it leads to, as [`issue`] does.
pub(crate) fn issue_code(
    args: &UnderlayArgs,
    farewell: impl FnOnce() + Send + 'static,
) -> Outcome<(Lead, Member)> {
    let (lead, seed) = Lead::of_code(Code::generate().map_err(Failure::no_randomness)?)?;
    start_issuer(args, lead, seed, args.roots_with_tokens()?, farewell)
}

fn start_issuer(
    args: &UnderlayArgs,
    lead: Lead,
    seed: Seed,
    roots: Vec<RootSource>,
    farewell: impl FnOnce() + Send + 'static,
) -> Outcome<(Lead, Member)> {
    let (session, roots) = start(args, &lead.ticket, IdentitySource::Seed(seed), roots, farewell)?;
    Ok((lead, Member::Own(session, roots)))
}

/// Starts a node that finds the program of a ticket or a code. On Ctrl-C, `farewell` runs first.
pub(crate) fn find(
    args: &UnderlayArgs,
    lead: &Lead,
    within: Option<Duration>,
    quiet: bool,
    farewell: impl FnOnce() + Send + 'static,
) -> Outcome<Member> {
    let ticket = &lead.ticket;
    // First, because a node uses eight at most, and the program of the ticket is at these.
    let mut roots = ticket.roots().to_vec();
    roots.extend(args.roots_with_tokens()?.into_iter().filter(|root| !ticket.roots().contains(root)));
    let (session, roots) = start(args, ticket, IdentitySource::Ephemeral, roots, farewell)?;
    wait(&session, lead, within.unwrap_or_else(|| reach_timeout(args, lead)), quiet)?;
    Ok(Member::Own(session, roots))
}

/// Returns the timeout for reaching the program of a ticket or a code unless an option sets it.
pub(crate) fn reach_timeout(args: &UnderlayArgs, lead: &Lead) -> Duration {
    if lead.ticket.dht().is_on() { REACH_TIMEOUT_WITH_DHT } else { args.reach_timeout() }
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

/// Waits until the program of a ticket or a code has answered.
fn wait(session: &Session, lead: &Lead, within: Duration, quiet: bool) -> Outcome {
    let (address, kind) = (lead.ticket.address().ip(), lead.kind());
    let text = session.looking_for(&format!("the program of this {kind}"), within);
    let waiting = if quiet { None } else { Some(waiting::start(text)?) };
    let found = session.joined.wait_peer(address, within);
    drop(waiting);
    found.map_err(|error| match error.kind() {
        ErrorKind::TimedOut | ErrorKind::HostUnreachable => {
            session.log_silence(address, within);
            let (servers, root) = session.servers_to_check();
            let reached = match (root, session.node.status().dht, &lead.code) {
                (Some(root), ..) => format!("; {root} was reached, and it was not found there"),
                (None, None, None) => {
                    ", and that both machines are on the same LAN, or make the ticket with --root or \
                                 --dht"
                        .to_owned()
                }
                (None, None, Some(_)) => {
                    ", and that both machines are on the same LAN, or give both commands the same --root, or \
                     --dht"
                        .to_owned()
                }
                (None, Some(_), _) => String::new(),
            };
            let of_send = match &lead.code {
                Some(_) => "; a code of `peersock send` is for `peersock receive`",
                None => "",
            };
            Failure::new(
                format_args!(
                    "the program that made this {kind} has not answered within {} s",
                    within.as_secs_f64()
                ),
                format_args!(
                    "check that it still runs, because a {kind} ends with its program{reached}{of_send}; \
                     {servers}-v shows what was tried"
                ),
            )
        }
        _ => error.into(),
    })
}

/// Says who can use a new ticket, as far as that may surprise.
pub(crate) fn announce(args: &UnderlayArgs, lead: &Lead) {
    if lead.ticket.has_token() {
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

/// Returns the ticket or code that an argument names: itself, `@FILE`, or `-` for a line of stdin. Returns
/// `None` for an argument that is neither.
pub(crate) fn named(argument: &str) -> Outcome<Option<Lead>> {
    let text = match argument {
        "-" => first_line(&mut File::from(io::stdin().as_fd().try_clone_to_owned()?)).map_err(|error| {
            Failure::new(
                format_args!("cannot read a ticket from stdin: {error}"),
                "give the ticket as an argument, as @FILE, or in PEERSOCK_TICKET",
            )
        })?,
        text if Ticket::is_claimed_by(text) || is_bare(text) || Code::is_claimed_by(text) => {
            Zeroizing::new(text.to_owned())
        }
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

/// Parses a ticket or a code; typing errors are detected here, without contacting a peer.
pub(crate) fn parse(text: &str) -> Outcome<Lead> {
    if Code::is_claimed_by(text) {
        return Ok(Lead::of_code(parse_code(text, "peersock listen --code")?)?.0);
    }
    if Invite::is_claimed_by(text) {
        return Err(Failure::usage(
            "this is an invite to a network, and no ticket",
            "give it to `peersock join`",
        ));
    }
    let parsed = match is_bare(text) {
        true => Zeroizing::new(Ticket::PREFIX.to_owned() + text.trim()).parse(),
        false => text.parse(),
    };
    let parsed = parsed.map_err(|error: TicketError| {
        Failure::usage(
            format_args!("{error}"),
            "give it as `peersock share` or `peersock listen --ticket` has printed it, whole and on one line",
        )
    });
    Ok(Lead { ticket: parsed?, code: None })
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
    fn codes_are_told_from_targets_and_tickets() {
        let mistyped = ["0R64E-5YRY4-JQV4R", "0R64E-5YRY4-JQV4", "0R64E 5YRY4 JQV4R", "0r64e-5yry44-jqv4q"];
        for text in ["0R64E-5YRY4-JQV4Q", "0r64e5yry4jqv4q"].into_iter().chain(mistyped) {
            assert!(Code::is_claimed_by(text), "{text}");
        }
        for text in [
            "alpha:7000",
            "[fd12::1]:7000",
            "10.77.0.2:80",
            "peersock://x",
            "@code",
            "prod-east-mail",
            "a-b-c",
        ] {
            assert!(!Code::is_claimed_by(text), "{text}");
        }
        for text in mistyped {
            assert_eq!(parse(text).err().map(|failure| failure.status()), Some(2), "{text}");
        }
        let invite = parse("peersock://e18a4c0277d19b3f/EXAMPLE").err().expect("no ticket");
        assert!(invite.message().contains("is an invite"), "{}", invite.message());
    }

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
