//! Running out of descriptors.

use std::io::{Read, Write};

use peersock_fd::SocketFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::{Served, overlay};

/// The test has a separate process only under nextest; in a shared process it would disturb other tests.
#[test]
fn without_descriptors_connections_fail_and_later_ones_do_not() {
    if std::env::var_os("NEXTEST").is_none() {
        eprintln!("SKIP without_descriptors_connections_fail: it needs a process of its own (cargo nextest)");
        return;
    }
    let (a, b) = Served::pair();
    let (listener, address) = b.listen(SocketFlags::empty());
    drop(a.connect(&b));
    let before = getrlimit(Resource::Nofile);
    let used = std::fs::read_dir("/proc/self/fd").expect("our own").count() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(used + 6), ..before }).expect("less is allowed");
    let mut held = Vec::new();
    let failed = (0..20).any(|_| {
        let opened = peersock_fd::open(
            &a.client,
            peersock_fd::Family::V6,
            peersock_fd::Kind::Stream,
            SocketFlags::empty(),
        );
        let Ok(fd) = opened else { return true };
        if overlay(&fd).connect(Some(address)).is_err() {
            return true;
        }
        let mut file = std::fs::File::from(fd);
        // A connection that the node has turned away shows the end, or a reset.
        let timeout = Some(std::time::Duration::from_millis(200));
        rustix::net::sockopt::set_socket_timeout(&file, rustix::net::sockopt::Timeout::Recv, timeout)
            .expect("an option");
        let result = file.write_all(b"x").and_then(|()| file.read(&mut [0; 1]).map(drop));
        let turned_away =
            result.map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |()| true);
        held.push(file);
        turned_away
    });
    assert!(failed, "there were always descriptors");
    setrlimit(Resource::Nofile, before).expect("it was allowed before");
    drop(held);
    drop(listener);
    let (mut client, mut server) = a.connect(&b);
    client.write_all(b"x").expect("room");
    server.read_exact(&mut [0; 1]).expect("a byte");
}
