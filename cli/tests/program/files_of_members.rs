//! `send` and `receive` between members of a network, whose session says who they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peersock_files::{Entry, EntryPath, FromSender, Kind, Permissions, Time};
use rustix::process::Signal;

use crate::common::{Finished, Lab, Running, run, signal, vanish, wait_until};
use crate::machines::Machines;
use crate::terminal::{has_terminals, on_terminal};

/// Size of a file that takes a while to arrive.
const LARGE_FILE_BYTES: u64 = 160 << 20;

/// Machines of a network with the members alpha, beta and gamma. Files are sent from one folder to another.
struct Office {
    machines: Machines,
    folders: tempfile::TempDir,
    _serving: Running,
}

impl Office {
    fn new() -> Office {
        let machines = Machines::new();
        let (_, serving) = machines.network();
        ["beta", "gamma"].iter().for_each(|machine| machines.admit(machine));
        let folders = tempfile::tempdir().unwrap();
        for name in ["from", "to"] {
            fs::create_dir(folders.path().join(name)).unwrap();
        }
        Office { machines, folders, _serving: serving }
    }

    fn from(&self, name: &str) -> PathBuf {
        self.folders.path().join("from").join(name)
    }

    fn to(&self, name: &str) -> PathBuf {
        self.folders.path().join("to").join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.from(name), content).unwrap();
    }

    fn write_large(&self, name: &str) {
        self.write(name, &format!("the beginning of {name}"));
        fs::OpenOptions::new().write(true).open(self.from(name)).unwrap().set_len(LARGE_FILE_BYTES).unwrap();
    }

    /// Returns a command that sends to beta.
    fn send_command(&self, machine: &str, words: &[&str], names: &[&str]) -> Command {
        let mut command = self.machines.command(machine, &["send", "-n", "team", "--peer-timeout", "5"]);
        command.args(words).args(names.iter().map(|name| self.from(name))).arg("beta");
        command
    }

    fn send(&self, machine: &str, words: &[&str], names: &[&str]) -> Running {
        Running::start(self.send_command(machine, words, names))
    }

    fn receive_command(&self, words: &[&str]) -> Command {
        let mut command = self.machines.command("beta", &["receive", "-n", "team", "--peer-timeout", "5"]);
        command.arg("--to").arg(self.to("")).args(words);
        command
    }

    /// Starts to receive at beta, and waits until it listens.
    fn receive(&self, words: &[&str]) -> Running {
        let receiving = Running::start(self.receive_command(words));
        receiving.wait_for_stderr("waiting for files");
        receiving
    }

    fn wait_for_part(&self, name: &str) {
        let part = self.to(&format!(".{name}.peersock-part"));
        wait_until("nothing comes", || fs::metadata(&part).is_ok_and(|part| part.len() > 0));
    }

    #[track_caller]
    fn check_large(&self, name: &str) {
        let same = Command::new("cmp").arg(self.from(name)).arg(self.to(name)).status().unwrap();
        assert!(same.success());
        assert!(!self.to(&format!(".{name}.peersock-part")).exists());
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn files_go_to_a_member_by_its_name_and_are_from_one_by_its_name() {
    let office = Office::new();
    fs::create_dir_all(office.from("photos/empty")).unwrap();
    office.write("photos/sea.jpg", "sea");
    office.write("notes.txt", "remember");
    for own_node in ["", "1"] {
        let mut receive = office.receive_command(&["--from", "gamma", "--from", "alpha"]);
        receive.env("PEERSOCK_OWN_NODE", own_node);
        let receiving = Running::start(receive);
        let how = receiving.wait_for_stderr("send with: ");
        assert_eq!(how, "peersock send -n team FILE beta");
        let mut send = office.send_command("gamma", &[], &["photos", "notes.txt"]);
        send.env("PEERSOCK_OWN_NODE", own_node);
        let sent = run(send).success().stderr;
        assert!(sent.contains("sends 2 files, 11 B (notes.txt, photos/) to beta"), "{sent}");
        assert!(sent.contains("beta has everything: 2 files, 11 B in"), "{sent}");
        let received = receiving.wait_for_end().success().stderr;
        assert!(received.contains("receives 2 files, 11 B (notes.txt, photos/) from gamma\n"), "{received}");
        assert!(received.contains("(direct) from gamma; all is verified"), "{received}");
        assert_eq!(read(&office.to("photos/sea.jpg")) + &read(&office.to("notes.txt")), "searemember");
        assert!(office.to("photos/empty").is_dir());
        fs::remove_dir_all(office.to("photos")).unwrap();
        fs::remove_file(office.to("notes.txt")).unwrap();
    }
    // The variable names the network if the colon says that the last word is a member.
    let receiving = office.receive(&["--yes"]);
    let mut send = office.machines.command("gamma", &["send"]);
    send.env("PEERSOCK_NETWORK", "team").arg(office.from("notes.txt")).arg("beta:");
    run(send).success();
    receiving.wait_for_end().success();
    // What is there already is not sent again, and what is different stays.
    let receiving = office.receive(&["--yes"]);
    assert!(office.send("gamma", &[], &["notes.txt"]).finish().success().stderr.contains("it had the rest"));
    assert!(receiving.wait_for_end().success().stderr.contains("1 file there already"));
    office.write("notes.txt", "forget it");
    let receiving = office.receive(&["--yes"]);
    let refused = office.send("gamma", &[], &["notes.txt"]).finish();
    refused.failure(1, &["beta has not received the files", "other files are in the way"]);
    receiving.wait_for_end().failure(1, &["notes.txt is there already and different", "--overwrite"]);
    assert_eq!(read(&office.to("notes.txt")), "remember");
    let receiving = office.receive(&["--yes", "--list"]);
    office.send("gamma", &[], &["notes.txt"]).finish().failure(1, &["beta has listed the files"]);
    assert!(receiving.wait_for_end().success().text().contains("9  notes.txt"));
}

#[test]
fn a_member_cannot_pass_for_another_one_or_leave_the_folder() {
    let office = Office::new();
    office.write("notes.txt", "remember");
    let receiving = office.receive(&["--from", "alpha"]);
    let refused = office.send("gamma", &[], &["notes.txt"]).finish();
    refused.failure(1, &["beta has not received the files", "only others are received"]);
    receiving.wait_for_stderr("gamma wants to send files, and is refused");
    // A program's label is the machine's own choice.
    office.send("gamma", &["--as", "alpha"], &["notes.txt"]).finish().failure(1, &["only others"]);
    assert!(!office.to("notes.txt").exists());
    office.send("alpha", &[], &["notes.txt"]).finish().success();
    let received = receiving.wait_for_end().success().stderr;
    assert!(received.contains("receives 1 file, 8 B (notes.txt) from alpha"), "{received}");

    // Frames by hand, with names that `send` never sends.
    let receiving = office.receive(&["--yes", "--keep"]);
    for path in ["../evil", "/x/evil", "a\u{1b}evil", "xx\nevil"] {
        let honest = "x".repeat(path.len());
        let entry = Entry {
            path: EntryPath::try_from(honest.clone()).unwrap(),
            kind: Kind::File { size: 4 },
            permissions: Permissions::of_mode(0o644),
            time: Time { seconds: 0, nanoseconds: 0 },
        };
        let mut frame = FromSender::Entry(entry).to_frame();
        let at = frame.windows(honest.len()).position(|part| part == honest.as_bytes()).unwrap();
        frame[at..at + honest.len()].copy_from_slice(path.as_bytes());
        let manifest = FromSender::Manifest { entries: 1, left_out: 0 }.to_frame();
        let words = ["dial", "-n", "team", "beta:7421"];
        let mut dialing = Running::start(office.machines.command("gamma", &words));
        dialing.send(&[b"psfiles\x03".to_vec(), manifest, frame].concat());
        let finished = dialing.finish();
        assert!(String::from_utf8_lossy(&finished.stdout).contains("invalid message"), "{path:?}");
    }
    receiving.wait_for_stderr("gamma has offered no files: ");
    assert!(!office.folders.path().join("evil").exists());
    office.write("more.txt", "more");
    office.send("gamma", &[], &["more.txt"]).finish().success();
    let interrupted = receiving.interrupt();
    assert_eq!((interrupted.status.code(), &*read(&office.to("more.txt"))), (Some(130), "more"));
}

/// Receives on a terminal. The answers are typed when the question is there.
fn asked(office: &Office, answers: &[&str], senders: &[(&str, &str)]) -> (Finished, Vec<Finished>) {
    let line =
        format!("'{}' receive -n team --to '{}'", env!("CARGO_BIN_EXE_peersock"), office.to("").display());
    let state = office.machines.directory("beta");
    let variables = [
        ("PEERSOCK_STATE", state.to_str().unwrap()),
        ("PEERSOCK_INTERFACE", "lo"),
        ("PEERSOCK_PERSIST", "0"),
    ];
    let mut receiving = Running::start(on_terminal(&line, &variables));
    receiving.wait_for_stdout("waiting for files");
    // Input that is typed before the question is no consent.
    receiving.send(b"y\n");
    let mut sent = Vec::new();
    for ((sender, name), answer) in senders.iter().zip(answers) {
        let sending = office.send(sender, &[], &[name]);
        let question = receiving.wait_for_stdout(&format!("{sender} wants to send 1 file, "));
        assert!(question.contains(&format!("({name})")), "{question}");
        assert!(!office.to(name).exists());
        receiving.send(format!("{answer}\n").as_bytes());
        sent.push(sending.wait_for_end());
    }
    (receiving.wait_for_end(), sent)
}

#[test]
fn a_person_is_asked_whose_files_are_received() {
    if !has_terminals("a_person_is_asked_whose_files_are_received") {
        return;
    }
    let office = Office::new();
    office.write("a.txt", "of alpha");
    office.write(".profile", "of gamma");
    let senders = [("gamma", ".profile"), ("alpha", "a.txt")];
    let (received, sent) = asked(&office, &["what?\nno", "y"], &senders);
    let received = received.success();
    assert!(received.text().contains("1 file has a name that begins with a dot"), "{}", received.text());
    sent[0].failure(1, &["beta has not received the files: the person there has declined"]);
    assert_eq!(sent[1].status.code(), Some(0), "{}", sent[1].stderr);
    assert_eq!(read(&office.to("a.txt")), "of alpha");
    assert!(!office.to(".profile").exists());
}

#[test]
fn a_killed_end_goes_on_where_it_stopped() {
    let office = Office::new();
    office.write_large("large");
    // The receiver.
    let receiving = office.receive(&["--yes"]);
    let sending = office.send("gamma", &[], &["large"]);
    office.wait_for_part("large");
    vanish(Signal::KILL, receiving.id());
    drop(receiving);
    assert!(!office.to("large").exists());
    sending.wait_for_stderr("trying again for up to 120 s");
    let receiving = office.receive(&["--yes"]);
    receiving.wait_for_stderr("continuing: ");
    sending.wait_for_end().success();
    receiving.wait_for_end().success();
    office.check_large("large");
    fs::remove_file(office.to("large")).unwrap();
    // The sender.
    let receiving = office.receive(&["--from", "gamma"]);
    let sending = office.send("gamma", &[], &["large"]);
    office.wait_for_part("large");
    vanish(Signal::KILL, sending.id());
    drop(sending);
    receiving.wait_for_stderr("gamma can continue");
    office.send("gamma", &[], &["large"]).finish().success();
    receiving.wait_for_end().success();
    office.check_large("large");
    // A sender that does not come back is an error.
    fs::remove_file(office.to("large")).unwrap();
    let receiving = office.receive(&["--yes", "--retry", "1"]);
    let sending = office.send("gamma", &[], &["large"]);
    office.wait_for_part("large");
    vanish(Signal::KILL, sending.id());
    drop(sending);
    receiving
        .wait_for_end()
        .failure(1, &["the connection broke", "let the sender send the same files again"]);
    assert!(!office.to("large").exists());
}

#[test]
fn two_senders_at_once_are_received_one_after_the_other() {
    let office = Office::new();
    office.write_large("large");
    office.write("small", "small");
    let receiving = office.receive(&["--yes", "--keep"]);
    let first = office.send("gamma", &[], &["large"]);
    office.wait_for_part("large");
    // The first one stays at the place until it goes on.
    signal(Signal::STOP, first.id());
    let second = office.send("alpha", &[], &["small"]);
    second.wait_for_stderr("beta receives from another member now; trying again for up to 120 s");
    signal(Signal::CONT, first.id());
    first.wait_for_end().success();
    second.wait_for_end().success();
    office.check_large("large");
    assert_eq!(read(&office.to("small")), "small");
    let received = receiving.interrupt();
    for sender in ["gamma", "alpha"] {
        assert!(received.stderr.contains(&format!(" from {sender}; all is verified")), "{}", received.stderr);
    }
}

#[test]
fn a_removal_ends_the_receipt_at_both_ends() {
    let office = Office::new();
    office.write_large("large");
    let receiving = office.receive(&["--yes"]);
    let sending = office.send("gamma", &["--retry", "1"], &["large"]);
    office.wait_for_part("large");
    signal(Signal::STOP, sending.id());
    office.machines.ok("alpha", &["network", "revoke", "beta"]);
    receiving.wait_for_end().failure(1, &["this machine was removed from network team by its controller"]);
    signal(Signal::CONT, sending.id());
    sending.wait_for_end().failure(1, &["beta"]);
    assert!(!office.to("large").exists());
}

#[test]
fn what_cannot_be_sent_or_received_is_said_with_the_next_step() {
    let office = Office::new();
    office.write("notes.txt", "remember");
    let notes = office.from("notes.txt");
    let file = notes.to_str().unwrap();
    for (words, status, said) in [
        (&["send", "-n", "team", file, "delta"][..], 2, &["is called `delta`", "peersock members"][..]),
        (&["send", "-n", "office", file, "beta"], 2, &["neither a network", "peersock networks"]),
        (&["send", "-n", "team", file], 2, &["no member is named", "send -n team notes.txt beta"]),
        (&["send", "-n", "team", file, "beta:7000"], 2, &["has a port", "leave the port out"]),
        (&["send", "-n", "team", "--keep", file, "beta"], 2, &["--keep is for receivers with a code"]),
        (&["send", "--retry", "1", file], 2, &["--retry is for files to a member"]),
        (&["send", "--state", "x", file], 2, &["--state is for a member"]),
        (&["send", file, "beta:"], 2, &["no network is named", "give `-n team`"]),
        (&["receive", "-n", "team"], 2, &["cannot ask whose files", "--from NAME"]),
        (&["receive", "-n", "team", "0R64E-5YRY4-JQV4Q"], 2, &["a code is given", "leave -n out"]),
        (&["receive", "-n", "team", "--from", "a b"], 2, &["`a b`"]),
        (&["receive", "-n", "team", "--yes", "--timeout", "0.2"], 1, &["no member has sent files"]),
    ] {
        run(office.machines.command("gamma", words)).failure(status, said);
    }
    // The machine of beta runs programs, and none receives.
    let (_listening, _) = office.machines.listen("beta", "7000");
    // The next step is the same beside a node that runs.
    for words in [&["send", file, "gamma:"][..], &["dial", "gamma:7000"], &["listen", "7001"]] {
        run(office.machines.command("beta", words)).failure(2, &["no network is named", "give `-n team`"]);
    }
    let refused = office.send("gamma", &[], &["notes.txt"]).finish();
    refused.failure(1, &["beta receives no files now", "run `peersock receive -n team` there"]);
    let receiving = office.receive(&["--yes"]);
    let second = run(office.receive_command(&["--yes"]));
    second.failure(1, &["this machine receives already", "end it"]);
    drop(receiving);
    let words = ["listen", "-n", "team", "7421"];
    let mut other = Running::start(office.machines.command("beta", &words));
    other.wait_for_stderr("listening on ");
    let greeting = office.send("gamma", &[], &["notes.txt"]);
    other.wait_for_stdout("psfiles");
    other.send(b"SSH-2.0-other\n");
    greeting.wait_for_end().failure(1, &["another program listens on port 7421 of beta"]);
}

#[test]
fn members_of_a_static_network_send_files_too() {
    let lab = Lab::new();
    let file = lab.dir.path().join("office.toml");
    let path = file.to_str().unwrap();
    run(lab.command("alpha", &["network", "new", path, "--name", "alpha"])).success();
    run(lab.command("beta", &["network", "add", path, "--name", "beta"])).success();
    let to = lab.dir.path().join("to");
    fs::create_dir(&to).unwrap();
    fs::write(lab.dir.path().join("notes.txt"), "remember").unwrap();
    let mut receive = lab.node_in(path, "beta", &["receive", "--from", "Alpha"]);
    receive.arg("--to").arg(&to);
    let receiving = Running::start(receive);
    let how = receiving.wait_for_stderr("send with: ");
    assert!(how.ends_with(" FILE beta"), "{how}");
    let mut send = lab.node_in(path, "alpha", &["send"]);
    run({
        send.arg(lab.dir.path().join("notes.txt")).arg("beta");
        send
    })
    .success();
    assert!(receiving.wait_for_end().success().stderr.contains(" from alpha; all is verified"));
    assert_eq!(read(&to.join("notes.txt")), "remember");
    let mut unknown = lab.node_in(path, "alpha", &["send"]);
    unknown.arg(&file).arg("gamma");
    run(unknown).failure(2, &["gamma", "peersock network show"]);
}
