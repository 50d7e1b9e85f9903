//! `peersock up --dns` and `--exit-dns` with the real systemd-resolved. While the interfaces exist, it sends
//! queries for members' names, and for all others behind an exit, to the right servers.
//!
//! It runs in private namespaces, with a private system bus and table of users, so that the machine's
//! resolver stays unchanged. For the same reason its package need not be installed: the variable
//! `PEERSOCK_TEST_RESOLVED` may name a folder with the unpacked package.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::cable::Cable;
use crate::common::{Lab, Running, lacks, run, without_variables};
use crate::exit_scene::{CLIENT, INTERNET, OF_EXIT, ROUTER, Scene, inside};

/// Environment variable with the package's folder, `/` if it is installed.
const FOLDER: &str = "PEERSOCK_TEST_RESOLVED";

/// Script that starts the resolver and its prerequisites.
/// $1: the folder of the package, $2: the lab's folder, $3: peersock, $4: the package's private library.
const RESOLVER: &str = r#"
set -eu
package=$1 lab=$2 peersock=$3 library=$4
mount --make-rprivate /
mount -t proc proc /proc
for file in passwd group; do
  grep -v '^systemd-resolve:' /etc/$file >"$lab/$file" || true
done
echo 'systemd-resolve:x:992:992::/run:/bin/false' >>"$lab/passwd"
echo 'systemd-resolve:x:992:' >>"$lab/group"
mount --bind "$lab/passwd" /etc/passwd
mount --bind "$lab/group" /etc/group
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/systemd/resolve /run/systemd/system
chown 992:992 /run/systemd/resolve
cat >"$lab/bus.conf" <<END
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
    <allow send_type="signal"/><allow receive_type="signal"/>
    <allow send_type="method_return"/><allow receive_type="method_return"/>
    <allow send_type="error"/><allow receive_type="error"/>
  </policy>
