/* What observations are made with: sockets at an address, waiting, and lines that say what came of a call. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 5000 /* ms */

static const char *topic = "";
static union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} own, other;
static socklen_t size;

static const char *name_of(int number) {
    static char text[4][20];
    static int at;
    const char *name = strerrorname_np(number);
    if (name) return name;
    snprintf(text[at = (at + 1) % 4], 20, "errno %d", number);
    return text[at];
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    printf("%s: ", topic);
    vprintf(format, list);
    va_end(list);
    puts("");
    fflush(stdout);
}

/* A call and what it returns, or its error. */
#define SEE(call) do { \
    errno = 0; \
    long result_ = (long)(call); \
    if (result_ < 0) say("%s = %s", #call, name_of(errno)); \
    else say("%s = %ld", #call, result_); \
} while (0)

/* A call that returns a descriptor, of which only whether it came counts. */
#define SEE_FD(call) do { \
    int result_ = (call); \
    say("%s = %s", #call, result_ < 0 ? name_of(errno) : "a descriptor"); \
    if (result_ >= 0) close(result_); \
} while (0)

#define MUST(call) ({ \
    long result_ = (long)(call); \
    if (result_ < 0) say("FAILED line %d: %s: %s", __LINE__, #call, name_of(errno)), exit(1); \
    (int)result_; \
})

static const char *events_of(int events) {
    static char text[4][80];
    static int at;
    static const struct { int bit; const char *name; } all[] = {{POLLIN, "IN"}, {POLLPRI, "PRI"}, {POLLOUT, "OUT"},
        {POLLRDHUP, "RDHUP"}, {POLLERR, "ERR"}, {POLLHUP, "HUP"}, {POLLNVAL, "NVAL"}};
    char *to = text[at = (at + 1) % 4];
    *to = 0;
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        if (events & all[i].bit) {
            if (*to) strcat(to, " ");
            strcat(to, all[i].name);
        }
    return *to ? to : "nothing";
}

static int look(int fd) {
    struct pollfd wanted = {.fd = fd, .events = POLLIN | POLLPRI | POLLOUT | POLLRDHUP};
    poll(&wanted, 1, 0);
    return wanted.revents;
}

/* Waits until all of these are told. */
static int await(int fd, int events) {
    for (int waited = 0; waited < PATIENCE && (look(fd) & events) != events; waited += 5) usleep(5000);
    return look(fd);
}

#define POLL(fd, events) say("poll(" #fd ") after " #events " = %s", events_of(await(fd, events)))

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, name, &value, &length) ? -errno : value;
}

static void set(int fd, int level, int name, int value) {
    MUST(setsockopt(fd, level, name, &value, sizeof value));
}

static int opened(int type) {
    return MUST(socket(own.any.sa_family, type, 0));
}

/* A socket on a port of the system's choice, its address in `own`. */
static int bound(int type) {
    int fd = opened(type);
    if (own.any.sa_family == AF_INET) own.v4.sin_port = 0;
    else own.v6.sin6_port = 0;
    MUST(bind(fd, &own.any, size));
    socklen_t length = sizeof own;
    MUST(getsockname(fd, &own.any, &length));
    return fd;
}

static int listening(int backlog) {
    int fd = bound(SOCK_STREAM);
    MUST(listen(fd, backlog));
    return fd;
}

static void set_port(int port) {
    if (other.any.sa_family == AF_INET) other.v4.sin_port = htons(port);
    else other.v6.sin6_port = htons(port);
}

/* A port where nobody is. */
static void at_nobody(int type) {
    int fd = bound(type);
    other = own;
    close(fd);
    usleep(20000);
}

/* Two ends of a connection. */
static void pair(int *client, int *server) {
    int listener = listening(8);
    *client = opened(SOCK_STREAM);
    MUST(connect(*client, &own.any, size));
    *server = MUST(accept(listener, NULL, NULL));
    close(listener);
}

/* An end whose peer has sent this, and then has reset the connection. */
static int reset_after(const char *text) {
    int client, server;
    struct linger linger = {1, 0};
    pair(&client, &server);
    MUST(send(client, text, strlen(text), 0));
    await(server, POLLIN);
    MUST(setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    close(client);
    return server;
}

static void block(int fd, int whether) {
    int flags = MUST(fcntl(fd, F_GETFL));
    MUST(fcntl(fd, F_SETFL, whether ? flags & ~O_NONBLOCK : flags | O_NONBLOCK));
}

static void part(int one, int another) {
    close(one);
    close(another);
}

/* The name of a socket, with what chance has chosen left out. */
static const char *shown(int fd, int (*get)(int, struct sockaddr *, socklen_t *)) {
    static char text[80];
    union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; struct sockaddr_storage all; } got;
    memset(&got, 0x55, sizeof got);
    socklen_t length = sizeof got;
    if (get(fd, &got.any, &length)) return name_of(errno);
    int port = ntohs(got.any.sa_family == AF_INET ? got.v4.sin_port : got.v6.sin6_port);
    int is_any = got.any.sa_family == AF_INET ? got.v4.sin_addr.s_addr == 0 : IN6_IS_ADDR_UNSPECIFIED(&got.v6.sin6_addr);
    int is_own = got.any.sa_family == AF_INET ? got.v4.sin_addr.s_addr == own.v4.sin_addr.s_addr
                                              : !memcmp(&got.v6.sin6_addr, &own.v6.sin6_addr, 16);
    snprintf(text, sizeof text, "%s %s, %u bytes", is_any ? "any address" : is_own ? "own address" : "another address",
        port ? "and a port" : "without a port", length);
    return text;
}

static void *send_later(void *fd) {
    usleep(100000);
    send(*(int *)fd, "cd", 2, 0);
    return NULL;
}
