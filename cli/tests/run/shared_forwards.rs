//! `forward` and `proxy` at the node that programs share.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{PATIENCE, Running, run, vanish};
use crate::lab::Lab;

/// Connections that pass a forward at once.
const CONNECTIONS: usize = 100;

impl Lab {
    /// Starts a forward. Returns it with the ports of its local places.
    fn forward(&self, member: &str, words: &[&str]) -> (Running, Vec<u16>) {
        let forward = Running::start(self.as_member(member, &[&["forward"], words].concat()));
        let pairs = words.iter().filter(|word| word.ends_with(":0") || **word == "0").count();
        let mut ports = Vec::new();
        while ports.len() < pairs {
            thread::sleep(Duration::from_millis(10));
            let shown = forward.shown();
            let whole = shown.rsplit_once('\n').map_or("", |(lines, _)| lines);
            let locals = whole.lines().filter_map(|line| line.split(' ').next());
            ports = locals.filter_map(|local| local.rsplit(':').next()?.parse().ok()).collect();
        }
        (forward, ports)
    }
}

/// Serves connections with an echo, in threads that end with the test. Returns the port.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut from, mut to) = (&stream, &stream);
                let _ = io::copy(&mut from, &mut to);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream
}

/// Sends bytes and the end, and returns all that comes back.
fn exchange(port: u16, data: &[u8]) -> Vec<u8> {
    let stream = connect(port);
    let (mut reader, mut writer) = (&stream, &stream);
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(data).expect("it is read");
            stream_end(writer);
        });
        let mut back = Vec::new();
        reader.read_to_end(&mut back).expect("an end");
        back
    })
}

fn stream_end(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("it is open");
}

#[test]
fn many_connections_pass_a_forward_into_the_network_and_out_of_it() {
    let Some(lab) = Lab::with("many_connections_pass_a_forward", &[]) else { return };
    let kept = [lab.keep("alpha"), lab.keep("beta")];
    let service = echo().to_string();
    // Out of the network at alpha, and into it at beta; both beside other programs of their nodes.
    let (out, _) = lab.forward("alpha", &["overlay:7000", &service]);
    out.wait_for_stdout("overlay:");
    let (into, ports) = lab.forward("beta", &["0", "alpha:7000", "127.0.0.1:0", "10.77.0.1:7000"]);
    let beside = lab.listen("beta", &["7001"]);
    let data = lab.write_random("data", 100_000);
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let (port, data) = (ports[number % ports.len()], &data[number..]);
            scope.spawn(move || assert!(exchange(port, data) == data, "connection {number}"));
        }
    });
    let large = lab.write_random("large", 16 << 20);
    assert!(exchange(ports[0], &large) == large);
    // An open connection is cut off at the end, with a reset.
    let held = connect(ports[0]);
    (&held).write_all(b"held").expect("it is read");
    (&held).read_exact(&mut [0; 4]).expect("an echo");
    let interrupted = { into }.interrupt();
    interrupted.failure(130, &["1 connection is still open", "1 connection was cut off"]);
    let end = (&held).read(&mut [0; 4]).expect_err("no regular end");
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    out.interrupt().failure(130, &[]);
    drop((beside, kept));
}

#[test]
fn resets_and_half_closes_pass_a_forward() {
    let Some(lab) = Lab::with("resets_and_half_closes_pass_a_forward", &["python3"]) else { return };
    let kept = [lab.keep("alpha"), lab.keep("beta")];
    let resets = "
import socket, struct
s = socket.create_server(('', 7000))
print('ready', flush=True)
while True:
    c = s.accept()[0]
    data = b''
    while piece := c.recv(1000): data += piece
    c.sendall(b'got ' + data)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    import time; time.sleep(0.3)
    c.close()";
    let serving = lab.shared("alpha", &["python3", "-c", resets]);
    serving.wait_for_stdout("ready");
    let (forward, ports) = lab.forward("beta", &["0", "alpha:7000"]);
    let stream = connect(ports[0]);
    (&stream).write_all(b"all").expect("it is read");
    stream_end(&stream);
    (&stream).read_exact(&mut [0; 7]).expect("an answer");
    let end = (&stream).read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    // Where no program listens, the client is not told of an end.
    let (nobody, ports) = lab.forward("beta", &["0", "alpha:7009"]);
    let refused = connect(ports[0]);
    let end = (&refused).read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    nobody.wait_for_stderr("nothing listens on that port");
    // Nor is a peer when the forward is killed.
    let listening = lab.listen("alpha", &["--receive-only", "7001"]);
    let (killed, ports) = lab.forward("beta", &["0", "alpha:7001"]);
    let client = connect(ports[0]);
    (&client).write_all(b"a part").expect("it is read");
    listening.wait_for_stdout("a part");
    vanish(Signal::KILL, killed.id());
    listening.wait_for_end().failure(1, &["the peer has reset it"]);
    drop((forward, nobody, serving, kept));
}

