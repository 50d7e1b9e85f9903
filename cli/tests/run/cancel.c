/* Threads that are cancelled while they wait, at a server that echoes: cancel ADDRESS PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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
    printf("line %d: %s (errno: %s)\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

static struct sockaddr_in server;
static _Atomic pid_t thread_id;
static atomic_int cleanups;

struct job {
    int fd;
    void (*wait)(int fd);
};

static void wait_recv(int fd) {
    char byte;
    recv(fd, &byte, 1, 0);
}

static void wait_recvfrom(int fd) {
    char byte;
    struct sockaddr_in from;
    recvfrom(fd, &byte, 1, 0, (void *)&from, &(socklen_t){sizeof from});
}

static void wait_recvmsg(int fd) {
    char byte;
    struct iovec room = {&byte, 1};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1};
    recvmsg(fd, &message, 0);
}

static void wait_read(int fd) {
    char byte;
    CHECK(read(fd, &byte, 1) != 1);
}

static void wait_accept(int fd) {
    accept(fd, NULL, NULL);
}

static void wait_accept4(int fd) {
    struct sockaddr_in from;
    accept4(fd, (void *)&from, &(socklen_t){sizeof from}, SOCK_CLOEXEC);
}

static void clean(void *unused) {
    (void)unused;
    cleanups++;
}

static void *run(void *pointer) {
    struct job *job = pointer;
    pthread_cleanup_push(clean, NULL);
    thread_id = gettid();
    job->wait(job->fd);
    pthread_cleanup_pop(0);
    return NULL;
}

/* Whether a thread sleeps in a system call that is not one of those that wait for the node. */
static int sleeps(pid_t thread) {
    char path[64], text[64] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", thread);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    int got = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    return got && strncmp(text, "running", 7) != 0;
}

static int open_descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(folder)) count++;
    closedir(folder);
    return count;
}

/* A thread waits, is cancelled, and leaves nothing. */
static void cancelled(int fd, void (*wait)(int)) {
    struct job job = {fd, wait};
    int before = open_descriptors(), done = cleanups;
    pthread_t thread;
    void *result;
    thread_id = 0;
    CHECK(pthread_create(&thread, NULL, run, &job) == 0);
    for (int looked = 0, slept = 0; slept < 20; looked++) {
        CHECK(looked < 10000);
        usleep(1000);
        slept = thread_id && sleeps(thread_id) ? slept + 1 : 0;
    }
    CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED && cleanups == done + 1);
    CHECK(open_descriptors() == before);
}

int main(int count, char **words) {
    CHECK(count == 3);
    alarm(100);
    server.sin_family = AF_INET, server.sin_port = htons(atoi(words[2]));
    CHECK(inet_pton(AF_INET, words[1], &server.sin_addr) == 1);
    int stream = socket(AF_INET, SOCK_STREAM, 0), datagram = socket(AF_INET, SOCK_DGRAM, 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in any = {.sin_family = AF_INET};
    CHECK(connect(stream, (void *)&server, sizeof server) == 0);
    CHECK(sendto(datagram, "x", 1, 0, (void *)&server, sizeof server) == 1);
    CHECK(bind(listener, (void *)&any, sizeof any) == 0 && listen(listener, 5) == 0);
    /* Connections to the node that the first calls open are there from then on. */
    CHECK(accept4(listener, NULL, NULL, 77) == -1);
    for (int round = 0; round < 3; round++) {
        cancelled(stream, wait_recv), cancelled(stream, wait_recvfrom);
        cancelled(stream, wait_recvmsg), cancelled(stream, wait_read);
        cancelled(datagram, wait_recv), cancelled(datagram, wait_recvfrom);
        cancelled(datagram, wait_recvmsg), cancelled(datagram, wait_read);
        cancelled(listener, wait_accept), cancelled(listener, wait_accept4);
    }
    /* What they waited on works for others. */
    char got[10];
    CHECK(write(stream, "echo", 4) == 4 && recv(stream, got, 4, MSG_WAITALL) == 4);
    struct sockaddr_in own;
    socklen_t length = sizeof own;
    CHECK(getsockname(stream, (void *)&own, &length) == 0);
    CHECK(getsockname(listener, (void *)&any, &length) == 0);
    own.sin_port = any.sin_port;
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (void *)&own, sizeof own) == 0);
    int accepted = accept(listener, NULL, NULL);
    CHECK(accepted >= 0 && write(client, "x", 1) == 1 && read(accepted, got, 1) == 1);
    puts("all well");
    return 0;
}
