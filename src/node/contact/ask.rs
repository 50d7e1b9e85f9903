//! Asks outsiders as what they see the node's sockets: STUN servers, and nodes of the DHT.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock_dht::{PingAnswer, ping_question};
use peersock_nat::stun::{Answer, AnswerFrom, TransactionId, binding_request};

use super::gather::Seen;
use crate::driver::{UdpSockets, canonical};

/// Who is asked, and how it understands the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outsider {
    Stun(SocketAddr),
    Dht(SocketAddr),
}

impl Outsider {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Outsider::Stun(address) | Outsider::Dht(address) => *address,
        }
    }
}

/// At most so many are asked at a time.
pub(super) const MAX_ASKED: usize = 6;

/// When those that have not answered are asked again, after the first time.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_millis(800), Duration::from_millis(1600)];

/// How long answers are waited for in all.
const PATIENCE: Duration = Duration::from_millis(2600);

/// What connects an answer with its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id {
    Stun(TransactionId),
    Dht([u8; 4]),
}

struct Question {
    to: SocketAddr,
    id: Id,
    datagram: Vec<u8>,
    /// From how many sockets it was sent.
    sockets: usize,
    answers: usize,
}

impl Question {
    fn new(outsider: &Outsider) -> Option<Question> {
        let mut random = [0; 36];
        getrandom::fill(&mut random).ok()?;
        let (head, node) = random.split_first_chunk::<16>()?;
        let (id, datagram) = match outsider {
            Outsider::Dht(_) => {
                let transaction = *head.first_chunk()?;
                (Id::Dht(transaction), ping_question(transaction, *node.first_chunk()?))
            }
            Outsider::Stun(_) => {
                let id = TransactionId::new(u128::from_be_bytes(*head));
                (Id::Stun(id), binding_request(id, AnswerFrom::Same))
            }
        };
        Some(Question { to: outsider.address(), id, datagram, sockets: 0, answers: 0 })
    }

    /// Whether nothing is to come any more.
    fn is_answered(&self) -> bool {
        self.answers > 0 && self.answers >= self.sockets
    }
}

/// Asks them from each socket that leads there. Returns when all have answered, or after 2.6 s; earlier if
/// `is_over` says so.
pub(super) fn ask(sockets: &UdpSockets, outsiders: &[Outsider], is_over: &dyn Fn() -> bool) -> Vec<Seen> {
    let mut questions: Vec<_> = outsiders.iter().take(MAX_ASKED).filter_map(Question::new).collect();
    let mut seen: Vec<Seen> = Vec::new();
    if questions.is_empty() {
        return seen;
    }
    let begin = Instant::now();
    let times = AGAIN.iter().map(|after| begin + *after).chain([begin + PATIENCE]);
    let is_done = |questions: &[Question]| questions.iter().all(Question::is_answered);
    sockets.expect_answers(questions.iter().map(|question| question.to).collect());
    for next in times {
        for question in questions.iter_mut().filter(|question| !question.is_answered()) {
            question.sockets = sockets.ask(question.to, &question.datagram);
        }
        while Instant::now() < next && !is_done(&questions) && !is_over() {
            for answer in sockets.answers(next) {
                let Some((id, at)) = read(&answer.datagram) else { continue };
                let is_its = |question: &&mut Question| question.to == answer.from && question.id == id;
                let Some(question) = questions.iter_mut().find(is_its) else { continue };
                let one = Seen { socket: answer.socket, by: answer.from, at: canonical(at) };
                if !seen.contains(&one) {
                    question.answers += 1;
                    seen.push(one);
                }
            }
        }
        if is_done(&questions) || is_over() {
            break;
        }
    }
    sockets.expect_no_answers();
    seen
}

fn read(datagram: &[u8]) -> Option<(Id, SocketAddr)> {
    if let Some(answer) = PingAnswer::parse(datagram) {
        return Some((Id::Dht(answer.transaction), answer.seen.into()));
    }
    let answer = Answer::parse(datagram)?;
    Some((Id::Stun(answer.id), answer.mapped))
}
