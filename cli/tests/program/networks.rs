//! `peersock network`, and the walkthrough in docs/use/NETWORKS.md.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use peersock_testnet::free_port;
use serde_json::Value;

use crate::common::{Lab, Running, lacks, peersock, run, without_variables, write_file};

#[test]
fn a_network_is_made_edited_and_shown() {
    let lab = Lab::new();
    let file = lab.dir.path().join("office.toml");
    let path = file.to_str().unwrap();
    let mut new = lab.command("a", &["network", "new", path, "--name", "Alpha"]);
    new.args(["--endpoint", "alpha.example.org:7420", "--root", "dns:example.org"]);
    run(new).success();
    assert_eq!(mode(&file) & 0o077 & !0o044, 0);
    let key = run(lab.command("b", &["id", "--key"])).success().text().trim().to_owned();
    let words =
        ["network", "add", path, &key, "--name", "beta", "--address", "10.7.0.2", "--address", "fd99::2"];
    run(lab.command("a", &words)).success();
    run(lab.command("c", &["network", "add", path])).success();

    let shown = run(lab.command("b", &["network", "show", path, "--json"])).success();
    let shown: Value = serde_json::from_str(shown.text()).unwrap();
    assert!(shown["network"].as_str().unwrap().starts_with("fe"), "{shown}");
    assert_eq!((&shown["secret"], &shown["kind"]), (&false.into(), &"static".into()));
    assert_eq!((&shown["ports"]["first"], &shown["ports"]["last"]), (&1.into(), &65535.into()));
    let prefixes = shown["prefixes"].as_array().unwrap();
    assert!(prefixes[0].as_str().unwrap().ends_with("::/48"), "{shown}");
    assert_eq!(prefixes[1..], ["10.7.0.2/32", "fd99::2/128"]);
    assert_eq!(shown["roots"], serde_json::json!(["dns:example.org"]));
    let members = shown["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    assert_eq!(members[0]["endpoints"][0], "alpha.example.org:7420");
    assert_eq!((&members[1]["name"], &members[1]["public_key"]), (&"beta".into(), &key.as_str().into()));
    assert_eq!((&members[1]["addresses"][1], &members[1]["this_node"]), (&"10.7.0.2".into(), &true.into()));
    assert!(members[2]["name"].is_null());
    let text = run(lab.command("b", &["network", "show", path])).success();
    for words in
        ["3 members", "beta", "(this node)", "10.7.0.2", "alpha.example.org:7420", "dns:example.org", &key]
    {
        assert!(text.text().contains(words), "{words} is not in: {}", text.text());
    }
    let mut unnamed = lab.command("b", &["network", "show"]);
    unnamed.env("PEERSOCK_NETWORK", path);
    assert_eq!(run(unnamed).success().text(), text.text());
    // The addresses are the members' own.
    let addresses = run(lab.command("b", &["addr", path])).success();
    assert_eq!(addresses.text().lines().next().unwrap(), members[1]["addresses"][0].as_str().unwrap());

    run(peersock(&["network", "remove", path, "BETA"])).success();
    run(peersock(&["network", "remove", path, members[2]["node_id"].as_str().unwrap()])).success();
    let left = run(lab.command("a", &["network", "show", path])).success();
    assert!(left.text().contains("1 member\n") && !left.text().contains("beta"), "{}", left.text());
    let files: Vec<_> =
        fs::read_dir(lab.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name.to_string_lossy().contains("peersock-network")), "{files:?}");
}

#[test]
fn a_secret_network_is_private_and_stays_so() {
    let lab = Lab::new();
    let file = lab.dir.path().join("office.toml");
    let path = file.to_str().unwrap();
    run(lab.command("a", &["network", "new", path, "--secret"])).success();
    assert_eq!(mode(&file), 0o600);
    let made = fs::read_to_string(&file).unwrap();
    let psk = made.lines().find(|line| line.starts_with("psk = ")).unwrap().to_owned();
    assert_eq!(psk.len(), "psk = ".len() + 66);
    let added = run(lab.command("b", &["network", "add", path])).success();
    assert!(!added.text().contains(&psk[7..20]));
    assert_eq!(mode(&file), 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains(&psk));
    let shown = run(lab.command("b", &["network", "show", path])).success();
    assert!(shown.text().contains("secret") && !shown.text().contains(&psk[7..20]), "{}", shown.text());
}

