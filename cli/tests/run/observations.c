/* What a program observes of sockets, one line each: observations ADDRESS, an own address of the machine's
 * network or of the overlay. What is printed does not depend on chance: where something takes time, it is
 * waited for. */
#include "observations.h"
#include "attempts.h"
#include "edges.h"
#include "extension_headers.h"
#include "wait_all.h"

static void openings(void) {
    topic = "socket";
    int domain = own.any.sa_family;
    SEE_FD(socket(domain, SOCK_STREAM, 0));
    SEE_FD(socket(domain, SOCK_STREAM, IPPROTO_TCP));
    SEE_FD(socket(domain, SOCK_STREAM, IPPROTO_UDP));
    SEE_FD(socket(domain, SOCK_DGRAM, IPPROTO_UDP));
    SEE_FD(socket(domain, SOCK_DGRAM, IPPROTO_TCP));
    SEE_FD(socket(domain, SOCK_RDM, 0));
    SEE_FD(socket(domain, 77, 0));
    SEE_FD(socket(domain, SOCK_STREAM, 300));
    int fd = opened(SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK);
    SEE(fcntl(fd, F_GETFD));
    SEE(fcntl(fd, F_GETFL) & O_NONBLOCK);
    SEE(fcntl(fd, F_GETFL) & O_ACCMODE);
    struct stat stat;
    SEE(fstat(fd, &stat));
    SEE(S_ISSOCK(stat.st_mode));
    SEE(lseek(fd, 0, SEEK_SET));
    SEE(isatty(fd));
    close(fd);
    SEE(getsockname(fd, NULL, NULL));
    SEE(listen(fd, 1));
}

static void basics(const char *name, int fd) {
    char byte;
    topic = name;
    say("local %s", shown(fd, getsockname));
    say("peer %s", shown(fd, getpeername));
    SEE(option(fd, SOL_SOCKET, SO_TYPE));
    SEE(option(fd, SOL_SOCKET, SO_DOMAIN) == own.any.sa_family);
    SEE(option(fd, SOL_SOCKET, SO_PROTOCOL));
    SEE(option(fd, SOL_SOCKET, SO_ACCEPTCONN));
    SEE(option(fd, SOL_SOCKET, SO_ERROR));
    SEE(recv(fd, &byte, 1, MSG_DONTWAIT));
    SEE(send(fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL));
    SEE(accept4(fd, NULL, NULL, SOCK_NONBLOCK));
    POLL(fd, 0);
}

static void binding(void) {
    int fd = bound(SOCK_STREAM);
    basics("bound stream", fd);
    SEE(shutdown(fd, SHUT_WR));
    SEE(bind(fd, &own.any, size));
    int second = opened(SOCK_STREAM);
    SEE(bind(second, &own.any, size));
    set(second, SOL_SOCKET, SO_REUSEADDR, 1);
    SEE(bind(second, &own.any, size));
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    SEE(bind(second, &own.any, size));
    close(second);
    second = opened(SOCK_STREAM);
    SEE(bind(second, &own.any, 4));
    SEE(bind(second, &own.any, 400));
    SEE(bind(second, NULL, size));
    other = own;
    other.any.sa_family = AF_UNIX;
    SEE(bind(second, &other.any, size));
    close(second);
    close(fd);
    fd = bound(SOCK_STREAM);
    second = opened(SOCK_STREAM);
    SEE(listen(fd, 4));
    set(second, SOL_SOCKET, SO_REUSEADDR, 1);
    SEE(bind(second, &own.any, size));
    close(second);
    close(fd);
}

