//! Static networks that `join` keeps by a local name.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::common::{Running, run};
use crate::machines::Machines;

#[test]
fn a_static_network_that_was_joined_is_used_by_its_name() {
    let machines = Machines::new();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("Office.toml");
    let path = file.to_str().unwrap();
    machines.ok("alpha", &["network", "new", path, "--name", "alpha"]);
    machines.ok("beta", &["network", "add", path, "--name", "beta"]);
    let joined = machines.ok("alpha", &["join", path]);
    assert!(joined.starts_with("joined office as alpha: static network fe"), "{joined}");
    assert!(machines.ok("beta", &["join", path, "--as", "work"]).starts_with("joined work as beta: "));
    let kept = machines.directory("alpha").join("networks/office.toml");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(&file).unwrap();

    // One file that cannot be read hides no other network.
    let broken = machines.directory("alpha").join("networks/broken.toml");
    fs::write(&broken, "nothing").unwrap();
    let listed = machines.ok("beta", &["networks"]);
    assert!(listed.starts_with("work ") && listed.contains("  beta  static, 2 members"), "{listed}");
    let json: Value = serde_json::from_str(&machines.ok("alpha", &["networks", "--json"])).unwrap();
    let told = ["kind", "local_name", "member"].map(|key| json[0][key].as_str().unwrap());
    assert_eq!(told, ["static", "office", "alpha"]);
    fs::remove_file(&broken).unwrap();
    let listening =
        Running::start(machines.command("beta", &["listen", "--receive-only", "-n", "work", "7000"]));
    listening.wait_for_stderr("listening on ");
    run(machines.command("alpha", &["dial", "-n", "office", "beta:7000"])).success();
    listening.finish().success();
    assert!(machines.ok("alpha", &["network", "show", "office"]).contains("beta"));
    let run_there = ["run", "-q", "-n", "office", "--", "true"];
    machines.ok("alpha", &run_there);

    assert_eq!(machines.ok("alpha", &["leave", "office"]), "left office");
    assert!(!kept.exists());
    assert_eq!(machines.ok("alpha", &["networks"]), "");
    assert!(machines.refused("alpha", &run_there).contains("`office` is neither a network"));
    assert!(machines.refused("alpha", &["leave", "office"]).contains("has not joined `office`"));
    let id = json[0]["network"].as_str().unwrap();
    assert!(machines.ok("beta", &["leave", id]).contains("left"));
}

#[test]
fn each_network_has_a_name_of_its_own() {
    let machines = Machines::new();
    let (_, _serving) = machines.network();
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(place.path().join("other")).unwrap();
    let [first, second] = ["team.toml", "other/team.toml"].map(path);
    for file in [&first, &second] {
        machines.ok("alpha", &["network", "new", file, "--name", "alpha"]);
    }
    // The managed network has the name already.
    assert!(machines.ok("alpha", &["join", &first]).starts_with("joined team-2 as alpha"));
    assert!(machines.ok("alpha", &["join", &second]).starts_with("joined team-3 as alpha"));
    // The same network keeps its name, and another one does not get it. The author of a file chooses its ID,
    // so it replaces the file of that name alone.
    for words in [&[&*first][..], &[&first, "--as", "lab"], &[&second, "--as", "team-2"]] {
        let refused = machines.refused("alpha", &[&["join"], words].concat());
        assert!(refused.contains("is kept here as team-"), "{refused}");
    }
    assert!(machines.ok("alpha", &["join", &first, "--as", "team-2"]).starts_with("joined team-2 "));
    machines.ok("alpha", &["leave", "team-2"]);
    for name in ["team", "team-3"] {
        let taken = machines.refused("alpha", &["join", &first, "--as", name]);
        assert!(taken.contains("choose another name"), "{taken}");
    }
    assert!(machines.ok("alpha", &["join", &first, "--as", "lab"]).starts_with("joined lab "));
    let listed = machines.ok("alpha", &["networks"]);
    let names: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["team", "lab", "team-3"]);
    let taken = machines.refused("alpha", &["network", "create", "lab"]);
    assert!(taken.contains("choose another name"), "{taken}");
    // An invite finds another name, too.
    machines.ok("beta", &["join", &first, "--as", "team"]);
    let joined = machines.ok("beta", &["join", &machines.invite(&["--name", "beta"])]);
    assert!(joined.starts_with("joined team-2 as beta"), "{joined}");
}

#[test]
fn a_damaged_record_of_one_network_leaves_the_others_usable() {
    let machines = Machines::new();
    let (id, _) = machines.create(&[]);
    machines.ok("alpha", &["network", "create", "other"]);
    let office = machines.directory("alpha").join("office.toml");
    let office = office.to_str().unwrap();
    machines.ok("alpha", &["network", "new", office, "--name", "alpha"]);
    machines.ok("alpha", &["join", office]);
    fs::write(machines.directory("alpha").join(format!("{id}.network")), "").unwrap();
    for words in [&["networks"][..], &["networks", "--json"]] {
        let listed = run(machines.command("alpha", words));
        listed.failure(1, &[&id, "remove the file and join the network again"]);
        assert!(listed.text().contains("other") && listed.text().contains("office"), "{}", listed.text());
    }
    for name in ["other", "office"] {
        machines.ok("alpha", &["addr", name]);
    }
    // It may be the one that is meant.
    assert!(machines.refused("alpha", &["addr", "team"]).contains(&id));
    machines.ok("alpha", &["network", "create", "third"]);
}

#[test]
fn a_file_with_a_mistake_is_not_kept() {
    let machines = Machines::new();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("office.toml");
    let path = file.to_str().unwrap();
    for (text, said) in [
        ("network = \"fe00000000000001\"\n[[member]\n", "office.toml:2:10: "),
        ("network = \"fe00000000000001\"\n", "office.toml:"),
        ("", "office.toml:"),
    ] {
        fs::write(&file, text).unwrap();
        let refused = machines.refused("alpha", &["join", path]);
        assert!(refused.contains(said), "{text:?}: {refused}");
        assert!(refused.contains("hint: "), "{refused}");
        assert!(!machines.directory("alpha").join("networks").exists());
    }
    fs::remove_file(&file).unwrap();
    machines.ok("alpha", &["network", "new", path, "--name", "alpha", "--secret"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let open = machines.refused("alpha", &["join", path]);
    assert!(open.contains("office.toml"), "{open}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let number = place.path().join("12 %.toml");
    fs::rename(&file, &number).unwrap();
    let unnamed = machines.refused("alpha", &["join", number.to_str().unwrap()]);
    assert!(unnamed.contains("--as NAME"), "{unnamed}");
    assert_eq!(machines.ok("alpha", &["networks"]), "");
}
