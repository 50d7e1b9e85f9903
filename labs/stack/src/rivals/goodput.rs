//! Share of a link that each sender uses alone: with random loss, with reordering, and over rough paths.

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use peersock_stack_lab::kernel::Options;
use peersock_stack_lab::link::Rough;
use peersock_stack_lab::measure::Target;
use peersock_stack_lab::{Time, ms, secs};

use super::Round;
use super::ends::{Path, Sender, Span, Wire, flow_without_end};
use super::trial::{Samples, Series, Subject, Summary, Trial, Trials};

/// Links that two cores can emulate in userspace, with their losses in percent.
const WIRES: [(Wire, &[f64]); 2] = [
    (Wire { name: "50mbit_40ms", rate: 50e6, rtt: ms(40) }, &[0.0, 0.1, 1.0, 3.0]),
    (Wire { name: "100mbit_20ms", rate: 100e6, rtt: ms(20) }, &[0.0, 1.0, 3.0]),
];
const SECS: f64 = 12.0;

/// Links with reordering: percentage of late packets, and their maximum lateness. On the second link packets
/// are later than a round trip.
const REORDERING: [(Wire, f64, Time); 2] = [
    (Wire { name: "50mbit_40ms", rate: 50e6, rtt: ms(40) }, 25.0, ms(10)),
    (Wire { name: "50mbit_6ms", rate: 50e6, rtt: ms(6) }, 25.0, ms(10)),
];

/// Path for the [`Rough`] faults: as long as in virtual time, and slower.
const ROUGH: Wire = Wire { name: "50mbit_100ms", rate: 50e6, rtt: ms(100) };

struct Goodput {
    wire: Wire,
    fault: Fault,
}

/// Fault of the link for data.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Percentage lost.
    Loss(f64),
    /// Percentage late, and the maximum lateness.
    Reorder(f64, Time),
    /// Fault used in virtual time, too.
    Rough(Rough),
}

impl Goodput {
    fn options(&self, round: Round) -> Options {
        let options = |percent| self.wire.options(percent, round.seed, round.congestion);
        match self.fault {
            Fault::Loss(percent) => options(percent),
            Fault::Reorder(percent, by) => {
                let mut options = options(0.0);
                options.outward.reorder = percent / 100.0;
                options.outward.reorder_by = by;
                options
            }
            Fault::Rough(rough) => {
                let mut options = options(0.0);
                rough.lay_on(&mut options.outward, &mut options.inward, self.wire.bdp());
                options
            }
        }
    }
}

pub(crate) fn trials() -> Trials {
    let trial = |wire: Wire, fault: Fault| {
        let place = match fault {
            Fault::Loss(percent) => format!("{}_loss{percent}", wire.name),
            Fault::Reorder(percent, _) => format!("{}_reorder{percent}", wire.name),
            Fault::Rough(rough) => format!("{}_{}", wire.name, rough.name()),
        };
        let mut trial = Trial::new(format!("goodput {place}"), Goodput { wire, fault });
        for sender in Sender::ALL {
            let name = format!("goodput_share/{place}.{}", sender.name());
            trial = trial.with(&name, "of capacity", Summary::Each((sender, 0)), &[]);
        }
        for rival in Sender::RIVALS {
            // Rough paths have their targets in virtual time.
            let judged = rival == Sender::Bbr && !matches!(fault, Fault::Rough(_));
            let target: &[Target] = if judged { &[Target::Median(1.0)] } else { &[] };
            let name = format!("goodput_ratio/{place}.to_{}", rival.name());
            trial = trial.with(&name, "of theirs", Summary::Medians((rival, 0)), target);
        }
        trial.with(&format!("late/goodput_{place}"), "of packets", Summary::Late, Trial::PUNCTUAL)
    };
    let losses = WIRES.into_iter().flat_map(|(wire, losses)| losses.iter().map(move |&loss| (wire, loss)));
    let losses = losses.map(|(wire, percent)| trial(wire, Fault::Loss(percent)));
    let reordering =
        REORDERING.into_iter().map(|(wire, percent, by)| trial(wire, Fault::Reorder(percent, by)));
    let rough = Rough::ALL.into_iter().map(|rough| trial(ROUGH, Fault::Rough(rough)));
    losses.chain(reordering).chain(rough).collect()
}

impl Subject for Goodput {
    /// Returns the used share of the link's capacity from connect on. All senders run at the same time on
    /// private links.
    fn measure(&self, round: Round, wanted: &BTreeSet<Series>) -> io::Result<Samples> {
        let lasting = round.secs.unwrap_or(SECS);
        let share = |&(sender, _): &Series| {
            let path = Path::new(sender, &self.options(round))?;
            let listener = path.listen()?;
            let start = Instant::now();
            let span = Span { start, count_from: start, end: start + Duration::from_secs_f64(lasting) };
            let bytes = flow_without_end(&listener, span, |remote| path.connect(remote))?;
            let link = self.options(round).outward;
            io::Result::Ok((bytes as f64 / link.capacity(0, secs(lasting)), path.late()))
        };
        let mut samples = Samples::default();
        thread::scope(|scope| {
            let running: Vec<_> =
                wanted.iter().map(|series| (series, scope.spawn(move || share(series)))).collect();
            for (series, thread) in running {
                let (share, late) = thread.join().expect("nothing in it panics")?;
                samples.add(*series, vec![share], late);
            }
            Ok(samples)
        })
    }
}
