//! Pipelines of commands to Redis. Each answer is judged separately: a refused command does not affect the
//! others.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use peersock_overlay::NodeId;
use peersock_overlay::wire::LookUpKey;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisError, RedisResult, Value, from_redis_value};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::link::{REDIS_TIMEOUT, too_slow};
use super::store::{Claim, Fields, Store};
use crate::server::directory::{Heard, Shared, Told};
use crate::{Answer, QuestionId};

/// Command with one answer.
enum Said {
    Node,
    Gone(NodeId),
    Question(QuestionId, LookUpKey),
}

/// Commands of one pipeline.
pub(super) struct Batch {
    pipeline: Pipeline,
    said: Vec<Said>,
}

impl Batch {
    pub(super) fn new(store: &Store, told: impl Iterator<Item = Told>, shared: &Shared) -> Self {
        let (mut pipeline, mut said) = (Pipeline::new(), Vec::new());
        for told in told {
            said.push(match told {
                Told::Registered(entry, lifetime) => {
                    shared.traffic.directory_writes.increment();
                    store.write_node(&mut pipeline, &entry, lifetime);
                    Said::Node
                }
                Told::Gone(node) => {
                    shared.traffic.directory_writes.increment();
                    store.remove_node(&mut pipeline, &node);
                    Said::Gone(node)
                }
                Told::Asked(question, key) => {
                    shared.traffic.directory_questions.increment();
                    store.ask(&mut pipeline, &key);
                    Said::Question(question, key)
                }
            });
        }
        Self { pipeline, said }
    }

    /// Runs the pipeline, and answers the questions in any case. An error means that the connection is
    /// unusable.
    pub(super) async fn run(
        mut self,
        connection: &MultiplexedConnection,
        store: &Store,
        heard: &mpsc::Sender<Heard>,
        shared: &Shared,
    ) -> RedisResult<()> {
        let deadline = Instant::now() + REDIS_TIMEOUT;
        let results = match say_by(connection, &mut self.pipeline, deadline).await {
            Ok(results) => results,
            Err(error) => {
                self.give_up(heard, shared);
                return Err(error);
            }
        };
        let (mut asked, mut refused) = (Vec::new(), None);
        for (said, result) in self.said.iter().zip(results) {
            match (said, result) {
                (Said::Node, Err(error)) => {
                    shared.has_missed.store(true, Ordering::Relaxed);
                    refused = Some(error);
                }
                (Said::Gone(node), Err(error)) => {
                    shared.note_gone(*node);
                    refused = Some(error);
                }
                (Said::Node | Said::Gone(_), Ok(_)) => {}
                (Said::Question(question, key), result) => match read::<Fields>(result) {
                    Ok(fields) => asked.push((*question, store.claims(key, &fields))),
                    Err(error) => {
                        answer(heard, *question, Answer::Unavailable);
                        refused = Some(error);
                    }
                },
            }
        }
        let unread = look_up_roots(connection, store, &asked, shared, deadline).await;
        for (question, claims) in asked {
            let is_unread =
                |claim: &Claim| unread.as_ref().map_or(true, |(unread, _)| unread.contains(&claim.root));
            // A claim whose root is unknown may be valid, so the node may exist.
            let otherwise = if claims.iter().any(is_unread) { Answer::Unavailable } else { Answer::Nobody };
            let found = store.choose(claims, &shared.traffic).map_or(otherwise, Answer::Found);
            answer(heard, question, found);
        }
        if let Some(error) = unread?.1.or(refused) {
            tracing::debug!(%error, "the directory refuses");
            shared.traffic.directory_failures.increment();
        }
        Ok(())
    }

    /// Answers the questions of a pipeline that got no answers, and keeps the removals for later.
    fn give_up(&self, heard: &mpsc::Sender<Heard>, shared: &Shared) {
        for said in &self.said {
            match said {
                Said::Question(question, _) => answer(heard, *question, Answer::Unavailable),
                Said::Gone(node) => shared.note_gone(*node),
                // All nodes are written again on the next connection.
                Said::Node => {}
            }
        }
    }
}

/// Asks for the endpoints of the roots in the claims. Returns the roots that Redis gave no answer for, with
/// the error.
async fn look_up_roots(
    connection: &MultiplexedConnection,
    store: &Store,
    asked: &[(QuestionId, Vec<Claim>)],
    shared: &Shared,
    deadline: Instant,
) -> RedisResult<(BTreeSet<NodeId>, Option<RedisError>)> {
    let claims = asked.iter().flat_map(|(_, claims)| claims);
    let mut roots: BTreeSet<_> = claims.map(|claim| claim.root).collect();
    roots.retain(|root| store.is_unknown(root));
    let (mut unread, mut refused) = (BTreeSet::new(), None);
    if !roots.is_empty() {
        let mut pipeline = Pipeline::new();
        roots.iter().for_each(|root| store.ask_record(&mut pipeline, root));
        let records = say_by(connection, &mut pipeline, deadline).await?;
        for (root, record) in roots.into_iter().zip(records) {
            match read::<Vec<u8>>(record) {
                Ok(record) => store.note_record(&root, &record, &shared.traffic),
                Err(error) => {
                    unread.insert(root);
                    refused = Some(error);
                }
            }
        }
    }
    Ok((unread, refused))
}

/// Runs all commands, and returns one answer for each. An error means that the connection is unusable.
pub(super) async fn say_by(
    connection: &MultiplexedConnection,
    pipeline: &mut Pipeline,
    deadline: Instant,
) -> RedisResult<Vec<RedisResult<Value>>> {
    let mut connection = connection.clone();
    // A refused command must not hide the answers to the others.
    let saying = pipeline.ignore_errors().query_async(&mut connection);
    timeout_at(deadline, saying).await.unwrap_or_else(|_| Err(too_slow()))
}

fn read<T: FromRedisValue>(result: RedisResult<Value>) -> RedisResult<T> {
    Ok(from_redis_value(result?)?)
}

pub(super) fn answer(heard: &mpsc::Sender<Heard>, question: QuestionId, answer: Answer) {
    // If the root's queue is full, the root answers the question itself after its timeout.
    let _ = heard.try_send(Heard::Answer(question, answer));
}
