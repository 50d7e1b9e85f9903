//! Words of scripts other than segments: settings, socket calls, and checks of their results.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use peersock_stack::*;

use crate::run::{PORT, Runner, pattern};
use crate::setup::Host;
use crate::spec::number;
use crate::wire::Segment;

impl Runner {
    /// Executes a line.
    pub(crate) fn call(&mut self, connection: u16, text: &str) -> Result<(), String> {
        let (text, wanted) = match text.split_once("->") {
            Some((text, wanted)) => (text, Some(wanted.trim())),
            None => (text, None),
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["ipv4" | "ipv6"] => Ok(()),
            ["config", name, value] => self.configure(name, value),
            ["set", name, value] => self.set(connection, name, value),
            ["established", ref how @ ..] => self.establish(connection, how),
            ["listen"] => self.listen(16, wanted),
            ["listen", backlog] => self.listen(number(backlog)? as usize, wanted),
            ["accept"] => self.accept(wanted),
            ["icmp", kind, code] => self.complain(number(kind)? as u8, number(code)? as u8),
            ["connect-to", remote] => {
                let remote = remote.parse().map_err(|_| format!("{remote} is no address"))?;
                let (now, options) = (self.now, self.setup.options.clone());
                let Host { stack, net, .. } = self.host();
                let result = stack.tcp_connect(now, *net, None, remote, options);
                compare("result", outcome(result.map(drop)), wanted_or_ok(wanted))
            }
            ["connect"] => self.connect(connection, wanted),
            ["close-listener"] => {
                let listener = self.listener.take().ok_or("nobody listens")?;
                listener.close(self.now);
                Ok(())
            }
            ["drain"] => {
                self.drain();
                Ok(())
            }
            ["quiet"] => self.expect_silence(),
            ["flows", count] => {
                let flows = self.host().stack.flows();
                compare("flows", flows, number(count)? as usize)
            }
            ["counter", name, value] => {
                let counters = self.host().stack.counters().snapshot();
                let found = counters.iter().find(|(known, _)| *known == name).ok_or("no such counter")?;
                compare(name, found.1, number(value)? as u64)
            }
            _ => self.call_flow(connection, &words, wanted),
        }
    }

    fn call_flow(&mut self, connection: u16, words: &[&str], wanted: Option<&str>) -> Result<(), String> {
        let flow = self.flow(connection)?;
        let now = self.now;
        match *words {
            ["wait"] => {
                flow.wait_for_data(now);
            }
            ["write" | "write-urgent", length] => {
                let length = number(length)? as usize;
                let start = self.peer(connection).written as i64 + 1;
                let data: Vec<u8> = (start..start + length as i64).map(pattern).collect();
                let urgent = words[0] == "write-urgent";
                let result = if urgent { flow.write_urgent(now, &data) } else { flow.write(now, &data) };
                self.peer(connection).written += result.unwrap_or(0);
                let wanted = wanted.map_or(length.to_string(), str::to_owned);
                compare("result", shown(result), wanted)?;
            }
            ["read", length] | ["peek", length] => {
                let mut buf = vec![0; number(length)? as usize];
                let peek = words[0] == "peek";
                let result = if peek { flow.peek(now, &mut buf) } else { flow.read(now, &mut buf) };
                let got = result.unwrap_or(0);
                let start = self.peer(connection).read as i64 + 1;
                if !buf[..got].iter().enumerate().all(|(at, &byte)| byte == pattern(start + at as i64)) {
                    return Err("what was read is not what the peer has sent".to_owned());
                }
                self.peer(connection).read += if peek { 0 } else { got };
                let shown = if result == Ok(0) { "EOF".to_owned() } else { shown(result) };
                compare("result", shown, wanted.unwrap_or(length).to_owned())?;
            }
            ["shutdown", "write"] => {
                compare("result", outcome(flow.shutdown_write(now)), wanted_or_ok(wanted))?
            }
            ["shutdown", "read"] => {
                compare("result", outcome(flow.shutdown_read(now)), wanted_or_ok(wanted))?
            }
            ["close"] => flow.close(now),
            ["abort"] => flow.abort(now),
            _ => return check(&flow, words),
        }
        self.kick(&flow)
    }

