//! Every kernel option works on overlay sockets as its table says, before a socket becomes an overlay socket
//! and after. No option is accepted and ignored.

use std::collections::BTreeMap;
use std::process::Command;

use peersock_fd::option_table::{self, Access, Row};
use peersock_fd::{Family, Kind};

use crate::common::run;
use crate::lab::Lab;

/// Options that are not checked: firewall options of the kernel, which do not concern a socket, and
/// UDP-Lite's, which UDP sockets accept.
const NOT_OURS: &[(i32, i32)] =
    &[(41, 64), (41, 65), (41, 68), (41, 69), (41, 80), (0, 64), (17, 10), (17, 11)];

/// Options with other answers than kernel sockets give, with the reasons.
const OTHERS: &[(&str, &str)] = &[
    ("SO_COOKIE", "each socket has its own"),
    ("SO_SNDBUF", "what it is at first depends on the system"),
    ("SO_RCVBUF", "what it is at first depends on the system"),
    ("SO_BINDTOIFINDEX", "the first interface is one of the kernel's"),
    ("IPV6_MULTICAST_IF", "the first interface is one of the kernel's"),
    ("TCP_INFO", "what the node does not count is 0"),
    ("TCP_WINDOW_CLAMP", "it is kept as it was set"),
    ("IP_MULTICAST_ALL", "a socket gets what goes to its own groups, and 1 is refused"),
    ("IPV6_MULTICAST_ALL", "a socket gets what goes to its own groups, and 1 is refused"),
    ("IPV6_PKTINFO", "it is told what was set"),
    ("IPV6_USE_MIN_MTU", "Linux does not have it"),
];

/// Observations of each option, by the socket's type, level, number, and the socket's stage.
type Seen = BTreeMap<(Type, i32, i32, bool), Vec<String>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Type {
    Stream,
    Datagram,
}

fn read(text: &str) -> Seen {
    let line = |line: &str| {
        let (what, seen) = line.split_once(" = ").expect("what was looked at, and what was seen");
        let [kind, level, number, place] = what.split(' ').collect::<Vec<_>>()[..] else { panic!("{what}") };
        let kind = if kind == "stream" { Type::Stream } else { Type::Datagram };
        let key = (kind, level.parse().unwrap(), number.parse().unwrap(), place == "new");
        (key, seen.split(' ').map(str::to_owned).collect())
    };
    text.lines().map(line).collect()
}

/// Returns the reason why an overlay socket's observations are wrong compared with a kernel socket's.
fn fault(family: Family, key: (Type, i32, i32, bool), kernels: &[String], own: &[String]) -> Option<String> {
    let (kind, level, number, is_new) = key;
    let kind = if kind == Type::Stream { Kind::Stream } else { Kind::Datagram };
    let row = option_table::find(kind, family, level, number);
    let is_error = |text: &String| text.starts_with('E');
    let refusal = |text: &String| ["ENOPROTOOPT", "EOPNOTSUPP"].contains(&text.as_str());
    let Some(row) = row else {
        // The option is neither accepted nor reported, such as the groups that a stream has joined.
        let is_unknown = kernels[..2].iter().all(is_error);
        let is_not_ours = NOT_OURS.contains(&(level, number)) || (level == 41 && family == Family::V4);
        if !is_unknown && !is_not_ours {
            return Some("is not in the table".to_owned());
        }
        return (!is_new && !own.iter().all(is_error)).then(|| "is not in the table, and taken".to_owned());
    };
    let is_other = OTHERS.iter().any(|(name, _)| *name == row.name);
    let differs = |text: &str| (!is_other).then(|| format!("{}: {text}", row.name));
    match (row.access, is_new) {
        (Access::Refused, false) if !own[..2].iter().all(refusal) => Some(format!("{} is taken", row.name)),
        (Access::Refused, true) if row.is_refused_early && !refusal(&own[1]) => {
            Some(format!("{} is taken before it is lost", row.name))
        }
        (Access::Refused, true) if is_lost(row, kernels, own) => Some(format!("{} is lost", row.name)),
        (Access::Refused, _) => None,
        _ if !are_alike(&kernels[..3], &own[..3]) => differs("differs"),
        _ if is_new && kernels[1] == "done" && kernels[3] != own[3] => differs("is lost"),
        _ => None,
    }
}

