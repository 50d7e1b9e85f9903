//! Ports that no network allows: the node's owner is told once of each.

use std::collections::BTreeSet;
use std::sync::mpsc;

use peersock::attach::port_refusal_text;
use peersock_datapath::JoinedNetwork;

/// Who is told of ports that no network allows, and those that were told.
#[derive(Default)]
pub(crate) struct Refusals {
    listener: Option<mpsc::Sender<String>>,
    told: BTreeSet<u16>,
}

impl Refusals {
    /// A new listener takes the place of the one before.
    pub(crate) fn listen(&mut self) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        self.listener = Some(sender);
        receiver
    }

    /// Tells of a port that one of the networks which are asked for does not allow, once.
    pub(crate) fn note(
        &mut self,
        port: u16,
        networks: &[JoinedNetwork],
        is_asked: impl Fn(&JoinedNetwork) -> bool,
    ) {
        let refuses = |network: &&JoinedNetwork| is_asked(network) && !network.ports.contains(&port);
        let networks: Vec<_> = networks.iter().filter(refuses).cloned().collect();
        if let Some(listener) = &self.listener
            && !networks.is_empty()
            && self.told.insert(port)
        {
            // Nobody may listen any more.
            let _ = listener.send(port_refusal_text(port, &networks));
        }
    }
}