static void listeners(void) {
    int fd = listening(4);
    block(fd, 0);
    basics("listener", fd);
    SEE(listen(fd, 8));
    SEE(listen(fd, -1));
    SEE(connect(fd, &own.any, size));
    SEE(bind(fd, &own.any, size));
    SEE(option(fd, IPPROTO_TCP, TCP_MAXSEG) > 0);
    struct tcp_info info;
    socklen_t length = sizeof info;
    SEE(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
    SEE(info.tcpi_state);
    SEE(accept4(fd, NULL, NULL, 0x40000000));
    int client = opened(SOCK_STREAM);
    MUST(connect(client, &own.any, size));
    POLL(fd, POLLIN);
    union { struct sockaddr any; char bytes[200]; } from;
    length = 200;
    int server = MUST(accept4(fd, &from.any, &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    say("accept tells %u bytes of family %d", length, from.any.sa_family == own.any.sa_family);
    SEE(fcntl(server, F_GETFL) & O_NONBLOCK);
    SEE(fcntl(server, F_GETFD));
    part(server, client);
    client = opened(SOCK_STREAM);
    MUST(connect(client, &own.any, size));
    await(fd, POLLIN);
    length = 5;
    memset(&from, 0x55, sizeof from);
    server = MUST(accept(fd, &from.any, &length));
    say("accept with room for 5 bytes tells %u, the 6th is %x", length, (unsigned char)from.bytes[5]);
    SEE(fcntl(server, F_GETFL) & O_NONBLOCK);
    part(server, client);
    SEE(shutdown(fd, SHUT_RD));
    POLL(fd, POLLHUP);
    SEE(accept(fd, NULL, NULL));
    for (int seen = 0; seen < 2; seen++) {
        client = opened(SOCK_STREAM);
        SEE(connect(client, &own.any, size));
        close(client);
    }
    say("local %s", shown(fd, getsockname));
    SEE(option(fd, SOL_SOCKET, SO_ACCEPTCONN));
    SEE(fcntl(fd, F_GETFL) & O_NONBLOCK);
    SEE(listen(fd, 2));
    /* Linux chooses another port where it has chosen the first. */
    length = sizeof own;
    MUST(getsockname(fd, &own.any, &length));
    client = opened(SOCK_STREAM);
    SEE(connect(client, &own.any, size));
    POLL(fd, POLLIN);
    server = MUST(accept(fd, NULL, NULL));
    SEE(shutdown(fd, SHUT_RDWR));
    SEE(send(client, "x", 1, MSG_NOSIGNAL));
    await(server, POLLIN);
    char byte;
    SEE(recv(server, &byte, 1, 0));
    part(server, client);
    SEE(listen(fd, 2));
    /* Linux chooses another port where it has chosen the first. */
    length = sizeof own;
    MUST(getsockname(fd, &own.any, &length));
    client = opened(SOCK_STREAM);
    SEE(connect(client, &own.any, size));
    SEE(shutdown(fd, SHUT_RD));
    POLL(client, POLLIN | POLLHUP);
    SEE(recv(client, &byte, 1, MSG_DONTWAIT));
    part(fd, client);
    topic = "closed listener";
    fd = listening(4);
    client = opened(SOCK_STREAM);
    MUST(connect(client, &own.any, size));
    close(fd);
    POLL(client, POLLIN | POLLHUP);
    SEE(recv(client, &byte, 1, MSG_DONTWAIT));
    close(client);
    topic = "reset before accept";
    struct linger linger = {1, 0};
    fd = listening(4);
    for (int with = 0; with < 4; with++) {
        client = opened(SOCK_STREAM);
        MUST(connect(client, &own.any, size));
        if (with) MUST(send(client, "said", 4, 0));
        MUST(setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
        await(fd, POLLIN);
        usleep(50000);
        close(client);
        usleep(with == 3 ? 2500000 : 100000);
        char bytes[10];
        server = MUST(accept(fd, NULL, NULL));
        POLL(server, POLLERR | POLLHUP);
        if (with == 2) SEE(option(server, SOL_SOCKET, SO_ERROR));
        SEE(recv(server, bytes, 10, 0));
        SEE(recv(server, bytes, 10, 0));
        SEE(recv(server, bytes, 10, 0));
        SEE(send(server, "x", 1, MSG_NOSIGNAL));
        close(server);
    }
    close(fd);
}

static void inheriting(void) {
    topic = "accepted";
    int fd = listening(4), client = opened(SOCK_STREAM);
    struct timeval time = {.tv_sec = 7};
    struct linger linger = {1, 3};
    MUST(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    time.tv_sec = 8;
    MUST(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time));
    MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    set(fd, SOL_SOCKET, SO_RCVLOWAT, 3);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    set(fd, SOL_SOCKET, SO_PRIORITY, 5);
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 78);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 9);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 7900);
    set(fd, IPPROTO_TCP, TCP_QUICKACK, 0);
    set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4096);
    if (own.any.sa_family == AF_INET6) set(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 33);
    else set(fd, IPPROTO_IP, IP_TTL, 33);
    MUST(connect(client, &own.any, size));
    int server = MUST(accept(fd, NULL, NULL));
    socklen_t length = sizeof time;
    MUST(getsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &time, &length));
    SEE(time.tv_sec);
    MUST(getsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &time, &length));
    SEE(time.tv_sec);
    length = sizeof linger;
    MUST(getsockopt(server, SOL_SOCKET, SO_LINGER, &linger, &length));
    say("linger %d, %d s", linger.l_onoff, linger.l_linger);
    SEE(option(server, SOL_SOCKET, SO_RCVLOWAT));
    SEE(option(server, SOL_SOCKET, SO_KEEPALIVE));
    SEE(option(server, SOL_SOCKET, SO_OOBINLINE));
    SEE(option(server, SOL_SOCKET, SO_PRIORITY));
    SEE(option(server, SOL_SOCKET, SO_REUSEADDR));
    SEE(option(server, IPPROTO_TCP, TCP_NODELAY));
    SEE(option(server, IPPROTO_TCP, TCP_KEEPIDLE));
    SEE(option(server, IPPROTO_TCP, TCP_KEEPINTVL));
    SEE(option(server, IPPROTO_TCP, TCP_KEEPCNT));
    SEE(option(server, IPPROTO_TCP, TCP_USER_TIMEOUT));
    SEE(option(server, IPPROTO_TCP, TCP_NOTSENT_LOWAT));
    if (own.any.sa_family == AF_INET6) SEE(option(server, IPPROTO_IPV6, IPV6_UNICAST_HOPS));
    else SEE(option(server, IPPROTO_IP, IP_TTL));
    linger.l_onoff = 0;
    MUST(setsockopt(server, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    close(fd);
    part(client, server);
}

static void refused(void) {
    char byte;
    topic = "refused connect";
    at_nobody(SOCK_STREAM);
    int fd = opened(SOCK_STREAM);
    SEE(connect(fd, &other.any, size));
    POLL(fd, POLLHUP);
    SEE(option(fd, SOL_SOCKET, SO_ERROR));
    SEE(recv(fd, &byte, 1, MSG_DONTWAIT));
    SEE(send(fd, "x", 1, MSG_NOSIGNAL));
    say("peer %s", shown(fd, getpeername));
    SEE(connect(fd, &other.any, size));
    close(fd);
    topic = "refused connect without waiting";
    for (int first = 0; first < 3; first++) {
        fd = opened(SOCK_STREAM | SOCK_NONBLOCK);
        SEE(connect(fd, &other.any, size));
        POLL(fd, POLLERR | POLLHUP | POLLOUT | POLLIN);
        if (first == 1) SEE(recv(fd, &byte, 1, 0));
        if (first == 2) SEE(send(fd, "x", 1, MSG_NOSIGNAL));
        SEE(option(fd, SOL_SOCKET, SO_ERROR));
        SEE(option(fd, SOL_SOCKET, SO_ERROR));
        SEE(recv(fd, &byte, 1, 0));
        SEE(send(fd, "x", 1, MSG_NOSIGNAL));
        close(fd);
    }
    topic = "connect";
    fd = opened(SOCK_STREAM);
    SEE(connect(fd, &own.any, 3));
    SEE(connect(fd, NULL, size));
    other = own;
    set_port(0);
    SEE(connect(fd, &other.any, size));
    close(fd);
}

static void connected(void) {
    int client, server;
    pair(&client, &server);
    basics("connected", client);
    await(server, POLLIN);
    char bytes[100];
    SEE(recv(server, bytes, 100, 0));
    SEE(connect(client, &own.any, size));
    SEE(bind(client, &own.any, size));
    SEE(listen(client, 3));
    POLL(client, POLLOUT);
    POLL(server, POLLOUT);
    SEE(option(client, IPPROTO_TCP, TCP_NODELAY));
    struct tcp_info info;
    socklen_t length = sizeof info;
    SEE(getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &length));
    SEE(info.tcpi_state);
    part(client, server);

    topic = "connect without waiting";
    int listener = listening(4);
    client = opened(SOCK_STREAM | SOCK_NONBLOCK);
    SEE(connect(client, &own.any, size));
    POLL(client, POLLOUT);
    SEE(option(client, SOL_SOCKET, SO_ERROR));
    say("peer %s", shown(client, getpeername));
    server = MUST(accept(listener, NULL, NULL));
    SEE(send(client, "hello", 5, 0));
    POLL(server, POLLIN | POLLOUT);
    part(client, server);
    topic = "connect to AF_UNSPEC";
    client = opened(SOCK_STREAM);
    MUST(connect(client, &own.any, size));
    server = MUST(accept(listener, NULL, NULL));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    SEE(connect(client, &none, sizeof none));
    say("peer %s", shown(client, getpeername));
    POLL(server, POLLIN | POLLERR | POLLHUP);
    SEE(option(server, SOL_SOCKET, SO_ERROR));
    close(server);
    SEE(option(client, SOL_SOCKET, SO_ERROR));
    SEE(connect(client, &none, sizeof none));
    SEE(connect(client, &own.any, size));
    server = MUST(accept(listener, NULL, NULL));
    SEE(send(client, "again", 5, 0));
    await(server, POLLIN);
    char again[10];
    SEE(recv(server, again, 10, 0));
    part(client, server);
    SEE(connect(listener, &none, sizeof none));
    client = opened(SOCK_STREAM);
    SEE(connect(client, &own.any, size));
    part(client, listener);
}

