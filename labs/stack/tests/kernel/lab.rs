//! A network namespace with a node, and connections between the kernel and the node.
#![expect(clippy::print_stdout, reason = "how a test says that it is skipped")]

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use peersock_stack_lab::kernel::{Namespace, Node, Options, Socket, kernel_address, unavailable};

/// The side that opens a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Opener {
    Kernel,
    Stack,
}

/// A connection and its description.
pub(crate) struct Pair {
    pub(crate) kernel: TcpStream,
    pub(crate) ours: Socket,
    /// Description for messages.
    pub(crate) what: String,
}

pub(crate) struct Lab {
    pub(crate) namespace: Namespace,
    pub(crate) node: Node,
}

/// Longest wait for anything; it ends a hang.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Kernel counters that grow only when a peer breaks the rules.
const COMPLAINTS: &[(&str, &str)] = &[
    ("Ip", "InHdrErrors"),
    ("Tcp", "InErrs"),
    ("Tcp", "InCsumErrors"),
    ("TcpExt", "PAWSEstab"),
    ("TcpExt", "TCPAbortFailed"),
    ("TcpExt", "TCPAbortOnClose"),
    ("TcpExt", "TCPAbortOnData"),
    ("TcpExt", "TCPAbortOnLinger"),
    ("TcpExt", "TCPAbortOnMemory"),
    ("TcpExt", "TCPAbortOnTimeout"),
    ("TcpExt", "TCPChallengeACK"),
    ("TcpExt", "TCPSACKReneging"),
    ("TcpExt", "TCPSYNChallenge"),
    ("TcpExt", "TCPSACKDiscard"),
];

impl Lab {
    /// Creates a laboratory, or prints the reason and returns `None` if this machine cannot host one.
    pub(crate) fn new(options: &Options) -> Option<Lab> {
        if let Some(reason) = unavailable() {
            println!("SKIP {}: {reason}", thread::current().name().unwrap_or("a test with the kernel"));
            return None;
        }
        let namespace = Namespace::new().expect("a namespace could be made a moment ago");
        let node = Node::start(&namespace, options).expect("a TUN device could be made a moment ago");
        Some(Lab { namespace, node })
    }

    /// Runs `case` with a connection over each family, opened by each side.
    pub(crate) fn each(&self, mut case: impl FnMut(Pair)) {
        for ipv6 in [false, true] {
            for opener in [Opener::Kernel, Opener::Stack] {
                case(self.pair(ipv6, opener));
            }
        }
    }

    pub(crate) fn pair(&self, ipv6: bool, opener: Opener) -> Pair {
        let (kernel, ours) = match opener {
            Opener::Kernel => {
                let acceptor = self.node.listen(ipv6).expect("a free port");
                let remote = acceptor.local();
                let kernel = self.connect(remote).expect("somebody listens");
                (kernel, acceptor.accept().expect("somebody has connected"))
            }
            Opener::Stack => {
                let listener = self.listen(ipv6);
                let ours =
                    self.node.connect(listener.local_addr().expect("bound")).expect("somebody listens");
                let (kernel, _) = listener.accept().expect("somebody has connected");
                (kernel, ours)
            }
        };
        kernel.set_read_timeout(Some(TEST_TIMEOUT)).expect("a socket");
        kernel.set_write_timeout(Some(TEST_TIMEOUT)).expect("a socket");
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        Pair { kernel, ours, what: format!("{family}, opened by the {opener:?}") }
    }

    /// Connects from the kernel.
    pub(crate) fn connect(&self, remote: SocketAddr) -> io::Result<TcpStream> {
        self.namespace.run(|| TcpStream::connect_timeout(&remote, TEST_TIMEOUT))
    }

    /// Listens in the kernel.
    pub(crate) fn listen(&self, ipv6: bool) -> TcpListener {
        let local = SocketAddr::new(kernel_address(ipv6), 0);
        self.namespace.run(|| TcpListener::bind(local)).expect("a free port")
    }

    /// Checks that the kernel has no complaints, except for the counters named in `but`.
    pub(crate) fn assert_no_complaints(&self, but: &[&str]) {
        let count = |(protocol, name): &(&str, &str)| {
            let count = self.namespace.counter(protocol, name).expect("a counter of Linux");
            (count > 0 && !but.contains(name)).then(|| format!("{protocol} {name}: {count}"))
        };
        let complaints: Vec<String> = COMPLAINTS.iter().filter_map(count).collect();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}
