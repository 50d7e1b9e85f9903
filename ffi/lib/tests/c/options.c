// Options that come with messages of their own, or with waiting: times, path MTUs, urgent data, lingering.
#include "common.h"
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <time.h>

#ifndef IPV6_RECVPATHMTU
#define IPV6_RECVPATHMTU 60
#define IPV6_PATHMTU 61
#endif

static char big[65527];

static int datagram(peersock_node node, uint16_t port) {
    struct sockaddr_in6 address = address_of(node, port);
    int fd = peersock_node_socket(node, AF_INET6, SOCK_DGRAM, 0);
    CHECK(fd >= 0 && peersock_bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

// Receives a datagram of so many bytes with one control message, whose data it copies.
static void receive_with(int fd, ssize_t length, int level, int type, void *value, size_t size) {
    char buf[100];
    union {
        char bytes[256];
        struct cmsghdr aligned;
    } control;
    struct iovec room = {buf, sizeof buf};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    CHECK(wait_for(fd, POLLIN) & POLLIN);
    CHECK(peersock_recvmsg(fd, &message, 0) == length);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    CHECK(header != NULL && header->cmsg_level == level && header->cmsg_type == type);
    CHECK(header->cmsg_len == CMSG_LEN(size) && CMSG_NXTHDR(&message, header) == NULL);
    memcpy(value, CMSG_DATA(header), size);
}

static void times(int here, int there, struct sockaddr_in6 to) {
    int on = 1, off = 0;
    socklen_t length = sizeof off;
    struct timeval micro;
    struct timespec nano;
    time_t now = time(NULL);
    CHECK(peersock_setsockopt(there, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on) == 0);
    CHECK(peersock_getsockopt(there, SOL_SOCKET, SO_TIMESTAMP, &off, &length) == 0 && off == 1);
    CHECK(peersock_sendto(here, "one", 3, 0, (struct sockaddr *)&to, sizeof to) == 3);
    receive_with(there, 3, SOL_SOCKET, SCM_TIMESTAMP, &micro, sizeof micro);
    CHECK(micro.tv_sec >= now - 1 && micro.tv_sec <= time(NULL) + 1 && micro.tv_usec < 1000000);
    CHECK(peersock_setsockopt(there, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) == 0);
    CHECK(peersock_sendto(here, "two", 3, 0, (struct sockaddr *)&to, sizeof to) == 3);
    receive_with(there, 3, SOL_SOCKET, SCM_TIMESTAMPNS, &nano, sizeof nano);
    CHECK(nano.tv_sec >= micro.tv_sec && nano.tv_sec <= time(NULL) + 1 && nano.tv_nsec < 1000000000);
}

static void path_mtus(int here, struct sockaddr_in6 to) {
    struct {
        struct sockaddr_in6 address;
        uint32_t mtu;
    } info;
    int on = 1;
    CHECK(peersock_setsockopt(here, IPPROTO_IPV6, IPV6_RECVPATHMTU, &on, sizeof on) == 0);
    CHECK(peersock_setsockopt(here, IPPROTO_IPV6, IPV6_DONTFRAG, &on, sizeof on) == 0);
    CHECK(peersock_sendto(here, big, sizeof big, 0, (struct sockaddr *)&to, sizeof to) == -1 && errno == EMSGSIZE);
    receive_with(here, 0, IPPROTO_IPV6, IPV6_PATHMTU, &info, sizeof info);
    CHECK(memcmp(&info.address.sin6_addr, &to.sin6_addr, 16) == 0 && info.mtu >= 1000 && info.mtu < 65536);
    CHECK(peersock_connect(here, (struct sockaddr *)&to, sizeof to) == 0);
    CHECK(peersock_send(here, big, sizeof big, 0) == -1 && errno == EMSGSIZE);
    receive_with(here, 0, IPPROTO_IPV6, IPV6_PATHMTU, &info, sizeof info);
}

// The kernel may have been built without urgent data for its AF_UNIX streams.
static int is_none(int error, int is_stream) {
    return is_stream ? error == EINVAL || error == EOPNOTSUPP : error == EAGAIN;
}

// There is no way for urgent data: it is refused, and none ever comes. What receives datagrams does not look
// at the flag, as in Linux.
static void urgent_data(int fd, int is_stream) {
    struct iovec piece = {(char *)"!", 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    char byte;
    CHECK(peersock_send(fd, "!", 1, MSG_OOB) == -1 && errno == EOPNOTSUPP);
    CHECK(peersock_sendto(fd, "!", 1, MSG_OOB, NULL, 0) == -1 && errno == EOPNOTSUPP);
    CHECK(peersock_sendmsg(fd, &message, MSG_OOB) == -1 && errno == EOPNOTSUPP);
    int flags = MSG_OOB | (is_stream ? 0 : MSG_DONTWAIT);
    CHECK(peersock_recv(fd, &byte, 1, flags) == -1 && is_none(errno, is_stream));
    message.msg_iov->iov_base = &byte;
    CHECK(peersock_recvmsg(fd, &message, flags) == -1 && is_none(errno, is_stream));
}

int main(void) {
    peersock_node other = start_pair();
    struct sockaddr_in6 to = address_of(other, 6000);
    int here = datagram(PEERSOCK_DEFAULT, 5000), there = datagram(other, 6000);
    urgent_data(here, 0);
    times(here, there, to);
    path_mtus(here, to);
    CHECK(peersock_close(here) == 0 && peersock_close(there) == 0);

    int listener = listen_on(other, 7000), fd = connect_to(address_of(other, 7000));
    int accepted = peersock_accept(listener, NULL, NULL), waiting = -1;
    CHECK(accepted >= 0);
    urgent_data(fd, 1);
    write_all(fd, "12345", 5);
    CHECK(wait_for(accepted, POLLIN) & POLLIN);
    CHECK(ioctl(accepted, SIOCINQ, &waiting) == 0 && waiting == 5);
    CHECK(ioctl(accepted, SIOCATMARK, &waiting) == 0 && waiting == 0);
    // The kernel's answer for AF_UNIX: the library has written to it, so that the node's death is no end.
    CHECK(ioctl(accepted, SIOCOUTQ, &waiting) == 0 && waiting > 0);

    // Closing waits, and after it everything is there.
    struct linger linger = {1, 60};
    CHECK(peersock_setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    write_all(fd, big, 60000);
    CHECK(peersock_close(fd) == 0);
    CHECK(peersock_stop(PEERSOCK_DEFAULT, 0) == PEERSOCK_OK);
    char *all = malloc(60005);
    CHECK(all != NULL);
    read_all(accepted, all, 60005);
    CHECK(memcmp(all, "12345", 5) == 0);
    free(all);
    CHECK(peersock_close(accepted) == 0 && peersock_close(listener) == 0);
    puts("ok");
    return 0;
}
