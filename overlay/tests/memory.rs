//! Memory cost of peers: an allocator that counts, and real handshakes.
#![expect(clippy::print_stderr, reason = "what is measured is worth reading")]

use std::time::{Duration, Instant};

use peersock_testnet::{Counting, Crowd};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Maximum number of bytes of a session.
const MAX_SESSION_BYTES: isize = 2400;
/// Maximum number of bytes of a member that was never heard.
const MAX_MEMBER_BYTES: isize = 3200;

#[test]
fn a_member_and_its_session_cost_little_memory() {
    #[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
    let now = Instant::now();
    let empty = size_of_node(now, 0, 0);
    // Sizes at which tables have just grown, and at which they are about to.
    for most in [449, 897, 1025] {
        let members = size_of_node(now, most, 0);
        let session = (size_of_node(now, most, most) - members) / most as isize;
        let member = (members - empty) / most as isize;
        eprintln!("{most} members: {member} bytes each, and {session} with a session; {empty} without any");
        assert!((500..=MAX_SESSION_BYTES).contains(&session), "{session} bytes");
        assert!((500..=MAX_MEMBER_BYTES).contains(&member), "{member} bytes");
    }
}

/// Returns the bytes held by a node that knows `members` members and has `sessions` sessions: the memory that
/// is free once it is gone.
fn size_of_node(now: Instant, members: u32, sessions: u32) -> isize {
    let mut crowd = Crowd::new(now, members, 0).expect("a network");
    for peer in 0..sessions {
        crowd.meet(now, peer).expect("a session");
    }
    // The remains of the handshakes expire, because they cannot complete any more.
    let later = now + Duration::from_secs(30);
    crowd.endpoint.handle_timeout(later);
    let mut out = Vec::new();
    while crowd.endpoint.poll_transmit(later, &mut out).is_some() {}
    while crowd.endpoint.poll_event().is_some() {}
    drop(out);
    let before = Counting::in_use();
    drop(crowd);
    before - Counting::in_use()
}
