//! Node at which a controller serves: the one that the machine's programs share, or one in this process.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peersock::overlay::ManagedNetwork;
use peersock::overlay::membership::{Answer, Credentials, Head, Question, Revocations, SignedRules};
use peersock::state::{StateDir, StateError};
use peersock::{Joined, MemberQuestion, Network, Node, PublicIdentity, Seat};
use peersock_attach::{Answered, Asked, Attached, Bytes, Reached, Refusal};
use peersock_controller::{Controller, Renewals};

use super::now;
use crate::args::SharedNodeArgs;
use crate::failure::{Failure, Outcome};
use crate::node::{self, Beside, Host, seat_failure, start_node};
use crate::{attachment, in_use, stdio};

/// Time for which an earlier node that ends is waited for.
const ATTACH: Duration = Duration::from_secs(30);

/// Time for which a node in this process is drained at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// Time for which the end of the attachment waits for the shared node.
const DETACH: Duration = Duration::from_secs(2);

/// Name of this command, for other programs of the node.
const COMMAND: &str = "peersock controller";

/// Number of failures after which a controller whose node has ended gives up, unless it has served for
/// [`LASTING`] between two.
const MAX_FAILURES: u32 = 8;
const LASTING: Duration = Duration::from_secs(60);

/// Pauses before an attempt: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Node with the seat of the controller.
pub(super) enum Place {
    /// In this process. Other programs share it.
    Own {
        /// The node.
        node: Node,
        /// The network.
        joined: Joined,
        /// Its other programs.
        host: Host,
        /// The seat, until the end.
        _seat: Seat,
    },
    /// The node of the machine.
    Shared(Attached),
}

/// Parts of the controller that answer members' questions, on a separate thread.
#[derive(Clone)]
pub(super) struct Answers {
    controller: Arc<Mutex<Controller>>,
    renewals: Renewals,
}

impl Answers {
    pub(super) fn new(controller: &Arc<Mutex<Controller>>) -> Answers {
        let renewals = lock(controller).renewals();
        Answers { controller: Arc::clone(controller), renewals }
    }

    /// Answers a question of a node in this process.
    fn answer(&self, question: MemberQuestion) {
        let Some(source) = question.source() else { return };
        let asked = peersock_controller::Asked {
            peer: *question.asker(),
            source,
            question: question.question().clone(),
        };
        if let Some(answer) = self.answer_all(&[asked]).pop() {
            question.answer(&answer);
        }
    }

    /// Answers questions that the shared node has passed on. Those that cannot be read get no answer. Those
    /// that this process reads late, because it was stopped, use no invite any more: members ask again.
    fn answer_passed(&self, batch: Vec<Asked>) -> Vec<Answered> {
        let batch = batch.into_iter().filter(|one| !node::has_expired(one));
        let read = |one: Asked| {
            let peer: PublicIdentity = one.asker.parse().ok()?;
            let question = Question::parse(&one.question.0).ok()?;
            Some((one.number, peersock_controller::Asked { peer, source: one.source, question }))
        };
        let (numbers, asked): (Vec<_>, Vec<_>) = batch.filter_map(read).unzip();
        let answers = self.answer_all(&asked);
        let answered =
            |(number, answer): (u64, Answer)| Answered { number, answer: Bytes(answer.to_bytes()) };
        numbers.into_iter().zip(answers).map(answered).collect()
    }

    /// Answers from memory if that suffices, because the controller may wait for its disk.
    fn answer_all(&self, asked: &[peersock_controller::Asked]) -> Vec<Answer> {
        let now = now();
        let known = |one: &peersock_controller::Asked| {
            self.renewals.answer(now, &one.peer, one.source, &one.question)
        };
        let mut answers: Vec<_> = asked.iter().map(known).collect();
        let left = asked.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        let left: Vec<_> = left.map(|(one, _)| one.clone()).collect();
        if !left.is_empty() {
            let mut decided = lock(&self.controller).answer_all(now, &mut rand::rng(), &left).into_iter();
            answers.iter_mut().filter(|answer| answer.is_none()).for_each(|answer| *answer = decided.next());
        }
        answers.into_iter().flatten().collect()
    }
}

