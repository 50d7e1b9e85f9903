//! `peersock receive` from members of a network.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::Instant;

use peersock::{Network, NodeId};
use peersock_files::{Folder, Manifest, Offered, Options, PORT, decline, offered};
use peersock_proxy::serving::{Owner, Slots};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{QueueSelector, tcflush};

use crate::args::{managed_name, parse_host};
use crate::failure::{Failure, Outcome};
use crate::files::{hidden, summary};
use crate::line_limit::LineLimit;
use crate::member::{Member, node_has_ended};
use crate::receipt::{self, Account};
use crate::receive::Args;
use crate::retries::Retries;
use crate::sockets::{Listener, Stream};
use crate::{managed, names, open_network, session, signals, silence, stdio};

/// Maximum number of members' connections at once, half of them of one member. Each may have offered as much
/// as a manifest holds.
const MAX_OFFERS: usize = 8;

/// Interval of looks whether the sender still waits while a person is asked.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Maximum length of a person's answer in bytes.
const LONGEST_ANSWER: usize = 1024;

/// Reason for a member whose files a person has declined.
const DECLINED: &str = "the person there has declined";

pub(crate) fn run(args: &Args, folder: Folder) -> Outcome {
    let asks = !args.yes && args.from.is_empty() && !args.list;
    if asks && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::usage(
            "cannot ask whose files to receive: stdin or stderr is no terminal",
            "name the members with --from NAME, or give --yes to receive from every member",
        ));
    }
    let network = args.network.resolve_for(&args.node, &args.node.state)?;
    session::check_port(&network, PORT)?;
    let from = args.from.iter().map(|text| From::parse(&network, text)).collect::<Outcome<Vec<_>>>()?;
    let member = Member::open_in_until("receive", &args.node, network, || {
        stdio::note("stopped; received data is kept, and the same command continues with it");
    })?;
    let result = serve(args, folder, from, asks, &member);
    signals::leave_to_cleanup();
    result.map_err(|failure| member.explained(failure)).and(member.close())
}

fn serve(args: &Args, folder: Folder, from: Vec<From>, asks: bool, member: &Member) -> Outcome {
    let listeners = listeners(member)?;
    announce(args, member);
    let watch = silence::Watch::start(member.heard(), args.silence.peer_timeout, true)?;
    let server = Arc::new(Server {
        options: Options { overwrite: args.overwrite, list_only: args.list },
        folder,
        to: args.to.display().to_string(),
        from,
        asks,
        keep: args.keep,
        quiet: args.quiet,
        owners: member.owners(),
        ways: Arc::from(member.ways()),
        watch,
        places: Slots::new(MAX_OFFERS),
        desk: Mutex::default(),
        declined: Mutex::default(),
        limit: Mutex::default(),
    });
    let (events, event) = mpsc::channel();
    let removed = events.clone();
    managed::on_removal(member.network().id(), move |failure| {
        let _ = removed.send(Event::Failed(failure));
    })?;
    let listeners: Vec<_> = listeners.into_iter().map(Arc::new).collect();
    for listener in &listeners {
        let (server, listener, events) = (Arc::clone(&server), Arc::clone(listener), events.clone());
        thread::Builder::new().name("accept".into()).spawn(move || {
            let error = server.accept(&listener, &events);
            let _ = events.send(Event::Failed(match error.kind() {
                io::ErrorKind::NetworkDown => node_has_ended("no files come any more"),
                _ => error.into(),
            }));
        })?;
    }
    let mut deadline = args.timeout.map(|within| Instant::now() + within);
    let (mut broken, mut retries) = (None, Retries::new(args.retry));
    let result = loop {
        let next = match deadline {
            Some(at) => event.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => event.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next.map_err(|_| broken.take()) {
            Ok(Event::Begun { is_new }) => {
                (deadline, broken) = (None, None);
                if is_new {
                    retries = Retries::new(args.retry);
                }
            }
            Ok(Event::Broke { failure, moved }) => {
                let now = Instant::now();
                retries.note_break(moved, now);
                (deadline, broken) = (Some(now + retries.left(now)), Some(failure));
            }
            Ok(Event::Received) => break Ok(()),
            Ok(Event::Failed(failure)) => break Err(failure),
            Err(Some(failure)) => break Err(failure),
            Err(None) => {
                let within = args.timeout.unwrap_or_default().as_secs_f64();
                break Err(Failure::new(
                    format_args!("no member has sent files within {within} s"),
                    "start `peersock send -n` at the other end, or give a longer --timeout",
                ));
            }
        }
    };
    listeners.iter().for_each(|listener| listener.close());
    result
}

fn listeners(member: &Member) -> Outcome<Vec<Listener>> {
    let listen = |address: IpAddr| {
        member.listen(SocketAddr::new(address, PORT)).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Failure::new(
                "this machine receives already: another `peersock receive` waits in this network",
                "use that one, or end it; --as NAME receives beside it under another name",
            ),
            _ => error.into(),
        })
    };
    member.addresses().into_iter().map(listen).collect()
}

