/* Calls that wait in a program that is linked statically: waits HOW ADDRESS PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { \
    printf("line %d: %s (errno: %s)\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

static struct sockaddr_in server;
static volatile sig_atomic_t signals;

static void count(int number) {
    (void)number;
    signals++;
}

static int listening(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    CHECK(bind(fd, (void *)&any, sizeof any) == 0 && listen(fd, 20) == 0);
    return fd;
}

/* Four processes take connections of one listener, and say to each who has come. */
static void serve(int port) {
    int fd = listening(port);
    CHECK(fork() >= 0 && fork() >= 0);
    for (;;) {
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        int connection = accept(fd, (void *)&peer, &length);
        CHECK(connection >= 0);
        dprintf(connection, "%s\n", inet_ntoa(peer.sin_addr));
        close(connection);
    }
}

/* The same, where a process was killed just before that waited at the same port. */
static void serve_again(int port) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) accept(listening(port), NULL, NULL);
    usleep(300000);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    int fd = listening(port);
    puts("again");
    close(fd);
    serve(port);
}

/* Connects, and reads what the server says. */
static void ask(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char got[100] = "";
    CHECK(connect(fd, (void *)&server, sizeof server) == 0);
    CHECK(recv(fd, got, sizeof got - 1, MSG_WAITALL) > 0 && strcmp(got, "10.77.0.2\n") == 0);
    close(fd);
}

static void *taking(void *listener) {
    int connection = accept(*(int *)listener, NULL, NULL);
    CHECK(connection >= 0 && write(connection, "x", 1) == 1);
    close(connection);
    return NULL;
}

/* While threads wait, others make calls, and more of them than the supervisor has threads. */
static void threads(void) {
    enum { COUNT = 30 };
    pthread_t waiting[COUNT];
    int listener = listening(7100);
    for (int i = 0; i < COUNT; i++) CHECK(pthread_create(&waiting[i], NULL, taking, &listener) == 0);
    usleep(100000);
    for (int i = 0; i < 50; i++) ask();
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(7100)};
    CHECK(inet_pton(AF_INET, "10.77.0.2", &own.sin_addr) == 1);
    for (int i = 0; i < COUNT; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        char got;
        CHECK(connect(fd, (void *)&own, sizeof own) == 0 && read(fd, &got, 1) == 1);
        close(fd);
    }
    for (int i = 0; i < COUNT; i++) CHECK(pthread_join(waiting[i], NULL) == 0);
}

/* A signal interrupts who waits, and nothing is left of the call. */
static void signalled(void) {
    int fd = listening(7101), datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(7101)};
    CHECK(bind(datagrams, (void *)&any, sizeof any) == 0);
    struct sigaction action = {.sa_handler = count};
    struct itimerval soon = {.it_value = {0, 200000}};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(accept(fd, NULL, NULL) == -1 && errno == EINTR && signals == 1);
    char got[10];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(recvfrom(datagrams, got, 10, 0, (void *)&from, &length) == -1 && errno == EINTR && signals == 2);
    /* With SA_RESTART it goes on, unless it has a limit. */
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    pid_t child = fork();
    if (child == 0) {
        struct sockaddr_in own = any;
        CHECK(inet_pton(AF_INET, "10.77.0.2", &own.sin_addr) == 1);
        usleep(500000);
        int to = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(connect(to, (void *)&own, sizeof own) == 0 && read(to, got, 10) == 0);
        exit(0);
    }
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    int connection = accept(fd, NULL, NULL), status;
    CHECK(connection >= 0 && signals == 3 && close(connection) == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    struct timeval limit = {0, 300000};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
    CHECK(accept(fd, NULL, NULL) == -1 && errno == EAGAIN && signals == 3);
    limit.tv_sec = 60;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(accept(fd, NULL, NULL) == -1 && errno == EINTR && signals == 4);
}

static void *accepting(void *fd) {
    CHECK(accept(*(int *)fd, NULL, NULL) == -1 && errno == EBADF);
    return NULL;
}

static void *receiving(void *fd) {
    char got[10];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    CHECK(recvfrom(*(int *)fd, got, 10, 0, (void *)&from, &length) == -1 && errno == EBADF);
    return NULL;
}

