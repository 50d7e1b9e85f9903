//! Bytes, their end, and resets.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use peersock_fd::{Errno, Reply, Request, SocketFlags};
use rustix::event::PollFlags;
use rustix::net::{SendFlags, Shutdown, shutdown};

use crate::common::{Served, overlay, poll, python, set_bytes};

#[test]
fn bytes_pass_in_both_directions() {
    let (a, b) = Served::pair();
    let (mut client, mut server) = a.connect(&b);
    client.write_all(b"hello").expect("room");
    let mut buf = [0; 5];
    server.read_exact(&mut buf).expect("five bytes");
    assert_eq!(&buf, b"hello");
    server.write_all(b"world").expect("room");
    client.read_exact(&mut buf).expect("five bytes");
    assert_eq!(&buf, b"world");
}

#[test]
fn much_data_arrives_whole_and_a_half_closed_connection_goes_on() {
    let (a, b) = Served::pair();
    let (client, mut server) = a.connect(&b);
    let data: Vec<u8> = (0..20_000_000u32).map(|i| (i ^ i >> 9) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(&data).expect("it is read");
            shutdown(&client, Shutdown::Write).expect("it is connected");
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).expect("the end comes");
        assert!(received == data, "{} bytes", received.len());
    });
    server.write_all(b"thanks").expect("this way is open");
    drop(server);
    let mut answer = String::new();
    (&client).read_to_string(&mut answer).expect("the end comes");
    assert_eq!(answer, "thanks");
}

#[test]
fn what_was_written_before_closing_arrives() {
    let (a, b) = Served::pair();
    let (mut client, mut server) = a.connect(&b);
    client.write_all(&[7; 150_000]).expect("room");
    drop(client);
    let mut received = Vec::new();
    server.read_to_end(&mut received).expect("the end comes");
    assert_eq!(received.len(), 150_000);
}

#[test]
fn a_reset_is_an_error_after_the_data_before_it() {
    let (a, b) = Served::pair();
    let (mut client, mut server) = a.connect(&b);
    client.write_all(b"unread").expect("room");
    server.write_all(b"last words").expect("room");
    assert!(poll(&server, PollFlags::IN).contains(PollFlags::IN));
    // Closing with data unread resets (RFC 2525 2.17).
    drop(server);
    let mut received = Vec::new();
    let error = client.read_to_end(&mut received).expect_err("a reset");
    assert_eq!((received.as_slice(), error.kind()), (&b"last words"[..], ErrorKind::ConnectionReset));
    assert_eq!(client.read(&mut [0; 8]).expect("and then the end"), 0);
    assert_eq!(client.write(b"x").expect_err("nobody is there").kind(), ErrorKind::BrokenPipe);
}

/// Written data is on its way before the reset, even if the node sees both at once.
#[test]
fn what_is_written_just_before_a_reset_arrives() {
    let (a, b) = Served::pair();
    for _ in 0..50 {
        let (mut client, mut server) = a.connect(&b);
        client.write_all(b"unread").expect("room");
        assert!(poll(&server, PollFlags::IN).contains(PollFlags::IN));
        server.write_all(b"last words").expect("room");
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect_err("a reset");
        assert_eq!(received, b"last words");
    }
}

/// A writer of single bytes goes on as soon as the node has taken them.
#[test]
fn single_bytes_make_room_again() {
    let (a, b) = Served::pair();
    let (client, mut server) = a.connect(&b);
    rustix::io::ioctl_fionbio(&client, true).expect("a socket");
    let (mut written, mut room) = (0, vec![0; 1 << 16]);
    while written < 30_000 {
        match (&client).write(b"x") {
            Ok(length) => written += length,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert_eq!(poll(&client, PollFlags::OUT), PollFlags::OUT);
            }
        }
    }
    let mut received = 0;
    while received < written {
        received += server.read(&mut room).expect("bytes");
    }
}

