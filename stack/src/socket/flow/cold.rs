//! Rare parts of a flow, apart from the data that each packet uses.

use std::time::Duration;

use super::{Inner, options};
use crate::host::clock::Time;
use crate::socket::error_queue::ErrorQueue;
use crate::socket::flow::Loss;
use crate::{IpOptions, KeepAlive, TcpOptions};

/// Settings that differ from the defaults, and their state. A flow without a `Cold` has all defaults.
pub(super) struct Cold {
    /// Settings of the packets' IP headers, and of ICMP error reports.
    pub(super) ip: IpOptions,
    pub(super) keepalive: KeepAlive,
    /// Time since which the settings apply; `None` until the timer has been set for them.
    pub(super) watched: Option<Time>,
    /// TCP_USER_TIMEOUT; `None` for the node's.
    pub(super) user_timeout: Option<Duration>,
    /// Time since which the peer has been seen without room for waiting data.
    pub(super) full_since: Option<Time>,
    /// Details of ICMP errors, if the application requests them.
    pub(super) reports: ErrorQueue,
    /// Latest time at which the listener gets the flow, if it waits for data.
    pub(super) deferred: Option<Time>,
    /// Unread bytes that keep their place after the end of both directions, so that the window stays closed.
    pub(super) held: usize,
    /// Undelivered data at the end of the connection.
    pub(super) loss: Option<Loss>,
}

impl Default for Cold {
    fn default() -> Self {
        Self {
            ip: IpOptions::default(),
            keepalive: KeepAlive::default(),
            watched: None,
            user_timeout: None,
            full_since: None,
            reports: ErrorQueue::new(),
            deferred: None,
            held: 0,
            loss: None,
        }
    }
}

impl Cold {
    /// Returns the settings of a new flow that differ from the defaults.
    pub(super) fn of(options: &TcpOptions, time: Time) -> Option<Box<Self>> {
        let ip = IpOptions { hop_limit: options.ip.hop_limit.max(1), ..options.ip };
        let keepalive = options::sane(options.keepalive);
        let user_timeout = options.user_timeout;
        let usual = ip == IpOptions::default() && keepalive == KeepAlive::default() && user_timeout.is_none();
        // Most connections keep the defaults, and a node may have a hundred thousand of them.
        (!usual)
            .then(|| Box::new(Self { ip, keepalive, watched: Some(time), user_timeout, ..Self::default() }))
    }
}

impl Inner {
    /// Returns the rare part for a change.
    pub(super) fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    pub(super) fn ip(&self) -> IpOptions {
        self.cold.as_ref().map_or_else(IpOptions::default, |cold| cold.ip)
    }

    pub(super) fn keepalive(&self) -> KeepAlive {
        self.cold.as_ref().map_or_else(KeepAlive::default, |cold| cold.keepalive)
    }

    pub(super) fn user_timeout(&self) -> Option<Duration> {
        self.cold.as_ref().and_then(|cold| cold.user_timeout)
    }

    pub(super) fn has_reports(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| !cold.reports.is_empty())
    }

    pub(super) fn held(&self) -> usize {
        self.cold.as_ref().map_or(0, |cold| cold.held)
    }

    /// Lets unread data keep its place.
    pub(super) fn hold(&mut self) {
        let unread = self.readable();
        if unread > 0 {
            self.cold().held = unread;
        }
    }

    pub(super) fn deferred(&self) -> Option<Time> {
        self.cold.as_ref().and_then(|cold| cold.deferred)
    }

    pub(super) fn defer(&mut self, until: Option<Time>) {
        if self.cold.is_some() || until.is_some() {
            self.cold().deferred = until;
        }
    }

    /// Notes that the timer is set for the settings.
    pub(super) fn watch(&mut self, time: Time) {
        if let Some(cold) = &mut self.cold {
            cold.watched.get_or_insert(time);
        }
    }
}
