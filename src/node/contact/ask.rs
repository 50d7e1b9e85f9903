//! Queries outsiders (STUN servers, and nodes of the DHT) for the addresses at which they see the node's
//! sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock_nat::may_name;
use peersock_nat::stun::{Answer, AnswerFrom, TransactionId, binding_request};
use peersock_overlay::is_endpoint;

use super::gather::Seen;
use crate::driver::{OutsideAnswer, UdpSockets, canonical};
use crate::node::meeting::{ping_answer, ping_question};

/// Outsider with its protocol.
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

/// Limit of outsiders asked at a time.
pub(super) const MAX_ASKED: usize = 6;

/// Times of retransmission to outsiders that have not answered, after the first transmission.
const RETRANSMISSION_TIMES: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_millis(800), Duration::from_millis(1600)];

/// Timeout of all answers.
const ANSWERS_TIMEOUT: Duration = Duration::from_millis(2600);

/// ID that matches an answer to its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id {
    Stun(TransactionId),
    Dht([u8; 4]),
}

struct Question {
    to: SocketAddr,
    id: Id,
    datagram: Vec<u8>,
    /// Number of sockets that the question was sent from.
    sockets: usize,
    answers: usize,
}

impl Question {
    fn new(outsider: &Outsider) -> Option<Question> {
        let mut random = [0; 36];
        // Random IDs, so that an attacker off the path cannot forge an answer.
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

    /// Returns true if no more answers are expected.
    fn is_answered(&self) -> bool {
        self.answers > 0 && self.answers >= self.sockets
    }
}

/// Asks outsiders from each socket with a route to them. Returns when all have answered, or after 2.6 s, or
/// earlier if `is_over` returns true.
pub(super) fn ask(sockets: &UdpSockets, outsiders: &[Outsider], is_over: &dyn Fn() -> bool) -> Vec<Seen> {
    let mut questions: Vec<_> = outsiders.iter().take(MAX_ASKED).filter_map(Question::new).collect();
    let mut seen: Vec<Seen> = Vec::new();
    if questions.is_empty() {
        return seen;
    }
    let begin = Instant::now();
    let times = RETRANSMISSION_TIMES.iter().map(|after| begin + *after).chain([begin + ANSWERS_TIMEOUT]);
    let is_done = |questions: &[Question]| questions.iter().all(Question::is_answered);
    // Before sending, so that a fast answer is not missed.
    sockets.expect_answers(questions.iter().map(|question| question.to).collect());
    for next in times {
        for question in questions.iter_mut().filter(|question| !question.is_answered()) {
            question.sockets = sockets.ask(question.to, &question.datagram);
        }
        while Instant::now() < next && !is_done(&questions) && !is_over() {
            for answer in sockets.answers(next) {
                take(&mut questions, &mut seen, &answer);
            }
        }
        if is_done(&questions) || is_over() {
            break;
        }
    }
    sockets.expect_no_answers();
    seen
}

/// Takes an answer that matches a question.
fn take(questions: &mut [Question], seen: &mut Vec<Seen>, answer: &OutsideAnswer) {
    let Some((id, at)) = read(&answer.datagram) else { return };
    let is_its = |question: &&mut Question| question.to == answer.from && question.id == id;
    let Some(question) = questions.iter_mut().find(is_its) else { return };
    let one = Seen { socket: answer.socket, by: answer.from, at: canonical(at) };
    // One vote per outsider and socket, because an attacker who knows a question could report any number of
    // addresses.
    let is_first = seen.iter().all(|other| (other.socket, other.by) != (one.socket, one.by));
    if is_first && may_be_seen(one.by, one.at) {
        question.answers += 1;
        seen.push(one);
    }
}

/// Returns true if an outsider can plausibly see a socket there, because peers are told of the address.
fn may_be_seen(by: SocketAddr, at: SocketAddr) -> bool {
    is_endpoint(&at) && may_name(by, at)
}

fn read(datagram: &[u8]) -> Option<(Id, SocketAddr)> {
    if let Some((transaction, seen)) = ping_answer(datagram) {
        return Some((Id::Dht(transaction), seen));
    }
    let answer = Answer::parse(datagram)?;
    Some((Id::Stun(answer.id), answer.mapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outsider_has_one_word_about_each_socket() {
        let [server, other] = [Outsider::Stun(at("192.0.2.1:3478")), Outsider::Stun(at("192.0.2.2:3478"))];
        let mut questions = [server, other].map(|one| Question::new(&one).expect("randomness"));
        let ids = questions.each_ref().map(|question| question.id);
        let mut seen = Vec::new();
        let mut say = |socket, from: Outsider, id, address: &str| {
            let datagram = success(id, at(address));
            take(&mut questions, &mut seen, &OutsideAnswer { socket, from: from.address(), datagram });
        };
        for port in 1..50 {
            say(0, server, ids[0], &format!("203.0.113.9:{port}"));
        }
        say(1, server, ids[0], "203.0.113.9:2");
        // Answers with the ID of another question, and with implausible addresses, are ignored.
        say(0, other, ids[0], "203.0.113.9:3");
        let private = ["10.0.0.1:9", "192.168.1.1:9", "169.254.169.254:9"];
        for nonsense in ["0.0.0.0:9", "203.0.113.9:0", "224.0.0.1:9", "127.0.0.1:9", "[2001:db8::1]:9"]
            .iter()
            .chain(&private)
        {
            say(0, other, ids[1], nonsense);
        }
        assert_eq!(questions.each_ref().map(|question| question.answers), [2, 0]);
        let by = server.address();
        let expected = [(0, "203.0.113.9:1"), (1, "203.0.113.9:2")];
        assert_eq!(seen, expected.map(|(socket, text)| Seen { socket, by, at: at(text) }));
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    fn success(id: Id, mapped: SocketAddr) -> Vec<u8> {
        let Id::Stun(id) = id else { panic!("a question of STUN") };
        Answer { id, mapped, origin: None, other: None, second_port: None }.emit()
    }
}
