//! What the tests of the cores, the simulator and the fuzz targets share.
//!
//! * [`Random`]: chance from one seed.
//! * [`Adversary`]: a member of a network who keeps to no rule. It has an identity and the keys of its
//!   sessions, so what it makes is authentic, and it makes whatever it likes: its datagrams may be sent from
//!   any address.
//! * [`FakeRoot`]: a root without limits, which lies if it is told to.
//! * [`Credit`]: how many bytes may be sent to addresses whose owner has never received anything.
//!
//! Nothing here sends or receives: each test network carries the datagrams in its own way.
#![forbid(unsafe_code)]

mod adversary;
mod credit;
mod fake_root;
mod improvise;
mod random;

pub use adversary::{Adversary, Heard};
pub use credit::{Credit, Overdrawn};
pub use fake_root::{FakeRoot, Lies};
pub use random::Random;
