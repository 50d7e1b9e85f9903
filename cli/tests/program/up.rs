//! Networks as interfaces of two machines: kernel sockets communicate over them.

use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use peersock_testnet::find_in_path;

use crate::cable::{Cable, ip};
use crate::common::{Finished, Lab, PATIENCE, PORT, Running, lacks, run};

/// Interface of each machine.
const NAME: &str = "peersock0";

/// Two machines on one cable; the network is an interface on both, or only on the first.
struct Scene {
    cable: Cable,
    lab: Lab,
    ups: Vec<Running>,
    addresses: Vec<Ipv6Addr>,
}

impl Scene {
    fn lay(name: &str, machines: usize) -> Option<Scene> {
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("SKIP {name}: there is no /dev/net/tun");
            return None;
        }
        let cable = Cable::lay(name, &["10.98.7.1/24", "10.98.7.2/24"])?;
        let (lab, mut ups, mut addresses) = (Lab::new(), Vec::new(), Vec::new());
        for machine in 0..machines {
            let up = cable.inside(machine, &lab, &format!("up{machine}"), &["up"]);
            let shown = up.wait_for_stdout("\n");
            addresses.push(shown.lines().next().unwrap().parse().unwrap());
            ups.push(up);
        }
        Some(Scene { cable, lab, ups, addresses })
    }

    /// Starts a system program on a machine.
    fn start(&self, machine: usize, words: &[&str]) -> Running {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.cable.ends[machine]]).args(words);
        Running::start(command)
    }

    fn run(&self, machine: usize, words: &[&str]) -> Finished {
        self.start(machine, words).finish()
    }

    fn said(&self) -> String {
        self.ups.iter().map(Running::said).collect()
    }
}

fn has(test: &str, programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| find_in_path(program).is_none());
    if let Some(program) = missing {
        eprintln!("SKIP {test}: there is no {program}");
    }
    missing.is_none()
}

#[test]
fn the_kernels_of_two_machines_talk_over_the_interfaces() {
    if !has("the_kernels_of_two_machines", &["ping", "socat"]) {
        return;
    }
    let Some(scene) = Scene::lay("upboth", 2) else { return };
    let [_, other] = scene.addresses[..] else { panic!("two addresses") };
    let other = other.to_string();
    // Sends echo requests whole and in fragments: the path carries less than the interface, or they are
    // larger.
    for size in ["8", "1372", "5000"] {
        // One at a time: of several, ping waits for the last one only as long as for those before.
        for _ in 0..3 {
            let pinged = scene.run(0, &["ping", "-c", "1", "-W", "60", "-s", size, &other]).success();
            assert!(pinged.text().contains("1 received"), "{size}: {}\n{}", pinged.text(), scene.said());
        }
    }
    // The node of `up` pings beside the kernel, in one packet.
    for size in ["56", "1232"] {
        let words = ["ping", "-c", "2", "-i", "0.1", "-s", size, &other];
        let pinged = scene.cable.inside(0, &scene.lab, "up0", &words).finish().success();
        assert!(pinged.text().contains("2 replies received"), "{}\n{}", pinged.text(), scene.said());
    }
    let large = scene.cable.inside(0, &scene.lab, "up0", &["ping", "-c", "1", "-s", "1233", &other]).finish();
    assert!(large.text().contains("Message too long"), "{}", large.text());
    large.failure(1, &["did not reply"]);
    let serving = scene.start(1, &["socat", "-u", &format!("TCP6-LISTEN:{PORT}"), "STDOUT"]);
    let to = format!("TCP6:[{other}]:{PORT},retry=100,interval=0.1");
    let mut sending = scene.start(0, &["socat", "-u", "STDIN", &to]);
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|at| (at ^ at >> 9) as u8).collect();
    sending.send(&bytes);
    sending.end_stdin();
    sending.finish().success();
    let received = serving.finish().success().stdout;
    assert!(received == bytes, "{} of {} bytes", received.len(), bytes.len());
}

