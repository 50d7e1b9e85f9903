//! Timeouts of both ends, and delivery of the last message.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use peersock_files::{
    FromReceiver, FromSender, Observer, Options, SendError, Sent, Stream, WireError, greet, limits, receive,
    refuse, send,
};

use crate::common::{Scene, Silent, content};
use crate::hostile::{GREETING, content_frame, file, manifest};

/// A stream that yields one byte per read and records each read's timeout.
struct Trickle {
    stream: UnixStream,
    timeouts: Arc<Mutex<Timeouts>>,
}

#[derive(Default)]
struct Timeouts {
    now: Option<Duration>,
    noted: Vec<Option<Duration>>,
}

impl Trickle {
    fn new(stream: UnixStream) -> Trickle {
        Trickle { stream, timeouts: Arc::default() }
    }

    fn noted(&self) -> Vec<Option<Duration>> {
        self.timeouts.lock().unwrap().noted.clone()
    }
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        {
            let mut timeouts = self.timeouts.lock().unwrap();
            let now = timeouts.now;
            timeouts.noted.push(now);
        }
        // Lets the clock advance between any two reads.
        thread::sleep(Duration::from_micros(1));
        let most = buffer.len().min(1);
        self.stream.read(&mut buffer[..most])
    }
}

impl Write for Trickle {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for Trickle {
    fn try_clone(&self) -> io::Result<Trickle> {
        Ok(Trickle { stream: self.stream.try_clone()?, timeouts: Arc::clone(&self.timeouts) })
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeouts.lock().unwrap().now = timeout;
        self.stream.set_read_timeout(timeout)
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_write_timeout(timeout)
    }
}

/// Checks that each read's timeout is the rest of one shared time.
#[track_caller]
fn shrink(timeouts: &[Option<Duration>], longest: Duration) {
    let timeouts: Vec<_> = timeouts.iter().map(|timeout| timeout.expect("a limit")).collect();
    assert!(timeouts[0] <= longest && timeouts.is_sorted_by(|one, next| one > next), "{timeouts:?}");
}

#[test]
fn a_greeting_has_one_deadline_however_slowly_it_comes() {
    let scene = Scene::new();
    let (here, mut there) = UnixStream::pair().unwrap();
    there.write_all(GREETING).unwrap();
    let here = Trickle::new(here);
    drop(greet(&here).unwrap());
    assert_eq!(here.noted().len(), GREETING.len());
    shrink(&here.noted(), limits::GREETING);
    assert_eq!(here.timeouts.lock().unwrap().now, None);

    let (mut here, there) = UnixStream::pair().unwrap();
    here.write_all(GREETING).unwrap();
    here.shutdown(Shutdown::Write).unwrap();
    let there = Trickle::new(there);
    receive(&there, &scene.folder(), Options::default(), &Silent).unwrap_err();
    shrink(&there.noted()[..GREETING.len()], limits::GREETING);
    assert!(there.noted()[GREETING.len()] >= Some(limits::WANTED), "the sender may look at its files now");
}

#[test]
fn who_does_not_say_what_it_wants_is_let_go() {
    let scene = Scene::new();
    scene.write("tree/file", b"content");
    let source = scene.source(&["tree"]);
    let (here, mut there) = UnixStream::pair().unwrap();
    there.write_all(&[GREETING, &FromReceiver::Compared.to_frame()].concat()).unwrap();
    // An empty nonblocking read fails like an expired timeout.
    here.set_nonblocking(true).unwrap();
    let here = Trickle::new(here);
    let error = send(&here, &source, &Silent).unwrap_err();
    let reason = "the receiver has not said in time which files it wants";
    assert!(matches!(error, SendError::Wire(WireError::Unexpected(why)) if why == reason), "{error}");
    let waited = here.noted();
    let of_compared = GREETING.len()..GREETING.len() + FromReceiver::Compared.to_frame().len();
    shrink(&waited[of_compared.clone()], limits::wanted_within(2, 7));
    // The time spent on the first message is deducted.
    assert!(waited[of_compared.end] < waited[of_compared.start], "{waited:?}");
    drop(here);
    let mut said = Vec::new();
    there.read_to_end(&mut said).unwrap();
    assert!(said.ends_with(&FromSender::Failed { reason: reason.into(), again: false }.to_frame()));
}

#[test]
fn a_receiver_waits_while_the_sender_looks_at_its_files() {
    let scene = Scene::new();
    let (here, there) = UnixStream::pair().unwrap();
    let (folder, there) = (scene.folder(), Trickle::new(there));
    thread::scope(|scope| {
        let receiving = scope.spawn(move || receive(&there, &folder, Options::default(), &Silent));
        let receiver = greet(&here).unwrap();
        // There is nothing to send before this point.
        scene.write("file", b"content");
        let sent = receiver.send(&scene.source(&["file"]), &Silent).unwrap();
        assert_eq!(sent, Sent::Received { bytes: 7, files: 1 });
        drop(here);
        receiving.join().unwrap().unwrap();
    });
    assert_eq!(fs::read(scene.to("file")).unwrap(), b"content");
}

/// The sender stops at each point, including where it is allowed time to read its files.
#[test]
fn who_says_nothing_of_what_it_sends_is_let_go() {
    let scene = Scene::new();
    let size = 64 << 10;
    let entries = [file("half", size as u64), file("there", size as u64)];
    let says = [
        manifest(&entries).concat(),
        FromSender::Hash(None).to_frame(),
        FromSender::Hash(None).to_frame(),
        FromSender::Begin { index: 0, offset: 0 }.to_frame(),
        content_frame(&[1; 100]),
    ];
    for count in 0..=says.len() {
        fs::write(scene.to("there"), content(size, 1)).unwrap();
        fs::write(scene.to(".half.peersock-part"), content(size / 2, 2)).unwrap();
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(&[GREETING, &says[..count].concat()].concat()).unwrap();
        // An empty nonblocking read fails like an expired timeout.
        here.set_nonblocking(true).unwrap();
        let here = Trickle::new(here);
        let options = Options { overwrite: true, ..Options::default() };
        let error = receive(&here, &scene.folder(), options, &Silent).unwrap_err();
        assert!(
            !error.is_worth_another_try() && error.to_string().contains("been silent"),
            "{count}: {error}"
        );
        let waited = here.noted();
        let unlimited = waited.iter().filter(|timeout| timeout.is_none()).count();
        assert_eq!(unlimited, 0, "after {count} messages");
    }
}

/// A stream that waits a moment instead of minutes for a write, and records the requested timeout.
struct Hasty {
    stream: UnixStream,
    asked: Arc<Mutex<Vec<Option<Duration>>>>,
}

impl Read for Hasty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Hasty {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for Hasty {
    fn try_clone(&self) -> io::Result<Hasty> {
        Ok(Hasty { stream: self.stream.try_clone()?, asked: Arc::clone(&self.asked) })
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.asked.lock().unwrap().push(timeout);
        self.stream.set_write_timeout(timeout.map(|_| Duration::from_millis(20)))
    }
}

/// An observer that blocks from the first content on, until the sender has gone.
struct Stops(Mutex<Receiver<()>>);

impl Observer for Stops {
    fn moved(&self, _: u64) {
        // The channel closes when the sender ends.
        let _ = self.0.lock().unwrap().recv();
    }
}

#[test]
fn who_takes_nothing_is_let_go_and_can_go_on() {
    let scene = Scene::new();
    scene.write("tree/a", b"content");
    scene.write("tree/b", &content(20_000_000, 1));
    let source = scene.source(&["tree"]);
    let (here, there) = UnixStream::pair().unwrap();
    let here = Hasty { stream: here, asked: Arc::default() };
    let asked = Arc::clone(&here.asked);
    let (gone, goes) = mpsc::channel();
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let sent = send(&here, &source, &Silent);
            drop((here, gone));
            sent
        });
        let stops = Stops(Mutex::new(goes));
        let error = receive(&there, &scene.folder(), Options::default(), &stops).unwrap_err();
        drop(there);
        assert!(matches!(sending.join().unwrap(), Err(SendError::Stalled)));
        assert!(error.is_worth_another_try() && error.to_string().contains("5 minutes"), "{error}");
    });
    let wanted = limits::wanted_within(3, 20_000_007);
    assert_eq!(*asked.lock().unwrap(), [limits::STALLED, wanted, limits::STALLED].map(Some));
    let (sent, received) = scene.transfer(&source, Options::default());
    received.unwrap();
    assert!(matches!(sent, Ok(Sent::Received { .. })));
    scene.check_same();
}

