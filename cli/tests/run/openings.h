/* Observations of sockets before they are connected: opened, bound, and at addresses of the other family. */

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
