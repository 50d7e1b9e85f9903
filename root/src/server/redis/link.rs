//! Connection to Redis: its use, and reconnection with growing pauses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::{AsyncConnectionConfig, Client, Pipeline, RedisError, RedisFuture, RedisResult};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::batch::{Batch, answer, say_by};
use super::store::Store;
use crate::Answer;
use crate::server::directory::{Heard, Shared, Socket, Told};

/// Minimum and maximum pause between attempts to connect.
const CONNECT_PAUSE_BOUNDS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Timeout of an answer of Redis; then the connection counts as lost. It is less than the two seconds that a
/// node waits for the root.
pub(super) const REDIS_TIMEOUT: Duration = Duration::from_millis(1500);

/// Interval of the checks that Redis is still there, because an idle connection does not notice. The root's
/// record is written again after this number of checks, and at each check until the first success.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(2);
const LOOKS_PER_RECORD: u32 = 15;

/// Limit of commands per pipeline, and of pipelines without an answer.
const BATCH: usize = 256;
const MAX_UNANSWERED: usize = 16;

/// Reason why a connection is given up.
enum End {
    /// End of the root.
    Over,
    Lost(RedisError),
}

/// Keeps the directory until the root ends.
pub(super) async fn run(client: &Client, name: &str, store: Arc<Store>, mut socket: Socket) {
    let mut pause = CONNECT_PAUSE_BOUNDS[0];
    let mut is_warned = false;
    loop {
        let end = match connect(client).await {
            Ok(connection) => {
                serve(connection, &store, &mut socket, || {
                    (pause, is_warned) = (CONNECT_PAUSE_BOUNDS[0], false);
                    tracing::info!(redis = name, "the directory is shared");
                })
                .await
            }
            Err(error) => {
                socket.shared.traffic.directory_failures.increment();
                End::Lost(error)
            }
        };
        let End::Lost(error) = end else { return };
        // One warning per outage, not per attempt.
        if !std::mem::replace(&mut is_warned, true) {
            tracing::warn!(redis = name, %error, "the shared directory is away; this root knows its own nodes only");
        }
        if !rest(&mut socket, pause).await {
            return;
        }
        pause = (pause * 2).min(CONNECT_PAUSE_BOUNDS[1]);
    }
}

async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_dns_resolver(Resolver)
        .set_connection_timeout(Some(REDIS_TIMEOUT))
        .set_response_timeout(Some(REDIS_TIMEOUT));
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    // The timeout covers all steps together, because a server that answers each of them late is useless.
    timeout(REDIS_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(too_slow()))
}

/// Resolver of names; the one of `redis` panics where the system refuses a thread.
struct Resolver;

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = peersock_primitives::resolve(host, port).await?;
            Ok(Box::new(found.into_iter()) as Box<_>)
        })
    }
}

pub(super) fn too_slow() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Waits, and refuses commands meanwhile. Returns false if the root has ended.
async fn rest(socket: &mut Socket, pause: Duration) -> bool {
    let mut waiting = std::pin::pin!(sleep(pause));
    loop {
        tokio::select! {
            () = &mut waiting => return true,
            told = socket.told.recv() => match told {
                Some(Told::Asked(question, _)) => answer(&socket.heard, question, Answer::Unavailable),
                Some(Told::Gone(node)) => socket.shared.note_gone(node),
                Some(Told::Registered(..)) => {}
                None => return false,
            },
        }
    }
}

/// Uses one connection until it fails. Calls `begun` once it has worked.
async fn serve(
    connection: MultiplexedConnection,
    store: &Arc<Store>,
    socket: &mut Socket,
    begun: impl FnOnce(),
) -> End {
    let mut unanswered = JoinSet::new();
    let end = exchange(&connection, store, socket, &mut unanswered, begun).await;
    if matches!(end, End::Lost(_)) {
        socket.shared.traffic.directory_failures.increment();
    }
    // First, so that no more messages are queued for a dead connection.
    socket.shared.is_there.store(false, Ordering::Relaxed);
    // The tasks answer their questions, and note removals that they could not send.
    while unanswered.join_next().await.is_some() {}
    if matches!(end, End::Over) {
        close(&connection, store).await;
    }
    end
}

