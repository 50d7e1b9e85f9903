//! Error messages of commands that send files, serve programs, query nodes, or are roots. `errors` covers the
//! errors that all commands share.

use std::fs;
use std::net::{TcpListener, UdpSocket};

use crate::common::{Lab, PORT, address_of, peersock, run, write_file};
use crate::errors::is_well_said;

#[test]
fn every_error_says_what_is_wrong_and_what_to_do() {
    let lab = Lab::new();
    let path = |name: &str| lab.dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("file"), "content").unwrap();
    write_file(&lab.dir.path().join("exposed"), "0123456789abcdef0123\n", 0o644);
    // All commands fail before they send anything.
    let with = |words: &[&str], more: &[&str]| {
        let mut command = peersock(words);
        command.args(more);
        command
    };
    let files = |words: &[&str]| with(words, &["--interface", "lo"]);
    let rest =
        |words: &[&str]| with(&["rest", "--ephemeral", "--interface", "lo", "-n", &lab.network], words);
    let root = |words: &[&str]| with(&["root", "--listen", "127.0.0.1", "--port", "0", "--ephemeral"], words);
    let (file, exposed, missing) = (path("file"), path("exposed"), path("missing"));
    // Ports that another program uses.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let [tcp_port, udp_port] = [tcp.local_addr(), udp.local_addr()].map(|at| at.unwrap().port().to_string());
    let stream = format!("127.0.0.1:{tcp_port}");
    let node = |command: &str, words: &[&str]| {
        with(&[command, "--ephemeral", "--interface", "lo", "-n", &lab.network], words)
    };

    for (command, status, words) in [
        (files(&["send"]), 2, &["<FILE>", "`peersock send "][..]),
        (files(&["send", &missing]), 1, &["No such file", "nothing is sent without it"]),
        (
            files(&["send", &file, "--code", "short"]),
            2,
            &["15 letters and digits, and this has 5", "three groups"],
        ),
        (with(&["send", &file, "--interface", "nosuch"], &[]), 1, &["nosuch", "`ip link`"]),
        (files(&["send", &file, "--root", "x"]), 2, &["--root", "`peersock root` prints"]),
        (files(&["receive"]), 2, &["there is no code", "PEERSOCK_CODE"]),
        (files(&["receive", "nonsense"]), 2, &["this has 8", "`peersock send` has printed"]),
        (files(&["receive", "12345-12345-12345"]), 2, &["typing error", "`peersock send` has printed"]),
        (rest(&["--listen", "nowhere"]), 2, &["`nowhere` is no place", "`peersock rest -n"]),
        (rest(&["--listen", "127.0.0.1:0"]), 2, &["no place for the token", "--token-file FILE"]),
        (rest(&["--token-file", &exposed]), 1, &["chmod 600"]),
        (rest(&["--no-token", "--listen", "*:0"]), 2, &["can be reached from elsewhere", "unix:PATH"]),
        (rest(&["--no-token", "--listen", "192.0.2.1:80"]), 1, &["192.0.2.1:80", "give an address"]),
        (rest(&["--listen", "unix:/no/such/folder/x"]), 1, &["No such file", "spelled"]),
        (rest(&["--no-token", "--origin", "x"]), 2, &["`x` is no origin", "SCHEME://HOST"]),
        (rest(&["--no-token", "--listen", &tcp_port]), 1, &["in use", "`--listen PORT`", "`--listen 0`"]),
        (node("proxy", &["--listen", &tcp_port]), 1, &["in use", "`--listen PORT`", "`--listen 0`"]),
        (node("proxy", &["--listen", "overlay:0", "--overlay-port", &udp_port]), 1, &["--overlay-port"]),
        (
            node("forward", &[&tcp_port, &format!("[{}]:{PORT}", address_of(&lab, "member"))]),
            1,
            &["in use", "`PORT` as LOCAL"],
        ),
        (files(&["send", &file, "--overlay-port", &udp_port]), 1, &["taken by another", "--overlay-port"]),
        (root(&["--stream", &stream]), 1, &["in use", "--stream"]),
        (
            with(&["root", "--ephemeral", "--listen", &format!("0.0.0.0:{udp_port}")], &[]),
            1,
            &["in use", "--port"],
        ),
        (with(&["up"], &[]), 2, &["no network is named", "PEERSOCK_NETWORK"]),
        (with(&["up", "-n", &path("office.toml")], &[]), 1, &["No such file", "peersock network new"]),
        (lab.command("none", &["top", "--once"]), 1, &["no node is running", "--state DIR"]),
        (lab.command("none", &["top", "-c", "0"]), 2, &["'0'", "`peersock top"]),
        (lab.command("none", &["top"]), 2, &["no terminal on stdout", "--once"]),
        (lab.command("none", &["events"]), 1, &["no node is running", "--state DIR"]),
        (lab.command("none", &["members"]), 2, &["no network is named", "-n NETWORK"]),
        (
            lab.command("none", &["members", "-n", &lab.network, "--secret-file", &missing]),
            1,
            &["No such file", "write the passphrase"],
        ),
        (with(&["netcheck", "--interface", "nosuch"], &[]), 2, &["nosuch", "without --interface"]),
        (with(&["netcheck", "--stun", "x"], &[]), 2, &["'x' is not HOST:PORT", "`peersock netcheck --stun"]),
        (with(&["netcheck", "--turn", "x"], &[]), 2, &["turn:USER:PASSWORD@HOST:PORT", "docs/use/TURN.md"]),
        (with(&["root", "--listen", "nowhere"], &[]), 2, &["'nowhere'", "`peersock root --listen"]),
        (root(&["--advertise", "x"]), 2, &["`x` is no endpoint", "`peersock root --advertise"]),
        (root(&["--directory", "x"]), 2, &["--directory", "redis://HOST:PORT"]),
        (root(&["--access-token-file", &exposed]), 1, &["chmod 600"]),
        (root(&["--metrics", "nowhere"]), 2, &["'nowhere'", "--metrics 127.0.0.1:9420"]),
        (
            root(&["--stream", "127.0.0.1:0", "--certificate", &file, "--certificate-key", &file]),
            1,
            &["no certificate", "PEM"],
        ),
    ] {
        let shown = format!("{command:?}");
        let finished = run(command);
        finished.failure(status, words);
        is_well_said(&finished, &shown);
    }
}
