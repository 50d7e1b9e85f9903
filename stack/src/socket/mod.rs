//! Sockets of all kinds, the lookup of sockets for packets (`flow_table`, `demux`), and queues. Echo sockets
//! are in `icmp`.

pub(crate) mod backlog;
pub(crate) mod demux;
pub(crate) mod error_queue;
pub(crate) mod flow;
pub(crate) mod flow_list;
pub(crate) mod flow_table;
pub(crate) mod inbox;
pub(crate) mod ip_options;
pub(crate) mod listener;
pub(crate) mod ports;
pub(crate) mod queue;
pub(crate) mod raw;
pub(crate) mod ready;
pub(crate) mod scope;
pub(crate) mod udp;
