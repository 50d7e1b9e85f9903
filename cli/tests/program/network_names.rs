//! Names that end with a network's: `alpha.team` is the member `alpha` of `team`, and no host outside.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::common::{PATIENCE, Running, lacks, run};
use crate::machines::Machines;

/// Prints, for each name, the addresses that getaddrinfo(3) gives, or its error, and the error of
/// gethostbyname(3).
const LOOK_UP: &str = "
import json, socket, sys
def found(call):
    try: return call()
    except (socket.gaierror, socket.herror) as error: return error.errno
def addresses(name):
    return found(lambda: sorted({one[4][0] for one in socket.getaddrinfo(name, 80)}))
print(json.dumps({name: [addresses(name), found(lambda: socket.gethostbyname(name))] for name in sys.argv[1:]}))";

/// Errors of getaddrinfo(3), EAI_NONAME, and of gethostbyname(3), which Python tells as that, too.
const NO_NAME: i64 = -2;

/// Error of getaddrinfo(3): EAI_AGAIN.
const ASK_AGAIN: i64 = -3;

impl Machines {
    /// Looks names up under `run`, on a machine whose hosts file has these lines.
    fn look_up(&self, hosts: &str, networks: &[&str], names: &[&str]) -> Value {
        let file = self.directory("hosts");
        fs::write(&file, format!("127.0.0.1 localhost\n{hosts}\n")).expect("a file");
        let inside = self.command("beta", &[]);
        let mut command = Command::new("unshare");
        let script = format!("mount --bind '{}' /etc/hosts && exec \"$@\"", file.display());
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(inside.get_program()).arg("run");
        for network in networks {
            command.args(["-n", network]);
        }
        command.args(["--", "python3", "-c", LOOK_UP]).args(names);
        for (name, value) in inside.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let looked = run(command).success();
        serde_json::from_str(looked.text()).expect("JSON")
    }
}

