//! Tests of windows that close and open again.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use peersock_stack::Config;
use peersock_stack_lab::kernel::Options;
use rustix::net::sockopt;

use crate::ends::{End, content, receive_all, send_all};
use crate::lab::{Lab, Pair};

/// Least time that a window stays closed, long enough for probes.
const CLOSED: Duration = Duration::from_millis(1500);

/// Returns options with small buffers at our end.
fn small() -> Options {
    let config = Config { send_buffer: 64 << 10, receive_buffer: 64 << 10, ..Config::default() };
    Options { config, ..Options::default() }
}

/// More data than all buffers between the programs hold.
const MUCH: usize = 8 << 20;

#[test]
fn we_wait_for_a_kernel_that_does_not_read() {
    let Some(lab) = Lab::new(&small()) else { return };
    lab.each(|Pair { kernel, ours, what }| {
        eprintln!("{what}");
        sockopt::set_socket_recv_buffer_size(&kernel, 30_000).expect("a socket");
        let data = content(1, MUCH);
        let mut sent = 0;
        // The window counts as closed after this long without progress.
        let mut blocked = Instant::now();
        while blocked.elapsed() < CLOSED {
            match ours.try_write(&data[sent..]) {
                Ok(len) => (sent, blocked) = (sent + len, Instant::now()),
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
            assert!(sent < data.len(), "a kernel that does not read cannot take all");
            thread::sleep(Duration::from_millis(5));
        }
        thread::scope(|scope| {
            scope.spawn(|| receive_all(&kernel, &data));
            send_all(&ours, &data[sent..], || 100_000);
            ours.shut().expect("the connection stands");
        });
    });
    lab.assert_no_complaints(&[]);
}

#[test]
fn the_kernel_waits_for_us_when_we_do_not_read() {
    let Some(lab) = Lab::new(&small()) else { return };
    lab.each(|Pair { kernel, ours, what }| {
        eprintln!("{what}");
        let data = content(2, MUCH);
        thread::scope(|scope| {
            scope.spawn(|| {
                send_all(&kernel, &data, || 100_000);
                kernel.shut().expect("the connection stands");
            });
            // The window counts as closed after this long without new data.
            let (mut seen, mut since) = (0, Instant::now());
            while seen == 0 || since.elapsed() < CLOSED {
                let readable = ours.flow().readable();
                if readable != seen {
                    (seen, since) = (readable, Instant::now());
                }
                thread::sleep(Duration::from_millis(5));
            }
            assert!(seen <= 64 << 10, "{seen} bytes in a buffer of 65,536");
            receive_all(&ours, &data);
        });
    });
    lab.assert_no_complaints(&[]);
}
