//! `listen --exec`: a program for each connection, which knows who has connected.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::common::{Lab, Listening, Running, lacks, peersock, run, signal, vanish, wait_until};
use crate::proxy::{prepare_sshd, ssh};

/// Returns the file of a static network with these members, by the names of their nodes.
pub(crate) fn network_of(lab: &Lab, members: &[&str]) -> String {
    let path = lab.dir.path().join("office.toml").to_str().unwrap().to_owned();
    for (number, member) in members.iter().enumerate() {
        if number == 0 {
            run(lab.command(member, &["network", "new", &path, "--name", member])).success();
            continue;
        }
        let key = run(lab.command(member, &["id", "--key"])).success().text().trim().to_owned();
        run(lab.command(members[0], &["network", "add", &path, &key, "--name", member])).success();
    }
    path
}

/// Starts `listen --exec sh -c SCRIPT` as alpha.
fn listen(lab: &Lab, network: &str, words: &[&str], script: &str) -> Listening {
    listen_with(lab, lab.node_in(network, "alpha", &["listen", "0"]), words, script)
}

fn listen_with(lab: &Lab, command: Command, words: &[&str], script: &str) -> Listening {
    lab.listen_with(command, &[words, &["--exec", "sh", "-c", script]].concat())
}

fn dial(lab: &Lab, network: &str, member: &str, target: &str) -> Running {
    Running::start(lab.node_in(network, member, &["dial", target]))
}

#[test]
fn a_program_decides_by_who_has_connected() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta", "gamma"]);
    for is_shared in [false, true] {
        decide(&lab, &network, is_shared);
    }
}

fn decide(lab: &Lab, network: &str, is_shared: bool) {
    let mut command = lab.node_in(network, "alpha", &["listen", "0"]);
    if is_shared {
        command.env_remove("PEERSOCK_OWN_NODE").env("PEERSOCK_PERSIST", "0");
    }
    // What this command was started with says nothing of its peers.
    for stale in ["TAGS", "LABEL", "GATEWAY", "CLAIMS", "NAME"] {
        command.env(format!("PEERSOCK_PEER_{stale}"), "beta");
    }
    command.env("REMOTE_HOST", "beta");
    let script = "echo name $PEERSOCK_PEER_NAME
        echo unset ${PEERSOCK_PEER_TAGS-} ${PEERSOCK_PEER_LABEL-} ${PEERSOCK_PEER_CLAIMS-} \
            ${PEERSOCK_PEER_GATEWAY-} ${REMOTE_HOST-}
        echo node ${#PEERSOCK_PEER_NODE} $([ $PEERSOCK_PEER_NODE = $PEERSOCK_PEER_MACHINE ] && echo same)
        echo from $REMOTE_ADDR $PEERSOCK_PEER_ADDRESS
        [ \"$REMOTE_PORT\" = \"$PEERSOCK_PEER_PORT\" ] && ls /proc/$$/fd
        [ \"$PEERSOCK_PEER_NAME\" = beta ] || exit 3
        cat
        echo done";
    let Listening { target, running } = listen_with(lab, command, &["-k"], script);
    for (member, end) in [("beta", "hello\ndone\n"), ("gamma", ""), ("beta", "hello\ndone\n")] {
        let mut dialing = dial(lab, network, member, &target);
        if member == "beta" {
            dialing.send(b"hello\n");
        }
        let dialed = dialing.finish().success();
        let address = run(lab.command(member, &["addr", network])).success();
        let address = address.text().lines().next().unwrap();
        let wanted = format!("name {member}\nunset\nnode 64 same\nfrom {address} {address}\n0\n1\n2\n{end}");
        assert_eq!(dialed.text(), wanted, "{}", dialed.stderr);
    }
    running.wait_for_stderr("gamma");
    running.wait_for_stderr("`sh` has ended with status 3");
    running.interrupt().failure(130, &[]);
}

#[test]
fn a_program_that_ends_first_ends_the_connection_and_its_data_arrives() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    let Listening { target, running } =
        listen(&lab, &network, &[], "echo begin; head -c 3000000 /dev/zero; echo end");
    let mut dialing = dial(&lab, &network, "beta", &target);
    dialing.send(b"this is never read");
    // The dialer has not finished, and is not waited for.
    running.wait_for_end().success();
    wait_until("all data arrives", || dialing.received() == 3_000_010);
    drop(dialing);
    let Listening { target, running } = listen(&lab, &network, &[], "exit 7");
    let dialing = dial(&lab, &network, "beta", &target);
    running.wait_for_end().failure(1, &["`sh` has ended with status 7", "stderr"]);
    drop(dialing);
}

#[test]
fn a_program_that_leaves_data_unread_resets_its_peer() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    for (is_shared, has_ended) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut command = lab.node_in(&network, "alpha", &["listen", "0"]);
        if is_shared {
            command.env_remove("PEERSOCK_OWN_NODE").env("PEERSOCK_PERSIST", "0");
        }
        let Listening { target, running } =
            listen_with(&lab, command, &[], "read line; head -c 300000 /dev/zero; sleep 0.2");
        let mut dialing = dial(&lab, &network, "beta", &target);
        dialing.send(b"read\nand not read");
        let dialed = match has_ended {
            true => dialing.finish(),
            false => dialing.wait_for_end(),
        };
        assert_eq!(dialed.stdout.len(), 300_000, "shared: {is_shared}, ended: {has_ended}");
        dialed.failure(1, &["the connection broke"]);
        running.wait_for_end().success();
    }
}

