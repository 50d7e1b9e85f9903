#include <arpa/inet.h>
#include <peersock.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(7000)};
    char text[100] = "";
    if (argc < 2 || inet_pton(AF_INET6, argv[1], &to.sin6_addr) != 1) return 2;
    if (peersock_join(PEERSOCK_DEFAULT, 0xff0001ffff000000, NULL)) return puts(peersock_last_error()), 1;
    int fd = peersock_socket(AF_INET6, SOCK_STREAM, 0);
    if (peersock_connect(fd, (struct sockaddr *)&to, sizeof to)) return perror("connect"), 1;
    return read(fd, text, sizeof text - 1) < 0 || puts(text) < 0;
}
