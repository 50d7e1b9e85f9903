//! System calls as used by programs, and names.

use std::process::Command;

use crate::builds::compile;
use crate::common::run;
use crate::lab::{ECHO, Lab};

#[test]
fn sockets_survive_what_programs_do_with_descriptors() {
    let test = "sockets_survive_what_programs_do_with_descriptors";
    let Some(lab) = Lab::with(test, &["cc", "socat", "python3"]) else { return };
    let source = format!("{}/tests/run/calls.c", env!("CARGO_MANIFEST_DIR"));
    let program = lab.path("calls");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-D_FORTIFY_SOURCE=2", "-o"]).arg(&program).arg(source);
    run(cc).success();
    let _echo = lab.start("alpha", &["sh", "-c", ECHO]);
    let got = lab.bash("beta", "up 7000; ./calls 10.77.0.1 7000 7999");
    assert_eq!(got.text(), "all well\n");

    let server = lab.start("gamma", &[&program]);
    let said = server.wait_for_stdout("\n");
    let port = said.trim().strip_prefix("port ").unwrap();
    assert_eq!(lab.bash("beta", &format!("head -n 1 < /dev/tcp/10.77.0.3/{port}")).text(), "accepted\n");
    server.finish().success();
}

#[test]
fn a_thread_that_waits_for_datagrams_gets_those_that_another_one_has_asked_for() {
    let test = "a_thread_that_waits_for_datagrams_gets_those_that_another_one_has_asked_for";
    let Some(lab) = Lab::with(test, &["cc", "socat", "python3"]) else { return };
    let program = compile(&lab, "receivers", &[]);
    let _echo = lab.start("alpha", &["sh", "-c", ECHO]);
    assert_eq!(lab.bash("beta", &format!("up 7000; {program} 10.77.0.1 7000")).text(), "all well\n");
}

#[test]
fn a_socket_stays_in_its_set_however_many_others_are_put_into_sets() {
    let test = "a_socket_stays_in_its_set_however_many_others_are_put_into_sets";
    let Some(lab) = Lab::with(test, &["cc", "socat"]) else { return };
    let program = compile(&lab, "sets", &[]);
    let _echo = lab.start("alpha", &["socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:cat"]);
    assert_eq!(lab.bash("beta", &format!("up 7000; {program} 10.77.0.1 7000")).text(), "all well\n");
}

#[test]
fn a_child_of_vfork_leaves_its_parent_s_descriptors_alone() {
    let test = "a_child_of_vfork_leaves_its_parent_s_descriptors_alone";
    let Some(lab) = Lab::with(test, &["cc", "socat"]) else { return };
    let program = compile(&lab, "vforks", &[]);
    let _echo = lab.start("alpha", &["socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:cat"]);
    assert_eq!(lab.bash("beta", &format!("up 7000; {program} 10.77.0.1 7000")).text(), "all well\n");
}

#[test]
fn an_error_after_the_first_of_several_messages_is_told_by_the_next_call() {
    let test = "an_error_after_the_first_of_several_messages_is_told_by_the_next_call";
    let Some(lab) = Lab::with(test, &["cc"]) else { return };
    let program = compile(&lab, "many", &[]);
    let server = lab.start("alpha", &[&program, "serve", "10.77.0.1", "7000"]);
    server.wait_for_stdout("serving");
    for mode in ["auto", "seccomp"] {
        let ask = [program.as_str(), "ask", "10.77.0.1", "7000", "7999"];
        let got = run(lab.command("beta", &["--mode", mode], &ask)).success();
        assert_eq!(got.text(), "all well\n", "{mode}");
    }
}

#[test]
fn threads_that_are_cancelled_while_they_wait_leave_nothing() {
    let test = "threads_that_are_cancelled_while_they_wait_leave_nothing";
    let Some(lab) = Lab::with(test, &["cc", "socat"]) else { return };
    let program = lab.path("cancel");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Werror", "-pthread", "-o"]).arg(&program);
    cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/cancel.c"));
    run(cc).success();
    let _echo = lab.start("alpha", &["socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:cat"]);
    let got = lab.bash("beta", "up 7000; ./cancel 10.77.0.1 7000");
    assert_eq!(got.text(), "all well\n");
}

