//! Ports at which members connect: each connection becomes a pipe.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use peersock_proxy::Overlay;
use peersock_proxy::serving::{Connection, Listener as Socket, Owner};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::open::{bind_all, connected};
use super::{Pipe, Pipes};
use crate::limits::{MAX_LISTENERS, MAX_NAME_BYTES, MAX_WAITING_CONNECTIONS};
use crate::problem::{Kind, Problem};

/// Pause after a failure to accept.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Length that the number of a connection adds to the name of its listener, in bytes.
const NUMBER_BYTES: usize = 16;

/// The listeners of a server, by name.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<BTreeMap<String, Arc<Listener>>>);

/// A listener.
#[derive(Debug)]
pub(crate) struct Listener {
    name: String,
    at: SocketAddr,
    state: Mutex<State>,
    /// Notified when a connection has come or was taken, or when the listener has ended.
    changed: Notify,
    accepting: Mutex<Vec<AbortHandle>>,
}

#[derive(Debug, Default)]
struct State {
    /// Pipes that clients have not taken yet.
    waiting: VecDeque<Arc<Pipe>>,
    /// Number of connections so far.
    count: u64,
    /// Number of connections that were reset, because their member had reached its limit.
    refused: u64,
    end: Option<String>,
}

impl Listeners {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Listener>>> {
        self.0.lock().expect("no panic under this lock")
    }

    /// Listens at a port of all addresses of the node.
    pub(crate) async fn open(
        &self,
        node: &Overlay,
        pipes: &Pipes,
        name: &str,
        port: u16,
    ) -> Result<Arc<Listener>, Problem> {
        if name.len() > MAX_NAME_BYTES - NUMBER_BYTES {
            let most = MAX_NAME_BYTES - NUMBER_BYTES;
            return Err(Kind::BadRequest.because(format_args!(
                "a listener's name has {most} bytes at most: its pipes are called NAME.1, NAME.2, ..."
            )));
        }
        check_room(&self.all(), name)?;
        let sockets = bind_all(node, port, |at| node.listen(at), Socket::local_addr).await?;
        let at =
            sockets[0].local_addr().map_err(|error| Problem::of_io(&error, "the listener has failed"))?;
        let (state, changed, accepting) = (Mutex::default(), Notify::new(), Mutex::default());
        let listener = Arc::new(Listener { name: name.to_owned(), at, state, changed, accepting });
        let accepting = sockets.into_iter().map(|socket| {
            let accept = accept(Arc::downgrade(&listener), node.clone(), socket, pipes.clone());
            tokio::spawn(accept).abort_handle()
        });
        // Before the listener can be found, so that a client that ends it ends all of it.
        *listener.accepting.lock().expect("no panic under this lock") = accepting.collect();
        self.insert(name, &listener)?;
        Ok(listener)
    }

    fn insert(&self, name: &str, listener: &Arc<Listener>) -> Result<(), Problem> {
        let mut all = self.all();
        // Other requests may have taken the name, or the last place, in the meantime.
        check_room(&all, name)?;
        all.insert(name.to_owned(), Arc::clone(listener));
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

    /// Ends all listeners.
    pub(crate) fn close_all(&self) {
        for (_, listener) in std::mem::take(&mut *self.all()) {
            listener.end("the server has ended".to_owned());
        }
    }

    /// Returns the description of all listeners for clients.
    pub(crate) fn describe(&self) -> Vec<Value> {
        self.all().values().map(|listener| listener.describe()).collect()
    }
}

fn check_room(all: &BTreeMap<String, Arc<Listener>>, name: &str) -> Result<(), Problem> {
    if all.contains_key(name) {
        return Err(Kind::NameTaken
            .because(format_args!("there is a listener {name}: close it, or take another name")));
    }
    if all.len() >= MAX_LISTENERS {
        return Err(
            Kind::TooMany.because(format_args!("all {MAX_LISTENERS} listeners are in use: close one"))
        );
    }
    Ok(())
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
            "refused": state.refused,
            "waiting": state.waiting.len(),
            "error": &state.end,
        })
    }

    /// Takes the next connection; `None` if there is none by the deadline.
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

    /// Makes an undelivered connection the next one again.
    pub(crate) fn put_back(&self, pipe: Arc<Pipe>) {
        self.state().waiting.push_front(pipe);
        self.changed.notify_waiters();
    }

    /// Makes a connection reset when it is dropped, so that its client does not take the close for the end of
    /// an answer.
    fn refuse(&self, stream: &Connection, peer: SocketAddr) {
        tracing::debug!(client = %peer, "a member has all the pipes that it may have");
        stream.reset_when_dropped();
        self.state().refused += 1;
    }

    /// Waits until there is room for one more waiting connection, and returns a name for it.
    async fn room(&self) -> String {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if state.waiting.len() < MAX_WAITING_CONNECTIONS {
                    state.count += 1;
                    return format!("{}.{}", self.name, state.count);
                }
            }
            changed.await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.get_mut().expect("no panic under this lock").iter().for_each(AbortHandle::abort);
    }
}

