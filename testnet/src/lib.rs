//! What the tests of the cores, the simulator and the fuzz targets share.
//!
//! * [`Random`]: chance from one seed.
//! * [`Queue`]: what happens later, in order of time.
//! * [`receive`] and [`send`]: what a driver does with an endpoint of the overlay; [`StackHost`]: what it
//!   does with a stack.
//! * [`Adversary`]: a member of a network who keeps to no rule. It has an identity and the keys of its
//!   sessions, so what it makes is authentic, and it makes whatever it likes: its datagrams may be sent from
//!   any address.
//! * [`TestRoot`]: the root that serves nodes ([`RealRoot`]), or one that lies to them ([`FakeRoot`]).
//! * [`Credit`]: how many bytes may be sent to addresses whose owner has never received anything.
//! * [`Crowd`]: one node, and as many members of its networks as one likes.
//! * [`Counting`]: an allocator that says how much is in use.
//! * `Lab`: real NATs in network namespaces; `LocalDht`: a DHT that leads nowhere else.
//!
//! Nothing else here carries anything: how datagrams and packets get to others, and which are lost, is for
//! each test network to say.

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
