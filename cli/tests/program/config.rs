//! The user's file of settings: its errors, its precedence, and the names of networks in it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use peersock::overlay::Identity;

use crate::common::{Lab, PORT, Running, address_of, peersock, run, write_file};

/// Commands with the options of a node, as they are given with as few words as possible.
const COMMANDS: [&[&str]; 13] = [
    &["run", "true"],
    &["dial", "[fd00::1]:1"],
    &["listen", "0"],
    &["forward", "0", "[fd00::1]:1"],
    &["proxy"],
    &["rest"],
    &["ping", "fd00::1"],
    &["up"],
    &["send", "/etc/hostname"],
    &["receive", "0"],
    &["node"],
    &["members"],
    &["netcheck"],
];

/// Writes the file, and returns its path.
fn write(lab: &Lab, text: &str) -> PathBuf {
    let folder = lab.dir.path().join("config/peersock");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("config.toml");
    write_file(&path, text, 0o644);
    path
}

/// Makes a command heed the file at the usual place, whose name is a variable's.
fn with_usual_file(lab: &Lab, mut command: Command) -> Command {
    command.env_remove("PEERSOCK_CONFIG").env("XDG_CONFIG_HOME", lab.dir.path().join("config"));
    command
}

fn with_file(mut command: Command, path: &Path) -> Command {
    command.env("PEERSOCK_CONFIG", path);
    command
}

fn root(number: u8) -> String {
    format!("{}@127.0.0.1:{number}", Identity::from_seed(&[number; 32]).public())
}

#[test]
fn every_command_with_the_options_of_a_node_reads_the_file() {
    let lab = Lab::new();
    let path = write(&lab, "\nroot = \"lan\"\n");
    let place = format!("{}:2:1: `root` is no setting of this file", path.display());
    for words in COMMANDS {
        let said = run(with_usual_file(&lab, peersock(words)));
        said.failure(2, &[&place, "hint: write `roots`"]);
        // The other variable of the XDG specification is the home.
        let mut by_home = peersock(words);
        by_home.env_remove("PEERSOCK_CONFIG").env_remove("XDG_CONFIG_HOME").env("HOME", lab.dir.path());
        fs::rename(lab.dir.path().join("config"), lab.dir.path().join(".config")).unwrap();
        let said = run(by_home);
        fs::rename(lab.dir.path().join(".config"), lab.dir.path().join("config")).unwrap();
        said.failure(2, &["/.config/peersock/config.toml:2:1: "]);
    }
    // Others need none of it.
    run(with_usual_file(&lab, lab.command("a", &["id"]))).success();
}

#[test]
fn wrong_texts_are_refused_with_their_place() {
    let lab = Lab::new();
    for (text, place, says) in [
        ("port = 7\nport = 8\n", ":2:1: ", "duplicate key"),
        ("interfaces = \"lo\n", ":1:17: ", "string"),
        ("state = \"x\"", ":1:1: ", "no setting"),
        ("überall = 1", ":1:1: ", ""),
        ("# é\nport = 70000", ":2:8: ", "a number from 0 to 65535"),
        ("port = \"7\"", ":1:8: ", "a number from 0 to 65535"),
        ("birthday = 0", ":1:12: ", "true or false"),
        ("[port]\nx = 1", ":1:1: ", "is not a number"),
        ("roots = [\n  \"lan\",\n  \"sesame\",\n]", ":3:3: ", "KEY@HOST:PORT"),
        ("dht = [\"public\"]", ":1:7: ", "not a text"),
        ("turn = \"turn:u:sesame@h\"", ":1:8: ", "holds none"),
        ("turn = [\"sesame\"]", ":1:9: ", "holds none"),
        ("[networks]\nff0001ffff000000 = \"x\"", ":2:1: ", "no name of a network"),
        ("[networks]\na = 5", ":2:5: ", "no network"),
        ("[networks]\na = { network = \"x\", passphrase = \"sesame\" }", ":2:22: ", "no secrets"),
        ("[networks]\na = { secret_file = \"x\" }", ":2:5: ", "`network` is missing"),
        ("networks = 5", ":1:12: ", "not a table"),
    ] {
        let path = write(&lab, text);
        let said = run(with_file(peersock(&["send", "/etc/hostname"]), &path));
        said.failure(2, &[&format!("{}{place}", path.display()), says, "hint: "]);
        assert!(
            !said.stderr.contains("turn:u:sesame") && !said.stderr.contains("sesame\""),
            "{}",
            said.stderr
        );
    }
    let token = format!("roots = \"{}?token=sesame\"", root(1));
    let said = run(with_file(peersock(&["node"]), &write(&lab, &token)));
    said.failure(2, &[":1:9: `roots` has a secret", "mode 0600"]);
    assert!(!said.stderr.contains("sesame"), "{}", said.stderr);
}

