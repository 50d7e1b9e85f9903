//! UDP_SEGMENT: one call sends several datagrams.

use std::io::IoSlice;
use std::num::NonZeroU16;
use std::os::fd::AsFd;

use libc::{IPPROTO_IPV6, IPPROTO_UDP, IPV6_DONTFRAG, UDP_SEGMENT};
use peersock_fd::{Details, Errno, Kind, SendFlags};

use crate::common::{Served, errno, get, overlay, receive, send_to, set};

/// Returns the lengths of the next `count` datagrams, whose bytes must be consecutive.
fn lengths(fd: &impl AsFd, count: usize) -> Vec<usize> {
    let mut next = 0;
    let one = |_| {
        let (bytes, _) = receive(fd);
        for byte in &bytes {
            assert_eq!(*byte, next as u8, "byte {next}");
            next += 1;
        }
        bytes.len()
    };
    (0..count).map(one).collect()
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| at as u8).collect()
}

#[test]
fn what_is_sent_is_cut_into_datagrams() {
    let (a, b) = Served::pair_with_ipv4();
    let (receiver, address) = b.bound();
    let fd = a.open(Kind::Datagram);
    let cut = |length: usize, segment: u16| {
        let details = Details { segment: NonZeroU16::new(segment), ..Details::default() };
        overlay(&fd).send_to(&[IoSlice::new(&bytes(length))], SendFlags::empty(), address, Some(details))
    };
    // The first datagram finds the path.
    assert_eq!((send_to(&fd, &bytes(5), address), lengths(&receiver, 1)), (Ok(5), vec![5]));
    // As Linux: each is whole, and the last has the rest. They go out even where the path does not take the
    // whole length.
    set(&fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1).expect("an option");
    assert_eq!(errno(send_to(&fd, &bytes(65_500), address)), Errno::MSGSIZE);
    assert_eq!((cut(3000, 1200), lengths(&receiver, 3)), (Ok(3000), vec![1200, 1200, 600]));
    assert_eq!((cut(2400, 1200), lengths(&receiver, 2)), (Ok(2400), vec![1200, 1200]));
    assert_eq!((cut(64_000, 1000), lengths(&receiver, 64)), (Ok(64_000), vec![1000; 64]));
    assert_eq!(errno(cut(65_500, 65_499)), Errno::MSGSIZE);

    assert_eq!(get(&fd, IPPROTO_UDP, UDP_SEGMENT), Ok(0));
    for wrong in [-1, 65536] {
        assert_eq!(errno(set(&fd, IPPROTO_UDP, UDP_SEGMENT, wrong)), Errno::INVAL);
    }
    set(&fd, IPPROTO_UDP, UDP_SEGMENT, 1000).expect("an option");
    assert_eq!(get(&fd, IPPROTO_UDP, UDP_SEGMENT), Ok(1000));
    assert_eq!(
        (send_to(&fd, &bytes(2500), address), lengths(&receiver, 3)),
        (Ok(2500), vec![1000, 1000, 500])
    );
    // A message's own setting takes precedence.
    assert_eq!((cut(2500, 1250), lengths(&receiver, 2)), (Ok(2500), vec![1250, 1250]));
    // Direct kernel calls as well.
    overlay(&fd).connect(Some(address)).expect("there is a way");
    assert_eq!((rustix::io::write(&fd, &bytes(1001)), lengths(&receiver, 2)), (Ok(1001), vec![1000, 1]));
    assert_eq!((rustix::io::write(&fd, &[]), lengths(&receiver, 1)), (Ok(0), vec![0]));
    set(&fd, IPPROTO_UDP, UDP_SEGMENT, 0).expect("an option");
    assert_eq!((rustix::io::write(&fd, &bytes(1001)), lengths(&receiver, 1)), (Ok(1001), vec![1001]));

    let echo = a.open(Kind::Echo);
    assert_eq!(errno(set(&echo, IPPROTO_UDP, UDP_SEGMENT, 1000)), Errno::NOPROTOOPT);
}
