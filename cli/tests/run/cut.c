/* Calls that a signal or another thread cuts in two, and what arrives all the same:
 * cut serve ADDRESS PORT, and cut HOW ADDRESS PORT of the server, or an own address and port 0. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { \
    printf("line %d: %s (errno: %s)\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

static struct sockaddr_in server;

static int listening(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    socklen_t length = sizeof server;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    CHECK(bind(fd, (void *)&server, sizeof server) == 0 && listen(fd, 100) == 0);
    CHECK(getsockname(fd, (void *)&server, &length) == 0);
    return fd;
}

static int opened(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    return fd;
}

static void thread(pthread_t *id, void *(*body)(void *), long argument) {
    CHECK(pthread_create(id, NULL, body, (void *)argument) == 0);
}

/* Sends all back once it has come to its end. */
static void *echo(void *fd) {
    char bytes[1000];
    size_t got = 0;
    for (ssize_t more; (more = read((long)fd, bytes + got, sizeof bytes - got)) > 0;) got += more;
    CHECK(write((long)fd, bytes, got) == (ssize_t)got);
    close((long)fd);
    return NULL;
}

static void *echo_all(void *listener) {
    for (pthread_t id;; pthread_detach(id)) {
        int fd = accept((long)listener, NULL, NULL);
        /* At the end of the process. */
        if (fd < 0 && errno == ENETDOWN) return NULL;
        CHECK(fd >= 0);
        thread(&id, echo, fd);
    }
}

static void serve(void) {
    int listener = listening();
    puts("serving"), fflush(stdout);
    echo_all((void *)(long)listener);
}

/* Serves itself, by threads that no signal comes to, if there is no other server. */
static void have_server(void) {
    pthread_t id;
    sigset_t all, usual;
    if (server.sin_port) return;
    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, &usual) == 0);
    thread(&id, echo_all, listening());
    CHECK(pthread_sigmask(SIG_SETMASK, &usual, NULL) == 0);
}

/* Ends this direction, and returns what came back. */
static const char *echoed(int fd) {
    static char bytes[1001];
    ssize_t got = 0, more;
    CHECK(shutdown(fd, SHUT_WR) == 0);
    while ((more = read(fd, bytes + got, 1000 - got)) > 0) got += more;
    CHECK(more == 0);
    bytes[got] = 0;
    close(fd);
    return bytes;
}

static void ignored(int number) {
    (void)number;
}

static void every(int microseconds) {
    struct itimerval time = {{0, microseconds}, {0, microseconds}};
    CHECK(setitimer(ITIMER_REAL, &time, NULL) == 0);
}

static int is_connected(int fd) {
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    return getpeername(fd, (void *)&peer, &length) == 0;
}

/* Waits for an attempt that was interrupted. */
static int outcome(int fd) {
    struct pollfd wanted = {fd, POLLOUT, 0};
    int ready, error = -1;
    socklen_t length = sizeof error;
    do ready = poll(&wanted, 1, 60000);
    while (ready < 0 && errno == EINTR);
    CHECK(ready == 1);
    while (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length)) CHECK(errno == EINTR);
    return error;
}

/* connect(2) under a storm of signals; then either again, or poll(2). Where the library does not take the
 * calls, one that says EINTR may not have begun: then poll(2) finds no connection, and it is made again. */
static void signals(void) {
    struct sigaction action = {.sa_handler = ignored};
    have_server();
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    for (int round = 0; round < 600; round++) {
        int fd = opened(), tries = 0, polls = round % 2;
        every(30 + round * 37 % 400);
        while (connect(fd, (void *)&server, sizeof server)) {
            if (errno == EISCONN) break;
            CHECK(errno == EINTR || errno == EALREADY);
            if (errno == EINTR && polls && (outcome(fd), is_connected(fd))) break;
            if (++tries > 20) every(0), usleep(1000);
            CHECK(tries < 20000);
        }
        every(0);
        char sent[101] = "";
        for (int at = 0; at < 100; at++) sent[at] = 'A' + at % 26;
        CHECK(write(fd, sent, 100) == 100);
        const char *back = echoed(fd);
        if (strcmp(back, sent)) printf("round %d: %s\n", round, back), exit(1);
    }
}

static volatile int is_over, was_written;

/* Writes as soon as it is possible: before the connection stands that is an error. */
static void *write_early(void *fd) {
    while (!is_over && !was_written) was_written = write((long)fd, "HELLO", 5) == 5;
    return NULL;
}

