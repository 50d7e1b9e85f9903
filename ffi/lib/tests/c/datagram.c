// Datagrams: to anybody, connected, empty, cut, in pieces; who sent them; beside streams in one poll.
#include "common.h"

static int open_datagram(peersock_node node, uint16_t port) {
    struct sockaddr_in6 address = address_of(node, port);
    int fd = peersock_node_socket(node, AF_INET6, SOCK_DGRAM, 0);
    CHECK(fd >= 0 && peersock_bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

int main(void) {
    peersock_node other = start_pair();
    int here = open_datagram(PEERSOCK_DEFAULT, 5000), there = open_datagram(other, 6000);
    struct sockaddr_in6 to = address_of(other, 6000), from;
    socklen_t length = sizeof from;
    char buf[2000];
    CHECK(peersock_sendto(here, "first", 5, 0, (struct sockaddr *)&to, sizeof to) == 5);
    CHECK(wait_for(there, POLLIN) == POLLIN);
    CHECK(peersock_recvfrom(there, buf, sizeof buf, 0, (struct sockaddr *)&from, &length) == 5);
    struct sockaddr_in6 expected = address_of(PEERSOCK_DEFAULT, 5000);
    CHECK(length == sizeof from && from.sin6_port == htons(5000));
    CHECK(memcmp(&from.sin6_addr, &expected.sin6_addr, 16) == 0);

    // Back to where it came from, in two pieces.
    struct iovec pieces[2] = {{(char *)"sec", 3}, {(char *)"ond", 3}};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = pieces, .msg_iovlen = 2};
    CHECK(peersock_sendmsg(there, &message, 0) == 6);
    CHECK(wait_for(here, POLLIN) == POLLIN);
    struct iovec room = {buf, 4};
    struct sockaddr_in6 name;
    struct msghdr received = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &room, .msg_iovlen = 1};
    CHECK(peersock_recvmsg(here, &received, 0) == 4 && (received.msg_flags & MSG_TRUNC));
    CHECK(memcmp(buf, "seco", 4) == 0 && name.sin6_port == htons(6000) && received.msg_namelen == sizeof name);

    CHECK(peersock_connect(here, (struct sockaddr *)&to, sizeof to) == 0);
    CHECK(write(here, "", 0) == 0 && write(here, "third", 5) == 5);
    CHECK(wait_for(there, POLLIN) == POLLIN && read(there, buf, sizeof buf) == 0);
    CHECK(wait_for(there, POLLIN) == POLLIN && read(there, buf, sizeof buf) == 5);
    CHECK(peersock_recv(there, buf, sizeof buf, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    length = sizeof name;
    CHECK(peersock_getpeername(here, (struct sockaddr *)&name, &length) == 0 && name.sin6_port == htons(6000));
    CHECK(close(here) == 0 && close(there) == 0);
    puts("ok");
    return 0;
}
