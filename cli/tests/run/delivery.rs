//! Every delivery of the table between unmodified programs: the results are those of kernel sockets.

#[path = "../../../tests/delivery/scenario.rs"]
#[allow(dead_code, reason = "the receiver here reads the steps itself")]
mod scenario;

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use self::scenario::{Amount, Outcome, Scenario, Step, content, judge, table};
use crate::common::{Running, vanish};
use crate::lab::{ALPHA, Lab, OWN};

/// Scripts that run a receiver: one goes on when the receiver is killed, the other ends.
const KEPT: &str = r#"python3 -c "$0" "$1"; exec cat"#;
const ALONE: &str = r#"exec python3 -c "$0" "$1""#;

/// Time without an answer after which a stopped receiver is given up, in milliseconds.
const SILENCE: &str = "1000";

#[test]
fn programs_are_told_what_the_table_says() {
    play_table("programs_are_told_what_the_table_says", [Face::Overlay; 2]);
}

#[test]
fn programs_that_no_library_is_loaded_into_are_told_what_the_table_says() {
    let test = "programs_that_no_library_is_loaded_into_are_told_what_the_table_says";
    play_table(test, [Face::Filter, Face::Overlay]);
}

#[test]
fn programs_are_told_it_of_receivers_that_no_library_is_loaded_into() {
    let test = "programs_are_told_it_of_receivers_that_no_library_is_loaded_into";
    play_table(test, [Face::Overlay, Face::Filter]);
}

/// Checks the test's programs: over kernel sockets they see the table's results.
#[test]
fn the_kernel_tells_programs_what_the_table_says() {
    play_table("the_kernel_tells_programs_what_the_table_says", [Face::Kernel; 2]);
}

/// Plays the scenarios in which the receiver lives. `faces` are of the sender and the receiver.
fn play_table(test: &str, faces: [Face; 2]) {
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let (scenarios, sizes) = table();
    let mut ends = Ends::start(&lab, faces);
    for scenario in scenarios.iter().filter(|scenario| !scenario.ends_process()) {
        for &size in &sizes {
            let (told, read) = ends.play(scenario, size);
            judge(scenario, size, &format!("{faces:?}"), told, &read);
        }
    }
}

#[test]
fn programs_are_told_that_the_receivers_node_has_died() {
    let test = "programs_are_told_that_the_receivers_node_has_died";
    play_ends_of_nodes(test, [Face::Overlay; 2], Step::Killed, Signal::KILL);
}

#[test]
fn programs_are_told_that_the_receivers_node_has_stopped() {
    let test = "programs_are_told_that_the_receivers_node_has_stopped";
    play_ends_of_nodes(test, [Face::Overlay; 2], Step::Stopped, Signal::STOP);
}

#[test]
fn programs_that_no_library_is_loaded_into_are_told_that_the_receivers_node_has_died() {
    let test = "programs_that_no_library_is_loaded_into_are_told_that_the_receivers_node_has_died";
    play_ends_of_nodes(test, [Face::Filter; 2], Step::Killed, Signal::KILL);
}

#[test]
fn programs_that_no_library_is_loaded_into_are_told_that_the_receivers_node_has_stopped() {
    let test = "programs_that_no_library_is_loaded_into_are_told_that_the_receivers_node_has_stopped";
    play_ends_of_nodes(test, [Face::Filter; 2], Step::Stopped, Signal::STOP);
}

/// Plays the scenarios with this last step; the receiver's node gets the signal.
fn play_ends_of_nodes(test: &str, faces: [Face; 2], last: Step, how: Signal) {
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let (scenarios, sizes) = table();
    let mut sender = lab.python("beta", SENDER, faces[0]);
    for scenario in scenarios.iter().filter(|scenario| scenario.steps.last() == Some(&last)) {
        for &size in &sizes {
            // Its node has to end or stop with its launcher.
            let receiver = lab.python_with("alpha", RECEIVER, faces[1], OWN);
            let ends = Ends { sender, receiver, host: ALPHA, number: String::new() };
            let told;
            let end = |receiver: &Running, _| vanish(how, receiver.id());
            (told, sender) = ends.play_to_the_end(scenario, size, SILENCE, end);
            judge(scenario, size, &format!("{faces:?}"), told, &[]);
        }
    }
}

