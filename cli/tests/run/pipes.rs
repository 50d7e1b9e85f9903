//! Programs that copy bytes between descriptors and sockets.

use crate::common::run;
use crate::lab::{Lab, is_root, sha256};

#[test]
fn netcat_and_socat_and_bash_carry_bytes_both_ways() {
    let test = "netcat_and_socat_and_bash_carry_bytes_both_ways";
    let Some(lab) = Lab::with(test, &["nc", "socat"]) else { return };
    let sum = sha256(&lab.write_random("file", 4_000_000));
    let script = lab.write(
        "servers",
        "cd @DIR@
         socat TCP-LISTEN:7000,fork,reuseaddr EXEC:cat &
         socat TCP6-LISTEN:7001,fork,reuseaddr,ipv6only=0 SYSTEM:'sha256sum' &
         nc -lk 7002 > received &
         wait",
    );
    let _servers = lab.start("alpha", &["bash", &script]);
    let got = lab.bash(
        "beta",
        "up 7000; up 7001
         socat -t 60 - TCP:alpha:7000 < file | sha256sum
         nc -N 10.77.0.1 7000 < file | sha256sum
         nc -N fd77::1 7001 < file
         socat -t 60 - 'TCP6:[fd77::1]:7001' < file
         exec 3<>/dev/tcp/alpha/7000
         echo by bash >&3
         head -n 1 <&3
         up 7002
         nc -N alpha 7002 < file
         try eval '[ $(stat -c %s received) = 4000000 ]'
         sha256sum < received",
    );
    let line = format!("{sum}  -\n");
    assert_eq!(got.text(), format!("{}by bash\n{line}", line.repeat(4)));
}

#[test]
fn iperf3_measures_tcp_in_both_directions() {
    let Some(lab) = Lab::with("iperf3_measures_tcp_in_both_directions", &["iperf3"]) else { return };
    let _server = lab.start("alpha", &["iperf3", "-s"]);
    // The server closes its listener for a moment between two clients.
    let script = lab.script(
        "up 5201
         sleep 0.3
         measured() {
           iperf3 -c alpha $options -J > report || { cat report >&2; exit 1; }
           ! grep 'Connection refused' report >&2
         }
         for options in '-n 20M' '-n 20M -R' '-n 20M -P 4' '-n 20M -6 -w 200K -C bbr'; do
           try measured
           grep -c '\"sum_received\"' report
         done",
    );
    let got = run(lab.command("beta", &[], &["bash", "-c", &script]));
    assert_eq!(got.text(), "1\n".repeat(4), "{}", got.stderr);
    // After a measurement iperf3's server closes connections that it has not read completely.
    if got.status.code() != Some(0) {
        got.failure(1, &["were not delivered of what", "the peer has reset the connection"]);
    }
}

#[test]
fn socat_netcat_and_iperf3_carry_datagrams() {
    let test = "socat_netcat_and_iperf3_carry_datagrams";
    let Some(lab) = Lab::with(test, &["socat", "nc", "iperf3", "python3"]) else { return };
    let script = lab.write(
        "servers",
        "cd @DIR@
         socat UDP6-RECVFROM:7000,fork,ipv6only=0 EXEC:cat &
         socat UDP-LISTEN:7001,fork EXEC:cat &
         nc -lu 7002 > received &
         iperf3 -s &
         wait",
    );
    let _servers = lab.start("alpha", &["bash", &script]);
    let got = lab.bash(
        "beta",
        "up 5201
         answer() { [ \"$(echo $1 | timeout 2 socat -t 1 - $2)\" = $1 ]; }
         try answer one UDP:10.77.0.1:7000
         try answer two 'UDP6:[fd77::1]:7000'
         try answer three UDP:alpha:7001
         head -c 1400 /dev/zero | nc -u -w 1 10.77.0.1 7002 || true
         try eval '[ $(stat -c %s received) = 1400 ]'
         for options in '' -R -6; do
           # The buffers hold everything, so that a receiver that is late loses nothing.
           iperf3 -c alpha -u -b 10M -n 1M -l 1200 -w 2M $options -J > report || { cat report; exit 1; }
           python3 -c 'import json; s = json.load(open(\"report\"))[\"end\"][\"sum\"]; \
             print(s[\"packets\"] > 800, s[\"lost_packets\"] < 80)'
         done",
    );
    assert_eq!(got.text(), "True True\n".repeat(3));
}

#[test]
fn ping_is_answered() {
    let Some(lab) = Lab::with("ping_is_answered", &["ping"]) else { return };
    let _member = lab.start("alpha", &["sleep", "1000"]);
    // On a busy machine a third request may leave before the second one is answered.
    let got = lab.bash(
        "beta",
        "for a in 10.77.0.1 fd77::1 alpha; do ping -c 2 -i 0.2 -w 50 $a | grep -c ' [23] received'; done",
    );
    assert_eq!(got.text(), "1\n".repeat(3));
    if is_root() {
        // A copy has no capabilities, so the kernel does not let users ping with it, but pinging members does
        // not involve the kernel.
        let script = "cp $(command -v ping) copy; setpriv --reuid 65534 --clear-groups ./copy -c 2 -i 0.2 -w 50 10.77.0.1";
        let got = lab.bash("beta", script);
        assert!([" 2 received", " 3 received"].iter().any(|answered| got.text().contains(answered)));
    }
}
