//! Disclosure of the receiver's folder to a sender: as little as possible.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use peersock_files::{Entry, FromReceiver, FromSender, Options, Receipt, ReceiveError, receive};

use crate::common::{Scene, Silent};
use crate::hostile::{GREETING, content_frame, file, manifest};

const SECRET: &[u8] = b"pin 1234";
const PART: &[u8] = b"what another sender has sent";

/// Returns a scene whose target has a file, and a part of a file from another sender.
fn scene() -> Scene {
    let scene = Scene::new();
    fs::write(scene.to("secret"), SECRET).unwrap();
    fs::write(scene.to(".half.peersock-part"), PART).unwrap();
    scene
}

/// Runs a receiver against a sender with these entries that continues with these frames. Returns the
/// receiver's result and all bytes it sent.
fn told(
    scene: &Scene,
    entries: &[Entry],
    rest: &[Vec<u8>],
    overwrite: bool,
) -> (Result<Receipt, ReceiveError>, Vec<u8>) {
    let (mut here, there) = UnixStream::pair().unwrap();
    let bytes = [GREETING.to_vec(), manifest(entries).concat(), rest.concat()].concat();
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            here.write_all(&bytes).unwrap();
            here.shutdown(Shutdown::Write).unwrap();
            let mut told = Vec::new();
            let _ = here.read_to_end(&mut told);
            told
        });
        let options = Options { overwrite, ..Options::default() };
        let received = receive(&there, &scene.folder(), options, &Silent);
        drop(there);
        (received, sender.join().unwrap())
    })
}

fn has(told: &[u8], part: &[u8]) -> bool {
    told.windows(part.len()).any(|bytes| bytes == part)
}

/// A hash of a file with few possible contents reveals which one it is.
#[track_caller]
fn check_no_hash(told: &[u8]) {
    for content in [SECRET, PART] {
        for length in 0..=content.len() {
            // Half of a hash would be enough.
            let hash = blake3::hash(&content[..length]);
            assert!(!has(told, &hash.as_bytes()[..16]), "the hash of {length} bytes is told: {told:02x?}");
        }
    }
}

fn entries() -> [Entry; 2] {
    [file("half", 100), file("secret", SECRET.len() as u64)]
}

#[test]
fn a_sender_is_not_told_the_hashes_of_what_is_there() {
    let scene = scene();
    for (entries, overwrite) in
        [(&entries()[..], false), (&entries()[..], true), (&entries()[..1], false), (&entries()[1..], true)]
    {
        let (received, told) = told(&scene, entries, &[], overwrite);
        assert!(received.unwrap_err().is_worth_another_try(), "the sender has gone");
        check_no_hash(&told);
    }
    assert_eq!(fs::read(scene.to("secret")).unwrap(), SECRET);
}

#[test]
fn a_sender_is_not_told_what_is_in_its_way() {
    let scene = scene();
    let (received, told) = told(&scene, &[file("secret", 1)], &[], false);
    let Err(ReceiveError::Conflicts { named, more: 0 }) = received else { panic!("{received:?}") };
    assert_eq!(named, ["secret"], "who receives is told");
    assert!(!has(&told, b"secret"), "{}", told.escape_ascii());
    check_no_hash(&told);
}

fn hash(content: &[u8]) -> Vec<u8> {
    FromSender::Hash(Some(*blake3::hash(content).as_bytes())).to_frame()
}

fn said(messages: &[FromReceiver]) -> Vec<u8> {
    [GREETING.to_vec(), messages.iter().flat_map(FromReceiver::to_frame).collect()].concat()
}

/// Checks the bytes of a whole conversation.
#[test]
fn a_sender_that_guesses_is_told_what_is_wanted_and_nothing_else() {
    let compares = [
        FromReceiver::Compare { index: 0, length: PART.len() as u64 },
        FromReceiver::Compare { index: 1, length: SECRET.len() as u64 },
        FromReceiver::Compared,
    ];
    let [wrong, none] = [hash(b"a guess"), FromSender::Hash(None).to_frame()];
    let part = PART.len() as u64;
    let want = |index, offset| FromReceiver::Want { index, offset };
    let in_the_way = || vec![FromReceiver::Failed { reason: "other files are in the way".into() }];
    for (answers, overwrite, rest) in [
        ([&wrong, &wrong], false, in_the_way()),
        ([&none, &none], false, in_the_way()),
        ([&wrong, &wrong], true, vec![want(0, 0), want(1, 0), FromReceiver::Wanted]),
        ([&hash(PART), &none], true, vec![want(0, part), want(1, 0), FromReceiver::Wanted]),
        ([&hash(PART), &hash(SECRET)], false, vec![want(0, part), FromReceiver::Wanted]),
        // The hash of one file reveals nothing about another.
        ([&hash(SECRET), &hash(PART)], false, in_the_way()),
    ] {
        let scene = scene();
        let answers = answers.map(Vec::clone);
        let (_, told) = told(&scene, &entries(), &answers, overwrite);
        let expected = said(&[compares.to_vec(), rest].concat());
        assert_eq!(told.escape_ascii().to_string(), expected.escape_ascii().to_string());
        check_no_hash(&told);
        assert_eq!(fs::read(scene.to("secret")).unwrap(), SECRET);
    }
}

/// A sender that knows the beginning of a file has not sent all of it.
#[test]
fn what_is_gone_on_with_is_verified_as_a_whole() {
    let whole = [PART, &[7; 72]].concat();
    let offset = PART.len() as u64;
    let begin = |offset| FromSender::Begin { index: 0, offset }.to_frame();
    let end = |content: &[u8]| FromSender::End { hash: *blake3::hash(content).as_bytes() }.to_frame();
    let rest = [content_frame(&[7; 72]), FromSender::Complete.to_frame()];
    let frames = |offset, end| [hash(PART), begin(offset), rest[0].clone(), end, rest[1].clone()];
    for (frames, why) in [
        (frames(offset, end(&[7; 72])), Some("its hash is wrong")),
        (frames(offset, end(b"")), Some("its hash is wrong")),
        (frames(0, end(&whole)), Some("not from there on")),
        (frames(offset, end(&whole)), None),
    ] {
        let scene = scene();
        let (received, _) = told(&scene, &[file("half", 100)], &frames, false);
        match why {
            Some(why) => assert!(received.unwrap_err().to_string().contains(why), "{why}"),
            None => assert_eq!(received.unwrap().bytes, 72),
        }
        assert_eq!(fs::read(scene.to("half")).ok(), why.is_none().then(|| whole.clone()));
    }
}
