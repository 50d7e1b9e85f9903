//! Options that several commands share, and their interpretation.

mod described;
mod network;
mod node;
mod state;
mod target;
mod values;

pub(crate) use described::{check_new_network_file, network_file, parse_network};
pub(crate) use network::{
    MemberNetworkArgs, NETWORK_VARIABLE, NetworkArgs, NetworksArgs, OptionalNetworkArgs, no_network,
    only_joined,
};
pub(crate) use node::{
    INTERFACE_VARIABLE, NODE_HEADING, NodeArgs, OWN_NODE, PERSIST, PeerTimeoutArgs, REACH_TIMEOUT,
    REACH_TIMEOUT_WITH_DHT, SharedNodeArgs, UnderlayArgs, persist_of_environment,
};
pub(crate) use state::{STATE_VARIABLE, StateArgs, managed_state, note_state, set_state};
pub(crate) use target::{has_port, managed_name, managed_target, parse_host, parse_targets};
pub(crate) use values::{parse_port, parse_seconds};