#[test]
fn names_end_with_a_network_s_name_or_id() {
    let test = "names_end_with_a_network_s_name_or_id";
    if lacks(test, &["python3", "unshare"]) || !rustix::process::geteuid().is_root() {
        return;
    }
    let machines = Machines::new();
    let (id, _serving) = machines.network();
    // Another network, whose controller's machine has the same name.
    machines.ok("delta", &["network", "create", "club", "--pool", "10.78.0.0/24", "--name", "alpha"]);
    let other = Running::start(machines.command("delta", &["controller", "-n", "club"]));
    other.wait_for_stderr("serving club");
    machines.admit("beta");
    let invite = machines.ok("delta", &["network", "invite", "--name", "beta"]);
    machines.ok("beta", &["join", &invite, "--as", "club"]);
    machines.admit("gamma");
    let _listening = machines.listen("gamma", "7000");

    let by_id = format!("gamma.{id}");
    let names = ["alpha", "alpha.team", "ALPHA.Club", "gamma.team", &by_id, "gamma.team.", "gamma.club"];
    let outside = ["nobody.team", "outside.example"];
    let hosts = "192.0.2.9 nobody.team gamma.club outside.example";
    let found = machines.look_up(hosts, &["team", "club"], &[&names[..], &outside].concat());
    let has = |name: &str, address: &str| found[name][0].to_string().contains(address);
    let addresses = |name: &str| found[name][0].as_array().expect("addresses").len();
    assert!(has("alpha", "10.77.0.1") && has("alpha", "10.78.0.1") && addresses("alpha") == 4, "{found}");
    assert!(has("alpha.team", "10.77.0.1") && addresses("alpha.team") == 2, "{found}");
    assert!(has("ALPHA.Club", "10.78.0.1") && addresses("ALPHA.Club") == 2, "{found}");
    for name in ["gamma.team", &by_id, "gamma.team."] {
        assert!(has(name, "10.77.0.3") && addresses(name) == 2, "{name}: {found}");
        assert_eq!(found[name][1], "10.77.0.3");
    }
    // The machine's own files and servers are not asked about them.
    for name in ["nobody.team", "gamma.club"] {
        assert_eq!((&found[name][0], &found[name][1]), (&NO_NAME.into(), &NO_NAME.into()), "{name}: {found}");
    }
    assert_eq!(found["outside.example"][0], serde_json::json!(["192.0.2.9"]));
    // A program that has not this network does not know its name.
    let look_up = || machines.look_up(hosts, &["club"], &["nobody.team", "gamma.club"]);
    let mut found = look_up();
    let begun = Instant::now();
    // The controller may take longer than a program waits, which is then told to ask again.
    while found["gamma.club"][0] == ASK_AGAIN && begun.elapsed() < PATIENCE {
        found = look_up();
    }
    assert_eq!(
        (&found["nobody.team"][0][0], &found["gamma.club"][0]),
        (&"192.0.2.9".into(), &NO_NAME.into())
    );

    for own_node in [&[][..], &["--own-node"]] {
        let words = [&["proxy", "-n", "team", "--direct", "--listen", "127.0.0.1:0"], own_node].concat();
        let proxying = Running::start(machines.command("beta", &words));
        let line = proxying.wait_for_stdout("\n");
        let at = line.trim_end().strip_prefix("socks5h://").expect("a URL").to_owned();
        let status = |target: &str| {
            let mut client = TcpStream::connect(&at).expect("the proxy listens");
            write!(client, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").expect("it is taken");
            let mut line = String::new();
            BufReader::new(client).read_line(&mut line).expect("an answer");
            line
        };
        for (target, expected) in [("gamma.team:7000", " 200 "), ("nobody.team:80", " 502 ")] {
            assert!(status(target).contains(expected), "{own_node:?}: {}", status(target));
        }
    }
}

#[test]
fn names_end_with_the_local_name_of_a_static_network() {
    let test = "names_end_with_the_local_name_of_a_static_network";
    if lacks(test, &["python3", "unshare"]) || !rustix::process::geteuid().is_root() {
        return;
    }
    let machines = Machines::new();
    let place = tempfile::tempdir().expect("a folder");
    let file = |name: &str| place.path().join(name).to_str().expect("text").to_owned();
    let [office, lab] = ["office.toml", "lab.toml"].map(file);
    // Two networks that have a member of one name.
    for (path, prefix) in [(&office, "10.71.0"), (&lab, "10.72.0")] {
        let address = |last: u8| format!("{prefix}.{last}");
        machines.ok("alpha", &["network", "new", path, "--name", "alpha", "--address", &address(1)]);
        machines.ok("beta", &["network", "add", path, "--name", "beta", "--address", &address(2)]);
        machines.ok("beta", &["join", path]);
    }
    let hosts = "192.0.2.9 alpha.office nobody.office outside.example";
    let names = ["alpha", "alpha.office", "ALPHA.Lab.", "nobody.office", "outside.example"];
    let found = machines.look_up(hosts, &["office", "lab"], &names);
    let only = |name: &str, address: &str| {
        let all = found[name][0].as_array().unwrap_or_else(|| panic!("{name}: {found}"));
        all.len() == 2 && all.iter().any(|one| one == address)
    };
    assert!(only("alpha.office", "10.71.0.1") && only("ALPHA.Lab.", "10.72.0.1"), "{found}");
    // Both networks know the short name.
    assert_eq!(found["alpha"][0].as_array().map(Vec::len), Some(4), "{found}");
    assert_eq!(found["nobody.office"][0], NO_NAME, "{found}");
    assert_eq!(found["outside.example"][0][0], "192.0.2.9", "{found}");

    // The name is this program's, and not one of the others that share the node.
    let other = Running::start(machines.command("beta", &["run", "-n", "office", "--", "sleep", "60"]));
    other.wait_for_stderr("10.71.0.2");
    let apart = machines.look_up(hosts, &[&office], &["alpha.office", "alpha."]);
    assert_eq!(apart["alpha.office"][0][0], "192.0.2.9", "{apart}");
    assert_eq!(apart["alpha."][0].as_array().map(Vec::len), Some(2), "{apart}");
    drop(other);

    machines.ok("alpha", &["join", &office, "--as", "work"]);
    let listening = Running::start(machines.command("alpha", &["listen", "-k", "-n", "work", "7000"]));
    listening.wait_for_stderr("listening on ");
    for target in ["alpha.office:7000", "alpha:7000"] {
        let dialed = run(machines.command("beta", &["dial", "-n", "office", target]));
        assert!(dialed.status.success(), "{target}: {}", dialed.stderr);
    }
    let refused = machines.refused("beta", &["dial", "-n", "office", "alpha.lab:7000"]);
    assert!(refused.contains("alpha.lab"), "{refused}");
}
