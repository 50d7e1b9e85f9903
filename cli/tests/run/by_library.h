/* Included before a program's own headers: has it make its socket calls by the C library, on the nodes that it
 * starts. Two words come before the program's own: 4 or 6, and a folder. An own address of that family takes the
 * place of the word ADDRESS. */
#define _GNU_SOURCE
#include "../../../ffi/lib/tests/c/common.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

static int program(int count, char **words);

/* Starts the default node, a member of a network, and passes the program one of its addresses. */
int main(int count, char **words) {
    CHECK(count > 3);
    uint8_t seeds[2][PEERSOCK_SEED_SIZE];
    uint64_t network;
    struct in6_addr address;
    char path[4096], text[INET6_ADDRSTRLEN] = "10.7.0.1";
    describe_members(words[2], seeds, path);
    peersock_config *config = settings();
    CHECK(peersock_config_seed(config, seeds[0], PEERSOCK_SEED_SIZE) == PEERSOCK_OK);
    CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
    peersock_config_free(config);
    CHECK(peersock_join_file(PEERSOCK_DEFAULT, path, &network) == PEERSOCK_OK);
    CHECK(peersock_address(PEERSOCK_DEFAULT, network, &address) == PEERSOCK_OK);
    if (words[1][0] == '6') CHECK(inet_ntop(AF_INET6, &address, text, sizeof text) != NULL);
    words[2] = words[0];
    for (int at = 3; at < count; at++)
        if (strcmp(words[at], "ADDRESS") == 0) words[at] = text;
    return program(count - 2, words + 2);
}

#undef CHECK
#define main program
#define socket peersock_socket
#define connect peersock_connect
#define bind peersock_bind
#define listen peersock_listen
#define accept peersock_accept
#define accept4 peersock_accept4
#define send peersock_send
#define recv peersock_recv
#define sendto peersock_sendto
#define recvfrom peersock_recvfrom
#define sendmsg peersock_sendmsg
#define recvmsg peersock_recvmsg
#define shutdown peersock_shutdown
#define close peersock_close
#define getsockname peersock_getsockname
#define getpeername peersock_getpeername
#define getsockopt peersock_getsockopt
#define setsockopt peersock_setsockopt

/* The library has no such calls. A program that had them would do this. */
static int send_many(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    for (unsigned at = 0; at < count; at++) {
        ssize_t sent = sendmsg(fd, &messages[at].msg_hdr, flags);
        if (sent < 0) return at ? (int)at : -1;
        messages[at].msg_len = (unsigned)sent;
    }
    return (int)count;
}

static int receive_many(int fd, struct mmsghdr *messages, unsigned count, int flags, const struct timespec *limit) {
    if (count > 1 && limit) count = 1;
    for (unsigned at = 0; at < count; at++) {
        ssize_t received = recvmsg(fd, &messages[at].msg_hdr, flags);
        if (received < 0) return at ? (int)at : -1;
        messages[at].msg_len = (unsigned)received;
    }
    return (int)count;
}

#define sendmmsg send_many
#define recvmmsg receive_many
