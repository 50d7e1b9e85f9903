/* What a program finds that asks the kernel itself for the interfaces of its machine, by rtnetlink(7) and by
   the requests of netdevice(7): netlink IPV4 IPV6 [notified], two own addresses on the overlay. "notified" are
   calls that name an address or are recvmsg(2) and the like: others no filter sees. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { \
    printf("line %d: %s (errno: %s)\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

static struct in_addr v4;
static struct in6_addr v6;
static char network[IF_NAMESIZE] = "ps1";
static int its_index, is_notified;

struct request {
    struct nlmsghdr header;
    union { struct ifinfomsg link; struct ifaddrmsg address; };
    char attributes[64];
};

/* What an answer has said. */
struct found { int links, networks, loopbacks, four, six, done, errors, datagrams; };

static int route_socket(unsigned *port) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl own = {.nl_family = AF_NETLINK};
    socklen_t length = sizeof own;
    CHECK(fd >= 0 && bind(fd, (void *)&own, sizeof own) == 0);
    CHECK(getsockname(fd, (void *)&own, &length) == 0);
    *port = own.nl_pid;
    return fd;
}

static struct request dump(int type, int family, unsigned sequence) {
    struct request asked = {.header = {.nlmsg_type = type, .nlmsg_seq = sequence}};
    asked.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    asked.header.nlmsg_len = NLMSG_LENGTH(type == RTM_GETLINK ? sizeof asked.link : sizeof asked.address);
    /* It is the first byte of both. */
    asked.address.ifa_family = family;
    return asked;
}

static const void *attribute(struct rtattr *first, int length, int type, int size) {
    for (; RTA_OK(first, length); first = RTA_NEXT(first, length))
        if (first->rta_type == type && (int)RTA_PAYLOAD(first) >= size) return RTA_DATA(first);
    return NULL;
}

static void look_at_link(struct nlmsghdr *header, struct found *found) {
    struct ifinfomsg *link = NLMSG_DATA(header);
    int length = IFLA_PAYLOAD(header);
    const char *name = attribute(IFLA_RTA(link), length, IFLA_IFNAME, 1);
    CHECK(name != NULL);
    found->links++;
    found->loopbacks += strcmp(name, "lo") == 0;
    if (strcmp(name, network) != 0) return;
    const unsigned *mtu = attribute(IFLA_RTA(link), length, IFLA_MTU, 4);
    CHECK(mtu != NULL && *mtu >= 1280 && link->ifi_index == its_index && link->ifi_type == ARPHRD_NONE);
    CHECK((link->ifi_flags & (IFF_UP | IFF_MULTICAST | IFF_LOOPBACK)) == (IFF_UP | IFF_MULTICAST));
    found->networks++;
}

static void look_at_address(struct nlmsghdr *header, struct found *found) {
    struct ifaddrmsg *address = NLMSG_DATA(header);
    int length = IFA_PAYLOAD(header), family = address->ifa_family;
    const void *value = attribute(IFA_RTA(address), length, IFA_ADDRESS, family == AF_INET ? 4 : 16);
    if (value == NULL || (int)address->ifa_index != its_index) return;
    if (family == AF_INET) {
        const char *label = attribute(IFA_RTA(address), length, IFA_LABEL, 4);
        const void *local = attribute(IFA_RTA(address), length, IFA_LOCAL, 4);
        CHECK(memcmp(value, &v4, 4) == 0 && memcmp(local, &v4, 4) == 0 && strcmp(label, network) == 0);
        found->four++;
    } else if (memcmp(value, &v6, 16) == 0) {
        const unsigned *flags = attribute(IFA_RTA(address), length, IFA_FLAGS, 4);
        CHECK(flags != NULL && *flags == IFA_F_PERMANENT && address->ifa_prefixlen > 0);
        found->six++;
    }
}

static void look_at(struct nlmsghdr *header, int length, unsigned port, unsigned sequence,
                    struct found *found) {
    found->datagrams++;
    for (; NLMSG_OK(header, length); header = NLMSG_NEXT(header, length)) {
        CHECK(header->nlmsg_pid == port && header->nlmsg_seq == sequence);
        switch (header->nlmsg_type) {
        case NLMSG_DONE: found->done++; break;
        case NLMSG_ERROR:
            found->errors = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
            found->done++;
            break;
        case RTM_NEWLINK: look_at_link(header, found); break;
        case RTM_NEWADDR: look_at_address(header, found); break;
        default: CHECK(0);
        }
    }
    CHECK(length == 0);
}

/* The ways in which programs read. */
enum way { RECV, RECVFROM, RECVMSG, RECVMMSG, READ, READV, PEEKED, WAYS };

/* The one that is used for this, or the next that can be used. */
static enum way usable(enum way way) {
    while (is_notified && (way == RECV || way == READ || way == READV)) way = (way + 1) % WAYS;
    return way;
}

