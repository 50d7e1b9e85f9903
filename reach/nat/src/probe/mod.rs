//! Prober that asks STUN servers about the NAT in front of one local address. Sans-IO.
//!
//! A [`Prober`] has several UDP sockets of one local address, identified by number. The *main* one asks every
//! server, and all four endpoints of a server with RFC 5780, or both ports of a root; comparing the answers
//! shows the mapping. A
//! second socket, which has talked to one endpoint only, requests answers from others; those that arrive show
//! the filtering. A third sends to the main socket's mapped endpoint (hairpin). The rest send one request
//! each, in order, to show how the ports of successive flows follow each other.
//!
//! Call [`Prober::poll_transmit`] until it is `None`; then wait for a datagram or for
//! [`Prober::poll_timeout`]; repeat until [`Prober::is_finished`]. Each step begins when its prerequisites
//! are known. So a probe takes few round trips where answers arrive, and [`Settings::deadline`] where none
//! do.

mod run;
mod transaction;

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _, rngs::ChaCha20Rng};

use crate::behavior::{Observations, Sample};
use crate::nat64::Nat64Prefix;
use crate::scope::may_name;
use crate::stun::{Answer, AnswerFrom, TransactionId, binding_request, canonical, request_id};
pub use run::run;
use transaction::{Schedule, Transaction};

/// Numbers of the sockets.
const MAIN: usize = 0;
const FILTER: usize = 1;
const HAIRPIN: usize = 2;
const FIRST_FRESH: usize = 3;

/// Limit of the servers that are asked; further ones are left out.
pub const MAX_SERVERS: usize = 8;

/// Settings of a probe.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The STUN servers or roots to ask, of the sockets' family, or of IPv4 if [`Self::nat64`] is set. Only
    /// the first [`MAX_SERVERS`] count.
    pub servers: Vec<SocketAddr>,
    /// Time after which the probe stops in any case. Unfinished tests then count as not done. Default: 4 s.
    pub deadline: Duration,
    /// True to stop at the first answer, which shows the mapped address, and ask nothing else. Default:
    /// false.
    pub address_only: bool,
    /// The network's NAT64, if IPv4 servers are asked through it. The sockets are then IPv6 sockets, and the
    /// NAT64 is probed. Default: none.
    pub nat64: Option<Nat64Prefix>,
}

impl Settings {
    /// Makes settings for all tests with these servers.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, deadline: Duration::from_secs(4), address_only: false, nat64: None }
    }
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The number of the socket to send it from.
    pub socket: usize,
    /// The destination.
    pub to: SocketAddr,
    /// The payload.
    pub data: Vec<u8>,
}

/// The purpose of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// An answer to the main socket. The index is the position among the endpoints that it asked.
    Map(usize),
    /// Opening the NAT for one endpoint, from the second socket.
    OpenFilter,
    /// An answer from the other port.
    FromOtherPort,
    /// An answer from the other address and the other port.
    FromOtherAddress,
    /// Learning the mapped endpoint of the third socket, which shows that it has one.
    OpenHairpin,
    /// A request to the main socket's mapped endpoint.
    Hairpin,
    /// An answer to one of the further sockets.
    Fresh(usize),
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map(_) => "mapped endpoint",
            Self::OpenFilter => "mapped endpoint of the second socket",
            Self::FromOtherPort => "answer from the other port",
            Self::FromOtherAddress => "answer from the other address",
            Self::OpenHairpin => "mapped endpoint of the third socket",
            Self::Hairpin => "own mapped endpoint",
            Self::Fresh(_) => "mapped endpoint of a further socket",
        })
    }
}

