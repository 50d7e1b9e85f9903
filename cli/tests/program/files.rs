//! `send` and `receive`: two programs that share only a code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use peersock_files::Code;
use peersock_testnet::Lab as Nats;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::common::{Finished, PATIENCE, Running, lacks, peersock, run, signal, vanish, without_variables};
use crate::nats::{start, start_root};

/// Size of a file that takes a while to arrive.
const LARGE_FILE_BYTES: u64 = 160 << 20;

/// Folders to send from and to receive into.
struct Folders {
    dir: TempDir,
}

impl Folders {
    fn new() -> Folders {
        let dir = tempfile::tempdir().unwrap();
        for name in ["from", "to", "home"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Folders { dir }
    }

    fn from(&self, path: &str) -> PathBuf {
        self.dir.path().join("from").join(path)
    }

    fn to(&self, path: &str) -> PathBuf {
        self.dir.path().join("to").join(path)
    }

    /// Writes a sparse file of [`LARGE_FILE_BYTES`] bytes.
    fn write_large(&self, name: &str) {
        fs::write(self.from(name), format!("the beginning of {name}")).unwrap();
        fs::OpenOptions::new().write(true).open(self.from(name)).unwrap().set_len(LARGE_FILE_BYTES).unwrap();
    }

    /// Returns a command with an empty home.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = peersock(words);
        let home = self.dir.path().join("home");
        command.env("HOME", &home).env("XDG_STATE_HOME", &home);
        command
    }

    fn send_command(&self, words: &[&str], names: &[&str]) -> Command {
        let mut command = self.command(&["send", "--peer-timeout", "5"]);
        command.args(words).args(names.iter().map(|name| self.from(name)));
        command
    }

    fn receive_command(&self, code: &str, words: &[&str]) -> Command {
        let mut command = self.command(&["receive", code, "--peer-timeout", "5", "--to"]);
        command.arg(self.to("")).args(words);
        command
    }

    /// Starts `send`; returns the code that it prints.
    fn send(&self, words: &[&str], names: &[&str]) -> (Running, String) {
        let running = Running::start(self.send_command(&[&["--interface", "lo"], words].concat(), names));
        let code = running.wait_for_stdout("\n").trim().to_owned();
        (running, code)
    }

    fn receive(&self, code: &str, words: &[&str]) -> Running {
        Running::start(self.receive_command(code, &[&["--interface", "lo"], words].concat()))
    }

    fn received(&self, code: &str, words: &[&str]) -> Finished {
        self.receive(code, words).finish()
    }