/* Receives one datagram. */
static int receive(int fd, enum way way, char *into, int room) {
    struct sockaddr_nl from = {.nl_pid = 7};
    socklen_t length = sizeof from;
    struct iovec pieces[2] = {{into, 24}, {into + 24, room - 24}};
    struct msghdr message = {.msg_name = &from, .msg_namelen = length, .msg_iov = pieces, .msg_iovlen = 2};
    struct mmsghdr several[2] = {{.msg_hdr = message}, {.msg_hdr = message}};
    int got = -1;
    switch (way) {
    case RECV: return recv(fd, into, room, 0);
    case READ: return read(fd, into, room);
    case READV: return readv(fd, pieces, 2);
    case RECVFROM: got = recvfrom(fd, into, room, 0, (void *)&from, &length); break;
    case RECVMMSG:
        CHECK(recvmmsg(fd, several, 2, MSG_WAITFORONE, NULL) >= 1);
        length = several[0].msg_hdr.msg_namelen;
        got = several[0].msg_len;
        break;
    case RECVMSG: case PEEKED: case WAYS:
        if (way == PEEKED) {
            /* As dnsmasq and ip(8) find out how long it is, twice with the same result. */
            pieces[0].iov_len = 20, message.msg_iovlen = 1;
            int whole = recvmsg(fd, &message, MSG_PEEK | MSG_TRUNC);
            CHECK(whole == 20 || (whole > 20 && (message.msg_flags & MSG_TRUNC)));
            CHECK(recvmsg(fd, &message, MSG_PEEK | MSG_TRUNC) == whole && whole <= room);
            CHECK(recvmsg(fd, &message, MSG_PEEK) == 20);
            CHECK(is_notified || recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT) == whole);
            pieces[0].iov_len = whole;
            got = recvmsg(fd, &message, 0);
            CHECK(got == whole);
        } else got = recvmsg(fd, &message, 0);
        CHECK(!(message.msg_flags & MSG_TRUNC));
        length = message.msg_namelen;
    }
    CHECK(length == sizeof from && from.nl_pid == 0 && from.nl_family == AF_NETLINK);
    return got;
}