static void moving(void) {
    int client, server, count;
    char bytes[100] = "", more[100];
    pair(&client, &server);
    topic = "data";
    SEE(recv(server, bytes, 100, MSG_DONTWAIT));
    SEE(send(client, "", 0, 0));
    SEE(write(client, "abcdefgh", 8));
    POLL(server, POLLIN);
    SEE(recv(server, bytes, 3, MSG_PEEK));
    SEE(ioctl(server, FIONREAD, &count));
    SEE(count);
    SEE(recv(server, bytes, 0, 0));
    SEE(recv(server, bytes, 3, 0));
    say("%.3s", bytes);
    SEE(recv(server, bytes, 2, MSG_TRUNC));
    SEE(recv(server, NULL, 2, MSG_TRUNC));
    SEE(recv(server, NULL, 1, 0));
    SEE(read(server, bytes, 100));
    say("%.1s", bytes);
    SEE(recv(server, bytes, 1, MSG_DONTWAIT));
    SEE(recv(server, bytes, 1, MSG_DONTWAIT | MSG_PEEK));
    SEE(recv(server, bytes, 1, MSG_OOB | MSG_DONTWAIT));
    SEE(recv(server, bytes, 1, MSG_ERRQUEUE | MSG_DONTWAIT));
    SEE(send(client, NULL, 5, 0));
    SEE(send(client, NULL, 0, 0));
    struct iovec parts[3] = {{"one", 3}, {NULL, 0}, {"two", 3}}, room[2] = {{bytes, 4}, {more, 90}};
    SEE(writev(client, parts, 3));
    for (count = 0; count < 6 && await(server, POLLIN) & POLLIN; ioctl(server, FIONREAD, &count)) usleep(1000);
    SEE(readv(server, room, 2));
    struct sockaddr_storage from;
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    SEE(sendmsg(client, &message, 0));
    message = (struct msghdr){.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = room, .msg_iovlen = 2, .msg_flags = 77};
    await(server, POLLIN);
    SEE(recvmsg(server, &message, MSG_WAITALL | MSG_DONTWAIT));
    say("name of %u bytes, flags %x, control of %zu", message.msg_namelen, message.msg_flags, message.msg_controllen);
    message = (struct msghdr){.msg_iov = parts, .msg_iovlen = 2000};
    SEE(sendmsg(client, &message, 0));
    SEE(sendto(client, "to", 2, 0, &own.any, size));
    await(server, POLLIN);
    SEE(recvfrom(server, bytes, 100, 0, (struct sockaddr *)&from, &(socklen_t){sizeof from}));
    SEE(send(client, "x", 1, MSG_MORE));
    SEE(send(client, "y", 1, MSG_EOR));
    for (count = 0; count < 2; ioctl(server, FIONREAD, &count)) usleep(1000);
    SEE(recv(server, bytes, 2, MSG_WAITALL));
    pthread_t later;
    MUST(send(client, "ab", 2, 0));
    MUST(pthread_create(&later, NULL, send_later, &client));
    SEE(recv(server, bytes, 4, MSG_PEEK | MSG_WAITALL));
    pthread_join(later, NULL);
    say("%.4s", bytes);
    SEE(recv(server, bytes, 2, 0));
    MUST(pthread_create(&later, NULL, send_later, &client));
    message = (struct msghdr){.msg_iov = room, .msg_iovlen = 1};
    SEE(recvmsg(server, &message, MSG_PEEK | MSG_WAITALL));
    pthread_join(later, NULL);
    SEE(recv(server, bytes, 100, 0));
    struct mmsghdr many[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = parts + 2, .msg_iovlen = 1}}};
    SEE(sendmmsg(client, many, 2, 0));
    for (count = 0; count < 6; ioctl(server, FIONREAD, &count)) usleep(1000);
    SEE(recv(server, bytes, 100, 0));
    int pipes[2];
    MUST(pipe(pipes));
    MUST(write(pipes[1], "spliced", 7));
    SEE(splice(pipes[0], NULL, client, NULL, 7, 0));
    for (count = 0; count < 7; ioctl(server, FIONREAD, &count)) usleep(1000);
    SEE(splice(server, NULL, pipes[1], NULL, 7, 0));
    SEE(read(pipes[0], bytes, 100));
    part(pipes[0], pipes[1]);
    int file = MUST(open("/proc/self/exe", O_RDONLY));
    off_t at = 1;
    SEE(sendfile(client, file, &at, 3));
    await(server, POLLIN);
    SEE(recv(server, bytes, 100, 0));
    say("%.3s", bytes);
    close(file);
    int copy = MUST(dup(server));
    SEE(send(client, "dup", 3, 0));
    await(copy, POLLIN);
    SEE(recv(copy, bytes, 100, 0));
    close(copy);
    POLL(server, POLLOUT);
    int on = 1;
    SEE(ioctl(server, FIONBIO, &on));
    SEE(read(server, bytes, 1));
    SEE(fcntl(server, F_GETFL) & O_NONBLOCK);
    part(client, server);

    topic = "receive time";
    pair(&client, &server);
    struct timeval time = {.tv_usec = 50000};
    MUST(setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    SEE(recv(server, bytes, 1, 0));
    SEE(read(server, bytes, 1));
    set(server, SOL_SOCKET, SO_RCVLOWAT, 4);
    MUST(send(client, "abc", 3, 0));
    for (count = 0; count < 3; ioctl(server, FIONREAD, &count)) usleep(1000);
    POLL(server, 0);
    MUST(send(client, "d", 1, 0));
    POLL(server, POLLIN);
    part(client, server);

    topic = "full";
    pair(&client, &server);
    block(client, 0);
    static char chunk[65536];
    for (int quiet = 0; quiet < 40; quiet++) {
        while (send(client, chunk, sizeof chunk, 0) > 0) quiet = 0;
        usleep(5000);
    }
    while (send(client, chunk, 1, 0) == 1) continue;
    SEE(send(client, chunk, 1, 0));
    POLL(client, 0);
    long taken = 0, got;
    while (taken < 1 << 19 && (got = recv(server, chunk, sizeof chunk, 0)) > 0) taken += got;
    while ((got = recv(server, chunk, sizeof chunk, MSG_DONTWAIT)) > 0 || !(look(client) & POLLOUT)) usleep(got > 0 ? 0 : 1000);
    POLL(client, POLLOUT);
    part(client, server);
}

