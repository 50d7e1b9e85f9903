//! TCP_INFO as Linux lays it out (`struct tcp_info` of linux/tcp.h), as far as `tcpi_min_rtt`.

use std::time::Duration;

use peersock_stack::{State, TcpInfo};

/// The structure's bytes. What the stack does not count is 0.
pub(super) fn encode(info: &TcpInfo) -> Vec<u8> {
    let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let clip = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let segments = |bytes: u64| clip(bytes.div_ceil(info.mss.max(1)));
    let mss = clip(info.mss);
    let mut bytes = vec![state(info.state), 0, 0, 0, info.backoff.min(255) as u8, 0, 0, 0];
    let words: [u32; 24] = [
        micros(info.retransmission_timeout),
        0, // ato
        mss,
        mss, // rcv_mss
        segments(info.unacked.saturating_sub(info.unsent)),
        segments(info.sacked),
        segments(info.lost),
        0, // retrans: now on their way
        0, // fackets
        0, // last_data_sent
        0, // last_ack_sent
        0, // last_data_recv
        0, // last_ack_recv
        0, // pmtu
        0, // rcv_ssthresh
        micros(info.rtt.unwrap_or_default()),
        micros(info.rtt_variation),
        info.slow_start_threshold.map_or(i32::MAX as u32, segments),
        segments(info.congestion_window),
        mss, // advmss
        3,   // reordering
        0,   // rcv_rtt
        clip(info.receive_buffer),
        clip(info.retransmits),
    ];
    bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    let long = [info.pacing_rate.unwrap_or(u64::MAX), u64::MAX, info.delivered, info.received];
    bytes.extend(long.iter().flat_map(|word| word.to_ne_bytes()));
    let rest = [0, 0, clip(info.unsent), info.min_rtt.map_or(u32::MAX, micros)];
    bytes.extend(rest.iter().flat_map(|word: &u32| word.to_ne_bytes()));
    bytes
}

/// As net/tcp_states.h numbers them.
fn state(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::SynSent => 2,
        State::SynReceived => 3,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Closed => 7,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Closing => 11,
    }
}
