//! Unmodified programs on the overlay: `peersock run`.

mod adhoc;
mod again;
mod blocked;
mod both;
mod builds;
mod calls;
#[path = "../program/common.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod common;
mod copies;
mod cut;
mod data;
mod delivery;
mod embedded;
mod ending;
mod errno;
mod forks;
mod go;
mod groups;
mod in_use;
mod interfaces;
mod lab;
mod launchers;
mod lost;
mod moved;
mod observations;
mod options;
mod peer;
mod pipes;
mod ports;
mod reached;
mod rules;
mod seccomp;
mod shared;
mod shared_apart;
mod shared_commands;
mod shared_forwards;
mod shared_rest;
mod shell;
mod standard;
mod starts;
mod surroundings;
mod told;
mod web;
