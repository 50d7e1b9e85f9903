//! Ports at which members connect: each connection becomes a pipe.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use peersock::{Node, TcpListener};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::open::{bind_all, connected};
use super::{Pipe, Pipes};
use crate::limits::{MOST_LISTENERS, MOST_OF_NAME, MOST_WAITING};
use crate::problem::{Kind, Problem};

/// How long nothing is accepted after that has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// What the number of a connection adds to the name of its listener, bytes.
const NUMBER: usize = 16;

/// The listeners of a server, by their names.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<BTreeMap<String, Arc<Listener>>>);

/// A listener.
#[derive(Debug)]
pub(crate) struct Listener {
    name: String,
    at: SocketAddr,
    state: Mutex<State>,
    /// A connection has come, was taken, or the listener has ended.
    changed: Notify,
    accepting: Mutex<Vec<AbortHandle>>,
}

#[derive(Debug, Default)]
struct State {
    /// Pipes that nobody has taken yet.
    waiting: VecDeque<Arc<Pipe>>,
    /// How many there were.
    count: u64,
    end: Option<String>,
}

impl Listeners {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Listener>>> {
        self.0.lock().expect("no panic under this lock")
    }

    /// Listens at a port of all addresses of the node.
    pub(crate) async fn open(
        &self,
        node: &Node,
        pipes: &Pipes,
        name: &str,
        port: u16,
    ) -> Result<Arc<Listener>, Problem> {
        if name.len() > MOST_OF_NAME - NUMBER {
            let most = MOST_OF_NAME - NUMBER;
            return Err(Kind::BadRequest.because(format_args!(
                "a listener's name has {most} bytes at most: its pipes are called NAME.1, NAME.2, ..."
            )));
        }
        self.check_room(name)?;
        let bind = |at: SocketAddr| TcpListener::bind_on(node, at);
        let sockets = bind_all(node, port, bind, TcpListener::local_addr).await?;
        let at =
            sockets[0].local_addr().map_err(|error| Problem::of_io(&error, "the listener has failed"))?;
        let (state, changed, accepting) = (Mutex::default(), Notify::new(), Mutex::default());
        let listener = Arc::new(Listener { name: name.to_owned(), at, state, changed, accepting });
        {
            // Another request may have taken the name meanwhile.
            let mut all = self.all();
            if all.contains_key(name) {
                return Err(taken(name));
            }
            all.insert(name.to_owned(), Arc::clone(&listener));
        }
        let accepting = sockets.into_iter().map(|socket| {
            let accept = accept(Arc::downgrade(&listener), socket, pipes.clone());
            tokio::spawn(accept).abort_handle()
        });
        *listener.accepting.lock().expect("no panic under this lock") = accepting.collect();
        Ok(listener)
    }

    fn check_room(&self, name: &str) -> Result<(), Problem> {
        let all = self.all();
        if all.contains_key(name) {
            return Err(taken(name));
        }
        if all.len() >= MOST_LISTENERS {
            return Err(Kind::TooMany.because(format_args!(
                "there are {MOST_LISTENERS} listeners, and there are no more: close one"
            )));
        }
        Ok(())
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Listener>, Problem> {
        self.all().get(name).map(Arc::clone).ok_or_else(|| no_listener(name))
    }

    /// Ends a listener. Its pipes stay.
    pub(crate) fn close(&self, name: &str) -> Result<(), Problem> {
        let listener = self.all().remove(name).ok_or_else(|| no_listener(name))?;
        listener.end("it was closed".to_owned());
        Ok(())
    }

    /// What clients are told of all.
    pub(crate) fn describe(&self) -> Vec<Value> {
        self.all().values().map(|listener| listener.describe()).collect()
    }
}

fn taken(name: &str) -> Problem {
    Kind::NameTaken.because(format_args!("there is a listener {name}: close it, or take another name"))
}

fn no_listener(name: &str) -> Problem {
    Kind::NoListener.because(format_args!("there is no listener {name}: open it first"))
}

impl Listener {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    fn end(&self, why: String) {
        self.accepting.lock().expect("no panic under this lock").iter().for_each(AbortHandle::abort);
        self.state().end = Some(why);
        self.changed.notify_waiters();
    }

    pub(crate) fn describe(&self) -> Value {
        let state = self.state();
        json!({
            "name": &self.name,
            "protocol": "tcp",
            "port": self.at.port(),
            "accepted": state.count,
            "waiting": state.waiting.len(),
            "error": &state.end,
        })
    }

    /// Takes the next connection; `None` if there is none until the deadline.
    pub(crate) async fn next(&self, deadline: Instant) -> Result<Option<Arc<Pipe>>, Problem> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(pipe) = state.waiting.pop_front() {
                    drop(state);
                    self.changed.notify_waiters();
                    return Ok(Some(pipe));
                }
                if let Some(why) = &state.end {
                    return Err(Kind::Ended.because(format_args!("listener {} has ended: {why}", self.name)));
                }
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(deadline) => return Ok(None),
            }
        }
    }

    /// Waits until there is room for one more that waits, and gives it a name.
    async fn room(&self) -> String {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if state.waiting.len() < MOST_WAITING {
                    state.count += 1;
                    return format!("{}.{}", self.name, state.count);
                }
            }
            changed.await;
        }
    }
}

/// Accepts connections, as many as there is room for. The others wait in the node.
async fn accept(listener: Weak<Listener>, socket: TcpListener, pipes: Pipes) {
    loop {
        // While nobody connects, nothing but the listener's entry keeps it.
        let accepted = socket.accept().await;
        let Some(listener) = listener.upgrade() else { return };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::NetworkDown => {
                return listener.end(error.to_string());
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let mut name = listener.room().await;
        let reserved = loop {
            match pipes.reserve(&name) {
                Ok(reserved) => break reserved,
                // A client has taken that name.
                Err(problem) if problem.kind() == Kind::NameTaken => name = listener.room().await,
                // All pipes are in use: the connection waits.
                Err(problem) => {
                    tracing::debug!(%problem, "a connection waits for a pipe");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        if let Ok(pipe) = connected(reserved, stream, peer) {
            listener.state().waiting.push_back(pipe);
            listener.changed.notify_waiters();
        }
    }
}