/// Tells how to send files here.
fn announce(args: &Args, member: &Member) {
    open_network::tell([member.network()]);
    if args.quiet {
        return;
    }
    let name = match args.node.has_label() {
        // The node's status has the machine's name.
        true => None,
        false => member
            .own_name()
            .or_else(|| names::name_of(member.network(), member.addresses()[0]).map(Into::into)),
    };
    let name = name.unwrap_or_else(|| member.addresses()[0].to_string());
    let network = args.network.as_options(member.network());
    stdio::note(format_args!(
        "waiting for files of a member of network {}; send with: peersock send {network} FILE {name}",
        member.network().id()
    ));
}

/// Member whose files are wanted.
enum From {
    Name(String),
    Address(IpAddr),
}

impl From {
    fn parse(network: &Network, text: &str) -> Outcome<From> {
        if let Some(name) = managed_name(network, text) {
            return Ok(From::Name(name));
        }
        let address = parse_host(network, text)?;
        Ok(names::name_of(network, address)
            .map_or(From::Address(address), |name| From::Name(name.to_owned())))
    }
}

/// Node, or machine behind a gateway, that a person agrees to. Another one of the same member is asked about
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Who {
    owner: Owner,
    node: Option<NodeId>,
    /// Address of a machine behind a gateway.
    behind: Option<IpAddr>,
}

impl Who {
    /// Returns the member, or the machine behind it, with all its programs.
    fn client(&self) -> (Owner, Option<IpAddr>) {
        (self.owner, self.behind)
    }
}

/// Member that has connected, as its session proves.
struct Peer {
    who: Who,
    address: IpAddr,
    /// Name of the machine, and with the label of its program; none for a machine behind a gateway.
    names: Vec<String>,
    /// Name for people.
    called: String,
}

/// Files that are being received, or whose transfer has broken off.
struct Agreed {
    who: Who,
    manifest: Manifest,
    account: Account,
}

/// Place of the one receipt at a time.
#[derive(Default)]
struct Desk {
    agreed: Option<Agreed>,
    /// True once the command ends.
    is_over: bool,
}

/// An event from a thread of the server.
enum Event {
    /// Files are being received, in the first attempt if `is_new`.
    Begun {
        is_new: bool,
    },
    /// A transfer has broken off, and its sender is waited for. `moved` counts the bytes of all attempts.
    Broke {
        failure: Failure,
        moved: u64,
    },
    /// The command has received what it waits for.
    Received,
    Failed(Failure),
}

struct Server {
    options: Options,
    folder: Folder,
    /// The folder, for people.
    to: String,
    from: Vec<From>,
    asks: bool,
    keep: bool,
    quiet: bool,
    owners: Box<dyn Fn(IpAddr) -> Owner + Send + Sync>,
    ways: Arc<dyn Fn(IpAddr) -> Option<&'static str> + Send + Sync>,
    watch: silence::Watch,
    /// Places of members whose offers are read.
    places: Slots,
    desk: Mutex<Desk>,
    /// Members that are not asked about again.
    declined: Mutex<HashSet<(Owner, Option<IpAddr>)>>,
    limit: Mutex<LineLimit>,
}

