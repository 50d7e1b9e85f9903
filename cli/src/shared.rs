//! Attachment of a command to the node that programs share.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock::Network;
use peersock::attach::Linger;
use peersock_attached::Member;
use peersock_socket_server::FdServer;
use tokio::sync::Notify;

use crate::args::SharedNodeArgs;
use crate::failure::Outcome;
use crate::{arrivals, attachment, signals, stdio};

/// Time for data to arrive after Ctrl-C, and for connections to be reset.
const INTERRUPTED_WITHIN: Duration = Duration::from_millis(300);

/// Time for the node to end this command's sockets after Ctrl-C.
const ENDING: Duration = Duration::from_secs(2);

/// A command's place at the shared node.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) member: Member,
    pub(crate) network: Network,
    /// Notified once the node has ended.
    lost: Arc<Notify>,
}

impl Shared {
    /// Attaches to the shared node; see [`attachment::open`].
    pub(crate) fn attach(
        command: &str,
        node: &SharedNodeArgs,
        network: &Network,
        within: Duration,
    ) -> Outcome<Option<Shared>> {
        let lost = Arc::<Notify>::default();
        let ended = Arc::clone(&lost);
        let tell = move |told| {
            // Ends the calls that wait; each says what has happened.
            if let Some(tag) = attachment::show(told) {
                ended.notify_one();
                FdServer::end_sockets_of(tag);
            }
        };
        let name = format!("peersock {command}");
        let Some(attached) = attachment::open(node, name, std::slice::from_ref(network), within, tell)?
        else {
            return Ok(None);
        };
        // Each connection takes a descriptor or two. Afterwards, because the node has this process's limits.
        FdServer::raise_descriptor_limit();
        let member = Member::new(Arc::new(attached))?;
        Ok(Some(Shared { member, network: network.clone(), lost }))
    }

    /// Makes Ctrl-C end the command: after `farewell`, peers whose connections are cut off are reset.
    pub(crate) fn end_on_signals(&self, farewell: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let shared = self.clone();
        signals::end_with(move |signal| {
            farewell();
            match arrivals::finish(INTERRUPTED_WITHIN) {
                0 => {}
                bytes => stdio::note(crate::session::not_everything(bytes)),
            }
            shared.member.reset_all(INTERRUPTED_WITHIN);
            shared.end(ENDING);
            128 + signal
        })
    }

    /// Waits until the node has ended.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Delivers data of closed connections, for a time at most.
    pub(crate) fn deliver(&self, within: Duration) {
        let attached = self.member.attached();
        attached.begin_drain();
        let _ = attached.deliver(Linger::Within(within));
    }

    /// Ends the attachment. Datagrams that were sent leave before. A node that is stopped is waited for until
    /// a limit.
    pub(crate) fn end(&self, within: Duration) {
        let begin = Instant::now();
        self.member.attached().begin_drain();
        self.member.attached().detach(|| begin.elapsed() >= within);
    }
}