/// Accepts connections while there is room. Others wait in the node, except connections of a member that has
/// reached its limit, because these would block other members' connections.
async fn accept(listener: Weak<Listener>, node: Overlay, socket: Socket, pipes: Pipes) {
    'accepting: loop {
        // While no client connects, only the listener's entry keeps it alive.
        let accepted = socket.accept_member().await;
        let Some(listener) = listener.upgrade() else { return };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::NetworkDown => {
                return listener.end(error.to_string());
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
                continue;
            }
        };
        let owner = Owner::of_member(&node, peer.ip());
        if pipes.has_share(owner) {
            listener.refuse(&stream, peer);
            continue;
        }
        let mut name = listener.room().await;
        let reserved = loop {
            match pipes.reserve_for(&name, Some(owner)) {
                Ok(reserved) => break reserved,
                // The member has also connected at another address of the node.
                Err(_) if pipes.has_share(owner) => {
                    listener.refuse(&stream, peer);
                    continue 'accepting;
                }
                // A client has taken that name.
                Err(problem) if problem.kind() == Kind::NameTaken => name = listener.room().await,
                // All pipes are in use: the connection waits.
                Err(problem) => {
                    tracing::debug!(error = %problem, "a connection waits for a pipe");
                    tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
                }
            }
        };
        if let Ok(pipe) = connected(reserved, stream, peer) {
            listener.state().waiting.push_back(pipe);
            listener.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn listener(name: &str) -> Arc<Listener> {
        let at = "192.0.2.1:1".parse().expect("an address");
        let (state, changed, accepting) = (Mutex::default(), Notify::new(), Mutex::default());
        Arc::new(Listener { name: name.to_owned(), at, state, changed, accepting })
    }

    #[tokio::test]
    async fn who_waits_is_told_of_the_end() {
        let listeners = Listeners::default();
        let listener = listener("web");
        listeners.insert("web", &listener).expect("there is room");
        let mut waiting = pin!(listener.next(Instant::now() + Duration::from_secs(3600)));
        assert!(waiting.as_mut().now_or_never().is_none(), "nobody has connected");
        listeners.close("web").expect("it is there");
        assert_eq!(waiting.await.map(drop).map_err(|problem| problem.kind()), Err(Kind::Ended));
    }

    #[test]
    fn there_are_only_so_many_also_when_several_are_opened_at_once() {
        let listeners = Listeners::default();
        let kind = |name: &str| {
            // Each request has seen that there was room before it bound its port.
            listeners.insert(name, &listener(name)).map_err(|problem| problem.kind())
        };
        for number in 0..MAX_LISTENERS {
            assert_eq!(kind(&number.to_string()), Ok(()));
        }
        assert_eq!(kind("0"), Err(Kind::NameTaken));
        assert_eq!(kind("more"), Err(Kind::TooMany));
    }
}
