//! Ends that violate the protocol, written by hand.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use peersock_files::{
    Entry, EntryPath, FromReceiver, FromSender, Kind, LinkTarget, Observer, Options, Permissions, Receipt,
    ReceiveError, SendError, Time, WireError, limits, receive, send,
};

use crate::common::{Noting, Scene, Silent, content, tree};

pub(crate) const GREETING: &[u8] = b"psfiles\x03";
const TIME: Time = Time { seconds: 0, nanoseconds: 0 };

/// Returns the receiver's result for a sender that sends these frames and ends.
fn received(scene: &Scene, frames: &[Vec<u8>]) -> Result<Receipt, ReceiveError> {
    let (mut here, there) = UnixStream::pair().unwrap();
    let bytes = [&[GREETING.to_vec()], frames].concat().concat();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = here.write_all(&bytes);
            let _ = here.shutdown(std::net::Shutdown::Write);
            let _ = here.read_to_end(&mut Vec::new());
        });
        let options = Options { overwrite: true, ..Options::default() };
        let received = receive(&there, &scene.folder(), options, &Silent);
        drop(there);
        received
    })
}

pub(crate) fn manifest(entries: &[Entry]) -> Vec<Vec<u8>> {
    let first = FromSender::Manifest { entries: entries.len() as u32, left_out: 0 };
    let rest = entries.iter().map(|entry| FromSender::Entry(entry.clone()).to_frame());
    [first.to_frame()].into_iter().chain(rest).collect()
}

fn entry(path: &str, kind: Kind) -> Entry {
    let permissions = Permissions::of_mode(0o755);
    Entry { path: EntryPath::parse(path).unwrap(), kind, permissions, time: TIME }
}

pub(crate) fn file(path: &str, size: u64) -> Entry {
    entry(path, Kind::File { size })
}

fn link(path: &str, target: &str) -> Entry {
    entry(path, Kind::Link { target: LinkTarget::parse(target).unwrap() })
}

/// Returns an entry's frame with an unchecked path, by replacing bytes of a valid path of the same length.
fn forged(path: &str) -> Vec<u8> {
    let honest = "x".repeat(path.len());
    let mut frame = FromSender::Entry(file(&honest, 1)).to_frame();
    let at = frame.windows(honest.len()).position(|bytes| bytes == honest.as_bytes()).unwrap();
    frame[at..at + path.len()].copy_from_slice(path.as_bytes());
    frame
}

pub(crate) fn content_frame(content: &[u8]) -> Vec<u8> {
    let mut frame = (1 << 24 | content.len() as u32).to_be_bytes().to_vec();
    frame.extend(content);
    frame
}

#[track_caller]
fn refuses(scene: &Scene, frames: &[Vec<u8>], why: &str) {
    let error = received(scene, frames).unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
    assert!(!error.is_worth_another_try(), "{error}");
}

#[test]
fn paths_that_lead_out_of_the_folder_are_refused() {
    let scene = Scene::new();
    let deceptive = ["~\u{1b}[2J", "\u{202e}gnp.exe", "a\u{2066}b", "a\u{200f}b", "a\u{61c}b", "a\u{2028}b"];
    let unseen = ["a\u{200b}", "\u{feff}a", "a\u{2060}b", "a\u{e0041}\u{e007f}"];
    let outside = ["../x", "..", "/etc/x", "a/../../x", "./x", "a//x", "x\0y", "a\\..\\x", "x/"];
    for path in outside.into_iter().chain(deceptive).chain(unseen) {
        let first = FromSender::Manifest { entries: 1, left_out: 0 }.to_frame();
        refuses(&scene, &[first, forged(path)], "an invalid message");
    }
    assert_eq!(tree(scene.dir.path()).len(), 2, "nothing but the two folders");
}

