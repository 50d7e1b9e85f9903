//! `ping` and `members` by the node that runs with the state directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{
    Finished, Lab, Listening, PATIENCE, PORT, Running, address_of, peersock, run, signal, vanish, write_file,
};
use crate::flow::Scene;
use crate::nats::wait_for_status;

/// Two nodes that listen, `here` and `there`; `here` is the one to ask.
fn two(lab: &Lab) -> ([Listening; 2], String) {
    let nodes = ["here", "there"]
        .map(|name| lab.listen_with(lab.node(name, &["listen"]), &["-k", &PORT.to_string()]));
    let there = address_of(lab, "there");
    (nodes, there)
}

/// Pings by the node of the state `here`.
fn ping(lab: &Lab, words: &[&str]) -> Finished {
    run(lab.node("here", &[&["ping"], words].concat()))
}

#[test]
fn a_node_that_runs_pings_and_its_path_is_shown() {
    let lab = Lab::new();
    let ([here, _there], there) = two(&lab);
    let pinged = ping(&lab, &["-c", "3", "-i", "0", "-s", "1000", &there]).success();
    for words in [
        &format!("PING {there} in network {}: 1000 bytes", lab.network),
        "path taken: direct to 127.0.0.1:",
        "1000 bytes from ",
        "seq=3 hlim=64 time=",
        "3 requests transmitted, 3 replies received, 0% loss",
    ] {
        assert!(pinged.text().contains(words), "{words:?} is not in: {}", pinged.text());
    }
    // Without the network, which is the node's only one; in fragments.
    let words = ["ping", "--json", "--until-direct", "-s", "65000", "-W", "90", &there];
    let json = run(lab.command("here", &words)).success();
    let json: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!((&json["transmitted"], &json["received"]), (&1.into(), &1.into()), "{json}");
    assert_eq!((&json["path"]["direct"], &json["attempts"]), (&true.into(), &Value::Array(Vec::new())));
    assert!(json["median_ms"].as_f64().unwrap() > 0.0, "{json}");

    let endless = Running::start(lab.node("here", &["ping", "-i", "0.01", &there]));
    endless.wait_for_stdout("seq=2 ");
    let endless = endless.interrupt().success();
    assert!(endless.text().contains("ping statistics"), "{}", endless.text());
    // The session is the node's.
    let status = run(lab.command("here", &["status", "--json"])).success();
    let status: Value = serde_json::from_str(status.text()).unwrap();
    assert_eq!(status["peers"][0]["connected"], true, "{status}");

    let endless = Running::start(lab.node("here", &["ping", "-i", "0.01", &there]));
    endless.wait_for_stdout("seq=2 ");
    vanish(Signal::KILL, here.running.id());
    endless.finish().failure(1, &["the node has ended", "start this command again"]);
}

#[test]
fn a_node_that_cannot_reach_a_member_says_why() {
    let lab = Lab::new();
    let ([here, there_node], there) = two(&lab);
    let absent = address_of(&lab, "absent");
    let nobody = ping(&lab, &["--timeout", "0.5", &absent]);
    nobody.failure(1, &["no member", &absent, "within 0.5 s", "same network ID", "check that"]);
    ping(&lab, &["10.0.0.1"]).failure(2, &["no member of network", "10.0.0.1"]);
    ping(&lab, &["alpha"]).failure(2, &["alpha", "not an IP address"]);
    run(lab.command("here", &["ping", "alpha"])).failure(2, &["alpha", "network of the running node"]);

    let other = "ff00110011000000";
    run(lab.node_in(other, "here", &["ping", &there])).failure(2, &["no member of network", &there]);
    let other_there = run(lab.command("there", &["addr", other])).success().text().trim().to_owned();
    let elsewhere = run(lab.node_in(other, "here", &["ping", &other_there]));
    elsewhere.failure(1, &["has not joined network ff00110011000000", &lab.network, "--ephemeral"]);
    let secret = lab.dir.path().join("secret");
    write_file(&secret, "correct horse", 0o600);
    let secret = ping(&lab, &["--secret-file", secret.to_str().unwrap(), &there]);
    secret.failure(1, &[&lab.network, "without a passphrase, and one is named here"]);
    // A node of the program's own is still to be had.
    let own = ["ping", "--ephemeral", "--interface", "lo", "-n", &lab.network, "-c", "1", &there];
    run(peersock(&own)).success();

    // A peer that stops is lost, and then the node that is asked.
    assert!(ping(&lab, &["-c", "1", &there]).success().text().contains("1 reply"));
    vanish(Signal::STOP, there_node.running.id());
    let lost = ping(&lab, &["-c", "1", "-W", "0.3", &there]);
    lost.failure(1, &["did not reply"]);
    assert!(lost.text().contains("no reply to seq=1 within 0.3 s"), "{}", lost.text());
    signal(Signal::CONT, there_node.running.id());
    here.running.interrupt().failure(130, &[]);
    // Without a running node, the program has its own node again.
    ping(&lab, &["-c", "1", &there]).success();
}

