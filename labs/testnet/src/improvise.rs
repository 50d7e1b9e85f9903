use std::net::SocketAddr;
use std::time::Instant;

use peersock_overlay::PublicIdentity;
use peersock_overlay::wire::{Control, ProbeSize};

use crate::Adversary;

impl Adversary {
    /// Makes a random message that is possible now, all kinds being equally likely. `others` are nodes in
    /// whose name the adversary may speak. `elsewhere` is an address that it may name.
    ///
    /// Some messages claim that the adversary receives where it sends from. These are responses, and answers
    /// to probes and challenges that it may not have seen.
    pub fn improvise(
        &mut self,
        now: Instant,
        others: &[PublicIdentity],
        elsewhere: SocketAddr,
    ) -> Option<Vec<u8>> {
        match self.random().below(20) {
            0 => {
                let reply_wanted = self.random().chance(0.5);
                Some(self.hello(reply_wanted))
            }
            1 => {
                let identity = (!others.is_empty()).then(|| *self.random().pick(others))?;
                Some(self.hello_of(identity, true))
            }
            2 => Some(self.beacon()),
            3 => Some(self.initiate(now)),
            4 => Some(self.initiate_stale(now)),
            5 => self.respond(now),
            6 => self.forge_response(now),
            7 => {
                // Look like two nodes with one identity.
                let instance = self.random().number() % 2;
                self.set_instance(instance);
                Some(self.initiate(now))
            }
            8 => {
                let mut data = self.seal(&KEEPALIVE)?;
                // Name a session that the target does not know.
                data[1] ^= 0x80;
                Some(data)
            }
            9 => self.seal(&[0x60; 40]),
            10 => {
                let mut unknown = vec![0; 1 + self.random().below(60)];
                self.random().fill(&mut unknown);
                // Existing message types have small numbers.
                unknown[0] = 8 + unknown[0] % 8;
                self.seal(&unknown)
            }
            11 => {
                let (id, len) = (self.random().number() as u32, self.random().size(7..=1400) as usize);
                self.control(&Control::Probe { id, len: ProbeSize::new(len)? })
            }
            12 => {
                // Guess the ids of a node that counts them.
                let id = self.random().below(64) as u32;
                self.control(&Control::ProbeAck { id, size: 35 })
            }
            13 => {
                let (receive_buffer, instance) = (self.random().number() as u32, self.random().number());
                self.control(&Control::Params { receive_buffer, instance })
            }
            14 => {
                let instance = self.random().number();
                self.control(&Control::Elsewhere { instance, remote: elsewhere })
            }
            15 => {
                let (data, here) = (self.random().bytes(), self.random().chance(0.5));
                let mut plaintext = Vec::new();
                Control::Challenge { data, here }.emit(&mut plaintext);
                // Shorten the message below its required length.
                plaintext.truncate(Control::CHALLENGE_LEN + self.random().below(plaintext.len()));
                self.seal(&plaintext)
            }
            16 => {
                let data = self.guess();
                self.control(&Control::Answer { data })
            }
            17 => self.seal(&[]),
            18 if self.random().chance(0.2) => self.control(&Control::Close { reason: 0 }),
            _ => self.seal(&KEEPALIVE),
        }
    }

    /// Guesses the data of a challenge.
    fn guess(&mut self) -> [u8; 8] {
        match self.random().below(3) {
            0 => self.random().bytes(),
            1 => (self.random().below(64) as u64).to_be_bytes(),
            _ => [0; 8],
        }
    }

    /// Makes a control message on the newest session, if there is one.
    pub fn control(&mut self, control: &Control) -> Option<Vec<u8>> {
        let mut plaintext = Vec::new();
        control.emit(&mut plaintext);
        self.seal(&plaintext)
    }
}

/// Plaintext of a keepalive as nodes send it.
const KEEPALIVE: [u8; 7] = [0; 7];
