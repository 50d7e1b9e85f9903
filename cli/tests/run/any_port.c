/* any_port FAMILY: a UDP server at any port says which one it is, and answers one datagram. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int count, char **words) {
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct sockaddr_in four = {.sin_family = AF_INET};
    int is_four = count > 1 && atoi(words[1]) == 4;
    struct sockaddr_storage from;
    socklen_t length = is_four ? sizeof four : sizeof six;
    struct sockaddr *any = is_four ? (void *)&four : (void *)&six;
    int fd = socket(any->sa_family, SOCK_DGRAM, 0);
    if (bind(fd, any, length) || getsockname(fd, any, &length)) return 1;
    printf("port %d\n", ntohs(is_four ? four.sin_port : six.sin6_port));
    fflush(stdout);
    char data[10];
    length = sizeof from;
    ssize_t size = recvfrom(fd, data, sizeof data, 0, (void *)&from, &length);
    return size < 0 || sendto(fd, data, size, 0, (void *)&from, length) != size;
}