#[test]
fn manifests_that_do_not_fit_together_are_refused() {
    let scene = Scene::new();
    let folder = |path| entry(path, Kind::Folder);
    for (entries, why) in [
        (vec![file("a/b", 1)], "in no folder"),
        (vec![file("a", 1), file("a/b", 1)], "in no folder"),
        (vec![folder("a"), link("a/b", "c"), file("a/b/c", 1)], "in no folder"),
        (vec![folder("a"), folder("b"), file("a/x", 1)], "not in order"),
        (vec![file("a", 1), file("a", 1)], "not in order"),
        (vec![link("a", "b")], "leads out"),
        (vec![folder("a"), link("a/b", "../c")], "leads out"),
        (vec![folder("a"), folder("a/b"), link("a/b/c", "../../..")], "leads out"),
        (vec![file("a", u64::MAX)], "too large"),
        (vec![file("a", i64::MAX as u64), file("b", 1)], "too large"),
        (vec![Entry { time: Time { seconds: 0, nanoseconds: u32::MAX }, ..file("a", 1) }], "a time"),
    ] {
        refuses(&scene, &manifest(&entries), why);
    }
    let many = FromSender::Manifest { entries: limits::ENTRIES + 1, left_out: 0 };
    refuses(&scene, &[many.to_frame()], "too many entries");
    let short = [FromSender::Manifest { entries: 2, left_out: 0 }, FromSender::Complete];
    refuses(&scene, &short.map(|message| message.to_frame()), "shorter than it says");
    // This frame is too long for any message.
    refuses(&scene, &[vec![0, 0xff, 0xff, 0xff]], "too long");
    refuses(&scene, &[vec![9, 0, 0, 1, 0]], "unknown kind");
    assert_eq!(tree(scene.dir.path()).len(), 2, "nothing but the two folders");
}

#[test]
fn more_than_the_disk_has_room_for_is_not_begun() {
    let scene = Scene::new();
    let result = received(&scene, &manifest(&[file("a", i64::MAX as u64)].map(|_| file("a", 1 << 60))));
    let Err(ReceiveError::Room { needed, free }) = result else { panic!("{result:?}") };
    assert!(needed == 1 << 60 && free < needed);
    assert_eq!(tree(scene.dir.path()).len(), 2, "nothing but the two folders");
}

#[test]
fn files_that_are_not_as_announced_are_refused() {
    let scene = Scene::new();
    let begin = FromSender::Begin { index: 0, offset: 0 }.to_frame();
    let end = |content: &[u8]| FromSender::End { hash: *blake3::hash(content).as_bytes() }.to_frame();
    let complete = FromSender::Complete.to_frame();
    for (rest, why) in [
        (vec![begin.clone(), content_frame(b"123456")], "longer than it was announced"),
        (vec![begin.clone(), content_frame(b"12345"), content_frame(b"6")], "longer than it was announced"),
        (vec![begin.clone(), content_frame(b"1234"), end(b"1234")], "shorter than it was announced"),
        (vec![begin.clone(), content_frame(b"12345"), end(b"12346")], "its hash is wrong"),
        (vec![FromSender::Begin { index: 1, offset: 0 }.to_frame()], "not wanted"),
        (vec![FromSender::Begin { index: 0, offset: 3 }.to_frame()], "not wanted"),
        (vec![complete.clone()], "in place of a file"),
        (vec![content_frame(b"12345")], "content where a message belongs"),
        (vec![begin.clone(), begin.clone()], "in the middle of a file"),
        (vec![begin.clone(), vec![1, 0, 0, 0]], "an invalid message"),
        (vec![begin.clone(), content_frame(b"12345"), end(b"12345"), begin.clone()], "in place of the end"),
    ] {
        refuses(&scene, &[manifest(&[file("a", 5)]), rest].concat(), why);
        let is_verified = why == "in place of the end";
        assert_eq!(scene.to("a").exists(), is_verified, "{why}");
        let _ = fs::remove_file(scene.to("a"));
        // Removes the part, because the receiver would compare it first.
        let _ = fs::remove_file(scene.to(".a.peersock-part"));
    }
    let all = [begin, content_frame(b"12345"), end(b"12345"), complete];
    received(&scene, &[manifest(&[file("a", 5)]), all.to_vec()].concat()).unwrap();
    assert_eq!(fs::read(scene.to("a")).unwrap(), b"12345");
}

#[test]
fn reasons_of_the_other_end_cannot_draw_on_a_terminal() {
    let scene = Scene::new();
    let failed = FromSender::Failed { reason: "\u{1b}]0;title\u{7}".into(), again: false };
    let error = received(&scene, &[failed.to_frame()]).unwrap_err().to_string();
    assert!(!error.contains(|c: char| c.is_control()), "{error:?}");
}

