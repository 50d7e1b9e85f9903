/* Observations of IPv6 extension headers (RFC 3542): as options, and as ancillary data in both directions. */

struct part {
    int type;
    const unsigned char *bytes;
    unsigned length;
};

#define PART(type, bytes) {type, bytes, sizeof bytes}

/* Options headers of 8 and 16 bytes with an option that hosts pass over; what follows is filled in. */
static const unsigned char short_options[] = {0x55, 0, 0x1e, 4, 1, 2, 3, 4};
static const unsigned char long_options[16] = {0x55, 1, 0x1e, 12, 9, 8, 7, 6, 5, 4, 3, 2, 1};
static const unsigned char too_long[] = {0x55, 1, 1, 4, 0, 0, 0, 0};

static long send_with(int fd, const struct part *parts, int count, int is_named) {
    union { char bytes[400]; struct cmsghdr aligned; } control;
    memset(&control, 0, sizeof control);
    struct iovec text = {"with", 4};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    message.msg_control = &control, message.msg_controllen = sizeof control;
    if (is_named) message.msg_name = &other, message.msg_namelen = size;
    struct cmsghdr *at = CMSG_FIRSTHDR(&message);
    size_t used = 0;
    for (int i = 0; i < count; i++, at = CMSG_NXTHDR(&message, at)) {
        at->cmsg_level = IPPROTO_IPV6, at->cmsg_type = parts[i].type;
        at->cmsg_len = CMSG_LEN(parts[i].length);
        memcpy(CMSG_DATA(at), parts[i].bytes, parts[i].length);
        used += CMSG_SPACE(parts[i].length);
    }
    message.msg_controllen = used;
    return sendmsg(fd, &message, 0);
}

/* Whether something is to be waited for. */
static int was_sent = 1;

#define SEND(fd, is_named, ...) do { \
    const struct part parts_[] = {__VA_ARGS__}; \
    long result_ = send_with(fd, parts_, sizeof parts_ / sizeof *parts_, is_named); \
    was_sent = result_ >= 0; \
    say("sendmsg with " #__VA_ARGS__ " = %s", was_sent ? "sent" : name_of(errno)); \
} while (0)

/* What comes next, with all that comes beside it. */
static void show_next(int fd, int room, int flags) {
    union { char bytes[400]; struct cmsghdr aligned; } control;
    char bytes[100];
    struct iovec text = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    message.msg_control = &control, message.msg_controllen = room;
    if (was_sent) await(fd, POLLIN);
    was_sent = 1;
    ssize_t length = recvmsg(fd, &message, flags | MSG_DONTWAIT);
    if (length < 0) {
        say("nothing has come: %s", name_of(errno));
        return;
    }
    size_t beside = message.msg_controllen;
    say("%zd bytes, flags %x, %zu bytes beside them", length, message.msg_flags, beside);
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        char hex[200];
        int count = part->cmsg_len - CMSG_LEN(0);
        for (int i = 0; i < count && i < 90; i++) snprintf(hex + 2 * i, 3, "%02x", CMSG_DATA(part)[i]);
        say("level %d, type %d, %d bytes %s", part->cmsg_level, part->cmsg_type, count, count ? hex : "");
    }
}

