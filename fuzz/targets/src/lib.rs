//! The bodies of the fuzz targets.
//!
//! Each target is a plain function of bytes that panics if something is wrong. `fuzz/` hands it to libFuzzer,
//! with one small program per target. The test in this crate replays the committed inputs of `fuzz/corpus/`
//! without libFuzzer, so regressions show. Targets keep no state between two calls that could change an
//! outcome. They take time and randomness only from the input.
//!
//! There is one target per parser, with three kinds of oracle. First, parsed input is written and parsed
//! again ([`wire`], [`control`], [`identifiers`], [`frames`], [`proxy_answers`], [`stun`], [`port_mapping`],
//! [`root_list`], [`node_address`], [`root_messages`], [`turn_frames`], [`socks_messages`],
//! [`forward_places`], [`file_messages`], [`file_texts`], [`router_errors`], [`tickets`],
//! [`websocket_messages`], [`controller_messages`]). Second, a valid message is altered and must then be
//! refused ([`hello`], [`initiation`], [`response`], [`cookie`], [`session`], [`meeting`],
//! [`root_directory`], [`credentials`], [`revocation_heads`]). Third, sequences of operations run against a
//! model of the permitted results ([`coalescer`], [`connection`], [`overlay_ops`], [`root_ops`],
//! [`stack_ops`], [`turn`], [`rule_sets`]). [`dns_names`], [`rest_requests`] and [`rule_files`] check
//! invariants of any answer, and [`http_identity`] has another parser read what was passed on.
//!
//! ```
//! for target in peersock_fuzz_targets::TARGETS {
//!     (target.run)(b"any bytes");
//! }
//! ```
#![forbid(unsafe_code)]

mod files;
mod handshake;
mod http_identity;
mod input;
mod meeting;
mod membership;
mod nat;
mod node_address;
mod overlay;
mod proxy;
mod root;
mod root_directory;
mod root_list;
mod root_messages;
mod router_errors;
mod rules;
mod services;
mod session;
mod stack;
mod streams;
mod text;
mod wire;

pub use files::{file_messages, file_texts};
pub use handshake::{cookie, initiation, response};
pub use http_identity::http_identity;
pub use meeting::meeting;
pub use membership::{controller_messages, credentials, revocation_heads};
pub use nat::{port_mapping, stun, turn};
pub use node_address::node_address;
pub use overlay::overlay_ops;
pub use proxy::{forward_places, socks_messages, tickets};
pub use root::root_ops;
pub use root_directory::root_directory;
pub use root_list::root_list;
pub use root_messages::root_messages;
pub use router_errors::router_errors;
pub use rules::{rule_files, rule_sets};
pub use services::{dns_names, rest_requests, websocket_messages};
pub use session::session;
pub use stack::{coalescer, connection, packets, segments, stack_ops};
pub use streams::{frames, proxy_answers, turn_frames};
pub use text::{identifiers, identity_file, network_file};
pub use wire::{control, hello, wire};

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of its program in `fuzz/fuzz_targets/` and of its folder in `fuzz/corpus/`.
    pub name: &'static str,
    /// Body of the target, which panics on a finding.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name },)+];
    };
}

targets! {
    coalescer,
    connection,
    control,
    controller_messages,
    cookie,
    credentials,
    dns_names,
    file_messages,
    file_texts,
    forward_places,
    frames,
    hello,
    http_identity,
    identifiers,
    identity_file,
    initiation,
    meeting,
    network_file,
    node_address,
    overlay_ops,
    packets,
    port_mapping,
    proxy_answers,
    response,
    rest_requests,
    revocation_heads,
    root_directory,
    root_list,
    root_messages,
    root_ops,
    router_errors,
    rule_files,
    rule_sets,
    segments,
    session,
    socks_messages,
    stack_ops,
    stun,
    tickets,
    turn,
    turn_frames,
    websocket_messages,
    wire,
}
