//! Privileges that `peersock up` keeps and drops, and the users it changes to.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use crate::common::{Running, lacks, run};
use crate::exit_scene::{CLIENT, OF_EXIT, SERVER, Scene};
use crate::observe::is_running;
use crate::up_office::{NAME, NOBODY, Office, V4};

/// Returns a field of a process's status.
fn field(process: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.expect("a field").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the processes beside that of a command.
fn beside(process: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).expect("it runs");
    children.split_whitespace().map(|child| child.parse().expect("a number")).collect()
}

/// Returns the guard process of a command.
fn guard_of(process: u32) -> u32 {
    let is_guard = |child: &u32| field(*child, "CapPrm") == "0000000000001000";
    let guards: Vec<_> = beside(process).into_iter().filter(is_guard).collect();
    let [guard] = guards[..] else { panic!("one guard, and not {guards:?}") };
    guard
}

/// Root without capabilities still owns the system's files.
#[test]
fn what_root_starts_goes_on_as_another_user_and_its_state_stays_root_s() {
    let Some(office) = Office::lay("uproot") else { return };
    let (up, _other) = (office.up(0), office.up(1));
    let user: Vec<_> = field(up.id(), "Uid").split(' ').map(str::to_owned).collect();
    assert!(
        user.iter().all(|id| *id == user[0] && (61_184..65_520).contains(&id.parse().expect("a number")))
    );
    let guard = guard_of(up.id());
    for process in [up.id(), guard] {
        assert_eq!(field(process, "Uid"), user.join(" "));
        assert_eq!(field(process, "Gid"), user.join(" "));
        assert_eq!((field(process, "Groups"), field(process, "NoNewPrivs")), (String::new(), "1".to_owned()));
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(field(process, set), "0000000000000000", "{set}");
        }
    }
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(field(up.id(), set), "0000000000000000", "{set}");
        // The guard has only CAP_NET_ADMIN.
        assert_eq!(field(guard, set), "0000000000001000", "{set}");
    }
    // The process that writes root's files can do nothing else, and has nothing but its end of a stream.
    let keeper: Vec<_> = beside(up.id()).into_iter().filter(|child| *child != guard).collect();
    let [keeper] = keeper[..] else { panic!("one keeper, and not {keeper:?}") };
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(field(keeper, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(keeper, "NoNewPrivs"), "1");
    assert_eq!(fs::read_dir(format!("/proc/{keeper}/fd")).expect("it runs").count(), 4);
    // The guard has neither the interface nor a socket that receives from others.
    let open = fs::read_dir(format!("/proc/{guard}/fd")).expect("it runs");
    let open: Vec<_> = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).collect();
    assert!(!open.iter().any(|path| path.ends_with("tun")), "{open:?}");
    office.ping(0, V4[1], "56");
    // Root can query it, and the state's files are unchanged.
    let state = office.lab.state("up0");
    let asked = run(office.lab.command("up0", &["status", "--json"])).success();
    assert!(asked.text().contains("\"peers\""), "{}", asked.text());
    up.interrupt().failure(130, &[]);
    for file in fs::read_dir(&state).expect("it is there") {
        assert_eq!(file.expect("a file").metadata().expect("a file").uid(), 0);
    }
    office.up(0).interrupt().failure(130, &[]);
}

/// The file of a network lists the user, and not root.
#[test]
fn by_sudo_the_command_has_the_identity_of_the_user_who_has_called_it() {
    let Some(office) = Office::lay("upsudo") else { return };
    let (home, state) = office.give_to_nobody();
    // The user's settings count, and not root's.
    let settings = home.join(".config/peersock");
    let of_root = office.lab.dir.path().join("root-settings/.config/peersock");
    for (folder, text) in [
        (&settings, format!("[networks]\noffice = \"{}\"\n", office.file())),
        (&of_root, "port = \"of root\"\n".to_owned()),
    ] {
        fs::create_dir_all(folder).expect("a folder");
        crate::common::write_file(&folder.join("config.toml"), &text, 0o600);
    }
    for path in [settings.join("config.toml"), settings.clone(), home.join(".config")] {
        std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).expect("root may");
    }
    let command = || {
        let mut command = office.inside(0, &[env!("CARGO_BIN_EXE_peersock"), "up", "--network", "office"]);
        command.env_remove("PEERSOCK_CONFIG").env_remove("XDG_CONFIG_HOME");
        command.env("SUDO_UID", NOBODY).env("SUDO_HOME", &home).env_remove("XDG_STATE_HOME");
        command.env("HOME", office.lab.dir.path().join("root-settings"));
        command
    };
    let up = Running::start(command());
    up.wait_for_stdout(V4[0]);
    let line = format!(
        "reads files as user id {NOBODY}, who has called sudo, with the identity in {}",
        state.display()
    );
    assert!(up.said().contains(&line), "{}", up.said());
    for process in [up.id(), guard_of(up.id())] {
        assert_eq!(field(process, "Uid"), [NOBODY; 4].join(" "));
    }
    // The second one is told at once, before it has made anything.
    run(command()).failure(1, &["a node runs with", "`peersock node --end`"]);
    up.interrupt().failure(130, &[]);
    let files: Vec<_> =
        fs::read_dir(&state).expect("it is there").map(|file| file.expect("a file")).collect();
    assert!(files.iter().all(|file| file.metadata().expect("a file").uid() == 65_534), "{files:?}");
    assert!(!office.lab.dir.path().join("root-settings/.local").exists(), "root's own state is not touched");
}

