//! Receipts that break off and resume, and files that change meanwhile.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use peersock_files::{Observer, Options, ReceiveError, SendError, Sent};

use crate::common::{Breaking, Noting, Scene, Silent, content};

#[test]
fn a_receipt_goes_on_where_it_broke_off_wherever_that_is() {
    let scene = Scene::new();
    scene.write("tree/a", &content(700_000, 1));
    scene.write("tree/b/c", &content(1_300_000, 2));
    scene.write("tree/d", b"the end");
    let source = scene.source(&["tree"]);
    let total = 2_000_007;
    let mut written = 0;
    // Primes, so that every part of the protocol is interrupted eventually.
    for bytes in [3, 8, 11, 97, 149, 211, 401, 70_001, 300_007, 500_009, 600_011] {
        let (here, there) = UnixStream::pair().unwrap();
        let noting = Noting::new(|| {});
        let there = Breaking::after(there, bytes);
        let (sent, received) = scene.transfer_over(&source, Options::default(), &noting, here, there);
        let error = received.unwrap_err();
        assert!(error.is_worth_another_try(), "{error}");
        assert!(sent.is_err(), "nobody has confirmed anything");
        assert!(!scene.to("tree/d").exists());
        written += noting.bytes();
    }
    assert!(written > 1_000_000, "{written}");
    let (here, there) = UnixStream::pair().unwrap();
    let noting = Noting::new(|| {});
    let (sent, received) = scene.transfer_over(&source, Options::default(), &noting, here, there);
    received.unwrap();
    assert!(matches!(sent, Ok(Sent::Received { .. })));
    // No byte was transferred twice.
    assert_eq!(written + noting.bytes(), total);
    scene.check_same();
}

#[test]
fn a_part_of_another_file_is_not_gone_on_with() {
    let scene = Scene::new();
    scene.write("file", &content(400_000, 1));
    let (part, other) = (scene.to(".file.peersock-part"), content(300_000, 2));
    for there in [&other[..], &content(400_000, 1)[1..], &content(500_000, 1), b"", b"x"] {
        fs::write(&part, there).unwrap();
        assert_eq!(scene.transfer(&scene.source(&["file"]), Options::default()).1.unwrap().files, 1);
        scene.check_same();
        fs::remove_file(scene.to("file")).unwrap();
    }
    // A part that is the beginning of the file is resumed.
    for length in [1, 399_999, 400_000] {
        fs::write(&part, &content(400_000, 1)[..length]).unwrap();
        let received = scene.received(&["file"]);
        assert_eq!(received.bytes, 400_000 - length as u64);
        scene.check_same();
        fs::remove_file(scene.to("file")).unwrap();
    }
}

#[test]
fn a_file_that_is_being_replaced_is_gone_on_with() {
    let scene = Scene::new();
    scene.write("file", &content(400_000, 1));
    let overwrite = Options { overwrite: true, ..Options::default() };
    // The existing file has the same length as the new one, or not.
    for length in [400_000, 10] {
        fs::write(scene.to("file"), content(length, 2)).unwrap();
        fs::write(scene.to(".file.peersock-part"), &content(400_000, 1)[..300_000]).unwrap();
        let (sent, received) = scene.transfer(&scene.source(&["file"]), overwrite);
        assert_eq!(sent.unwrap(), Sent::Received { bytes: 100_000, files: 1 });
        assert_eq!(received.unwrap().bytes, 100_000);
        scene.check_same();
    }
}

/// A change of the file after its manifest has arrived.
type Change = fn(&Scene);

#[test]
fn a_file_that_changes_while_it_is_sent_is_an_error_at_both_ends() {
    let scene = Scene::new();
    let changes: [(&str, Change); 4] = [
        ("longer", |scene| {
            let mut file = fs::OpenOptions::new().append(true).open(scene.from("file")).unwrap();
            file.write_all(b"more").unwrap();
        }),
        ("shorter", |scene| {
            fs::OpenOptions::new().write(true).open(scene.from("file")).unwrap().set_len(17).unwrap();
        }),
        ("other content", |scene| {
            fs::write(scene.from("file"), content(300_000, 9)).unwrap();
            let file = fs::File::open(scene.from("file")).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(7)).unwrap();
        }),
        ("gone", |scene| fs::remove_file(scene.from("file")).unwrap()),
    ];
    for (what, change) in changes {
        scene.write("file", &content(300_000, 1));
        let source = scene.source(&["file"]);
        let (here, there) = UnixStream::pair().unwrap();
        let noting = Noting::new(|| change(&scene));
        let (sent, received) = scene.transfer_over(&source, Options::default(), &noting, here, there);
        match sent {
            Err(SendError::Changed { path } | SendError::Local { path, .. }) => assert_eq!(path, "file"),
            other => panic!("{what}: {other:?}"),
        }
        let Err(ReceiveError::Sender { reason, again: false }) = received else {
            panic!("{what}: {received:?}")
        };
        assert!(reason.contains("file"), "{what}: {reason}");
        assert!(!scene.to("file").exists(), "{what}");
    }
}

/// An observer that appends to a file once its first bytes have arrived.
struct Appends<'a>(&'a Scene, AtomicBool);

impl Observer for Appends<'_> {
    fn moved(&self, _: u64) {
        if !self.1.swap(true, Ordering::Relaxed) {
            let mut file = fs::OpenOptions::new().append(true).open(self.0.from("file")).unwrap();
            file.write_all(b"more").unwrap();
        }
    }
}

#[test]
fn a_file_that_grows_in_the_middle_is_not_taken_for_complete() {
    let scene = Scene::new();
    scene.write("file", &content(20_000_000, 1));
    let source = scene.source(&["file"]);
    let (here, there) = UnixStream::pair().unwrap();
    let appends = Appends(&scene, AtomicBool::new(false));
    let (sent, received) = scene.transfer_over(&source, Options::default(), &appends, here, there);
    assert!(matches!(sent, Err(SendError::Changed { .. })), "{sent:?}");
    let text = received.unwrap_err().to_string();
    assert_eq!(text, "the sender has given up: file has changed while it was sent");
    assert!(!scene.to("file").exists());
}

#[test]
fn a_receiver_that_vanishes_fails_its_own_receipt_only() {
    let scene = Scene::new();
    scene.write("file", &content(5_000_000, 1));
    let source = scene.source(&["file"]);
    let (here, there) = UnixStream::pair().unwrap();
    let (sent, _) =
        scene.transfer_over(&source, Options::default(), &Silent, here, Breaking::after(there, 100_000));
    assert!(matches!(sent, Err(SendError::Wire(_))), "{sent:?}");
    scene.transfer(&source, Options::default()).0.unwrap();
    scene.check_same();
}