/// The probe of one local address.
#[derive(Debug)]
pub struct Prober {
    /// The sockets' local endpoints.
    local: Vec<SocketAddr>,
    deadline: Instant,
    address_only: bool,
    rng: ChaCha20Rng,
    transactions: Vec<Transaction>,
    queue: VecDeque<Transmit>,
    seen: Observations,
    main: Vec<Option<Sample>>,
    fresh: Vec<Option<Sample>>,
    /// Set once the tests after the first answer have begun.
    has_flows: bool,
    /// A server that answers from elsewhere on request: the endpoint that was asked, and its other endpoint.
    /// With RFC 5780 both differ, and only the ports with a root.
    behavior: Option<(SocketAddr, SocketAddr)>,
    /// The first server that has named a second port: the endpoint that was asked, and the one with that
    /// port. It becomes `behavior` once both have answered, because a firewall may hide the second port.
    two_ports: Option<(SocketAddr, SocketAddr)>,
    /// Hosts that may be asked often: the configured servers, and hosts that have answered.
    known: Vec<IpAddr>,
    finished: bool,
}

impl Prober {
    /// The smallest number of sockets.
    pub const MIN_SOCKETS: usize = FIRST_FRESH;

    /// Starts a probe. `local` contains the local endpoints of at least [`Prober::MIN_SOCKETS`] sockets of
    /// one address. Those from the fourth on show how ports follow each other. Every rule can be found if the
    /// fourth, fifth and sixth have successive ports and the others have not. `seed` must be unpredictable.
    ///
    /// # Panics
    /// With too few sockets.
    pub fn new(local: Vec<SocketAddr>, settings: &Settings, seed: [u8; 32], now: Instant) -> Self {
        assert!(local.len() >= Self::MIN_SOCKETS, "{} sockets are too few", local.len());
        // Servers that the NAT64 does not translate could not be reached.
        let is_usable = |server: &&SocketAddr| match settings.nat64 {
            Some(prefix) => prefix.synthesize(**server) != **server,
            None => server.is_ipv4() == local[MAIN].is_ipv4(),
        };
        let mut servers: Vec<SocketAddr> = Vec::new();
        for server in settings.servers.iter().filter(is_usable) {
            if !servers.contains(server) && servers.len() < MAX_SERVERS {
                servers.push(*server);
            }
        }
        let mut prober = Self {
            seen: Observations { asked: servers.len(), ..Observations::none(local[MAIN].ip()) },
            fresh: vec![None; local.len() - FIRST_FRESH],
            local,
            deadline: now + settings.deadline,
            address_only: settings.address_only,
            rng: ChaCha20Rng::from_seed(seed),
            transactions: Vec::new(),
            queue: VecDeque::new(),
            main: Vec::new(),
            has_flows: false,
            behavior: None,
            two_ports: None,
            known: servers.iter().map(SocketAddr::ip).collect(),
            finished: servers.is_empty(),
        };
        for server in servers {
            prober.ask_main(server, Schedule::UNKNOWN, now);
        }
        prober
    }

    /// Returns true if nothing is left to do.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Returns the observations.
    pub fn into_observations(self) -> Observations {
        let mut seen = self.seen;
        seen.main = self.main.into_iter().flatten().collect();
        seen.fresh = self.fresh.into_iter().flatten().collect();
        seen
    }