#[test]
fn a_reader_that_does_not_read_holds_the_writer_back() {
    let (a, b) = Served::pair();
    let (client, mut server) = a.connect(&b);
    rustix::io::ioctl_fionbio(&client, true).expect("a socket");
    let piece = vec![1; 1 << 16];
    let mut written = 0;
    // Writing blocks, and goes on once data is read.
    let bound = 256 << 20;
    while written < bound {
        match (&client).write(&piece) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let flags = crate::common::poll_for(&client, PollFlags::OUT, 1);
                if flags.is_empty() {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(written < bound, "nothing held it back");
    let reader = thread::spawn(move || {
        let mut read = 0;
        let mut buf = vec![0; 1 << 16];
        while let Ok(n @ 1..) = server.read(&mut buf) {
            read += n;
        }
        read
    });
    assert!(poll(&client, PollFlags::OUT).contains(PollFlags::OUT));
    drop(client);
    assert_eq!(reader.join().expect("no panic"), written);
}

#[test]
fn who_closes_while_both_ways_are_full_ends_the_connection_for_the_other() {
    let (a, b) = Served::pair();
    let (client, server) = a.connect(&b);
    // There is no reader: with both directions full, neither end can send its data.
    let mut idle = 0;
    while idle < 20 {
        let sent = [&client, &server].map(|file| {
            let data = [1; 1 << 16];
            rustix::net::send(file, &data, SendFlags::DONTWAIT).is_ok()
        });
        if sent == [false, false] {
            idle += 1;
            thread::sleep(Duration::from_millis(10));
        } else {
            idle = 0;
        }
    }
    drop(client);
    assert!(poll(&server, PollFlags::OUT).contains(PollFlags::OUT));
    let error = (&server).write(&[1]).expect_err("nobody will read it");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    // Data that had come before is not lost, and the reset comes after it.
    let mut received = Vec::new();
    let error = (&server).read_to_end(&mut received).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(received.len() > 1 << 16, "{}", received.len());
}

#[test]
fn all_descriptors_must_be_closed_for_the_connection_to_end() {
    let (a, b) = Served::pair();
    let (client, mut server) = a.connect(&b);
    let mut copy = client.try_clone().expect("dup");
    drop(client);
    copy.write_all(b"still here").expect("room");
    let mut buf = [0; 10];
    server.read_exact(&mut buf).expect("ten bytes");
    drop(copy);
    assert_eq!(server.read(&mut buf).expect("the end"), 0);
}

#[test]
fn a_process_that_ends_delivers_what_it_has_written() {
    let (a, b) = Served::pair();
    let (mut client, mut server) = a.connect(&b);
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        server.read_to_end(&mut received).map(|_| received.len())
    });
    client.write_all(&vec![9; 3_000_000]).expect("it is read");
    // As at the end of a process: the descriptor is still open.
    assert!(a.server.drain(Duration::from_secs(20)));
    assert_eq!(reader.join().expect("no panic").expect("an end in order"), 3_000_000);
    drop(client);
}

#[test]
fn an_urgent_byte_by_the_kernels_own_call_arrives_in_line_and_the_connection_ends() {
    let (a, b) = Served::pair();
    let (mut client, mut server) = a.connect(&b);
    client.write_all(b"ab").expect("room");
    // The library's calls refuse it, but no library sees this call.
    match rustix::net::send(&client, b"cd!", SendFlags::OOB) {
        Err(error) => {
            assert_eq!(error, Errno::OPNOTSUPP);
            eprintln!("SKIP: the kernel has no urgent data of AF_UNIX sockets");
            return;
        }
        Ok(sent) => assert_eq!(sent, 3),
    }
    // Also while nothing follows.
    let mut received = [0; 5];
    server.read_exact(&mut received).expect("five bytes");
    assert_eq!(&received, b"abcd!");
    assert_eq!(rustix::net::send(&client, b"?", SendFlags::OOB), Ok(1));
    drop(client);
    let mut received = Vec::new();
    server.read_to_end(&mut received).expect("the end comes");
    assert_eq!(received, b"?");
    drop(server);
    // No remaining data keeps the node looking repeatedly.
    assert!(a.server.drain(Duration::from_secs(10)));
}

#[test]
fn a_reset_is_told_also_where_the_applications_end_is_out_of_reach() {
    // In a thread, because the node's own threads inherit its reduced rights.
    let node = thread::spawn(|| {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let mut sets = capabilities(None).expect("capabilities");
        sets.effective -= CapabilitySet::SYS_PTRACE;
        sets.permitted -= CapabilitySet::SYS_PTRACE;
        set_capabilities(None, sets).expect("fewer are allowed");
        let (a, b) = Served::pair();
        // No other child has it.
        let (listener, address) = b.listen(SocketFlags::CLOEXEC);
        let client = a.socket(SocketFlags::CLOEXEC);
        overlay(&client).connect(Some(address)).expect("somebody listens");
        let (server, _) = overlay(&listener).accept(SocketFlags::CLOEXEC).expect("a connection");
        let which = overlay(&client).which();
        // PR_SET_DUMPABLE: no process can inspect it.
        let script = "import ctypes, os; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print('ready', flush=True)
try: print(os.read(0, 10))
except ConnectionResetError: print('reset')
try: os.write(0, b'x'); os.write(0, b'x')
except BrokenPipeError: print('closed')";
        let test = "a_reset_is_told_also_where_the_applications_end_is_out_of_reach";
        let Some(mut python) = python(test, script) else { return };
        python.stdin(client).stdout(std::process::Stdio::piped());
        let mut child = python.spawn().expect("it is installed");
        // Its copy of the socket would keep it open.
        drop(python);
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        set_bytes(&server, libc::SOL_SOCKET, libc::SO_LINGER, &[1, 0, 0, 0, 0, 0, 0, 0]).expect("an option");
        drop(server);
        let mut rest = String::new();
        output.read_to_string(&mut rest).expect("text");
        child.wait().expect("it ends");
        assert_eq!(rest, "reset\nclosed\n");
        // Nothing of it is left at the node.
        let reply = a.client.ask(Request::Addresses(which)).expect("the node answers");
        assert!(matches!(reply, Reply::Addresses(local, None) if local.port() == 0), "{reply:?}");
    });
    node.join().expect("as it should be");
}
