//! A peer that sends random segments, plausible enough to be processed. The stack must send only written data
//! and deliver only sent data. It must get its data across once the peer behaves, then fall silent, and
//! finally forget the connection.

use peersock_stack::State;

use crate::parse::read_line;
use crate::run::{Runner, pattern};
use crate::wire;

/// Number of connections, unless [`SEED`] names one.
const RUNS: u64 = 600;

/// Environment variable with the seed of the only connection to try.
const SEED: &str = "PEERSOCK_SCRIPT_SEED";

/// Number of events per connection.
const STEPS: usize = 60;

pub(crate) fn run() -> Result<(), String> {
    let only = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(1..=RUNS, |seed| seed..=seed) {
        let mut chaos = Chaos { runner: Runner::new(seed % 2 == 0), random: seed };
        chaos.play().map_err(|problem| {
            let trace: Vec<&str> = chaos.runner.trace.lines().rev().take(60).collect();
            let trace = trace.into_iter().rev().collect::<Vec<_>>().join("\n");
            format!("{SEED}={seed}: {problem}\n{trace}")
        })?;
    }
    Ok(())
}

struct Chaos {
    runner: Runner,
    random: u64,
}

impl Chaos {
    fn play(&mut self) -> Result<(), String> {
        self.begin()?;
        for _ in 0..STEPS {
            match self.below(20) {
                0..=2 => self.write()?,
                3 | 4 => self.read()?,
                5..=8 => self.wait()?,
                9 if self.below(6) == 0 => self.end()?,
                _ => self.segment()?,
            }
            self.runner.drain();
            if self.runner.flow(1)?.state() == State::Closed {
                break;
            }
        }
        self.come_to_reason()?;
        let flow = self.runner.flow(1)?;
        flow.close(self.runner.now);
        self.runner.kick(&flow)?;
        self.line("+1000 drain")?;
        match self.runner.host().stack.flows() {
            0 => Ok(()),
            _ => Err(format!("the connection does not end: {}", flow.state())),
        }
    }

    fn begin(&mut self) -> Result<(), String> {
        let algorithm = self.one(&["reno", "cubic", "bbr", "bbr3"]);
        self.line(&format!("set congestion {algorithm}"))?;
        for (chance, line) in [
            (3, "config checksums on"),
            (3, "set receive-buffer 5000"),
            (3, "set receive-buffer 65536"),
            (3, "set send-buffer 30000"),
            (3, "set nodelay on"),
            (5, "set keepalive 20"),
            (3, "config mtu 600"),
            (3, "set ecn on"),
            (4, "config peer-isn 4294966000"),
        ] {
            if self.below(chance) == 0 {
                self.line(line)?;
            }
        }
        let mss = self.one(&["1", "536", "1000", "1460", "65535"]);
        let win = self.one(&["0", "100", "1000", "65535"]);
        let scale = self.one(&["", ", ws 0", ", ws 2", ", ws 14"]);
        let sack = self.one(&["", ", sackOK"]);
        let options = format!("<mss {mss}{scale}{sack}, ts 1000 ecr 0>");
        let passive = self.below(2) == 0;
        // A SYN requests ECN with both flags, and its answer accepts with one.
        let syn = match (self.below(2), passive) {
            (0, true) => "SEW",
            (0, false) => "SE",
            _ => "S",
        };
        let lines = match passive {
            true => ["listen", "< SYN seq 0 win WIN OPTIONS", "+0.01 < A seq 1 ack 1", "accept"],
            false => ["connect", "+0.05 < SYNA seq 0 ack 1 win WIN OPTIONS", "", ""],
        };
        for line in lines {
            self.line(&line.replace("SYN", syn).replace("WIN", win).replace("OPTIONS", &options))?;
            self.runner.drain();
        }
        Ok(())
    }

    /// Lets the peer acknowledge everything from now on, so that written data must arrive.
    fn come_to_reason(&mut self) -> Result<(), String> {
        let flow = self.runner.flow(1)?;
        let (mut least, mut idle) = (usize::MAX, 0);
        // The longest timeout is a minute, and it may have to expire twice.
        while idle < 130 {
            idle = if flow.unacked() < least { 0 } else { idle + 1 };
            least = least.min(flow.unacked());
            let connected = matches!(flow.state(), State::Established | State::CloseWait);
            if !connected || flow.unacked() == 0 {
                return Ok(());
            }
            // A segment at the end of the window is newer than everything before (RFC 9293 3.10.7.4).
            let numbers = self.runner.peer(1).numbers;
            let scale = if numbers.peer_scales { numbers.scale } else { 0 };
            let window = self.runner.last.as_ref().map_or(0, |last| i64::from(last.window) << scale);
            let seq = self.expected()? + window;
            self.line(&format!("< A seq {seq} ack {} win 65535", numbers.sent))?;
            self.line("+1 drain")?;
        }
        Err(format!("{} bytes do not arrive", flow.unacked()))
    }

