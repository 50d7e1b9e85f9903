use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// Account of addresses whose owners have never received anything: victims whose addresses someone forges.
///
/// A node may send such an address at most the bytes that came from it (docs/reference/PROTOCOL.md, section
/// 4). One account is for one node, because each may answer with the bytes it has received.
#[derive(Debug, Clone, Default)]
pub struct Credit {
    accounts: BTreeMap<SocketAddr, Account>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Account {
    received: usize,
    sent: usize,
    answers: usize,
}

/// Error: more bytes were sent to a victim than came from its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdrawn {
    /// The victim.
    pub victim: SocketAddr,
    /// Bytes of datagrams from the victim's address.
    pub received: usize,
    /// Bytes of datagrams to the victim's address.
    pub sent: usize,
}

impl Credit {
    /// Records `bytes` sent in the victim's name.
    pub fn forge(&mut self, victim: SocketAddr, bytes: usize) {
        self.accounts.entry(victim).or_default().received += bytes;
    }

    /// Records `bytes` that the node sends to an address, which need not belong to a victim.
    /// Fails if more bytes were sent there than came from there.
    pub fn spend(&mut self, to: SocketAddr, bytes: usize) -> Result<(), Overdrawn> {
        let Some(account) = self.accounts.get_mut(&to) else { return Ok(()) };
        account.sent += bytes;
        account.answers += 1;
        match *account {
            Account { received, sent, .. } if sent > received => {
                Err(Overdrawn { victim: to, received, sent })
            }
            _ => Ok(()),
        }
    }

    /// Returns true if someone has forged that address.
    pub fn is_victim(&self, address: &SocketAddr) -> bool {
        self.accounts.contains_key(address)
    }

    /// Returns the number of datagrams sent to victims so far.
    pub fn answers(&self) -> usize {
        self.accounts.values().map(|account| account.answers).sum()
    }
}

impl fmt::Display for Overdrawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { victim, received, sent } = self;
        write!(
            f,
            "{sent} bytes went to {victim}, which never received anything, and {received} came from there"
        )
    }
}
