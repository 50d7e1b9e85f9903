//! Tests of urgent data: both ends mark the same byte.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use peersock_stack::Ready;
use peersock_stack_lab::kernel::Options;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::lab::{Lab, Pair};

/// Polls until `look` returns a value.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "nothing happens");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Out of line, the default in Linux: the kernel takes the last urgent byte out of the stream.
#[test]
fn the_kernel_finds_the_byte_that_we_call_urgent() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    lab.each(|Pair { mut kernel, ours, what }| {
        for (before, urgent, after) in [(3, 1, 2), (0, 1, 1), (5000, 4000, 3000)] {
            assert_eq!(ours.try_write(&vec![b'b'; before]).expect("it stands"), before);
            let last = [vec![b'u'; urgent - 1], vec![b'!']].concat();
            assert_eq!(ours.try_write_urgent(&last).expect("it stands"), urgent);
            assert_eq!(ours.try_write(&vec![b'a'; after]).expect("it stands"), after);
            let mut byte = [0];
            until(|| recv(&kernel, &mut byte, RecvFlags::OOB).is_ok().then_some(()));
            assert_eq!(byte, *b"!", "{what}");
            let mut rest = vec![0; before + urgent - 1 + after];
            kernel.read_exact(&mut rest).expect("it stands");
            let expected = [vec![b'b'; before], vec![b'u'; urgent - 1], vec![b'a'; after]].concat();
            assert!(rest == expected, "{what}");
        }
    });
    lab.assert_no_complaints(&[]);
}

/// In line.
#[test]
fn we_find_the_byte_that_the_kernel_calls_urgent() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    lab.each(|Pair { mut kernel, ours, what }| {
        kernel.write_all(b"before").expect("it stands");
        assert_eq!(send(&kernel, b"uu!", SendFlags::OOB), Ok(3));
        kernel.write_all(b"after").expect("it stands");
        until(|| (ours.flow().readable() == 14).then_some(()));
        assert!(ours.flow().readiness().contains(Ready::URGENT));
        assert_eq!(ours.flow().urgent_left(), 9, "{what}");
        let mut buf = [0; 20];
        assert_eq!((&ours).read(&mut buf).expect("it stands"), 8);
        assert_eq!(&buf[..8], b"beforeuu");
        assert!(ours.flow().is_at_mark());
        assert_eq!((&ours).read(&mut buf).expect("it stands"), 6);
        assert_eq!(&buf[..6], b"!after");
        assert!(!ours.flow().readiness().contains(Ready::URGENT));
    });
    lab.assert_no_complaints(&[]);
}
