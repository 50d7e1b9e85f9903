//! Tickets: `share`, `open`, `listen --ticket` and `dial TICKET` need nothing else, and lead to one service.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use peersock::blocking;
use peersock::{IdentitySource, Interfaces, Node, RootSource};
use peersock_proxy::Ticket;

use crate::common::{Lab, PATIENCE, PORT, Running, address_of, peersock, run, write_file};
use crate::root::Root;

/// Serves each client with what it has sent, once it has sent all. Returns the port.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut said = Vec::new();
            // Clients that are given up only end their own connection.
            let _ = client.read_to_end(&mut said).and_then(|_| client.write_all(&said));
        }
    });
    port
}

fn on_loopback(words: &[&str]) -> Command {
    let mut command = peersock(words);
    command.env_remove("PEERSOCK_TICKET").args(["--interface", "lo"]);
    command
}

/// Shares a port. Returns the ticket, too.
fn share(port: u16, words: &[&str]) -> (Running, String) {
    let mut command = on_loopback(&["share", &port.to_string()]);
    command.args(words);
    let sharing = Running::start(command);
    let ticket = sharing.wait_for_stdout("\n").trim().to_owned();
    (sharing, ticket)
}

fn exchange(address: &str, text: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_shared_service_is_opened_with_nothing_but_the_ticket() {
    let (sharing, ticket) = share(echo(), &[]);
    assert!(ticket.starts_with("peersock://") && ticket.len() < 60, "{ticket}");
    sharing.wait_for_stderr("open it with: peersock open TICKET\n");
    sharing.wait_for_stderr("on this LAN only; start it with --dht");
    let opening = Running::start(on_loopback(&["open", &ticket]));
    let address = opening.wait_for_stdout("\n").trim().to_owned();
    assert!(address.parse::<SocketAddr>().unwrap().ip().is_loopback(), "{address}");
    for text in ["hello", "again"] {
        assert_eq!(exchange(&address, text).unwrap(), text);
    }
    opening.interrupt().failure(130, &[]);

    // The ticket ends with its program.
    sharing.interrupt().failure(130, &[]);
    let said = run(on_loopback(&["open", &ticket, "--timeout", "0.5"]));
    said.failure(
        1,
        &["the program that made this ticket has not answered within 0.5 s", "a ticket ends with"],
    );
    assert!(!said.stderr.contains(&ticket), "{}", said.stderr);
}

#[test]
fn a_ticket_need_not_be_an_argument() {
    let lab = Lab::new();
    let (_sharing, ticket) = share(echo(), &[]);
    let file = lab.dir.path().join("ticket");
    write_file(&file, &format!("{ticket}\n"), 0o600);
    let at_file = format!("@{}", file.display());
    let mut by_variable = on_loopback(&["dial"]);
    by_variable.env("PEERSOCK_TICKET", &ticket);
    for (command, before) in [
        (on_loopback(&["dial", &ticket]), ""),
        (on_loopback(&["dial", &at_file]), ""),
        // A double click in a terminal may leave the beginning out.
        (on_loopback(&["dial", ticket.strip_prefix("peersock://").unwrap()]), ""),
        (on_loopback(&["dial", "-"]), &*format!("{ticket}\n")),
        (by_variable, ""),
    ] {
        let mut dialing = Running::start(command);
        dialing.send(format!("{before}hello").as_bytes());
        let said = dialing.finish().success();
        assert_eq!(said.text(), "hello");
        assert!(!said.stderr.contains(&ticket), "{}", said.stderr);
    }
    // With the variable, the first argument of `open` is LOCAL.
    let mut local = on_loopback(&["open", "127.0.0.1:0"]);
    local.env("PEERSOCK_TICKET", &ticket);
    let opening = Running::start(local);
    let address = opening.wait_for_stdout("\n").trim().to_owned();
    assert_eq!(exchange(&address, "hello").unwrap(), "hello");
    drop(opening);
    write_file(&file, &ticket, 0o644);
    run(on_loopback(&["open", &at_file])).failure(1, &["mode 0644", "chmod 600"]);
    let mut verbose = Running::start(on_loopback(&["dial", &ticket, "-vvv"]));
    verbose.send(b"hello");
    let said = verbose.finish().success();
    assert!(!said.stderr.contains(&ticket[20..]), "{}", said.stderr);
}

#[test]
fn listen_prints_a_ticket() {
    for words in [&["listen", "--ticket"][..], &["listen", "--ticket", "--udp"]] {
        let mut command = on_loopback(words);
        // Neither is used, nor an obstacle.
        command.env("PEERSOCK_NETWORK", "ff0001ffff000000").env("PEERSOCK_SECRET", "correct horse");
        let mut listening = Running::start(command);
        let command = listening.wait_for_stderr("connect with: peersock ");
        let words: Vec<_> = command.split(' ').collect();
        let mut dialing = Running::start(on_loopback(&words));
        dialing.talk_to(&mut listening, "hello", "answer");
        listening.end_stdin();
        dialing.finish().success();
    }
    let network = "ff0001ffff000000";
    run(on_loopback(&["listen", "--ticket", "-n", network]))
        .failure(2, &["another one is named", "leave -n"]);
    run(on_loopback(&["listen", "--ticket", "7000"])).failure(2, &["cannot be used with"]);
    run(on_loopback(&["listen", "-n", network])).failure(2, &["<PORT>"]);
}

/// Starts `listen --code` with further words. Returns the words for the other end, too, of which the last is
/// the code.
fn listen_by_code(words: &[&str]) -> (Running, Vec<String>) {
    let mut command = on_loopback(&["listen", "--code"]);
    command.args(words).env("PEERSOCK_NETWORK", "ff0001ffff000000");
    let listening = Running::start(command);
    let words = listening.wait_for_stderr("connect with: peersock ").replace('\'', "");
    (listening, words.split(' ').map(str::to_owned).collect())
}

#[test]
fn a_code_leads_to_the_pipe_that_has_printed_it() {
    let lab = Lab::new();
    let file = lab.dir.path().join("code");
    for udp in [&[][..], &["--udp"]] {
        let (mut listening, words) = listen_by_code(udp);
        let code = words.last().unwrap();
        assert_eq!(code.len(), 17);
        listening.wait_for_stderr("on this LAN only");
        // Typed by a person, or where other users do not see it.
        let typed = code.to_lowercase().replace('-', "");
        write_file(&file, &format!("{code}\n"), 0o600);
        let at_file = format!("@{}", file.display());
        let target = if udp.is_empty() { typed } else { at_file };
        let mut dialing = Running::start(on_loopback(&[&["dial", &target], udp].concat()));
        dialing.talk_to(&mut listening, "hello", "answer");
        listening.end_stdin();
        let said = dialing.finish().success();
        assert!(!said.stderr.contains(code), "{}", said.stderr);
    }
}

#[test]
fn a_code_holds_no_roots_so_both_ends_name_the_same() {
    let root = Root::start(&[]);
    let (mut listening, words) = listen_by_code(&["--root", &root.text()]);
    assert_eq!(words[..3], ["dial", "--root", &root.text()]);
    let mut dialing = Running::start(on_loopback(&words.iter().map(String::as_str).collect::<Vec<_>>()));
    dialing.send(b"hello\n");
    listening.wait_for_stdout("hello\n");
    assert!(!listening.said().contains("on this LAN only"), "{}", listening.said());
    listening.end_stdin();
    dialing.finish().success();
}

#[test]
fn a_code_with_a_typing_error_or_of_another_command_is_explained() {
    let (_listening, words) = listen_by_code(&[]);
    let code = words.last().unwrap();
    let mut swapped: Vec<_> = code.chars().collect();
    let at = (1..4).find(|at| swapped[*at] != swapped[at + 1]).unwrap_or(0);
    swapped.swap(at, at + 1);
    let wrong = if at == 0 { code.replace(&code[..1], "@") } else { swapped.iter().collect() };
    for command in ["dial", "open"] {
        let said = run(on_loopback(&[command, &wrong]));
        said.failure(2, &["a typing error", "hint: give it as `peersock listen --code` has printed it"]);
    }
    let network = ["-n", "ff0001ffff000000"];
    run(on_loopback(&[&["dial", code], &network[..]].concat())).failure(2, &["a code has its own network"]);
    run(on_loopback(&[&["listen", "--code"], &network[..]].concat()))
        .failure(2, &["--code makes a separate network"]);
    run(on_loopback(&["listen", "--code", "--ticket"])).failure(2, &["cannot be used with"]);

    let lab = Lab::new();
    let path = lab.dir.path().join("file");
    write_file(&path, "content", 0o600);
    let sending = Running::start(on_loopback(&["send", path.to_str().unwrap()]));
    let of_send = sending.wait_for_stdout("\n").trim().to_owned();
    run(on_loopback(&["dial", &of_send, "--timeout", "1"]))
        .failure(1, &["the program that made this code has not answered", "for `peersock receive`"]);
}

#[test]
fn what_is_no_ticket_is_refused_without_a_search() {
    let (_sharing, ticket) = share(echo(), &[]);
    let wrong = format!("{}{}", &ticket[..ticket.len() - 5], &ticket[ticket.len() - 4..]);
    for command in ["open", "dial"] {
        run(on_loopback(&[command, &wrong])).failure(2, &["a typing error", "hint: give it as"]);
        let long = format!("{ticket}{}", "A".repeat(5000));
        run(on_loopback(&[command, &long])).failure(2, &["at most 4096 characters"]);
    }
    run(on_loopback(&["open", "alpha:80"])).failure(2, &["a ticket begins with peersock://"]);
    run(on_loopback(&["open", &ticket, "overlay:80"])).failure(2, &["overlay:80", "hint: write PORT"]);
    run(on_loopback(&["open", &ticket, "udp:80"])).failure(2, &["no local place for connections"]);
    run(on_loopback(&["share", "udp:53"])).failure(2, &["not to datagrams"]);
    for words in [&["share", "80"][..], &["listen", "--ticket"], &["open", &ticket], &["dial", &ticket]] {
        let mut unclear = on_loopback(words);
        unclear.env("PEERSOCK_DHT", "nonsense");
        run(unclear).failure(2, &["PEERSOCK_DHT"]);
    }
    run(on_loopback(&["dial", &ticket, "-n", "ff0001ffff000000"])).failure(2, &["another one is named"]);
}

/// The ticket's network is another one than those of the user, and allows one port. Its key is no member of
/// theirs.
#[test]
fn a_ticket_leads_to_no_other_service_of_the_machine() {
    let lab = Lab::new();
    // A shared node of the same machine, with a program that listens at the port of tickets as well.
    let mut keep = peersock(&["node", "--interface", "lo", "--state"]);
    keep.arg(lab.state("listener"));
    let kept = Running::start(keep);
    kept.wait_for_stderr("share it");
    let mut beside = lab.node("listener", &["listen"]);
    beside.env_remove("PEERSOCK_OWN_NODE");
    let other = lab.listen_with(beside, &["-k", &PORT.to_string()]);
    let (sharing, ticket) = share(echo(), &[]);
    let ticket: Ticket = ticket.parse().unwrap();

    let holder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let holder = holder.start().unwrap();
    let joined = holder.join(ticket.network()).unwrap();
    let service = ticket.address();
    joined.wait_peer(service.ip(), PATIENCE).unwrap();
    let connect = |to: SocketAddr, within| blocking::TcpStream::connect_timeout_on(&holder, &to, within);
    connect(service, PATIENCE).expect("the service is reached");
    let elsewhere = SocketAddr::new(service.ip(), PORT);
    assert_eq!(connect(elsewhere, PATIENCE).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    // The shared node is no member of the ticket's network, and the holder no member of its networks.
    let target: SocketAddr = other.target.parse().unwrap();
    let brief = Duration::from_millis(500);
    assert!(connect(target, brief).is_err());
    let id = run(lab.command("listener", &["addr", &ticket.network().id().to_string()])).success();
    let its: SocketAddr = format!("[{}]:{}", id.text().trim(), Ticket::PORT).parse().unwrap();
    assert_ne!(its.ip(), service.ip());
    assert!(joined.wait_peer(its.ip(), brief).is_err());
    assert!(joined.peers().iter().all(|peer| !peer.addresses.contains(&its.ip())));

    // The same identity as in the user's networks would tell holders who shares.
    assert!(!address_of(&lab, "listener").ends_with(&service.ip().to_string()[20..]));
    sharing.interrupt();
}

#[test]
fn a_ticket_holds_the_roots_and_their_tokens() {
    let lab = Lab::new();
    let token = lab.dir.path().join("token");
    write_file(&token, "open sesame\n", 0o600);
    let root = Root::start(&["--access-token-file", token.to_str().unwrap()]);
    let given = ["--root", &root.text(), "--root-token-file", token.to_str().unwrap(), "--dht=127.0.0.1:9"];
    let (sharing, ticket) = share(echo(), &given);
    sharing.wait_for_stderr("the ticket contains the access token of a root");
    assert!(!sharing.said().contains("on this LAN only"), "{}", sharing.said());
    assert!(ticket.len() <= 300, "{}", ticket.len());
    let parsed: Ticket = ticket.parse().unwrap();
    let [RootSource::Address(address)] = parsed.roots() else { panic!("one root") };
    assert_eq!(address.to_string(), root.text());
    assert_eq!(address.token(), Some(&b"open sesame"[..]));
    assert_eq!(parsed.dht().to_string(), "127.0.0.1:9");
    let mut dialing = Running::start(on_loopback(&["dial", &ticket]));
    dialing.send(b"hello");
    assert_eq!(dialing.finish().success().text(), "hello");
    drop(root);
}

#[test]
fn a_ticket_without_its_beginning_that_is_cut_is_not_taken_for_an_address() {
    let (ticket, _) = Ticket::issue(Vec::new(), peersock::Dht::Off).unwrap();
    let text = ticket.to_text();
    let bare = text.strip_prefix("peersock://").unwrap();
    for command in ["dial", "open"] {
        let said = run(on_loopback(&[command, &bare[..bare.len() - 1]]));
        said.failure(2, &["ticket", "hint: give it as `peersock share`"]);
        assert!(!said.stderr.contains(&bare[5..40]), "{}", said.stderr);
    }
}

#[test]
fn an_option_of_a_network_is_explained_where_a_ticket_makes_the_network() {
    for words in [
        &["share", "-n", "ff0001ffff000000", "8080"][..],
        &["share", "8080", "--network=ff0001ffff000000"],
        &["share", "8080", "--state", "/tmp"],
        &["open", "-n", "ff0001ffff000000", "x"],
    ] {
        let said = run(on_loopback(words));
        said.failure(2, &["unexpected argument", "a ticket has its own network and identity"]);
        assert!(!said.stderr.contains("`-- -n`"), "{}", said.stderr);
    }
}
