//! Datagrams over streams: common code of the streams to roots, to other nodes and to TURN servers.

use std::sync::Weak;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peersock_datapath::{Ingress, Transmit};
use peersock_overlay::{RecvMeta, SocketIndex};
use peersock_streams::{Closed, Receiver, Sender};
use tokio::time::{sleep, timeout};

use super::Driver;

/// Limit of datagrams handed to the data path at once.
pub(super) const BATCH: usize = 64;

/// Time that queued data has to leave when streams are closed, and the interval of the check.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Queues the datagrams of one transmit; never blocks.
pub(super) fn send(sender: &Sender, transmit: &Transmit<'_>) {
    let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
    for datagram in transmit.contents.chunks(size) {
        // A send only fails if the stream has just ended; then the datagram is lost.
        let _ = sender.send(datagram.to_vec());
    }
}

/// Passes received datagrams to the data path until the stream ends. Returns the reason; `None` if the node
/// is gone.
pub(super) async fn receive(
    driver: &Weak<Driver>,
    socket: SocketIndex,
    mut receiver: Receiver,
) -> Option<Closed> {
    let remote = socket.stream_end()?;
    let meta = RecvMeta { remote, socket, multicast: false, relay: None };
    let (mut ingress, mut datagrams) = (Ingress::default(), Vec::new());
    loop {
        if let Err(reason) = receiver.recv_many(&mut datagrams, BATCH).await {
            return Some(reason);
        }
        // Per batch, so that waiting does not keep the node running.
        let driver = driver.upgrade()?;
        let now = driver.now();
        for datagram in datagrams.drain(..) {
            driver.datapath.receive(now, &mut ingress, meta, &datagram, datagram.len(), false);
        }
        driver.datapath.finish_receive(now, &mut ingress);
    }
}

/// Waits until the queues are empty, but not for long.
pub(super) async fn drain(senders: &[Sender]) {
    let waits = async {
        while senders.iter().any(|sender| sender.queued() > 0) {
            sleep(DRAIN_POLL_INTERVAL).await;
        }
        // Data that has left the queue is written in the same turn of its task.
        sleep(DRAIN_POLL_INTERVAL).await;
    };
    let _ = timeout(DRAIN_TIMEOUT, waits).await;
}

/// Waits until a thread has ended, unless it is the current one.
pub(super) fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        && thread.thread().id() != thread::current().id()
    {
        // The thread does not panic; if it did, its streams would be closed all the same.
        let _ = thread.join();
    }
}
