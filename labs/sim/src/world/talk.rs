use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peersock_overlay::NetworkId;
use peersock_stack::{Error, TcpOptions, UdpOptions, UdpSocket};

use super::{Event, Violation, World};
use crate::apps::{Conversation, EchoClient, Plan};

impl World {
    /// Returns a node's self-certifying address in a network.
    pub fn address_of(&self, number: usize, network: NetworkId) -> IpAddr {
        network.address_of(&self.machines[number].node_id()).into()
    }

    /// Begins a conversation. A client that cannot connect tries again. Does nothing if the client does not
    /// run.
    /// Fails if a program has observed a violation.
    pub fn converse(&mut self, plan: Arc<Plan>) -> Result<(), Violation> {
        let (now, at) = (self.now, self.instant());
        let remote = SocketAddr::new(self.address_of(plan.server, plan.network), plan.port);
        let Some(node) = &mut self.machines[plan.client].node else { return Ok(()) };
        let Some(network) = node.network(plan.network) else { return Ok(()) };
        let stack = node.datapath().stack();
        let flow = stack
            .tcp_connect(
                at,
                network.interface,
                None,
                remote,
                TcpOptions { nodelay: plan.port.is_multiple_of(2), ..TcpOptions::default() },
            )
            .map_err(|error| {
                Violation(format!("node {} cannot connect to {remote}: {error}", plan.client))
            })?;
        let id = self.ledger.begin(now, plan.clone());
        let (client, server) = (plan.client, plan.server);
        self.trace.note(
            now,
            format_args!("{client} begins conversation {id} with {server} in {}", plan.network),
            &[],
        );
        node.pump(at, &flow);
        node.add_conversation(Conversation::client(flow, id, plan));
        self.settle(client)
    }

    /// Sends one UDP datagram from a socket of a node. Does nothing if the node does not run.
    /// Fails if there is no route to the destination, or a program has observed a violation.
    pub fn send_udp(
        &mut self,
        number: usize,
        socket: &UdpSocket,
        remote: SocketAddr,
        data: &[u8],
    ) -> Result<(), Violation> {
        let at = self.instant();
        let Some(node) = &self.machines[number].node else { return Ok(()) };
        let sent = node.datapath().send_udp(at, socket, Some(remote), data);
        sent.map_err(|error| Violation(format!("node {number} cannot send to {remote}: {error}")))?;
        self.settle(number)
    }

    /// Sends `count` UDP datagrams to the echo server of another node. Returns the number of the exchange.
    /// Fails if a program has observed a violation.
    pub fn exchange(
        &mut self,
        network: NetworkId,
        (client, server): (usize, usize),
        port: u16,
        count: u32,
        interval: Duration,
    ) -> Result<u64, Violation> {
        let exchange = self.ledger.begin_exchange(network, client, server);
        let remote = SocketAddr::new(self.address_of(server, network), port);
        let random = self.random.fork();
        let now = self.now;
        let Some(node) = &mut self.machines[client].node else { return Ok(exchange) };
        let Some(joined) = node.network(network) else { return Ok(exchange) };
        let local = SocketAddr::new(joined.addresses[0], 0);
        let socket =
            node.datapath()
                .stack()
                .udp_bind(Some(joined.interface), local, UdpOptions::default())
                .map_err(|error| Violation(format!("node {client} cannot bind a UDP socket: {error}")))?;
        self.trace.note(now, format_args!("{client} begins exchange {exchange} with {server}"), &[]);
        node.add_echo_client(EchoClient {
            socket,
            node: client,
            network,
            exchange,
            server: remote,
            left: count,
            interval,
            next: now,
            until_answered: false,
            random,
        });
        self.settle(client)?;
        Ok(exchange)
    }

    /// Retries a client that could not connect, if there is an excuse.
    pub(super) fn retry(&mut self, id: u64, error: Error) -> Result<(), Violation> {
        let Some((plan, begun)) = self.ledger.plan_of(id) else { return Ok(()) };
        let disturbed = self.ledger.is_disturbed(id);
        self.ledger.withdraw(id);
        let what =
            format!("conversation {id} of {} with {} could not begin: {error}", plan.client, plan.server);
        self.trace.note(self.now, format_args!("{what}"), &[]);
        let expected = matches!(error, Error::HostUnreachable | Error::TimedOut);
        let late = self.calm_since.is_some_and(|calm| self.now > calm + self.limits.recovery);
        if !disturbed && (late || !expected) {
            return Err(Violation(format!("{what} (begun at {begun:?})")));
        }
        if self.machines[plan.client].is_in(plan.network) && self.machines[plan.server].is_in(plan.network) {
            self.queue.push(self.now + RETRY_DELAY, Event::Converse(plan));
        }
        Ok(())
    }
}

/// Delay before a client tries again.
const RETRY_DELAY: Duration = Duration::from_millis(500);
