//! Small programs that run on the nodes. Every byte they exchange can be checked.

mod conversation;
mod echo;
mod ledger;
mod plan;

use std::time::Instant;

use peersock_datapath::Datapath;
use peersock_stack::Batch;

use crate::Time;

pub(crate) use conversation::{Conversation, Outcome};
pub(crate) use echo::{EchoClient, EchoServer};
pub use ledger::{Ledger, Violation};
pub use plan::{Plan, Reader, Script, Side, Step};

/// Resources that a program on a node may use while it runs.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) at: Instant,
    pub(crate) datapath: &'a Datapath,
    pub(crate) batch: &'a mut Batch,
    pub(crate) ledger: &'a mut Ledger,
    /// Buffer for reads.
    pub(crate) scratch: &'a mut [u8],
}
