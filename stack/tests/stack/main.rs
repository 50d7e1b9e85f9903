//! Tests of the stack as its driver sees it: two stacks in virtual time, and one against hostile input.

mod backlog;
mod checksums;
mod cookies;
mod craft;
mod demux;
mod ending;
mod errors;
mod fragments;
mod headers;
mod hostile;
mod icmp;
mod listeners;
mod loss;
mod memory;
mod multicast;
mod offload;
mod pair;
mod raw;
mod sent_headers;
mod shortage;
mod silence;
mod tcp;
mod threads;
mod udp;