    fn configure(&mut self, name: &str, value: &str) -> Result<(), String> {
        if self.is_begun() {
            return Err("it has begun already".to_owned());
        }
        let setup = &mut self.setup;
        match name {
            "checksums" => setup.checksums = is_on(value)?,
            "mtu" => setup.mtu = number(value)? as usize,
            "segments" => setup.max_segments = number(value)? as usize,
            "cap" => setup.cap = number(value)? as usize,
            "peer-isn" => setup.peer_isn = number(value)? as u32,
            "own-isn" => setup.own_isn = Some(number(value)? as u32),
            "ports" => setup.ports = number(value)? as u16..=u16::MAX,
            "syn-timeout" => setup.config.syn_timeout = seconds(value)?,
            "user-timeout" => setup.config.user_timeout = seconds(value)?,
            "orphan-timeout" => setup.config.orphan_timeout = seconds(value)?,
            "time-wait" => setup.config.time_wait = seconds(value)?,
            "max-flows" => setup.config.max_flows = number(value)? as usize,
            _ => return Err(format!("{name} cannot be configured")),
        }
        Ok(())
    }

    /// Sets an option of future sockets and of the present one.
    fn set(&mut self, connection: u16, name: &str, value: &str) -> Result<(), String> {
        let flow = self.peer(connection).flow.clone();
        if name == "mtu" {
            self.setup.mtu = number(value)? as usize;
            return Ok(());
        }
        let options = &mut self.setup.options;
        match name {
            "cork" | "quick-ack" => {}
            "nodelay" => options.nodelay = is_on(value)?,
            "prompt" => options.prompt = is_on(value)?,
            "keepalive" => match value {
                "on" | "off" => options.keepalive.on = is_on(value)?,
                _ => options.keepalive = KeepAlive::every(seconds(value)?),
            },
            "keepalive-idle" => options.keepalive.idle = seconds(value)?,
            "keepalive-interval" => options.keepalive.interval = seconds(value)?,
            "keepalive-probes" => options.keepalive.probes = number(value)? as u32,
            "user-timeout" => options.user_timeout = Some(seconds(value)?),
            "reset-on-close" => options.reset_on_close = is_on(value)?,
            "reuse-address" => options.reuse_address = is_on(value)?,
            "reuse-port" => options.reuse_port = is_on(value)?,
            "defer-accept" => options.defer_accept = Some(seconds(value)?),
            "ecn" => options.ecn = is_on(value)?,
            "receive-errors" => options.ip.receive_errors = is_on(value)?,
            "hop-limit" => options.ip.hop_limit = number(value)? as u8,
            "dscp" => options.ip.traffic_class = TrafficClass::new(number(value)? as u8, Ecn::NotCapable),
            "max-segment-size" => options.max_segment_size = Some(number(value)? as u16),
            "send-buffer" => options.send_buffer = Some(number(value)? as usize),
            "receive-buffer" => options.receive_buffer = Some(number(value)? as usize),
            "congestion" => options.congestion = value.parse().map_err(|_| "no such algorithm".to_owned())?,
            _ => return Err(format!("{name} cannot be set")),
        }
        if let Some(listener) = &self.listener {
            listener.set_options(options.clone());
        }
        let Some(flow) = flow else { return Ok(()) };
        let options = &self.setup.options;
        match name {
            "cork" => flow.set_cork(is_on(value)?),
            "quick-ack" => flow.set_quick_ack(is_on(value)?),
            "hop-limit" | "dscp" | "receive-errors" => {
                flow.set_ip_options(options.ip).map_err(|error| error.to_string())?
            }
            "max-segment-size" => flow.set_max_segment_size(options.max_segment_size),
            "nodelay" => flow.set_nodelay(options.nodelay),
            "keepalive" | "keepalive-idle" | "keepalive-interval" | "keepalive-probes" => {
                flow.set_keepalive(options.keepalive);
            }
            "user-timeout" => flow.set_user_timeout(Some(seconds(value)?)),
            "reset-on-close" => flow.set_reset_on_close(options.reset_on_close),
            _ => return Err(format!("{name} cannot be set any more")),
        }
        self.kick(&flow)
    }

