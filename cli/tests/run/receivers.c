/* Threads that wait for datagrams when another one is the first to send from the socket, which has a copy or
 * none: receivers ADDRESS PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { \
    printf("line %d: %s (%s, errno: %s)\n", __LINE__, #what, way, strerror(errno)); exit(1); } } while (0)

static struct sockaddr_in server;
static const char *way = "";
static int fd;
static atomic_int receiver;

#define IS(name) (strcmp(way, name) == 0)

static void *receive(void *unused) {
    char got[10] = "";
    struct sockaddr_in from = server;
    socklen_t length = sizeof from;
    struct iovec piece = {got, sizeof got};
    struct msghdr message = {.msg_name = &from, .msg_namelen = length, .msg_iov = &piece, .msg_iovlen = 1};
    receiver = syscall(SYS_gettid);
    if (IS("recv")) CHECK(recv(fd, got, sizeof got, 0) == 1);
    if (IS("read")) CHECK(read(fd, got, sizeof got) == 1);
    if (IS("readv")) CHECK(readv(fd, &piece, 1) == 1);
    if (IS("recvfrom")) CHECK(recvfrom(fd, got, sizeof got, 0, (void *)&from, &length) == 1 && length == sizeof from);
    if (IS("recvmsg")) CHECK(recvmsg(fd, &message, 0) == 1 && message.msg_namelen == sizeof from);
    CHECK(got[0] == 'x' && from.sin_port == server.sin_port && from.sin_addr.s_addr == server.sin_addr.s_addr);
    return unused;
}

/* Whether the other thread sleeps, as it does while it waits. */
static int is_asleep(void) {
    char path[100], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)receiver);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
    fclose(file);
    return state == 'S';
}

/* The socket goes on receiving after that, also by a copy that it had before, and has nothing where nothing
 * came. */
static void exchange(int from, int to) {
    char got[10] = "";
    CHECK(connect(from, (void *)&server, sizeof server) == 0 && send(from, "y", 1, 0) == 1);
    CHECK(recv(to, got, sizeof got, 0) == 1 && got[0] == 'y');
    CHECK(recv(from, got, sizeof got, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

int main(int count, char **words) {
    CHECK(count == 3);
    alarm(100);
    server.sin_family = AF_INET, server.sin_port = htons(atoi(words[2]));
    CHECK(inet_pton(AF_INET, words[1], &server.sin_addr) == 1);
    const char *ways[] = {"recv", "read", "readv", "recvfrom", "recvmsg"};
    for (int at = 0; at < 10; at++) {
        way = ways[at % 5], receiver = 0;
        struct timeval patience = {60, 0};
        fd = socket(AF_INET, SOCK_DGRAM, 0);
        CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
        int copy = at >= 5 ? dup(fd) : fd;
        CHECK(copy >= 0);
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, receive, NULL) == 0);
        while (receiver == 0 || !is_asleep()) usleep(100);
        CHECK(sendto(fd, "x", 1, 0, (void *)&server, sizeof server) == 1);
        CHECK(pthread_join(thread, NULL) == 0);
        exchange(fd, copy), exchange(copy, fd);
        if (copy != fd) CHECK(close(copy) == 0);
        CHECK(close(fd) == 0);
    }
    puts("all well");
    return 0;
}
