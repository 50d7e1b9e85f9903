/* Observations at the edges of calls: what they refuse and in which order, and flags and options with their
 * effect. */
#include <netinet/udp.h>

static void stream_edges(void) {
    char bytes[100];
    int value, client, server;
    struct sockaddr_storage big;
    socklen_t length = sizeof big;
    memset(&big, 0, sizeof big);
    topic = "edges of a stream";
    int fd = opened(SOCK_STREAM);
    say("local %s", shown(fd, getsockname));
    SEE(shutdown(fd, SHUT_RDWR));
    SEE(ioctl(fd, FIONREAD, &value));
    SEE(ioctl(fd, SIOCATMARK, &value));
    SEE(ioctl(fd, SIOCOUTQ, &value));
    SEE(recv(fd, bytes, 0, MSG_DONTWAIT));
    SEE(getsockname(fd, NULL, &length));
    SEE(getsockname(fd, (struct sockaddr *)&big, NULL));
    length = -1;
    SEE(getsockname(fd, (struct sockaddr *)&big, &length));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    SEE(connect(fd, &none, sizeof none));
    other = own;
    other.any.sa_family = own.any.sa_family == AF_INET ? AF_INET6 : AF_INET;
    SEE(connect(fd, &other.any, sizeof other));
    SEE(bind(fd, &other.any, sizeof other));
    other = own;
    if (own.any.sa_family == AF_INET) other.v4.sin_addr.s_addr = htonl(0xc0000201);
    else inet_pton(AF_INET6, "2001:db8::1", &other.v6.sin6_addr);
    SEE(bind(fd, &other.any, size));
    close(fd);
    fd = listening(0);
    SEE(ioctl(fd, FIONREAD, &value));
    SEE(ioctl(fd, SIOCOUTQ, &value));
    SEE(ioctl(fd, SIOCATMARK, &value));
    SEE(send(fd, "", 0, MSG_NOSIGNAL));
    SEE(recv(fd, bytes, 0, MSG_DONTWAIT));
    SEE(shutdown(fd, SHUT_WR));
    SEE(option(fd, SOL_SOCKET, SO_ACCEPTCONN));
    client = opened(SOCK_STREAM);
    SEE(connect(client, &own.any, size));
    SEE(connect(client, &own.any, 3));
    server = MUST(accept(fd, NULL, NULL));
    SEE(accept(server, NULL, NULL));
    SEE(listen(server, 1));
    SEE(bind(server, &own.any, size));
    SEE(connect(server, &own.any, size));
    close(fd);
    SEE(send(client, "abc", 3, MSG_DONTROUTE | MSG_CONFIRM | MSG_EOR));
    await(server, POLLIN);
    SEE(ioctl(server, SIOCATMARK, &value));
    SEE(value);
    SEE(recv(server, bytes, 100, MSG_PEEK | MSG_TRUNC));
    SEE(recv(server, bytes, 1, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC));
    SEE(recv(server, bytes, 0, MSG_PEEK));
    SEE(send(client, "def", 3, MSG_ZEROCOPY));
    for (value = 0; value < 5; ioctl(server, FIONREAD, &value)) usleep(1000);
    char control[200];
    struct iovec room = {bytes, 100};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control, .msg_flags = -1};
    SEE(recvmsg(server, &message, MSG_CMSG_CLOEXEC));
    say("control of %zu, flags %x", message.msg_controllen, message.msg_flags & ~MSG_CMSG_CLOEXEC);
    SEE(send(client, bytes, 3, -1 & ~(MSG_OOB | MSG_FASTOPEN | MSG_ERRQUEUE | MSG_MORE)));
    await(server, POLLIN);
    SEE(recv(server, bytes, 100, 0));
    message = (struct msghdr){.msg_iov = &room, .msg_iovlen = 0};
    SEE(sendmsg(client, &message, 0));
    SEE(recvmsg(server, &message, MSG_DONTWAIT));
    message = (struct msghdr){.msg_iov = NULL, .msg_iovlen = 1};
    SEE(sendmsg(client, &message, 0));
    SEE(sendmsg(client, NULL, 0));
    SEE(recvmsg(client, NULL, MSG_DONTWAIT));
    struct { struct cmsghdr header; int value; } asked = {{.cmsg_len = CMSG_LEN(4), .cmsg_level = SOL_SOCKET, .cmsg_type = 999}, 1};
    message = (struct msghdr){.msg_iov = &room, .msg_iovlen = 1, .msg_control = &asked, .msg_controllen = sizeof asked};
    SEE(sendmsg(client, &message, MSG_NOSIGNAL));
    asked.header.cmsg_level = IPPROTO_IP;
    room.iov_len = 1;
    SEE(sendmsg(client, &message, MSG_NOSIGNAL));
    asked.header.cmsg_len = 4;
    SEE(sendmsg(client, &message, MSG_NOSIGNAL));
    await(server, POLLIN);
    SEE(recv(server, bytes, 100, 0));
    SEE(sendmmsg(client, NULL, 0, 0));
    SEE(recvmmsg(server, NULL, 0, MSG_DONTWAIT, NULL));
    SEE(readv(server, NULL, 0));
    SEE(writev(client, NULL, 0));
    SEE(lseek(server, 0, SEEK_CUR));
    SEE(pread(server, bytes, 1, 0));
    SEE(ftruncate(server, 0));
    SEE(fsync(server));
    part(client, server);

    topic = "peeking behind";
    pair(&client, &server);
    SEE(option(server, SOL_SOCKET, SO_PEEK_OFF));
    value = 1;
    SEE(setsockopt(server, SOL_SOCKET, SO_PEEK_OFF, &value, sizeof value));
    MUST(send(client, "abcdef", 6, 0));
    for (value = 0; value < 6; ioctl(server, FIONREAD, &value)) usleep(1000);
    SEE(recv(server, bytes, 2, MSG_PEEK));
    say("%.2s, then at %d", bytes, option(server, SOL_SOCKET, SO_PEEK_OFF));
    SEE(recv(server, bytes, 1, 0));
    say("%.1s, then at %d", bytes, option(server, SOL_SOCKET, SO_PEEK_OFF));
    SEE(recv(server, bytes, 100, MSG_PEEK));
    say("%.3s", bytes);
    part(client, server);

    topic = "who is at the other end";
    pair(&client, &server);
    struct ucred who = {1, 2, 3};
    length = sizeof who;
    SEE(getsockopt(client, SOL_SOCKET, SO_PEERCRED, &who, &length));
    say("%d %d %d, %u bytes", who.pid, (int)who.uid, (int)who.gid, length);
    unsigned long long cookies[2];
    length = sizeof *cookies;
    SEE(getsockopt(client, SOL_SOCKET, SO_COOKIE, cookies, &length));
    SEE(getsockopt(server, SOL_SOCKET, SO_COOKIE, cookies + 1, &length));
    SEE(cookies[0] != cookies[1] && cookies[0] && cookies[1]);
    SEE(getsockopt(client, SOL_SOCKET, SO_PEERSEC, bytes, &length));
    part(client, server);

    topic = "send time";
    pair(&client, &server);
    struct timeval time = {.tv_usec = 50000};
    MUST(setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time));
    static char much[1 << 20];
    long sent;
    do sent = send(client, much, sizeof much, 0);
    while (sent > 0);
    say("then %s", name_of(errno));
    /* What is lost would be told. */
    MUST(shutdown(client, SHUT_WR));
    while (recv(server, much, sizeof much, 0) > 0) continue;
    part(client, server);
}