#[test]
fn a_program_sees_the_end_of_stdin_and_still_writes() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    let Listening { target, running } = listen(&lab, &network, &[], "wc -c; sleep 1; echo later");
    let mut dialing = dial(&lab, &network, "beta", &target);
    dialing.send(&[b'x'; 100_000]);
    assert_eq!(dialing.finish().success().text(), "100000\nlater\n");
    running.wait_for_end().success();
}

#[test]
fn a_reset_ends_a_program_before_it_takes_a_part_for_everything() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    let whole = lab.dir.path().join("whole");
    let script = format!("echo $$; cat > /dev/null; touch {}", whole.display());
    let Listening { target, running } = listen(&lab, &network, &["-k"], &script);
    let mut dialing = dial(&lab, &network, "beta", &target);
    dialing.send(b"a part");
    let process = dialing.wait_for_stdout("\n").trim().to_owned();
    dialing.interrupt().failure(130, &[]);
    running.wait_for_stderr("the peer has reset it");
    wait_until("the program ends", || !Path::new("/proc").join(&process).exists());
    assert!(!whole.exists(), "it took the reset for the end");
    running.interrupt().failure(130, &[]);
}

#[test]
fn a_program_that_goes_on_after_ctrl_c_gets_sigterm() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    let ended = lab.dir.path().join("ended");
    let script = format!("trap 'touch {}; exit' TERM; echo $$; while :; do sleep 0.1; done", ended.display());
    let Listening { target, running } = listen(&lab, &network, &["-k"], &script);
    let dialing = dial(&lab, &network, "beta", &target);
    let process = dialing.wait_for_stdout("\n").trim().to_owned();
    signal(Signal::TERM, running.id());
    running.wait_for_end().failure(143, &["1 program runs still"]);
    wait_until("the program ends", || !Path::new("/proc").join(&process).exists());
    assert!(ended.exists(), "it was not ended by SIGTERM");
    dialing.wait_for_end().failure(1, &["the peer has reset it"]);
}

/// Waits until a process has ended. The process that inherits it may be slow to wait for it.
fn wait_gone(process: &str) {
    let stat = Path::new("/proc").join(process).join("stat");
    wait_until("it does not end", || {
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_and_never_sees_an_end() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    let whole = lab.dir.path().join("whole");
    let script = format!("trap '' TERM; echo $$; cat > /dev/null; touch {}; sleep 1000", whole.display());
    let Listening { target, running } = listen(&lab, &network, &["-k"], &script);
    for way in [Signal::INT, Signal::TERM] {
        let mut dialing = dial(&lab, &network, "beta", &target);
        dialing.send(b"a part");
        let process = dialing.wait_for_stdout("\n").trim().to_owned();
        if way == Signal::INT {
            dialing.interrupt().failure(130, &[]);
        } else {
            signal(way, running.id());
        }
        wait_gone(&process);
    }
    running.wait_for_end().failure(143, &["1 program runs still"]);
    assert!(!whole.exists(), "it took the reset for the end");
}

#[test]
fn what_a_program_has_left_behind_ends_with_the_connection() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    let Listening { target, running } = listen(&lab, &network, &["-k"], "sleep 1000 & echo $!");
    let dialing = dial(&lab, &network, "beta", &target);
    let process = dialing.wait_for_stdout("\n").trim().to_owned();
    dialing.interrupt().failure(130, &[]);
    wait_gone(&process);
    let dialing = dial(&lab, &network, "beta", &target);
    let process = dialing.wait_for_stdout("\n").trim().to_owned();
    running.interrupt().failure(130, &["1 program runs still"]);
    wait_gone(&process);
}

#[test]
fn a_program_gets_sigterm_if_the_command_is_killed() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    let Listening { target, running } = listen(&lab, &network, &["-k"], "echo $$; exec sleep 1000");
    let dialing = dial(&lab, &network, "beta", &target);
    let process = dialing.wait_for_stdout("\n").trim().to_owned();
    vanish(Signal::KILL, running.id());
    wait_gone(&process);
}

