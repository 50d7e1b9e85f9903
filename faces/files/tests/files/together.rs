//! Receivers that share a folder, and the time when files get their names.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};
use std::thread;

use peersock_files::{FromSender, Observer, Options, ReceiveError, receive};

use crate::common::{Scene, content};
use crate::hostile::{GREETING, content_frame, file, manifest};

/// An observer that signals when a receiver has compared its folder, and when content arrives.
struct Tells(Sender<()>);

impl Observer for Tells {
    fn begins(&self, _: u64, _: u32) {
        let _ = self.0.send(());
    }

    fn moved(&self, _: u64) {
        let _ = self.0.send(());
    }
}

/// Returns a connection on which a file has been announced.
fn announced(content: &[u8]) -> (UnixStream, UnixStream) {
    let (mut here, there) = UnixStream::pair().unwrap();
    let manifest = manifest(&[file("file", content.len() as u64)]);
    here.write_all(&[GREETING.to_vec(), manifest.concat()].concat()).unwrap();
    (here, there)
}

fn send_half(stream: &mut UnixStream, content: &[u8]) {
    let begin = FromSender::Begin { index: 0, offset: 0 }.to_frame();
    stream.write_all(&[begin, content_frame(&content[..content.len() / 2])].concat()).unwrap();
}

fn send_rest(stream: &mut UnixStream, content: &[u8]) {
    let end = FromSender::End { hash: *blake3::hash(content).as_bytes() }.to_frame();
    let rest = [content_frame(&content[content.len() / 2..]), end, FromSender::Complete.to_frame()];
    stream.write_all(&rest.concat()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Two senders send files of the same name to the same empty folder. The second starts while the first is in
/// the middle, and would be in the middle itself when the first one ends.
#[test]
fn what_another_receiver_has_begun_gets_no_name() {
    let scene = Scene::new();
    let (mine, theirs) = (content(1000, 1), content(1000, 2));
    let ((mut first, there), (mut second, other_there)) = (announced(&mine), announced(&theirs));
    let (told, tells) = mpsc::channel();
    let (one, two) = thread::scope(|scope| {
        let (scene, observer) = (&scene, Tells(told.clone()));
        let one = scope.spawn(move || receive(&there, &scene.folder(), Options::default(), &observer));
        let observer = Tells(told.clone());
        let two = scope.spawn(move || receive(&other_there, &scene.folder(), Options::default(), &observer));
        // Both have seen an empty folder.
        tells.recv().unwrap();
        tells.recv().unwrap();
        send_half(&mut first, &mine);
        tells.recv().unwrap();
        send_half(&mut second, &theirs);
        // The second is in the middle, or has given up.
        let mut said = second.try_clone().unwrap();
        scope.spawn(move || {
            let _ = said.read_to_end(&mut Vec::new());
            let _ = told.send(());
        });
        tells.recv().unwrap();
        send_rest(&mut first, &mine);
        let one = one.join().unwrap();
        second.shutdown(Shutdown::Both).unwrap();
        (one, two.join().unwrap())
    });
    let name = fs::read(scene.to("file")).ok();
    assert!(name == Some(mine), "what was verified, and nothing else");
    one.unwrap();
    let Err(ReceiveError::Local { path, source }) = two else { panic!("{two:?}") };
    assert_eq!((path.as_str(), source.kind()), ("file", std::io::ErrorKind::ResourceBusy));
    assert_eq!(fs::read_dir(scene.to("")).unwrap().count(), 1);
}

/// An observer that records, at each call, if the first file has its name.
struct Looks<'a>(&'a Scene, Mutex<Vec<bool>>);

impl Observer for Looks<'_> {
    fn moved(&self, _: u64) {
        self.1.lock().unwrap().push(self.0.to("00").exists());
    }
}

/// A power failure empties files that are not synced. A verified file must not have its name by then.
#[test]
fn many_small_files_are_written_to_the_disk_before_they_get_their_names() {
    let scene = Scene::new();
    let entries: Vec<_> = (0..70).map(|number| file(&format!("{number:02}"), 1)).collect();
    let mut frames = manifest(&entries);
    for index in 0..4 {
        frames.push(FromSender::Begin { index, offset: 0 }.to_frame());
        frames.push(content_frame(b"x"));
        frames.push(FromSender::End { hash: *blake3::hash(b"x").as_bytes() }.to_frame());
    }
    // The connection breaks before the last of these files ends.
    frames.pop();
    let (mut here, there) = UnixStream::pair().unwrap();
    here.write_all(&[GREETING.to_vec(), frames.concat()].concat()).unwrap();
    here.shutdown(Shutdown::Write).unwrap();
    let looks = Looks(&scene, Mutex::default());
    let error = receive(&there, &scene.folder(), Options::default(), &looks).unwrap_err();
    assert!(error.is_worth_another_try(), "{error}");
    assert_eq!(*looks.1.lock().unwrap(), [false; 4]);
    // Verified files get their names anyway, and need not be sent again.
    for name in ["00", "01", "02"] {
        assert_eq!(fs::read(scene.to(name)).unwrap(), b"x");
    }
    assert!(!scene.to("03").exists() && scene.to(".03.peersock-part").exists());
}