/// Sends a line to a node's socket.
fn send(lab: &Lab, line: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(lab.state("here").join("management.sock")).unwrap();
    stream.write_all(line).unwrap();
    stream
}

fn answer(mut stream: UnixStream) -> String {
    let mut answer = String::new();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn clients_that_flood_stop_or_hang_up_delay_nobody() {
    let lab = Lab::new();
    let (_nodes, there) = two(&lab);
    let absent = address_of(&lab, "absent");
    let reach = format!("reach network={} address={absent} timeout=60000\n", lab.network);
    let mut waiting: Vec<_> = (0..64).map(|_| send(&lab, reach.as_bytes())).collect();
    // The server reads them one by one, so this comes after them.
    let one_more = answer(send(&lab, reach.as_bytes()));
    assert!(one_more.contains("too many probes"), "{one_more}");
    ping(&lab, &["-c", "1", &there]).failure(1, &["too many probes", "try again later"]);
    run(lab.command("here", &["status"])).success();
    waiting.truncate(32);
    let deadline = Instant::now() + PATIENCE;
    while ping(&lab, &["-c", "1", &there]).status.code() != Some(0) {
        assert!(Instant::now() < deadline, "clients that hang up keep their places");
    }

    // Clients that stop, or never read, or write nonsense.
    let endless = Running::start(lab.node("here", &["ping", "-i", "0.01", &there]));
    endless.wait_for_stdout("seq=2 ");
    signal(Signal::STOP, endless.id());
    let unread: Vec<_> = (0..8)
        .map(|_| send(&lab, format!("ping network={} address={there} timeout=1\n", lab.network).as_bytes()))
        .collect();
    for nonsense in [
        &b"\xff\xfe\n"[..],
        b"ping\n",
        b"ping network=ff00\n",
        &[b'x'; 8192],
        format!("ping network={} address={there} timeout=1 size=99999\n", lab.network).as_bytes(),
        format!("ping network={} address={there} timeout=-1\n", lab.network).as_bytes(),
    ] {
        let mut stream = UnixStream::connect(lab.state("here").join("management.sock")).unwrap();
        let _ = stream.write_all(nonsense);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(!String::from_utf8_lossy(&said).contains("outcome"), "{}", String::from_utf8_lossy(&said));
    }
    let large = format!("ping network={} address={there} timeout=60000 size=65000\n", lab.network);
    let large: Vec<_> = (0..16).map(|_| send(&lab, large.as_bytes())).collect();
    for stream in large {
        let large = answer(stream);
        assert!(large.contains("\"outcome\":\"answered\"") && large.contains("\"bytes\":65000"), "{large}");
    }
    run(lab.command("here", &["status"])).success();
    drop(unread);
    signal(Signal::CONT, endless.id());
    endless.interrupt().success();
}

#[test]
fn an_older_node_is_said_to_be_old() {
    let lab = Lab::new();
    let state = lab.state("old");
    fs::create_dir(&state).unwrap();
    let (_nodes, there) = two(&lab);
    let status = run(lab.command("here", &["status", "--json"])).success();
    let _old = Old::start(&state, status.text().trim().to_owned());
    let refused = run(lab.node("old", &["ping", &there]));
    refused.failure(1, &["too old to reach members for other programs", "restart it"]);
}

/// A node that knows `status` only.
struct Old;

impl Old {
    fn start(state: &Path, status: String) -> Old {
        let listener = UnixListener::bind(state.join("management.sock")).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let answer = match line.starts_with("status") {
                    true => status.clone(),
                    false => "{\"error\":\"unknown request\",\"version\":\"0.1.0\"}".to_owned(),
                };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Old
    }
}

#[test]
fn members_of_a_file_are_pinged_by_name() {
    let lab = Lab::new();
    let file = lab.dir.path().join("office.toml");
    let path = file.to_str().unwrap();
    let words = ["network", "new", path, "--name", "alpha", "--address", "10.7.0.1"];
    run(lab.command("here", &words)).success();
    run(lab.command("there", &["network", "add", path, "--name", "beta", "--address", "10.7.0.2"])).success();
    let _nodes = ["here", "there"].map(|name| lab.listen_with(lab.node_in(path, name, &["listen"]), &["80"]));
    for name in ["beta", "BETA", "10.7.0.2"] {
        let pinged = run(lab.node_in(path, "here", &["ping", "-c", "1", "--timeout", "90", name])).success();
        assert!(pinged.text().starts_with("PING beta ("), "{}", pinged.text());
        let pinged = run(lab.command("here", &["ping", "-c", "1", name])).success();
        assert!(pinged.text().starts_with("PING beta ("), "{}", pinged.text());
    }
    // The file has another member meanwhile.
    run(lab.command("third", &["network", "add", path, "--name", "gamma"])).success();
    run(lab.node_in(path, "here", &["ping", "gamma"])).failure(1, &["another list of members", "restart"]);
}

/// Returns the words of each member's row, by name.
fn rows(members: &Finished) -> BTreeMap<&str, Vec<&str>> {
    let rows = members.text().lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.map(|row| (row[1], row[2..].to_vec())).collect()
}

/// Neither of the two hears the other's beacons, and no path between them is direct.
#[test]
fn members_behind_nats_are_found_by_their_root() {
    let Some(scene) = Scene::build("members", "root1=public home=symmetric work=symmetric") else { return };
    let file = scene.lab.dir.path().join("office.toml");
    let path = file.to_str().unwrap();
    run(scene.lab.command("home", &["network", "new", path, "--name", "home"])).success();
    for name in ["work", "away"] {
        run(scene.lab.command(name, &["network", "add", path, "--name", name])).success();
    }
    let start = |name: &str, words: &[&str]| {
        let mut command = scene.lab.command(name, words);
        command.args(["--no-portmap", "--no-tcp-punch", "--network", path, "--root", &scene.texts[0]]);
        scene.nats.within(&format!("{name}1"), || Running::start(command))
    };
    let work = start("work", &["listen", "80"]);
    work.wait_for_target();
    wait_for_status(&scene.lab, "work", |now| now["roots"][0]["state"] == "registered");

    // A node of the command's own, which ends with it, and then a running one.
    let begin = Instant::now();
    let asked = start("home", &["members", "--wait", "12"]).finish().success();
    assert!(begin.elapsed() >= Duration::from_secs(12), "one member is away");
    let shown = rows(&asked);
    assert_eq!(shown["home"], ["this", "node"], "{}", asked.text());
    assert_eq!(shown["work"][..4], ["online", "relayed", "by", "root"], "{}", asked.text());
    assert_eq!(shown["away"], ["never", "seen"], "{}", asked.text());
    assert!(asked.stderr.contains("1 online, 0 offline, 1 never seen in network fe"), "{}", asked.stderr);
    let home = start("home", &["listen", "80"]);
    home.wait_for_target();
    wait_for_status(&scene.lab, "home", |now| now["roots"][0]["state"] == "registered");
    let asked = run(scene.lab.command("home", &["members", "--json", "--wait", "12"])).success();
    let json: Value = serde_json::from_str(asked.text()).unwrap();
    assert_eq!(json["source"], "node");
    let member = |name: &str| {
        let members = json["networks"][0]["members"].as_array().unwrap();
        members.iter().find(|member| member["name"] == name).unwrap().clone()
    };
    assert_eq!(
        (&member("work")["state"], &member("away")["state"]),
        (&"online".into(), &"never-seen".into())
    );
    assert_eq!((&member("work")["path"]["direct"], &member("away")["path"]), (&false.into(), &Value::Null));

    // Its session goes on for a while, but it has not answered.
    vanish(Signal::STOP, work.id());
    thread::sleep(Duration::from_secs(5));
    let asked = run(scene.lab.command("home", &["members", "--wait", "1"])).success();
    assert_eq!(rows(&asked)["work"][0], "offline", "{}", asked.text());
    signal(Signal::CONT, work.id());
}

#[test]
fn an_older_node_lists_members_without_asking_them() {
    let lab = Lab::new();
    let file = lab.dir.path().join("office.toml");
    let path = file.to_str().unwrap();
    run(lab.command("here", &["network", "new", path, "--name", "alpha"])).success();
    run(lab.command("there", &["network", "add", path, "--name", "beta"])).success();
    let _here = lab.listen_with(lab.node_in(path, "here", &["listen"]), &["80"]);
    let status = run(lab.command("here", &["status", "--json"])).success();
    let state = lab.state("old");
    fs::create_dir(&state).unwrap();
    let _old = Old::start(&state, status.text().trim().to_owned());
    let listed = run(lab.command("old", &["members"])).success();
    assert_eq!(rows(&listed)["beta"], ["never", "seen"]);
    assert!(listed.stderr.contains("its members were not asked"), "{}", listed.stderr);
}

/// Makes the file of a network with these members, the first of which makes it.
fn network_of(lab: &Lab, name: &str, members: &[&str]) -> String {
    let file = lab.dir.path().join(name);
    let path = file.to_str().expect("a plain path").to_owned();
    for (number, member) in members.iter().enumerate() {
        let words = ["network", if number == 0 { "new" } else { "add" }, &path, "--name", member];
        run(lab.command(member, &words)).success();
    }
    path
}

/// Returns a command whose node other programs share.
fn sharing(lab: &Lab, network: &str, member: &str, words: &[&str]) -> Command {
    let mut command = lab.node_in(network, member, words);
    command.env_remove("PEERSOCK_OWN_NODE");
    command
}

#[test]
fn a_ping_or_a_list_of_members_that_comes_first_keeps_no_program_out() {
    let lab = Lab::new();
    let office = network_of(&lab, "office.toml", &["here", "there", "absent"]);
    let home = network_of(&lab, "home.toml", &["here", "there"]);
    let there = Running::start(sharing(&lab, &office, "there", &["listen", "-k", "80"]));
    there.wait_for_target();
    let at_home = Running::start(sharing(&lab, &home, "there", &["listen", "-k", "81"]));
    at_home.wait_for_target();
    let firsts: [&[&str]; 2] = [&["ping", "absent", "--timeout", "1000"], &["members", "--wait", "1000"]];
    for first in firsts {
        let first = Running::start(sharing(&lab, &office, "here", first));
        first.wait_for_stderr("for up to 1000 s");
        let words = ["ping", "-c", "1", "--timeout", "90", "there"];
        for network in [&office, &home] {
            run(sharing(&lab, network, "here", &words)).success();
            let listed = run(sharing(&lab, network, "here", &["members", "--wait", "1"])).success();
            assert_eq!(rows(&listed)["there"][0], "online", "{}", listed.text());
        }
        let mut dial = Running::start(sharing(&lab, &home, "here", &["dial", "there:81"]));
        dial.send(b"word\n");
        at_home.wait_for_stdout("word\n");
        dial.finish().success();
        let status = run(lab.command("here", &["status", "--json"])).success();
        let status: Value = serde_json::from_str(status.text()).unwrap();
        assert_eq!(
            status["networks"].as_array().map(Vec::len),
            Some(1),
            "its other users have gone: {status}"
        );
        first.interrupt().failure(130, &[]);
    }
}

#[test]
fn roots_of_a_ping_are_those_of_the_node_while_it_lasts() {
    let lab = Lab::new();
    let office = network_of(&lab, "office.toml", &["here", "there"]);
    let here = Running::start(sharing(&lab, &office, "here", &["listen", "80"]));
    here.wait_for_target();
    let key = run(lab.command("there", &["id", "--json"])).success();
    let key: Value = serde_json::from_str(key.text()).unwrap();
    let root = format!("{}@127.0.0.1:9", key["public_key"].as_str().unwrap());
    let roots = || {
        let status = run(lab.command("here", &["status", "--json"])).success();
        let status: Value = serde_json::from_str(status.text()).unwrap();
        status["roots"].as_array().map(Vec::len).expect("a list")
    };
    let ping = ["ping", "there", "--timeout", "1000", "--root", &root];
    let pinging = Running::start(sharing(&lab, &office, "here", &ping));
    pinging.wait_for_stderr("for up to 1000 s");
    assert_eq!(roots(), 1);
    let mut unnamed = lab.command("here", &["members", "--root", &root, "--wait", "1"]);
    unnamed.env_remove("PEERSOCK_OWN_NODE");
    run(unnamed).success();
    pinging.interrupt().failure(130, &[]);
    let deadline = Instant::now() + PATIENCE;
    while roots() > 0 {
        assert!(Instant::now() < deadline, "the root stays");
        thread::sleep(Duration::from_millis(10));
    }
}
