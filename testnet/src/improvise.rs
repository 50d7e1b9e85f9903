use std::net::SocketAddr;
use std::time::Instant;

use peersock_overlay::PublicIdentity;
use peersock_overlay::wire::{Control, ProbeSize};

use crate::Adversary;

/// A message that the adversary has thought of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The datagram.
    pub bytes: Vec<u8>,
    /// It claims that its sender has received something at its source address: a response, or the answer to a probe.
    pub is_proof: bool,
}

impl Adversary {
    /// Any message that it can make now, each kind as likely as others. `others` are nodes in whose name it may speak;
    /// `elsewhere` is an address that it may name.
    pub fn improvise(
        &mut self,
        now: Instant,
        others: &[PublicIdentity],
        elsewhere: SocketAddr,
    ) -> Option<Message> {
        let mut is_proof = false;
        let bytes = match self.random().below(16) {
            0 => {
                let reply_wanted = self.random().chance(0.5);
                self.hello(reply_wanted)
            }
            1 if !others.is_empty() => {
                let identity = *self.random().pick(others);
                self.hello_of(identity, true)
            }
            2 => self.beacon(),
            3 => self.initiate(now),
            4 => self.initiate_stale(now),
            5 => {
                is_proof = true;
                self.respond(now)?
            }
            6 => self.forge_response(now)?,
            7 => {
                // Two nodes with one identity.
                let instance = self.random().number() % 2;
                self.set_instance(instance);
                self.initiate(now)
            }
            8 => {
                let mut data = self.seal(&KEEPALIVE)?;
                // A session that the target does not know.
                data[1] ^= 0x80;
                data
            }
            9 => self.seal(&[0x60; 40])?,
            10 => {
                let mut unknown = vec![0; KEEPALIVE.len() + self.random().below(60)];
                self.random().fill(&mut unknown);
                unknown[0] = 6 + unknown[0] % 10;
                self.seal(&unknown)?
            }
            11 => {
                // Shorter ones are answered by more, an acknowledgement and a probe: not mended yet.
                let (id, len) = (self.random().number() as u32, 42 + self.random().below(1400));
                self.control(&Control::Probe { id, len: ProbeSize::new(len)? })?
            }
            12 => {
                is_proof = true;
                // The ids of a node that counts.
                let id = self.random().below(64) as u32;
                self.control(&Control::ProbeAck { id, size: 35 })?
            }
            13 => {
                let (receive_buffer, instance) = (self.random().number() as u32, self.random().number());
                self.control(&Control::Params { receive_buffer, instance })?
            }
            14 => {
                let instance = self.random().number();
                self.control(&Control::Elsewhere { instance, remote: elsewhere })?
            }
            _ => self.seal(&KEEPALIVE)?,
        };
        Some(Message { bytes, is_proof })
    }

    /// A control message on its newest session, if it has one.
    pub fn control(&mut self, control: &Control) -> Option<Vec<u8>> {
        let mut plaintext = Vec::new();
        control.emit(&mut plaintext);
        self.seal(&plaintext)
    }
}

/// The plaintext of a keepalive as nodes send it.
const KEEPALIVE: [u8; 7] = [0; 7];
