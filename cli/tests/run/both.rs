//! Servers that are reached from the overlay and from the machine's own network through one descriptor.

use std::process::Command;

use peersock_testnet::free_port;

use crate::common::{Running, run};
use crate::lab::{ALPHA, Lab, behind, sha256};

/// Returns the output of a bash script outside of peersock. `try COMMAND` repeats a command until it
/// succeeds.
fn outside(lab: &Lab, script: &str) -> String {
    let mut bash = Command::new("bash");
    let script = format!(
        "set -eu -o pipefail
         try() {{ until (\"$@\") 2>/dev/null; do sleep 0.05; [ $SECONDS -lt 60 ] || exit 99; done; }}
         {script}"
    );
    bash.args(["-c", &script]).current_dir(lab.folder());
    run(bash).success().text().to_owned()
}

#[test]
fn a_server_is_reached_from_both_networks_by_many_at_once() {
    let test = "a_server_is_reached_from_both_networks_by_many_at_once";
    let Some(lab) = Lab::with(test, &["python3", "curl"]) else { return };
    let sum = sha256(&lab.write_random("file", 3_000_000));
    for (wildcard, hosts) in [("0.0.0.0", &["127.0.0.1"][..]), ("::", &["127.0.0.1", "[::1]"])] {
        let port = free_port();
        let rule = format!("{port}=both");
        let program = ["python3", "-m", "http.server", "--bind", wildcard, &port.to_string()];
        let _server = Running::start(lab.command("alpha", &["--bind", &rule], &program));
        let fetch = |host: &str| {
            format!(
                "try curl -gsSf -o one http://{host}:{port}/file; sha256sum <one
                 curl -gsSf -Z --parallel-immediate {} ; cat many-* | sha256sum; rm many-*\n",
                (0..20).map(|n| format!("-o many-{n} http://{host}:{port}/file ")).collect::<String>()
            )
        };
        let many = sha256(&std::fs::read(lab.path("file")).unwrap().repeat(20));
        let wanted = format!("{sum}  -\n{many}  -\n");
        for host in hosts {
            assert_eq!(outside(&lab, &fetch(host)), wanted, "{host}");
        }
        assert_eq!(lab.bash("beta", &fetch(ALPHA)).text(), wanted);
    }
}

#[test]
fn nginx_with_workers_serves_both_networks_and_goes_on_after_a_reload() {
    let test = "nginx_with_workers_serves_both_networks_and_goes_on_after_a_reload";
    let Some(lab) = Lab::with(test, &["nginx", "curl"]) else { return };
    let (shared, own) = (free_port(), free_port());
    let config = |answer: &str| {
        lab.write(
            "nginx.conf",
            &format!(
                "daemon off; worker_processes 2; pid @DIR@/nginx.pid; error_log @DIR@/nginx.error; events {{}}
                 http {{
                   access_log off;
                   client_body_temp_path @DIR@/body; proxy_temp_path @DIR@/proxy;
                   fastcgi_temp_path @DIR@/fastcgi; uwsgi_temp_path @DIR@/uwsgi; scgi_temp_path @DIR@/scgi;
                   server {{
                     listen {shared} so_keepalive=on deferred; listen [::]:{shared};
                     listen {own} reuseport; listen [::]:{own} reuseport;
                     location / {{ return 200 \"{answer} $remote_addr $server_port\\n\"; }}
                   }}
                 }}"
            ),
        )
    };
    let program = ["/usr/sbin/nginx", "-c", &config("old")];
    let _server = Running::start(lab.command("alpha", &["--bind", "both"], &program));
    let ask = |hosts: &[&str]| {
        let mut script = String::new();
        for host in hosts {
            for port in [shared, own] {
                script += &format!("try curl -gsSf http://{host}:{port}/\n");
                script +=
                    &format!("for n in {{1..10}}; do curl -gsSf http://{host}:{port}/; done | sort -u\n");
            }
        }
        script
    };
    let (near, far) = (ask(&["127.0.0.1", "[::1]"]), ask(&[ALPHA, "[fd77::1]"]));
    let answers = |word: &str, addresses: &[&str]| {
        let ports = [shared, shared, own, own];
        let of = |address: &&str| ports.map(|port| format!("{word} {address} {port}\n")).concat();
        addresses.iter().map(of).collect::<String>()
    };
    assert_eq!(outside(&lab, &near), answers("old", &["127.0.0.1", "::1"]));
    assert_eq!(lab.bash("beta", &far).text(), answers("old", &["10.77.0.2", "fd77::2"]));
    config("new");
    let reload = format!(
        "kill -HUP $(cat nginx.pid)
         for port in {shared} {own}; do
           try eval '[ $(for n in {{1..20}}; do curl -s http://127.0.0.1:'$port'/; done | grep -c new) = 20 ]'
         done
         {near}"
    );
    assert_eq!(outside(&lab, &reload), answers("new", &["127.0.0.1", "::1"]));
}

#[test]
fn a_port_that_the_system_chooses_is_the_same_on_both_and_free_after_closing() {
    let test = "a_port_that_the_system_chooses_is_the_same_on_both_and_free_after_closing";
    let Some(lab) = Lab::with(test, &["python3", "curl"]) else { return };
    let script = lab.write(
        "server.py",
        "import os, select, socket
def serve(bind, before=lambda s: None):
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if bind is not None:
        s.bind(('::', bind))
        told = s.getsockname()[1]
    before(s)
    s.listen(1)
    port = s.getsockname()[1]
    assert bind is None or told == port
    with open('port.new', 'w') as f:
        f.write(str(port))
    os.rename('port.new', 'port')
    return s, port
def answer(s):
    for _ in range(2):
        c, peer = s.accept()
        assert c.getsockname()[1] == s.getsockname()[1] and c.getpeername()[:2] == peer[:2], peer
        assert s.fileno() == c.fileno() - 1, 'not the lowest number'
        c.sendall(b'yes')
        c.close()
for bind in 0, None:
    s, port = serve(bind)
    answer(s)
    s.close()
# At once again, in a child, and in a set of epoll before it listens.
epoll = select.epoll()
s, again = serve(port, lambda s: epoll.register(s.fileno(), select.EPOLLIN))
assert again == port
if os.fork() == 0:
    for _ in range(2):
        assert [fd for fd, _ in epoll.poll()] == [s.fileno()]
        c, _ = s.accept()
        c.sendall(b'child')
        c.close()
    assert epoll.poll(0) == []
    os._exit(0)
s.close()
assert os.wait()[1] == 0
epoll.close()
print('done')
",
    );
    let server = Running::start(lab.command("alpha", &["--bind", "both"], &["python3", &script]));
    for wanted in ["yes", "yes", "child"] {
        let near =
            "try test -e port; exec 3<>/dev/tcp/127.0.0.1/$(cat port); cat <&3; echo; cat port; rm port";
        let said = outside(&lab, near);
        let (word, port) = said.split_once('\n').unwrap();
        assert_eq!(word, wanted);
        let far = lab.bash("beta", &format!("try eval 'exec 3<>/dev/tcp/{ALPHA}/{port}; cat <&3'"));
        assert_eq!(far.text(), wanted);
    }
    assert_eq!(server.finish().success().text(), "done\n");
}

#[test]
fn both_networks_and_only_one_contradict_each_other() {
    let Some(lab) = Lab::with("both_networks_and_only_one_contradict_each_other", &[]) else { return };
    for rule in ["both", "80=both"] {
        run(lab.command("beta", &["--only", "--bind", rule], &["true"]))
            .failure(2, &["--only", "--bind both"]);
    }
}

#[test]
fn a_udp_server_answers_both_networks() {
    let test = "a_udp_server_answers_both_networks";
    let Some(lab) = Lab::with(test, &["python3", "socat"]) else { return };
    let port = free_port();
    let own = lab.write(
        "server.py",
        "import os, socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('::', 0))
with open('port.new', 'w') as f:
    f.write(str(s.getsockname()[1]))
os.rename('port.new', 'port')
while True:
    data, sender = s.recvfrom(2000)
    s.sendto(data.upper() + sender[0].encode(), sender)
",
    );
    let _own = Running::start(lab.command("alpha", &["--bind", "both"], &["python3", &own]));
    let udp = format!("udp4-recvfrom:{port},fork,reuseaddr");
    let program = ["socat", &udp, "exec:tr a-z A-Z"];
    let _socat = Running::start(lab.command("gamma", &["--bind", &format!("{port}=both")], &program));
    let ask = lab.write(
        "ask.py",
        "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
for n in range(100):
    s.sendto(b'hello', (sys.argv[1], int(sys.argv[2])))
    try:
        print(s.recv(100).decode())
        break
    except (TimeoutError, ConnectionRefusedError):
        pass
",
    );
    let near =
        format!("try test -e port; python3 {ask} 127.0.0.1 $(cat port); python3 {ask} 127.0.0.1 {port}");
    assert_eq!(outside(&lab, &near), "HELLO::ffff:127.0.0.1\nHELLO\n");
    let far = format!("python3 {ask} {ALPHA} $(cat port); python3 {ask} gamma {port}");
    assert_eq!(lab.bash("beta", &far).text(), "HELLO::ffff:10.77.0.2\nHELLO\n");
}

#[test]
fn connections_of_the_systems_take_no_descriptors_of_the_launchers() {
    let test = "connections_of_the_systems_take_no_descriptors_of_the_launchers";
    let Some(lab) = Lab::with(test, &["python3", "prlimit"]) else { return };
    let server = lab.write(
        "server.py",
        "import os, resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
s = socket.socket()
s.listen(1000)
with open('port.new', 'w') as f:
    f.write(str(s.getsockname()[1]))
os.rename('port.new', 'port')
while not os.path.exists('go'):
    time.sleep(0.05)
connections = [s.accept()[0] for _ in range(150)]
for c in connections:
    c.sendall(b'x')
print(len(connections))
",
    );
    let client = lab.write(
        "client.py",
        "import socket, threading
port = int(open('port').read())
said = []
def one(n):
    s = socket.create_connection(('127.0.0.1', port), timeout=100)
    if n == 100:
        open('go', 'w').close()
    said.append(s.recv(1))
threads = [threading.Thread(target=one, args=[n]) for n in range(150)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(said.count(b'x'))
",
    );
    let inner = lab.command("alpha", &["--bind", "both"], &["python3", &server]);
    let server = Running::start(behind(&["prlimit", "--nofile=40:1000"], &inner));
    assert_eq!(outside(&lab, &format!("try test -e port; python3 {client}")), "150\n");
    assert_eq!(server.finish().success().text(), "150\n");
}