    fn listen(&mut self, backlog: usize, wanted: Option<&str>) -> Result<(), String> {
        self.prepare_isn(1)?;
        let options = self.setup.options.clone();
        let local = SocketAddr::new(self.peer(1).local.ip(), PORT);
        let now = self.now;
        let Host { stack, net, .. } = self.host();
        let result = stack.tcp_listen(now, Some(*net), local, backlog, options);
        let outcome = outcome(result.as_ref().map(drop).map_err(|error| *error));
        self.listener = result.ok();
        compare("result", outcome, wanted_or_ok(wanted))
    }

    fn accept(&mut self, wanted: Option<&str>) -> Result<(), String> {
        let result = self.listener.as_ref().ok_or("nobody listens")?.accept(self.now);
        compare("result", outcome(result.as_ref().map(drop).map_err(|error| *error)), wanted_or_ok(wanted))?;
        let Ok(flow) = result else { return Ok(()) };
        let peer = self.peers.values_mut().find(|peer| peer.remote == flow.remote());
        peer.ok_or("a connection of nobody")?.flow = Some(flow);
        Ok(())
    }

    /// Opens a connection from the port to which the script's segments go.
    fn connect(&mut self, connection: u16, wanted: Option<&str>) -> Result<(), String> {
        self.prepare_isn(connection)?;
        let options = self.setup.options.clone();
        let peer = self.peer(connection);
        let (local, remote) = (peer.local, peer.remote);
        let now = self.now;
        let Host { stack, net, .. } = self.host();
        let result = stack.tcp_connect(now, *net, Some(local), remote, options);
        compare("result", outcome(result.as_ref().map(drop).map_err(|error| *error)), wanted_or_ok(wanted))?;
        let Ok(flow) = result else { return Ok(()) };
        self.peer(connection).flow = Some(flow.clone());
        self.kick(&flow)
    }

    /// Waits until the stack's initial sequence number, which moves with the clock, has the script's value.
    fn prepare_isn(&mut self, connection: u16) -> Result<(), String> {
        let Some(wanted) = self.setup.own_isn.take() else { return Ok(()) };
        let (now, ipv6) = (self.now, self.ipv6);
        let peer = self.peer(connection);
        let (local, remote) = (peer.local, peer.remote);
        let Host { stack, net, .. } = self.setup.host(ipv6, now);
        let options = TcpOptions::default();
        let flow =
            stack.tcp_connect(now, net, Some(local), remote, options).map_err(|error| error.to_string())?;
        let mut buf = vec![0; MAX_PACKET];
        let mut packets = flow.egress(now, &self.setup.limits(ipv6), &mut buf).ok_or("no SYN")?;
        let syn = Segment::read(packets.next(&mut buf).ok_or("no SYN")?, false)?;
        self.host();
        // RFC 6528: the clock counts one unit every four microseconds.
        self.now += Duration::from_micros(4 * u64::from(wanted.wrapping_sub(syn.seq)));
        Ok(())
    }

    /// Executes `established`: an ordinary handshake. The peer's segments have 1000 bytes, and it answers
    /// after 1 ms.
    fn establish(&mut self, connection: u16, how: &[&str]) -> Result<(), String> {
        let (mut passive, mut sack, mut stamps) = (false, true, self.setup.checksums);
        let (mut mss, mut win, mut scale, mut rtt) = ("1000", "65535", "0", "0.001");
        let mut words = how.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
            match word {
                "passive" => passive = true,
                "nosack" => sack = false,
                "nots" => stamps = false,
                "mss" => mss = value()?,
                "win" => win = value()?,
                "ws" => scale = value()?,
                "rtt" => rtt = value()?,
                _ => return Err(format!("{word} says nothing about a handshake")),
            }
        }
        let sack = if sack { ", sackOK" } else { "" };
        let ecr = if passive { "0" } else { "last" };
        let stamps = if stamps { format!(", ts 1000 ecr {ecr}") } else { String::new() };
        let options = format!("<mss {mss}{sack}, ws {scale}{stamps}>");
        let lines = match passive {
            false => vec![
                "connect".to_owned(),
                "> S seq 0".to_owned(),
                format!("+{rtt} < SA seq 0 ack 1 win {win} {options}"),
                "> A seq 1 ack 1".to_owned(),
            ],
            true => vec![
                if self.listener.is_none() { "listen".to_owned() } else { String::new() },
                format!("< S seq 0 win {win} {options}"),
                "> SA seq 0 ack 1".to_owned(),
                format!("+{rtt} < A seq 1 ack 1"),
                "accept".to_owned(),
            ],
        };
        self.play_all(connection, &lines)?;
        let state = self.flow(connection)?.state();
        compare("state", state, State::Established)
    }
}

