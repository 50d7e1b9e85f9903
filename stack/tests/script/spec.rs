//! Segments in the notation of scripts: numbers are relative to the initial ones, and omitted fields are not
//! checked.

use crate::wire::{self, Choice, Flags, Segment};

/// Description of a segment in a script.
#[derive(Debug, Default)]
pub(crate) struct Spec {
    pub(crate) flags: u8,
    pub(crate) seq: Option<i64>,
    pub(crate) end: Option<i64>,
    /// True for `seq new`: any number, to which later numbers are relative.
    pub(crate) renumber: bool,
    pub(crate) ack: Option<i64>,
    /// Window field, and the scaled window.
    pub(crate) win: Option<i64>,
    pub(crate) window: Option<i64>,
    pub(crate) ecn: Option<u8>,
    pub(crate) dscp: Option<u8>,
    pub(crate) hops: Option<u8>,
    pub(crate) urgent: Option<u16>,
    pub(crate) options: Option<Vec<Given>>,
    pub(crate) marks: Vec<String>,
}

/// Option in the notation of scripts.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    Exact(Choice),
    /// Notation `mss *`.
    AnyMss,
    Sack(Vec<(i64, i64)>),
    Timestamps(Stamp, Stamp),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Stamp {
    Any,
    /// Last timestamp of the stack, plus a number.
    Last(i64),
    Number(i64),
}

/// Bases of relative numbers for one connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Numbers {
    /// Initial sequence numbers: the stack's, once known, and the peer's.
    pub(crate) own: Option<u32>,
    pub(crate) peer: u32,
    /// Highest relative number that the stack has sent.
    pub(crate) sent: i64,
    /// First and last timestamp that the stack has sent.
    pub(crate) first_stamp: Option<u32>,
    pub(crate) last_stamp: u32,
    /// Base-2 logarithm of the unit of the stack's windows.
    pub(crate) scale: u8,
    /// True if the peer scales windows; scaling needs both ends.
    pub(crate) peer_scales: bool,
}

impl Numbers {
    pub(crate) fn own(&self, offset: i64) -> u32 {
        self.own.unwrap_or(0).wrapping_add(offset as u32)
    }

    pub(crate) fn peer(&self, offset: i64) -> u32 {
        self.peer.wrapping_add(offset as u32)
    }

    pub(crate) fn stamp(&self, stamp: Stamp) -> u32 {
        match stamp {
            Stamp::Any => 0,
            Stamp::Last(more) => self.last_stamp.wrapping_add(more as u32),
            Stamp::Number(number) => self.first_stamp.unwrap_or(0).wrapping_add(number as u32),
        }
    }

    /// Learns the numbers of a segment of the stack.
    pub(crate) fn learn(&mut self, segment: &Segment) {
        if segment.has(wire::SYN) {
            self.own.get_or_insert(segment.seq);
            let scale = segment.options.iter().find_map(|option| match option {
                Choice::Scale(shift) => Some(*shift),
                _ => None,
            });
            self.scale = scale.unwrap_or(0);
        }
        if !segment.has(wire::RST) {
            let start = i64::from(segment.seq.wrapping_sub(self.own(0)) as i32);
            let flags = i64::from(segment.has(wire::FIN)) + i64::from(segment.has(wire::SYN));
            self.sent = self.sent.max(start + segment.payload.len() as i64 + flags);
        }
        if let Some((value, _)) = segment.timestamps() {
            self.first_stamp.get_or_insert(value);
            self.last_stamp = value;
        }
    }

