//! The most verbose logs of a root and of two nodes contain none of their secrets: the network's passphrase,
//! the root's token, passwords of TURN servers and proxies, and identities. Their status does not, either.
//!
//! Nodes whose UDP is blocked use all of these at once; [`Blocked`] says what their tests need.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};
use rustix::process::Signal;

use crate::blocked::{Blocked, SERVER};
use crate::common::{Finished, PORT, Running, run, signal, write_file};
use crate::turn::relayed;

const PASSPHRASE: &str = "correct horse battery";
const TOKEN: &str = "Zugangswort-4711";
const PROXY_PASSWORD: &str = "sw0rdf1sh";
/// Password of coturn in [`Blocked`].
const TURN_PASSWORD: &str = "sesame";

#[test]
fn no_secret_is_in_the_most_verbose_logs_or_in_what_nodes_tell() {
    let Some(lab) = Blocked::build("no_secret_is_in_the_most_verbose_logs") else { return };
    let file = |name: &str, text: &str| {
        let path = lab.file(name);
        write_file(&path, text, 0o600);
        path
    };
    let (token, passphrase) = (file("token", TOKEN), file("passphrase", PASSPHRASE));
    let mut command = lab.root_command();
    command.arg("--access-token-file").arg(&token).env("PEERSOCK_LOG", "trace");
    let root = Running::start(command);
    let text = root.wait_for_stdout("\n").lines().next().expect("a line").to_owned();
    let _coturn = lab.start_coturn();
    let (proxy, heads) = start_proxy(&lab);

    // Each secret reaches each node in a different way.
    let with_token = format!("{text}?token={TOKEN}");
    let listener = |words: &[&str]| {
        let mut command = lab.command(0, &with_token, &lab.by_tcp(), words);
        command.arg("-vv").env("PEERSOCK_SECRET", PASSPHRASE);
        command.env("HTTPS_PROXY", format!("http://me:{PROXY_PASSWORD}@{proxy}"));
        command
    };
    let mut listening = Running::start(listener(&["listen", &PORT.to_string()]));
    let target = listening.wait_for_target();
    lab.wait_for_status(0, |now| {
        now["roots"][0]["state"] == "registered" && relayed(now).is_some_and(|at| at.starts_with(SERVER))
    });
    let mut command = lab.command(1, "", &lab.by_tls(), &["dial", &target, "-vv", "--root", &text]);
    command.arg("--root-token-file").arg(&token).arg("--secret-file").arg(&passphrase);
    let mut dialing = Running::start(command);
    dialing.talk_to(&mut listening, "there", "and back");
    lab.wait_for_status(1, |now| now["roots"][0]["state"] == "registered");

    let mut said: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut add = |what: &str, finished: Finished| {
        said.insert(format!("{what}, stdout"), finished.stdout);
        said.insert(format!("{what}, stderr"), finished.stderr.into_bytes());
    };
    for words in [&["status"][..], &["status", "--json"], &["status", "--prometheus", "--all"]] {
        for which in 0..2 {
            let mut command = lab.at(which, &[words, &["-vvv", "--state"]].concat());
            command.arg(lab.state(which));
            add(&format!("{which} {words:?}"), run(command).success());
        }
    }
    for words in [&["netcheck", "-vvv"][..], &["netcheck", "-vvv", "--json"]] {
        let mut command = lab.at(0, words);
        command.env("PEERSOCK_ROOTS", &with_token).env("PEERSOCK_TURN", lab.by_tcp());
        command.env("HTTPS_PROXY", format!("http://me:{PROXY_PASSWORD}@{proxy}"));
        add(&format!("{words:?}"), run(command).success());
    }
    dialing.end_stdin();
    add("listen", listening.finish().success());
    add("dial", dialing.finish().success());
    signal(Signal::TERM, root.id());
    add("root", root.finish().success());

    // All secrets were used, and the logs are as verbose as possible.
    let heads = heads.lock().expect("no panic").clone();
    let basic = format!("Basic {}", BASE64.encode(format!("me:{PROXY_PASSWORD}").as_bytes()));
    assert!(heads.iter().any(|head| head.contains(&basic)), "{heads:?}");
    for (log, level) in [("listen", "TRACE"), ("dial", "TRACE"), ("root", "DEBUG")] {
        let log = String::from_utf8_lossy(&said[&format!("{log}, stderr")]);
        assert!(log.contains(level), "{log}");
    }

    for (name, secret) in secrets(&lab) {
        for form in forms(&secret) {
            for (what, text) in &said {
                let at = text.windows(form.len()).position(|window| window == form.as_bytes());
                let line = at.map(|at| {
                    let from = text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |from| from + 1);
                    String::from_utf8_lossy(&text[from..(at + 200).min(text.len())]).into_owned()
                });
                assert!(line.is_none(), "{name} is in {what}, as {form:?}: {line:?}");
            }
        }
    }
}

