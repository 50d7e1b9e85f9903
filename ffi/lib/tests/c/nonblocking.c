// A client that never blocks: EINPROGRESS, writability, SO_ERROR, EAGAIN, select, and back-pressure.
#include "common.h"
#include <sys/select.h>

static int start_connecting(struct sockaddr_in6 to) {
    int fd = peersock_socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    CHECK(peersock_connect(fd, (struct sockaddr *)&to, sizeof to) == -1 && errno == EINPROGRESS);
    return fd;
}

static int error_of(int fd) {
    int error = -1;
    socklen_t length = sizeof error;
    CHECK(peersock_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && length == sizeof error);
    return error;
}

int main(void) {
    peersock_node other = start_pair();
    int listener = listen_on(other, 7000);
    CHECK(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
    CHECK(peersock_accept(listener, NULL, NULL) == -1 && errno == EAGAIN);

    int refused = start_connecting(address_of(other, 7001));
    CHECK(wait_for(refused, POLLOUT) & POLLOUT);
    CHECK(error_of(refused) == ECONNREFUSED);
    CHECK(close(refused) == 0);

    int fd = start_connecting(address_of(other, 7000));
    fd_set writable;
    FD_ZERO(&writable);
    FD_SET(fd, &writable);
    CHECK(select(fd + 1, NULL, &writable, NULL, NULL) == 1);
    CHECK(error_of(fd) == 0);
    char buf[65536];
    memset(buf, 'x', sizeof buf);
    CHECK(peersock_recv(fd, buf, sizeof buf, 0) == -1 && errno == EAGAIN);

    CHECK(wait_for(listener, POLLIN) == POLLIN);
    int accepted = peersock_accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(accepted >= 0);
    size_t sent = 0, received = 0;
    for (ssize_t n; (n = write(fd, buf, sizeof buf)) >= 0;) sent += (size_t)n;
    CHECK(errno == EAGAIN && sent > 0);
    while (received < sent) {
        CHECK(wait_for(accepted, POLLIN) == POLLIN);
        ssize_t n = read(accepted, buf, sizeof buf);
        CHECK(n > 0);
        received += (size_t)n;
    }
    CHECK(wait_for(fd, POLLOUT) == POLLOUT);
    CHECK(close(accepted) == 0);
    CHECK(wait_for(fd, POLLIN) & POLLIN);
    CHECK(read(fd, buf, 1) == 0);
    CHECK(close(fd) == 0 && close(listener) == 0);
    puts("ok");
    return 0;
}