#[test]
fn datagrams_of_every_size_pass_between_the_kernels() {
    if !has("datagrams_of_every_size", &["python3"]) {
        return;
    }
    let Some(scene) = Scene::lay("updgram", 2) else { return };
    let [_, other] = scene.addresses[..] else { panic!("two addresses") };
    let server = format!(
        "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\ns.bind(('::', {PORT}))\n\
         print('ready', flush=True)\nwhile True:\n data, who = s.recvfrom(70000)\n s.sendto(data, who)\n"
    );
    let serving = scene.start(1, &["python3", "-c", &server]);
    serving.wait_for_stdout("ready");
    // UDP_SEGMENT (103) makes the kernel leave the segmentation to the device.
    let client = format!(
        "import os, socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\ns.settimeout(60)\n\
         s.connect(('{other}', {PORT}))\n\
         for size in [0, 1, 1300, 1372, 1373, 3000, 20000, 65000]:\n data = os.urandom(size)\n s.send(data)\n \
         assert s.recv(70000) == data, size\n\
         s.setsockopt(socket.SOL_UDP, 103, 1000)\ndata = os.urandom(10500)\ns.send(data)\n\
         got = [s.recv(70000) for _ in range(11)]\n\
         assert [len(one) for one in got] == [1000] * 10 + [500] and b''.join(got) == data, got\n\
         print('all', flush=True)\n"
    );
    let done = scene.run(0, &["python3", "-c", &client]);
    assert!(done.text().contains("all"), "{}\n{}", done.stderr, scene.said());
}

#[test]
fn a_machine_s_programs_talk_to_a_program_with_sockets_of_its_own() {
    if !has("a_machine_s_programs", &["socat", "ping"]) {
        return;
    }
    let Some(scene) = Scene::lay("upmixed", 1) else { return };
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at ^ at >> 7) as u8).collect();
    // Sends to the program's own stack.
    let listener = scene.cable.inside(1, &scene.lab, "listener", &["listen", &PORT.to_string()]);
    let target = listener.wait_for_target();
    let address = target.rsplit_once(':').unwrap().0.trim_matches(['[', ']']).to_owned();
    let mut sending = scene.start(0, &["socat", "-u", "STDIN", &format!("TCP6:{target}")]);
    sending.send(&bytes);
    sending.end_stdin();
    sending.finish().success();
    assert!(listener.finish().success().stdout == bytes);
    // Sends from it.
    let serving = scene.start(0, &["socat", "-d", "-d", "-u", &format!("TCP6-LISTEN:{PORT}"), "STDOUT"]);
    serving.wait_for_stderr("listening on");
    let up = scene.addresses[0];
    let words = ["dial", &format!("[{up}]:{PORT}"), "--timeout", "100"];
    let mut dialer = scene.cable.inside(1, &scene.lab, "listener", &words);
    dialer.send(&bytes);
    dialer.end_stdin();
    dialer.finish().success();
    assert!(serving.finish().success().stdout == bytes);
    // No node has these addresses, or none any more, and the kernel is told.
    for nobody in [address, nobody_in(up)] {
        let pinged = scene.run(0, &["ping", "-c", "2", "-W", "20", &nobody]);
        assert!(pinged.text().contains("Address unreachable"), "{nobody}: {}", pinged.text());
    }
}

/// Returns an address of the same network that no node has.
fn nobody_in(address: Ipv6Addr) -> String {
    let mut octets = address.octets();
    octets[15] ^= 1;
    Ipv6Addr::from(octets).to_string()
}

/// The network has two members with IPv4 addresses, and a block of addresses behind the second.
#[test]
fn a_gateway_passes_on_to_what_lies_behind_it() {
    if !has("a_gateway", &["ping"]) {
        return;
    }
    let Some(cable) = Cable::lay("upgate", &["10.98.7.1/24", "10.98.7.2/24"]) else { return };
    let lab = Lab::new();
    let file = lab.dir.path().join("office.toml");
    let file = file.to_str().unwrap();
    let of = |node: &str, words: &[&str]| run(lab.command(node, words)).success();
    of("up0", &["network", "new", file, "--name", "one", "--address", "10.97.0.1"]);
    let add = ["network", "add", file, "--name", "two", "--address", "10.97.0.2"];
    of("up1", &[&add[..], &["--route", "192.168.77.0/24", "--route", "192.168.79.0/24"]].concat());
    // Behind the second member is an address that only its kernel knows.
    let [_, gateway] = &cable.ends;
    assert!(ip(["-n", gateway, "addr", "add", "192.168.77.1/24", "dev", "lo"]));
    // There is also a machine to which the kernel forwards, and which does not know the network.
    let Some(site) = Cable::lay("upsite", &["192.168.79.9/24"]) else { return };
    let machine = &site.ends[0];
    assert!(ip(["-n", machine, "link", "del", "eth0"]));
    let link =
        ["link", "add", "eth1", "netns", gateway, "type", "veth", "peer", "name", "eth0", "netns", machine];
    assert!(ip(link));
    for (place, device, address) in
        [(gateway, "eth1", "192.168.79.1/24"), (machine, "eth0", "192.168.79.9/24")]
    {
        assert!(ip(["-n", place, "addr", "add", address, "dev", device]));
        assert!(ip(["-n", place, "link", "set", device, "up"]));
    }
    assert!(ip(["-n", machine, "route", "add", "default", "via", "192.168.79.1"]));
    assert!(ip(["netns", "exec", gateway, "sysctl", "-qw", "net.ipv4.ip_forward=1"]));
    let ups: Vec<Running> = (0..2)
        .map(|machine| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &cable.ends[machine], env!("CARGO_BIN_EXE_peersock"), "up"]);
            command.arg("--state").arg(lab.state(&format!("up{machine}"))).args(["--network", file]);
            let up = Running::start(command);
            up.wait_for_stdout("10.97.0.");
            up
        })
        .collect();
    let ping = |to: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &cable.ends[0], "ping", "-c", "1", "-W", "60", to]);
        Running::start(command).finish()
    };
    for to in ["10.97.0.2", "192.168.77.1", "192.168.79.9"] {
        let pinged = ping(to);
        assert!(pinged.text().contains("1 received"), "{to}: {}\n{}", pinged.text(), ups[0].said());
    }
    // The gateway does not forward packets outside its blocks.
    assert!(!ping("192.168.78.1").text().contains("1 received"));
}