/// Returns true if the same values are accepted and reported. Refusals may have different reasons.
fn are_alike(kernels: &[String], own: &[String]) -> bool {
    let is_error = |text: &str| text.starts_with('E');
    kernels.iter().zip(own).all(|(one, other)| one == other || (is_error(one) && is_error(other)))
}

/// Returns true if an option was accepted and reported, but is lost once the socket is an overlay socket.
/// Some options are meant to be lost, because they apply only to kernel networks.
fn is_lost(row: &Row, kernels: &[String], own: &[String]) -> bool {
    const KERNELS_ONLY: &[&str] = &[
        "SO_SNDBUFFORCE",
        "SO_RCVBUFFORCE",
        "SO_BUF_LOCK",
        "SO_RESERVE_MEM",
        "SO_CNX_ADVICE",
        "SO_BUSY_POLL_BUDGET",
        "SO_PASSCRED",
        "SO_PASSSEC",
        "SO_PASSPIDFD",
        "SO_PASSRIGHTS",
        "IP_TRANSPARENT",
        "IP_UNICAST_IF",
        "IP_NODEFRAG",
        "IP_ROUTER_ALERT",
        "IP_OPTIONS",
        "IPV6_ADDR_PREFERENCES",
        "IPV6_TRANSPARENT",
        "IPV6_UNICAST_IF",
        "IPV6_ROUTER_ALERT",
        "IPV6_ROUTER_ALERT_ISOLATE",
        "IPV6_NEXTHOP",
        "IPV6_2292PKTOPTIONS",
        "TCP_REPAIR",
    ];
    !row.is_refused_early && kernels[1] == "done" && own[1] == "done" && !KERNELS_ONLY.contains(&row.name)
}

#[test]
fn no_option_is_taken_and_not_meant() {
    let test = "no_option_is_taken_and_not_meant";
    let Some(lab) = Lab::with(test, &["cc"]) else { return };
    let program = lab.path("options");
    let mut cc = Command::new("cc");
    cc.args([
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused",
        "-Wno-format-truncation",
        "-pthread",
        "-o",
    ]);
    cc.arg(&program).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/options.c"));
    run(cc).success();
    let mut faults = Vec::new();
    for (family, kernels, overlays) in
        [(Family::V6, "::1", "fd77::2"), (Family::V4, "127.0.0.1", "10.77.0.2")]
    {
        let mut command = Command::new(&program);
        command.arg(kernels);
        let kernels = read(run(command).success().text());
        for mode in [&[][..], &["--mode", "seccomp"]] {
            let own = run(lab.command("beta", mode, &[program.to_str().unwrap(), overlays])).success();
            let own = read(own.text());
            assert_eq!(kernels.len(), own.len());
            for (key, kernels) in &kernels {
                if let Some(fault) = fault(family, *key, kernels, &own[key]) {
                    faults.push(format!(
                        "{mode:?} {overlays} {key:?}: {fault}\n  {}\n  {}",
                        kernels.join(" "),
                        own[key].join(" ")
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn programs_that_probe_are_told() {
    let test = "programs_that_probe_are_told";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let script = "
import errno, socket
for level, option in ((socket.SOL_SOCKET, 60), (socket.SOL_SOCKET, 37), (17, 1), (socket.SOL_SOCKET, 40)):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as new:
        new.setsockopt(level, option, 0)
        try:
            new.setsockopt(level, option, 1)
        except OSError as error:
            assert error.errno == errno.ENOPROTOOPT, error
        else:
            raise SystemExit(f'{level} {option} is taken')
# Where it cannot become the overlay's it is the kernel's affair.
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
    own.bind(('::1', 0))
    own.setsockopt(17, 1, 1)
    own.setsockopt(17, 1, 0)
";
    for mode in [&[][..], &["--mode", "seccomp"]] {
        run(lab.command("beta", mode, &["python3", "-c", script])).success();
    }
}
