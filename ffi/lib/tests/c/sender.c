// Sends to a receiver of the table in tests/delivery, and says what it was told: sender NETWORK ADDRESS PORT SIZE
#include "common.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static void set(int fd, int level, int option, int value) {
    CHECK(peersock_setsockopt(fd, level, option, &value, sizeof value) == 0);
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

int main(int count, char **words) {
    CHECK(count == 5);
    peersock_config *config = peersock_config_new();
    CHECK(peersock_config_ephemeral(config) == PEERSOCK_OK);
    CHECK(peersock_config_interfaces(config, "loopback") == PEERSOCK_OK);
    CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
    peersock_config_free(config);
    CHECK(peersock_join(PEERSOCK_DEFAULT, strtoull(words[1], NULL, 16), NULL) == PEERSOCK_OK);

    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(words[3]))};
    CHECK(inet_pton(AF_INET6, words[2], &to.sin6_addr) == 1);
    int fd = connect_to(to);
    // A receiver that is silent for three seconds is given up.
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 2);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 3000);
    struct linger wait = {1, 60};
    CHECK(peersock_setsockopt(fd, SOL_SOCKET, SO_LINGER, &wait, sizeof wait) == 0);

    bool is_well = sends(fd, (size_t)atoll(words[4]));
    int error = is_well ? 0 : errno;
    if (peersock_close(fd) != 0 && error == 0) error = errno;
    errno = error;
    CHECK(error == 0 || error == ETIMEDOUT || error == ECONNRESET || error == EPIPE);
    puts(error == 0 ? "delivered" : "error");
    return 0;
}