#[test]
fn every_form_of_a_secret_is_looked_for() {
    let secret = b"sesame";
    let is_found = |text: &str| forms(secret).iter().any(|form| text.contains(form.as_str()));
    for text in ["x sesame y", "736573616d65", "password=[115, 101, 115, 97, 109, 101]", "c2VzYW1l"] {
        assert!(is_found(text), "{text}");
    }
    // A secret is found at any position in encoded text.
    for before in ["", "a", "ab", "alice:"] {
        let text = BASE64.encode(format!("{before}sesame!").as_bytes());
        assert!(is_found(&text), "{before} {text}");
    }
    assert!(!is_found("c2VzYW0 7365 sesam"));
}

/// Returns all secrets with their names.
fn secrets(lab: &Blocked) -> Vec<(String, Vec<u8>)> {
    let texts = [
        ("the passphrase", PASSPHRASE),
        ("the token", TOKEN),
        ("the proxy's password", PROXY_PASSWORD),
        ("the password for TURN", TURN_PASSWORD),
    ];
    let mut secrets: Vec<_> =
        texts.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
    for which in 0..3 {
        let text = fs::read_to_string(lab.state(which).join("identity.key")).expect("an identity");
        let digits = text.trim_end().rsplit(' ').next().expect("digits");
        secrets
            .push((format!("the identity of {which}"), HEXLOWER.decode(digits.as_bytes()).expect("digits")));
    }
    // The key of long-term credentials (RFC 8489, 9.2.2) is equivalent to the password.
    let key = md5(&format!("alice:example.org:{TURN_PASSWORD}"));
    secrets.extend(key.map(|key| ("the key for TURN".to_owned(), key)));
    secrets
}

/// Computes an MD5 sum; returns `None` if the program for it is missing.
fn md5(text: &str) -> Option<Vec<u8>> {
    let mut md5sum = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    md5sum.stdin.take()?.write_all(text.as_bytes()).ok()?;
    let output = md5sum.wait_with_output().ok()?;
    HEXLOWER.decode(output.stdout.get(..32)?).ok()
}

/// Returns the forms in which a secret may appear in a log.
fn forms(secret: &[u8]) -> Vec<String> {
    let mut forms: Vec<String> = std::str::from_utf8(secret).ok().map(str::to_owned).into_iter().collect();
    forms.extend([HEXLOWER.encode(secret), HEXUPPER.encode(secret)]);
    let decimal: Vec<String> = secret.iter().map(u8::to_string).collect();
    forms.push(decimal.join(", "));
    forms.push(secret.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
    forms.extend(std::str::from_utf8(secret).ok().map(|text| text.replace(' ', "%20")));
    for encoding in [BASE64, BASE64URL] {
        for before in 0..3 {
            // Bytes before and after the secret affect its first and last characters, so those are cut off.
            let text = encoding.encode(&[&vec![0; before][..], secret].concat());
            let (first, last) = ((before * 8).div_ceil(6), (before + secret.len()) * 8 / 6);
            forms.push(text[first..last].to_owned());
        }
    }
    forms
}

/// Starts a web proxy (RFC 9110, 9.3.6) for a, open to every client. Also returns its requests' headers.
fn start_proxy(lab: &Blocked) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = lab.inside(2, || TcpListener::bind("10.97.1.1:0").expect("an address of it"));
    let address = listener.local_addr().expect("an address").to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&heads);
    // All of its targets are on its own machine.
    lab.inside(2, move || {
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let asked = Arc::clone(&asked);
                thread::spawn(move || serve(client, &asked));
            }
        });
    });
    (address, heads)
}

/// Serves one client; a failure ends the connection.
fn serve(mut client: TcpStream, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    asked.lock().ok()?.push(head);
    let mut server = TcpStream::connect(target).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let upwards = thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Write);
    upwards.join().ok()
}
