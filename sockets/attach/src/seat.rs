//! Seat of a network's controller at the shared node: the program that has it answers members' questions.

use std::fmt;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use data_encoding::BASE64URL_NOPAD;
use peersock::PublicIdentity;
use peersock::overlay::NetworkId;
use peersock::overlay::membership::{Credentials, Head, Revocations, SignedRules};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::client::Attached;
use crate::messages::{Ask, Refusal, Reply};

/// Limit of batches of questions that wait to be answered. The node sends few at a time, so this only bounds
/// the memory of a controller that waits for its disk.
const MAX_BATCHES: usize = 64;

/// Message of a program about the seat of a controller.
#[derive(Debug, Serialize, Deserialize)]
pub enum SeatAsk {
    /// Asks for the seat in one of the program's networks. The answer is [`Reply::Done`] or
    /// [`Reply::Refused`]; then come questions, as [`SeatReply::Asked`]. The seat lasts as long as the
    /// attachment.
    Take {
        /// ID of the network.
        network: String,
        /// The controller's own [`Credentials`], which name the network's key.
        credentials: Bytes,
    },
    /// Answers questions. Has no answer.
    Answers(Vec<Answered>),
    /// Replaces the controller's own [`Credentials`]. The answer is [`Reply::Done`] or [`Reply::Refused`].
    Credentials(Bytes),
    /// Spreads revocations that the controller has signed. The answer is [`Reply::Done`] or
    /// [`Reply::Refused`].
    Revocations(SignedSet),
    /// Spreads access rules that the controller has signed: the statement and the rules. The answer is
    /// [`Reply::Done`] or [`Reply::Refused`].
    Rules(Bytes),
    /// Asks for the newest heads of issuers besides these. The answer is [`SeatReply::Heads`].
    Heads(Vec<Bytes>),
    /// Asks for the connected peers. The answer is [`SeatReply::Connected`].
    Connected,
    /// Begins sessions with members, by their public keys, that may not know the controller. The answer is
    /// [`Reply::Done`] or [`Reply::Refused`].
    Visit(Vec<String>),
}

/// Message of the node about the seat of a controller.
#[derive(Debug, Serialize, Deserialize)]
pub enum SeatReply {
    /// Questions of nodes. Who gets no answer asks again.
    Asked(Vec<Asked>),
    /// Some of the newest heads that the program lacks; the next question has others.
    Heads(Vec<SignedSet>),
    /// Peers in the network that have a session.
    Connected(Vec<Reached>),
}

/// Peer in a controller's network that has a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// ID of the node.
    pub node: String,
    /// Address where it is reached.
    pub source: IpAddr,
    /// Address of another node with its keys, if sessions have just shown that both run.
    pub copy: Option<IpAddr>,
}

/// Question of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Number, which the answer repeats.
    pub number: u64,
    /// Public key of the member that asks. A program with its own keys looks up members as its machine.
    pub asker: String,
    /// Address where the asking node is reached.
    pub source: IpAddr,
    /// A [`Question`](peersock::overlay::membership::Question).
    pub question: Bytes,
    /// Milliseconds of the machine's monotonic clock at which the node got it. A program that was stopped
    /// reads it late. `None` from nodes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// Answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Number of the question.
    pub number: u64,
    /// An [`Answer`](peersock::overlay::membership::Answer).
    pub answer: Bytes,
}

/// Revocations, as an issuer has signed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedSet {
    /// The [`Head`].
    pub head: Bytes,
    /// The set, as it was signed.
    pub set: Bytes,
}

/// Bytes, which JSON has as Base64.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    /// Leaves out the bytes, which may contain the token of an invite.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
        bytes.map(Bytes).map_err(|_| de::Error::custom("no Base64"))
    }
}

/// The way of questions from the thread that reads to the one that answers.
#[derive(Default)]
pub(crate) struct Questions(Mutex<Option<SyncSender<Vec<Asked>>>>);

impl Questions {
    fn begin(&self) -> Receiver<Vec<Asked>> {
        let (sender, receiver) = sync_channel(MAX_BATCHES);
        self.set(Some(sender));
        receiver
    }

    /// Passes questions on. They are dropped while too many wait, so that no answer of the node waits.
    pub(crate) fn pass(&self, asked: Vec<Asked>) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender {
            let _ = sender.try_send(asked);
        }
    }

    /// Ends the thread that answers, with the attachment.
    pub(crate) fn end(&self) {
        self.set(None);
    }

    fn set(&self, sender: Option<SyncSender<Vec<Asked>>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sender;
    }
}