#[test]
fn links_that_are_in_the_way_are_not_followed() {
    let scene = Scene::new();
    fs::create_dir(scene.dir.path().join("outside")).unwrap();
    fs::write(scene.dir.path().join("outside/file"), "mine").unwrap();
    symlink("../outside", scene.to("folder")).unwrap();
    scene.write("folder/file", b"theirs");
    // A link in place of a folder stays, even with `overwrite`.
    let overwrite = Options { overwrite: true, ..Options::default() };
    let (_, received) = scene.transfer(&scene.source(&["folder"]), overwrite);
    assert!(matches!(received, Err(ReceiveError::Conflicts { .. })), "{received:?}");
    // A link in place of a file is itself replaced.
    symlink("../outside/file", scene.to("file")).unwrap();
    let (sent, received) = scene.transfer(&scene.source(&["folder/file"]), overwrite);
    assert!(sent.is_ok() && received.is_ok());
    assert_eq!(fs::read(scene.to("file")).unwrap(), b"theirs");
    assert_eq!(fs::read(scene.dir.path().join("outside/file")).unwrap(), b"mine");
}

/// The moment at which another program replaces a folder by a link.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// Just after nothing was found at the folder's path.
    BeforeTheFolder,
    /// After the folder has been found.
    BeforeTheFile,
    /// After part of its file has arrived.
    InTheFile,
}

struct Exchanges<'a>(&'a Scene, Moment);

impl Exchanges<'_> {
    fn exchange(&self) {
        if self.1 != Moment::BeforeTheFolder {
            fs::rename(self.0.to("folder"), self.0.to("aside")).unwrap();
        }
        symlink("../outside", self.0.to("folder")).unwrap();
    }
}

impl Observer for Exchanges<'_> {
    fn begins(&self, _: u64, _: u32) {
        if self.1 != Moment::InTheFile {
            self.exchange();
        }
    }

    fn moved(&self, _: u64) {
        if self.1 == Moment::InTheFile {
            self.exchange();
        }
    }
}

#[test]
fn a_folder_that_is_exchanged_for_a_link_leads_nowhere() {
    for moment in [Moment::BeforeTheFolder, Moment::BeforeTheFile, Moment::InTheFile] {
        let scene = Scene::new();
        fs::create_dir(scene.dir.path().join("outside")).unwrap();
        scene.write("folder/file", &content(100, 1));
        if moment != Moment::BeforeTheFolder {
            fs::create_dir(scene.to("folder")).unwrap();
        }
        let source = scene.source(&["folder"]);
        let (here, there) = UnixStream::pair().unwrap();
        let exchanges = Exchanges(&scene, moment);
        let (sent, received) = scene.transfer_over(&source, Options::default(), &exchanges, here, there);
        assert!(matches!(received, Err(ReceiveError::Local { .. })), "{moment:?}: {received:?}");
        assert!(matches!(sent, Err(SendError::Receiver { .. })), "{moment:?}: {sent:?}");
        assert_eq!(fs::read_dir(scene.dir.path().join("outside")).unwrap().count(), 0, "{moment:?}");
        // A started file stays in the folder where it was.
        let aside = fs::read(scene.to("aside/file")).ok();
        assert_eq!(aside, (moment == Moment::InTheFile).then(|| content(100, 1)), "{moment:?}");
    }
}

/// Returns the sender's error for a receiver that sends these bytes, and all bytes sent to the receiver.
fn sent(scene: &Scene, bytes: Vec<u8>) -> (SendError, Vec<u8>) {
    let source = scene.source(&["tree"]);
    let (here, mut there) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let _ = there.write_all(&bytes);
            let mut said = Vec::new();
            let _ = there.read_to_end(&mut said);
            said
        });
        let error = send(&here, &source, &Silent).unwrap_err();
        drop(here);
        (error, receiver.join().unwrap())
    })
}