impl Place {
    /// Takes the seat at the node of the machine, or at one in this process.
    pub(super) fn open(args: &SharedNodeArgs, path: &Path, answers: &Answers) -> Outcome<Place> {
        let id = lock(&answers.controller).network();
        let network = Network::by_id(id)?;
        // The node's end shows in [`Place::has_ended`].
        let tell = |told| _ = attachment::show(told);
        let attached = attachment::open(args, COMMAND.to_owned(), &[network], ATTACH, tell)?;
        let credentials = lock(&answers.controller).credentials(now()).ok_or_else(super::right_has_ended)?;
        let Some(attached) = attached else { return Place::own(args, path, answers, credentials) };
        let passed = answers.clone();
        let taken = attached.take_seat(id, &credentials, move |batch| passed.answer_passed(batch));
        taken.map_err(|refusal| refusal.map_or_else(node_ended, failure))?;
        Ok(Place::Shared(attached))
    }

    fn own(
        args: &SharedNodeArgs,
        path: &Path,
        answers: &Answers,
        credentials: Credentials,
    ) -> Outcome<Place> {
        let (id, key, (head, set)) = {
            let mut controller = lock(&answers.controller);
            (controller.network(), controller.key(), controller.head(now()))
        };
        let network = Network::managed(ManagedNetwork {
            key: Some(key),
            credentials: Some(credentials.clone()),
            revocations: vec![(head, set.to_bytes().into())],
            is_controller: true,
            ..ManagedNetwork::new(id)
        });
        let state = match StateDir::open(path) {
            Err(StateError::InUse { path, holder }) => {
                return Err(in_use::for_own_node(&path, holder, std::slice::from_ref(&network)));
            }
            state => state?,
        };
        let socket = state.bind_node_socket()?;
        let node = start_node(args, &state)?;
        let joined = node.join(network.clone())?;
        let passed = answers.clone();
        let seat = joined.take_seat(&credentials, Box::new(move |question| passed.answer(question)));
        let seat = seat.map_err(|error| seat_failure(error, None))?;
        let beside = Beside {
            node: node.clone(),
            state,
            socket,
            networks: vec![(network, joined.clone())],
            roots: Vec::new(),
            command: COMMAND,
        };
        let host = Host::beside(beside, args)?;
        Ok(Place::Own { node, joined, host, _seat: seat })
    }

    /// Returns true once the node has ended.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Place::Own { .. } => false,
            Place::Shared(attached) => attached.has_ended(),
        }
    }

    /// Replaces the controller's own credentials.
    pub(super) fn set_credentials(&self, own: &Credentials) -> Outcome {
        match self {
            Place::Own { joined, .. } => joined.set_credentials(own).map_err(refused),
            Place::Shared(attached) => attached.set_credentials(own).map_err(seat_refused),
        }
    }

    /// Spreads revocations.
    pub(super) fn set_revocations(&self, head: &Head, set: &Revocations) -> Outcome {
        match self {
            Place::Own { joined, .. } => joined.set_revocations(head, set).map_err(refused),
            Place::Shared(attached) => attached.set_revocations(head, set).map_err(seat_refused),
        }
    }

    /// Spreads access rules.
    pub(super) fn set_rules(&self, rules: &SignedRules) -> Outcome {
        match self {
            Place::Own { joined, .. } => joined.set_rules(rules).map_err(refused),
            Place::Shared(attached) => attached.set_rules(rules).map_err(seat_refused),
        }
    }

    /// Begins sessions with members that may not know this controller.
    pub(super) fn visit(&self, members: &[PublicIdentity]) -> Outcome {
        match self {
            Place::Own { joined, .. } => {
                joined.visit_members(members);
                Ok(())
            }
            Place::Shared(attached) => attached.visit(members).map_err(seat_refused),
        }
    }

    /// Returns newest heads of issuers besides these, with the bytes of their sets.
    pub(super) fn heads(&self, known: &[Head]) -> Vec<(Head, Arc<[u8]>)> {
        match self {
            Place::Own { joined, .. } => {
                let heads = joined.revocations().into_iter();
                heads.filter(|(head, _)| !known.contains(head)).collect()
            }
            Place::Shared(attached) => attached.heads(known),
        }
    }

    /// Returns the peers that have a session.
    pub(super) fn connected(&self) -> Vec<Reached> {
        match self {
            Place::Own { node, joined, .. } => node::connected(node, joined),
            Place::Shared(attached) => attached.connected(),
        }
    }

    /// Leaves the seat at the end of the process. A node in this process ends with its programs' sockets.
    pub(super) fn end(&self) {
        match self {
            Place::Own { node, host, .. } => {
                host.end();
                node.shutdown(DRAIN);
            }
            Place::Shared(attached) => {
                let begun = Instant::now();
                attached.detach(|| begun.elapsed() >= DETACH);
            }
        }
    }
}

