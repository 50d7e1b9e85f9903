//! TCP: the segment format, the connection state machine, and the sending rate.
//!
//! | module | its subject | specified by |
//! |---|---|---|
//! | `connection` | the state machine | RFC 9293, RFC 5961 |
//! | `sender`, `scoreboard` and its `runs`, `rack`, `rtt` | what is on its way, what is lost | RFC 6675, 8985, 6298 |
//! | `congestion`, `rate` | how fast | draft-ietf-ccwg-bbr, RFC 9438, 5681 |
//! | `receiver`, `reassembly` | what has arrived, what to acknowledge | RFC 2018, 2883 |
//! | `memory` | what buffers may occupy | |
//! | `gso`, `gro` | many segments as one | |
//! | `cookie`, `isn` | handshakes that cannot be guessed | RFC 4987, 6528 |
//! | `segment`, `options`, `header` | the wire | RFC 9293, 7323, 3168 |

pub(crate) mod arithmetic;
mod byte_queue;
mod chunk_pool;
pub(crate) mod congestion;
mod connection;
mod cookie;
pub(crate) mod gro;
pub(crate) mod gso;
mod header;
mod isn;
mod memory;
mod options;
mod rack;
mod ranges;
pub(crate) mod rate;
mod reassembly;
mod receiver;
mod rtt;
mod runs;
mod scoreboard;
mod segment;
mod sender;
mod sequence;

#[cfg(test)]
pub(crate) use connection::Timestamps;
pub(crate) use connection::{Connection, Ending, Probing, SYN_TIMEOUT, Settings, Verdict, Written};
pub(crate) use cookie::Cookies;
pub(crate) use header::{TcpError, TcpHeader};
pub(crate) use isn::initial_sequence;
pub(crate) use memory::{LEAST_BUFFER, Memory, Share};
pub(crate) use segment::{Marking, Outgoing, Segment, header_len};