static void endings(void) {
    int client, server;
    char bytes[100];
    topic = "half closed";
    pair(&client, &server);
    MUST(send(client, "last", 4, 0));
    SEE(shutdown(client, 77));
    SEE(shutdown(client, SHUT_WR));
    POLL(server, POLLIN | POLLRDHUP);
    SEE(recv(server, bytes, 100, MSG_WAITALL));
    SEE(recv(server, bytes, 100, 0));
    SEE(recv(server, bytes, 100, MSG_DONTWAIT));
    POLL(client, POLLOUT);
    SEE(send(client, "x", 1, MSG_NOSIGNAL));
    SEE(shutdown(client, SHUT_WR));
    SEE(send(server, "back", 4, MSG_NOSIGNAL));
    POLL(client, POLLIN);
    SEE(recv(client, bytes, 100, 0));
    SEE(shutdown(server, SHUT_WR));
    POLL(client, POLLIN | POLLRDHUP | POLLHUP);
    POLL(server, POLLIN | POLLRDHUP | POLLHUP);
    SEE(recv(client, bytes, 100, 0));
    SEE(recv(server, bytes, 100, 0));
    SEE(option(client, SOL_SOCKET, SO_ERROR));
    say("peer %s", shown(client, getpeername));
    part(client, server);

    topic = "reads no more";
    pair(&client, &server);
    SEE(shutdown(client, SHUT_RD));
    POLL(client, POLLIN | POLLRDHUP);
    SEE(recv(client, bytes, 100, 0));
    SEE(send(server, "late", 4, MSG_NOSIGNAL));
    SEE(recv(client, bytes, 100, 0));
    SEE(send(client, "still", 5, MSG_NOSIGNAL));
    await(server, POLLIN);
    SEE(recv(server, bytes, 100, 0));
    part(client, server);

    topic = "closed";
    pair(&client, &server);
    MUST(send(client, "end", 3, 0));
    close(client);
    POLL(server, POLLIN | POLLRDHUP);
    SEE(recv(server, bytes, 100, MSG_WAITALL));
    SEE(recv(server, bytes, 100, 0));
    SEE(send(server, "x", 1, MSG_NOSIGNAL));
    POLL(server, POLLIN | POLLRDHUP | POLLERR | POLLHUP);
    SEE(option(server, SOL_SOCKET, SO_ERROR));
    SEE(send(server, "x", 1, MSG_NOSIGNAL));
    SEE(recv(server, bytes, 100, 0));
    close(server);

    topic = "reset";
    for (int first = 0; first < 3; first++) {
        server = reset_after("lost?");
        POLL(server, POLLIN | POLLERR | POLLHUP | POLLRDHUP);
        if (first == 0) SEE(option(server, SOL_SOCKET, SO_ERROR));
        if (first == 1) SEE(send(server, "x", 1, MSG_NOSIGNAL));
        SEE(recv(server, bytes, 100, 0));
        SEE(recv(server, bytes, 100, 0));
        SEE(send(server, "x", 1, MSG_NOSIGNAL));
        SEE(option(server, SOL_SOCKET, SO_ERROR));
        SEE(shutdown(server, SHUT_RDWR));
        close(server);
    }
    topic = "closed unread";
    pair(&client, &server);
    MUST(send(server, "unread", 6, 0));
    await(client, POLLIN);
    close(client);
    POLL(server, POLLIN | POLLERR | POLLHUP | POLLRDHUP);
    SEE(recv(server, bytes, 100, 0));
    close(server);

    topic = "epoll";
    pair(&client, &server);
    int epoll = MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    SEE(epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event));
    SEE(epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event));
    SEE(epoll_wait(epoll, &event, 1, PATIENCE));
    say("at first %s", events_of(event.events));
    SEE(epoll_wait(epoll, &event, 1, 50));
    MUST(send(client, "x", 1, 0));
    SEE(epoll_wait(epoll, &event, 1, PATIENCE));
    say("data %s", events_of(event.events));
    MUST(shutdown(client, SHUT_WR));
    for (int seen = 0; !(seen & EPOLLRDHUP) && epoll_wait(epoll, &event, 1, PATIENCE) == 1;) seen |= event.events;
    say("end %s", events_of(event.events));
    close(epoll);
    part(client, server);
}

