//! The connection to Redis: made again when it is lost, with growing pauses; what goes over it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use peersock_overlay::wire::LookUpKey;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, RedisError, RedisResult};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::store::{Fields, Store};
use crate::server::directory::{DirectoryTraffic, Heard, Socket, Told};
use crate::{Answer, QuestionId};

/// The pauses between attempts to connect.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// What Redis has not answered by then counts as lost, and the connection with it: whoever has asked the root
/// waits for two seconds.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How often it is looked whether Redis is still there: who says nothing does not notice. Each so many times the
/// root's record is written again.
const LOOK: Duration = Duration::from_secs(2);
const LOOKS_PER_RECORD: u32 = 15;

/// What is said in one go, and how often that without an answer.
const BATCH: usize = 256;
const MAX_UNANSWERED: usize = 16;

/// Why a connection is not used any more.
enum End {
    /// The root has ended.
    Over,
    Lost(RedisError),
}

/// Keeps the directory until the root ends.
pub(super) async fn run(client: &Client, name: &str, store: Arc<Store>, mut socket: Socket) {
    let mut pause = PAUSES[0];
    let mut is_warned = false;
    loop {
        let end = match connect(client).await {
            Ok(connection) => {
                let end = serve(connection, &store, &mut socket, || {
                    (pause, is_warned) = (PAUSES[0], false);
                    tracing::info!(redis = name, "the directory is shared");
                })
                .await;
                socket.shared.is_there.store(false, Ordering::Relaxed);
                end
            }
            Err(error) => End::Lost(error),
        };
        let End::Lost(error) = end else { return };
        socket.shared.traffic.directory_failures.increment();
        if !std::mem::replace(&mut is_warned, true) {
            tracing::warn!(redis = name, %error, "the shared directory is away; this root knows its own nodes only");
        }
        if !rest(&mut socket, pause).await {
            return;
        }
        pause = (pause * 2).min(PAUSES[1]);
    }
}

async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    // All steps together: a server that answers each of them late is of no use.
    timeout(PATIENCE, connecting).await.unwrap_or_else(|_| Err(too_slow()))
}

fn too_slow() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Waits; what is said meanwhile is for nobody. False if the root has ended.
async fn rest(socket: &mut Socket, pause: Duration) -> bool {
    let mut waiting = std::pin::pin!(sleep(pause));
    loop {
        tokio::select! {
            () = &mut waiting => return true,
            told = socket.told.recv() => match told {
                Some(Told::Asked(question, _)) => answer(&socket.heard, question, Answer::Unavailable),
                Some(_) => {}
                None => return false,
            },
        }
    }
}

/// Uses one connection for as long as it is good. `begun` is called when it has been of use.
async fn serve(
    connection: MultiplexedConnection,
    store: &Arc<Store>,
    socket: &mut Socket,
    begun: impl FnOnce(),
) -> End {
    let mut pipeline = Pipeline::new();
    store.write_record(&mut pipeline);
    if let Err(error) = say(&connection, &pipeline).await {
        return End::Lost(error);
    }
    begun();
    socket.shared.is_there.store(true, Ordering::Relaxed);
    let mut is_back = true;
    let mut unanswered = JoinSet::new();
    let mut look = std::pin::pin!(sleep(LOOK));
    let mut until_record = LOOKS_PER_RECORD;
    let mut told = Vec::with_capacity(BATCH);
    loop {
        // It may not be there yet, or again; all nodes are told.
        if std::mem::take(&mut is_back) && socket.heard.send(Heard::Back).await.is_err() {
            return close(&connection, store).await;
        }
        tokio::select! {
            count = socket.told.recv_many(&mut told, BATCH), if unanswered.len() < MAX_UNANSWERED => {
                if count == 0 {
                    return close(&connection, store).await;
                }
                let batch = Batch::new(store, told.drain(..), &socket.shared.traffic);
                let (connection, store) = (connection.clone(), store.clone());
                let (heard, traffic) = (socket.heard.clone(), socket.shared.traffic.clone());
                unanswered.spawn(async move { batch.run(&connection, &store, &heard, &traffic).await });
            }
            Some(done) = unanswered.join_next() => match done {
                Ok(Ok(())) => {}
                Ok(Err(error)) if is_lost(&error) => return End::Lost(error),
                // Redis is there and refuses: it has no memory, or is a replica.
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the directory refuses");
                    socket.shared.traffic.directory_failures.increment();
                    socket.shared.has_missed.store(true, Ordering::Relaxed);
                }
                Err(_) => {}
            },
            () = &mut look => {
                until_record -= 1;
                let mut pipeline = Pipeline::new();
                match until_record {
                    0 => store.write_record(&mut pipeline),
                    _ => _ = pipeline.cmd("PING").ignore(),
                }
                if let Err(error) = say(&connection, &pipeline).await {
                    return End::Lost(error);
                }
                if until_record == 0 {
                    is_back = socket.shared.has_missed.swap(false, Ordering::Relaxed);
                    until_record = LOOKS_PER_RECORD;
                }
                look.set(sleep(LOOK));
            }
        }
    }
}

