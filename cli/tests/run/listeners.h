/* Observations of listeners, and of what is accepted. */

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

static int standing(const int *clients, int count) {
    int stand = 0;
    for (int i = 0; i < count; i++) stand += look(clients[i]) == POLLOUT;
    return stand;
}

static void backlogs(void) {
    static const int all[] = {0, 1, 3, -1};
    topic = "backlog";
    for (unsigned at = 0; at < sizeof all / sizeof *all; at++) {
        int listener = listening(all[at]), clients[8], places = all[at] < 0 ? 8 : all[at] + 1;
        for (int i = 0; i < 8; i++) {
            clients[i] = opened(SOCK_STREAM | SOCK_NONBLOCK);
            connect(clients[i], &own.any, size);
        }
        for (int waited = 0; waited < PATIENCE && standing(clients, 8) < places; waited += 5) usleep(5000);
        /* In which more would come, if there were room. */
        usleep(100000);
        say("%d of 8 stand with %d", standing(clients, 8), all[at]);
        for (int i = 0; i < 8; i++) close(clients[i]);
        close(listener);
    }
}
