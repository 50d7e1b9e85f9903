//! Tools shared by the tests of the cores, the simulator and the fuzz targets.
//!
//! * [`Random`]: chance from one seed.
//! * [`Queue`]: later events, in order of time.
//! * [`receive`] and [`send`]: a driver's work with an endpoint of the overlay; [`StackHost`]: with a stack.
//! * [`Adversary`]: a network member who keeps to no rule. It has an identity and its session keys, so its
//!   messages are authentic. It makes any message, and the caller may send its datagrams from any address.
//! * [`TestRoot`]: the root that serves nodes ([`RealRoot`]), or one that lies to them ([`FakeRoot`]).
//! * [`Credit`]: limit of the bytes sent to addresses whose owners have never received anything.
//! * [`Crowd`]: one node, and any number of members of its networks.
//! * [`free_port`]: a port for a program that must be told one.
//! * [`Counting`]: an allocator that reports the memory in use.
//! * `Lab`: real NATs in network namespaces; `LocalDht`: a DHT without a connection to any other.
//!
//! Nothing else here transports data. Each test network decides how datagrams and packets travel, and which
//! are lost.

#[cfg(feature = "overlay")]
mod adversary;
mod counting;
#[cfg(feature = "overlay")]
mod credit;
#[cfg(feature = "overlay")]
mod crowd;
#[cfg(feature = "overlay")]
mod driver;
#[cfg(feature = "overlay")]
mod fake_root;
mod free_port;
#[cfg(feature = "stack")]
mod host;
#[cfg(feature = "overlay")]
mod improvise;
#[cfg(feature = "lab")]
mod lab;
#[cfg(feature = "dht")]
mod local_dht;
mod log;
mod queue;
mod random;
#[cfg(feature = "root")]
mod real_root;
#[cfg(feature = "root")]
mod test_root;

#[cfg(feature = "overlay")]
pub use adversary::{Adversary, Heard};
pub use counting::Counting;
#[cfg(feature = "overlay")]
pub use credit::{Credit, Overdrawn};
#[cfg(feature = "overlay")]
pub use crowd::Crowd;
#[cfg(feature = "overlay")]
pub use driver::{receive, send};
#[cfg(feature = "overlay")]
pub use fake_root::{FakeRoot, Lies};
pub use free_port::free_port;
#[cfg(feature = "stack")]
pub use host::StackHost;
#[cfg(feature = "lab")]
pub use lab::{Lab, find_in_path};
#[cfg(feature = "dht")]
pub use local_dht::LocalDht;
pub use log::Log;
pub use queue::Queue;
pub use random::Random;
#[cfg(feature = "root")]
pub use real_root::RealRoot;
#[cfg(feature = "root")]
pub use test_root::TestRoot;
