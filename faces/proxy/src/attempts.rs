//! Rate limit of password attempts: one wrong password per second for each client, over any number of
//! connections. A client is a member, an address of the system's network, or all programs of this machine.
//!
//! ```text
//! attempt of a client ──> let in with the same before? ──yes──> right
//!                               │no
//!                         turn of the client, a second after the one before
//!                               │
//!                         compared: right, and the turn is given back; or wrong, and told a second later
//! ```
//!
//! No password is checked before the client's turn, because an immediate answer would single out the right
//! one of many guesses. Only logins that were accepted before are compared at once, so that an accepted
//! client does not wait behind a guesser at the same address. If this comparison fails and no turn is left,
//! the attempt counts as a guess: twenty of these are allowed at once, and then one per second.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::credentials::{Credentials, Digest};
use crate::owner::Owner;

/// Wait of a client after a wrong password, and of the next attempt after it.
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_secs(1);

/// Longest wait of an attempt for its turn; an attempt that would wait longer is refused.
const MAX_TURN_WAIT: Duration = Duration::from_secs(8);

/// Budget for comparing attempts without a turn with known logins, at one [`WRONG_PASSWORD_PAUSE`] each.
const KNOWN_LOGIN_BUDGET: Duration = Duration::from_secs(20);

/// Limit of the clients that are counted separately. Further ones share their turns.
const MAX_CLIENTS: usize = 1024;

/// Limit of the logins that are remembered for one client.
const MAX_KNOWN_LOGINS: usize = 16;

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    Right,
    Wrong,
    /// The attempt was not checked, because too many wait.
    TooMany,
}

/// The users of a proxy, and the recent attempts.
pub(crate) struct Attempts {
    credentials: Credentials,
    clients: Mutex<Clients>,
}

impl Attempts {
    pub(crate) fn new(credentials: Credentials) -> Attempts {
        Attempts { credentials, clients: Mutex::default() }
    }

    /// Checks a client's password when its turn comes. All programs of this machine are one client.
    pub(crate) async fn check(&self, source: Option<Owner>, user: &[u8], password: &[u8]) -> Attempt {
        let shown = Digest::of(user, password);
        let clients = || self.clients.lock().expect("no panic under this lock");
        let turn = match clients().begin(source, &shown, Instant::now()) {
            Begun::Known => return Attempt::Right,
            Begun::TooMany => return Attempt::TooMany,
            Begun::Turn(turn) => turn,
        };
        sleep_until(turn).await;
        if self.credentials.has(&shown) {
            clients().admit(source, shown);
            return Attempt::Right;
        }
        sleep_until(turn + WRONG_PASSWORD_PAUSE).await;
        Attempt::Wrong
    }
}

#[derive(Default)]
struct Clients {
    each: HashMap<Option<Owner>, Client>,
    /// State shared by the clients for which there was no room.
    others: Client,
}

#[derive(Default)]
struct Client {
    /// Time at which the next attempt may be checked.
    free: Option<Instant>,
    /// Logins with which the client was accepted.
    known: Vec<Digest>,
    /// Time at which the whole budget for attempts without a turn is available again.
    looks_free: Option<Instant>,
}

/// The start of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Begun {
    Known,
    Turn(Instant),
    TooMany,
}

impl Clients {
    fn begin(&mut self, source: Option<Owner>, shown: &Digest, now: Instant) -> Begun {
        let client = self.client(source, now);
        let looks_free = client.looks_free.map_or(now, |free| free.max(now));
        let may_look = looks_free + WRONG_PASSWORD_PAUSE <= now + KNOWN_LOGIN_BUDGET;
        if may_look && client.known.iter().any(|known| known.is(shown)) {
            return Begun::Known;
        }
        let turn = client.free.map_or(now, |free| free.max(now));
        if turn.saturating_duration_since(now) > MAX_TURN_WAIT {
            if may_look {
                client.looks_free = Some(looks_free + WRONG_PASSWORD_PAUSE);
            }
            return Begun::TooMany;
        }
        client.free = Some(turn + WRONG_PASSWORD_PAUSE);
        Begun::Turn(turn)
    }

    /// Gives back the turn of a right password, and remembers the login.
    fn admit(&mut self, source: Option<Owner>, shown: Digest) {
        let client = match self.each.get_mut(&source) {
            Some(client) => client,
            // Remember nothing for the shared clients, because the login of one would then admit all.
            None => {
                self.others.free = self.others.free.map(|free| free - WRONG_PASSWORD_PAUSE);
                return;
            }
        };
        client.free = client.free.map(|free| free - WRONG_PASSWORD_PAUSE);
        if client.known.len() < MAX_KNOWN_LOGINS && !client.known.iter().any(|known| known.is(&shown)) {
            client.known.push(shown);
        }
    }