impl Server {
    fn accept(self: &Arc<Self>, listener: &Listener, events: &Sender<Event>) -> io::Error {
        loop {
            let (stream, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => return error,
            };
            let sender = self.sender(&stream, address.ip());
            let Some(place) = self.places.take(Some(sender.who.owner)) else {
                self.tell_seldom(|| {
                    format!("{} has too many connections, and another is refused", sender.called)
                });
                continue;
            };
            let (server, events) = (Arc::clone(self), events.clone());
            let started = thread::Builder::new().name("sender".into()).spawn(move || {
                server.serve(&stream, &sender, &events);
                drop(place);
            });
            if let Err(error) = started {
                tracing::warn!(client = %address, %error, "there is no thread for this sender");
            }
        }
    }

    /// Returns who has connected.
    fn sender(&self, stream: &Stream, address: IpAddr) -> Peer {
        let peer = stream.peer();
        let owner = peer.as_ref().map_or_else(|| (self.owners)(address), |peer| Owner::Member(peer.machine));
        let is_behind = peer.as_ref().is_some_and(|peer| peer.gateway);
        let node = peer.as_ref().map(|peer| peer.node);
        let who = Who { owner, node, behind: is_behind.then_some(address) };
        let (mut names, mut called) = (Vec::new(), address.to_string());
        if let Some((peer, full)) = peer.and_then(|peer| peer.full_name().map(|full| (peer, full))) {
            match peer.gateway {
                true => called = format!("a machine behind {full} ({address})"),
                false => {
                    called.clone_from(&full);
                    names = [peer.name, Some(full)].into_iter().flatten().collect();
                }
            }
        }
        Peer { who, address, names, called }
    }

    fn serve(&self, stream: &Stream, sender: &Peer, events: &Sender<Event>) {
        let called = &sender.called;
        tracing::info!(client = %called, "connected");
        if let Some(reason) = self.refusal(sender) {
            self.tell_seldom(|| format!("{called} wants to send files, and is refused: {reason}"));
            return decline(stream, reason);
        }
        let watched = match self.watch.add(stream, sender.address) {
            Ok(watched) => watched,
            Err(error) => return tracing::warn!(client = %called, %error, "the connection cannot be watched"),
        };
        let offered = match offered(stream) {
            Ok(offered) => offered,
            Err(error) => return self.tell_seldom(|| format!("{called} has offered no files: {error}")),
        };
        let Some(mut desk) = self.take_desk(sender) else {
            self.tell_seldom(|| format!("{called} wants to send files, and must come back later"));
            return offered.put_off();
        };
        let event = self.receive(&mut desk, offered, sender, events);
        // Before the place is free: the sender may come back at once.
        event.into_iter().for_each(|event| drop(events.send(event)));
        drop((desk, watched));
    }

