//! Children of programs are on the overlay, with any environment.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::common::{run, write_file};
use crate::lab::{Lab, behind};

/// Calls that start programs with an empty environment. The started program then has three variables: the
/// library, the node and the rules.
const WAYS: [&str; 14] = [
    "execve",
    "execveat",
    "fexecve",
    "execvpe",
    "execle",
    "execv",
    "execvp",
    "execl",
    "execlp",
    "posix_spawn",
    "posix_spawnp",
    "vfork",
    "execve without",
    "posix_spawn without",
];

/// Command of the server.
const SERVER: &str = "exec socat TCP-LISTEN:7000,fork,reuseaddr SYSTEM:'echo hello'";

#[test]
fn children_with_a_cleared_environment_stay_on_the_overlay() {
    let test = "children_with_a_cleared_environment_stay_on_the_overlay";
    let Some(lab) = Lab::with(test, &["cc", "socat"]) else { return };
    compile(&lab);
    let _serving = lab.start("alpha", &["sh", "-c", SERVER]);
    for options in [&[][..], &["--only"]] {
        let ways = WAYS.map(|way| format!("'{way}'")).join(" ");
        let script = format!("up 7000; for way in {ways}; do ./starts \"$way\" 10.77.0.1 7000; done");
        let got = lab.bash_with("beta", options, &script);
        assert_eq!(got.text(), "hello, 3 variables, others: none\n".repeat(WAYS.len()), "{options:?}");
        // The shell that they start adds further variables.
        let script = "up 7000; for way in system popen; do ./starts $way 10.77.0.1 7000; done";
        let got = lab.bash_with("beta", options, script);
        assert_eq!(got.text().matches("hello, ").count(), 2, "{}", got.text());
    }
}

#[test]
fn what_an_environment_has_stays_there() {
    let test = "what_an_environment_has_stays_there";
    let Some(lab) = Lab::with(test, &["cc", "socat"]) else { return };
    compile(&lab);
    let _serving = lab.start("alpha", &["sh", "-c", SERVER]);
    let ways = "'execve with another library' 'execve with no library' 'execve with many'";
    let script = format!("up 7000; for way in {ways}; do ./starts \"$way\" 10.77.0.1 7000; done");
    assert_eq!(
        lab.bash("beta", &script).text(),
        "hello, 5 variables, others: libc.so.6\n\
         hello, 3 variables, others: none\n\
         hello, 10003 variables, others: none\n"
    );
}

#[test]
fn programs_of_the_shell_with_a_cleared_environment_stay_on_the_overlay() {
    let test = "programs_of_the_shell_with_a_cleared_environment_stay_on_the_overlay";
    let Some(lab) = Lab::with(test, &["python3", "socat", "env"]) else { return };
    let _serving = lab.start("alpha", &["sh", "-c", SERVER]);
    let connect = "import socket; print(socket.create_connection((\"10.77.0.1\", 7000), 30).recv(9).decode(), end=\"\")";
    let python =
        format!("import subprocess, sys; subprocess.run([sys.executable, '-c', '{connect}'], env={{}})");
    lab.write("cleared.py", &python);
    let script = format!(
        "up 7000; python=$(command -v python3)
         env -i \"$python\" -c '{connect}'
         env -u LD_PRELOAD \"$python\" -c '{connect}'
         (exec -c \"$python\" -c '{connect}')
         \"$python\" cleared.py
         env -i \"$python\" cleared.py"
    );
    for options in [&[][..], &["--only"]] {
        assert_eq!(lab.bash_with("beta", options, &script).text(), "hello\n".repeat(5), "{options:?}");
    }
}

/// As with nohup(1), and with a parent that ignores the end of its children.
#[test]
fn signals_that_are_ignored_from_the_start_stay_ignored_and_the_status_is_the_programs() {
    let Some(lab) = Lab::with("signals_that_are_ignored_from_the_start_stay_ignored", &["grep"]) else {
        return;
    };
    let program = ["sh", "-c", "grep SigIgn /proc/self/status; exit 3"];
    let launcher = lab.command("alpha", &[], &program);
    let shell = within("trap '' HUP CHLD USR1 PIPE", &launcher);
    let finished = run(shell);
    assert_eq!(finished.status.code(), Some(3), "{}", finished.text());
    let mask = finished.text().rsplit_once(':').map(|(_, mask)| mask.trim().to_owned());
    let mask = mask.and_then(|mask| u64::from_str_radix(&mask, 16).ok()).expect("a mask");
    let is_ignored = |signal: Signal| mask & (1 << (signal.as_raw() - 1)) != 0;
    assert!(is_ignored(Signal::HUP) && is_ignored(Signal::USR1) && !is_ignored(Signal::TERM), "{mask:x}");
    // systemd starts services like this, so that a write to a disconnected client yields an error.
    assert!(is_ignored(Signal::PIPE), "{mask:x}");
}

/// The program asks for a signal at its parent's end, and the kernel takes the starting thread for that.
#[test]
fn a_program_that_is_not_to_outlive_its_parent_runs_to_its_end() {
    let Some(lab) = Lab::with("a_program_that_is_not_to_outlive_its_parent", &["sh"]) else { return };
    for options in [&[][..], &["--mode", "seccomp"], &["--only"]] {
        for _ in 0..5 {
            let program = ["setpriv", "--pdeathsig", "TERM", "sh", "-c", "sleep 0.2; exit 3"];
            let finished = run(lab.command("alpha", options, &program));
            assert_eq!(finished.status.code(), Some(3), "{options:?}: {}", finished.stderr);
        }
    }
}

/// Without a passphrase the node would silently join a network open to everyone.
#[test]
fn a_node_that_a_program_starts_does_not_lose_the_passphrase_in_silence() {
    let Some(lab) = Lab::with("a_node_that_a_program_starts_does_not_lose_the_passphrase", &[]) else {
        return;
    };
    let network = lab.ad_hoc();
    let secret = lab.write("secret", "correct horse");
    write_file(Path::new(&secret), "correct horse", 0o600);
    let program = [env!("CARGO_BIN_EXE_peersock"), "dial", "--ephemeral", "--interface", "lo", "[fd00::1]:1"];
    for options in [&["--secret-file", &secret][..], &[]] {
        let mut command = lab.command_in(Path::new(&network), "alpha", options, &program);
        command.env("PEERSOCK_NETWORK", &network);
        if options.is_empty() {
            command.env("PEERSOCK_SECRET", "correct horse");
        }
        run(command).failure(2, &["PEERSOCK_SECRET", "--secret-file FILE"]);
    }
}

/// The launcher then cannot inspect the program. If it cannot work at all, it reports that.
#[test]
fn a_launcher_that_is_short_of_descriptors_does_not_blame_the_program() {
    let Some(lab) = Lab::with("a_launcher_that_is_short_of_descriptors", &["sh"]) else { return };
    for limit in (20..=44).step_by(2).chain([31]) {
        let launcher = lab.command("alpha", &[], &["sh", "-c", "exit 3"]);
        let finished = run(within(&format!("ulimit -n {limit}"), &launcher));
        assert!(!finished.stderr.contains("linked statically"), "{limit}: {}", finished.stderr);
        assert!(finished.status.code().is_some_and(|code| code != 0), "{limit}: {}", finished.stderr);
    }
}

/// Returns a command that a shell runs after another.
fn within(before: &str, command: &Command) -> Command {
    behind(&["sh", "-c", &format!("{before}; exec \"$@\""), "sh"], command)
}

fn compile(lab: &Lab) {
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wno-nonnull", "-o"]).arg(lab.path("starts"));
    cc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/starts.c"));
    run(cc).success();
}
