//! An outbox returns what was written, regardless of the sizes of reads and writes.

use std::io::IoSlice;
use std::mem::MaybeUninit;

use proptest::prelude::*;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::*;

/// Returns an outbox whose library has written its byte, and the application's end.
fn pair() -> (Outbox, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (end, application) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a pair");
    rustix::io::write(&application, &[0]).expect("the library's byte");
    (Outbox::of_connected(end), application)
}

fn send_with_descriptor(application: &OwnedFd, bytes: &[u8]) {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let fds = [application.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = rustix::net::sendmsg(application, &[IoSlice::new(bytes)], &mut control, SendFlags::empty());
    assert_eq!(sent, Ok(bytes.len()));
}

#[test]
fn a_mark_alone_is_nothing_and_what_follows_is_the_applications() {
    let name = Name::Data(peersock_fd::NodeTag(7));
    let (mut connected, application) = pair();
    let mut outbox = Outbox { front: Front::Mark(name.to_string()), ..connected };
    // Remove the byte written by `pair`.
    rustix::net::recv(&outbox, &mut [0; 1], RecvFlags::DONTWAIT).expect("it is there");
    assert_eq!(outbox.take(&mut [0; 9], false), Taken::Nothing);
    rustix::io::write(&application, name.to_string().as_bytes()).expect("room");
    assert_eq!(outbox.take(&mut [0; 9], false), Taken::Nothing);
    assert_eq!((outbox.there(), outbox.not_taken()), (1, 0));
    rustix::io::write(&application, b"data").expect("room");
    let mut buf = [0; 9];
    assert_eq!((outbox.take(&mut buf, false), &buf[..4]), (Taken::Bytes(4, false), &b"data"[..]));
    // Together with data, and with the end.
    for ended in [false, true] {
        let application;
        (connected, application) = pair();
        outbox = Outbox { front: Front::Mark(name.to_string()), ..connected };
        rustix::net::recv(&outbox, &mut [0; 1], RecvFlags::DONTWAIT).expect("it is there");
        rustix::io::write(&application, format!("{name}more").as_bytes()).expect("room");
        assert_eq!((outbox.take(&mut buf, ended), &buf[..4]), (Taken::Bytes(4, false), &b"more"[..]));
        drop(application);
        assert_eq!(outbox.take(&mut buf, true), Taken::End);
    }
}

/// Takes everything in pieces of at most `room` bytes, until the outbox reports the end.
fn take_all(outbox: &mut Outbox, room: usize) -> Vec<u8> {
    let (mut buf, mut all) = (vec![0; room], Vec::new());
    loop {
        match outbox.take(&mut buf, false) {
            Taken::Bytes(length, more) => {
                assert!((1..=room).contains(&length));
                all.extend_from_slice(&buf[..length]);
                if !more {
                    return all;
                }
            }
            Taken::Interrupted => {}
            other => {
                assert_eq!(other, Taken::Nothing);
                return all;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    /// With a descriptor, which is ignored here.
    WriteWithDescriptor(usize),
    /// As urgent data, which is received inline.
    WriteUrgent(usize),
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![1..20_usize, PEEKED_BYTES - 2..PEEKED_BYTES + 3, 1..3 * PEEKED_BYTES];
    prop_oneof![
        4 => length.clone().prop_map(Step::Write),
        1 => length.clone().prop_map(Step::WriteWithDescriptor),
        1 => length.clone().prop_map(Step::WriteUrgent),
        4 => length.prop_map(Step::Take),
    ]
}

proptest! {
    #[test]
    fn every_byte_is_taken_once_and_the_last_stays(steps in prop::collection::vec(step(), 1..30)) {
        let (mut outbox, application) = pair();
        let (mut written, mut taken) = (Vec::new(), Vec::new());
        for step in steps {
            let next = written.len() as u8;
            let byte = |at: usize| next.wrapping_add(at as u8);
            let bytes = |length: usize| -> Vec<u8> { (0..length).map(byte).collect() };
            match step {
                Step::Write(length) => {
                    let bytes = bytes(length);
                    prop_assert_eq!(rustix::io::write(&application, &bytes), Ok(length));
                    written.extend(bytes);
                }
                Step::WriteWithDescriptor(length) => {
                    let bytes = bytes(length);
                    send_with_descriptor(&application, &bytes);
                    written.extend(bytes);
                }
                Step::WriteUrgent(length) => {
                    let bytes = bytes(length);
                    if send_urgent(&application, &bytes) {
                        // The kernel reports it with the event.
                        outbox.note_urgent();
                        written.extend(bytes);
                    }
                }
                Step::Take(room) => {
                    prop_assert_eq!(outbox.not_taken(), written.len() - taken.len());
                    taken.extend(take_all(&mut outbox, room));
                    prop_assert_eq!(&taken, &written);
                }
            }
            prop_assert!(outbox.is_reset_on_close());
        }
        taken.extend(take_all(&mut outbox, PEEKED_BYTES));
        prop_assert_eq!(taken, written);
        prop_assert!(outbox.is_reset_on_close());
        prop_assert!(outbox.release());
        prop_assert!(!outbox.is_reset_on_close());
    }
}

/// Sends urgent data. Returns false if the kernel does not support it on AF_UNIX sockets.
fn send_urgent(application: &OwnedFd, bytes: &[u8]) -> bool {
    match rustix::net::send(application, bytes, SendFlags::OOB) {
        Ok(sent) => {
            assert_eq!(sent, bytes.len());
            true
        }
        Err(error) => {
            assert_eq!(error, Errno::OPNOTSUPP);
            false
        }
    }
}

/// Takes all bytes and returns them with the kind of the end, which must come within ten takes.
fn take_to_end(outbox: &mut Outbox) -> (Vec<u8>, Taken) {
    let (mut buf, mut all) = ([0; 100], Vec::new());
    for _ in 0..10 {
        match outbox.take(&mut buf, true) {
            Taken::Bytes(length, _) => all.extend_from_slice(&buf[..length]),
            Taken::Interrupted => {}
            end => return (all, end),
        }
    }
    panic!("it goes on for ever after {all:?}");
}

#[test]
fn urgent_bytes_are_taken_in_line_and_the_end_after_them() {
    for (before, after) in [("", ""), ("ab", ""), ("", "yz"), ("ab", "yz")] {
        let (mut outbox, application) = pair();
        rustix::io::write(&application, before.as_bytes()).expect("room");
        if !send_urgent(&application, b"!") {
            eprintln!("SKIP: the kernel has no urgent data of AF_UNIX sockets");
            return;
        }
        rustix::io::write(&application, after.as_bytes()).expect("room");
        drop(application);
        let wanted = format!("{before}!{after}");
        assert_eq!(take_to_end(&mut outbox), (wanted.into_bytes(), Taken::End));
    }
}

#[test]
fn what_the_kernel_counts_and_does_not_give_is_not_looked_at_for_ever() {
    let (mut outbox, application) = pair();
    sockopt::set_socket_oobinline(&outbox, false).expect("an option");
    if !send_urgent(&application, b"!") {
        eprintln!("SKIP: the kernel has no urgent data of AF_UNIX sockets");
        return;
    }
    let looks = [(); 10].map(|()| outbox.take(&mut [0; 100], false));
    assert!(looks.contains(&Taken::Nothing), "{looks:?}");
    drop(application);
    let (bytes, end) = take_to_end(&mut outbox);
    assert!(bytes.is_empty() && matches!(end, Taken::End | Taken::Reset), "{bytes:?} {end:?}");
}

#[test]
fn the_end_comes_after_the_last_byte() {
    let (mut outbox, application) = pair();
    rustix::io::write(&application, b"all").expect("room");
    drop(application);
    let mut buf = [0; 8];
    assert_eq!(outbox.take(&mut buf, true), Taken::Bytes(3, false));
    assert_eq!(&buf[..3], b"all");
    assert_eq!(outbox.take(&mut buf, true), Taken::End);
}

#[test]
fn who_closes_with_something_unread_resets() {
    let (mut outbox, application) = pair();
    rustix::io::write(outbox.as_fd(), b"unread").expect("room");
    rustix::io::write(&application, b"all").expect("room");
    drop(application);
    let mut buf = [0; 8];
    assert_eq!(outbox.take(&mut buf, true), Taken::Bytes(3, false));
    assert_eq!(outbox.take(&mut buf, true), Taken::Reset);
}
