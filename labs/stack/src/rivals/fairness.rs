//! One flow of peersock and one of the kernel in one bottleneck.

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use peersock_stack_lab::kernel::{Bridge, Namespace, Node, Options, stack_address};
use peersock_stack_lab::link::Link;
use peersock_stack_lab::measure::Target;
use peersock_stack_lab::{ms, payload_share};

use super::Round;
use super::ends::{Outgoing, Sender, Span, Wire, connect_from, flow_without_end, kernel_end, listen};
use super::trial::{Samples, Series, Subject, Summary, Trial, Trials};

const WIRE: Wire = Wire { name: "50mbit_40ms", rate: 50e6, rtt: ms(40) };
const SECS: f64 = 30.0;
/// Start of the second flow, and start of the counting, as parts of the whole duration.
const SECOND: f64 = 1.0 / 6.0;
const SETTLED: f64 = 1.0 / 3.0;
/// Maximum numbers of rounds, because these trials take long.
const MAX_ROUNDS: [(Sender, u64); 2] = [(Sender::Cubic, 3), (Sender::Bbr, 2)];

/// One bottleneck, in which the second flow starts when the first has filled it.
struct Fairness {
    rival: Sender,
    ours_first: bool,
}

pub(crate) fn trials() -> Trials {
    let mut trials = Vec::new();
    for (rival, most_rounds) in MAX_ROUNDS {
        let target = [Target::Median(0.5), Target::MedianUnder(1.5)];
        for ours_first in [true, false] {
            let senders = [Sender::Peersock, rival];
            let [first, second] = if ours_first { senders } else { [rival, Sender::Peersock] };
            let place = format!("{}_{}_then_{}", WIRE.name, first.name(), second.name());
            let mut trial = Trial::new(format!("share {place}"), Fairness { rival, ours_first });
            for sender in senders {
                let name = format!("share/{place}.{}", sender.name());
                trial = trial.with(&name, "of fair share", Summary::Each((sender, 0)), &target);
            }
            trial = trial.with(&format!("late/share_{place}"), "of packets", Summary::Late, Trial::PUNCTUAL);
            trial.most_rounds = most_rounds;
            trials.push(trial);
        }
    }
    trials
}

impl Subject for Fairness {
    /// Returns each sender's payload after settling, divided by half of the link's capacity.
    fn measure(&self, round: Round, _: &BTreeSet<Series>) -> io::Result<Samples> {
        let secs = round.secs.unwrap_or(SECS);
        let crossing = Crossing::new(round)?;
        let start = Instant::now();
        let at = |part: f64| start + Duration::from_secs_f64(secs * part);
        let span = |first| Span {
            start: at(if first { 0.0 } else { SECOND }),
            count_from: at(SETTLED),
            end: at(1.0),
        };
        let (ours, theirs) = (listen(&crossing.near)?, listen(&crossing.near)?);
        let bytes = thread::scope(|scope| {
            let crossing = &crossing;
            let ours = scope.spawn(move || {
                let connect = |remote| crossing.node.connect(remote).map(Outgoing::Ours);
                flow_without_end(&ours, span(self.ours_first), connect)
            });
            let connect = |remote| connect_from(&crossing.far, self.rival, remote);
            let theirs = flow_without_end(&theirs, span(!self.ours_first), connect)?;
            io::Result::Ok([ours.join().expect("nothing in it panics")?, theirs])
        })?;
        let fair = WIRE.rate / 8.0 * payload_share() * secs * (1.0 - SETTLED) / 2.0;
        let mut samples = Samples::default();
        for (sender, bytes) in [Sender::Peersock, self.rival].into_iter().zip(bytes) {
            samples.add((sender, 0), vec![bytes as f64 / fair], crossing.late());
        }
        Ok(samples)
    }
}

const NODE_SUBNET: u8 = 1;

/// Topology in which the sending kernel also forwards peersock's packets, so that one bridge carries both
/// flows.
struct Crossing {
    node: Node,
    bridge: Bridge,
    far: Namespace,
    near: Namespace,
}

impl Crossing {
    fn new(round: Round) -> io::Result<Self> {
        let (far, near) = (kernel_end()?, kernel_end()?);
        let options = WIRE.options(0.0, round.seed, round.congestion);
        let bridge = Bridge::start(&far, &near, &options)?;
        let fast = Link::new(1e12);
        let at_once =
            Options { inward: fast.clone(), outward: fast, delay: 0, subnet: NODE_SUBNET, ..options };
        let node = Node::start(&far, &at_once)?;
        // The sending kernel forwards the node's packets, too.
        far.set("ipv4/ip_forward", "1")?;
        near.ip(&format!("route add 10.77.{NODE_SUBNET}.0/24 via {} dev tun0", stack_address(false)))?;
        Ok(Self { node, bridge, far, near })
    }

    fn late(&self) -> f64 {
        self.bridge.punctuality().late_share().max(self.node.punctuality().late_share())
    }
}