static void *shut_later(void *fd) {
    usleep(100000);
    shutdown(*(int *)fd, SHUT_RDWR);
    return NULL;
}

static void waking(void) {
    char byte;
    int client, server;
    pthread_t thread;
    topic = "shutdown by another thread";
    pair(&client, &server);
    MUST(pthread_create(&thread, NULL, shut_later, &server));
    SEE(recv(server, &byte, 1, 0));
    pthread_join(thread, NULL);
    part(client, server);
    int listener = listening(3);
    MUST(pthread_create(&thread, NULL, shut_later, &listener));
    SEE(accept(listener, NULL, NULL));
    pthread_join(thread, NULL);
    close(listener);
    int udp = bound(SOCK_DGRAM);
    MUST(pthread_create(&thread, NULL, shut_later, &udp));
    SEE(recv(udp, &byte, 1, 0));
    pthread_join(thread, NULL);
    close(udp);
}

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
            MUST(sendto(server, "back", 4, 0, &own.any, size));
            SEE(received(client));
            say("local %s", shown(client, getsockname));
            part(client, server);
        }
}

static void backlogs(void) {
    static const int all[] = {0, 1, 3, -1};
    topic = "backlog";
    for (unsigned at = 0; at < sizeof all / sizeof *all; at++) {
        int listener = listening(all[at]), clients[8], stand = 0;
        for (int i = 0; i < 8; i++) {
            clients[i] = opened(SOCK_STREAM | SOCK_NONBLOCK);
            connect(clients[i], &own.any, size);
        }
        usleep(300000);
        for (int i = 0; i < 8; i++) stand += look(clients[i]) == POLLOUT;
        say("%d of 8 stand with %d", stand, all[at]);
        for (int i = 0; i < 8; i++) close(clients[i]);
        close(listener);
    }
}