    /// Returns a segment in the notation of scripts.
    pub(crate) fn show(&self, segment: &Segment, from_stack: bool) -> String {
        let (seq_base, ack_base) = match from_stack {
            true => (self.own(0), self.peer(0)),
            false => (self.peer(0), self.own(0)),
        };
        let relative = |number: u32, base: u32| i64::from(number.wrapping_sub(base) as i32);
        let seq = relative(segment.seq, seq_base);
        let mut text = format!("{} seq {seq}", Flags(segment.flags));
        if !segment.payload.is_empty() {
            text += &format!(":{}", seq + segment.payload.len() as i64);
        }
        if segment.has(wire::ACK) {
            text += &format!(" ack {}", relative(segment.ack, ack_base));
        }
        text += &format!(" win {}", segment.window);
        if segment.ecn != 0 {
            text += [" ", " ect1", " ect0", " ce"][usize::from(segment.ecn)];
        }
        if segment.urgent != 0 {
            text += &format!(" urg {}", segment.urgent);
        }
        if segment.dscp != 0 {
            text += &format!(" dscp {}", segment.dscp);
        }
        if segment.hops != 64 {
            text += &format!(" hops {}", segment.hops);
        }
        let show = |option: &Choice| match option {
            Choice::Mss(mss) => format!("mss {mss}"),
            Choice::Scale(shift) => format!("ws {shift}"),
            Choice::SackPermitted => "sackOK".to_owned(),
            Choice::Sack(blocks) => blocks.iter().fold("sack".to_owned(), |text, (start, end)| {
                text + &format!(" {}:{}", relative(*start, ack_base), relative(*end, ack_base))
            }),
            Choice::Timestamps(value, echo) => {
                let base = self.first_stamp.unwrap_or(0);
                let (own, peer) = if from_stack { (value, echo) } else { (echo, value) };
                let own = relative(*own, base);
                if from_stack { format!("ts {own} ecr {peer}") } else { format!("ts {peer} ecr {own}") }
            }
            Choice::Raw(bytes) => format!("hex {bytes:02x?}"),
        };
        let options: Vec<String> = segment.options.iter().map(show).collect();
        if options.is_empty() { text } else { text + &format!(" <{}>", options.join(", ")) }
    }
}

impl Spec {
    /// Reads `SA seq 0 ack 1 win 65535 <mss 1460, sackOK>`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut spec = Self::default();
        let (words, options) = match text.split_once('<') {
            Some((words, options)) => (words, Some(options.trim_end().strip_suffix('>').ok_or("no >")?)),
            None => (text, None),
        };
        let mut words = words.split_whitespace();
        let flags = words.next().ok_or("no flags")?;
        spec.flags = wire::read_flags(flags).ok_or_else(|| format!("{flags} are no flags"))?;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word {
                "seq" => match value()? {
                    "new" => spec.renumber = true,
                    given => match given.split_once(':') {
                        Some((start, end)) => {
                            (spec.seq, spec.end) = (Some(number(start)?), Some(number(end)?));
                        }
                        None => spec.seq = Some(number(given)?),
                    },
                },
                "ack" => spec.ack = Some(number(value()?)?),
                "win" => spec.win = Some(number(value()?)?),
                "window" => spec.window = Some(number(value()?)?),
                "dscp" => spec.dscp = Some(number(value()?)? as u8),
                "hops" => spec.hops = Some(number(value()?)? as u8),
                "urg" => spec.urgent = Some(number(value()?)? as u16),
                "noect" | "ect1" | "ect0" | "ce" => {
                    let known = ["noect", "ect1", "ect0", "ce"];
                    spec.ecn = known.iter().position(|&name| name == word).map(|code| code as u8);
                }
                "nopush" | "forged" | "badsum" | "badipsum" | "shortheader" | "fromgroup" | "togroup" => {
                    spec.marks.push(word.to_owned());
                }
                _ => return Err(format!("{word} says nothing about a segment")),
            }
        }
        spec.options = options.map(read_options).transpose()?;
        Ok(spec)
    }

    pub(crate) fn marked(&self, mark: &str) -> bool {
        self.marks.iter().any(|known| known == mark)
    }

    /// Returns the fields of a segment of the stack that do not match.
    pub(crate) fn differs(&self, segment: &Segment, numbers: &Numbers) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, what: &str| {
            if !right {
                wrong.push(what.to_owned());
            }
        };
        let push = segment.has(wire::PSH);
        check(segment.flags | wire::PSH == self.flags | wire::PSH, "flags");
        check(push || self.flags & wire::PSH == 0, "PSH is missing");
        check(!(push && self.marked("nopush")), "PSH is set");
        if let Some(seq) = self.seq {
            check(segment.seq == numbers.own(seq), "sequence number");
            let length = self.end.map_or(0, |end| end - seq);
            check(segment.payload.len() as i64 == length, "length");
        }
        if let Some(ack) = self.ack {
            check(segment.ack == numbers.peer(ack), "acknowledgement");
        }
        check(self.win.is_none_or(|win| i64::from(segment.window) == win), "window field");
        let scale = if segment.has(wire::SYN) || !numbers.peer_scales { 0 } else { numbers.scale };
        let window = i64::from(segment.window) << scale;
        check(self.window.is_none_or(|wanted| window == wanted), "window");
        check(self.urgent.is_none_or(|urgent| segment.urgent == urgent), "urgent pointer");
        check(self.dscp.is_none_or(|dscp| segment.dscp == dscp), "differentiated services");
        check(self.hops.is_none_or(|hops| segment.hops == hops), "hop limit");
        check(self.ecn.is_none_or(|ecn| segment.ecn == ecn), "ECN code point");
        if let Some(options) = &self.options {
            let same = options.len() == segment.options.len();
            let all = options.iter().zip(&segment.options).all(|(given, own)| given.agrees(own, numbers));
            check(same && all, "options");
        }
        wrong
    }
}

