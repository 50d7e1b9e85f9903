//! A controller that serves from a disk that becomes full: it refuses machines and goes on for its members.

use std::process::Command;

use peersock_controller::Store;
use serde_json::Value;

use crate::clock_jumps::{Clock, build_library};
use crate::common::lacks;
use crate::machines::Machines;
use crate::running_node::in_namespaces;

/// Runs as `alpha`, whose state directory is a small file system. The folder of all machines, and what makes
/// the clock of a program two hours ahead, are its arguments.
const SCRIPT: &str = r#"set -e
folder=$1
mount -t tmpfs -o size=8m,mode=700 tmpfs "$PEERSOCK_STATE"
on() { local machine=$1; shift; PEERSOCK_STATE=$folder/$machine "$0" "$@"; }
says() { for _ in $(seq 1000); do grep -q "$1" "$folder/said" && return; sleep 0.05; done; exit 8; }
ends() { on beta networks --json | grep -o '"certificate_ends": *[0-9]*' | grep -o '[0-9]*$'; }
fill() { cat /dev/zero > "$PEERSOCK_STATE/large" 2> /dev/null || true; }

"$0" network create team --pool 10.77.0.0/24 --name alpha > "$folder/made" 2>&1
"$0" controller -n team 2> "$folder/said" & controller=$!
trap 'kill $controller; wait' EXIT
says 'serving team'
invite=$("$0" network invite --uses 9)
on beta join "$invite" --as team --name beta
before=$(ends)

fill
# A busy machine may not answer in time.
for _ in $(seq 9); do
    on gamma join "$invite" --as team --name gamma --wait 2s 2> "$folder/refused" && exit 9
    grep -q 'not admitted' "$folder/refused" && break
done
"$0" network invite --name never 2> "$folder/invite" && exit 10
"$0" network change beta --tag never 2> "$folder/change" && exit 11
says 'the store fails'
# To this clock the certificate is old.
(
    export LD_PRELOAD=$2 CLOCK_OFFSET=$3 PEERSOCK_OWN_NODE=1 PEERSOCK_STATE=$folder/beta
    exec "$0" listen -k -n team 7000 2> "$folder/listening"
) & listening=$!
trap 'kill $controller $listening; wait' EXIT
for _ in $(seq 200); do [ "$(ends)" -gt "$before" ] && break; sleep 0.05; done
[ "$(ends)" -gt "$before" ] || exit 12
on gamma networks --json > "$folder/kept"

rm "$PEERSOCK_STATE/large"
on gamma join "$invite" --as team --name gamma
"$0" network members --json > "$folder/members"
"$0" network invites --json > "$folder/invites"

fill
"$0" network invite --name never 2> /dev/null && exit 13
# Another flush fails.
sleep 5.5
rm "$PEERSOCK_STATE/large"
on delta join "$invite" --as team --name delta
on delta ping -n team -c 1 beta > /dev/null
mkdir -m 700 "$folder/backup"
"$0" network backup "$folder/backup/team.db"
"#;

#[test]
fn a_controller_whose_disk_is_full_refuses_machines_renews_and_admits_when_there_is_room() {
    let test = "a_controller_whose_disk_is_full_refuses_machines_renews_and_admits_when_there_is_room";
    if lacks(test, &["cc", "unshare"]) {
        return;
    }
    let machines = Machines::new();
    std::fs::create_dir(machines.directory("alpha")).expect("room");
    let folder = machines.directory("alpha").parent().expect("a folder").to_owned();
    let library = build_library(&folder);
    let clock = Clock::new(&folder, &library, "beta");
    clock.set(7200);
    let given = clock.given_to(Command::new("true"));
    let variable = |wanted: &str| {
        let found = given.get_envs().find(|(name, _)| *name == wanted).and_then(|(_, value)| value);
        found.and_then(|value| value.to_str()).expect("text").to_owned()
    };
    let place = folder.to_str().expect("text");
    let arguments = [place, &variable("LD_PRELOAD"), &variable("CLOCK_OFFSET")];
    let Some(finished) = in_namespaces(&machines, "alpha", &["--mount"], SCRIPT, &arguments) else {
        eprintln!("SKIP {test}: no mount namespace here");
        return;
    };
    let said = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    assert!(finished.status.success(), "{}{}\n{}", finished.text(), finished.stderr, said("said"));
    let json = |name: &str| -> Value { serde_json::from_str(&said(name)).expect("JSON") };

    let refused = said("refused");
    assert!(refused.contains("not admitted: the network's controller cannot decide now"), "{refused}");
    assert!(refused.contains("look at what `peersock controller` says on its machine"), "{refused}");
    assert_eq!(json("kept").as_array().map(Vec::len), Some(0), "{}", said("kept"));
    for command in ["invite", "change"] {
        let words = said(command);
        assert!(words.contains("no space is left for the store") && words.contains("hint: "), "{words}");
    }
    let told = said("said");
    let line = "the store fails: no space is left for the store; renewals go on, admissions wait";
    assert_eq!(told.matches(line).count(), 1, "{told}");
    assert_eq!(told.matches("the store fails").count(), 1, "{told}");

    let (members, invites) = (json("members"), json("invites"));
    let names: Vec<_> =
        members["members"].as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(!members.to_string().contains("never") && !invites.to_string().contains("never"), "{invites}");
    for joined in [
        "joined team as beta, 10.77.0.2",
        "joined team as gamma, 10.77.0.3",
        "joined team as delta, 10.77.0.4",
    ] {
        assert!(finished.text().contains(joined), "{}", finished.text());
    }
    Store::open(&folder.join("backup/team.db")).and_then(|store| store.check()).expect("a good store");
}