static void writer(void) {
    have_server();
    for (int round = 0; round < 300; round++) {
        int fd = opened();
        pthread_t id;
        is_over = was_written = 0;
        thread(&id, write_early, fd);
        CHECK(connect(fd, (void *)&server, sizeof server) == 0);
        is_over = 1;
        CHECK(write(fd, "WORLD", 5) == 5 && pthread_join(id, NULL) == 0);
        const char *back = echoed(fd);
        int is_right = was_written ? !strcmp(back, "HELLOWORLD") || !strcmp(back, "WORLDHELLO") : !strcmp(back, "WORLD");
        if (!is_right) printf("round %d: %s\n", round, back), exit(1);
    }
}

static volatile size_t written;

static unsigned char at(size_t place) {
    return place ^ place >> 8 ^ place >> 16;
}

/* Writes until it fails; its last call may be partly done. */
static void *write_much(void *fd) {
    static unsigned char bytes[50000];
    for (;;) {
        for (size_t n = 0; n < sizeof bytes; n++) bytes[n] = at(written + n);
        ssize_t more = write((long)fd, bytes, sizeof bytes);
        if (more < 0) break;
        written += more;
    }
    CHECK(errno == EPIPE);
    return NULL;
}

/* A second thread ends both directions while a write(2) waits because all buffers are full. */
static void full(void) {
    int listener = listening(), client = opened();
    CHECK(connect(client, (void *)&server, sizeof server) == 0);
    int peer = accept(listener, NULL, NULL);
    CHECK(peer >= 0);
    pthread_t id;
    thread(&id, write_much, client);
    for (size_t before = 1; written == 0 || before != written; usleep(300000)) before = written;
    CHECK(shutdown(client, SHUT_RDWR) == 0 && pthread_join(id, NULL) == 0);
    static unsigned char bytes[50000];
    size_t got = 0;
    ssize_t more;
    while ((more = read(peer, bytes, sizeof bytes)) > 0)
        for (ssize_t n = 0; n < more; n++) CHECK(bytes[n] == at(got++));
    CHECK(more == 0 && got == written);
}

static void *reset_all(void *listener) {
    struct linger none = {1, 0};
    for (int fd; (fd = accept((long)listener, NULL, NULL)) >= 0; close(fd))
        CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0);
    return NULL;
}

/* The peer resets each connection as soon as it stands. */
static void resets(void) {
    pthread_t id;
    int listener = listening();
    thread(&id, reset_all, listener);
    for (int round = 0; round < 60; round++) {
        int fd = opened();
        char byte;
        CHECK(connect(fd, (void *)&server, sizeof server) == 0);
        CHECK(read(fd, &byte, 1) == -1 && errno == ECONNRESET);
        close(fd);
    }
}

/* No number is free, and the hard limit permits more or does not. */
static void crowded(void) {
    struct rlimit usual, few;
    int listener = listening(), client = opened(), own = opened(), spare, highest = 0;
    int bound = socket(AF_INET, SOCK_DGRAM, 0), sender = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in any = server;
    any.sin_port = 0;
    CHECK(getrlimit(RLIMIT_NOFILE, &usual) == 0);
    few = (struct rlimit){40, usual.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    while ((spare = dup(listener)) >= 0) highest = spare;
    CHECK(errno == EMFILE && highest > 0);
    CHECK(connect(client, (void *)&server, sizeof server) == 0 && write(client, "x", 1) == 1);
    CHECK(bind(own, (void *)&any, sizeof any) == 0 && listen(own, 3) == 0);
    CHECK(bind(bound, (void *)&any, sizeof any) == 0);
    CHECK(sendto(sender, "x", 1, 0, (void *)&server, sizeof server) == 1);
    CHECK(accept(listener, NULL, NULL) == -1 && errno == EMFILE);
    CHECK(socket(AF_INET, SOCK_STREAM, 0) == -1 && errno == EMFILE);
    CHECK(getrlimit(RLIMIT_NOFILE, &few) == 0 && few.rlim_cur == 40);
    CHECK(setrlimit(RLIMIT_NOFILE, &usual) == 0);
    int accepted = accept(listener, NULL, NULL);
    char byte;
    CHECK(accepted >= 0 && read(accepted, &byte, 1) == 1 && byte == 'x');
}

int main(int count, char **words) {
    CHECK(count == 4);
    signal(SIGPIPE, SIG_IGN);
    alarm(strcmp(words[1], "serve") && strcmp(words[1], "signals") ? 240 : 0);
    server.sin_family = AF_INET, server.sin_port = htons(atoi(words[3]));
    CHECK(inet_pton(AF_INET, words[2], &server.sin_addr) == 1);
    static const struct { const char *name; void (*run)(void); } all[] = {{"serve", serve}, {"signals", signals},
        {"writer", writer}, {"full", full}, {"resets", resets}, {"crowded", crowded}};
    for (unsigned at = 0; at < sizeof all / sizeof *all; at++)
        if (!strcmp(words[1], all[at].name)) {
            all[at].run();
            puts("all well");
            return 0;
        }
    return 2;
}