impl Given {
    fn agrees(&self, own: &Choice, numbers: &Numbers) -> bool {
        match (self, own) {
            (Self::Exact(given), own) => given == own,
            (Self::AnyMss, Choice::Mss(_)) => true,
            (Self::Sack(blocks), Choice::Sack(own)) => {
                let absolute = blocks.iter().map(|&(start, end)| (numbers.peer(start), numbers.peer(end)));
                absolute.eq(own.iter().copied())
            }
            (Self::Timestamps(value, echo), Choice::Timestamps(own, peer)) => {
                let value = matches!(value, Stamp::Any) || numbers.stamp(*value) == *own;
                let echo = match echo {
                    Stamp::Number(echo) => *echo as u32 == *peer,
                    _ => true,
                };
                value && echo
            }
            _ => false,
        }
    }

    /// Returns the option for a segment of the peer.
    pub(crate) fn of_peer(&self, numbers: &Numbers) -> Choice {
        match self {
            Self::Exact(choice) => choice.clone(),
            Self::AnyMss => Choice::Mss(0),
            Self::Sack(blocks) => Choice::Sack(
                blocks.iter().map(|&(start, end)| (numbers.own(start), numbers.own(end))).collect(),
            ),
            Self::Timestamps(value, echo) => {
                let value = if let Stamp::Number(value) = value { *value as u32 } else { 0 };
                Choice::Timestamps(value, numbers.stamp(*echo))
            }
        }
    }
}

fn read_options(text: &str) -> Result<Vec<Given>, String> {
    let given = text.split(',').map(str::trim).filter(|option| !option.is_empty());
    given.map(read_option).collect()
}

fn read_option(text: &str) -> Result<Given, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words[..] {
        ["mss", "*"] => Given::AnyMss,
        ["mss", mss] => Given::Exact(Choice::Mss(number(mss)? as u16)),
        ["ws", shift] => Given::Exact(Choice::Scale(number(shift)? as u8)),
        ["sackOK"] => Given::Exact(Choice::SackPermitted),
        ["ts", value, "ecr", echo] => Given::Timestamps(stamp(value)?, stamp(echo)?),
        ["sack", ref blocks @ ..] => {
            let block = |block: &&str| {
                let (start, end) = block.split_once(':').ok_or("a block is start:end")?;
                Ok((number(start)?, number(end)?))
            };
            Given::Sack(blocks.iter().map(block).collect::<Result<_, String>>()?)
        }
        ["hex", ref bytes @ ..] => {
            let byte = |byte: &&str| u8::from_str_radix(byte, 16).map_err(|error| error.to_string());
            Given::Exact(Choice::Raw(bytes.iter().map(byte).collect::<Result<_, _>>()?))
        }
        _ => return Err(format!("{text} is no option")),
    })
}

fn stamp(text: &str) -> Result<Stamp, String> {
    Ok(match text.strip_prefix("last") {
        Some("") => Stamp::Last(0),
        Some(more) => Stamp::Last(number(more)?),
        None if text == "*" => Stamp::Any,
        None => Stamp::Number(number(text)?),
    })
}

/// Reads a number, or a sum of numbers.
pub(crate) fn number(text: &str) -> Result<i64, String> {
    let mut total = 0i64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest[1..].find(['+', '-']).map_or(rest.len(), |end| end + 1);
        let (term, others) = rest.split_at(end);
        total += term.trim_start_matches('+').parse::<i64>().map_err(|_| format!("{text} is no number"))?;
        rest = others;
    }
    Ok(total)
}
