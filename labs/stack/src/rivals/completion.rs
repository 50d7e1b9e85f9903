//! How long short transfers take, from connect until the receiver has the last byte.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use peersock_stack_lab::measure::Target;
use peersock_stack_lab::ms;

use super::Round;
use super::ends::{Outgoing, Path, Sender, Wire, accept, random_loss};
use super::trial::{Percentile, Samples, Series, Subject, Summary, Trial, Trials};

/// As in the same figures of virtual time.
const WIRE: Wire = Wire { name: "100mbit_40ms", rate: 100e6, rtt: ms(40) };
/// Name, bytes, and how many follow each other in a round on a link that loses packets. Fewer do on a perfect
/// one, where all are alike.
const SIZES: [(&str, u64, usize); 3] = [("10kb", 10_000, 48), ("100kb", 100_000, 24), ("1mb", 1_000_000, 12)];
const WITHOUT_LOSS: usize = 3;
/// Percent, of packets in both directions.
const LOSSES: [f64; 2] = [0.0, 1.0];
/// Links that every sender has at the same time.
const LANES: u64 = 2;
/// A transfer that takes longer has failed: many more losses in a row have to be than ever are.
const MOST: Duration = Duration::from_secs(20);
/// Times that differ by less are the same: a thread of ours or the kernel's has woken up later.
const NOT_ABOVE: Target = Target::MedianUnder(1.02);

struct Completion {
    percent: f64,
}

pub(crate) fn trials() -> Trials {
    LOSSES.map(trial).into()
}

fn trial(percent: f64) -> Trial {
    let mut trial = Trial::new(format!("completion 40ms_loss{percent}"), Completion { percent });
    for (size, bytes, _) in SIZES {
        let place = format!("{size}_40ms_loss{percent}");
        for sender in Sender::ALL {
            let (name, series) = (sender.name(), (sender, bytes));
            trial = trial.with(&format!("completion_ms/{place}.{name}"), "ms", Summary::Each(series), &[]);
            let slow = Summary::Of(Percentile(95), series);
            trial = trial.with(&format!("completion_p95_ms/{place}.{name}"), "ms", slow, &[]);
        }
        for rival in Sender::RIVALS {
            let (name, series) = (rival.name(), (rival, bytes));
            let median = Summary::Medians(series);
            let name_of = |prefix: &str| format!("{prefix}/{place}.to_{name}");
            trial = trial.with(&name_of("completion_ratio"), "of theirs", median, &[NOT_ABOVE]);
            let slow = Summary::Ratio(Percentile(95), series);
            trial = trial.with(&name_of("completion_p95_ratio"), "of theirs", slow, &[]);
        }
    }
    trial.with(&format!("late/completion_40ms_loss{percent}"), "of packets", Summary::Late, Trial::PUNCTUAL)
}

impl Subject for Completion {
    fn measure(&self, round: Round, wanted: &BTreeSet<Series>) -> io::Result<Samples> {
        let senders: BTreeSet<Sender> = wanted.iter().map(|(sender, _)| *sender).collect();
        let lanes = senders.iter().flat_map(|sender| (0..LANES).map(move |lane| (*sender, lane)));
        let mut samples = Samples::default();
        thread::scope(|scope| {
            let run = |(sender, lane)| scope.spawn(move || self.lane(sender, lane, round, wanted));
            let running: Vec<_> = lanes.map(run).collect();
            for thread in running {
                samples.merge(thread.join().expect("nothing in it panics")?);
            }
            Ok(samples)
        })
    }
}

impl Completion {
    /// One transfer after another over one link, and how many milliseconds each took.
    fn lane(
        &self,
        sender: Sender,
        lane: u64,
        round: Round,
        wanted: &BTreeSet<Series>,
    ) -> io::Result<Samples> {
        let mut options = WIRE.options(self.percent, round.seed * LANES + lane, round.congestion);
        options.inward.loss = random_loss(self.percent);
        let path = Path::new(sender, &options)?;
        let listener = path.listen()?;
        let mut samples = Samples::default();
        for (_, bytes, transfers) in SIZES {
            if !wanted.contains(&(sender, bytes)) {
                continue;
            }
            let transfers = if self.percent == 0.0 { WITHOUT_LOSS } else { transfers };
            let times: io::Result<Vec<f64>> =
                (0..transfers).map(|_| Ok(transfer(&path, &listener, bytes)?.as_secs_f64() * 1e3)).collect();
            samples.add((sender, bytes), times?, path.late());
        }
        Ok(samples)
    }
}

fn transfer(path: &Path, listener: &TcpListener, bytes: u64) -> io::Result<Duration> {
    let remote = listener.local_addr()?;
    let data = vec![1; bytes as usize];
    thread::scope(|scope| {
        let start = Instant::now();
        let sender = scope.spawn(move || {
            let outgoing = path.connect(remote)?;
            outgoing.send(&data)?;
            Ok(outgoing)
        });
        let mut receiver = match accept(listener, start + MOST) {
            Ok(receiver) => receiver,
            // Why none came is what the sender says.
            Err(e) => return sender.join().expect("nothing in it panics").and(Err(e)),
        };
        receiver.set_read_timeout(Some(MOST))?;
        let mut buf = vec![0; 256 << 10];
        let mut read = 0;
        while read < bytes {
            match receiver.read(&mut buf)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                len => read += len as u64,
            }
        }
        let time = start.elapsed();
        // Closed only now, so that nothing of it hurries or holds up the data.
        sender.join().expect("nothing in it panics").map(|_: Outgoing| time)
    })
}
