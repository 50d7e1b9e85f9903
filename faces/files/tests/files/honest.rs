//! Receipts between honest ends, and conflicts.

use std::fs::{self, FileTimes};
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, SystemTime};

use peersock_files::{
    Offered, Options, Receipt, ReceiveError, ScanError, SendError, Sent, Source, greet, offered, receive,
    send,
};

use crate::common::{Scene, Silent, content, tree};

#[test]
fn a_folder_arrives_as_it_is() {
    let scene = Scene::new();
    scene.write("tree/a/large", &content(3_000_001, 1));
    scene.write("tree/a/none", b"");
    for name in ["ü and spaces", "-rf", "\"double\" and 'single'", "🚀"] {
        scene.write(&format!("tree/{name}"), b"name");
    }
    scene.write("tree/run.sh", b"#!/bin/sh\n");
    scene.write("tree/.ssh/key", b"secret");
    fs::create_dir(scene.from("tree/empty")).unwrap();
    let modes = [("run.sh", 0o755), (".ssh/key", 0o600), (".ssh", 0o700), ("empty", 0o700)];
    for (name, mode) in modes {
        let name = format!("tree/{name}");
        fs::set_permissions(scene.from(&name), fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("a/large", scene.from("tree/link")).unwrap();
    symlink("../run.sh", scene.from("tree/a/up")).unwrap();
    symlink("nowhere", scene.from("tree/a/dangling")).unwrap();
    let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890));
    for name in ["tree/run.sh", "tree/empty", "tree/a", "tree"] {
        fs::File::open(scene.from(name)).unwrap().set_times(old).unwrap();
    }
    let receipt = scene.received(&["tree"]);
    assert_eq!(receipt, Receipt { files: 8, bytes: 3_000_033, there: 0, left_out: 0 });
    scene.check_same();
    // The second receipt transfers nothing.
    assert_eq!(scene.received(&["tree"]), Receipt { there: 8, ..Receipt::default() });
    scene.check_same();
}

