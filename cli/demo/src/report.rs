//! The result of the demonstration, for people and for scripts.

use std::fmt;

use peersock::overlay::NetworkId;
use serde::Serialize;

use super::wire::{Findings, Listening, PING_BYTES, Place};
use peersock_terminal::failure::Outcome;
use peersock_terminal::output;
use peersock_terminal::output::round;
use peersock_terminal::style::{BOLD, paint};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    network: String,
    server: Place,
    port: u16,
    throughput_bits_per_second: f64,
    pub(super) verified: bool,
    #[serde(flatten)]
    findings: Findings,
}

impl Report {
    /// Creates the report. `sha256` is the expected hash of the content.
    pub(super) fn new(network: NetworkId, server: Listening, findings: Findings, sha256: &str) -> Report {
        Report {
            network: network.to_string(),
            server: server.place,
            port: server.port,
            throughput_bits_per_second: round(findings.size as f64 * 8.0 / findings.transfer_seconds, 0),
            verified: findings.sha256 == sha256,
            findings,
        }
    }
}

pub(super) fn print(report: &Report, json: bool) -> Outcome {
    match json {
        true => {
            let text = serde_json::to_string_pretty(report);
            output::print(text.expect("the report is made of texts and finite numbers"))
        }
        false => output::print(report),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = &self.findings;
        let mut row = |name: &str, value: fmt::Arguments<'_>| {
            writeln!(f, "{}{value}", paint(BOLD, format_args!("{name:<13}")))
        };
        row("network", format_args!("{} (ad-hoc, open, made up for this run)", self.network))?;
        row("server", format_args!("node {}", self.server.node_id))?;
        row("", format_args!("at   {} port {}", self.server.address, self.port))?;
        row("client", format_args!("node {}", found.client.node_id))?;
        row("", format_args!("at   {}", found.client.address))?;
        row(
            "path",
            format_args!("UDP to {}, datagrams of up to {} bytes", found.path, found.datagram_bytes),
        )?;
        row("cipher suite", format_args!("{}", found.cipher_suite))?;
        row("peer found", format_args!("{:.1} ms after the client's start", found.found_ms))?;
        row("first byte", format_args!("{:.1} ms after the client's start", found.first_byte_ms))?;
        row(
            "throughput",
            format_args!(
                "{:.2} Gbit/s ({:.1} MiB in {:.3} s, one TCP connection)",
                self.throughput_bits_per_second / 1e9,
                found.size as f64 / f64::from(1 << 20),
                found.transfer_seconds
            ),
        )?;
        row(
            "ping-pong",
            format_args!(
                "p50 {:.1} us, p99 {:.1} us ({} round trips of {PING_BYTES} bytes)",
                found.ping_pong_p50_us, found.ping_pong_p99_us, found.round_trips
            ),
        )?;
        let verdict = if self.verified { "verified" } else { "WRONG" };
        write!(f, "{}{} {verdict}", paint(BOLD, format_args!("{:<13}", "sha-256")), found.sha256)
    }
}