/// The connections of a killed program end as with the kernel, where another program keeps its node.
#[test]
fn programs_are_told_that_the_receiver_was_killed_as_by_the_kernel() {
    let test = "programs_are_told_that_the_receiver_was_killed_as_by_the_kernel";
    play_killed_programs(test, KEPT, |_| true);
}

/// The node ends with the program. A sender that has not ended its direction by then learns that, even if
/// everything was read.
#[test]
fn programs_are_told_that_the_receiver_was_killed_though_its_node_ends_too() {
    let test = "programs_are_told_that_the_receiver_was_killed_though_its_node_ends_too";
    let is_read = |step: &Step| matches!(step, Step::End | Step::Read(Amount::All));
    play_killed_programs(test, ALONE, |scenario| !scenario.steps.iter().any(is_read));
}

/// Plays the scenarios in which the receiver's program is killed. `shell` is a script that runs the program.
fn play_killed_programs(test: &str, shell: &str, is_played: impl Fn(&Scenario) -> bool) {
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let (scenarios, sizes) = table();
    let is_killed = |scenario: &&Scenario| scenario.steps.last() == Some(&Step::Killed);
    for scenario in scenarios.iter().filter(is_killed).filter(|scenario| is_played(scenario)) {
        for &size in &sizes {
            let told = [Face::Kernel, Face::Overlay, Face::Filter].map(|face| {
                let words = ["sh", "-c", shell, RECEIVER, lab.folder()];
                let receiver = lab.words_with("alpha", &words, face, &[]);
                let ends = Ends::new(lab.python("beta", SENDER, face), receiver, face);
                let kill = |_: &Running, program| vanish(Signal::KILL, program);
                // Its node answers, however busy the machine is.
                ends.play_to_the_end(scenario, size, "0", kill).0
            });
            assert_eq!(told, [told[0]; 3], "{}, {size} bytes", scenario.name);
        }
    }
}

/// The kind of a program's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Face {
    /// Overlay sockets, by the library.
    Overlay,
    /// Overlay sockets, by seccomp notifications.
    Filter,
    Kernel,
}

/// A sender and a receiver that execute orders from stdin.
struct Ends {
    sender: Running,
    receiver: Running,
    host: &'static str,
    /// Number of the last order, which precedes all answers to it.
    number: String,
}

impl Ends {
    fn start(lab: &Lab, [sender, receiver]: [Face; 2]) -> Ends {
        Ends::new(lab.python("beta", SENDER, sender), lab.python("alpha", RECEIVER, receiver), receiver)
    }

    /// `face` is of the receiver.
    fn new(sender: Running, receiver: Running, face: Face) -> Ends {
        let host = if face == Face::Kernel { "127.0.0.1" } else { ALPHA };
        Ends { sender, receiver, host, number: String::new() }
    }

    /// Returns the sender's result, and the data that the receiver has read.
    fn play(&mut self, scenario: &Scenario, size: usize) -> (Outcome, Vec<u8>) {
        self.begin(scenario, size, "0");
        if scenario.steps == [Step::Unlisten] {
            self.wait(&self.sender, "connected ");
            self.receiver.send(b"go\n");
        }
        let told = outcome(&self.wait(&self.sender, "told "));
        let read = fs::read(self.wait(&self.receiver, "done ")).expect("what it has read");
        (told, read)
    }

    /// Plays a scenario in which `end` ends the receiver; it gets the ID of the receiver's program.
    fn play_to_the_end(
        mut self,
        scenario: &Scenario,
        size: usize,
        silence: &str,
        end: impl FnOnce(&Running, u32),
    ) -> (Outcome, Running) {
        self.begin(scenario, size, silence);
        let program = self.wait(&self.receiver, "now ").parse().expect("a process");
        end(&self.receiver, program);
        (outcome(&self.wait(&self.sender, "told ")), self.sender)
    }

    fn begin(&mut self, scenario: &Scenario, size: usize, silence: &str) {
        // The suffix makes sure that no name is the end of another.
        let number = format!("={}-{size}", scenario.name);
        let steps = steps_of(&scenario.name);
        self.receiver.send(format!("{number} {} {size} {steps}\n", self.host).as_bytes());
        let port = self.receiver.wait_for_stderr(&format!("{number} port "));
        self.sender.send(format!("{number} {} {port} {size} {silence}\n", self.host).as_bytes());
        self.number = number;
    }

    fn wait(&self, end: &Running, what: &str) -> String {
        end.wait_for_stderr(&format!("{} {what}", self.number))
    }
}

