/* Programs whose sockets become the overlay's, with a signal at each of their system calls.
 *
 * moved ADDRESS: runs each program alone, prints what it saw, and then again with a signal at one system call
 * after the other. It must see the same each time. moved ADDRESS PART runs one program. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { \
    printf("line %d: %s (errno: %s)\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

/* The call is repeated as often as a signal interrupts it. */
#define AGAIN(call) ({ ssize_t got_; do got_ = (call); while (got_ < 0 && errno == EINTR); got_; })

enum { PARTS = 4, SAID = 2000, WAIT_MS = 20000 };

static char said[SAID];
static struct sockaddr_in6 place;

static void say(const char *format, ...) {
    size_t length = strlen(said);
    va_list values;
    va_start(values, format);
    vsnprintf(said + length, sizeof said - length, format, values);
    va_end(values);
}

/* Says the error of a call that failed. */
static long result(const char *call, long got) {
    if (got < 0) say("%s: %s; ", call, strerrorname_np(errno));
    return got;
}
#define CALL(call) result(#call, call)

static void ignore(int signal) { (void)signal; }

static void wait_for(int fd, short events) {
    struct pollfd waited = {fd, events, 0};
    if (AGAIN(poll(&waited, 1, WAIT_MS)) != 1) say("nothing happens; ");
}

static int watching(int fd) {
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.fd = fd}};
    CALL(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    return epoll;
}

static void wait_epoll(int epoll, int fd) {
    struct epoll_event event;
    if (AGAIN(epoll_wait(epoll, &event, 1, WAIT_MS)) != 1 || event.data.fd != fd) say("no event; ");
}

static void got(int fd) {
    char bytes[100];
    ssize_t length = AGAIN(recv(fd, bytes, sizeof bytes, 0));
    if (CALL(length) >= 0) say("got '%.*s'; ", (int)length, bytes);
}

static void sent(int fd, const char *text) {
    ssize_t length = AGAIN(send(fd, text, strlen(text), 0));
    if (CALL(length) >= 0) say("sent %zd; ", length);
}

