// Waits for what ends a connection on which a peer has sent one byte: waiter NETWORK ADDRESS PORT. It says
// its own address once the byte is there, and then the name of the error. It ends with its stdin.
#include "common.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

int main(int count, char **words) {
    char text[INET6_ADDRSTRLEN], byte;
    CHECK(count == 4);
    peersock_config *config = peersock_config_new();
    CHECK(peersock_config_ephemeral(config) == PEERSOCK_OK);
    CHECK(peersock_config_interfaces(config, "loopback") == PEERSOCK_OK);
    CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
    peersock_config_free(config);
    CHECK(peersock_join(PEERSOCK_DEFAULT, strtoull(words[1], NULL, 16), NULL) == PEERSOCK_OK);

    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(words[3]))}, own;
    socklen_t length = sizeof own;
    CHECK(inet_pton(AF_INET6, words[2], &to.sin6_addr) == 1);
    int fd = connect_to(to);
    CHECK(peersock_recv(fd, &byte, 1, 0) == 1);
    CHECK(peersock_getsockname(fd, (struct sockaddr *)&own, &length) == 0);
    puts(inet_ntop(AF_INET6, &own.sin6_addr, text, sizeof text));
    fflush(stdout);

    ssize_t got = peersock_recv(fd, &byte, 1, 0);
    puts(got == 0 ? "an end" : got > 0 ? "data" : errno == ECONNRESET ? "ECONNRESET" : strerror(errno));
    fflush(stdout);
    CHECK(peersock_close(fd) == 0);
    // The peer's new instance is to be answered.
    while (read(STDIN_FILENO, &byte, 1) > 0) {}
    return 0;
}