#[test]
fn what_people_wrote_into_a_file_stays_as_it_is() {
    let lab = Lab::new();
    let key = |node: &str| run(lab.command(node, &["id", "--key"])).success().text().trim().to_owned();
    let (a, b, c) = (key("a"), key("b"), key("c"));
    let real = lab.dir.path().join("real.toml");
    let link = lab.dir.path().join("office.toml");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let path = link.to_str().unwrap();

    let text = format!(
        "# our office\nnetwork   = 'fe00000000000001' # made by hand\n\n# the boss\n[[member]]\nkey = \"{a}\"\n\
         addresses = [ # two of them\n  \"10.7.0.1\",\n  \"fd99::1\",\n]\n# the end\n"
    );
    write_file(&real, &text, 0o640);
    run(lab.command("b", &["network", "add", path, "--name", "beta"])).success();
    let grown = fs::read_to_string(&real).unwrap();
    let expected = format!("\n[[member]]\nname = \"beta\"\nkey = \"{b}\"\n");
    assert!(grown.contains(text.trim_end_matches("# the end\n")) && grown.contains(&expected), "{grown}");
    assert!(grown.contains("# the end"), "{grown}");
    assert_eq!(mode(&real), 0o640);
    assert!(link.is_symlink());
    run(peersock(&["network", "remove", path, "beta"])).success();
    assert!(fs::read_to_string(&real).unwrap().starts_with(text.trim_end_matches("# the end\n")));

    // Uses TOML's other form of a list of tables.
    write_file(
        &real,
        &format!("network = \"fe00000000000001\"\nmember = [{{ key = \"{a}\" }}, {{ key = \"{b}\" }}]\n"),
        0o644,
    );
    run(lab.command("c", &["network", "add", path, "--name", "gamma"])).success();
    run(peersock(&["network", "remove", path, &b])).success();
    let edited = fs::read_to_string(&real).unwrap();
    assert!(edited.contains(&a) && edited.contains(&c) && !edited.contains(&b), "{edited}");

    // A key may look like an option.
    run(peersock(&["network", "remove", path, "-Ikey"])).failure(2, &["-Ikey"]);

    // An invalid change leaves the file as it was.
    run(lab.command("c", &["network", "add", path])).failure(2, &["twice"]);
    assert_eq!(fs::read_to_string(&real).unwrap(), edited);
}

#[test]
fn additions_at_the_same_time_are_all_kept() {
    let lab = Lab::new();
    let file = lab.dir.path().join("office.toml");
    let path = file.to_str().unwrap();
    run(lab.command("first", &["network", "new", path])).success();
    let names: Vec<_> = (0..8).map(|number| format!("node-{number}")).collect();
    let running: Vec<_> = names
        .iter()
        .map(|name| Running::start(lab.command(name, &["network", "add", path, "--name", name])))
        .collect();
    running.into_iter().for_each(|running| drop(running.finish().success()));
    let shown = run(lab.command("first", &["network", "show", path])).success();
    assert!(shown.text().contains("9 members"), "{}", shown.text());
}

/// Runs every command of the page on two machines, which are folders here. `scp` copies between them, the
/// host name is this machine's, and the programs stay on the loopback interface.
#[test]
fn the_way_through_the_documentation_works() {
    if lacks("the_way_through_the_documentation_works", &["bash"]) {
        return;
    }
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/use/NETWORKS.md")).unwrap();
    let lab = Lab::new();
    let machines: BTreeMap<_, _> = ["alpha", "beta"].map(|name| (name, lab.dir.path().join(name))).into();
    let tools = lab.dir.path().join("tools");
    machines.values().chain([&tools]).for_each(|folder| fs::create_dir(folder).unwrap());
    let program = env!("CARGO_BIN_EXE_peersock");
    let program = format!(
        "#!/bin/sh\ncase \"$1\" in listen|dial|ping) set -- \"$@\" --interface lo;; esac\nexec '{program}' \"$@\"\n"
    );
    write_file(&tools.join("peersock"), &program, 0o755);
    let copy = format!("#!/bin/sh\nexec cp \"$1\" '{}'/\"${{2%:}}\"/\n", lab.dir.path().display());
    write_file(&tools.join("scp"), &copy, 0o755);
    let port = free_port().to_string();

    let mut background = Vec::new();
    let mut ran = 0;
    for block in page.split("```sh ").skip(1) {
        let (head, rest) = block.split_once('\n').unwrap();
        let script = rest.split("```").next().unwrap();
        let script = script.replace("alpha.example.org", "localhost").replace("7420", &port);
        let mut words = head.split(' ');
        let command = on_machine(&machines[words.next().unwrap()], &tools, &script);
        ran += 1;
        if words.next() == Some("background") {
            let mut running = Running::start(command);
            running.end_stdin();
            running.wait_for_target();
            background.push(running);
        } else {
            let finished = run(command).success();
            assert!(!finished.stderr.contains("hint:"), "{script}: {}", finished.stderr);
        }
    }
    assert_eq!(ran, 5, "the page has other blocks than this test knows");
    background.into_iter().for_each(|running| drop(running.finish().success()));
    assert_eq!(fs::read_to_string(machines["alpha"].join("received")).unwrap(), "hello\n");
}

fn on_machine(folder: &PathBuf, tools: &Path, script: &str) -> Command {
    let mut command = Command::new("bash");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    command.args(["-e", "-o", "pipefail", "-c", script]).current_dir(folder);
    command.env("PATH", path).env("HOME", folder).env_remove("XDG_STATE_HOME");
    without_variables(&mut command);
    command
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).unwrap();
    assert_eq!(metadata.mode() & 0o777, metadata.permissions().mode() & 0o777);
    metadata.mode() & 0o777
}
