//! Settings that a program asks for, for the node that programs share.

use std::path::PathBuf;
use std::time::Duration;

use peersock_overlay::wire::DISCOVERY_PORT;
use zeroize::Zeroizing;

use super::{IdentitySource, NodeBuilder};
use crate::config::RootSource;
use crate::driver::Interfaces;
use crate::settings::{
    VariableError, busy_poll_of_environment, dht_of_environment, roots_of_environment, stun_of_environment,
    turn_of_environment,
};
use crate::state::{StateDir, StateError};

impl NodeBuilder {
    /// Returns the state directory that keeps the identity; `None` for another source of the identity.
    ///
    /// # Errors
    /// The default directory is not known.
    pub fn state_path(&self) -> Result<Option<PathBuf>, StateError> {
        match &self.identity {
            IdentitySource::Default => StateDir::default_path().map(Some),
            IdentitySource::StateDir(path) => Ok(Some(path.clone())),
            IdentitySource::Ephemeral | IdentitySource::Seed(_) | IdentitySource::Opened(_) => Ok(None),
        }
    }

    /// Returns the roots, those of the environment included.
    ///
    /// # Errors
    /// The variable is malformed.
    pub fn named_roots(&self) -> Result<Vec<RootSource>, VariableError> {
        self.roots.clone().map_or_else(roots_of_environment, Ok)
    }

    /// Returns the settings that differ from the defaults, those of the environment included, except for the
    /// identity and the roots: each with its value, which may contain a password. A setting that the program
    /// `peersock` has is named as its option, with hyphens; another one as in
    /// [`SETTINGS`](crate::settings::SETTINGS).
    ///
    /// ```
    /// # use peersock::{Interfaces, Node};
    /// let node = Node::builder().interfaces(Interfaces::Loopback).discovery(false);
    /// let named = node.named_settings()?;
    /// let named: Vec<_> = named.iter().map(|(name, value)| (*name, value.as_str())).collect();
    /// assert_eq!(named, [("--interface", "lo"), ("discovery", "false")]);
    /// # Ok::<(), peersock::settings::VariableError>(())
    /// ```
    ///
    /// # Errors
    /// A variable is malformed.
    pub fn named_settings(&self) -> Result<Vec<(&'static str, Zeroizing<String>)>, VariableError> {
        let mut named = Vec::new();
        let mut name = |option, value: String| named.push((option, Zeroizing::new(value)));
        for (is_off, option) in [
            (self.maps_ports == Some(false), "--no-portmap"),
            (!self.birthday, "--no-birthday"),
            (self.tcp_punch == Some(false), "--no-tcp-punch"),
        ] {
            if is_off {
                name(option, String::new());
            }
        }
        match &self.interfaces {
            Interfaces::All => {}
            Interfaces::Loopback => name("--interface", "lo".to_owned()),
            Interfaces::Named(names) => name("--interface", sorted(names)),
            Interfaces::Except(names) => name("interfaces", format!("without {}", sorted(names))),
        }
        let dht = self.dht.clone().map_or_else(dht_of_environment, Ok)?;
        if dht.is_on() {
            name("--dht", dht.to_string());
        }
        for server in self.turn.clone().map_or_else(turn_of_environment, Ok)? {
            name("--turn", server.to_portable().to_string());
        }
        for server in self.stun.clone().map_or_else(stun_of_environment, Ok)? {
            name("--stun", server.to_string());
        }
        let busy_poll = self.busy_poll.map_or_else(busy_poll_of_environment, |time| Ok(Some(time)))?;
        if let Some(time) = busy_poll {
            name("--busy-poll", microseconds(time));
        }
        if self.port != 0 {
            name("--overlay-port", self.port.to_string());
        }
        match self.discovery_port {
            None => name("discovery", "false".to_owned()),
            Some(DISCOVERY_PORT) => {}
            Some(port) => name("discovery_port", port.to_string()),
        }
        if !self.introduce {
            name("introduce", "false".to_owned());
        }
        if let Some(suite) = self.suite {
            name("only_suite", suite.to_string());
        }
        let (own, usual) = (&self.stack, peersock_stack::Config::default());
        if (own.send_buffer, own.receive_buffer) != (usual.send_buffer, usual.receive_buffer) {
            name("tcp_buffers", format!("{},{}", own.send_buffer, own.receive_buffer));
        }
        Ok(named)
    }
}

fn sorted(names: &[String]) -> String {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    names.join(",")
}

fn microseconds(time: Duration) -> String {
    time.as_micros().to_string()
}

#[cfg(test)]
mod tests {
    use crate::{Dht, Interfaces, Node};

    #[test]
    fn each_setting_that_differs_is_named_and_no_other() {
        let names = |node: crate::NodeBuilder| {
            let named = node.named_settings().expect("no variable is read");
            named.into_iter().map(|(name, value)| format!("{name}={}", *value)).collect::<Vec<_>>()
        };
        // The environment of a test may name some.
        let settled = || Node::builder().dht(Dht::Off).turn([]).stun([]).busy_poll(std::time::Duration::ZERO);
        assert_eq!(names(settled()), ["--busy-poll=0"]);
        let turn = "turn:anna:a%40b@host:3478".parse().expect("a server");
        let all = settled()
            .interfaces(Interfaces::Named(vec!["lo".into(), "eth0".into()]))
            .port(7000)
            .port_mapping(false)
            .birthday(false)
            .tcp_punch(false)
            .dht(Dht::Public)
            .turn([turn])
            .discovery_port(7001)
            .introduce(false)
            .tcp_buffers(1000, 2000);
        let expected = [
            "--no-portmap=",
            "--no-birthday=",
            "--no-tcp-punch=",
            "--interface=eth0,lo",
            "--dht=public",
            "--turn=turn:anna:a%40b@host:3478",
            "--busy-poll=0",
            "--overlay-port=7000",
            "discovery_port=7001",
            "introduce=false",
            "tcp_buffers=1000,2000",
        ];
        assert_eq!(names(all), expected);
    }
}