/// A folder of the receiver stays as private as it is. Where a private folder comes for the first time, no
/// other user can look into it while it is received.
#[test]
fn a_folder_that_is_there_keeps_its_permissions() {
    let scene = Scene::new();
    scene.write("documents/letter", b"text");
    fs::set_permissions(scene.from("documents"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(scene.to("documents")).unwrap();
    fs::set_permissions(scene.to("documents"), fs::Permissions::from_mode(0o700)).unwrap();
    scene.received(&["documents"]);
    assert_eq!(fs::metadata(scene.to("documents")).unwrap().permissions().mode() & 0o777, 0o700);
}

/// The group of a shared folder is inherited, and a folder that is read-only at the sender takes what comes
/// later.
#[test]
fn a_new_folder_keeps_what_the_receiver_needs() {
    let scene = Scene::new();
    scene.write("read-only/one", b"1");
    fs::set_permissions(scene.from("read-only"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(scene.to(""), fs::Permissions::from_mode(0o2775)).unwrap();
    scene.received(&["read-only"]);
    let mode = fs::metadata(scene.to("read-only")).unwrap().permissions().mode();
    assert_eq!(mode & 0o2700, 0o2700, "{mode:o}");
}

#[test]
fn many_small_files_do_not_wait_for_answers() {
    let scene = Scene::new();
    for number in 0..2000 {
        scene.write(&format!("many/{number}"), &content(number % 50, 2));
    }
    assert_eq!(scene.received(&["many"]).files, 2000);
    scene.check_same();
    assert_eq!(scene.received(&["many"]).there, 2000);
}

#[test]
fn several_files_are_sent_under_their_names() {
    let scene = Scene::new();
    scene.write("deep/er/one", b"1");
    scene.write("two", b"22");
    symlink(scene.from("two"), scene.from("three")).unwrap();
    scene.received(&["deep/er/one", "three"]);
    assert_eq!(fs::read(scene.to("one")).unwrap(), b"1");
    assert_eq!(fs::read(scene.to("three")).unwrap(), b"22", "what is named itself is followed");
    assert!(fs::symlink_metadata(scene.to("three")).unwrap().is_file());
    let error = Source::scan(&[scene.from("two"), scene.from("deep/../two")]).unwrap_err();
    assert!(matches!(error, ScanError::SameName { name } if name == "two"));
    let error = Source::scan(&[scene.from("nothing")]).unwrap_err();
    assert!(matches!(error, ScanError::Local { .. }));
}

#[test]
fn what_cannot_be_sent_is_left_out_and_said_to_be() {
    let scene = Scene::new();
    scene.write("tree/file", b"x");
    scene.write("tree/back\\slash", b"x");
    scene.write("tree/.y.peersock-part", b"x");
    scene.write("tree/line\nbreak", b"x");
    scene.write("tree/\u{202e}gnp.exe", b"x");
    symlink("/etc/passwd", scene.from("tree/absolute")).unwrap();
    symlink("../../out", scene.from("tree/out")).unwrap();
    symlink("../other", scene.from("tree/beside")).unwrap();
    symlink("inner/../../x", scene.from("tree/winding")).unwrap();
    let _socket = UnixListener::bind(scene.from("tree/socket")).unwrap();
    let source = scene.source(&["tree"]);
    let paths: Vec<_> = source.left_out().iter().map(|left_out| left_out.path.as_str()).collect();
    let expected = [
        "tree/.y.peersock-part",
        "tree/absolute",
        "tree/back\\\\slash",
        "tree/beside",
        "tree/line\\nbreak",
        "tree/out",
        "tree/socket",
        "tree/winding",
        "tree/\\xe2\\x80\\xaegnp.exe",
    ];
    assert_eq!(paths, expected);
    let receipt = scene.received(&["tree"]);
    assert_eq!((receipt.files, receipt.left_out), (1, 9));
    assert_eq!(fs::read_dir(scene.to("tree")).unwrap().count(), 1);
}

#[test]
fn what_is_there_already_is_not_overwritten_unless_that_is_to_be() {
    let scene = Scene::new();
    scene.write("tree/a", b"theirs");
    scene.write("tree/b", b"longer than mine");
    scene.write("tree/same", b"same");
    symlink("a", scene.from("tree/link")).unwrap();
    fs::create_dir(scene.to("tree")).unwrap();
    for (name, content) in [("a", "mine!!"), ("b", "mine"), ("same", "same"), ("link", "mine")] {
        fs::write(scene.to(&format!("tree/{name}")), content).unwrap();
    }
    let source = scene.source(&["tree"]);
    let (sent, received) = scene.transfer(&source, Options::default());
    let Err(ReceiveError::Conflicts { mut named, more: 0 }) = received else { panic!("{received:?}") };
    named.sort();
    assert_eq!(named, ["tree/a", "tree/b", "tree/link"]);
    let Err(SendError::Receiver { reason }) = sent else { panic!("{sent:?}") };
    assert_eq!(reason, "other files are in the way", "no names are told");
    assert_eq!(fs::read(scene.to("tree/a")).unwrap(), b"mine!!");
    assert_eq!(fs::read(scene.to("tree/link")).unwrap(), b"mine");

    let overwrite = Options { overwrite: true, ..Options::default() };
    let (sent, received) = scene.transfer(&source, overwrite);
    assert_eq!(sent.unwrap(), Sent::Received { bytes: 22, files: 2 });
    assert_eq!(received.unwrap().there, 1);
    assert_eq!(fs::read(scene.to("tree/b")).unwrap(), b"longer than mine");
    assert_eq!(fs::read_link(scene.to("tree/link")).unwrap().as_os_str(), "a");

    // A file never replaces a folder, nor a folder a file.
    fs::remove_file(scene.to("tree/a")).unwrap();
    fs::create_dir(scene.to("tree/a")).unwrap();
    let (_, received) = scene.transfer(&source, overwrite);
    assert!(matches!(received, Err(ReceiveError::Conflicts { .. })), "{received:?}");
}

#[test]
fn a_copy_in_the_place_of_a_folder_is_another_source() {
    let scene = Scene::new();
    scene.write("tree/inner/file", b"content");
    let (before, before_again) = (scene.source(&["tree"]), scene.source(&["tree"]));
    assert!(before.is_same(&before_again));
    // Sets the same times, as `cp -a` does.
    let times = |name: &str| FileTimes::new().set_modified(modified(&scene, name));
    let names = ["tree/inner/file", "tree/inner", "tree"];
    let times = names.map(times);
    fs::rename(scene.from("tree"), scene.from("former")).unwrap();
    scene.write("tree/inner/file", b"content");
    for (name, times) in names.into_iter().zip(times) {
        fs::File::open(scene.from(name)).unwrap().set_times(times).unwrap();
    }
    fs::remove_dir_all(scene.from("former")).unwrap();
    let now = scene.source(&["tree"]);
    assert_eq!(before.manifest(), now.manifest());
    assert!(!before.is_same(&now) && !now.is_same(&before));
    let (sent, _) = scene.transfer(&before, Options::default());
    assert!(matches!(sent, Err(SendError::Local { .. })), "what is gone cannot be sent: {sent:?}");
    scene.transfer(&now, Options::default()).1.unwrap();
    scene.check_same();
}

fn modified(scene: &Scene, name: &str) -> SystemTime {
    fs::metadata(scene.from(name)).unwrap().modified().unwrap()
}

#[test]
fn a_list_transfers_nothing() {
    let scene = Scene::new();
    scene.write("file", b"content");
    let options = Options { list_only: true, ..Options::default() };
    let (sent, received) = scene.transfer(&scene.source(&["file"]), options);
    assert_eq!((sent.unwrap(), received.unwrap()), (Sent::Listed, Receipt::default()));
    assert_eq!(fs::read_dir(scene.to("")).unwrap().count(), 0);
}

#[test]
fn several_receivers_get_everything_at_once() {
    let scene = Scene::new();
    scene.write("file", &content(2_000_000, 3));
    let source = scene.source(&["file"]);
    thread::scope(|scope| {
        for number in 0..4 {
            let (scene, source) = (&scene, &source);
            scope.spawn(move || {
                let to = scene.to(&number.to_string());
                fs::create_dir(&to).unwrap();
                let folder = peersock_files::Folder::open(&to).unwrap();
                let (here, there) = UnixStream::pair().unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| send(&here, source, &Silent).unwrap());
                    receive(&there, &folder, Options::default(), &Silent).unwrap();
                });
                assert_eq!(fs::read(to.join("file")).unwrap(), content(2_000_000, 3));
            });
        }
    });
}

#[test]
fn a_receiver_may_look_first_and_put_the_sender_off_or_decline() {
    let scene = Scene::new();
    scene.write("file", b"content");
    let source = scene.source(&["file"]);
    let ask = |answer: &(dyn Fn(Offered<'_, UnixStream>) + Sync)| {
        let (here, there) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let sent = send(&there, &source, &Silent);
                there.shutdown(Shutdown::Both).unwrap();
                sent
            });
            let mut offered = offered(&here).unwrap();
            assert_eq!(offered.manifest(), source.manifest());
            assert!(!offered.has_ended(), "the sender waits");
            answer(offered);
            sending.join().unwrap()
        })
    };
    assert!(matches!(ask(&|offered| offered.put_off()), Err(SendError::Busy)));
    let declined = ask(&|offered| offered.decline("not\nnow")).unwrap_err();
    assert_eq!(declined.to_string(), "the receiver has given up: not\u{fffd}now");
    assert!(tree(&scene.to("")).is_empty());
    let received = ask(&|offered| {
        offered.receive(&scene.folder(), Options::default(), &Silent).unwrap();
    });
    assert_eq!(received.unwrap(), Sent::Received { bytes: 7, files: 1 });
    // A sender that has gone away is noticed without reading more.
    let (here, there) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(|| greet(&there).unwrap().send(&source, &Silent));
        let mut offered = offered(&here).unwrap();
        there.shutdown(Shutdown::Both).unwrap();
        assert!(offered.has_ended());
        assert!(sending.join().unwrap().is_err());
    });
}