/// For a prefix on an interface, the kernel makes the last address a broadcast address. On a forwarding
/// machine, it makes the first IPv6 address its own (the routers' anycast address, RFC 4291, 2.6.1).
#[test]
fn members_with_the_first_and_the_last_address_of_a_prefix_are_reached() {
    if lacks("members_with_the_first", &["ping", "sysctl"]) {
        return;
    }
    let Some(cable) = Cable::lay("upends", &["10.98.7.1/24", "10.98.7.2/24"]) else { return };
    let lab = Lab::new();
    let file = lab.dir.path().join("office.toml");
    let file = file.to_str().unwrap();
    let own = [["10.97.0.0", "2001:db8:9::"], ["10.97.0.3", "2001:db8:9::3"]];
    for (machine, how) in ["new", "add"].into_iter().enumerate() {
        let node = format!("up{machine}");
        let mut words = vec!["network", how, file, "--name", &node];
        words.extend(own[machine].iter().flat_map(|address| ["--address", address]));
        run(lab.command(&node, &words)).success();
    }
    let inside = |machine: usize, words: &[&str]| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &cable.ends[machine]]).args(words);
        command
    };
    for machine in 0..2 {
        run(inside(machine, &["sysctl", "-w", "net.ipv6.conf.all.forwarding=1"])).success();
    }
    let ups: Vec<Running> = (0..2)
        .map(|machine| {
            let mut command = inside(machine, &[env!("CARGO_BIN_EXE_peersock"), "up", "--network", file]);
            command.arg("--state").arg(lab.state(&format!("up{machine}")));
            let up = Running::start(command);
            up.wait_for_stdout(own[machine][1]);
            up
        })
        .collect();
    for (machine, other) in [(0, 1), (1, 0)] {
        for (to, from) in own[other].iter().zip(own[machine]) {
            let pinged = run(inside(machine, &["ping", "-c", "1", "-W", "60", to]));
            let text = pinged.text();
            let is_there = text.contains("1 received") && text.contains(&format!("from {to}"));
            assert!(is_there, "{to}: {text}{}{}", pinged.stderr, ups[machine].said());
            // The route uses the address of the same prefix.
            let way = run(inside(machine, &["ip", "route", "get", to])).success();
            assert!(
                way.text().contains(&format!("dev {NAME} src {from}"))
                    || way.text().contains(&format!("src {from} ")),
                "{}",
                way.text()
            );
        }
    }
}