#[test]
fn a_file_that_others_may_have_written_is_refused() {
    let lab = Lab::new();
    let path = write(&lab, "port = 0\n");
    let send = || peersock(&["send", "/no/such/file"]);
    run(with_file(send(), &path)).failure(1, &["/no/such/file cannot be read"]);
    write_file(&path, "port = 0\n", 0o666);
    run(with_file(send(), &path)).failure(1, &["config.toml", "mode 0666", "chmod o-w"]);
    run(with_file(send(), lab.dir.path())).failure(1, &["not a regular file"]);
    run(with_file(send(), &lab.dir.path().join("absent"))).failure(1, &["absent", "hint: correct the file"]);
    run(with_file(send(), Path::new(""))).failure(1, &["/no/such/file cannot be read"]);
    if rustix::process::geteuid().is_root() {
        write_file(&path, "port = 0\n", 0o644);
        chown(&path, Some(65534), None).unwrap();
        run(with_file(send(), &path)).failure(1, &["belongs to user id 65534", "PEERSOCK_CONFIG"]);
    }
}

#[test]
fn an_option_replaces_a_variable_and_a_variable_the_file() {
    let lab = Lab::new();
    let [of_file, of_variable, of_option] = [1, 2, 3].map(root);
    let path =
        write(&lab, &format!("roots = \"{of_file}\"\ninterfaces = \"loopback\"\ndht = \"127.0.0.1:9\"\n"));
    let listen = |roots: Option<&str>, words: &[&str]| {
        let mut command = with_file(peersock(&["listen", "--ephemeral", "0", "-n", &lab.network]), &path);
        command.args(words);
        roots.map(|roots| command.env("PEERSOCK_ROOTS", roots));
        Running::start(command).wait_for_stderr("connect with: ")
    };
    let said = listen(None, &[]);
    assert!(said.contains(&format!(" --root '{of_file}' --dht=127.0.0.1:9 ")), "{said}");
    let said = listen(Some(&of_variable), &[]);
    assert!(said.contains(&of_variable) && !said.contains(&of_file), "{said}");
    let said = listen(Some(""), &[]);
    assert!(!said.contains("--root"), "an empty variable is no root: {said}");
    let said = listen(Some(&of_variable), &["--root", &of_option, "--dht=off"]);
    assert!(said.contains(&of_option) && !said.contains(&of_variable) && !said.contains("--dht"), "{said}");
}

/// Two nodes cannot have the same port.
#[test]
fn the_port_of_the_file_is_for_the_node_of_the_state_directory() {
    let lab = Lab::new();
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let path = write(&lab, &format!("port = {port}\n"));
    let listen = |words: &[&str]| {
        let mut command = with_file(peersock(&["listen", "0", "--interface", "lo"]), &path);
        command.args(["-n", &lab.network]).args(words);
        command
    };
    let state = lab.state("a");
    let place = format!("--overlay-port is from {}:1, which PEERSOCK_CONFIG= (empty)", path.display());
    run(listen(&["--state", state.to_str().unwrap()]))
        .failure(1, &[&format!("UDP port {port} is taken"), &place]);
    Running::start(listen(&["--ephemeral"])).wait_for_stderr("connect with: ");
    // What the command line says is meant.
    let by_option = run(listen(&["--ephemeral", "--overlay-port", &port.to_string()]));
    by_option.failure(1, &["is taken"]);
    assert!(!by_option.stderr.contains("config.toml"), "{}", by_option.stderr);
}

#[test]
fn an_error_of_a_value_in_the_file_names_its_line() {
    let lab = Lab::new();
    let path = write(
        &lab,
        "interfaces = \"lo\"\n\nroots = \"@roots\"\n[networks]\n\noffice = \"office.toml\"\n\
         open = { network = \"ff0001ffff000000\", secret_file = \"words\" }\n",
    );
    let listen = |name: &str| with_file(lab.command("a", &["listen", "-n", name, "8000"]), &path);
    let [roots, office, open] = [3, 6, 7].map(|line| format!("is from {}:{line}", path.display()));
    run(listen("ff0001ffff000000")).failure(1, &["config/peersock/roots", &format!("--root {roots}")]);
    run(listen("office")).failure(1, &["config/peersock/office.toml", &format!("office {office}")]);
    run(listen("open")).failure(1, &["config/peersock/words", &format!("open {open}")]);
    // A variable replaces it, and names itself.
    let mut by_variable = listen("ff0001ffff000000");
    by_variable.env("PEERSOCK_ROOTS", "@/no/such/roots");
    let said = run(by_variable);
    said.failure(1, &["/no/such/roots", "correct PEERSOCK_ROOTS"]);
    assert!(!said.stderr.contains("config.toml"), "{}", said.stderr);
}

