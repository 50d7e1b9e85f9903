//! Networks in Go's style: the same subjects as Python's tests of `peersock.net`.

mod addresses;
mod common;
mod conns;
mod datagrams;
mod ending;
mod overlay;
mod paths;
mod programs;
mod properties;
mod resolving;
mod table;
