//! Tests of ends, resets and refusals.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use peersock_stack_lab::kernel::{Options, stack_address};

use crate::ends::{End, content, receive_all, send_all};
use crate::lab::{Lab, Pair};

/// Runs `case` with both ends of a pair, in either order.
fn both_ways(lab: &Lab, mut case: impl FnMut(Box<dyn End>, Box<dyn End>)) {
    for kernel_first in [true, false] {
        lab.each(|Pair { kernel, ours, what }| {
            let first = if kernel_first { "the kernel" } else { "the stack" };
            eprintln!("{what}; {first} acts");
            let (kernel, ours): (Box<dyn End>, Box<dyn End>) = (Box::new(kernel), Box::new(ours));
            if kernel_first { case(kernel, ours) } else { case(ours, kernel) }
        });
    }
}

#[test]
fn who_has_sent_the_end_still_receives() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    let (question, answer) = (content(1, 100), content(2, 200_000));
    both_ways(&lab, |asks, answers| {
        send_all(&*asks, &question, || usize::MAX);
        asks.shut().expect("the connection stands");
        receive_all(&*answers, &question);
        thread::scope(|scope| {
            scope.spawn(|| receive_all(&*asks, &answer));
            send_all(&*answers, &answer, || 30_000);
            answers.shut().expect("the connection stands");
        });
    });
    lab.assert_no_complaints(&[]);
}

#[test]
fn both_may_end_at_the_same_time() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    both_ways(&lab, |one, other| {
        one.shut().expect("the connection stands");
        // The first end may have arrived already, which is no error.
        other.shut().expect("the connection stands");
        receive_all(&*one, &[]);
        receive_all(&*other, &[]);
    });
    lab.assert_no_complaints(&[]);
}

#[test]
fn a_reset_is_an_error_at_the_other_end() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    both_ways(&lab, |resets, other| {
        resets.reset();
        let read = other.receive(&mut [0; 10]);
        assert_eq!(read.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
        // Further calls behave as after a normal end.
        assert_eq!(other.receive(&mut [0; 10]).map_err(|e| e.kind()), Ok(0));
        assert_eq!(other.send(&[1]).map_err(|e| e.kind()), Err(ErrorKind::BrokenPipe));
    });
    // The kernel counts the resets that it sends.
    lab.assert_no_complaints(&["TCPAbortOnData", "TCPAbortOnClose"]);
    assert!(lab.namespace.counter("TcpExt", "TCPAbortOnData").expect("a counter of Linux") > 0);
}

#[test]
fn closing_with_unread_data_resets() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    both_ways(&lab, |closes, other| {
        send_all(&*other, &content(1, 1000), || usize::MAX);
        // One byte read proves that the data has arrived.
        assert_eq!(closes.receive(&mut [0; 1]).map_err(|e| e.kind()), Ok(1));
        drop(closes);
        let read = other.receive(&mut [0; 10]);
        assert_eq!(read.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
    });
    lab.assert_no_complaints(&["TCPAbortOnClose", "TCPAbortOnData"]);
}

#[test]
fn a_reset_in_the_middle_of_much_data_reaches_the_other_end() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    let data = content(1, 1 << 20);
    both_ways(&lab, |resets, other| {
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut left = &data[..];
                while !left.is_empty()
                    && let Ok(len) = other.send(left)
                {
                    left = &left[len..];
                }
                let read = other.receive(&mut [0; 10]);
                assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
            });
            let mut buf = vec![0; 10_000];
            assert!(resets.receive(&mut buf).expect("the connection stands") > 0);
            resets.reset();
        });
    });
    lab.assert_no_complaints(&["TCPAbortOnData", "TCPAbortOnClose"]);
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    for ipv6 in [false, true] {
        let nobody = SocketAddr::new(stack_address(ipv6), 9);
        let refused = lab.connect(nobody).map(drop).map_err(|e| e.kind());
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
        let gone = lab.listen(ipv6).local_addr().expect("bound");
        let began = Instant::now();
        let refused = lab.node.connect(gone).map(drop).map_err(|e| e.kind());
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
        assert!(began.elapsed() < Duration::from_secs(30), "it gave up, and was not refused");
    }
    lab.assert_no_complaints(&[]);
}

#[test]
fn a_hundred_connections_leave_nothing_behind() {
    let Some(lab) = Lab::new(&Options::default()) else { return };
    for _ in 0..25 {
        lab.each(|Pair { kernel, ours, .. }| {
            send_all(&ours, b"ping", || usize::MAX);
            ours.shut().expect("the connection stands");
            receive_all(&kernel, b"ping");
            drop(kernel);
            receive_all(&ours, b"");
        });
    }
    lab.assert_no_complaints(&[]);
    assert_eq!(lab.namespace.counter("Tcp", "CurrEstab").expect("a counter of Linux"), 0);
}