    /// Returns the reason why a member's files are not wanted; `None` if they may be.
    fn refusal(&self, sender: &Peer) -> Option<&'static str> {
        let is_from = |from: &From| match from {
            From::Name(name) => sender.names.iter().any(|one| one.eq_ignore_ascii_case(name)),
            From::Address(address) => {
                // A member has several addresses, and the machines behind it have others.
                *address == sender.address
                    || sender.who.behind.is_none() && (self.owners)(*address) == sender.who.owner
            }
        };
        if !self.from.is_empty() && !self.from.iter().any(is_from) {
            return Some("only others are received from there");
        }
        let declined = self.declined.lock().expect("no panic under this lock");
        declined.contains(&sender.who.client()).then_some(DECLINED)
    }

    /// Takes the place at which files are received; `None` if another member has it.
    fn take_desk(&self, sender: &Peer) -> Option<MutexGuard<'_, Desk>> {
        let desk = match self.desk.try_lock() {
            Ok(desk) => desk,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let is_others = desk.agreed.as_ref().is_some_and(|agreed| agreed.who.client() != sender.who.client());
        (!desk.is_over && (self.keep || !is_others)).then_some(desk)
    }

    /// Receives files that are agreed to. Returns the event that follows from that.
    fn receive(
        &self,
        desk: &mut Desk,
        mut offered: Offered<'_, Stream>,
        sender: &Peer,
        events: &Sender<Event>,
    ) -> Option<Event> {
        // A transfer goes on without a question if it is the same.
        let is_same = |agreed: &Agreed| agreed.who == sender.who && agreed.manifest == *offered.manifest();
        let is_new = !desk.agreed.as_ref().is_some_and(is_same);
        if is_new {
            if self.asks && !self.agrees(sender, &mut offered)? {
                self.declined.lock().expect("no panic under this lock").insert(sender.who.client());
                offered.decline(DECLINED);
                return None;
            }
            let (ways, address) = (Arc::clone(&self.ways), sender.address);
            let look = Box::new(move || ways(address));
            let account = Account::new(Some(&sender.called), self.options.list_only, self.quiet, look);
            desk.agreed = Some(Agreed { who: sender.who, manifest: offered.manifest().clone(), account });
        }
        let agreed = desk.agreed.as_ref().expect("it is set above");
        let _ = events.send(Event::Begun { is_new });
        let received = offered.receive(&self.folder, self.options, &agreed.account);
        agreed.account.meter.clear();
        let failure = match received {
            Ok(receipt) => agreed.account.conclude(&receipt).err(),
            Err(error) => {
                let failure = receipt::failure(&error, "let the sender send the same files again");
                if error.is_worth_another_try() {
                    stdio::note(format_args!("{}; {} can continue", receipt::broken(&error), sender.called));
                    let moved = agreed.account.received();
                    return (!self.keep).then_some(Event::Broke { failure, moved });
                }
                Some(failure)
            }
        };
        desk.agreed = None;
        match failure {
            Some(failure) if self.keep => {
                stdio::note(format_args!("warning: {}: {failure}", sender.called));
                None
            }
            _ if self.keep => None,
            failure => {
                desk.is_over = true;
                Some(failure.map_or(Event::Received, Event::Failed))
            }
        }
    }

    /// Asks the person at the terminal. Returns `None` if the sender has gone away.
    fn agrees(&self, sender: &Peer, offered: &mut Offered<'_, Stream>) -> Option<bool> {
        hidden(offered.manifest()).into_iter().for_each(stdio::note);
        // Input that was typed before the question is no consent.
        let _ = tcflush(io::stdin(), QueueSelector::IFlush);
        let summary = summary(offered.manifest());
        stdio::note(format_args!(
            "{} wants to send {summary}: type y to receive into {}, or n",
            sender.called, self.to
        ));
        loop {
            let stdin = io::stdin();
            let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
            if rustix::event::poll(&mut fds, Some(&LOOK_INTERVAL)).is_ok_and(|ready| ready > 0) {
                let mut answer = [0; LONGEST_ANSWER];
                let count = rustix::io::read(&stdin, &mut answer).unwrap_or_default();
                match std::str::from_utf8(&answer[..count]).unwrap_or_default() {
                    "" => return Some(false),
                    text => match text.trim().to_ascii_lowercase().as_str() {
                        "y" | "yes" => return Some(true),
                        "n" | "no" => return Some(false),
                        _ => stdio::note("type y or n"),
                    },
                }
            }
            signals::leave_to_cleanup();
            if offered.has_ended() {
                stdio::note(format_args!("{} has gone away", sender.called));
                return None;
            }
        }
    }

    /// Prints a line about what a member has done, of which there may be many.
    fn tell_seldom(&self, line: impl FnOnce() -> String) {
        let mut limit = self.limit.lock().expect("no panic under this lock");
        limit.pass(Instant::now(), line).into_iter().for_each(stdio::note);
    }
}