/// Closing a connection with unread data resets it, and then the other end may miss the reason.
#[test]
fn a_refusal_leaves_nothing_unread() {
    let scene = Scene::new();
    scene.write("file", b"content");
    let source = scene.source(&["file"]);
    let failed = |reason: &str, again| FromSender::Failed { reason: reason.into(), again }.to_frame();
    type Greets<'a> = &'a dyn Fn(&mut UnixStream);
    let refusals: [(Greets<'_>, Vec<u8>); 3] = [
        (&|here| refuse(here, "busy", true), failed("busy", true)),
        (&|here| greet(&*here).unwrap().refuse("gone", false), failed("gone", false)),
        (
            &|here| drop(send(&*here, &source, &Silent).unwrap_err()),
            failed("a message came at the wrong time", false),
        ),
    ];
    for (refusal, last) in refusals {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let wrong = FromReceiver::Wanted.to_frame().repeat(10_000);
        there.write_all(&[GREETING, &wrong].concat()).unwrap();
        there.shutdown(Shutdown::Write).unwrap();
        refusal(&mut here);
        let mut unread = Vec::new();
        here.read_to_end(&mut unread).unwrap();
        assert_eq!(unread.len(), 0);
        drop(here);
        let mut said = Vec::new();
        there.read_to_end(&mut said).unwrap();
        assert!(said.starts_with(GREETING) && said.ends_with(&last));
    }
}