/// The root ends: others shall not name it any more.
async fn close(connection: &MultiplexedConnection, store: &Store) -> End {
    let mut pipeline = Pipeline::new();
    store.remove_record(&mut pipeline);
    if let Err(error) = say(connection, &pipeline).await {
        tracing::debug!(%error, "the directory was not told of the end");
    }
    End::Over
}

async fn say(connection: &MultiplexedConnection, pipeline: &Pipeline) -> RedisResult<()> {
    let mut connection = connection.clone();
    timeout(PATIENCE, pipeline.query_async(&mut connection)).await.unwrap_or_else(|_| Err(too_slow()))
}

fn is_lost(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
}

fn answer(heard: &mpsc::Sender<Heard>, question: QuestionId, answer: Answer) {
    // A root that has no room for answers answers the question itself when its time is over.
    let _ = heard.try_send(Heard::Answer(question, answer));
}

/// What is said in one go.
struct Batch {
    pipeline: Pipeline,
    questions: Vec<(QuestionId, LookUpKey)>,
}

impl Batch {
    fn new(store: &Store, told: impl Iterator<Item = Told>, traffic: &DirectoryTraffic) -> Self {
        let (mut pipeline, mut questions) = (Pipeline::new(), Vec::new());
        for told in told {
            match told {
                Told::Registered(entry) => {
                    traffic.directory_writes.increment();
                    store.write_node(&mut pipeline, &entry);
                }
                Told::Gone(node) => {
                    traffic.directory_writes.increment();
                    store.remove_node(&mut pipeline, &node);
                }
                Told::Asked(question, key) => {
                    traffic.directory_questions.increment();
                    store.ask(&mut pipeline, &key);
                    questions.push((question, key));
                }
            }
        }
        Self { pipeline, questions }
    }

    async fn run(
        self,
        connection: &MultiplexedConnection,
        store: &Store,
        heard: &mpsc::Sender<Heard>,
        traffic: &DirectoryTraffic,
    ) -> RedisResult<()> {
        let found = timeout(PATIENCE, self.look(connection, store, traffic)).await;
        match found.unwrap_or_else(|_| Err(too_slow())) {
            Ok(answers) => {
                for ((question, _), said) in self.questions.iter().zip(answers) {
                    answer(heard, *question, said);
                }
                Ok(())
            }
            Err(error) => {
                for (question, _) in &self.questions {
                    answer(heard, *question, Answer::Unavailable);
                }
                Err(error)
            }
        }
    }

    /// One answer to each question: the nodes first, then the roots that they are said to be at.
    async fn look(
        &self,
        connection: &MultiplexedConnection,
        store: &Store,
        traffic: &DirectoryTraffic,
    ) -> RedisResult<Vec<Answer>> {
        let mut connection = connection.clone();
        let fields: Vec<Fields> = self.pipeline.query_async(&mut connection).await?;
        let asked = self.questions.iter().zip(&fields);
        let claims: Vec<_> = asked.map(|((_, key), fields)| store.claims(key, fields)).collect();
        let mut roots: Vec<_> = claims.iter().flatten().map(|claim| claim.root).collect();
        roots.sort_unstable();
        roots.dedup();
        roots.retain(|root| store.is_unknown(root));
        if !roots.is_empty() {
            let mut pipeline = Pipeline::new();
            roots.iter().for_each(|root| store.ask_record(&mut pipeline, root));
            let records: Vec<Option<Vec<u8>>> = pipeline.query_async(&mut connection).await?;
            for (root, record) in roots.iter().zip(records) {
                store.note_record(root, record.as_deref(), traffic);
            }
        }
        let answer = |claims| store.choose(claims, traffic).map_or(Answer::Nobody, Answer::Found);
        Ok(claims.into_iter().map(answer).collect())
    }
}
