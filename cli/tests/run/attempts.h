/* Observations of sockets that connect more than once. */

static void attempts(void) {
    topic = "connect again";
    at_nobody(SOCK_STREAM);
    int fd = opened(SOCK_STREAM | SOCK_NONBLOCK);
    SEE(connect(fd, &other.any, size));
    POLL(fd, POLLERR | POLLHUP | POLLOUT | POLLIN);
    SEE(option(fd, SOL_SOCKET, SO_ERROR));
    block(fd, 1);
    int listener = listening(4);
    SEE(connect(fd, &own.any, size));
    SEE(send(fd, "x", 1, MSG_NOSIGNAL));
    SEE(connect(fd, &own.any, size));
    SEE(send(fd, "x", 1, MSG_NOSIGNAL));
    part(fd, listener);
    topic = "connect until it says why";
    at_nobody(SOCK_STREAM);
    fd = opened(SOCK_STREAM | SOCK_NONBLOCK);
    SEE(connect(fd, &other.any, size));
    for (int tries = 0; tries < 1000 && (connect(fd, &other.any, size), errno == EALREADY); tries++) usleep(2000);
    say("then %s", name_of(errno));
    SEE(option(fd, SOL_SOCKET, SO_ERROR));
    SEE(connect(fd, &other.any, size));
    POLL(fd, POLLERR | POLLHUP | POLLOUT | POLLIN);
    SEE(option(fd, SOL_SOCKET, SO_ERROR));
    close(fd);
    topic = "connect again, bound and shared";
    fd = bound(SOCK_STREAM);
    block(fd, 0);
    SEE(connect(fd, &other.any, size));
    POLL(fd, POLLERR | POLLHUP | POLLOUT | POLLIN);
    struct epoll_event event = {.events = EPOLLIN}, told[9];
    int epoll = MUST(epoll_create1(0)), ends[2];
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    MUST(pipe(ends));
    pid_t child = MUST(fork());
    if (child == 0) {
        close(ends[1]);
        _exit(read(ends[0], ends, 1) ? 1 : 0);
    }
    SEE(connect(fd, &other.any, size));
    say("local %s", shown(fd, getsockname));
    SEE(epoll_wait(epoll, told, 9, PATIENCE));
    SEE(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &event));
    SEE(epoll_wait(epoll, told, 9, 50));
    part(ends[0], ends[1]);
    waitpid(child, NULL, 0);
    part(fd, epoll);
    topic = "connect told once";
    listener = listening(4);
    fd = opened(SOCK_STREAM | SOCK_NONBLOCK);
    SEE(connect(fd, &own.any, size));
    POLL(fd, POLLOUT);
    SEE(connect(fd, &own.any, size));
    SEE(connect(fd, &own.any, size));
    part(fd, listener);
}
