//! A client that is restarted repeatedly with the same port: leftovers of earlier instances at the server, a
//! TIME-WAIT or an open connection, are replaced.

use crate::common::run;
use crate::lab::Lab;

/// Ways in which a connection ends.
const ENDS: [&str; 4] = ["server", "client", "exit", "kill"];

#[test]
fn a_client_with_a_port_of_its_own_is_served_ten_times_without_waiting() {
    let test = "a_client_with_a_port_of_its_own_is_served_ten_times_without_waiting";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let server = "import socket, threading
def serve(c):
    end = c.recv(10)
    c.sendall(b'answer')
    try:
        # Whoever closes first has the TIME-WAIT.
        if end != b'server': c.recv(1)
    except OSError: pass
    c.close()
s = socket.create_server(('', 7000))
print('ready', flush=True)
while True: threading.Thread(target=serve, args=(s.accept()[0],)).start()";
    let serving = lab.start("alpha", &["python3", "-c", server]);
    serving.wait_for_stdout("ready");
    let client = "import os, signal, socket, sys, time
began = time.monotonic()
s = socket.socket()
s.bind(('10.77.0.2', 7777))
s.connect(('10.77.0.1', 7000))
end = sys.argv[1]
s.sendall(end.encode())
assert s.recv(6, socket.MSG_WAITALL) == b'answer'
print(time.monotonic() - began, flush=True)
if end == 'server': s.recv(1)
elif end == 'exit': os._exit(0)
# The node goes with its program.
elif end == 'kill': os.kill(os.getppid(), signal.SIGKILL)
s.close()";
    for end in ENDS {
        for round in 0..10 {
            let finished = run(lab.command("beta", &[], &["python3", "-c", client, end]));
            let which = format!("{end}, {round}");
            assert!(end == "kill" || finished.status.success(), "{which}: {}", finished.stderr);
            let took: f64 = finished.text().trim().parse().unwrap_or_else(|error| {
                panic!("{which}: {error}; {} {}", finished.text(), finished.stderr);
            });
            assert!(took < 2.0, "{which}: {took} s");
        }
    }
}