#[test]
fn a_program_inherits_the_limit_of_descriptors_and_no_other_descriptors() {
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta"]);
    for is_shared in [false, true] {
        let listen = lab.node_in(&network, "alpha", &["listen", "0"]);
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -Sn 300; exec \"$@\" 7</dev/null", "sh"]);
        command.arg(listen.get_program()).args(listen.get_args());
        let set = listen.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)));
        for (name, value) in set {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if is_shared {
            command.env_remove("PEERSOCK_OWN_NODE").env("PEERSOCK_PERSIST", "0");
        }
        let Listening { target, running } = listen_with(&lab, command, &[], "ulimit -Sn; ls /proc/$$/fd");
        let dialed = dial(&lab, &network, "beta", &target).finish().success();
        assert_eq!(dialed.text(), "300\n0\n1\n2\n");
        running.wait_for_end().success();
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_an_error_at_the_start() {
    let lab = Lab::new();
    for program in ["no-such-program", "/etc/passwd", "./none", "/"] {
        let words = ["listen", "--ephemeral", "-n", &lab.network, "0", "--exec", program, "-x"];
        run(peersock(&words)).failure(2, &["there is no program", program, "PATH"]);
    }
    for other in ["--udp", "--receive-only"] {
        let words = ["listen", "--ephemeral", "-n", &lab.network, other, "0", "--exec", "cat"];
        run(peersock(&words)).failure(2, &["--exec", other, "cannot be used"]);
    }
}

#[test]
fn a_ticket_leads_to_a_program() {
    let lab = Lab::new();
    let mut command = peersock(&["listen", "--ticket", "--interface", "lo"]);
    command.args(["--exec", "sh", "-c", "read line; echo $line ${PEERSOCK_PEER_NAME-nobody}"]);
    let running = Running::start(command);
    let ticket = running.wait_for_stderr("peersock dial ").trim().to_owned();
    let mut dial = peersock(&["dial", "--interface", "lo", &ticket]);
    dial.current_dir(lab.dir.path());
    let mut dialing = Running::start(dial);
    dialing.send(b"hello\n");
    assert_eq!(dialing.finish().success().text(), "hello nobody\n");
    running.wait_for_end().success();
}

#[test]
fn sshd_lets_the_member_in_that_may_log_in() {
    if lacks("sshd_lets_the_member_in_that_may_log_in", &["ssh", "sshd", "ssh-keygen"]) {
        return;
    }
    let lab = Lab::new();
    let network = network_of(&lab, &["alpha", "beta", "gamma"]);
    let dir = lab.dir.path();
    prepare_sshd(dir, "");
    let sshd = peersock_testnet::find_in_path("sshd").unwrap();
    let script = format!(
        "[ \"$PEERSOCK_PEER_NAME\" = beta ] && exec {} -i -e -f {}/sshd_config",
        sshd.display(),
        dir.display()
    );
    let Listening { target, running: _running } = listen(&lab, &network, &["-k"], &script);
    for member in ["beta", "gamma"] {
        let dial = lab.node_in(&network, member, &["dial", "--quiet", &target]);
        let words = [dial.get_program()].into_iter().chain(dial.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let mut ssh = ssh(dir, &words.join(" "));
        ssh.args(["alpha", "echo $((6*7)); cat"]).env("PEERSOCK_OWN_NODE", "1");
        let mut running = Running::start(ssh);
        running.send(b"through a program\n");
        let finished = running.finish();
        match member {
            "beta" => assert_eq!(finished.success().text(), "42\nthrough a program\n"),
            _ => finished.failure(255, &[]),
        }
    }
}