    /// Returns the next datagram to send, if any. Poll this again after every other call.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.queue.pop_front()
    }

    /// Returns the time to call [`Prober::handle_timeout`], unless the probe is finished. Every call can
    /// change it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self.transactions.iter().map(Transaction::next).min();
        (!self.finished).then(|| next.map_or(self.deadline, |next| next.min(self.deadline)))
    }

    /// Handles the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.deadline {
            self.transactions.clear();
        }
        let mut index = 0;
        while index < self.transactions.len() {
            let transaction = &mut self.transactions[index];
            if transaction.next() > now {
                index += 1;
            } else if transaction.repeat(now, !self.known.contains(&transaction.to.ip())) {
                self.queue.push_back(transaction.transmit());
                index += 1;
            } else {
                let given_up = self.transactions.remove(index);
                self.unanswered(given_up.purpose, now);
            }
        }
        self.settle();
    }

    /// Takes a datagram that arrived at a socket. Foreign datagrams change nothing.
    pub fn handle_datagram(&mut self, now: Instant, socket: usize, from: SocketAddr, data: &[u8]) {
        let from = canonical(from);
        if let Some(answer) = Answer::parse(data) {
            self.answered(now, socket, from, answer);
        } else if let Some(id) = request_id(data)
            && socket == MAIN
            && let Some(index) = self.find(|one| one.id == id && one.purpose == Purpose::Hairpin)
        {
            self.transactions.remove(index);
            self.seen.hairpin = Some(true);
        }
        self.settle();
    }

    fn answered(&mut self, now: Instant, socket: usize, from: SocketAddr, answer: Answer) {
        let Some(index) = self.find(|one| one.id == answer.id && one.socket == socket) else { return };
        let transaction = &self.transactions[index];
        if from != self.expected(transaction) {
            // A server that ignores the change request cannot tell the filter. Its answer would make every
            // NAT look open, and its silence at the other endpoint would make every NAT look closed.
            if matches!(transaction.purpose, Purpose::FromOtherPort | Purpose::FromOtherAddress) {
                self.transactions.remove(index);
            }
            return;
        }
        let transaction = self.transactions.remove(index);
        if !self.known.contains(&transaction.to.ip()) {
            self.known.push(transaction.to.ip());
        }
        let sample = Sample {
            local: self.local[socket],
            server: transaction.to,
            mapped: answer.mapped,
            rtt: now.saturating_duration_since(transaction.last_sent()),
        };
        let filtered = Schedule::filtered(sample.rtt);
        match transaction.purpose {
            Purpose::Map(index) => self.mapped(now, index, sample, &answer),
            Purpose::OpenFilter => {
                let ask = [
                    (Purpose::FromOtherAddress, AnswerFrom::OtherAddressAndPort),
                    (Purpose::FromOtherPort, AnswerFrom::OtherPort),
                ];
                for (purpose, answer_from) in ask.into_iter().skip(usize::from(!self.has_other_address())) {
                    self.send(purpose, FILTER, sample.server, answer_from, filtered, now);
                }
            }
            Purpose::FromOtherPort => self.seen.from_other_port = Some(true),
            Purpose::FromOtherAddress => self.seen.from_other_address = Some(true),
            Purpose::OpenHairpin => {
                let is_own = |at: SocketAddr| at.ip() == self.local[MAIN].ip();
                if let Some(main) = self.main.iter().flatten().next()
                    && (is_own(main.mapped) || may_name(main.server, main.mapped))
                {
                    self.send(Purpose::Hairpin, HAIRPIN, main.mapped, AnswerFrom::Same, filtered, now);
                }
            }
            Purpose::Hairpin => {}
            Purpose::Fresh(index) => self.fresh[index] = Some(sample),
        }
    }

    /// Handles an answer to the main socket.
    fn mapped(&mut self, now: Instant, index: usize, sample: Sample, answer: &Answer) {
        self.main[index] = Some(sample);
        if self.address_only {
            self.transactions.clear();
            return;
        }
        let owed = Schedule::owed(sample.rtt);
        if !self.has_flows {
            self.has_flows = true;
            for index in 0..self.fresh.len() {
                let socket = FIRST_FRESH + index;
                self.send(Purpose::Fresh(index), socket, sample.server, AnswerFrom::Same, owed, now);
            }
            self.send(Purpose::OpenHairpin, HAIRPIN, sample.server, AnswerFrom::Same, owed, now);
        }
        let other = answer.other.filter(|other| {
            // RFC 5780 (7.4): both must differ, or the server has no second address and the tests mean
            // nothing.
            other.ip() != sample.server.ip()
                && other.port() != sample.server.port()
                && may_name(sample.server, *other)
        });
        if let (false, Some(other)) = (self.has_other_address(), other) {
            // It reveals more than two ports of one address.
            self.transactions
                .retain(|one| !matches!(one.purpose, Purpose::OpenFilter | Purpose::FromOtherPort));
            self.seen.from_other_port = None;
            self.behavior = Some((sample.server, other));
            let ports = (sample.server.port(), other.port());
            self.ask_main(SocketAddr::new(other.ip(), ports.0), owed, now);
            self.ask_main(other, owed, now);
            self.ask_main(SocketAddr::new(sample.server.ip(), ports.1), owed, now);
            self.send(Purpose::OpenFilter, FILTER, sample.server, AnswerFrom::Same, owed, now);
        }
        let second_port = answer.second_port.filter(|port| *port != sample.server.port());
        if let (None, None, Some(port)) = (self.behavior, self.two_ports, second_port) {
            let second = SocketAddr::new(sample.server.ip(), port);
            self.two_ports = Some((sample.server, second));
            self.ask_main(second, Schedule::filtered(sample.rtt), now);
        }
        if let (None, Some((first, second))) = (self.behavior, self.two_ports)
            && self.has_answered(second)
        {
            self.behavior = Some((first, second));
            self.send(Purpose::OpenFilter, FILTER, first, AnswerFrom::Same, owed, now);
        }
    }

    /// Returns true if a server answers from another address, too.
    fn has_other_address(&self) -> bool {
        self.behavior.is_some_and(|(asked, other)| asked.ip() != other.ip())
    }

    /// Returns true if an endpoint has answered the main socket.
    fn has_answered(&self, endpoint: SocketAddr) -> bool {
        self.main.iter().flatten().any(|sample| sample.server == endpoint)
    }

    /// Handles a request without an answer after its last retransmission.
    fn unanswered(&mut self, purpose: Purpose, now: Instant) {
        match purpose {
            Purpose::FromOtherPort => self.seen.from_other_port = Some(false),
            Purpose::FromOtherAddress => self.seen.from_other_address = Some(false),
            Purpose::Hairpin => self.seen.hairpin = Some(false),
            Purpose::Map(_) | Purpose::OpenFilter | Purpose::OpenHairpin | Purpose::Fresh(_) => {}
        }
        let left = self.deadline.saturating_duration_since(now);
        tracing::debug!(%purpose, left_ms = left.as_millis(), "no answer");
    }

    /// Returns the endpoint from which the answer must come.
    fn expected(&self, transaction: &Transaction) -> SocketAddr {
        match (transaction.purpose, self.behavior) {
            (Purpose::FromOtherPort, Some((asked, other))) => SocketAddr::new(asked.ip(), other.port()),
            (Purpose::FromOtherAddress, Some((_, other))) => other,
            _ => transaction.to,
        }
    }

    /// Finishes the probe when no transaction is left.
    fn settle(&mut self) {
        if !self.transactions.is_empty() {
            return;
        }
        self.finished = true;
        // A missing answer from an endpoint describes the NAT only if the endpoint answers direct requests.
        if let Some((asked, other)) = self.behavior {
            let other_port = SocketAddr::new(asked.ip(), other.port());
            if self.seen.from_other_port == Some(false) && !self.has_answered(other_port) {
                self.seen.from_other_port = None;
            }
            if self.seen.from_other_address == Some(false) && !self.has_answered(other) {
                self.seen.from_other_address = None;
            }
        }
    }

    fn ask_main(&mut self, server: SocketAddr, schedule: Schedule, now: Instant) {
        if self.transactions.iter().any(|one| matches!(one.purpose, Purpose::Map(_)) && one.to == server)
            || self.has_answered(server)
        {
            return;
        }
        self.main.push(None);
        self.send(Purpose::Map(self.main.len() - 1), MAIN, server, AnswerFrom::Same, schedule, now);
    }

    fn send(
        &mut self,
        purpose: Purpose,
        socket: usize,
        to: SocketAddr,
        from: AnswerFrom,
        schedule: Schedule,
        now: Instant,
    ) {
        let random = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64());
        let id = TransactionId::new(random);
        let data = binding_request(id, from);
        let transaction = Transaction::new(id, purpose, socket, to, data, schedule, now);
        self.queue.push_back(transaction.transmit());
        self.transactions.push(transaction);
    }

    fn find(&self, is_it: impl Fn(&Transaction) -> bool) -> Option<usize> {
        self.transactions.iter().position(is_it)
    }
}

#[cfg(test)]
mod tests;