async fn exchange(
    connection: &MultiplexedConnection,
    store: &Arc<Store>,
    socket: &mut Socket,
    unanswered: &mut JoinSet<RedisResult<()>>,
    begun: impl FnOnce(),
) -> End {
    let mut record = Record::default();
    if let Err(error) = record.write(connection, store, &socket.shared).await {
        return End::Lost(error);
    }
    begun();
    socket.shared.is_there.store(true, Ordering::Relaxed);
    let mut is_back = true;
    let mut look = std::pin::pin!(sleep(HEALTH_CHECK_INTERVAL));
    let mut told = Vec::with_capacity(BATCH);
    loop {
        // Redis may have come back empty, so all nodes are written. Removals come first, because a removed
        // node may have registered again.
        if std::mem::take(&mut is_back) {
            if let Err(error) = take_out(connection, store, &socket.shared).await {
                return End::Lost(error);
            }
            // The receiver of a root that has ended is gone, which is no error.
            let _ = socket.heard.send(Heard::Back).await;
        }
        tokio::select! {
            // A failed connection takes no more commands, so its failure is checked first.
            biased;
            Some(done) = unanswered.join_next() => {
                if let Ok(Err(error)) = done {
                    return End::Lost(error);
                }
            }
            () = &mut look => {
                match record.look(connection, store, &socket.shared).await {
                    Ok(has_forgotten) => is_back = has_forgotten,
                    Err(error) => return End::Lost(error),
                }
                look.set(sleep(HEALTH_CHECK_INTERVAL));
            }
            count = socket.told.recv_many(&mut told, BATCH), if unanswered.len() < MAX_UNANSWERED => {
                if count == 0 {
                    return End::Over;
                }
                let batch = Batch::new(store, told.drain(..), &socket.shared);
                let (connection, store) = (connection.clone(), store.clone());
                let (heard, shared) = (socket.heard.clone(), socket.shared.clone());
                unanswered.spawn(async move { batch.run(&connection, &store, &heard, &shared).await });
            }
        }
    }
}

/// State of this root's record, by which others find it.
#[derive(Default)]
struct Record {
    /// True if Redis took the last write; `None` before the first.
    is_taken: Option<bool>,
    /// Number of checks until the next write.
    until: u32,
}

impl Record {
    /// Checks that Redis is there, and writes the record if it is due. Returns true if the root must write
    /// its nodes again.
    async fn look(
        &mut self,
        connection: &MultiplexedConnection,
        store: &Store,
        shared: &Shared,
    ) -> RedisResult<bool> {
        self.until = self.until.saturating_sub(1);
        let was_taken = self.is_taken == Some(true);
        if was_taken && self.until > 0 {
            let mut pipeline = Pipeline::new();
            store.look(&mut pipeline);
            say(connection, pipeline).await?;
            return Ok(false);
        }
        self.write(connection, store, shared).await?;
        let takes_writes = self.is_taken == Some(true);
        Ok(takes_writes && (shared.has_missed.swap(false, Ordering::Relaxed) || !was_taken))
    }

    /// Writes the record. Redis may refuse that, because it has no memory or is a replica, and still answer
    /// questions. An error means that it does not.
    async fn write(
        &mut self,
        connection: &MultiplexedConnection,
        store: &Store,
        shared: &Shared,
    ) -> RedisResult<()> {
        let mut pipeline = Pipeline::new();
        store.look(&mut pipeline);
        store.write_record(&mut pipeline);
        let mut results =
            say_by(connection, &mut pipeline, Instant::now() + REDIS_TIMEOUT).await?.into_iter();
        results.next().transpose()?;
        let refused = results.next().and_then(Result::err);
        let before = self.is_taken.replace(refused.is_none());
        self.until = LOOKS_PER_RECORD;
        match refused {
            Some(error) => {
                shared.traffic.directory_failures.increment();
                if before != Some(false) {
                    tracing::warn!(%error, "the shared directory takes no writes, and so lacks this root's nodes");
                }
            }
            None if before == Some(false) => tracing::info!("the shared directory takes writes again"),
            None => {}
        }
        Ok(())
    }
}

/// Removes nodes that left while Redis was unreachable.
async fn take_out(connection: &MultiplexedConnection, store: &Store, shared: &Shared) -> RedisResult<()> {
    let gone: Vec<_> = shared.take_gone().into_iter().collect();
    for (number, some) in gone.chunks(BATCH).enumerate() {
        let mut pipeline = Pipeline::new();
        some.iter().for_each(|node| store.remove_node(&mut pipeline, node));
        match say_by(connection, &mut pipeline, Instant::now() + REDIS_TIMEOUT).await {
            Ok(results) => {
                let refused = some.iter().zip(results).filter(|(_, result)| result.is_err());
                refused.for_each(|(node, _)| shared.note_gone(*node));
            }
            Err(error) => {
                gone[number * BATCH..].iter().for_each(|node| shared.note_gone(*node));
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Removes the record of a root that ends, so that others no longer name it.
async fn close(connection: &MultiplexedConnection, store: &Store) {
    let mut pipeline = Pipeline::new();
    store.remove_record(&mut pipeline);
    if let Err(error) = say(connection, pipeline).await {
        tracing::debug!(%error, "the directory was not told of the end");
    }
}

/// Runs commands that Redis must not refuse.
async fn say(connection: &MultiplexedConnection, mut pipeline: Pipeline) -> RedisResult<()> {
    let results = say_by(connection, &mut pipeline, Instant::now() + REDIS_TIMEOUT).await?;
    results.into_iter().try_for_each(|result| result.map(drop))
}