static void set_and_get(int fd) {
    static const int names[] = {IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_DSTOPTS, IPV6_RTHDR};
    static unsigned char longest[8 * 256] = {0, 254, 1, 252};
    unsigned char bytes[100];
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        int name = names[i];
        socklen_t length = sizeof bytes;
        SEE(getsockopt(fd, IPPROTO_IPV6, name, bytes, &length));
        SEE(length);
        SEE(setsockopt(fd, IPPROTO_IPV6, name, NULL, 8));
        SEE(setsockopt(fd, IPPROTO_IPV6, name, short_options, 1));
        SEE(setsockopt(fd, IPPROTO_IPV6, name, long_options, 12));
        SEE(setsockopt(fd, IPPROTO_IPV6, name, too_long, 8));
        SEE(setsockopt(fd, IPPROTO_IPV6, name, longest, 8 * 256));
        SEE(setsockopt(fd, IPPROTO_IPV6, name, longest, 8 * 255));
        unsigned char two[16];
        memcpy(two, short_options, 8), memcpy(two + 8, short_options, 8);
        SEE(setsockopt(fd, IPPROTO_IPV6, name, two, 16));
        length = sizeof bytes;
        SEE(getsockopt(fd, IPPROTO_IPV6, name, bytes, &length));
        say("%u bytes, as they were %d", length, !memcmp(bytes, short_options, length));
        length = 5;
        SEE(getsockopt(fd, IPPROTO_IPV6, name, bytes, &length));
        SEE(length);
        SEE(setsockopt(fd, IPPROTO_IPV6, name, NULL, 0));
        length = sizeof bytes;
        SEE(getsockopt(fd, IPPROTO_IPV6, name, bytes, &length));
        SEE(length);
    }
    /* The length, the type, the segments left, and the last entry. Some kernels take type 2 with one left. */
    static const unsigned char routes[][4] = {{2, 0, 1, 0}, {2, 0, 0, 0}, {2, 2, 0, 0}, {2, 2, 2, 0},
        {4, 2, 1, 0}, {2, 3, 0, 0}, {2, 4, 0, 0}, {2, 4, 1, 0}, {4, 4, 1, 1}, {4, 4, 2, 1},
        {4, 4, 0, 2}, {4, 4, 0, 0}, {5, 4, 1, 1}, {2, 253, 0, 0}};
    for (unsigned i = 0; i < sizeof routes / sizeof *routes; i++)
        for (int more = 0; more <= 8; more += 8) {
            unsigned char route[64] = {0, routes[i][0], routes[i][1], routes[i][2], routes[i][3]};
            memcpy(route + 8, &own.v6.sin6_addr, 16);
            int length = 8 * (routes[i][0] + 1) + more;
            int result = setsockopt(fd, IPPROTO_IPV6, IPV6_RTHDR, route, length);
            const char *came = result ? name_of(errno) : "set";
            say("a route of type %d, length %d, %d left, last %d, in %d bytes: %s", route[2], route[1],
                route[3], route[4], length, came);
            socklen_t got = sizeof bytes;
            SEE(getsockopt(fd, IPPROTO_IPV6, IPV6_RTHDR, bytes, &got));
            SEE(got);
        }
    SEE(setsockopt(fd, IPPROTO_IPV6, IPV6_RTHDR, NULL, 0));
}