    fn client(&mut self, source: Option<Owner>, now: Instant) -> &mut Client {
        if self.each.len() >= MAX_CLIENTS && !self.each.contains_key(&source) {
            // Clients that wait for nothing lose only their known logins.
            self.each.retain(|_, client| client.free.is_some_and(|free| free > now));
            if self.each.len() >= MAX_CLIENTS {
                return &mut self.others;
            }
        }
        self.each.entry(source).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::host_of;

    /// Returns a client on the system's network.
    fn at(from: &str) -> Option<Owner> {
        Some(Owner::Address(host_of(from.parse().unwrap())))
    }

    fn wait(clients: &mut Clients, from: &str, now: Instant) -> Option<Duration> {
        match clients.begin(at(from), &Digest::of(b"anna", b"wrong"), now) {
            Begun::Turn(turn) => Some(turn - now),
            Begun::Known => panic!("it is wrong"),
            Begun::TooMany => None,
        }
    }

    #[test]
    fn attempts_of_one_client_wait_for_each_other_and_those_of_others_do_not() {
        let (mut clients, now) = (Clients::default(), Instant::now());
        for seconds in 0..=8 {
            assert_eq!(wait(&mut clients, "192.0.2.1", now), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(wait(&mut clients, "192.0.2.1", now), None);
        assert_eq!(wait(&mut clients, "::ffff:192.0.2.1", now), None, "the same address");
        assert_eq!(wait(&mut clients, "192.0.2.2", now), Some(Duration::ZERO));
        // In IPv6 all addresses of a /64 are one client, because its owner has all of them.
        assert_eq!(wait(&mut clients, "2001:db8::1", now), Some(Duration::ZERO));
        assert_eq!(wait(&mut clients, "2001:db8::2", now), Some(WRONG_PASSWORD_PAUSE));
        assert_eq!(wait(&mut clients, "2001:db8:0:1::2", now), Some(Duration::ZERO));
        // A refused attempt has taken no turn.
        assert_eq!(wait(&mut clients, "192.0.2.1", now + WRONG_PASSWORD_PAUSE), Some(Duration::from_secs(8)));
        assert_eq!(wait(&mut clients, "192.0.2.1", now + 60 * WRONG_PASSWORD_PAUSE), Some(Duration::ZERO));
    }

    #[test]
    fn who_was_let_in_waits_for_nobody_and_takes_no_turn() {
        let (mut clients, now) = (Clients::default(), Instant::now());
        let from = at("192.0.2.1");
        let right = || Digest::of(b"anna", b"correct horse");
        assert_eq!(clients.begin(from, &right(), now), Begun::Turn(now));
        clients.admit(from, right());
        for seconds in 0..5 {
            assert_eq!(wait(&mut clients, "192.0.2.1", now), Some(Duration::from_secs(seconds)));
            assert_eq!(clients.begin(from, &right(), now), Begun::Known);
        }
        let elsewhere = at("192.0.2.2");
        assert_eq!(clients.begin(elsewhere, &right(), now), Begun::Turn(now));
    }

    #[test]
    fn known_logins_are_no_oracle_without_turns() {
        let (mut clients, mut now) = (Clients::default(), Instant::now());
        let from = at("192.0.2.1");
        let right = || Digest::of(b"anna", b"correct horse");
        assert_eq!(clients.begin(from, &right(), now), Begun::Turn(now));
        clients.admit(from, right());
        assert_eq!(clients.begin(from, &right(), now), Begun::Known);
        let guess = |clients: &mut Clients, now, number: u32| {
            clients.begin(from, &Digest::of(b"anna", &number.to_be_bytes()), now)
        };
        // Waiting guesses take all turns, and more arrive at once.
        for number in 0..9 {
            assert!(matches!(guess(&mut clients, now, number), Begun::Turn(_)));
        }
        for number in 9..10_000 {
            assert_eq!(guess(&mut clients, now, number), Begun::TooMany);
        }
        assert_eq!(clients.begin(from, &right(), now), Begun::TooMany, "the right one is told of many");
        // After a second one more attempt is compared: an accepted client does not wait long, and guesses
        // gain nothing.
        now += WRONG_PASSWORD_PAUSE;
        assert_eq!(clients.begin(from, &right(), now), Begun::Known);
        assert!(matches!(guess(&mut clients, now, 0), Begun::Turn(_)));
        for number in 1..3 {
            assert_eq!(guess(&mut clients, now, number), Begun::TooMany);
        }
        assert_eq!(clients.begin(from, &right(), now), Begun::TooMany);
    }

    #[test]
    fn clients_that_there_is_no_room_for_share_their_turns() {
        let (mut clients, now) = (Clients::default(), Instant::now());
        for number in 0..MAX_CLIENTS as u32 {
            let from = std::net::Ipv4Addr::from_bits(number).to_string();
            assert_eq!(wait(&mut clients, &from, now), Some(Duration::ZERO));
        }
        assert_eq!(wait(&mut clients, "192.0.2.1", now), Some(Duration::ZERO));
        assert_eq!(wait(&mut clients, "192.0.2.2", now), Some(WRONG_PASSWORD_PAUSE));
        assert_eq!(clients.each.len(), MAX_CLIENTS);
        // The others have waited long enough by then.
        assert_eq!(wait(&mut clients, "192.0.2.2", now + 2 * WRONG_PASSWORD_PAUSE), Some(Duration::ZERO));
        assert_eq!(clients.each.len(), 1);
    }
}
