//! The controller of a managed network: its store and its decisions.
//!
//! A [`Controller`] owns a [`Store`] (one SQLite file) and decides who is a member, with which name,
//! addresses and tags. It does no network input or output, reads no clock and draws no randomness: questions
//! of nodes, the time and a generator come in as arguments, and answers come out. The same inputs give the
//! same answers, so a simulation can run hundreds of networks.
//!
//! # Memory and store
//!
//! The store decides. The memory is a copy of what renewals and lookups need. A renewal reads the member's
//! entry in memory, signs a certificate and notes its serial; [`Controller::flush`] writes these notes later,
//! many at once. So a slow or failing store delays admissions only.
//! [`Renewals`] answers such questions on another thread while the controller waits for its disk.
//!
//! A change of rights (an admission, a removal, another tag) is one transaction, which is on the disk before
//! any node hears of it. [`Controller::answer_all`] decides on many questions in one transaction.
//!
//! Several processes can open the store, for example the running controller and a command that approves a
//! member. Each commit has a number. A controller notices that another process has committed (`PRAGMA
//! data_version`), and reloads the rows whose number is above the last one that it knows.
//!
//! # Serials and revocations
//!
//! The serials of one member's certificates strictly increase. Each member has a *floor*, the lowest serial
//! that counts. A removal, and a change of a certificate's content, sets the floor above all serials that
//! have been issued, and publishes it as a revocation. If another process raises the floor while this one
//! signs, this one raises it further when it notices.
//!
//! Serials are times, and the time by which a controller signs never goes back, also if the system's clock
//! was ahead and is set right. After that it runs at half the clock's speed until the clock has reached it.
//! See [`Controller::clock`].
//!
//! # Another key of the controller's node
//!
//! [`Controller::prepare_node_key`] writes all that the next key needs beside what counts now. The change of
//! the machine's identity decides: a controller that opens the store with the next key takes it up, and one
//! that starts with the former key drops it. So no crash separates the store from the identity. Afterwards
//! the caller goes to [`Controller::members_to_visit`], because members may know no way to the node.
//!
//! # Duties of the caller
//!
//! One process serves. It waits until [`Controller::clock`] is right, and calls [`Controller::start`] first.
//! It passes heads of members to [`Controller::note_head`], signs of life to [`Controller::note_heard`] and
//! signs of copies to [`Controller::note_both`], and gives [`Controller::head`] to members. It calls
//! [`Controller::flush`] every 30 s and [`Controller::delegate`] every hour. Commands in other processes open
//! the same store, change something, and end.
//!
//! With an approval program ([`Controller::set_approval_program`]), it calls [`Controller::take_inquiries`]
//! often, runs the program for each, and reports the result to [`Controller::decide`]. Meanwhile the
//! controller goes on with all other questions.
//!
//! ```
//! use peersock_controller::{Controller, InviteOptions, NewNetwork, Settings, Store};
//! use peersock_overlay::membership::{Answer, CertifyRequest, Question, UnixTime};
//! use peersock_overlay::{Identity, NetworkId};
//! use rand::{SeedableRng, rngs::ChaCha20Rng};
//!
//! let (now, mut rng) = (UnixTime::from_millis(1_800_000_000_000), ChaCha20Rng::from_seed([1; 32]));
//! let (name, own_name) = ("team".into(), "controller".parse()?);
//! let new = NewNetwork { name, own_name, settings: Settings::default(), is_offline: false };
//! let id_of = |_: &_| NetworkId::new(0x8056_c2e2_1c00_0001).ok();
//! let (mut controller, words) =
//!     Controller::create(Store::in_memory()?, &[7; 32], &new, now, &mut rng, id_of)?;
//! assert_eq!(words.to_string().split(' ').count(), 12);
//!
//! let token = controller.invite(now, &mut rng, "alice", &InviteOptions::default())?;
//! let request = CertifyRequest { token: Some(token), name: "beta".parse().ok(), ..Default::default() };
//! let (node, source) = (Identity::from_seed(&[9; 32]), "192.0.2.1".parse()?);
//! let question = Question::Certify(request);
//! let Answer::Certified { credentials, .. } =
//!     controller.answer(now, &mut rng, node.public(), source, question)
//! else {
//!     panic!("the invite is good")
//! };
//! assert_eq!(credentials.certificate().grant().name.as_str(), "beta");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod addresses;
mod admin;
mod admission;
mod clock;
mod controller;
mod delegation;
mod flush;
mod heard;
mod keys;
mod log;
mod member;
mod memory;
mod network_key;
mod own_key;
mod pending;
mod program;
mod rules;
mod runs;
mod settings;
mod spares;
mod status;
mod store;
#[cfg(test)]
mod tests;

pub use admin::{Approval, Change, ChangeError, Holder, Invite, InviteOptions, MIN_NODE_DIGITS};
pub use clock::{ClockState, MAX_LEAP};
pub use controller::{Asked, Controller, CreateError, NewNetwork, NoteError, Renewals};
pub use delegation::{DELEGATION_LIFETIME, OFFLINE_DELEGATION_LIFETIME};
pub use keys::{ParseWordsError, RecoveryWords};
pub use log::LogLine;
pub use member::{Member, SecondRun, Standing};
pub use memory::{EPHEMERAL_LIFETIME, MARGIN, RETRY_AFTER, Waiting};
pub use network_key::{NextKey, RecoverError};
pub use program::{Additions, Decision, Inquiry, MAX_RUNNING, ShownInvite};
pub use rules::StoredRules;
pub use runs::CLONE_WINDOW;
pub use settings::{OUTLIVE, OnClone, Settings};
pub use status::{PoolUse, Status};
pub use store::{Store, StoreError};