/// The C library of one machine resolves members' names with its configured resolver; other machines do not.
#[test]
fn members_have_names_for_all_programs() {
    if !has("members_have_names", &["ping", "unshare", "mount", "python3"]) {
        return;
    }
    let Some(cable) = Cable::lay("updns", &["10.98.7.1/24", "10.98.7.2/24"]) else { return };
    let lab = Lab::new();
    let path = |name: &str| lab.dir.path().join(name);
    let file = path("office.toml");
    let file = file.to_str().unwrap();
    let of = |node: &str, words: &[&str]| run(lab.command(node, words)).success();
    of("up0", &["network", "new", file, "--name", "one", "--address", "10.97.0.1"]);
    of("up1", &["network", "add", file, "--name", "two", "--address", "10.97.0.2"]);
    // Replaces systemd's program by one that records its arguments.
    let told = path("told");
    std::fs::create_dir(path("bin")).unwrap();
    let resolvectl = path("bin").join("resolvectl");
    std::fs::write(&resolvectl, format!("#!/bin/sh\necho \"$@\" >>'{}'\n", told.display())).unwrap();
    std::fs::set_permissions(&resolvectl, PermissionsExt::from_mode(0o755)).unwrap();
    let search = format!("{}:{}", path("bin").display(), std::env::var("PATH").unwrap());
    let inside = |machine: usize| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &cable.ends[machine]]).env("PATH", &search);
        command
    };
    let start = |machine: usize, more: &[&str]| {
        let mut command = inside(machine);
        command.args([env!("CARGO_BIN_EXE_peersock"), "up", "--network", file]).args(more);
        command.arg("--state").arg(lab.state(&format!("up{machine}")));
        let up = Running::start(command);
        let shown = up.wait_for_stdout("10.97.0.");
        (up, shown.lines().next().unwrap().to_owned())
    };
    let (up, address) = start(0, &["--dns"]);
    let (_other, _) = start(1, &[]);
    let told = std::fs::read_to_string(told).unwrap();
    // The resolver does not see addresses behind the interface, so it gets their reverse zones.
    let own = address.parse::<Ipv6Addr>().unwrap().octets();
    let v6: String = own[..6].iter().rev().map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4)).collect();
    let v4: String = (0..4).map(|host| format!(" ~{host}.0.97.10.in-addr.arpa")).collect();
    let wanted = [
        format!("dns {NAME} {address}"),
        format!("domain {NAME} peersock.internal ~{v6}ip6.arpa{v4}"),
        format!("default-route {NAME} no"),
    ];
    assert_eq!(told, wanted.map(|words| format!("{words}\n")).concat());
    assert!(up.said().contains("members have names in peersock.internal\n"), "{}", up.said());

    let settings = path("resolv.conf");
    std::fs::write(&settings, format!("nameserver {address}\nsearch peersock.internal\n")).unwrap();
    for name in ["two", "two.peersock.internal"] {
        let mut command = inside(0);
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec ping -4 -c 1 -W 60 \"$1\"";
        command.args(["unshare", "--mount", "sh", "-c", script]).arg(&settings).arg(name);
        let pinged = Running::start(command).finish();
        let text = pinged.text();
        assert!(text.contains("(10.97.0.2)") && text.contains("1 received"), "{name}: {text}{}", up.said());
    }
    // A member reaches the machine, but gets no answer there.
    let ask = "import socket, sys
question = bytes([7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3]) + b'two' + bytes([0, 0, 28, 0, 1])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(1)
for _ in range(2):
    s.sendto(question, (sys.argv[1], 53))
    try: print('answered', s.recv(1000))
    except TimeoutError: print('nothing')";
    let mut command = inside(1);
    command.args(["python3", "-c", ask, &address]);
    assert_eq!(run(command).success().text(), "nothing\nnothing\n");
}

#[test]
fn names_are_for_networks_that_have_some() {
    let Some(cable) = Cable::lay("updnsno", &["10.98.7.1/24"]) else { return };
    let refused = cable.inside(0, &Lab::new(), "up", &["up", "--dns"]).finish();
    refused.failure(2, &["no member of network", "leave --dns out"]);
}

#[test]
fn the_interface_is_there_as_long_as_the_program_which_keeps_no_privilege() {
    let Some(mut scene) = Scene::lay("upprivs", 1) else { return };
    let end = scene.cable.ends[0].clone();
    assert!(ip(["-n", &end, "link", "show", NAME]));
    let status = std::fs::read_to_string(format!("/proc/{}/status", scene.ups[0].id())).unwrap();
    for field in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
    // A second interface of that name cannot be created.
    let again = scene.cable.inside(0, &scene.lab, "again", &["up"]).finish();
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stderr.contains("choose another name with --name"), "{}", again.stderr);
    scene.ups.remove(0).interrupt();
    assert!(!ip(["-n", &end, "link", "show", NAME]));
}