static void extension_headers(void) {
    topic = "extension headers";
    int one = bound(SOCK_DGRAM);
    other = own;
    int two = bound(SOCK_DGRAM);
    if (own.any.sa_family == AF_INET) {
        SEND(two, 1, {IPV6_DSTOPTS, too_long, 1});
        show_next(one, 400, 0);
        part(one, two);
        return;
    }
    set_and_get(two);

    topic = "extension headers of all datagrams";
    SEE(setsockopt(two, IPPROTO_IPV6, IPV6_HOPOPTS, short_options, 8));
    SEE(setsockopt(two, IPPROTO_IPV6, IPV6_DSTOPTS, long_options, 16));
    SEE(setsockopt(two, IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, short_options, 8));
    SEE(sendto(two, "not asked", 9, 0, &other.any, size));
    show_next(one, 400, 0);
    set(one, IPPROTO_IPV6, IPV6_RECVHOPOPTS, 1);
    SEE(sendto(two, "hop-by-hop", 10, 0, &other.any, size));
    show_next(one, 400, 0);
    set(one, IPPROTO_IPV6, IPV6_RECVDSTOPTS, 1);
    set(one, IPPROTO_IPV6, IPV6_RECVRTHDR, 1);
    SEE(sendto(two, "both", 4, 0, &other.any, size));
    show_next(one, 400, MSG_PEEK);
    show_next(one, 400, 0);
    set(one, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
    SEE(sendto(two, "and more", 8, 0, &other.any, size));
    show_next(one, 400, 0);
    static const int rooms[] = {0, 8, 16, 24, 48, 52, 80, 88};
    for (unsigned i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        SEE(sendto(two, "little room", 11, 0, &other.any, size));
        show_next(one, rooms[i], 0);
    }
    SEE(sendto(two, "plain recvfrom", 14, 0, &other.any, size));
    char bytes[100];
    await(one, POLLIN);
    SEE(recvfrom(one, bytes, 100, MSG_DONTWAIT, NULL, NULL));
    set(one, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 0);
    /* What the headers take of the longest packet is not there for data. Linux counts some twice. */
    static char much[65536];
    SEE(setsockopt(two, IPPROTO_IPV6, IPV6_DSTOPTS, NULL, 0));
    SEE(sendto(two, much, 65535 - 8 - 8, 0, &other.any, size));
    show_next(one, 400, MSG_TRUNC);
    SEE(sendto(two, much, 65535 - 8 - 7, 0, &other.any, size));
    SEE(setsockopt(two, IPPROTO_IPV6, IPV6_DSTOPTS, long_options, 16));
    SEE(option(one, IPPROTO_IPV6, IPV6_RECVHOPOPTS));
    SEE(option(one, IPPROTO_IPV6, IPV6_RECVDSTOPTS));
    SEE(option(one, IPPROTO_IPV6, IPV6_RECVRTHDR));

    topic = "extension headers of a socket that was not bound";
    int three = opened(SOCK_DGRAM);
    SEE(setsockopt(three, IPPROTO_IPV6, IPV6_DSTOPTS, long_options, 16));
    SEE(sendto(three, "repeated", 8, 0, &other.any, size));
    show_next(one, 400, 0);
    socklen_t length = sizeof bytes;
    SEE(getsockopt(three, IPPROTO_IPV6, IPV6_DSTOPTS, bytes, &length));
    SEE(length);
    close(three);

    topic = "extension headers of one datagram";
    SEND(two, 1, PART(IPV6_DSTOPTS, short_options));
    show_next(one, 400, 0);
    SEND(two, 1, PART(IPV6_DSTOPTS, short_options), PART(IPV6_HOPOPTS, long_options));
    show_next(one, 400, 0);
    SEND(two, 1, PART(IPV6_RTHDRDSTOPTS, short_options));
    show_next(one, 400, 0);
    SEND(two, 1, {IPV6_HOPOPTS, long_options, 16}, {IPV6_HOPOPTS, short_options, 8});
    SEND(two, 1, {IPV6_DSTOPTS, long_options, 12});
    SEND(two, 1, {IPV6_DSTOPTS, long_options, 1});
    SEND(two, 1, {IPV6_DSTOPTS, long_options, 0});
    SEND(two, 1, PART(IPV6_HOPOPTS, too_long));
    SEND(two, 1, PART(IPV6_RTHDRDSTOPTS, too_long));
    static const unsigned char longer[24] = {0, 0, 0x1e, 4, 7, 7, 7, 7, 5};
    SEND(two, 1, PART(IPV6_DSTOPTS, longer));
    show_next(one, 400, 0);
    static const unsigned char old[24] = {0, 2, 0, 1}, segments[24] = {0, 2, 4, 0}, home[24] = {0, 2, 2, 0};
    static const unsigned char short_home[16] = {0, 1, 2, 1};
    SEND(two, 1, PART(IPV6_RTHDR, old));
    SEND(two, 1, PART(IPV6_RTHDR, segments));
    SEND(two, 1, PART(IPV6_RTHDR, home));
    SEND(two, 1, PART(IPV6_RTHDR, short_home));
    SEND(two, 1, {IPV6_RTHDR, home, 2});
    SEE(sendto(two, "as before", 9, 0, &other.any, size));
    was_sent = 1;
    show_next(one, 400, 0);
    SEE(setsockopt(two, IPPROTO_IPV6, IPV6_HOPOPTS, NULL, 0));
    SEE(setsockopt(two, IPPROTO_IPV6, IPV6_DSTOPTS, NULL, 0));
    SEE(sendto(two, "none any more", 13, 0, &other.any, size));
    show_next(one, 400, 0);

    topic = "extension headers of connected sockets";
    MUST(connect(one, &own.any, size));
    MUST(connect(two, &other.any, size));
    SEND(two, 0, PART(IPV6_DSTOPTS, long_options));
    show_next(one, 400, 0);
    SEND(two, 0, PART(IPV6_HOPOPTS, short_options));
    show_next(one, 400, 0);
    SEE(send(two, "none", 4, 0));
    show_next(one, 400, 0);
    SEE(setsockopt(two, IPPROTO_IPV6, IPV6_DSTOPTS, short_options, 8));
    SEE(send(two, "all", 3, 0));
    show_next(one, 400, 0);
    part(one, two);
}