#[test]
fn datagrams_pass_a_forward_in_both_directions() {
    let Some(lab) = Lab::with("datagrams_pass_a_forward", &[]) else { return };
    let kept = [lab.keep("alpha"), lab.keep("beta")];
    let service = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    service.set_read_timeout(Some(PATIENCE)).expect("a time");
    let port = service.local_addr().expect("it is bound").port().to_string();
    let (out, _) = lab.forward("alpha", &["udp:overlay:7000", &port]);
    out.wait_for_stdout("udp:overlay:");
    let (into, ports) = lab.forward("beta", &["udp:127.0.0.1:0", "alpha:7000"]);
    let clients = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a free port"));
    let mut buffer = [0; 2000];
    for (number, client) in clients.iter().enumerate() {
        client.set_read_timeout(Some(PATIENCE)).expect("a time");
        client.connect(("127.0.0.1", ports[0])).expect("it is bound");
        let text = vec![number as u8; 1000 + number];
        client.send(&text).expect("it is bound");
        let (count, from) = service.recv_from(&mut buffer).expect("a datagram");
        assert_eq!(buffer[..count], text);
        service.send_to(&text, from).expect("it is bound");
        let count = client.recv(&mut buffer).expect("an answer");
        assert_eq!(buffer[..count], text);
    }
    drop((out, into, kept));
}

#[test]
fn a_member_has_half_of_a_forward_s_connections_at_all_its_addresses() {
    let Some(lab) = Lab::with("a_member_has_half_of_a_forward_s", &[]) else { return };
    let kept = [lab.keep("alpha"), lab.keep("beta")];
    let service = echo().to_string();
    let (forward, _) = lab.forward("alpha", &["--max-connections", "4", "overlay:7000", &service]);
    forward.wait_for_stdout("overlay:");
    let mut held: Vec<_> = ["10.77.0.1:7000", "[fd77::1]:7000"]
        .iter()
        .map(|target| {
            let mut dial = lab.dial("beta", &[target]);
            dial.send(b"held\n");
            dial.wait_for_stdout("held\n");
            dial
        })
        .collect();
    let mut third = lab.dial("beta", &["alpha:7000"]);
    third.send(b"one too many\n");
    third.wait_for_end().failure(1, &["the connection broke"]);
    let mut other = lab.dial("gamma", &["alpha:7000"]);
    other.send(b"another member\n");
    other.wait_for_stdout("another member\n");
    held.iter_mut().for_each(|dial| dial.send(b"still\n"));
    held.into_iter().for_each(|dial| drop(dial.finish().success()));
    other.finish().success();
    drop((forward, kept));
}

#[test]
fn a_proxy_reaches_members_by_name_and_no_others() {
    let Some(lab) = Lab::with("a_proxy_reaches_members_by_name", &["curl"]) else { return };
    let kept = [lab.keep("alpha"), lab.keep("beta")];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let service = listener.local_addr().expect("it is bound").port().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).read(&mut [0; 4096]);
            let _ = (&stream)
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        }
    });
    let (forward, _) = lab.forward("alpha", &["overlay:80", &service]);
    forward.wait_for_stdout("overlay:");
    let proxy = Running::start(lab.as_member("beta", &["proxy", "--listen", "0"]));
    let url = proxy.wait_for_stdout("\n").trim().to_owned();
    let http = url.replace("socks5h", "http");
    for (proxy, target) in
        [(&url, "http://alpha/"), (&url, "http://10.77.0.1/"), (&http, "http://[fd77::1]/")]
    {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--globoff", "--noproxy", "", "--proxy", proxy, target]);
        assert_eq!(run(curl).success().text(), "hello", "{target} by {proxy}");
    }
    let mut foreign = Command::new("curl");
    foreign.args(["-sS", "--noproxy", "", "--proxy", &url, "http://192.0.2.1/"]);
    run(foreign).failure(97, &[]);
    // The end of the node is the proxy's.
    let [alpha, beta] = kept;
    vanish(Signal::KILL, beta.id());
    proxy
        .wait_for_end()
        .failure(1, &["no client can connect any more", "the node that programs share has ended"]);
    drop((alpha, forward));
}
