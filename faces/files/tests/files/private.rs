//! What a receiver tells a sender of what is in its folder: as little as it can.

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

/// A folder with a file, and with a part of a file that another sender has sent.
fn scene() -> Scene {
    let scene = Scene::new();
    fs::write(scene.to("secret"), SECRET).unwrap();
    fs::write(scene.to(".half.peersock-part"), PART).unwrap();
    scene
}

/// What a receiver makes of a sender with these entries that goes on with these frames; and all that it has
/// said to it.
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

/// Whoever has the hash of a file with few possible contents finds out which one it is.
#[track_caller]
fn check_no_hash(told: &[u8]) {
    for content in [SECRET, PART] {
        for length in 0..=content.len() {
            // Half of it would do as well.
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

/// All that is said in a conversation to its end, byte by byte.
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
        // The hash of a file is nothing that is known of another one.
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

/// Whoever knows how a file begins has not sent all of it.
#[test]
fn what_is_gone_on_with_is_verified_as_a_whole() {
    let whole = [PART, &[7; 72]].concat();
    let offset = PART.len() as u64;
    let begin = |offset| FromSender::Begin { index: 0, offset }.to_frame();
    let end = |content: &[u8]| FromSender::End { hash: *blake3::hash(content).as_bytes() }.to_frame();
    let rest = [content_frame(&[7; 72]), FromSender::Complete.to_frame()];
    let frames = |offset, end| [hash(PART), begin(offset), rest[0].clone(), end, rest[1].clone()];
    for (frames, why) in [
        (frames(offset, end(&[7; 72])), Some("its hash is another one")),
        (frames(offset, end(b"")), Some("its hash is another one")),
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
