//! `peersock up --dns` beside the real systemd-resolved, which knows whom to ask for names of members while the
//! interface is there, and no longer.
//!
//! It runs in namespaces of its own, with a system bus and a table of users that nobody else sees, so that the
//! machine's resolver stays what it is. For the same reason its package need not be installed: the variable
//! `PEERSOCK_TEST_RESOLVED` may name a folder that the package was unpacked into.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cable::Cable;
use crate::common::{Lab, Running, lacks, run};

/// Where the package is, `/` if it is installed.
const FOLDER: &str = "PEERSOCK_TEST_RESOLVED";

/// Starts what the resolver needs, `peersock up` between two questions, and asks again after its end.
/// $1: the folder of the package, $2: the lab's, $3: peersock, $4: the library that is the package's own.
const SCRIPT: &str = r#"
set -eu
package=$1 lab=$2 peersock=$3
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
LD_LIBRARY_PATH=$4 setpriv --reuid 992 --regid 992 --clear-groups --inh-caps +net_bind_service,+net_raw,+setpcap \
  --ambient-caps +net_bind_service,+net_raw,+setpcap "$package/lib/systemd/systemd-resolved" 2>"$lab/resolved.log" &
wait_for resolve status
PATH=$package/usr/bin:$PATH "$peersock" up --dns --network "$lab/office.toml" --state "$lab/state" --interface lo \
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

#[test]
fn systemd_resolved_asks_for_names_of_members() {
    let test = "systemd_resolved_asks_for_names";
    let Some(package) = package() else {
        eprintln!("SKIP {test}: systemd-resolved is not installed, and {FOLDER} names no folder that has it");
        return;
    };
    if lacks(test, &["dbus-daemon", "setpriv", "unshare", "mount"]) {
        return;
    }
    let Some(cable) = Cable::lay("upresolved", &["10.98.7.1/24"]) else { return };
    let lab = Lab::new();
    let folder = lab.dir.path();
    // Another user's program passes through.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.join("office.toml");
    let file = file.to_str().unwrap();
    for (node, name, address) in [("up", "one", "10.97.0.1"), ("other", "two", "10.97.0.2")] {
        let word = if name == "one" { "new" } else { "add" };
        run(lab.command(node, &["network", word, file, "--name", name, "--address", address])).success();
    }
    fs::rename(lab.state("up"), folder.join("state")).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &cable.ends[0]]);
    command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", SCRIPT, "bash"]);
    command.arg(&package).arg(folder).arg(env!("CARGO_BIN_EXE_peersock")).arg(library(&package));
    let shown = Running::start(command).finish().success();
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

/// The root of the files of the package.
fn package() -> Option<PathBuf> {
    let folders = [env::var_os(FOLDER).map(PathBuf::from), Some(PathBuf::from("/"))];
    folders.into_iter().flatten().find(|folder| folder.join("lib/systemd/systemd-resolved").exists())
}

/// The folder of the library that systemd's programs share, which depends on the system's architecture.
fn library(package: &Path) -> PathBuf {
    let has_it = |folder: &Path| {
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        names.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libsystemd-shared"))
    };
    let places = ["lib", "usr/lib"].map(|place| fs::read_dir(package.join(place)));
    let places = places.into_iter().flatten().flatten().flatten().map(|entry| entry.path().join("systemd"));
    places.into_iter().find(|folder| has_it(folder)).unwrap_or_else(|| package.join("lib/systemd"))
}