fn outcome(told: &str) -> Outcome {
    if told == "delivered" { Outcome::Delivered } else { Outcome::Error }
}

impl Lab {
    fn python(&self, member: &str, program: &str, face: Face) -> Running {
        self.python_with(member, program, face, &[])
    }

    fn python_with(&self, member: &str, program: &str, face: Face, options: &[&str]) -> Running {
        self.words_with(member, &["python3", "-c", program, self.folder()], face, options)
    }

    fn words_with(&self, member: &str, words: &[&str], face: Face, options: &[&str]) -> Running {
        for size in table().1 {
            fs::write(self.path(&format!("content-{size}")), content(size)).expect("room for a file");
        }
        match face {
            Face::Overlay => Running::start(self.command(member, options, words)),
            Face::Filter => {
                let options = [&["--mode", "seccomp"], options].concat();
                Running::start(self.command(member, &options, words))
            }
            Face::Kernel => {
                let mut command = Command::new(words[0]);
                command.args(&words[1..]);
                Running::start(command)
            }
        }
    }
}

/// Returns the steps in the table.
fn steps_of(name: &str) -> String {
    let lines = include_str!("../../../tests/delivery/scenarios.txt").lines();
    let mut lines = lines.filter_map(|line| line.split_once(char::is_whitespace));
    let (_, rest) = lines.find(|(first, _)| *first == name).expect("a scenario");
    rest.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

const SENDER: &str = "
import fcntl, os, socket, struct, sys, time

def unacknowledged(s):
    return struct.unpack('i', fcntl.ioctl(s, 0x5411, b'....'))[0]

def send(number, host, port, size, silence):
    s = socket.create_connection((host, port))
    print(number, 'connected', '', file=sys.stderr)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 100))
    if silence:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT:
            s.setsockopt(socket.IPPROTO_TCP, option, 1)
    with open(os.path.join(sys.argv[1], f'content-{size}'), 'rb') as file: s.sendall(file.read())
    s.shutdown(socket.SHUT_WR)
    while s.recv(65536): pass
    while unacknowledged(s):
        error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error: raise OSError(error, os.strerror(error))
        time.sleep(.001)
    error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error: raise OSError(error, os.strerror(error))
    # Python's own `close` says nothing of a reset.
    os.close(s.detach())

for line in sys.stdin:
    number, host, port, size, silence = line.split()
    try:
        send(number, host, int(port), int(size), int(silence))
        print(number, 'told', 'delivered', file=sys.stderr)
    except OSError as error:
        print(number, 'told', error, file=sys.stderr)
";

const RECEIVER: &str = "
import os, socket, struct, sys, time

def play(number, host, size, steps):
    got, c = b'', None
    listener = socket.socket()
    # So that half of the largest size is more than what buffers hold, too: they grow with what is read.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262144)
    listener.bind((host, 0))
    if steps != ['refuse']: listener.listen()
    port = listener.getsockname()[1]
    if steps == ['refuse']: listener.close()
    print(number, 'port', port, file=sys.stderr)
    if steps == ['refuse']: return got
    if steps == ['unlisten']:
        sys.stdin.readline()
        listener.close()
        return got
    for step in steps:
        if step == 'accept':
            c = listener.accept()[0]
            listener.close()
        elif step == 'see': c.recv(1, socket.MSG_PEEK)
        elif step.startswith('read '):
            wanted = {'half': size // 2, 'but-one': size - 1, 'all': size}[step[5:]]
            while len(got) < wanted: got += c.recv(wanted - len(got))
        elif step == 'end':
            while part := c.recv(65536): got += part
        elif step == 'shutdown write': c.shutdown(socket.SHUT_WR)
        elif step == 'shutdown read': c.shutdown(socket.SHUT_RD)
        elif step == 'close': c.close()
        elif step == 'reset':
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            c.close()
        else:
            print(number, 'now', os.getpid(), file=sys.stderr)
            # Without the launcher nobody waits for this process any more.
            launcher = os.getppid()
            while os.getppid() == launcher: time.sleep(0.2)
    return got

while line := sys.stdin.readline():
    number, host, size, steps = line.rstrip().split(' ', 3)
    got = play(number, host, int(size), steps.split(', '))
    path = os.path.join(sys.argv[1], number)
    with open(path, 'wb') as file: file.write(got)
    print(number, 'done', path, file=sys.stderr)
";