#[test]
fn members_have_names_for_every_resolver_function() {
    let test = "members_have_names_for_every_resolver_function";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let script = lab.write(
        "names.py",
        "import socket
print(socket.gethostbyname('alpha'))
print(socket.gethostbyname_ex('GAMMA'))
print(socket.getnameinfo(('10.77.0.3', 80), 0))
print(socket.getnameinfo(('fd77::1', 22), socket.NI_NUMERICSERV))
print(socket.getnameinfo(('10.77.0.3', 80), socket.NI_NUMERICHOST))
print([a[4][0] for a in socket.getaddrinfo('alpha', 80, socket.AF_INET, socket.SOCK_STREAM)])
print([a[4][0] for a in socket.getaddrinfo('127.0.0.1', 80, type=socket.SOCK_STREAM)])
print([a[3] for a in socket.getaddrinfo('alpha', 80, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)])
print(socket.gethostbyaddr('10.77.0.3'), socket.gethostbyaddr('fd77::1'))
for function in socket.gethostbyname, lambda name: socket.getaddrinfo(name, 80), socket.gethostbyaddr:
    try:
        print(function('127.0.0.1' if function is socket.gethostbyaddr else 'localhost'))
    except OSError as error:
        print(type(error).__name__)
",
    );
    let got = run(lab.command("beta", &["--only"], &["python3", &script])).success();
    let wanted = "10.77.0.1
('GAMMA', [], ['10.77.0.3'])
('gamma', 'http')
('alpha', '22')
('10.77.0.3', 'http')
['10.77.0.1']
['127.0.0.1']
['alpha', '', '']
('gamma', [], ['10.77.0.3']) ('alpha', [], ['fd77::1'])
gaierror
gaierror
herror
";
    assert_eq!(got.text(), wanted);
}

/// The machine's hosts file has an IPv4 address for this member's name.
#[test]
fn a_member_without_an_address_of_the_family_is_no_other_host() {
    let test = "a_member_without_an_address_of_the_family_is_no_other_host";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let text = std::fs::read_to_string(lab.path("network.toml")).expect("the network");
    let text = text.replace("\"gamma\"", "\"localhost\"").replace("\"10.77.0.3\", ", "");
    let network = lab.write("v6.toml", &text);
    let script = lab.write(
        "names.py",
        "import socket
found = [entry[4][0] for entry in socket.getaddrinfo('localhost', 80, type=socket.SOCK_STREAM)]
# Besides, it has an address of its key.
print(len(found), 'fd77::3' in found, '127.0.0.1' in found)
for call in (
    lambda: socket.getaddrinfo('localhost', 80, socket.AF_INET, socket.SOCK_STREAM),
    lambda: socket.gethostbyname('localhost'),
    lambda: socket.gethostbyname_ex('localhost'),
):
    try: print(call())
    except OSError as error: print(type(error).__name__, error.errno)
",
    );
    let got = run(lab.command_in(network.as_ref(), "beta", &[], &["python3", &script])).success();
    assert_eq!(got.text(), "2 True False\ngaierror -2\ngaierror -2\ngaierror -2\n");
}

#[test]
fn a_reset_is_told_to_the_child_that_has_the_connection() {
    let test = "a_reset_is_told_to_the_child_that_has_the_connection";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    // The listening process has ended by then, as with daemons.
    let server = lab.write(
        "server.py",
        "import os, socket
s = socket.create_server(('', 7000))
if os.fork(): os._exit(0)
if os.fork(): os._exit(os.wait()[1])
connection, _ = s.accept()
try:
    while connection.recv(100): pass
    print('end', flush=True)
except ConnectionResetError:
    print('reset', flush=True)
",
    );
    let client = lab.write(
        "client.py",
        "import socket, struct, time
s = socket.create_connection(('10.77.0.1', 7000))
s.sendall(b'x')
time.sleep(0.2)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
s.close()
",
    );
    let serving = lab.start("alpha", &["python3", &server]);
    let script = format!("try python3 {client}");
    lab.bash("beta", &script);
    assert_eq!(serving.finish().success().text(), "reset\n");
}

#[test]
fn sizes_of_buffers_that_were_set_at_the_beginning_stay() {
    let test = "sizes_of_buffers_that_were_set_at_the_beginning_stay";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let program = lab.write(
        "sizes.py",
        "import socket
for name in socket.SO_RCVBUF, socket.SO_SNDBUF:
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, name, 20000)
    before = s.getsockopt(socket.SOL_SOCKET, name)
    s.bind(('10.77.0.1', 0))
    print(before == s.getsockopt(socket.SOL_SOCKET, name))
",
    );
    let got = run(lab.command("alpha", &[], &["python3", &program])).success();
    assert_eq!(got.text(), "True\nTrue\n");
}