/// Checks a property of a socket.
fn check(flow: &Flow, words: &[&str]) -> Result<(), String> {
    let count = |value: &str| Ok::<_, String>(number(value)? as usize);
    match *words {
        ["state", state] => compare("state", flow.state().to_string(), state.to_owned()),
        ["error", error] => {
            let found = flow.take_error().map_or("none".to_owned(), |error| format!("{error:?}"));
            compare("error", found, error.to_owned())
        }
        ["delivery", ref wanted @ ..] => {
            let found = match flow.delivery() {
                Delivery::Lost(loss) => format!("Lost {:?} {}", loss.error, loss.unacked),
                other => format!("{other:?}"),
            };
            compare("delivery", found, wanted.join(" "))
        }
        ["urgent", left] => compare("urgent", flow.urgent_left(), count(left)?),
        ["mark", wanted] => compare("at the mark", flow.is_at_mark(), wanted == "yes"),
        ["soft-error", error] => {
            let found = flow.take_soft_error().map_or("none".to_owned(), |error| format!("{error:?}"));
            compare("soft error", found, error.to_owned())
        }
        ["report", "none"] => compare("report", flow.recv_error(), Err(Error::WouldBlock)),
        ["report", error, kind, code] => {
            let report = flow.recv_error().map_err(|error| error.to_string())?;
            compare("error", format!("{:?}", report.error), error.to_owned())?;
            compare("destination", report.destination, flow.remote())?;
            compare(
                "type and code",
                [report.kind, report.code].map(usize::from),
                [count(kind)?, count(code)?],
            )
        }
        ["ready", ref names @ ..] => {
            let ready = flow.readiness();
            for name in names {
                let (name, set) = name.strip_prefix('!').map_or((*name, true), |name| (name, false));
                if ready.contains(readiness(name)?) != set {
                    return Err(format!("readiness: {ready:?}"));
                }
            }
            Ok(())
        }
        ["mss", value] => compare("segment size", flow.max_segment_size(), Some(count(value)?)),
        ["path-mtu", value] => compare("path MTU", flow.path_mtu(), Some(count(value)?)),
        ["unacked", value] => compare("unacked", flow.unacked(), count(value)?),
        ["unsent", value] => compare("unsent", flow.unsent(), count(value)?),
        ["in-flight", value] => compare("in flight", flow.in_flight(), count(value)?),
        ["readable", value] => compare("readable", flow.readable(), count(value)?),
        _ => Err(format!("`{}` says nothing", words.join(" "))),
    }
}

fn readiness(name: &str) -> Result<Ready, String> {
    Ok(match name {
        "READABLE" => Ready::READABLE,
        "WRITABLE" => Ready::WRITABLE,
        "READ_CLOSED" => Ready::READ_CLOSED,
        "WRITE_CLOSED" => Ready::WRITE_CLOSED,
        "ERROR" => Ready::ERROR,
        "CONNECTED" => Ready::CONNECTED,
        "URGENT" => Ready::URGENT,
        _ => return Err(format!("{name} is no readiness")),
    })
}

fn compare<T: PartialEq + Debug>(what: &str, found: T, wanted: T) -> Result<(), String> {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{what}: expected {wanted:?}, came {found:?}")),
    }
}

fn shown(result: Result<usize, Error>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |count| count.to_string())
}

fn outcome(result: Result<(), Error>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |()| "ok".to_owned())
}

fn wanted_or_ok(wanted: Option<&str>) -> String {
    wanted.unwrap_or("ok").to_owned()
}

fn is_on(value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{value} is neither on nor off")),
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    let seconds = value.parse::<f64>().map_err(|_| format!("{value} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