static void elsewhere(void) {
    topic = "address of the other family";
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = bound(SOCK_STREAM);
    if (own.any.sa_family == AF_INET6) SEE(connect(fd, (struct sockaddr *)&v4, sizeof v4));
    else SEE(connect(fd, (struct sockaddr *)&v6, sizeof v6));
    close(fd);
    topic = "connect to no address in particular";
    int listener = listening(4);
    other = own;
    if (own.any.sa_family == AF_INET6) memset(&other.v6.sin6_addr, 0, sizeof other.v6.sin6_addr);
    else other.v4.sin_addr.s_addr = 0;
    fd = bound(SOCK_STREAM);
    SEE(connect(fd, &other.any, size));
    say("peer %s", shown(fd, getpeername));
    POLL(listener, POLLIN);
    part(fd, listener);
}

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

static void forking(void) {
    topic = "forked";
    int client, server;
    char bytes[100];
    pair(&client, &server);
    fflush(stdout);
    pid_t child = MUST(fork());
    if (child == 0) {
        close(client);
        int length = read(server, bytes, 100);
        _exit(write(server, bytes, length) == length ? 0 : 1);
    }
    close(server);
    SEE(send(client, "child", 5, 0));
    SEE(recv(client, bytes, 5, MSG_WAITALL));
    int status;
    MUST(waitpid(child, &status, 0));
    SEE(status);
    SEE(recv(client, bytes, 5, 0));
    close(client);
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    signal(SIGPIPE, SIG_IGN);
    alarm(120);
    if (inet_pton(AF_INET6, arguments[1], &own.v6.sin6_addr) == 1) own.any.sa_family = AF_INET6, size = sizeof own.v6;
    else if (inet_pton(AF_INET, arguments[1], &own.v4.sin_addr) == 1) own.any.sa_family = AF_INET, size = sizeof own.v4;
    else return 2;
    openings();
    binding();
    listeners();
    inheriting();
    refused();
    attempts();
    connected();
    moving();
    endings();
    wait_all();
    waking();
    datagrams();
    shut_datagrams();
    backlogs();
    elsewhere();
    extension_headers();
    stream_edges();
    datagram_edges();
    all_options(SOCK_STREAM);
    all_options(SOCK_DGRAM);
    forking();
    return 0;
}
