/* Observations of UDP sockets. */

static void datagrams(void) {
    char bytes[100];
    int count;
    int one = bound(SOCK_DGRAM);
    other = own;
    int two = bound(SOCK_DGRAM);
    basics("bound datagram", two);
    topic = "datagram";
    SEE(listen(two, 1));
    SEE(bind(two, &own.any, size));
    int third = opened(SOCK_DGRAM);
    SEE(bind(third, &own.any, size));
    close(third);
    SEE(sendto(two, "hello", 5, 0, &other.any, size));
    POLL(one, POLLIN);
    SEE(ioctl(one, FIONREAD, &count));
    SEE(count);
    SEE(recv(one, bytes, 2, MSG_PEEK));
    SEE(recv(one, bytes, 2, MSG_PEEK | MSG_TRUNC));
    union { struct sockaddr any; struct sockaddr_storage all; } from;
    socklen_t length = sizeof from;
    SEE(recvfrom(one, bytes, 2, 0, &from.any, &length));
    say("from %s", !memcmp(&from, &own, size) ? "the sender" : "another");
    SEE(length == size);
    SEE(recv(one, bytes, 2, MSG_DONTWAIT));
    SEE(sendto(two, "", 0, 0, &other.any, size));
    POLL(one, POLLIN);
    SEE(recv(one, bytes, 2, 0));
    MUST(sendto(two, "longer", 6, 0, &other.any, size));
    struct iovec room = {bytes, 3};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &room, .msg_iovlen = 1};
    await(one, POLLIN);
    SEE(recvmsg(one, &message, 0));
    say("name of the right size %d, flags %x", message.msg_namelen == size, message.msg_flags);
    static char much[70000];
    SEE(sendto(two, much, 70000, 0, &other.any, size));
    SEE(sendto(two, "x", 1, 0, &other.any, 3));
    SEE(sendto(two, "x", 1, 0, NULL, 0));
    int port = ntohs(own.any.sa_family == AF_INET ? other.v4.sin_port : other.v6.sin6_port);
    set_port(0);
    SEE(sendto(two, "x", 1, 0, &other.any, size));
    SEE(connect(two, &other.any, size));
    set_port(port);
    SEE(connect(two, &other.any, size));
    say("peer %s", shown(two, getpeername));
    SEE(send(two, "connected", 9, 0));
    await(one, POLLIN);
    SEE(recv(one, bytes, 100, 0));
    SEE(sendto(two, "given", 5, 0, &other.any, size));
    await(one, POLLIN);
    SEE(recv(one, bytes, 100, 0));
    third = opened(SOCK_DGRAM);
    SEE(sendto(third, "not to a connected one", 22, 0, &own.any, size));
    SEE(sendto(one, "to the connected one", 20, 0, &own.any, size));
    await(two, POLLIN);
    SEE(recv(two, bytes, 100, 0));
    SEE(recv(two, bytes, 100, MSG_DONTWAIT));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    SEE(connect(two, &none, sizeof none));
    say("peer %s", shown(two, getpeername));
    SEE(send(two, "x", 1, 0));
    close(third);
    struct mmsghdr many[3];
    struct iovec texts[3] = {{"a", 1}, {"bc", 2}, {"def", 3}};
    memset(many, 0, sizeof many);
    for (int i = 0; i < 3; i++)
        many[i].msg_hdr = (struct msghdr){.msg_name = &other, .msg_namelen = size, .msg_iov = texts + i, .msg_iovlen = 1};
    SEE(sendmmsg(two, many, 3, 0));
    char got[3][10];
    struct iovec rooms[3] = {{got[0], 10}, {got[1], 10}, {got[2], 10}};
    memset(many, 0, sizeof many);
    for (int i = 0; i < 3; i++) many[i].msg_hdr = (struct msghdr){.msg_iov = rooms + i, .msg_iovlen = 1};
    SEE(recvmmsg(one, many, 3, MSG_WAITALL, NULL));
    say("lengths %u %u %u", many[0].msg_len, many[1].msg_len, many[2].msg_len);
    struct timespec limit = {1000, 0};
    MUST(sendto(two, "in time", 7, 0, &other.any, size));
    await(one, POLLIN);
    SEE(recvmmsg(one, many, 1, 0, &limit));
    SEE(limit.tv_sec < 1000 && limit.tv_sec > 900);
    limit = (struct timespec){1000, 0};
    SEE(recvmmsg(one, many, 1, MSG_DONTWAIT, &limit));
    SEE(limit.tv_sec);
    MUST(sendto(two, "one", 3, 0, &other.any, size));
    MUST(sendto(two, "two", 3, 0, &other.any, size));
    limit = (struct timespec){0, 0};
    SEE(recvmmsg(one, many, 2, 0, &limit));
    SEE(limit.tv_sec == 0 && limit.tv_nsec == 0);
    SEE(recv(one, bytes, 100, 0));
    limit = (struct timespec){0, -1};
    SEE(recvmmsg(one, many, 1, MSG_DONTWAIT, &limit));
    struct timeval time = {.tv_usec = 50000};
    MUST(setsockopt(one, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    SEE(recv(one, bytes, 100, 0));

    topic = "ancillary data";
    if (own.any.sa_family == AF_INET6) {
        set(one, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
        set(one, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
        set(one, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
        set(two, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 44);
        set(two, IPPROTO_IPV6, IPV6_TCLASS, 0x28);
    } else {
        set(one, IPPROTO_IP, IP_PKTINFO, 1);
        set(one, IPPROTO_IP, IP_RECVTTL, 1);
        set(one, IPPROTO_IP, IP_RECVTOS, 1);
        set(two, IPPROTO_IP, IP_TTL, 44);
        set(two, IPPROTO_IP, IP_TOS, 0x28);
    }
    set(one, SOL_SOCKET, SO_TIMESTAMP, 1);
    MUST(sendto(two, "x", 1, 0, &other.any, size));
    char control[400];
    room = (struct iovec){bytes, 100};
    message = (struct msghdr){.msg_iov = &room, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    await(one, POLLIN);
    SEE(recvmsg(one, &message, 0));
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        int value = 0;
        memcpy(&value, CMSG_DATA(part), part->cmsg_len == CMSG_LEN(1) ? 1 : 4);
        int is_number = part->cmsg_level != SOL_SOCKET && part->cmsg_len <= CMSG_LEN(4);
        say("level %d, type %d, %zu bytes, %d", part->cmsg_level, part->cmsg_type, part->cmsg_len - CMSG_LEN(0), is_number ? value : 0);
    }
    part(one, two);

    topic = "refused datagram";
    at_nobody(SOCK_DGRAM);
    one = opened(SOCK_DGRAM);
    MUST(connect(one, &other.any, size));
    SEE(send(one, "x", 1, 0));
    POLL(one, POLLERR);
    SEE(option(one, SOL_SOCKET, SO_ERROR));
    SEE(option(one, SOL_SOCKET, SO_ERROR));
    MUST(send(one, "x", 1, 0));
    await(one, POLLERR);
    SEE(recv(one, bytes, 1, 0));
    SEE(recv(one, bytes, 1, MSG_DONTWAIT));
    MUST(send(one, "x", 1, 0));
    await(one, POLLERR);
    SEE(send(one, "x", 1, 0));
    close(one);

    topic = "error of a datagram";
    /* So many errors a second are told to one address. */
    usleep(1200000);
    one = opened(SOCK_DGRAM);
    if (own.any.sa_family == AF_INET) set(one, IPPROTO_IP, IP_RECVERR, 1);
    else set(one, IPPROTO_IPV6, IPV6_RECVERR, 1);
    struct iovec only = {bytes, 1};
    /* What is not connected is told by POLLIN on the overlay, and by POLLERR on the machine's network. */
#define AFTER_ERROR(call) do { \
    MUST(sendto(one, "x", 1, 0, &other.any, size)); \
    for (int waited = 0; waited < PATIENCE && !(look(one) & (POLLIN | POLLERR)); waited += 5) usleep(5000); \
    SEE(call); \
    SEE(recv(one, bytes, 1, MSG_DONTWAIT)); \
    SEE(recv(one, bytes, 1, MSG_ERRQUEUE | MSG_DONTWAIT)); \
    SEE(recv(one, bytes, 1, MSG_DONTWAIT)); \
} while (0)
    AFTER_ERROR(recv(one, bytes, 1, 0));
    AFTER_ERROR(recv(one, bytes, 1, MSG_PEEK));
    AFTER_ERROR(recvfrom(one, bytes, 1, 0, NULL, NULL));
    AFTER_ERROR(read(one, bytes, 1));
    AFTER_ERROR(readv(one, &only, 1));
    AFTER_ERROR(recvmsg(one, &(struct msghdr){.msg_iov = &only, .msg_iovlen = 1}, 0));
    AFTER_ERROR(option(one, SOL_SOCKET, SO_ERROR));
    AFTER_ERROR(recv(one, bytes, 1, MSG_ERRQUEUE | MSG_DONTWAIT));
    two = bound(SOCK_DGRAM);
    for (int at = 0; at < 4; at++) MUST(sendto(one, "", 0, 0, &own.any, size));
    SEE(recv(two, bytes, 1, 0));
    SEE(recv(two, bytes, 1, MSG_PEEK));
    SEE(recvfrom(two, bytes, 1, 0, NULL, NULL));
    SEE(read(two, bytes, 1));
    SEE(readv(two, &only, 1));
    SEE(recv(two, bytes, 1, MSG_DONTWAIT));
    part(one, two);

    topic = "shut down datagram";
    one = bound(SOCK_DGRAM);
    SEE(shutdown(one, SHUT_RDWR));
    MUST(connect(one, &own.any, size));
    SEE(shutdown(one, SHUT_WR));
    SEE(send(one, "x", 1, MSG_NOSIGNAL));
    SEE(shutdown(one, SHUT_RD));
    SEE(recv(one, bytes, 1, MSG_DONTWAIT));
    POLL(one, POLLIN);
    close(one);
}

/* What comes within a second. */
static long received(int fd) {
    char bytes[100];
    long got = -1;
    for (int waited = 0; waited < 1000 && (got = recv(fd, bytes, 100, MSG_DONTWAIT)) < 0; waited += 5) usleep(5000);
    return got;
}

static void shut_datagrams(void) {
    static const char *names[] = {"datagram socket that was shut for reading", "datagram socket that was shut for writing",
        "datagram socket that was shut"};
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    for (int how = SHUT_RD; how <= SHUT_RDWR; how++)
        for (int dissolved = 0; dissolved < 2; dissolved++) {
            topic = names[how];
            int server = bound(SOCK_DGRAM);
            other = own;
            int client = bound(SOCK_DGRAM);
            MUST(connect(client, &other.any, size));
            SEE(shutdown(client, how));
            if (dissolved) SEE(connect(client, &none, sizeof none));
            SEE(connect(client, &other.any, size));
            SEE(send(client, "x", 1, MSG_NOSIGNAL));
            /* Linux gives a port that it has chosen back when the socket is dissolved, and chooses
             * another. */
            socklen_t length = sizeof own;
            MUST(getsockname(client, &own.any, &length));
            MUST(sendto(server, "back", 4, 0, &own.any, size));
            SEE(received(client));
            say("local %s", shown(client, getsockname));
            part(client, server);
        }
}