/// Attempts to serve again after the end of the node.
#[derive(Default)]
pub(super) struct Comeback {
    failures: u32,
    served_since: Option<Instant>,
}

impl Comeback {
    /// Notes that the controller serves.
    pub(super) fn note_served(&mut self) {
        self.served_since = Some(Instant::now());
    }

    /// Takes the seat again by `open`, after pauses by `sleep`.
    ///
    /// # Errors
    /// The last failure, after too many.
    pub(super) fn attach<T>(
        &mut self,
        mut open: impl FnMut() -> Outcome<T>,
        sleep: impl Fn(Duration),
    ) -> Outcome<T> {
        if self.served_since.take().is_some_and(|since| since.elapsed() >= LASTING) {
            self.failures = 0;
        }
        loop {
            sleep(pause(self.failures));
            self.failures += 1;
            match open() {
                Ok(opened) => {
                    self.note_served();
                    return Ok(opened);
                }
                Err(failure) if self.failures >= MAX_FAILURES => return Err(failure),
                Err(failure) => stdio::note(format_args!("no member is served: {}", failure.message())),
            }
        }
    }
}

/// Returns the pause after some failures.
fn pause(failures: u32) -> Duration {
    LAST_PAUSE.min(FIRST_PAUSE * 2_u32.pow(failures.min(MAX_FAILURES)))
}

fn failure(refusal: Refusal) -> Failure {
    Failure::passed_on(refusal.status, refusal.message, refusal.hint)
}

fn seat_refused(refusal: Option<Refusal>) -> Failure {
    refusal.map_or_else(node_ended, failure)
}

fn refused(refusal: peersock::overlay::membership::Refusal) -> Failure {
    Failure::new(format_args!("{refusal}"), "check the clock of this machine")
}

fn node_ended() -> Failure {
    Failure::new("the node that programs share has ended", "start the controller again")
}

