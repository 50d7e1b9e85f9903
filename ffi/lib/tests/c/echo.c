// An echo server and its client, with threads; half close; the addresses that both see; options.
#include "common.h"
#include <netinet/tcp.h>
#include <sys/ioctl.h>

static void *serve(void *listener) {
    struct sockaddr_in6 peer;
    socklen_t length = sizeof peer;
    char buf[8192];
    ssize_t got;
    int fd = peersock_accept(*(int *)listener, (struct sockaddr *)&peer, &length);
    CHECK(fd >= 0 && length == sizeof peer && peer.sin6_family == AF_INET6);
    struct sockaddr_in6 expected = address_of(PEERSOCK_DEFAULT, 0);
    CHECK(memcmp(&peer.sin6_addr, &expected.sin6_addr, sizeof peer.sin6_addr) == 0);
    while ((got = read(fd, buf, sizeof buf)) > 0) write_all(fd, buf, (size_t)got);
    CHECK(got == 0);
    CHECK(close(fd) == 0);
    return NULL;
}

static void *write_much(void *fd) {
    static char data[1 << 20];
    memset(data, 'x', sizeof data);
    write_all(*(int *)fd, data, sizeof data);
    CHECK(peersock_shutdown(*(int *)fd, SHUT_WR) == 0);
    return NULL;
}

int main(void) {
    peersock_node other = start_pair();
    int listener = listen_on(other, 7000);
    pthread_t server, writer;
    CHECK(pthread_create(&server, NULL, serve, &listener) == 0);
    struct sockaddr_in6 to = address_of(other, 7000), peer, own;
    int fd = connect_to(to);

    socklen_t length = sizeof peer;
    CHECK(peersock_getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && length == sizeof peer);
    CHECK(memcmp(&peer.sin6_addr, &to.sin6_addr, 16) == 0 && peer.sin6_port == htons(7000));
    length = sizeof own;
    CHECK(peersock_getsockname(fd, (struct sockaddr *)&own, &length) == 0 && own.sin6_port != 0);

    int value = 1, available = 0;
    CHECK(peersock_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value) == 0);
    value = 0;
    length = sizeof value;
    CHECK(peersock_getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &length) == 0 && value == 1 && length == 4);
    CHECK(peersock_getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length) == 0 && value == SOCK_STREAM);

    CHECK(peersock_send(fd, "hello", 5, MSG_NOSIGNAL) == 5);
    char buf[8192] = "";
    CHECK(wait_for(fd, POLLIN) == POLLIN);
    CHECK(ioctl(fd, FIONREAD, &available) == 0 && available > 0);
    CHECK(peersock_recv(fd, buf, 5, MSG_PEEK | MSG_WAITALL) == 5 && memcmp(buf, "hello", 5) == 0);
    struct iovec pieces[2] = {{buf + 10, 2}, {buf + 20, 3}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    CHECK(peersock_recvmsg(fd, &message, MSG_WAITALL) == 5);
    CHECK(memcmp(buf + 10, "he", 2) == 0 && memcmp(buf + 20, "llo", 3) == 0);

    CHECK(pthread_create(&writer, NULL, write_much, &fd) == 0);
    size_t all = 0;
    for (ssize_t got; (got = peersock_recv(fd, buf, sizeof buf, 0)) != 0; all += (size_t)got) CHECK(got > 0);
    CHECK(all == 1 << 20);
    CHECK(pthread_join(writer, NULL) == 0 && pthread_join(server, NULL) == 0);
    CHECK(peersock_close(fd) == 0 && peersock_close(listener) == 0);
    CHECK(peersock_stop(other, 5000) == PEERSOCK_OK);
    puts("ok");
    return 0;
}
