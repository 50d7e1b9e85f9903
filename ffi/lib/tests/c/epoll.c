// One thread that serves many connections at once by epoll(7): 1,000, or as many as the argument says;
// 100 in Valgrind.
#include "common.h"
#include <sys/epoll.h>

static int count;
static struct sockaddr_in6 to;

// All connections are open before the first byte is sent, and stay open until the last was answered.
static void *run_clients(void *unused) {
    int *fds = calloc((size_t)count, sizeof *fds);
    char text[16], answer[16];
    CHECK(fds != NULL);
    for (int i = 0; i < count; i++) fds[i] = connect_to(to);
    for (int i = 0; i < count; i++) {
        int length = snprintf(text, sizeof text, "%d\n", i);
        write_all(fds[i], text, (size_t)length);
    }
    for (int i = 0; i < count; i++) {
        int length = snprintf(text, sizeof text, "%d\n", i);
        read_all(fds[i], answer, (size_t)length);
        CHECK(memcmp(text, answer, (size_t)length) == 0);
    }
    for (int i = 0; i < count; i++) CHECK(close(fds[i]) == 0);
    free(fds);
    return unused;
}

int main(int argc, char **argv) {
    struct rlimit limit = {0, 0};
    count = argc > 1 ? atoi(argv[1]) : in_valgrind() ? 100 : 1000;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_cur < 4096) limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    peersock_node other = start_pair();
    to = address_of(other, 7000);
    int listener = listen_on(other, 7000), set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = listener}}, events[64];
    CHECK(set >= 0 && fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) == 0);
    pthread_t clients;
    CHECK(pthread_create(&clients, NULL, run_clients, NULL) == 0);

    int accepted = 0, ended = 0, most = 0;
    while (ended < count) {
        int ready = epoll_wait(set, events, 64, 60000);
        CHECK(ready > 0);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                while ((fd = peersock_accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    event.events = EPOLLIN | EPOLLRDHUP;
                    event.data.fd = fd;
                    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
                    accepted++;
                    if (accepted - ended > most) most = accepted - ended;
                }
                CHECK(errno == EAGAIN);
                continue;
            }
            char buf[256];
            ssize_t got = read(fd, buf, sizeof buf);
            CHECK(got >= 0);
            if (got > 0) {
                write_all(fd, buf, (size_t)got);
            } else {
                CHECK(close(fd) == 0);
                ended++;
            }
        }
    }
    CHECK(accepted == count && most == count);
    CHECK(pthread_join(clients, NULL) == 0);
    CHECK(close(listener) == 0 && close(set) == 0);
    puts("ok");
    return 0;
}
