// Who only waits for a peer that has stopped gives up when SO_KEEPALIVE and its three options say so.
#include "common.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

// The peer: says where it listens, accepts, and waits to be stopped.
static void serve(int said) {
    start(NULL);
    int listener = listen_on(PEERSOCK_DEFAULT, 7000);
    struct sockaddr_in6 own = address_of(PEERSOCK_DEFAULT, 7000);
    CHECK(write(said, &own, sizeof own) == sizeof own);
    CHECK(peersock_accept(listener, NULL, NULL) >= 0 && write(said, "x", 1) == 1);
    for (;;) pause();
}

static void set(int fd, int level, int option, int value) {
    CHECK(peersock_setsockopt(fd, level, option, &value, sizeof value) == 0);
}

int main(void) {
    int pipes[2], status;
    struct sockaddr_in6 to;
    struct timespec began, ended;
    char byte;
    CHECK(pipe(pipes) == 0);
    pid_t peer = fork();
    CHECK(peer >= 0);
    if (peer == 0) serve(pipes[1]);
    CHECK(close(pipes[1]) == 0);
    start(NULL);
    read_all(pipes[0], (char *)&to, sizeof to);
    CHECK(peersock_wait_peer(PEERSOCK_DEFAULT, NETWORK, (struct sockaddr *)&to, sizeof to, 60000) == PEERSOCK_OK);
    int fd = connect_to(to);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 2);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 2);
    read_all(pipes[0], &byte, 1);

    // It stands longer than the options allow silence, because the peer answers.
    struct pollfd quiet = {fd, POLLIN, 0};
    CHECK(poll(&quiet, 1, 6000) == 0);
    CHECK(kill(peer, SIGSTOP) == 0 && waitpid(peer, &status, WUNTRACED) == peer && WIFSTOPPED(status));
    CHECK(clock_gettime(CLOCK_MONOTONIC, &began) == 0);
    CHECK(peersock_recv(fd, &byte, 1, 0) == -1 && errno == ETIMEDOUT);
    CHECK(clock_gettime(CLOCK_MONOTONIC, &ended) == 0);
    // 4 s at most, and what a busy machine adds; without the options it would wait for ever.
    CHECK(ended.tv_sec - began.tv_sec < 30);
    CHECK(kill(peer, SIGKILL) == 0 && waitpid(peer, &status, 0) == peer);
    CHECK(close(fd) == 0);
    puts("ok");
    return 0;
}
