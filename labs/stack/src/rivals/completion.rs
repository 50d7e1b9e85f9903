//! Completion times of short transfers, from connect until the receiver has the last byte.

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

/// Same link as in the virtual-time figures.
const WIRE: Wire = Wire { name: "100mbit_40ms", rate: 100e6, rtt: ms(40) };
/// Name, bytes, and number of consecutive transfers per round on a link with loss. A perfect link needs
/// fewer, because all transfers are alike.
const SIZES: [(&str, u64, usize); 3] = [("10kb", 10_000, 48), ("100kb", 100_000, 24), ("1mb", 1_000_000, 12)];
const WITHOUT_LOSS: usize = 3;
/// Loss in percent of the packets in both directions.
const LOSSES: [f64; 2] = [0.0, 1.0];
/// Number of simultaneous links per sender.
const LANES: u64 = 2;
/// Duration after which a transfer has failed. It is longer than any plausible run of losses can cause.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(20);
/// Tolerance of a comparison, because threads of peersock or the kernel may wake late.
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
    /// Runs transfers in turn over one link; returns their durations in milliseconds.
    fn lane(
        &self,
        sender: Sender,
        lane: u64,
        round: Round,
        wanted: &BTreeSet<Series>,
    ) -> io::Result<Samples> {
        // Each lane has its own seed, so that lanes do not lose the same packets.
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
        let mut receiver = match accept(listener, start + TRANSFER_TIMEOUT) {
            Ok(receiver) => receiver,
            // The sender's error explains the missing connection.
            Err(e) => return sender.join().expect("nothing in it panics").and(Err(e)),
        };
        receiver.set_read_timeout(Some(TRANSFER_TIMEOUT))?;
        let mut buf = vec![0; 256 << 10];
        let mut read = 0;
        while read < bytes {
            match receiver.read(&mut buf)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                len => read += len as u64,
            }
        }
        let time = start.elapsed();
        // Closed only now, so that the close neither speeds up nor delays the data.
        sender.join().expect("nothing in it panics").map(|_: Outgoing| time)
    })
}
