/* Observations of options: what each is at first, whether it is taken, and what it is then. */

static const struct {
    int level, name;
    const char *text;
    int value;
    int is_the_systems; /* what it is at first depends on the system's settings */
} options[] = {
#define O(level, name, value) {level, name, #name, value, 0}
#define S(level, name, value) {level, name, #name, value, 1}
    O(SOL_SOCKET, SO_REUSEADDR, 1), O(SOL_SOCKET, SO_REUSEPORT, 1), O(SOL_SOCKET, SO_KEEPALIVE, 1),
    O(SOL_SOCKET, SO_BROADCAST, 1), O(SOL_SOCKET, SO_OOBINLINE, 1), O(SOL_SOCKET, SO_DONTROUTE, 1),
    O(SOL_SOCKET, SO_PRIORITY, 6), O(SOL_SOCKET, SO_RCVLOWAT, 9), O(SOL_SOCKET, SO_TIMESTAMP, 1),
    O(SOL_SOCKET, SO_TIMESTAMPNS, 1), S(SOL_SOCKET, SO_RCVBUF, 50000), S(SOL_SOCKET, SO_SNDBUF, 50000),
    O(SOL_SOCKET, SO_TYPE, 1), O(SOL_SOCKET, SO_ACCEPTCONN, 1), O(SOL_SOCKET, SO_MARK, 7), O(SOL_SOCKET, 9999, 1),
    O(SOL_SOCKET, SO_INCOMING_CPU, 1), S(SOL_SOCKET, SO_BUSY_POLL, 0), O(SOL_SOCKET, SO_ZEROCOPY, 1),
    O(IPPROTO_TCP, TCP_NODELAY, 1), O(IPPROTO_TCP, TCP_CORK, 1), S(IPPROTO_TCP, TCP_KEEPIDLE, 5),
    O(IPPROTO_TCP, TCP_KEEPIDLE, 0), S(IPPROTO_TCP, TCP_KEEPINTVL, 40000), O(IPPROTO_TCP, TCP_KEEPINTVL, 6),
    S(IPPROTO_TCP, TCP_KEEPCNT, 200), O(IPPROTO_TCP, TCP_KEEPCNT, 7), O(IPPROTO_TCP, TCP_USER_TIMEOUT, 1234),
    O(IPPROTO_TCP, TCP_USER_TIMEOUT, -1), O(IPPROTO_TCP, TCP_MAXSEG, 1000), O(IPPROTO_TCP, TCP_MAXSEG, 5),
    S(IPPROTO_TCP, TCP_SYNCNT, 3), S(IPPROTO_TCP, TCP_LINGER2, 4), O(IPPROTO_TCP, TCP_DEFER_ACCEPT, 0),
    S(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1000), O(IPPROTO_TCP, TCP_WINDOW_CLAMP, 30000), O(IPPROTO_TCP, 999, 1),
    S(IPPROTO_IP, IP_TTL, 9), O(IPPROTO_IP, IP_TTL, 300), O(IPPROTO_IP, IP_TOS, 16), S(IPPROTO_IP, IP_MTU_DISCOVER, 2),
    O(IPPROTO_IP, IP_RECVTTL, 1), O(IPPROTO_IP, IP_RECVTOS, 1), O(IPPROTO_IP, IP_PKTINFO, 1), O(IPPROTO_IP, IP_RECVERR, 1),
    O(IPPROTO_IP, IP_MULTICAST_TTL, 3), O(IPPROTO_IP, IP_MULTICAST_LOOP, 0), O(IPPROTO_IP, IP_FREEBIND, 1),
    O(IPPROTO_IP, 999, 1),
    S(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9), O(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 300), O(IPPROTO_IPV6, IPV6_TCLASS, 16),
    O(IPPROTO_IPV6, IPV6_V6ONLY, 1), S(IPPROTO_IPV6, IPV6_MTU_DISCOVER, 2), O(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1),
    O(IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1), O(IPPROTO_IPV6, IPV6_RECVTCLASS, 1), O(IPPROTO_IPV6, IPV6_RECVERR, 1),
    O(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 3), O(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0), O(IPPROTO_IPV6, IPV6_DONTFRAG, 1),
    O(IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 1), O(IPPROTO_IPV6, 999, 1),
    O(77, 1, 1),
};

static void all_options(int type) {
    topic = type == SOCK_STREAM ? "stream option" : "datagram option";
    int fd = bound(type);
    for (unsigned i = 0; i < sizeof options / sizeof *options; i++) {
        int level = options[i].level, name = options[i].name, value = options[i].value;
        int before = option(fd, level, name);
        int set = setsockopt(fd, level, name, &value, sizeof value) ? errno : 0;
        int after = option(fd, level, name);
        char texts[2][30];
        for (int j = 0; j < 2; j++) {
            int shown = j ? after : before;
            if (shown < -1) snprintf(texts[j], 30, "%s", name_of(-shown));
            else snprintf(texts[j], 30, "%d", shown);
        }
        const char *first = options[i].is_the_systems && before >= -1 ? "the system's" : texts[0];
        const char *then = options[i].is_the_systems && after == before ? "that" : texts[1];
        say("%s = %s, set to %d: %s, then %s", options[i].text, first, value, set ? name_of(set) : "done", then);
    }
    topic = type == SOCK_STREAM ? "stream option's length" : "datagram option's length";
    int value = 1;
    socklen_t length = 1;
    SEE(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, 1));
    SEE(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, NULL, 4));
    SEE(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &value, 4));
    SEE(setsockopt(fd, SOL_SOCKET, SO_LINGER, &value, 4));
    SEE(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &length));
    SEE(length);
    length = 100;
    char room[100];
    SEE(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, room, &length));
    SEE(length);
    SEE(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, NULL, &length));
    SEE(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, room, NULL));
    length = -1;
    SEE(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, room, &length));
    struct timeval time = {.tv_sec = 3, .tv_usec = 2000000};
    SEE(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    close(fd);
}