static void *send_to_later(void *fd) {
    usleep(100000);
    sendto(*(int *)fd, "later", 5, 0, &other.any, size);
    return NULL;
}

/* Sends so much from `from` to `other`, to be cut into datagrams of so many bytes. */
static long send_cut(int from, size_t bytes, unsigned short segment) {
    static char much[70000];
    struct { struct cmsghdr header; unsigned short value; } asked = {{.cmsg_len = CMSG_LEN(2), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT}, segment};
    struct iovec piece = {much, bytes};
    return sendmsg(from, &(struct msghdr){.msg_name = &other, .msg_namelen = size, .msg_iov = &piece, .msg_iovlen = 1,
        .msg_control = &asked, .msg_controllen = sizeof asked}, 0);
}

static void see_lengths(int fd, int count) {
    static char much[70000];
    char text[200] = "";
    for (int at = 0; at < count; at++) {
        await(fd, POLLIN);
        sprintf(text + strlen(text), " %zd", recv(fd, much, sizeof much, MSG_DONTWAIT));
    }
    usleep(10000);
    say("came%s, and %s", text, recv(fd, much, 1, MSG_DONTWAIT) < 0 ? "nothing more" : "more");
}

#define SEE_CUT(bytes, segment, count) do { \
    SEE(send_cut(two, bytes, segment)); \
    see_lengths(one, count); \
} while (0)

