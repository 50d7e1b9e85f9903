// Sends to receivers of the table in tests/delivery, and says what it was told: sender NETWORK, then a line
// for each receiver: ADDRESS PORT SIZE SILENCE. It says `connected` if it is, then `delivered` or `error`. A
// receiver that is silent for SILENCE seconds is given up; 0 waits.
#include "common.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static void set(int fd, int level, int option, int value) {
    CHECK(peersock_setsockopt(fd, level, option, &value, sizeof value) == 0);
}

static int open_socket(int silence) {
    int fd = peersock_socket(AF_INET6, SOCK_STREAM, 0);
    struct linger wait = {1, 60};
    CHECK(fd >= 0 && peersock_setsockopt(fd, SOL_SOCKET, SO_LINGER, &wait, sizeof wait) == 0);
    if (silence > 0) {
        set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
        set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
        set(fd, IPPROTO_TCP, TCP_KEEPCNT, silence - 1);
        set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, silence * 1000);
    }
    return fd;
}

// Sends everything with the end, and reads to the peer's end.
static bool sends(int fd, size_t size) {
    static char data[10000000];
    size_t sent = 0;
    char byte;
    CHECK(size <= sizeof data);
    for (uint64_t at = 0; at < size; at++) data[at] = (char)(at * 0x9e3779b97f4a7c15 >> 56);
    while (sent < size) {
        ssize_t n = peersock_send(fd, data + sent, size - sent, MSG_NOSIGNAL);
        if (n < 0) break;
        sent += (size_t)n;
    }
    return sent == size && peersock_shutdown(fd, SHUT_WR) == 0 && peersock_recv(fd, &byte, 1, 0) == 0;
}

// Gives 0 if everything was delivered, otherwise why not.
static int deliver(struct sockaddr_in6 to, size_t size, int silence) {
    int fd = open_socket(silence), error = 0;
    if (peersock_connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        error = errno;
        CHECK(error == ECONNREFUSED);
    } else {
        puts("connected");
        fflush(stdout);
        if (!sends(fd, size)) error = errno;
    }
    if (peersock_close(fd) != 0 && error == 0) error = errno;
    return error;
}

int main(int count, char **words) {
    char address[64];
    unsigned short port;
    size_t size;
    int silence;
    CHECK(count == 2);
    peersock_config *config = peersock_config_new();
    CHECK(peersock_config_ephemeral(config) == PEERSOCK_OK);
    CHECK(peersock_config_interfaces(config, "loopback") == PEERSOCK_OK);
    CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
    peersock_config_free(config);
    CHECK(peersock_join(PEERSOCK_DEFAULT, strtoull(words[1], NULL, 16), NULL) == PEERSOCK_OK);

    while (scanf("%63s %hu %zu %d", address, &port, &size, &silence) == 4) {
        struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        CHECK(inet_pton(AF_INET6, address, &to.sin6_addr) == 1);
        errno = deliver(to, size, silence);
        // What the kernel's sockets say, too.
        CHECK(errno == 0 || errno == ETIMEDOUT || errno == ECONNRESET || errno == EPIPE ||
              errno == ENOTCONN || errno == ECONNREFUSED);
        puts(errno == 0 ? "delivered" : "error");
        fflush(stdout);
    }
    return 0;
}