impl Attached {
    /// Takes the seat of the controller in a network of this program, for as long as it is attached. A thread
    /// passes questions to `answer`, many at once if they come fast; what is missing in its result is not
    /// answered.
    ///
    /// # Errors
    /// The node's refusal; `None` if the node has ended, or this process can start no thread.
    pub fn take_seat(
        &self,
        network: NetworkId,
        credentials: &Credentials,
        mut answer: impl FnMut(Vec<Asked>) -> Vec<Answered> + Send + 'static,
    ) -> Result<(), Option<Refusal>> {
        // Before the question, because the first ones may come with the answer.
        let (asked, writer) = (self.questions.begin(), Arc::clone(&self.writer));
        let answering = move || {
            for batch in asked {
                let answers = Ask::Seat(SeatAsk::Answers(answer(batch)));
                if writer.write(&answers).is_err() {
                    return;
                }
            }
        };
        let started = thread::Builder::new().name("answers".into()).spawn(answering);
        started.map_err(|_| None)?;
        let credentials = Bytes(credentials.to_bytes());
        let taken = self.ask_of_seat(SeatAsk::Take { network: network.to_string(), credentials });
        if taken.is_err() {
            self.questions.end();
        }
        taken
    }

    /// Replaces the controller's own credentials.
    ///
    /// # Errors
    /// The node's refusal; `None` if the node has ended.
    pub fn set_credentials(&self, credentials: &Credentials) -> Result<(), Option<Refusal>> {
        self.ask_of_seat(SeatAsk::Credentials(Bytes(credentials.to_bytes())))
    }

    /// Spreads revocations that the controller has signed.
    ///
    /// # Errors
    /// The node's refusal; `None` if the node has ended.
    pub fn set_revocations(&self, head: &Head, set: &Revocations) -> Result<(), Option<Refusal>> {
        let (head, set) = (Bytes(head.to_bytes()), Bytes(set.to_bytes()));
        self.ask_of_seat(SeatAsk::Revocations(SignedSet { head, set }))
    }

    /// Spreads access rules that the controller has signed.
    ///
    /// # Errors
    /// The node's refusal; `None` if the node has ended.
    pub fn set_rules(&self, rules: &SignedRules) -> Result<(), Option<Refusal>> {
        self.ask_of_seat(SeatAsk::Rules(Bytes(rules.bytes().to_vec())))
    }

    /// Returns newest heads of issuers besides these, with the bytes of their sets. There may be others,
    /// which the next call returns.
    pub fn heads(&self, known: &[Head]) -> Vec<(Head, Arc<[u8]>)> {
        let known = known.iter().map(|head| Bytes(head.to_bytes())).collect();
        let Some(Reply::Seat(SeatReply::Heads(heads))) = self.question(&Ask::Seat(SeatAsk::Heads(known)))
        else {
            return Vec::new();
        };
        let read = |one: SignedSet| Some((Head::parse(&one.head.0).ok()?, one.set.0.into()));
        heads.into_iter().filter_map(read).collect()
    }

    /// Returns the peers in the controller's network that have a session.
    pub fn connected(&self) -> Vec<Reached> {
        match self.question(&Ask::Seat(SeatAsk::Connected)) {
            Some(Reply::Seat(SeatReply::Connected(peers))) => peers,
            _ => Vec::new(),
        }
    }

    /// Begins sessions with members that may not know the controller, because it has another key now.
    ///
    /// # Errors
    /// The node's refusal; `None` if the node has ended.
    pub fn visit(&self, members: &[PublicIdentity]) -> Result<(), Option<Refusal>> {
        self.ask_of_seat(SeatAsk::Visit(members.iter().map(PublicIdentity::to_string).collect()))
    }

    fn ask_of_seat(&self, ask: SeatAsk) -> Result<(), Option<Refusal>> {
        match self.question(&Ask::Seat(ask)) {
            Some(Reply::Done) => Ok(()),
            Some(Reply::Refused(refusal)) => Err(Some(refusal)),
            _ => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn bytes_are_text_and_other_texts_are_refused() {
        let bytes = Bytes((0..=255).collect());
        let text = serde_json::to_string(&bytes).expect("text");
        assert_eq!(text.len(), 2 + 342);
        assert_eq!(serde_json::from_str::<Bytes>(&text).expect("its own text"), bytes);
        for text in ["\"a\"", "\"-*\"", "[1]", "7"] {
            assert!(serde_json::from_str::<Bytes>(text).is_err(), "{text}");
        }
        assert_eq!(format!("{bytes:?}"), "256 bytes", "it may be a secret");
    }

    #[test]
    fn questions_that_nobody_takes_are_dropped_and_the_end_ends_who_waits() {
        let questions = Arc::<Questions>::default();
        let asked = |number| Asked {
            number,
            asker: String::new(),
            source: IpAddr::from([127, 0, 0, 1]),
            question: Bytes::default(),
            since: None,
        };
        questions.pass(vec![asked(0)]);
        let receiver = questions.begin();
        (1..1000).for_each(|number| questions.pass(vec![asked(number)]));
        let numbers: Vec<u64> = receiver.try_iter().flatten().map(|one| one.number).collect();
        assert_eq!(numbers, (1..=MAX_BATCHES as u64).collect::<Vec<_>>());
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            receiver.iter().for_each(drop);
            let _ = done.send(());
        });
        questions.end();
        is_done.recv_timeout(Duration::from_secs(60)).expect("it ends");
    }
}