/// A killed command takes its interface and its filter with it.
#[test]
fn nothing_is_left_of_a_command_that_is_killed() {
    let Some(office) = Office::lay("upkilled") else { return };
    let mut up = office.up(0);
    let guard = guard_of(up.id());
    crate::common::vanish(rustix::process::Signal::KILL, up.id());
    up.end_stdin();
    up.wait_for_end();
    let begin = std::time::Instant::now();
    while is_running(guard) || office.run(0, &["ip", "link", "show", NAME]).status.success() {
        assert!(begin.elapsed() < crate::common::PATIENCE, "something is left");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Network managers flush such rules on each of their changes.
#[test]
fn rules_of_an_exit_that_somebody_removes_are_set_again_and_said() {
    let Some(scene) = Scene::lay("exitrules", &["0.0.0.0/0", "::/0"]) else { return };
    let gate = scene.gate();
    let client = scene.client();
    assert_eq!(scene.seen(SERVER[0]), OF_EXIT[0], "{}{}", client.said(), gate.said());
    let with_exit = scene.routing();
    for family in ["-4", "-6"] {
        scene.run(CLIENT, &["ip", family, "rule", "flush", "protocol", "74"]).success();
    }
    scene.run(CLIENT, &["ip", "route", "flush", "table", "74"]).success();
    client.wait_for_stderr("could bypass the exit");
    let begin = std::time::Instant::now();
    while scene.routing() != with_exit {
        assert!(
            begin.elapsed() < crate::common::PATIENCE,
            "{}\n{with_exit}\n{}",
            scene.routing(),
            client.said()
        );
    }
    for (server, by) in SERVER.iter().zip(OF_EXIT) {
        assert_eq!(scene.seen(server), by, "{}{}", client.said(), gate.said());
    }
    client.interrupt().failure(130, &[]);
    assert!(!scene.routing().contains("74"), "{}", scene.routing());
}

/// File capabilities apply to every user who may run the file.
#[test]
fn a_file_that_gives_the_capability_to_everybody_is_refused() {
    if lacks("a_file_that_gives", &["setcap", "setpriv", "unshare", "mknod"]) {
        return;
    }
    let Some(office) = Office::lay("upsetcap") else { return };
    let place = office.lab.dir.path();
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let program = place.join("peersock");
    fs::copy(env!("CARGO_BIN_EXE_peersock"), &program).expect("there is room");
    let give = |mode: u32| {
        std::os::unix::fs::chown(&program, Some(0), Some(65_534)).expect("root may");
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("it is ours");
        let mut setcap = Command::new("setcap");
        setcap.arg("cap_net_admin+ep").arg(&program);
        Running::start(setcap).finish().status.success()
    };
    if !give(0o755) {
        eprintln!("SKIP a_file_that_gives: its file system keeps no capabilities of files");
        return;
    }
    let script =
        "set -e; lab=$1; shift; mkdir -p $lab/dev; mount -t tmpfs tmpfs $lab/dev; mknod $lab/dev/tun c 10 200
        chmod 666 $lab/dev/tun; mount --bind $lab/dev/tun /dev/net/tun
        exec setpriv --reuid 65533 --regid 65534 --clear-groups \"$@\"";
    let start = |words: &[&str]| {
        let mut command = office.inside(0, &["unshare", "--mount", "bash", "-c", script, "bash"]);
        command.arg(place).arg(&program).args(words);
        command
    };
    let up = ["up", "--ephemeral", "--network", &office.lab.network];
    run(start(&up)).failure(1, &["everybody may run it", "chmod 0750", "setcap"]);
    // Follows the advice.
    assert!(give(0o750));
    let up = Running::start(start(&up));
    up.wait_for_stdout(":");
    up.interrupt().failure(130, &[]);
    // No command lets a user who may run the file change other users' rules.
    run(start(&["up-guard"])).failure(2, &[]);
}
