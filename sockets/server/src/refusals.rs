//! Ports that no network allows, reported to the node's owner once each.

use std::collections::BTreeSet;
use std::sync::mpsc;

use peersock::attach::port_refusal_text;
use peersock_datapath::JoinedNetwork;

/// Receiver of reports about ports that no network allows, and the ports reported so far.
#[derive(Default)]
pub(crate) struct Refusals {
    listener: Option<mpsc::Sender<String>>,
    told: BTreeSet<u16>,
}

impl Refusals {
    /// Replaces the previous receiver.
    pub(crate) fn listen(&mut self) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        self.listener = Some(sender);
        receiver
    }

    /// Reports a port that one of the selected networks does not allow, once.
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
            // The receiver may be gone.
            let _ = listener.send(port_refusal_text(port, &networks));
        }
    }
}
