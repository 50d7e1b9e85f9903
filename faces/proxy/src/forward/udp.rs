//! Datagrams: one flow for each client's address, which ends after an idle time.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{Lead, datagram_place};
use crate::datagrams::Datagrams;
use crate::error::DialError;
use crate::event::{Event, Tell};
use crate::gate::Gate;
use crate::owner::Owner;
use crate::slots::{Slot, Slots};

/// Limits of one client's datagrams that wait while its flow is set up, in number and bytes.
const MAX_WAITING_DATAGRAMS: usize = 64;
const MAX_WAITING_BYTES: usize = 256 << 10;

/// Limits of the flows; all sockets share the slots.
pub(super) struct Limits {
    pub(super) slots: Slots,
    pub(super) idle: Duration,
    pub(super) tell: Tell,
}

/// Forwards datagrams of `socket` until it fails.
pub(super) async fn forward(socket: Arc<Datagrams>, lead: Lead, gate: &Gate, limits: &Limits) -> io::Error {
    let mut flows: HashMap<SocketAddr, Waiting> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let (datagram, client) = tokio::select! {
            received = socket.receive() => match received {
                Ok(received) => received,
                Err(error) => return error,
            },
            Some(ended) = tasks.join_next() => {
                // A new flow may have taken its place.
                if let Ok(client) = ended
                    && flows.get(&client).is_some_and(|flow| flow.sender.is_closed())
                {
                    flows.remove(&client);
                }
                continue;
            }
        };
        let flow = match flows.get(&client) {
            Some(flow) if !flow.sender.is_closed() => flow,
            _ => {
                let is_overlay = socket.is_overlay();
                let owner = Owner::of_client(gate.overlay(), is_overlay, client.ip());
                let Some(slot) = limits.slots.take(owner) else {
                    (limits.tell)(Event::Full { client: client.to_string() });
                    continue;
                };
                let (sender, datagrams) = mpsc::channel(MAX_WAITING_DATAGRAMS);
                let flow = Flow {
                    client,
                    socket: Arc::clone(&socket),
                    datagrams,
                    lead: lead.clone(),
                    gate: gate.clone(),
                    idle: limits.idle,
                    _slot: slot,
                };
                let tell = Arc::clone(&limits.tell);
                tasks.spawn(async move {
                    let (client, target) = (flow.client, flow.lead.to_string());
                    if let Err(error) = flow.run().await {
                        let reason = error.to_string();
                        tell(Event::Failed { client: client.to_string(), target, reason });
                    }
                    client
                });
                flows.insert(client, Waiting { sender, room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)) });
                &flows[&client]
            }
        };
        flow.add(datagram);
    }
}

/// The queue of one client's flow.
struct Waiting {
    sender: mpsc::Sender<(Vec<u8>, OwnedSemaphorePermit)>,
    /// Number of bytes that may still be queued.
    room: Arc<Semaphore>,
}

impl Waiting {
    /// Queues a datagram. One that finds no room is lost, like any other.
    fn add(&self, datagram: Vec<u8>) {
        let length = u32::try_from(datagram.len()).unwrap_or(u32::MAX);
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(length) {
            let _ = self.sender.try_send((datagram, room));
        }
    }
}

/// The flow of one client's datagrams.
struct Flow {
    client: SocketAddr,
    socket: Arc<Datagrams>,
    datagrams: mpsc::Receiver<(Vec<u8>, OwnedSemaphorePermit)>,
    lead: Lead,
    gate: Gate,
    idle: Duration,
    _slot: Slot,
}

impl Flow {
    /// Forwards datagrams in both directions until the flow has been idle.
    async fn run(mut self) -> Result<(), DialError> {
        let to = datagram_place(&self.lead, &self.gate).await?;
        let outer = self.gate.datagrams(matches!(self.lead, Lead::Overlay(_)), to.ip()).await?;
        outer.connect(to).await?;
        let last = Mutex::new(Instant::now());
        let touch = || *last.lock().expect("no panic under this lock") = Instant::now();
        let there = async {
            while let Some((datagram, _room)) = self.datagrams.recv().await {
                touch();
                outer.send(&datagram).await;
            }
        };
        let back = async {
            while let Ok((datagram, _)) = outer.receive().await {
                touch();
                self.socket.send_to(&datagram, self.client).await;
            }
        };
        let idle = async {
            loop {
                let since = last.lock().expect("no panic under this lock").elapsed();
                match self.idle.checked_sub(since) {
                    Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                    _ => return,
                }
            }
        };
        tokio::select! {
            () = there => {}
            () = back => {}
            () = idle => {}
        }
        Ok(())
    }
}
