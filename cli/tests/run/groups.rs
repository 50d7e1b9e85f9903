//! Programs that send to multicast groups and join some.

use crate::common::Running;
use crate::lab::Lab;

#[test]
fn options_about_groups_choose_the_overlay_and_are_not_lost_on_the_way_to_it() {
    let test = "options_about_groups_choose_the_overlay_and_are_not_lost_on_the_way_to_it";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    // Joins before the socket is bound. One way yields a kernel or an overlay socket, depending on the
    // machine's interfaces; the other way names an overlay address.
    let receiver = lab.write(
        "receiver.py",
        "import socket, struct
group = socket.inet_aton('239.1.2.3')
def bound(s, port):
    s.bind(('', port))
    return s
any = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
any.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + bytes(4))
source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
source.setsockopt(socket.IPPROTO_IP, 39, group + bytes(4) + socket.inet_aton('10.77.0.2'))
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton('10.77.0.1'))
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, 'ff15::77') + bytes(4))
six_join = struct.pack('@I4xHHI16sI100x', 0, socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, 'ff15::78'), 0)
six.setsockopt(socket.IPPROTO_IPV6, 42, six_join)
left = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for option in socket.IP_ADD_MEMBERSHIP, socket.IP_DROP_MEMBERSHIP:
    left.setsockopt(socket.IPPROTO_IP, option, group + bytes(4))
for s, port in (any, 4001), (own, 4002), (six, 4003), (left, 4004), (source, 4005):
    s.bind(('', port))
open('ready', 'w').close()
for s in any, own, source:
    data, sender = s.recvfrom(100)
    print(data.decode(), sender[0])
seen = set()
while len(seen) < 2:
    data, sender = six.recvfrom(100)
    seen.add(data.decode() + ' ' + sender[0])
print(*sorted(seen), sep='\\n')
left.settimeout(0.2)
try:
    print(left.recv(100))
except TimeoutError:
    print('nothing')
",
    );
    let sender = lab.write(
        "sender.py",
        "import socket, time, sys
def option(s, name, value=None):
    if value is None:
        return s.getsockopt(socket.IPPROTO_IP, name)
    s.setsockopt(socket.IPPROTO_IP, name, value)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
option(s, socket.IP_MULTICAST_TTL, 7)
option(s, socket.IP_MULTICAST_LOOP, 0)
option(s, socket.IP_MULTICAST_IF, socket.inet_aton('10.77.0.2'))
assert (option(s, socket.IP_MULTICAST_TTL), option(s, socket.IP_MULTICAST_LOOP)) == (7, 0)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 9)
# Which network a group is on: that of an address that it is bound to.
six.bind(('fd77::2', 0))
assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS) == 9
while sys.stdin not in __import__('select').select([sys.stdin], [], [], 0.1)[0]:
    for port in 4001, 4002, 4004, 4005:
        s.sendto(b'four', ('239.1.2.3', port))
    for group in 'ff15::77', 'ff15::78':
        six.sendto(group.encode(), (group, 4003))
",
    );
    let receiver = Running::start(lab.command("alpha", &[], &["python3", &receiver]));
    let sender = Running::start(lab.command("beta", &[], &["python3", &sender]));
    let got = receiver.finish().success();
    sender.finish().success();
    let wanted = [
        "four 10.77.0.2",
        "four 10.77.0.2",
        "four 10.77.0.2",
        "ff15::77 fd77::2",
        "ff15::78 fd77::2",
        "nothing",
    ];
    assert_eq!(got.text().lines().collect::<Vec<_>>(), wanted);
}
