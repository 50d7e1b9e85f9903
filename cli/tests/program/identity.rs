//! `id`, `addr`, and errors that are detected before any packet is sent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Lab, PORT, Running, peersock, run, write_file};
use serde_json::Value;

#[test]
fn id_creates_an_identity_once_and_prints_it_in_two_forms() {
    let lab = Lab::new();
    let first = run(lab.command("a", &["id"])).success();
    let second = run(lab.command("a", &["id"])).success();
    assert_eq!(first.text(), second.text());
    let json = run(lab.command("a", &["id", "--json"])).success();
    let json: Value = serde_json::from_str(json.text()).unwrap();
    let (node_id, key) = (json["node_id"].as_str().unwrap(), json["public_key"].as_str().unwrap());
    assert_eq!((node_id.len(), key.len()), (64, 86));
    assert!(first.text().contains(node_id) && first.text().contains(key));

    let other = run(lab.command("b", &["id"])).success();
    assert_ne!(first.text(), other.text());
    let mode = fs::metadata(lab.state("a").join("identity.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_default_state_directory_follows_the_environment() {
    let lab = Lab::new();
    let mut command = peersock(&["id"]);
    command.env("XDG_STATE_HOME", lab.dir.path());
    run(command).success();
    assert!(lab.dir.path().join("peersock/identity.key").is_file());

    let mut command = peersock(&["id"]);
    command.env_remove("XDG_STATE_HOME").env("HOME", lab.dir.path());
    run(command).success();
    assert!(lab.dir.path().join(".local/state/peersock/identity.key").is_file());
}

#[test]
fn addr_follows_from_identity_and_network() {
    let lab = Lab::new();
    let address = |node: &str, network: &str| {
        run(lab.command(node, &["addr", network])).success().text().trim().to_owned()
    };
    let a = address("a", "ff0001ffff000000");
    assert!(a.starts_with("fd"), "{a}");
    assert_eq!(a, address("a", "FF0001FFFF000000"));
    assert_ne!(a, address("b", "ff0001ffff000000"));
    assert_ne!(a, address("a", "ff0001fffe000000"));

    let json = run(lab.command("a", &["addr", "--json", "ff0001ffff000000"])).success();
    let json: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(json["addresses"][0], a.as_str());
    assert_eq!((&json["ports"]["first"], &json["ports"]["last"]), (&Value::from(1), &Value::from(65535)));
}

#[test]
fn addr_knows_the_addresses_that_a_static_network_gives() {
    let lab = Lab::new();
    let id = run(lab.command("a", &["id", "--json"])).success();
    let key = serde_json::from_str::<Value>(id.text()).unwrap()["public_key"].as_str().unwrap().to_owned();
    let file = lab.dir.path().join("office.toml");
    let path = file.to_str().unwrap();
    write_file(
        &file,
        &format!("network = \"fe00000000000001\"\n[[member]]\nkey = \"{key}\"\naddresses = [\"10.7.0.1\"]\n"),
        0o644,
    );
    let addresses = run(lab.command("a", &["addr", path])).success();
    assert_eq!(addresses.text().lines().nth(1), Some("10.7.0.1"));
    let other = run(lab.command("b", &["id"])).success().text().to_owned();
    let key = other.split_whitespace().last().expect("the key");
    let add = format!("`peersock network add {path} {key} --name NAME`");
    run(lab.command("b", &["addr", path])).failure(1, &["not a member", &add]);
    // All of the output is as good as the key alone, and a running node says the same.
    let add = format!("`peersock network add FILE {key} --name NAME`");
    run(lab.node_in(path, "b", &["dial", "10.7.0.1:80"])).failure(1, &["not a member", &add]);
    assert!(!lab.state("b").join("management.sock").exists(), "a node that has not started leaves nothing");
    run(lab.command("a", &["network", "add", path, &other, "--name", "beta"])).success();
    run(lab.command("b", &["addr", path])).success();
}

#[test]
fn bad_networks_are_wrong_usage_with_the_reason() {
    let lab = Lab::new();
    for (network, words) in [
        ("ff0001ffff00000", &["16 hex"][..]),
        ("ff0001ffff00000g", &["hex"]),
        ("ff0002000100000x", &["hex"]),
        ("ff00020001000000", &["2", "1"]),
        ("fe00000000000001", &["static", "TOML"]),
        ("8056c2e21c000001", &["managed", "peersock join"]),
    ] {
        run(lab.command("a", &["addr", network])).failure(2, words);
        run(lab.node_in(network, "a", &["dial", "[fd00::1]:80"])).failure(2, words);
    }
    run(lab.command("a", &["addr", "./nothing.toml"])).failure(1, &["nothing.toml", "No such file"]);
    run(peersock(&["nonsense"])).failure(2, &["nonsense"]);
    run(lab.node("a", &["listen", "70000"])).failure(2, &["70000"]);
}

#[test]
fn a_faulty_network_file_is_named_with_its_line() {
    let lab = Lab::new();
    let file = lab.dir.path().join("office.toml");
    write_file(&file, "network = \"fe00000000000001\"\nmembers = 1\n", 0o644);
    run(lab.command("a", &["addr", file.to_str().unwrap()])).failure(1, &["office.toml:2:", "members"]);
}

#[test]
fn files_with_secrets_must_be_private() {
    let lab = Lab::new();
    run(lab.command("a", &["id"])).success();
    let key = lab.state("a").join("identity.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    for command in [lab.command("a", &["id"]), lab.node("a", &["listen", &PORT.to_string()])] {
        run(command).failure(1, &["identity.key", "chmod 600"]);
    }

    let secret = lab.dir.path().join("passphrase");
    write_file(&secret, "correct horse\n", 0o644);
    let words = ["dial", "[fd00::1]:80", "--secret-file", secret.to_str().unwrap()];
    run(lab.node("b", &words)).failure(1, &["passphrase", "chmod 600"]);

    let network = lab.dir.path().join("office.toml");
    let id = run(lab.command("b", &["id", "--json"])).success();
    let id: Value = serde_json::from_str(id.text()).unwrap();
    let text = format!(
        "network = \"fe00000000000001\"\npassphrase = \"x\"\n[[member]]\nkey = {}\n",
        id["public_key"]
    );
    write_file(&network, &text, 0o640);
    run(lab.command("b", &["addr", network.to_str().unwrap()])).failure(1, &["office.toml", "chmod 600"]);
}

#[test]
fn a_second_process_on_a_state_directory_is_told_who_holds_it_and_what_to_do() {
    let lab = Lab::new();
    let listening = lab.listen(&[&PORT.to_string()]);
    let second = run(lab.node("listener", &["dial", &listening.target]));
    let holder = listening.running.id().to_string();
    second.failure(1, &[&holder, "--state DIR", "--ephemeral"]);
    // The identity can still be shown.
    run(lab.command("listener", &["id"])).success();
}

#[test]
fn a_taken_overlay_port_is_named() {
    let lab = Lab::new();
    let taken = std::net::UdpSocket::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let words = ["listen", "--overlay-port", &port, "32768"];
    run(lab.node("a", &words)).failure(1, &[&port, "taken"]);
}

#[test]
fn the_end_of_the_reader_ends_the_program_quietly() {
    let lab = Lab::new();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "\"$0\" id --state \"$1\" | true"])
        .arg(env!("CARGO_BIN_EXE_peersock"))
        .arg(lab.state("a"));
    let finished = Running::start(command).finish().success();
    assert_eq!(finished.stderr, "");
}
