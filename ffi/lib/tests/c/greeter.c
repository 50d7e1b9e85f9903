// Prints its address and greets whoever connects, until its standard input ends.
#include "common.h"
#include <arpa/inet.h>

int main(void) {
    char text[INET6_ADDRSTRLEN];
    start(NULL);
    struct sockaddr_in6 own = address_of(PEERSOCK_DEFAULT, 7000);
    int listener = listen_on(PEERSOCK_DEFAULT, 7000);
    CHECK(inet_ntop(AF_INET6, &own.sin6_addr, text, sizeof text) != NULL);
    printf("%s\n", text);
    CHECK(fflush(stdout) == 0);
    struct pollfd fds[2] = {{listener, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    while (poll(fds, 2, 60000) > 0 && fds[1].revents == 0) {
        int fd = peersock_accept(listener, NULL, NULL);
        CHECK(fd >= 0);
        write_all(fd, "hello", 5);
        CHECK(close(fd) == 0);
    }
    return 0;
}