</busconfig>
END
dbus-daemon --config-file="$lab/bus.conf" --nofork --nopidfile 2>"$lab/bus.log" &
resolve() { "$package/usr/bin/resolvectl" "$@" 2>&1; }
wait_for() {
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge 60 ]; then
      echo "not within a minute: $*" >&2
      tail -n 5 "$lab"/*.log >&2
      exit 1
    fi
    sleep 0.1
  done
}
wait_for [ -S /run/dbus/system_bus_socket ]
ip link set lo up
start_resolved() {
  LD_LIBRARY_PATH=$library setpriv --reuid 992 --regid 992 --clear-groups --inh-caps +net_bind_service,+net_raw,+setpcap \
    --ambient-caps +net_bind_service,+net_raw,+setpcap "$package/lib/systemd/systemd-resolved" 2>>"$lab/resolved.log" &
  resolved=$!
  wait_for resolve status
}
start_resolved
PATH=$package/usr/bin:$PATH
"#;

/// Script that queries while `peersock up --dns` runs, and after its end.
const NAMES: &str = r#"
"$peersock" up --dns --network "$lab/office.toml" --state "$lab/state" --interface lo \
  2>"$lab/up.log" >"$lab/shown" &
up=$!
wait_for grep -q 10.97.0.1 "$lab/shown"
cat "$lab/up.log"
resolve query --cache=no two.peersock.internal || true
resolve query --cache=no 10.97.0.2 || true
resolve status peersock0 || true
kill $up
wait $up || true
resolve status | grep -c peersock || true
"#;

/// Script that queries while `peersock up` uses an exit with a resolver behind it, first alone and then with
/// `--dns` for another network. In between, the machine's resolver is restarted.
const EXIT: &str = r#"
resolvectl dns eth0 10.98.7.254
resolvectl domain eth0 lan
resolvectl default-route eth0 yes
ask() { resolve query --cache=no "$1" || true; }
start() {
  : >"$lab/shown"
  "$peersock" up --state "$lab/client" --no-portmap --exit gate --user nobody "$@" 2>"$lab/up.log" >"$lab/shown" &
  up=$!
  wait_for grep -q 10.97.0.1 "$lab/shown"
  cat "$lab/up.log"
}
stop() {
  kill $up
  wait $up || true
}
ask before.example
start --network "$lab/office.toml" --exit-dns 198.51.100.9
ask away.example
ask printer.lan
resolve status peersock0
kill $resolved
wait $resolved || true
start_resolved
ask restarted.example
stop
ask after.example
start --network "$lab/home.toml" --dns --network "$lab/office.toml" --exit-dns 2001:db8:100::9
ask both.example
ask two.peersock.internal
ask nobody.peersock.internal
stop
ask end.example
resolve status | grep -c peersock || true
"#;

/// Name server on port 53: returns the given address for every name, and prints the queries with senders.
const SERVE_NAMES: &str = "import socket, struct, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(('::', 53))
print('ready', flush=True)
while True:
    asked, who = s.recvfrom(2000)
    at, labels = 12, []
    while asked[at]:
        labels.append(asked[at + 1:at + 1 + asked[at]].decode())
        at += 1 + asked[at]
    question = asked[12:at + 5]
    is_a = question[-4:] == bytes([0, 1, 0, 1])
    print('.'.join(labels), 'by', who[0].removeprefix('::ffff:'), flush=True)
    answer = asked[:2] + struct.pack('!HHHHH', 0x8180, 1, is_a, 0, 0) + question
    if is_a:
        answer += struct.pack('!HHHIH', 0xc00c, 1, 1, 60, 4) + socket.inet_aton(sys.argv[1])
    s.sendto(answer, who)";

#[test]
fn systemd_resolved_asks_for_names_of_members() {
    let Some(package) = package("systemd_resolved_asks_for_names") else { return };
    let Some(cable) = Cable::lay("upresolved", &["10.98.7.1/24"]) else { return };
    let lab = Lab::new();
    let folder = lab.dir.path();
    // The folder is accessible to another user's program.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.join("office.toml");
    let file = file.to_str().unwrap();
    for (node, name, address) in [("up", "one", "10.97.0.1"), ("other", "two", "10.97.0.2")] {
        let word = if name == "one" { "new" } else { "add" };
        run(lab.command(node, &["network", word, file, "--name", name, "--address", address])).success();
    }
    fs::rename(lab.state("up"), folder.join("state")).unwrap();
    let shown = beside_resolver(&cable.ends[0], &package, folder, NAMES).finish().success();
    let text = shown.text();
    assert!(text.contains("members have names in peersock.internal\n"), "{text}");
    let link = "-- link: peersock0";
    let has = |words: [&str; 2]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    for words in ["two.peersock.internal: ", " 10.97.0.2", " fd"] {
        assert!(has([words, link]), "{words}: {text}");
    }
    assert!(has(["10.97.0.2: two.peersock.internal", link]), "{text}");
    assert!(has(["DNS Domain:", "peersock.internal"]) && has(["Protocols:", "-DefaultRoute"]), "{text}");
    assert!(text.ends_with("\n0\n"), "the resolver still knows of it: {text}");
}

/// With `--exit-dns`, also with `--dns`, all names go through the exit, except names in the local network's
/// domain and names of members.
#[test]
fn systemd_resolved_asks_behind_the_exit() {
    let test = "systemd_resolved_asks_behind_the_exit";
    let Some(package) = package(test) else { return };
    let Some(scene) = Scene::lay("exitresolved", &["0.0.0.0/0", "::/0"]) else { return };
    let folder = scene.lab.dir.path();
    let file = folder.join("home.toml");
    let file = file.to_str().unwrap();
    run(inside(&scene.places[CLIENT], &["chown", "-R", "root", scene.lab.state("client").to_str().unwrap()]))
        .success();
    for (node, name, address) in [("client", "one", "10.96.0.1"), ("other", "two", "10.96.0.2")] {
        let word = if name == "one" { "new" } else { "add" };
        run(scene.lab.command(node, &["network", word, file, "--name", name, "--address", address]))
            .success();
    }
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    scene.give("client");
    let serve = |place: usize, address: &str| {
        let server = Running::start(inside(&scene.places[place], &["python3", "-c", SERVE_NAMES, address]));
        server.wait_for_stdout("ready");
        server
    };
    let (local, far) = (serve(ROUTER, "192.0.2.1"), serve(INTERNET, "192.0.2.9"));
    let gate = scene.gate();
    let shown = beside_resolver(&scene.places[CLIENT], &package, folder, EXIT).finish();
    let said = || [gate.said(), shown.stderr.clone()].concat();
    let text = shown.text();
    let has = |words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    let by_far = |name: &str, interface: &str| {
        assert!(
            has(&[&format!("{name}: 192.0.2.9"), &format!("-- link: {interface}")]),
            "{name}: {text}{}",
            said()
        );
        let asked = far.shown();
        let asked: Vec<_> = asked.lines().filter(|line| line.starts_with(&format!("{name} by "))).collect();
        // The queries come through the translating exit; no server on the local network has seen the name.
        assert!(
            !asked.is_empty() && asked.iter().all(|line| OF_EXIT.iter().any(|own| line.ends_with(own))),
            "{asked:?}"
        );
        assert!(!local.shown().contains(name), "{}", local.shown());
    };
    let by_local = |name: &str| {
        assert!(has(&[&format!("{name}: 192.0.2.1"), "-- link: eth0"]), "{name}: {text}{}", said());
        assert!(!far.shown().contains(name), "{}", far.shown());
    };
    by_local("before.example");
    assert!(has(&["names are asked of 198.51.100.9 by way of the exit"]), "{text}");
    by_far("away.example", "peersock0");
    by_local("printer.lan");
    assert!(has(&["DNS Domain:", "~."]) && has(&["Protocols:", "+DefaultRoute"]), "{text}");
    by_far("restarted.example", "peersock0");
    by_local("after.example");
    assert!(has(&["members have names in peersock.internal"]), "{text}");
    by_far("both.example", "peersock1");
    for words in ["two.peersock.internal: ", " 10.96.0.2"] {
        assert!(has(&[words, "-- link: peersock0"]), "{text}{}", said());
    }
    assert!(has(&["nobody.peersock.internal", "not found"]), "{text}{}", said());
    for server in [&local, &far] {
        assert!(!server.shown().contains("peersock.internal"), "{}", server.shown());
    }
    by_local("end.example");
    assert!(text.ends_with("\n0\n"), "the resolver still knows of it: {text}");
    shown.success();
}

/// Runs a script with the resolver, in a place with a private system bus.
fn beside_resolver(place: &str, package: &Path, folder: &Path, script: &str) -> Running {
    let script = [RESOLVER, script].concat();
    let mut command = inside(place, &["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c"]);
    command.args([&script, "bash"]).arg(package).arg(folder).arg(env!("CARGO_BIN_EXE_peersock"));
    command.arg(library(package));
    without_variables(&mut command);
    Running::start(command)
}

/// Returns the root of the package's files, if all prerequisites of a test are present.
fn package(test: &str) -> Option<PathBuf> {
    let folders = [env::var_os(FOLDER).map(PathBuf::from), Some(PathBuf::from("/"))];
    let found = folders.into_iter().flatten();
    let found = found.into_iter().find(|folder| folder.join("lib/systemd/systemd-resolved").exists());
    if found.is_none() {
        eprintln!("SKIP {test}: systemd-resolved is not installed, and {FOLDER} names no folder that has it");
    }
    found.filter(|_| !lacks(test, &["dbus-daemon", "setpriv", "unshare", "mount"]))
}

/// Returns the folder of the library that systemd's programs share; it depends on the architecture.
fn library(package: &Path) -> PathBuf {
    let has_it = |folder: &Path| {
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        names.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libsystemd-shared"))
    };
    let places = ["lib", "usr/lib"].map(|place| fs::read_dir(package.join(place)));
    let places = places.into_iter().flatten().flatten().flatten().map(|entry| entry.path().join("systemd"));
    places.into_iter().find(|folder| has_it(folder)).unwrap_or_else(|| package.join("lib/systemd"))
}
