/* Observations of connections: how they come about, what they carry, and how they end. */

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
    for (count = 0; count < 4; ioctl(server, FIONREAD, &count)) usleep(1000);
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

static void *dissolve_later(void *fd) {
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    usleep(100000);
    connect(*(int *)fd, &none, sizeof none);
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
    listener = listening(3);
    MUST(pthread_create(&thread, NULL, dissolve_later, &listener));
    SEE(accept(listener, NULL, NULL));
    pthread_join(thread, NULL);
    close(listener);
    int udp = bound(SOCK_DGRAM);
    MUST(pthread_create(&thread, NULL, shut_later, &udp));
    SEE(recv(udp, &byte, 1, 0));
    pthread_join(thread, NULL);
    close(udp);
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