    /// Waits until part of a file has arrived.
    fn wait_for_part(&self, name: &str) {
        let part = self.to(&format!(".{name}.peersock-part"));
        let begin = Instant::now();
        while size(&part) == 0 {
            assert!(begin.elapsed() < PATIENCE, "nothing comes");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[track_caller]
    fn check_large(&self, name: &str) {
        assert!(size(&self.to(name)) == LARGE_FILE_BYTES && size(&self.from(name)) == LARGE_FILE_BYTES);
        let same = Command::new("cmp").arg(self.from(name)).arg(self.to(name)).status().unwrap();
        assert!(same.success());
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Such a file system says that it has no blocks, of which none is free.
#[test]
fn a_folder_without_a_size_has_room() {
    let test = "a_folder_without_a_size_has_room";
    if lacks(test, &["unshare", "mount", "cmp"]) {
        return;
    }
    let folders = Folders::new();
    fs::write(folders.from("notes.txt"), vec![7; 1 << 20]).unwrap();
    let (_sending, code) = folders.send(&["--keep"], &["notes.txt"]);
    let receive = folders.receive_command(&code, &["--interface", "lo"]);
    // The mount ends with the shell, and what has arrived with it.
    let script = "from=$1 to=$2; shift 2; mount -t ramfs none \"$to\" || exit 77
        \"$@\" && cmp \"$from\" \"$to/notes.txt\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).args([folders.from("notes.txt"), folders.to("")]);
    command.arg(receive.get_program()).args(receive.get_args());
    for (name, value) in receive.get_envs() {
        value.map(|value| command.env(name, value));
    }
    without_variables(&mut command);
    let finished = run(command);
    if finished.status.code() == Some(77) || finished.stderr.contains("unshare:") {
        eprintln!("SKIP {test}: ramfs cannot be mounted: {}", finished.stderr);
        return;
    }
    finished.success();
}

/// `ls` does not show such files, and some of them affect the user's programs.
#[test]
fn names_that_begin_with_a_dot_are_told() {
    let folders = Folders::new();
    fs::create_dir(folders.from(".ssh")).unwrap();
    fs::write(folders.from(".ssh/authorized_keys"), "a key").unwrap();
    fs::write(folders.from(".bashrc"), "a program").unwrap();
    fs::write(folders.from("notes.txt"), "notes").unwrap();
    let (_sending, code) = folders.send(&["--keep"], &[".ssh", ".bashrc", "notes.txt"]);
    let received = folders.received(&code, &[]).success();
    let told =
        "2 files have names that begin with a dot, and are not shown by `ls`: .bashrc, .ssh/authorized_keys";
    assert!(received.stderr.contains(told), "{}", received.stderr);
    let (_sending, code) = folders.send(&["--keep"], &["notes.txt"]);
    let received = folders.received(&code, &[]).success();
    assert!(!received.stderr.contains("a dot"), "{}", received.stderr);
}

#[test]
fn files_and_folders_arrive_with_a_code_and_nothing_else() {
    let folders = Folders::new();
    fs::create_dir_all(folders.from("photos/empty")).unwrap();
    fs::write(folders.from("photos/sea.jpg"), vec![7; 300_000]).unwrap();
    fs::write(folders.from("notes.txt"), "notes").unwrap();
    let (sender, code) = folders.send(&[], &["photos", "notes.txt"]);
    assert_eq!(code.len(), 17);
    let command = sender.wait_for_stderr("receive with: ");
    assert_eq!(command, format!("peersock receive {code}"));
    let receiver = folders.received(&code.replace('-', "").to_lowercase(), &[]).success();
    let said = [
        "receives 2 files, 292.97 KiB (notes.txt, photos/)",
        "received 2 files",
        " s (direct); all is verified",
    ];
    assert!(said.iter().all(|text| receiver.stderr.contains(text)), "{}", receiver.stderr);
    let sender = sender.wait_for_end().success();
    assert!(sender.stderr.contains("has everything: 2 files, 292.97 KiB in "), "{}", sender.stderr);
    assert!(sender.stderr.contains(" s (direct)\n"), "{}", sender.stderr);
    assert_eq!(fs::read(folders.to("photos/sea.jpg")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::read(folders.to("notes.txt")).unwrap(), b"notes");
    assert!(folders.to("photos/empty").is_dir());
    // No state or settings were written.
    assert_eq!(fs::read_dir(folders.dir.path().join("home")).unwrap().count(), 0);
}

#[test]
fn who_leaves_something_out_does_not_end_as_if_all_was_sent() {
    let folders = Folders::new();
    fs::create_dir(folders.from("photos")).unwrap();
    fs::write(folders.from("photos/sea.jpg"), "sea").unwrap();
    std::os::unix::fs::symlink("/etc/hosts", folders.from("photos/outside")).unwrap();
    let (sender, code) = folders.send(&[], &["photos"]);
    folders.received(&code, &[]).success();
    let said = ["photos/outside is left out", "not everything was sent: 1 left out", "(tar)"];
    sender.wait_for_end().failure(1, &said);
    assert_eq!(fs::read(folders.to("photos/sea.jpg")).unwrap(), b"sea");
}

#[test]
fn what_comes_is_listed_first_and_nothing_is_overwritten_by_chance() {
    let folders = Folders::new();
    fs::write(folders.from("file"), "theirs").unwrap();
    fs::write(folders.to("file"), "mine").unwrap();
    let (sender, code) = folders.send(&[], &["file"]);
    let listed = folders.received(&code, &["--list"]).success();
    assert_eq!(listed.text().split_whitespace().collect::<Vec<_>>(), ["6", "file"]);
    let refused = folders.received(&code, &[]);
    refused.failure(1, &["nothing was received: file is there already and different", "--overwrite"]);
    assert_eq!(fs::read(folders.to("file")).unwrap(), b"mine");
    sender.wait_for_stderr("does not have everything: the receiver has given up: other files are in the way");
    // Passes the code by stdin, where the list of processes does not show it.
    let mut command = folders.command(&["receive", "--interface", "lo", "--overwrite", "--to"]);
    command.arg(folders.to(""));
    let mut receiver = Running::start(command);
    receiver.send(format!("{code}\n").as_bytes());
    receiver.finish().success();
    sender.wait_for_end().success();
    assert_eq!(fs::read(folders.to("file")).unwrap(), b"theirs");
}

#[test]
fn a_list_that_cannot_be_printed_is_an_error() {
    let folders = Folders::new();
    fs::write(folders.from("file"), "content").unwrap();
    let (sender, code) = folders.send(&[], &["file"]);
    for (redirection, reason) in [(">&-", "Bad file descriptor"), ("> /dev/full", "No space left")] {
        let mut command = Command::new("sh");
        let script = format!("exec \"$0\" receive --list --interface lo {code} {redirection}");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_peersock")]).env("HOME", folders.dir.path());
        without_variables(&mut command);
        run(command).failure(1, &["cannot write to stdout", reason]);
    }
    sender.interrupt().failure(130, &["stopped"]);
}

/// A receiver's shell has the sender's code; files sent from that shell are not for the sender.
#[test]
fn the_code_to_receive_with_is_not_the_one_to_send_with() {
    let folders = Folders::new();
    fs::write(folders.from("file"), "private").unwrap();
    let theirs = Code::generate().unwrap().to_text();
    let send = |variable: &str| {
        let mut command = folders.send_command(&["--interface", "lo"], &["file"]);
        command.env(variable, theirs.as_str());
        let sender = Running::start(command);
        let code = sender.wait_for_stdout("\n").trim().to_owned();
        sender.interrupt().failure(130, &["PEERSOCK_SEND_CODE", &code]);
        code
    };
    assert_ne!(send("PEERSOCK_CODE"), theirs.as_str());
    assert_eq!(send("PEERSOCK_SEND_CODE"), theirs.as_str());
}

#[test]
fn codes_that_are_mistyped_or_wrong_are_told_apart() {
    let folders = Folders::new();
    fs::write(folders.from("file"), "content").unwrap();
    let (sender, code) = folders.send(&[], &["file"]);
    let first = if code.starts_with('A') { "B" } else { "A" };
    let typo = format!("{first}{}", &code[1..]);
    let begin = Instant::now();
    folders.received(&typo, &["--timeout", "100"]).failure(2, &["typing error", "three groups of five"]);
    folders.received("ABC", &[]).failure(2, &["15 letters and digits, and this has 3"]);
    folders.received("uuuuu-uuuuu-uuuuu", &[]).failure(2, &["do not have the character `u`"]);
    run(folders.command(&["receive", "--interface", "lo"]))
        .failure(2, &["there is no code", "PEERSOCK_CODE"]);
    assert!(begin.elapsed() < Duration::from_secs(100), "nobody was looked for");

    let wrong = Code::generate().unwrap().to_text();
    let words = ["no sender with this code has answered within 1 s", "check the code", "--root"];
    folders.received(&wrong, &["--timeout", "1"]).failure(1, &words);
    sender.interrupt().failure(130, &["send --code ", &code]);
}

#[test]
fn what_cannot_be_sent_or_received_is_said_before_anything_happens() {
    let folders = Folders::new();
    let send = |names: &[&str]| run(folders.send_command(&["--interface", "lo"], names));
    send(&["nothing"]).failure(1, &["nothing cannot be read: No such file", "leave it out"]);
    fs::create_dir(folders.from("a")).unwrap();
    for name in ["a/x", "x"] {
        fs::write(folders.from(name), "x").unwrap();
    }
    send(&["a/x", "x"]).failure(2, &["two of the paths are called x", "one after the other"]);
    send(&["-"]).failure(1, &["cannot be read"]);
    run(folders.command(&["send", "-"])).failure(2, &["stdin is not sent", "`peersock listen`"]);
    run(folders.command(&["send", "/dev/null"])).failure(2, &["neither a file nor a folder"]);
    run(folders.command(&["send"])).failure(2, &["FILE"]);
    run(folders.command(&["send", "--code", "ABC", "Cargo.toml"])).failure(2, &["15 letters"]);
    let code = Code::generate().unwrap().to_text();
    run(folders.command(&["receive", &code, "--to", "/nonexistent"]))
        .failure(1, &["cannot receive", "--to DIR"]);
}

#[test]
fn a_receiver_that_was_killed_goes_on_where_it_stopped() {
    let folders = Folders::new();
    folders.write_large("large");
    let (sender, code) = folders.send(&[], &["large"]);
    let receiver = folders.receive(&code, &[]);
    folders.wait_for_part("large");
    signal(Signal::STOP, sender.id());
    vanish(Signal::KILL, receiver.id());
    drop(receiver);
    let there = size(&folders.to(".large.peersock-part"));
    assert!((1..LARGE_FILE_BYTES).contains(&there), "{there}");
    assert!(!folders.to("large").exists());
    signal(Signal::CONT, sender.id());
    let receiver = folders.received(&code, &[]).success();
    assert!(!receiver.stderr.contains("received 1 file, 160.00 MiB"), "{}", receiver.stderr);
    let goes_on = receiver
        .stderr
        .lines()
        .any(|line| line.contains("continuing: ") && line.ends_with(" are here already"));
    assert!(goes_on, "{}", receiver.stderr);
    let sender = sender.wait_for_end().success();
    for said in ["does not have everything: it has gone away", "it had the rest"] {
        assert!(sender.stderr.contains(said), "{}", sender.stderr);
    }
    folders.check_large("large");
    assert!(!folders.to(".large.peersock-part").exists());
}

#[test]
fn a_sender_that_was_killed_is_started_again_with_the_same_code() {
    let folders = Folders::new();
    folders.write_large("large");
    fs::write(folders.from("a-small"), "small").unwrap();
    let (sender, code) = folders.send(&[], &["a-small", "large"]);
    let receiver = folders.receive(&code, &[]);
    folders.wait_for_part("large");
    vanish(Signal::KILL, sender.id());
    drop(sender);
    assert!(!folders.to("large").exists());
    let rest = receiver.wait_for_stderr("trying again for up to ");
    assert!(rest.ends_with(" s"), "{rest}");
    let (sender, again) = folders.send(&["--code", &code], &["a-small", "large"]);
    assert_eq!(again, code);
    let received = receiver.finish().success().stderr;
    let sent = sender.wait_for_end().success().stderr;
    folders.check_large("large");
    // The first attempt's file counts as received, and not as there already.
    assert!(received.contains("received 2 files, ") && !received.contains("there already"), "{received}");
    assert!(received.contains(" s (direct); all is verified"), "{received}");
    assert!(sent.contains("receiver 1 has everything: ") && sent.contains(" s (direct)"), "{sent}");
}

#[test]
fn several_receivers_are_served_at_once_and_one_after_the_other() {
    let folders = Folders::new();
    fs::write(folders.from("file"), vec![9; 5_000_000]).unwrap();
    let (sender, code) = folders.send(&["--keep"], &["file"]);
    let to = |number: usize| {
        let to = folders.to(&number.to_string());
        fs::create_dir_all(&to).unwrap();
        to
    };
    let receive = |number: usize| {
        let mut command = folders.command(&["receive", &code, "--interface", "lo", "--to"]);
        command.arg(to(number));
        Running::start(command)
    };
    let at_once: Vec<_> = (0..3).map(receive).collect();
    at_once.into_iter().for_each(|receiver| drop(receiver.finish().success()));
    receive(3).finish().success();
    for number in 0..4 {
        assert_eq!(size(&to(number).join("file")), 5_000_000);
    }
    let sender = sender.interrupt();
    sender.failure(130, &["stopped"]);
    assert_eq!(sender.stderr.matches("has everything").count(), 4, "{}", sender.stderr);
}

/// A folder is replaced by a new version, even with unchanged content.
#[test]
fn a_folder_in_whose_place_a_copy_has_come_is_sent_from_there() {
    let folders = Folders::new();
    let (site, copy) = (folders.from("site"), folders.from("copy"));
    fs::create_dir(&site).unwrap();
    fs::write(site.join("page"), "hello").unwrap();
    let (sender, code) = folders.send(&["--keep"], &["site"]);
    // Copies with the same times.
    assert!(Command::new("cp").arg("-a").args([&site, &copy]).status().unwrap().success());
    fs::remove_dir_all(&site).unwrap();
    fs::rename(&copy, &site).unwrap();
    folders.received(&code, &[]).success();
    assert_eq!(fs::read(folders.to("site/page")).unwrap(), b"hello");
    sender.interrupt().failure(130, &["stopped"]);
}

#[test]
fn who_is_behind_a_nat_sends_to_who_is_behind_another_one() {
    let topology = "root=public home=port-restricted work=port-restricted";
    let Some(nats) = Nats::build("files", topology) else { return };
    let (root, text) = start_root(&nats, &[]);
    let folders = Folders::new();
    fs::write(folders.from("file"), vec![5; 3_000_000]).unwrap();
    let sender = start(&nats, "home1", folders.send_command(&["--root", &text], &["file"]));
    let code = sender.wait_for_stdout("\n").trim().to_owned();
    let said = sender.wait_for_stderr("receive with: ");
    assert_eq!(said, format!("peersock receive --root '{text}' {code}"));
    let receiver = start(&nats, "work1", folders.receive_command(&code, &["--root", &text]));
    receiver.finish().success();
    sender.wait_for_end().success();
    assert_eq!(fs::read(folders.to("file")).unwrap(), vec![5; 3_000_000]);
    root.interrupt();
}