/// Another user's program with one capability creates the interface, and then drops the capability.
#[test]
fn the_capability_for_interfaces_is_all_that_is_needed() {
    let test = "the_capability_for_interfaces";
    if !has(test, &["setpriv", "unshare", "mknod", "chown", "ping"]) {
        return;
    }
    let Some(mut scene) = Scene::lay("upcap", 1) else { return };
    let (end, lab) = (&scene.cable.ends[1], &scene.lab);
    let state = lab.state("nobody");
    run(lab.command("nobody", &["id"])).success();
    let mut chown = Command::new("chown");
    run({
        chown.args(["-R", "65534"]).arg(&state);
        chown
    })
    .success();
    std::fs::set_permissions(lab.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    // The device is accessible to all users on most systems, but only to root in some containers.
    let script = "set -e; lab=$1; shift; mkdir $lab/dev; mount -t tmpfs tmpfs $lab/dev; mknod $lab/dev/tun c 10 200
        chmod 666 $lab/dev/tun; mount --bind $lab/dev/tun /dev/net/tun
        exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --bounding-set -all,+net_admin \
          --inh-caps -all,+net_admin --ambient-caps -all,+net_admin \"$@\"";
    let mut command = Command::new("ip");
    command.args(["netns", "exec", end, "unshare", "--mount", "bash", "-c", script, "bash"]);
    command.arg(lab.dir.path()).args([
        env!("CARGO_BIN_EXE_peersock"),
        "up",
        "--network",
        &lab.network,
        "--state",
    ]);
    command.arg(state);
    crate::common::without_variables(&mut command);
    let up = Running::start(command);
    let other = up.wait_for_stdout("\n").lines().next().unwrap().to_owned();
    let status = std::fs::read_to_string(format!("/proc/{}/status", up.id())).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("Uid:"), ["65534"; 4].join("\t"));
    for name in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(name), "0000000000000000", "{name}");
    }
    let pinged = scene.run(0, &["ping", "-c", "1", "-W", "60", &other]);
    assert!(pinged.text().contains("1 received"), "{}\n{}{}", pinged.text(), scene.said(), up.said());
    up.interrupt().failure(130, &[]);
    scene.ups.remove(0).interrupt().failure(130, &[]);
}

/// The interface has the requested size, and the kernel is told if a path carries less.
#[test]
fn the_kernel_is_told_what_interfaces_and_paths_carry() {
    if !has("the_kernel_is_told_what", &["ping"]) {
        return;
    }
    let Some(scene) = Scene::lay("upmtu", 0) else { return };
    let up = |machine: usize, words: &[&str]| {
        let words = [&["up"], words].concat();
        let up = scene.cable.inside(machine, &scene.lab, &format!("up{machine}"), &words);
        let address = up.wait_for_stdout("\n").lines().next().unwrap().to_owned();
        (up, address)
    };
    for end in &scene.cable.ends {
        assert!(ip(["-n", end, "link", "set", "eth0", "mtu", "1400"]));
    }
    let (one, _) = up(0, &[]);
    let (other, to) = up(1, &["--mtu", "1300"]);
    let said = || [one.said(), other.said()].concat();
    for (machine, mtu) in [(0, "mtu 1420 "), (1, "mtu 1300 ")] {
        let shown = scene.run(machine, &["ip", "link", "show", NAME]).success();
        assert!(shown.text().contains(mtu), "{}", shown.text());
    }
    // The packet has the interface's size, but exceeds the cable's with its headers. Packets sent before the
    // path is known may be lost.
    let begin = Instant::now();
    let told = loop {
        let pinged = scene.run(0, &["ping", "-M", "do", "-c", "1", "-W", "1", "-s", "1372", &to]);
        let told = [pinged.text(), &pinged.stderr].concat();
        if told.contains("mtu") {
            break told;
        }
        assert!(begin.elapsed() < PATIENCE, "{told}{}", said());
    };
    let route = scene.run(0, &["ip", "route", "get", &to]).success();
    let mtu = route.text().split_once(" mtu ").and_then(|(_, rest)| rest.split(' ').next());
    let mtu: u32 = mtu.unwrap_or_else(|| panic!("{}{told}", route.text())).parse().unwrap();
    assert!((1280..1400).contains(&mtu), "{mtu}");
    // Packets of that size pass.
    let size = (mtu - 48).to_string();
    let pinged = scene.run(0, &["ping", "-M", "do", "-c", "1", "-W", "60", "-s", &size, &to]);
    assert!(pinged.text().contains("1 received"), "{}{}", pinged.text(), said());
}

#[test]
fn a_device_that_somebody_removes_ends_the_program() {
    let Some(mut scene) = Scene::lay("upgone", 1) else { return };
    assert!(ip(["-n", &scene.cable.ends[0], "link", "del", NAME]));
    let ended = scene.ups.remove(0).wait_for_end();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("the interface peersock0 is gone"), "{}", ended.stderr);
}