/* Another thread closes the descriptors of calls that wait. */
static void closed(void) {
    int fd = listening(7104), datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(7104)};
    CHECK(bind(datagrams, (void *)&any, sizeof any) == 0);
    pthread_t waiting[2];
    CHECK(pthread_create(&waiting[0], NULL, accepting, &fd) == 0);
    CHECK(pthread_create(&waiting[1], NULL, receiving, &datagrams) == 0);
    usleep(300000);
    CHECK(close(fd) == 0 && close(datagrams) == 0);
    alarm(60);
    CHECK(pthread_join(waiting[0], NULL) == 0 && pthread_join(waiting[1], NULL) == 0);
    /* A time that is none. */
    datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    char got[10];
    struct iovec piece = {got, sizeof got};
    struct mmsghdr message = {.msg_hdr = {.msg_iov = &piece, .msg_iovlen = 1}};
    struct timespec times[] = {{0, -1}, {-1, 0}, {0, 1000000000}};
    for (int i = 0; i < 3; i++)
        CHECK(recvmmsg(datagrams, &message, 1, 0, &times[i]) == -1 && errno == EINVAL);
}

/* Who could not connect tries again with the same socket, as TCP allows; and memory that is not there is an
   error, of nobody else. */
static void refused(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in closed = server;
    closed.sin_port = htons(7999);
    for (int i = 0; i < 3; i++)
        CHECK(connect(fd, (void *)&closed, sizeof closed) == -1 && errno == ECONNREFUSED);
    CHECK(connect(fd, (void *)16, sizeof closed) == -1 && errno == EFAULT);
    CHECK(connect(fd, (void *)&server, sizeof server) == 0);
    socklen_t length = sizeof closed;
    CHECK(getpeername(fd, (void *)16, &length) == -1 && errno == EFAULT);
    CHECK(getpeername(fd, (void *)&closed, (void *)16) == -1 && errno == EFAULT);
    CHECK(getpeername(fd, (void *)&closed, &length) == 0 && memcmp(&closed, &server, 8) == 0);
    CHECK(connect(-1, (void *)&server, sizeof server) == -1 && errno == EBADF);
    CHECK(connect(1, (void *)&server, sizeof server) == -1 && errno == ENOTSOCK);
    signal(SIGPIPE, count);
    CHECK(shutdown(fd, SHUT_WR) == 0 && send(fd, "x", 1, 0) == -1 && errno == EPIPE && signals == 1);
}

/* Where there is no number left for a connection it stays in the queue; and what does not listen is no
 * listener. */
static void full(void) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(7102)};
    int listener = listening(7102), client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(inet_pton(AF_INET, "10.77.0.2", &own.sin_addr) == 1);
    CHECK(connect(client, (void *)&own, sizeof own) == 0);
    int next = dup(0);
    CHECK(next >= 0 && close(next) == 0);
    struct rlimit usual, few;
    CHECK(getrlimit(RLIMIT_NOFILE, &usual) == 0);
    few = usual, few.rlim_cur = next;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    for (int i = 0; i < 3; i++) CHECK(accept(listener, NULL, NULL) == -1 && errno == EMFILE);
    CHECK(setrlimit(RLIMIT_NOFILE, &usual) == 0);
    char got;
    int connection = accept(listener, NULL, NULL);
    CHECK(connection == next && write(client, "x", 1) == 1 && read(connection, &got, 1) == 1 && got == 'x');
    CHECK(write(connection, "y", 1) == 1 && read(client, &got, 1) == 1 && got == 'y');

    CHECK(accept(client, NULL, NULL) == -1 && errno == EINVAL);
    int bound = socket(AF_INET, SOCK_STREAM, 0), datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    own.sin_port = htons(7103);
    CHECK(bind(bound, (void *)&own, sizeof own) == 0 && bind(datagrams, (void *)&own, sizeof own) == 0);
    CHECK(accept(bound, NULL, NULL) == -1 && errno == EINVAL);
    CHECK(accept(datagrams, NULL, NULL) == -1 && errno == EOPNOTSUPP);
    CHECK(listen(bound, 1) == 0 && close(bound) == 0 && close(datagrams) == 0);
}

int main(int words, char **word) {
    CHECK(words == 4);
    setvbuf(stdout, NULL, _IOLBF, 0);
    server.sin_family = AF_INET, server.sin_port = htons(atoi(word[3]));
    CHECK(inet_pton(AF_INET, word[2], &server.sin_addr) == 1);
    if (strcmp(word[1], "serve") == 0) serve(atoi(word[3]));
    if (strcmp(word[1], "again") == 0) serve_again(atoi(word[3]));
    if (strcmp(word[1], "ask") == 0) ask();
    if (strcmp(word[1], "threads") == 0) threads();
    if (strcmp(word[1], "signals") == 0) signalled();
    if (strcmp(word[1], "closed") == 0) closed();
    if (strcmp(word[1], "refused") == 0) refused();
    if (strcmp(word[1], "full") == 0) full();
    puts("all well");
    return 0;
}
