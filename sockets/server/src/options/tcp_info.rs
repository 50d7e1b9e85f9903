//! TCP_INFO in the layout of Linux's `struct tcp_info`.

use std::time::Duration;

use peersock::attach::Connection;
use peersock_stack::State;

/// Length of the structure up to and including `tcpi_snd_wnd`, bytes.
const TCP_INFO_BYTES: usize = 232;
/// TCP_LISTEN.
const LISTEN_STATE: u8 = 10;

/// Returns Linux's number of a state.
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

/// Builds the structure up to `tcpi_snd_wnd`. Fields that the node does not count are 0; without a connection
/// all are 0 except the state.
pub(super) fn tcp_info(connection: Option<&Connection>) -> Vec<u8> {
    let info = connection.and_then(|connection| connection.info().ok());
    let Some(info) = info else { return only_state(state(State::Closed)) };
    let mut out = Fields(Vec::with_capacity(TCP_INFO_BYTES));
    let path_mtu = connection.and_then(|connection| connection.flow().path_mtu()).unwrap_or(0);
    let segments = |bytes: u64| bytes.div_ceil(info.mss.max(1));
    let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let never = u64::from(u32::MAX);
    // Open, or in recovery while something is lost.
    let ca_state = if info.lost > 0 { 3 } else { 0 };
    let ecn = if info.ecn { 8 } else { 0 };
    out.0.extend([state(info.state), ca_state, 0, 0, info.backoff.min(255) as u8, ecn, 0, 0]);
    out.words([u64::from(micros(info.retransmission_timeout)), 0, info.mss, 0]);
    // Unacknowledged, SACKed, lost, retransmitted, FACKed.
    out.words([
        segments(info.unacked.saturating_sub(info.unsent)),
        segments(info.sacked),
        segments(info.lost),
        0,
        0,
    ]);
    // Times since data and ACKs were last sent and received.
    out.words([0; 4]);
    out.words([path_mtu as u64, info.receive_buffer]);
    out.words([info.rtt.map_or(0, |rtt| micros(rtt).into()), micros(info.rtt_variation).into()]);
    out.words([info.slow_start_threshold.map_or(never, segments), segments(info.congestion_window)]);
    // The advertised MSS is the current one.
    out.words([info.mss, 0, 0, info.receive_buffer, info.retransmits]);
    out.longs([info.pacing_rate.unwrap_or(u64::MAX), u64::MAX, info.delivered, info.received]);
    out.words([0, 0, info.unsent, info.min_rtt.map_or(never, |rtt| micros(rtt).into()), 0, 0]);
    // Delivery rate, and durations by limiting factor.
    out.longs([0; 4]);
    out.words([segments(info.delivered), 0]);
    // Bytes sent, and bytes retransmitted.
    out.longs([0; 2]);
    out.words([0, 0, 0, info.peer_window]);
    out.0
}

/// Builds the structure for a listening socket.
pub(super) fn of_listener() -> Vec<u8> {
    only_state(LISTEN_STATE)
}

fn only_state(state: u8) -> Vec<u8> {
    let mut info = vec![0; TCP_INFO_BYTES];
    info[0] = state;
    info
}

struct Fields(Vec<u8>);

impl Fields {
    fn words<const N: usize>(&mut self, words: [u64; N]) {
        let saturated = words.map(|word| u32::try_from(word).unwrap_or(u32::MAX));
        self.0.extend(saturated.into_iter().flat_map(u32::to_ne_bytes));
    }

    fn longs<const N: usize>(&mut self, longs: [u64; N]) {
        self.0.extend(longs.into_iter().flat_map(u64::to_ne_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_has_linux_s_length() {
        let none = tcp_info(None);
        assert_eq!((none.len(), none[0]), (232, 7));
        assert_eq!((of_listener().len(), of_listener()[0]), (232, 10));
    }
}