fn lock(controller: &Mutex<Controller>) -> MutexGuard<'_, Controller> {
    controller.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use peersock::NetworkId;
    use peersock::overlay::Identity;
    use peersock::overlay::membership::CertifyRequest;
    use peersock_attach::{Ask, Connection, Reply, SeatAsk, SeatReply, Wish};
    use peersock_controller::{InviteOptions, NewNetwork, Settings, Store};

    use super::*;

    /// Returns a controller with some members, and the members.
    fn office(members: u8) -> (Controller, Vec<PublicIdentity>) {
        let (name, own_name) = ("team".into(), "controller".parse().expect("a name"));
        let new = NewNetwork { name, own_name, settings: Settings::default(), is_offline: false };
        let id_of = |_: &_| NetworkId::new(0x8056_c2e2_1c00_0001).ok();
        let (store, mut rng) = (Store::in_memory().expect("memory"), rand::rng());
        let created = Controller::create(store, &[7; 32], &new, now(), &mut rng, id_of);
        let (mut controller, _) = created.expect("memory");
        let options = InviteOptions { uses: members.into(), ..InviteOptions::default() };
        let token = controller.invite(now(), &mut rng, "alice", &options).expect("memory");
        let all: Vec<_> = (1..=members).map(|one| *Identity::from_seed(&[one; 32]).public()).collect();
        for member in &all {
            let request = CertifyRequest { token: Some(token.clone()), ..CertifyRequest::default() };
            let (source, question) = (IpAddr::from([192, 0, 2, 1]), Question::Certify(request));
            let answer = controller.answer(now(), &mut rng, member, source, question);
            assert!(matches!(answer, Answer::Certified { .. }), "{answer:?}");
        }
        (controller, all)
    }

    /// Asks a controller by an attachment, as a node does. Returns the number of answers.
    fn ask(connection: &Connection, members: &[PublicIdentity], batch: usize, within: Duration) -> u64 {
        let question = Bytes(Question::Certify(CertifyRequest::default()).to_bytes());
        let asked = |number: u64| Asked {
            number,
            asker: members[number as usize % members.len()].to_string(),
            source: [192, 0, 2, 1].into(),
            question: question.clone(),
            since: None,
        };
        let (begun, mut count) = (Instant::now(), 0);
        while begun.elapsed() < within {
            let all: Vec<_> = (0..batch as u64).map(|place| asked(count + place)).collect();
            connection.send(&Reply::Seat(SeatReply::Asked(all.clone()))).expect("it is there");
            let Ok(Some(Ask::Seat(SeatAsk::Answers(answers)))) = connection.ask() else { panic!("answers") };
            let of = |one: &Answered| matches!(Answer::parse(&one.answer.0), Ok(Answer::Certified { .. }));
            assert!(answers.iter().all(of) && answers.len() == batch, "{answers:?}");
            assert!(answers.iter().map(|one| one.number).eq(all.iter().map(|one| one.number)));
            count += answers.len() as u64;
        }
        count
    }

    fn attached(place: &Path) -> (Attached, Connection) {
        let listener = UnixListener::bind(StateDir::node_socket(place)).expect("a free name");
        let node = thread::spawn(move || {
            let connection = Connection::new(listener.accept().expect("a program").0).expect("an own one");
            connection.wish().expect("the first message");
            let environment = "0000002a:00000000000000000000000000000007".to_owned();
            let (public_key, networks) = (String::new(), Vec::new());
            let reply = Reply::Attached { environment, process: 0, public_key, networks };
            connection.send(&reply).expect("room");
            connection
        });
        let attached = Attached::open(place, None, Wish::new("controller"), |_| ()).expect("a node");
        (attached, node.join().expect("no panic"))
    }

    fn answered(batches: &[usize], within: Duration) -> Vec<u64> {
        let (mut controller, members) = office(100);
        let own = controller.credentials(now()).expect("it may issue");
        let answers = Answers::new(&Arc::new(Mutex::new(controller)));
        let place = tempfile::tempdir().expect("room");
        let (attached, connection) = attached(place.path());
        thread::scope(|scope| {
            let node = scope.spawn(|| {
                let taken = connection.ask().expect("a message");
                assert!(matches!(taken, Some(Ask::Seat(SeatAsk::Take { .. }))), "{taken:?}");
                connection.send(&Reply::Done).expect("room");
                batches.iter().map(|batch| ask(&connection, &members, *batch, within)).collect()
            });
            let id = lock(&answers.controller).network();
            let passed = answers.clone();
            attached.take_seat(id, &own, move |batch| passed.answer_passed(batch)).expect("it is free");
            node.join().expect("no failure")
        })
    }

    #[test]
    fn questions_that_the_shared_node_passes_are_answered_in_their_order() {
        assert!(answered(&[1, 64], Duration::from_millis(1)).into_iter().all(|count| count > 0));
    }

    #[test]
    #[ignore = "cargo xtask test --only slow: it measures"]
    fn two_thousand_renewals_a_second_pass_the_attachment() {
        const SECONDS: u64 = 3;
        let batches = [1, 8, 64];
        let counts = answered(&batches, Duration::from_secs(SECONDS));
        for (batch, count) in batches.iter().zip(&counts) {
            eprintln!("{} renewals/s, {batch} at once", count / SECONDS);
        }
        assert!(counts.iter().any(|count| count / SECONDS >= 2000));
    }

    #[test]
    fn attempts_become_rare_and_end_unless_the_controller_has_served_meanwhile() {
        let pauses: Vec<_> = (0..MAX_FAILURES).map(pause).collect();
        assert!(pauses.is_sorted() && pauses[0] < Duration::from_secs(1), "{pauses:?}");
        assert!(pauses.iter().sum::<Duration>() < LASTING, "{pauses:?}");
        assert_eq!(pause(u32::MAX), LAST_PAUSE);
        let mut comeback = Comeback { failures: MAX_FAILURES - 2, served_since: None };
        comeback.note_served();
        comeback.attach(|| Ok(()), |_| ()).expect("one more attempt");
        let failed: Outcome<()> = comeback.attach(|| Err(node_ended()), |_| ());
        assert_eq!(failed.expect_err("too many").message(), node_ended().message());
        comeback.served_since = Instant::now().checked_sub(LASTING);
        comeback.attach(|| Ok(()), |_| ()).expect("it has served for long");
        assert_eq!(comeback.failures, 1);
    }
}
