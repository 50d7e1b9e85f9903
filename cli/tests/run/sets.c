/* A socket connects that was put into a set long before many others: sets ADDRESS PORT */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { \
    printf("line %d: %s (errno: %s)\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

#define SOCKETS 65
#define SETS 64

int main(int count, char **words) {
    CHECK(count == 3);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
    CHECK(inet_pton(AF_INET, words[1], &server.sin_addr) == 1);
    int set = epoll_create1(0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct epoll_event event = {.events = EPOLLOUT | EPOLLET, .data.u64 = 42};
    /* The most that are remembered are as many. */
    int sets[SETS], sockets[SOCKETS];
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
    struct epoll_event other = {.events = EPOLLIN};
    for (int i = 0; i < SETS; i++)
        CHECK((sets[i] = epoll_create1(0)) >= 0);
    for (int i = 0; i < SOCKETS; i++) {
        CHECK((sockets[i] = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
        for (int j = 0; j < SETS; j++)
            CHECK(epoll_ctl(sets[j], EPOLL_CTL_ADD, sockets[i], &other) == 0);
    }
    CHECK(epoll_wait(set, &event, 1, 0) == 1 && event.data.u64 == 42);
    CHECK(connect(fd, (void *)&server, sizeof server) == 0 || errno == EINPROGRESS);
    do {
        CHECK(epoll_wait(set, &event, 1, 60000) == 1 && event.data.u64 == 42);
        CHECK(!(event.events & EPOLLERR));
    } while (!(event.events & EPOLLOUT));
    CHECK(write(fd, "x", 1) == 1);
    puts("all well");
    return 0;
}