static void datagram_edges(void) {
    char bytes[100];
    int value;
    socklen_t length;
    topic = "edges of a datagram socket";
    int one = bound(SOCK_DGRAM);
    other = own;
    int two = bound(SOCK_DGRAM), third = opened(SOCK_DGRAM);
    say("local %s", shown(third, getsockname));
    SEE(shutdown(third, SHUT_RD));
    SEE(send(third, "x", 1, 0));
    SEE(accept(third, NULL, NULL));
    SEE(ioctl(two, FIONREAD, &value));
    SEE(value);
    SEE(ioctl(two, SIOCOUTQ, &value));
    SEE(value);
    SEE(recv(two, bytes, 1, MSG_OOB | MSG_DONTWAIT));
    SEE(send(two, "x", 1, MSG_OOB));
    struct sockaddr_storage wrong;
    memcpy(&wrong, &other, sizeof other);
    wrong.ss_family = AF_UNIX;
    SEE(sendto(two, "x", 1, 0, (struct sockaddr *)&wrong, size));
    wrong.ss_family = AF_UNSPEC;
    SEE(sendto(two, "x", 1, 0, (struct sockaddr *)&wrong, size));
    SEE(sendto(two, "first", 5, MSG_DONTROUTE | MSG_CONFIRM | MSG_EOR | MSG_ZEROCOPY, &other.any, size));
    SEE(sendto(two, "second one", 10, 0, &other.any, size));
    await(one, POLLIN);
    if (own.any.sa_family == AF_INET) SEE(recv(one, bytes, 100, MSG_DONTWAIT));
    await(one, POLLIN);
    SEE(ioctl(one, FIONREAD, &value));
    SEE(value);
    SEE(recv(one, bytes, 0, MSG_PEEK));
    SEE(recv(one, bytes, 0, MSG_PEEK | MSG_TRUNC));
    SEE(recv(one, NULL, 0, MSG_DONTWAIT));
    char control[1], name[4] = {0x55, 0x55, 0x55, 0x55};
    struct iovec room = {bytes, 100};
    struct msghdr message = {.msg_name = name, .msg_namelen = 2, .msg_iov = &room, .msg_iovlen = 1,
        .msg_control = control, .msg_controllen = sizeof control};
    set(one, SOL_SOCKET, SO_TIMESTAMP, 1);
    await(one, POLLIN);
    SEE(recvmsg(one, &message, MSG_DONTWAIT));
    say("name of %u bytes, the third %x, control of %zu, flags %x", message.msg_namelen == size, name[2], message.msg_controllen, message.msg_flags);
    set(one, SOL_SOCKET, SO_TIMESTAMP, 0);
    message = (struct msghdr){.msg_name = &other, .msg_namelen = size, .msg_iov = NULL, .msg_iovlen = 0};
    SEE(sendmsg(two, &message, 0));
    await(one, POLLIN);
    SEE(recv(one, bytes, 100, MSG_DONTWAIT));
    message = (struct msghdr){.msg_name = &other, .msg_namelen = size, .msg_iov = &room, .msg_iovlen = 2000};
    SEE(sendmsg(two, &message, 0));
    struct { struct cmsghdr header; int value; } asked = {{.cmsg_len = CMSG_LEN(4), .cmsg_level = SOL_SOCKET, .cmsg_type = 999}, 1};
    message = (struct msghdr){.msg_name = &other, .msg_namelen = size, .msg_iov = &room, .msg_iovlen = 1, .msg_control = &asked, .msg_controllen = sizeof asked};
    SEE(sendmsg(two, &message, 0));
    asked.header.cmsg_level = 999;
    SEE(sendmsg(two, &message, 0));
    await(one, POLLIN);
    SEE(recv(one, bytes, 100, MSG_DONTWAIT));
    asked.header.cmsg_len = 1000;
    SEE(sendmsg(two, &message, 0));
    SEE(sendmmsg(two, NULL, 0, 0));
    SEE(recvmmsg(one, NULL, 0, MSG_DONTWAIT, NULL));
    struct timespec wait = {.tv_nsec = 2000000000};
    SEE(recvmmsg(one, NULL, 0, MSG_DONTWAIT, &wait));
    pthread_t later;
    MUST(pthread_create(&later, NULL, send_to_later, &two));
    SEE(recv(one, bytes, 100, MSG_WAITALL));
    pthread_join(later, NULL);
    say("%.5s", bytes);

    topic = "connected datagrams";
    SEE(connect(third, &other.any, size));
    say("local %s", shown(third, getsockname));
    SEE(connect(third, &own.any, size));
    say("peer %s", shown(third, getpeername));
    SEE(sendto(third, "elsewhere", 9, 0, &other.any, size));
    await(one, POLLIN);
    SEE(recv(one, bytes, 100, MSG_DONTWAIT));
    SEE(sendto(third, "here", 4, 0, NULL, 0));
    await(two, POLLIN);
    SEE(recv(two, bytes, 100, MSG_DONTWAIT));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    SEE(connect(third, &none, sizeof none));
    say("local %s", shown(third, getsockname));
    SEE(connect(third, &none, sizeof none));
    SEE(connect(third, NULL, size));
    SEE(connect(third, &other.any, 3));
    SEE(getpeername(third, NULL, NULL));
    SEE(sendto(third, "again", 5, 0, &other.any, size));
    await(one, POLLIN);
    SEE(recv(one, bytes, 100, MSG_DONTWAIT));
    close(third);

    topic = "shared datagram port";
    close(two);
    two = bound(SOCK_DGRAM);
    third = opened(SOCK_DGRAM);
    set(third, SOL_SOCKET, SO_REUSEADDR, 1);
    SEE(bind(third, &own.any, size));
    set(two, SOL_SOCKET, SO_REUSEADDR, 1);
    SEE(bind(third, &own.any, size));
    close(third);
    third = opened(SOCK_DGRAM);
    set(third, SOL_SOCKET, SO_REUSEPORT, 1);
    SEE(bind(third, &own.any, size));
    close(third);

    topic = "cut into datagrams";
    SEE(option(two, IPPROTO_UDP, UDP_SEGMENT));
    SEE_CUT(3000, 1200, 3);
    SEE_CUT(2400, 1200, 2);
    SEE_CUT(1200, 1200, 1);
    SEE_CUT(100, 1200, 1);
    SEE_CUT(0, 1200, 1);
    SEE_CUT(300, 0, 1);
    SEE(send_cut(two, 1290, 10));
    SEE(send_cut(two, 70000, 1400));
    value = 1000;
    SEE(setsockopt(two, IPPROTO_UDP, UDP_SEGMENT, &value, sizeof value));
    SEE(option(two, IPPROTO_UDP, UDP_SEGMENT));
    static char much[3000];
    SEE(sendto(two, much, 2500, 0, &other.any, size));
    see_lengths(one, 3);
    SEE_CUT(2500, 1250, 2);
    MUST(connect(two, &other.any, size));
    SEE(send(two, much, 2001, 0));
    see_lengths(one, 3);
    SEE(write(two, much, 1001));
    see_lengths(one, 2);
    value = -1;
    SEE(setsockopt(two, IPPROTO_UDP, UDP_SEGMENT, &value, sizeof value));
    value = 65536;
    SEE(setsockopt(two, IPPROTO_UDP, UDP_SEGMENT, &value, sizeof value));
    value = 0;
    SEE(setsockopt(two, IPPROTO_UDP, UDP_SEGMENT, &value, sizeof value));
    SEE(send(two, much, 2001, 0));
    see_lengths(one, 1);
    value = 1;
    SEE(setsockopt(one, IPPROTO_UDP, UDP_GRO, &value, sizeof value));
    SEE(option(one, IPPROTO_UDP, UDP_GRO));

    topic = "peeking behind datagrams";
    value = 1;
    SEE(option(one, SOL_SOCKET, SO_PEEK_OFF));
    SEE(setsockopt(one, SOL_SOCKET, SO_PEEK_OFF, &value, sizeof value));
    MUST(send(two, "abcdef", 6, 0));
    await(one, POLLIN);
    SEE(recv(one, bytes, 2, MSG_PEEK));
    say("%.2s, then at %d", bytes, option(one, SOL_SOCKET, SO_PEEK_OFF));
    SEE(recv(one, bytes, 100, MSG_DONTWAIT));
    length = 0;
    SEE(getsockopt(one, SOL_SOCKET, SO_TYPE, &value, &length));
    SEE(length);
    part(one, two);
}
