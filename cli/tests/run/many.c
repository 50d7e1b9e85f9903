/* Errors that recvmmsg(2) meets after its first message: many serve ADDRESS PORT, many ask ADDRESS PORT
 * CLOSED-PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { \
    printf("line %d: %s (errno: %s)\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

static struct sockaddr_in server, closed;
static char got[2][10];
static struct iovec rooms[2] = {{got[0], 10}, {got[1], 10}};

/* Sends datagrams back, and resets connections once it has been told two bytes. */
static void serve(void) {
    int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(udp, (void *)&server, sizeof server) == 0 && bind(tcp, (void *)&server, sizeof server) == 0);
    CHECK(listen(tcp, 5) == 0);
    puts("serving"), fflush(stdout);
    struct pollfd wanted[2] = {{udp, POLLIN, 0}, {tcp, POLLIN, 0}};
    while (poll(wanted, 2, -1) > 0) {
        char byte;
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        if (wanted[0].revents && recvfrom(udp, &byte, 1, 0, (void *)&from, &length) == 1)
            CHECK(sendto(udp, &byte, 1, 0, (void *)&from, length) == 1);
        if (wanted[1].revents) {
            int fd = accept(tcp, NULL, NULL);
            struct linger none = {1, 0};
            CHECK(fd >= 0 && read(fd, &byte, 1) == 1 && write(fd, "one", 3) == 3 && read(fd, &byte, 1) == 1);
            CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0 && close(fd) == 0);
        }
    }
}

/* Two messages are wanted, of which the second comes to nothing. */
static int receive_two(int fd) {
    struct mmsghdr in[2] = {{.msg_hdr = {.msg_iov = &rooms[0], .msg_iovlen = 1}},
                            {.msg_hdr = {.msg_iov = &rooms[1], .msg_iovlen = 1}}};
    return recvmmsg(fd, in, 2, 0, NULL);
}

static void readable(int fd) {
    struct pollfd wanted = {fd, POLLIN, 0};
    CHECK(poll(&wanted, 1, 60000) == 1);
}

static void of_datagrams(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1, error = 0;
    socklen_t length = sizeof error;
    struct timeval patience = {60, 0};
    CHECK(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    for (int round = 0; round < 2; round++) {
        CHECK(sendto(fd, "x", 1, 0, (void *)&server, sizeof server) == 1);
        readable(fd);
        CHECK(sendto(fd, "y", 1, 0, (void *)&closed, sizeof closed) == 1);
        CHECK(receive_two(fd) == 1 && got[0][0] == 'x');
        if (round == 0) {
            struct msghdr message = {.msg_iov = &rooms[0], .msg_iovlen = 1};
            CHECK(recvmsg(fd, &message, 0) == -1 && errno == ECONNREFUSED);
            CHECK(recvmsg(fd, &message, MSG_DONTWAIT) == -1 && errno == EAGAIN);
        } else {
            readable(fd);
            CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == ECONNREFUSED);
        }
    }
    close(fd);
}

/* Has the server reset the connection once the first message was taken: recvmmsg(2) tells an error that came
   before it begins before all that can be read. */
static void *reset_later(void *where) {
    int fd = *(int *)where, left = 1;
    while (left > 0)
        CHECK(usleep(1000) == 0 && ioctl(fd, FIONREAD, &left) == 0);
    CHECK(write(fd, "b", 1) == 1);
    return NULL;
}

static void of_streams(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    pthread_t thread;
    CHECK(connect(fd, (void *)&server, sizeof server) == 0 && write(fd, "a", 1) == 1);
    readable(fd);
    CHECK(pthread_create(&thread, NULL, reset_later, &fd) == 0);
    CHECK(receive_two(fd) == 1 && memcmp(got[0], "one", 3) == 0);
    CHECK(recv(fd, got[0], 10, 0) == -1 && errno == ECONNRESET);
    CHECK(pthread_join(thread, NULL) == 0);
    close(fd);
}

int main(int count, char **words) {
    CHECK(count > 3);
    server.sin_family = AF_INET, server.sin_port = htons(atoi(words[3]));
    CHECK(inet_pton(AF_INET, words[2], &server.sin_addr) == 1);
    if (strcmp(words[1], "serve") == 0)
        serve();
    closed = server, closed.sin_port = htons(atoi(words[4]));
    of_datagrams(), of_streams();
    puts("all well");
    return 0;
}