#[test]
fn networks_are_found_by_their_names() {
    let lab = Lab::new();
    let folder = lab.dir.path().join("config/peersock");
    fs::create_dir_all(&folder).unwrap();
    let office = folder.join("office.toml");
    run(lab.command("a", &["network", "new", office.to_str().unwrap(), "--name", "alpha"])).success();
    write_file(&folder.join("words"), "correct horse\n", 0o600);
    let path = write(
        &lab,
        &format!(
            "interfaces = \"lo\"\n[networks]\noffice = \"office.toml\"\nopen = \"{0}\"\n\
             home = {{ network = \"{0}\", secret_file = \"words\" }}\n\
             wrong = {{ network = \"office.toml\", secret_file = \"words\" }}\n",
            lab.network
        ),
    );
    let named = |words: &[&str]| with_file(lab.command("a", words), &path);
    let by_path = run(lab.command("a", &["addr", office.to_str().unwrap()])).success();
    assert_eq!(run(named(&["addr", "-n", "office"])).success().text(), by_path.text());

    // The other end has none of these names.
    let target = address_of(&lab, "a");
    let port = PORT.to_string();
    let listening = Running::start(named(&["listen", "-n", "home", &port]));
    let said = listening.wait_for_stderr("connect with: ");
    assert!(said.contains(&format!("-n {} --secret-file FILE", lab.network)), "{said}");
    let mut dial = with_file(lab.command("b", &["dial", "-n", "home", &format!("[{target}]:{port}")]), &path);
    dial.arg("--receive-only");
    let dialing = Running::start(dial);
    let mut listening = listening;
    listening.send(b"hello");
    listening.end_stdin();
    assert_eq!(dialing.finish().success().text(), "hello");
    listening.finish().success();

    // A variable replaces the passphrase of the file, and finds names as -n does.
    let mut other = named(&["listen", &port]);
    other.env("PEERSOCK_NETWORK", "home").env("PEERSOCK_SECRET", "");
    run(other).failure(2, &["PEERSOCK_SECRET holds an empty passphrase"]);
    run(named(&["listen", "-n", "wrong", &port])).failure(2, &["`secret_file`", "for ad-hoc networks"]);
    run(named(&["listen", "-n", "ofice", &port]))
        .failure(2, &["`ofice` is neither", "nor a name in", "config.toml"]);

    // A file of that name comes first.
    let mut in_folder = named(&["addr", "-n", "office"]);
    fs::write(lab.dir.path().join("office"), "nonsense").unwrap();
    in_folder.current_dir(lab.dir.path());
    run(in_folder).failure(1, &["office"]);
}

#[test]
fn the_commands_for_files_of_networks_find_them_by_their_names() {
    let lab = Lab::new();
    let folder = lab.dir.path().join("config/peersock");
    fs::create_dir_all(&folder).unwrap();
    let office = folder.join("office.toml");
    let path = write(
        &lab,
        &format!("[networks]\noffice = \"office.toml\"\nabsent = \"a.toml\"\nopen = \"{}\"\n", lab.network),
    );
    let named = |words: &[&str]| {
        let mut command = with_file(peersock(&[&["network"], words].concat()), &path);
        command.env("PEERSOCK_STATE", lab.state("a")).current_dir(lab.dir.path());
        command
    };
    // A file of that name would hide the network.
    let new = run(named(&["new", "office"]));
    new.failure(2, &["`office` is a name in", "config.toml", &format!("network new {}", office.display())]);
    run(named(&["new", "open"])).failure(2, &["`open` is a name in", "choose another name"]);
    assert!(!lab.dir.path().join("office").exists() && !lab.dir.path().join("open").exists());
    run(named(&["new", office.to_str().unwrap(), "--name", "alpha"])).success();

    let by_path = run(named(&["show", office.to_str().unwrap()])).success();
    assert_eq!(run(named(&["show", "office"])).success().text(), by_path.text());
    let mut by_variable = named(&["show"]);
    by_variable.env("PEERSOCK_NETWORK", "office");
    assert_eq!(run(by_variable).success().text(), by_path.text());
    let mut add = named(&["add", "office", "--name", "beta"]);
    add.env("PEERSOCK_STATE", lab.state("b"));
    run(add).success();
    assert!(fs::read_to_string(&office).unwrap().contains("beta"));
    run(named(&["remove", "office", "gamma"])).failure(2, &["no member `gamma`"]);
    run(named(&["remove", "office", "beta"])).success();

    for words in [&["show", "open"][..], &["add", "open"], &["remove", "open", "x"]] {
        run(named(words)).failure(2, &[&format!("`open` is network {} in", lab.network), "has no file"]);
    }
    let new = format!("peersock network new {}", folder.join("a.toml").display());
    run(named(&["show", "absent"])).failure(1, &["a.toml", &new, "absent is from", "config.toml:3"]);
}

#[test]
fn netcheck_asks_the_servers_of_the_file() {
    let lab = Lab::new();
    let path = write(&lab, "turn = \"@servers\"\ninterfaces = \"loopback\"\n");
    let said = run(with_file(peersock(&["netcheck"]), &path));
    said.failure(1, &[lab.dir.path().join("config/peersock/servers").to_str().unwrap()]);
}