static void send_by(int fd, enum way way, struct request *asked) {
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int length = asked->header.nlmsg_len, sent = -1;
    struct iovec pieces[2] = {{asked, 10}, {(char *)asked + 10, length - 10}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    struct mmsghdr one = {.msg_hdr = message};
    switch (way) {
    case RECV: sent = send(fd, asked, length, 0); break;
    case RECVFROM: case PEEKED: case WAYS:
        sent = sendto(fd, asked, length, 0, (void *)&kernel, sizeof kernel);
        break;
    case RECVMSG: sent = sendmsg(fd, &message, 0); break;
    case RECVMMSG: CHECK(sendmmsg(fd, &one, 1, 0) == 1); sent = one.msg_len; break;
    case READ: sent = write(fd, asked, length); break;
    case READV: sent = writev(fd, pieces, 2); break;
    }
    CHECK(sent == length);
}

/* Reads an answer to its end. All the time there is something to read until then, and nothing after. */
static struct found answer(int fd, enum way way, unsigned port, unsigned sequence) {
    static _Thread_local char buffer[32768] __attribute__((aligned(4)));
    struct found found = {0};
    struct pollfd poll_for = {.fd = fd, .events = POLLIN};
    while (found.done == 0) {
        CHECK(poll(&poll_for, 1, 20000) == 1);
        int got = receive(fd, way, buffer, sizeof buffer);
        CHECK(got > 0);
        look_at((void *)buffer, got, port, sequence, &found);
    }
    CHECK(poll(&poll_for, 1, 0) == 0 && recv(fd, buffer, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    return found;
}

static struct found ask(int fd, enum way way, unsigned port, struct request asked) {
    way = usable(way);
    send_by(fd, way, &asked);
    return answer(fd, way, port, asked.header.nlmsg_seq);
}

static void dumps(void) {
    unsigned port, others, sequence = 100;
    int fd = route_socket(&port);
    for (enum way way = RECV; way < WAYS; way++) {
        struct found all = ask(fd, way, port, dump(RTM_GETLINK, AF_UNSPEC, sequence++));
        CHECK(all.networks == 1 && all.loopbacks == 1 && all.links >= 2 && all.errors == 0 && all.done == 1);
        struct found four = ask(fd, way, port, dump(RTM_GETADDR, AF_INET, sequence++));
        CHECK(four.four == 1 && four.six == 0 && four.done == 1);
        struct found six = ask(fd, way, port, dump(RTM_GETADDR, AF_INET6, sequence++));
        CHECK(six.four == 0 && six.six == 1);
        struct found both = ask(fd, way, port, dump(RTM_GETADDR, AF_UNSPEC, sequence++));
        CHECK(both.four == 1 && both.six == 1);
        CHECK(ask(fd, way, port, dump(RTM_GETLINK, AF_BRIDGE, sequence++)).networks == 0);
    }
    /* Others that are closed again do not make a program forget the one that it keeps. */
    for (int at = 0; at < 100; at++) CHECK(close(route_socket(&others)) == 0);
    /* The same number once more, and a request that is cut off: the kernel answers nothing. */
    CHECK(ask(fd, RECV, port, dump(RTM_GETLINK, AF_UNSPEC, 100)).networks == 1);
    struct request cut = dump(RTM_GETLINK, AF_UNSPEC, 101);
    CHECK(send(fd, &cut, 15, 0) == 15 && send(fd, &cut, 0, 0) <= 0);
    cut.header.nlmsg_len = 4000;
    CHECK(send(fd, &cut, 32, 0) == 32);
    CHECK(ask(fd, RECV, port, dump(RTM_GETLINK, AF_UNSPEC, 102)).networks == 1);
    /* Where there is too little room, a datagram is cut as one of the kernel's is. */
    char little[40];
    struct request again = dump(RTM_GETADDR, AF_UNSPEC, 103);
    struct pollfd poll_for = {.fd = fd, .events = POLLIN};
    send_by(fd, RECV, &again);
    for (int datagrams = 0; poll(&poll_for, 1, 0) == 1; datagrams++) {
        int got = recv(fd, little, sizeof little, MSG_TRUNC);
        CHECK(got >= 16 && datagrams < 100);
    }
    close(fd);
}

static void one_interface(void) {
    unsigned port;
    int fd = route_socket(&port), yes = 1;
    struct request asked = dump(RTM_GETLINK, AF_UNSPEC, 5);
    asked.header.nlmsg_flags = NLM_F_REQUEST;
    asked.link.ifi_index = its_index;
    /* Nothing comes behind it, unless it is to be acknowledged. */
    send_by(fd, usable(RECV), &asked);
    char buffer[8192] __attribute__((aligned(4)));
    struct found found = {0};
    look_at((void *)buffer, receive(fd, usable(RECV), buffer, sizeof buffer), port, 5, &found);
    CHECK(found.networks == 1 && found.links == 1 && found.done == 0);
    CHECK(recv(fd, buffer, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    asked.header.nlmsg_flags |= NLM_F_ACK;
    found = ask(fd, PEEKED, port, asked);
    CHECK(found.networks == 1 && found.done == 1 && found.errors == 0);
    asked.link.ifi_index = its_index + 77;
    CHECK(ask(fd, RECV, port, asked).errors == ENODEV);
    /* By its name. */
    asked.link.ifi_index = 0;
    struct rtattr *name = (void *)((char *)&asked + asked.header.nlmsg_len);
    name->rta_type = IFLA_IFNAME, name->rta_len = RTA_LENGTH(strlen(network) + 1);
    strcpy(RTA_DATA(name), network);
    asked.header.nlmsg_len += RTA_SPACE(strlen(network) + 1);
    found = ask(fd, RECV, port, asked);
    CHECK(found.networks == 1 && found.done == 1 && found.errors == 0);
    /* Where the kernel checks strictly, addresses can be asked for by an interface's index. */
    CHECK(setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &yes, sizeof yes) == 0);
    struct request own = dump(RTM_GETADDR, AF_INET, 6), lo = dump(RTM_GETADDR, AF_INET, 7);
    own.address.ifa_index = its_index, lo.address.ifa_index = if_nametoindex("lo");
    found = ask(fd, READ, port, own);
    CHECK(found.four == 1 && found.errors == 0 && found.done == 1);
    CHECK(ask(fd, READ, port, lo).four == 0);
    close(fd);
}

static void *in_a_thread(void *nothing) {
    unsigned port;
    int fd = route_socket(&port);
    for (unsigned sequence = 1; sequence <= 50; sequence++) {
        CHECK(ask(fd, sequence % WAYS, port, dump(RTM_GETADDR, AF_UNSPEC, sequence)).four == 1);
        CHECK(ask(fd, sequence % WAYS, port, dump(RTM_GETLINK, AF_UNSPEC, sequence)).networks == 1);
    }
    close(fd);
    return nothing;
}

struct reader { int fd; unsigned port; };

static void *reads(void *argument) {
    struct reader *reader = argument;
    CHECK(answer(reader->fd, RECVMSG, reader->port, 9).networks == 1);
    return argument;
}

static void threads(void) {
    pthread_t several[4], waiting;
    for (int at = 0; at < 4; at++) CHECK(pthread_create(&several[at], NULL, in_a_thread, NULL) == 0);
    for (int at = 0; at < 4; at++) CHECK(pthread_join(several[at], NULL) == 0);
    /* One that waits already when another asks. */
    struct reader reader;
    reader.fd = route_socket(&reader.port);
    struct request asked = dump(RTM_GETLINK, AF_UNSPEC, 9);
    CHECK(pthread_create(&waiting, NULL, reads, &reader) == 0);
    usleep(100000);
    send_by(reader.fd, usable(RECV), &asked);
    CHECK(pthread_join(waiting, NULL) == 0);
}

static void requests(int fd) {
    struct ifreq asked = {.ifr_ifindex = its_index};
    CHECK(ioctl(fd, SIOCGIFNAME, &asked) == 0 && strcmp(asked.ifr_name, network) == 0);
    CHECK(ioctl(fd, SIOCGIFINDEX, &asked) == 0 && asked.ifr_ifindex == its_index);
    CHECK(ioctl(fd, SIOCGIFFLAGS, &asked) == 0);
    CHECK((asked.ifr_flags & (IFF_UP | IFF_LOOPBACK)) == IFF_UP);
    CHECK(ioctl(fd, SIOCGIFMTU, &asked) == 0 && asked.ifr_mtu >= 1280);
    CHECK(ioctl(fd, SIOCGIFHWADDR, &asked) == 0 && asked.ifr_hwaddr.sa_family == ARPHRD_NONE);
    struct sockaddr_in *own = (void *)&asked.ifr_addr;
    CHECK(ioctl(fd, SIOCGIFADDR, &asked) == 0);
    CHECK(own->sin_family == AF_INET && own->sin_addr.s_addr == v4.s_addr);
    CHECK(ioctl(fd, SIOCGIFNETMASK, &asked) == 0 && own->sin_addr.s_addr != 0);
    CHECK(ioctl(fd, SIOCGIFINDEX, NULL) == -1 && errno == EFAULT);
    strcpy(asked.ifr_name, "nothing");
    CHECK(ioctl(fd, SIOCGIFFLAGS, &asked) == -1 && errno == ENODEV);
    asked.ifr_ifindex = its_index + 77;
    CHECK(ioctl(fd, SIOCGIFNAME, &asked) == -1 && errno == ENODEV);
    /* The machine's own are asked for in the same way. */
    strcpy(asked.ifr_name, "lo");
    CHECK(ioctl(fd, SIOCGIFADDR, &asked) == 0 && own->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    CHECK(ioctl(fd, SIOCGIFFLAGS, &asked) == 0 && (asked.ifr_flags & IFF_LOOPBACK));

    struct ifreq room[64];
    struct ifconf list = {.ifc_len = sizeof room, .ifc_req = room};
    CHECK(ioctl(fd, SIOCGIFCONF, &list) == 0 && list.ifc_len % sizeof *room == 0);
    int count = list.ifc_len / sizeof *room, whole = list.ifc_len;
    struct sockaddr_in *last = (void *)&room[count - 1].ifr_addr;
    CHECK(count >= 2 && strcmp(room[count - 1].ifr_name, network) == 0 && last->sin_addr.s_addr == v4.s_addr);
    CHECK(strcmp(room[0].ifr_name, "lo") == 0);
    list = (struct ifconf){0};
    CHECK(ioctl(fd, SIOCGIFCONF, &list) == 0 && list.ifc_len == whole);
    memset(room, 0x5a, sizeof room);
    list = (struct ifconf){.ifc_len = whole - 1, .ifc_req = room};
    CHECK(ioctl(fd, SIOCGIFCONF, &list) == 0 && list.ifc_len == whole - (int)sizeof *room);
    CHECK(room[count - 1].ifr_name[0] == 0x5a);
}

int main(int count, char **arguments) {
    CHECK(count >= 3 && inet_pton(AF_INET, arguments[1], &v4) == 1);
    CHECK(inet_pton(AF_INET6, arguments[2], &v6) == 1);
    is_notified = count > 3;
    its_index = if_nametoindex(network);
    CHECK(its_index != 0);
    dumps();
    one_interface();
    threads();
    int kernels = socket(AF_INET, SOCK_DGRAM, 0), overlays = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr = v4};
    CHECK(bind(overlays, (void *)&own, sizeof own) == 0);
    requests(kernels);
    requests(overlays);
    /* What is no socket is none, and one of another family knows the names only. */
    struct ifreq asked = {.ifr_name = "ps1"};
    CHECK(ioctl(1, SIOCGIFINDEX, &asked) == -1 && errno == ENOTTY);
    CHECK(ioctl(-1, SIOCGIFINDEX, &asked) == -1 && errno == EBADF);
    int unix_socket = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(ioctl(unix_socket, SIOCGIFINDEX, &asked) == 0 && asked.ifr_ifindex == its_index);
    CHECK(ioctl(unix_socket, SIOCGIFADDR, &asked) == -1);
    puts("found");
    return 0;
}