static int listening(struct sockaddr_in6 *at) {
    int listener = socket(AF_INET6, SOCK_STREAM, 0), on = 1;
    socklen_t length = sizeof *at;
    *at = place;
    CALL(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    CALL(bind(listener, (void *)at, length));
    CALL(listen(listener, 5));
    CALL(getsockname(listener, (void *)at, &length));
    return listener;
}

/* An interrupted attempt goes on. */
static void connected(int fd, struct sockaddr_in6 *to) {
    int error = 0;
    socklen_t length = sizeof error;
    if (connect(fd, (void *)to, sizeof *to) == 0) return;
    if (errno != EINTR && errno != EINPROGRESS) say("connect: %s; ", strerrorname_np(errno));
    wait_for(fd, POLLOUT);
    CALL(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
    if (error) say("SO_ERROR: %s; ", strerrorname_np(error));
}

static int accepted(int listener) {
    int fd = AGAIN(accept(listener, NULL, NULL));
    CALL(fd);
    return fd;
}

static void a_client(int flags) {
    struct sockaddr_in6 at, peer;
    socklen_t length = sizeof peer, word = sizeof(int);
    int on = 1, size = 100000, kept = 0, listener = listening(&at);
    int client = socket(AF_INET6, SOCK_STREAM | flags, 0), epoll = watching(client);
    CALL(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    CALL(setsockopt(client, SOL_SOCKET, SO_RCVBUF, &size, sizeof size));
    CALL(setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
    connected(client, &at);
    sent(client, "hello");
    int server = accepted(listener);
    got(server);
    sent(server, "back");
    wait_epoll(epoll, client);
    got(client);
    CALL(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &kept, &word));
    CALL(getpeername(client, (void *)&peer, &length));
    say("TCP_NODELAY %d, the peer is %s; ", kept, peer.sin6_port == at.sin6_port ? "right" : "wrong");
    CALL(shutdown(client, SHUT_WR));
    got(server);
    CALL(close(client));
    CALL(close(server));
}

static void a_server(void) {
    struct sockaddr_in6 at;
    int listener = listening(&at), epoll = watching(listener);
    int client = socket(AF_INET6, SOCK_STREAM, 0);
    connected(client, &at);
    wait_epoll(epoll, listener);
    int server = accepted(listener);
    sent(server, "x");
    got(client);
    CALL(close(server));
    got(client);
    CALL(close(client));
    CALL(close(listener));
}

static void datagrams(void) {
    struct sockaddr_in6 at = place, from;
    socklen_t length = sizeof at, word = sizeof(int);
    int on = 1, hops = 33, kept = 0;
    char bytes[100];
    int server = socket(AF_INET6, SOCK_DGRAM, 0), client = socket(AF_INET6, SOCK_DGRAM, 0);
    CALL(bind(server, (void *)&at, length));
    CALL(getsockname(server, (void *)&at, &length));
    CALL(setsockopt(client, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    CALL(setsockopt(client, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &hops, sizeof hops));
    int epoll = watching(client);
    CALL(AGAIN(sendto(client, "hello", 5, 0, (void *)&at, sizeof at)));
    wait_for(server, POLLIN);
    ssize_t count = AGAIN(recvfrom(server, bytes, sizeof bytes, MSG_DONTWAIT, (void *)&from, &length));
    if (CALL(count) >= 0) say("got '%.*s'; ", (int)count, bytes);
    CALL(AGAIN(sendto(server, "back", 4, 0, (void *)&from, length)));
    wait_epoll(epoll, client);
    CALL(connect(client, (void *)&at, sizeof at));
    got(client);
    /* Nothing came twice. */
    say("more: %s; ", recv(server, bytes, sizeof bytes, MSG_DONTWAIT) < 0 ? "none" : "some");
    CALL(getsockopt(client, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &kept, &word));
    say("IPV6_UNICAST_HOPS %d; ", kept);
    CALL(close(client));
    CALL(close(server));
}

static void run_part(int part) {
    struct sigaction action = {.sa_handler = ignore};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    /* Marks the part for the tracer. */
    syscall(SYS_getppid);
    switch (part) {
    case 0: a_client(0); break;
    case 1: a_client(SOCK_NONBLOCK); break;
    case 2: a_server(); break;
    default: datagrams();
    }
    syscall(SYS_getppid);
    puts(said);
}

/* Runs a part as another process, with a signal at one of its system calls, counted from 1; 0 for none.
 * Returns the number of its system calls; `seen` is what it said. */
static int traced(char **words, int part, int disturbed, char *seen) {
    char number[12], *own[] = {words[0], words[1], number, NULL};
    int pipes[2], status, calls = 0, is_inside = 0, is_entry = 1;
    CHECK(pipe(pipes) == 0);
    snprintf(number, sizeof number, "%d", part);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(dup2(pipes[1], 1) == 1 && close(pipes[0]) == 0 && close(pipes[1]) == 0);
        alarm(60);
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        execv(own[0], own);
        _exit(127);
    }
    close(pipes[1]);
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    CHECK(ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) == 0);
    for (long signal = 0;; ) {
        CHECK(ptrace(PTRACE_SYSCALL, child, NULL, signal) == 0);
        CHECK(waitpid(child, &status, 0) == child);
        if (!WIFSTOPPED(status)) break;
        signal = 0;
        if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
            /* Execution stops with SIGTRAP, which is not the program's. */
            signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
            continue;
        }
        if (is_entry) {
            struct __ptrace_syscall_info call;
            CHECK(ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof call, &call) > 0);
            if (call.entry.nr == SYS_getppid) is_inside = !is_inside;
            else if (is_inside && ++calls == disturbed) CHECK(kill(child, SIGUSR1) == 0);
        }
        is_entry = !is_entry;
    }
    size_t length = 0;
    for (ssize_t more; (more = read(pipes[0], seen + length, SAID - 1 - length)) > 0;) length += more;
    seen[length] = 0;
    close(pipes[0]);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) snprintf(seen, SAID, "status %x\n", status);
    return calls;
}

int main(int count, char **words) {
    static char alone[SAID], disturbed[SAID];
    int places = 0, different = 0;
    CHECK(count > 1);
    place.sin6_family = AF_INET6;
    CHECK(inet_pton(AF_INET6, words[1], &place.sin6_addr) == 1);
    if (count > 2) return run_part(atoi(words[2])), 0;
    for (int part = 0; part < PARTS; part++) {
        int calls = traced(words, part, 0, alone);
        printf("%s", alone);
        for (int at = 1; at <= calls; at++, places++) {
            traced(words, part, at, disturbed);
            if (strcmp(alone, disturbed) == 0) continue;
            printf("part %d, call %d: %s", part, at, disturbed);
            different++;
        }
    }
    fprintf(stderr, "%d places, %d different\n", places, different);
    return different > 0;
}