    /// Returns the stack's last acknowledgement.
    fn expected(&mut self) -> Result<i64, String> {
        let numbers = self.runner.peer(1).numbers;
        let last = self.runner.last.as_ref().ok_or("nothing was sent")?;
        let acknowledged = i64::from(last.ack.wrapping_sub(numbers.peer(0)) as i32);
        Ok(if last.has(wire::ACK) { acknowledged } else { 1 })
    }

    fn write(&mut self) -> Result<(), String> {
        let length = self.below(20_000) as i64;
        let flow = self.runner.flow(1)?;
        let start = self.runner.peer(1).written as i64 + 1;
        let data: Vec<u8> = (start..start + length).map(pattern).collect();
        let now = self.runner.now;
        let result = if self.below(6) == 0 { flow.write_urgent(now, &data) } else { flow.write(now, &data) };
        let written = result.unwrap_or(0);
        self.runner.peer(1).written += written;
        self.runner.kick(&flow)
    }

    fn read(&mut self) -> Result<(), String> {
        let mut buf = vec![0; 1 + self.below(30_000) as usize];
        let flow = self.runner.flow(1)?;
        let read = flow.read(self.runner.now, &mut buf).unwrap_or(0);
        let start = self.runner.peer(1).read as i64 + 1;
        if !buf[..read].iter().enumerate().all(|(at, &byte)| byte == pattern(start + at as i64)) {
            return Err("what was read is not what was sent".to_owned());
        }
        self.runner.peer(1).read += read;
        self.runner.kick(&flow)
    }

    fn wait(&mut self) -> Result<(), String> {
        let time = self.one(&["0", "0.0005", "0.001", "0.02", "0.05", "0.3", "3", "70"]);
        self.line(&format!("+{time} drain"))
    }

    fn end(&mut self) -> Result<(), String> {
        let flow = self.runner.flow(1)?;
        let _ = flow.shutdown_write(self.runner.now);
        self.runner.kick(&flow)
    }

    /// Sends a segment of the peer, with numbers near the last segment of the stack.
    fn segment(&mut self) -> Result<(), String> {
        let numbers = self.runner.peer(1).numbers;
        let last = self.runner.last.clone().ok_or("nothing was sent")?;
        let next = i64::from(last.seq.wrapping_sub(numbers.own(0)) as i32) + last.payload.len() as i64;
        let expected = self.expected()?;
        let flags =
            self.one(&["A", "A", "A", "AU", "AE", "AW", "PA", "PA", "PAU", "FA", "SA", "S", "R", "-"]);
        // An exact reset would end the run too soon.
        let exact = flags != "R" && self.below(2) == 0;
        let start = if exact { expected } else { expected + self.near(3000) };
        // The FIN must have a constant position, or the stream is inconsistent.
        let start = if flags == "FA" { 50_000 } else { start.min(49_000) };
        let length = if flags.starts_with('A') || flags == "FA" { 0 } else { self.below(1500) as i64 };
        let end = (start + length).min(50_000).max(start);
        let ack = if self.below(2) == 0 { next } else { next - self.near(5000).max(-3) };
        let win = self.one(&["0", "1", "500", "5000", "65535", "65535", "65535"]);
        let mut blocks = String::new();
        if self.below(2) == 0 {
            for _ in 0..=self.below(3) {
                let start = ack + self.near(6000);
                blocks += &format!(" {start}:{}", start + self.near(3000));
            }
            blocks = format!(", sack{blocks}");
        }
        let stamps = format!("ts {} ecr last", 1000 + self.below(100));
        let options = match self.below(2) {
            0 => String::new(),
            _ => format!("<{stamps}{blocks}>"),
        };
        let start = start.max(1);
        let range = if end > start { format!("{start}:{end}") } else { start.to_string() };
        let mark = self.one(&["", "", "ect0", "ce"]);
        let urgent = match self.below(3) {
            0 => String::new(),
            _ => format!("urg {}", self.below(2000)),
        };
        let more = if self.below(4) == 0 { " &" } else { "" };
        self.line(&format!("< {flags} seq {range} ack {ack} win {win} {mark} {urgent} {options}{more}"))?;
        self.line("drain")
    }

    fn line(&mut self, text: &str) -> Result<(), String> {
        self.runner.play(&read_line(0, text)?)
    }

    /// Returns a number between `-distance` and `distance`.
    fn near(&mut self, distance: u64) -> i64 {
        self.below(2 * distance) as i64 - distance as i64
    }

    fn one(&mut self, of: &[&'static str]) -> &'static str {
        of[self.below(of.len() as u64) as usize]
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }
}