#[test]
fn bad_requests_are_refused() {
    let scene = Scene::new();
    scene.write("tree/file", &content(3_000_000, 1));
    let compared = FromReceiver::Compared;
    let want = |index, offset| FromReceiver::Want { index, offset };
    let compare = |index, length| FromReceiver::Compare { index, length };
    for (messages, why) in [
        (vec![compared.clone(), want(0, 0)], "is none"),
        (vec![compared.clone(), want(7, 0)], "is none"),
        (vec![compared.clone(), want(u32::MAX, 0)], "is none"),
        (vec![compared.clone(), want(1, 3_000_001)], "behind its end"),
        (vec![compared.clone(), want(1, 0), want(1, 0)], "out of order"),
        (vec![compare(1, 3_000_000), compare(1, 3_000_000)], "out of order"),
        (vec![compare(1, 3_000_000), compare(1, 7)], "out of order"),
        (vec![compare(1, 7), compare(1, 8)], "out of order"),
        (vec![compare(1, 7), compared.clone(), compare(1, 8)], "wrong time"),
        (vec![compare(0, 0)], "is none"),
        (vec![compare(7, 0)], "is none"),
        (vec![compare(1, 3_000_001)], "compared behind its end"),
        (vec![compare(1, u64::MAX)], "compared behind its end"),
        (vec![FromReceiver::Wanted], "wrong time"),
        (vec![compared.clone(), FromReceiver::Received], "wrong time"),
        (vec![compared.clone(), want(1, 0), FromReceiver::Wanted, FromReceiver::Received], "not sent yet"),
        (vec![compared.clone(), want(1, 0), FromReceiver::Wanted, FromReceiver::Wanted], "wrong time"),
        (vec![FromReceiver::Failed { reason: "no more room".into() }], "no more room"),
    ] {
        let frames: Vec<_> = messages.iter().map(FromReceiver::to_frame).collect();
        let (error, _) = sent(&scene, [GREETING.to_vec(), frames.concat()].concat());
        assert!(error.to_string().contains(why), "{messages:?}: {error}");
    }
    for (bytes, why) in [
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), "does not speak"),
        (b"psfiles\x01".to_vec(), "version 1 of the protocol, and this one version 3"),
        (b"psfiles\x09".to_vec(), "version 9"),
        ([GREETING, &[0, 0xff, 0xff, 0xff]].concat(), "too long"),
        ([GREETING, &content_frame(b"x")].concat(), "content where"),
        ([GREETING, &[0, 0, 0, 1, 0xff]].concat(), "an invalid message"),
    ] {
        let (error, said) = sent(&scene, bytes);
        assert!(error.to_string().contains(why), "{error}");
        assert!(said.starts_with(GREETING));
    }
}

#[test]
fn files_are_hashed_as_far_as_is_asked() {
    let scene = Scene::new();
    scene.write("tree/a", &content(3_000_000, 1));
    scene.write("tree/b", b"b");
    scene.write("tree/c", b"");
    let lengths = [(1, 1_000_001), (2, 1), (3, 0)];
    let compares = lengths.map(|(index, length)| FromReceiver::Compare { index, length }.to_frame());
    let rest = [FromReceiver::Compared, FromReceiver::Failed { reason: "enough".into() }];
    let rest = rest.map(|message| message.to_frame());
    let (error, said) = sent(&scene, [GREETING.to_vec(), compares.concat(), rest.concat()].concat());
    assert!(error.to_string().contains("enough"), "{error}");
    let hash = |content: &[u8]| FromSender::Hash(Some(*blake3::hash(content).as_bytes())).to_frame();
    let hashes = [hash(&content(3_000_000, 1)[..1_000_001]), hash(b"b"), hash(b"")];
    assert!(said.ends_with(&hashes.concat()));
}

#[test]
fn who_does_not_greet_gets_nothing_but_a_greeting() {
    let scene = Scene::new();
    scene.write("tree/file", b"secret");
    let source = scene.source(&["tree"]);
    let (here, mut there) = UnixStream::pair().unwrap();
    there.shutdown(std::net::Shutdown::Write).unwrap();
    let error = send(&here, &source, &Silent).unwrap_err();
    assert!(matches!(error, SendError::Wire(WireError::Stream(_))), "{error}");
    drop(here);
    let mut said = Vec::new();
    there.read_to_end(&mut said).unwrap();
    assert_eq!(said, GREETING);
}

/// A receiver reads nothing. The sender waits, and reads no further than the connection's buffers allow.
#[test]
fn a_receiver_that_does_not_read_holds_up_its_own_receipt_only() {
    let scene = Scene::new();
    scene.write("tree/file", &content(20_000_000, 1));
    let source = scene.source(&["tree"]);
    let (here, mut there) = UnixStream::pair().unwrap();
    let messages = [FromReceiver::Compared, FromReceiver::Want { index: 1, offset: 0 }, FromReceiver::Wanted];
    there.write_all(GREETING).unwrap();
    for message in messages {
        there.write_all(&message.to_frame()).unwrap();
    }
    let noting = Noting::new(|| {});
    thread::scope(|scope| {
        let slow = scope.spawn(|| send(&here, &source, &noting));
        scene.transfer(&source, Options::default()).0.unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(!slow.is_finished());
        drop(there);
        slow.join().unwrap().unwrap_err();
    });
    // The buffers of a socket pair hold about 200 KiB.
    assert!(noting.bytes() < 5_000_000, "{}", noting.bytes());
}
