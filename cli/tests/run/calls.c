/* Ways in which programs use sockets, each tried with a server that echoes: calls ADDRESS PORT CLOSED-PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { \
    printf("line %d: %s (errno: %s)\n", __LINE__, #what, strerror(errno)); exit(1); } } while (0)

/* Whether sending and receiving without an address is the kernel's alone (--mode seccomp). */
#ifndef BY_KERNEL
#define BY_KERNEL 0
#endif

static struct sockaddr_in server, closed;

static int opened(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (void *)&server, sizeof server) == 0);
    return fd;
}

/* What is sent comes back. */
static void echoes(int fd, const char *text) {
    char got[100];
    size_t length = strlen(text), have = 0;
    CHECK(write(fd, text, length) == (ssize_t)length);
    while (have < length) {
        ssize_t n = read(fd, got + have, length - have);
        CHECK(n > 0);
        have += n;
    }
    CHECK(memcmp(got, text, length) == 0);
}

static void child(pid_t pid) {
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

static void epoll_before_connect(void) {
    int set = epoll_create1(0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), other = opened();
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u64 = 77};
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
    int connected = connect(fd, (void *)&server, sizeof server);
    CHECK(connected == 0 || errno == EINPROGRESS);
    do {
        CHECK(epoll_wait(set, &event, 1, 10000) == 1 && event.data.u64 == 77);
    } while (!(event.events & EPOLLOUT));
    int error = -1;
    socklen_t length = sizeof error;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0);
    CHECK(write(fd, "x", 1) == 1);
    do {
        CHECK(epoll_wait(set, &event, 1, 10000) == 1 && event.data.u64 == 77);
    } while (!(event.events & EPOLLIN));
    CHECK(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL) == 0);
    close(set), close(fd), close(other);
}

static void ppoll_and_pselect(void) {
    int fd = opened();
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    struct timespec none = {0}, long_time = {10, 0};
    CHECK(ppoll(&wanted, 1, &none, NULL) == 0);
    CHECK(send(fd, "p", 1, 0) == 1);
    CHECK(ppoll(&wanted, 1, &long_time, NULL) == 1 && wanted.revents == POLLIN);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    CHECK(pselect(fd + 1, &set, NULL, NULL, &long_time, NULL) == 1);
    int there = 0;
    char peeked[2];
    CHECK(ioctl(fd, FIONREAD, &there) == 0 && there == 1);
    CHECK(recv(fd, peeked, 2, MSG_PEEK | MSG_DONTWAIT) == 1 && recv(fd, peeked, 2, 0) == 1);
    CHECK(recv(fd, peeked, 2, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    CHECK(shutdown(fd, SHUT_WR) == 0 && read(fd, peeked, 2) == 0);
    close(fd);
}

static void descriptors_that_are_copied(void) {
    int fd = opened(), other = opened(), high = fcntl(fd, F_DUPFD_CLOEXEC, 50);
    echoes(high, "copied");
    CHECK(dup2(other, fd) == fd);
    echoes(fd, "replaced"), echoes(high, "still there");
    close(other), close(high), echoes(fd, "last");
    pid_t pid = fork();
    if (pid == 0) {
        echoes(fd, "forked");
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        CHECK(getpeername(fd, (void *)&peer, &length) == 0 && memcmp(&peer, &server, 8) == 0);
        echoes(opened(), "opened in a child");
        exit(0);
    }
    child(pid);
    pid = vfork();
    if (pid == 0) {
        dup2(fd, 1);
        execl("/bin/sh", "sh", "-c", "printf executed", NULL);
        _exit(1);
    }
    child(pid);
    char got[9] = "";
    CHECK(recv(fd, got, 8, MSG_WAITALL) == 8 && strcmp(got, "executed") == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd, 0), posix_spawn_file_actions_adddup2(&actions, fd, 1);
    char *words[] = {"sh", "-c", "printf 'spawned\\n'; read word; test $word = spawned", NULL};
    CHECK(posix_spawn(&pid, "/bin/sh", &actions, NULL, words, environ) == 0);
    child(pid);
    close(fd);
}

/* A copy that was made before is the same socket. */
static void copies_that_are_made_early(void) {
    int set = epoll_create1(0), fd = socket(AF_INET, SOCK_STREAM, 0);
    int copies[] = {dup(fd), fcntl(fd, F_DUPFD, 60), dup2(fd, 70)};
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 78};
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, copies[0], &event) == 0);
    CHECK(connect(fd, (void *)&server, sizeof server) == 0);
    for (int i = 0; i < 3; i++) echoes(copies[i], "a copy");
    close(fd), close(copies[1]), close(copies[2]), echoes(copies[0], "the last copy");
    CHECK(write(copies[0], "x", 1) == 1 && epoll_wait(set, &event, 1, 10000) == 1 && event.data.u64 == 78);
    close(copies[0]), close(set);
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t length = sizeof any;
    fd = socket(AF_INET, SOCK_STREAM, 0);
    int copy = dup(fd);
    CHECK(bind(copy, (void *)&any, sizeof any) == 0 && listen(copy, 5) == 0);
    CHECK(getsockname(fd, (void *)&any, &length) == 0 && any.sin_port != 0);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && accept(fd, NULL, NULL) == -1 && errno == EAGAIN);
    close(fd), close(copy);
}

static void descriptors_that_are_passed(void) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    pid_t pid = fork();
    char space[CMSG_SPACE(sizeof(int))] = {0}, byte = 1;
    struct iovec piece = {&byte, 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = space,
                             .msg_controllen = sizeof space};
    int fd;
    if (pid == 0) {
        CHECK(recvmsg(pair[1], &message, MSG_CMSG_CLOEXEC) == 1);
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
        echoes(fd, "passed");
        exit(0);
    }
    fd = opened();
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    CHECK(sendmsg(pair[0], &message, 0) == 1);
    close(fd), child(pid), close(pair[0]), close(pair[1]);
}

static void everything_closed(void) {
    pid_t pid = fork();
    if (pid == 0) {
        int fd = opened();
        CHECK(dup2(fd, 3) == 3 || fd == 3);
        CHECK(syscall(SYS_close_range, 4, ~0U, 0) == 0);
        echoes(3, "kept");
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        CHECK(getsockname(3, (void *)&peer, &length) == 0 && peer.sin_port != 0);
        echoes(opened(), "new");
        exit(0);
    }
    child(pid);
}

static void many_at_once(void) {
    int fd = opened();
    char a[] = "one", b[] = "two", got[7] = "";
    struct iovec pieces[2] = {{a, 3}, {b, 3}}, room = {got, 6};
    struct mmsghdr out[2] = {{.msg_hdr = {.msg_iov = &pieces[0], .msg_iovlen = 1}},
                             {.msg_hdr = {.msg_iov = &pieces[1], .msg_iovlen = 1}}};
    struct mmsghdr in[1] = {{.msg_hdr = {.msg_iov = &room, .msg_iovlen = 1}}};
    CHECK(sendmmsg(fd, out, 2, 0) == 2 && out[1].msg_len == 3);
    CHECK(recvmmsg(fd, in, 1, MSG_WAITALL, NULL) == 1 && in[0].msg_len == 6 && strcmp(got, "onetwo") == 0);
    CHECK(writev(fd, pieces, 2) == 6 && recv(fd, got, 6, MSG_WAITALL) == 6);
    int file = open("/proc/self/exe", O_RDONLY), pipes[2];
    CHECK(sendfile(fd, file, NULL, 1000) == 1000 && pipe(pipes) == 0);
    for (int left = 1000; left > 0;) {
        ssize_t n = splice(fd, NULL, pipes[1], NULL, left, 0);
        CHECK(n > 0);
        left -= n;
    }
    char sent[1000], received[1000];
    CHECK(pread(file, sent, 1000, 0) == 1000 && read(pipes[0], received, 1000) == 1000);
    CHECK(memcmp(sent, received, 1000) == 0);
    close(fd), close(file), close(pipes[0]), close(pipes[1]);
}

static void errors_and_options(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), error = 0, on = 1;
    socklen_t length = sizeof error;
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    CHECK(connect(fd, (void *)&closed, sizeof closed) == -1 && errno == ECONNREFUSED);
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &error, &length) == 0 && error == 1);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connect(fd, (void *)&closed, sizeof closed) == -1 && errno == EINPROGRESS) {
        struct pollfd wanted = {.fd = fd, .events = POLLOUT};
        CHECK(poll(&wanted, 1, 10000) == 1);
        CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0);
        errno = error;
    }
    CHECK(errno == ECONNREFUSED);
    close(fd);
    fd = opened();
    struct tcp_info info;
    length = sizeof info;
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_ESTABLISHED);
    CHECK(length > 100 && info.tcpi_snd_mss > 500);
    CHECK(connect(fd, (void *)&server, sizeof server) == -1 && errno == EISCONN);
    close(fd);
}

/* Several datagrams at once, with the addresses that they come from and go to. */
static void datagrams(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    struct timeval patience = {10, 0};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    CHECK(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) == 0);
    char sent[3][2] = {"a", "b", "c"}, got[3][10];
    char control[3][200];
    struct sockaddr_in from[3];
    struct iovec out_pieces[3], in_pieces[3];
    struct mmsghdr out[3] = {0}, in[3] = {0};
    for (int i = 0; i < 3; i++) {
        out_pieces[i] = (struct iovec){sent[i], 1}, in_pieces[i] = (struct iovec){got[i], 10};
        out[i].msg_hdr = (struct msghdr){&server, sizeof server, &out_pieces[i], 1, NULL, 0, 0};
        in[i].msg_hdr =
            (struct msghdr){&from[i], sizeof from[i], &in_pieces[i], 1, control[i], sizeof control[i], 0};
    }
    CHECK(sendmmsg(fd, out, 3, 0) == 3);
    int have = 0, seen = 0;
    while (have < 3) {
        int n = recvmmsg(fd, in + have, 3 - have, MSG_WAITFORONE, NULL);
        CHECK(n > 0);
        have += n;
    }
    for (int i = 0; i < 3; i++) {
        CHECK(in[i].msg_len == 1 && memcmp(&from[i], &server, 8) == 0);
        seen += got[i][0];
        struct cmsghdr *header = CMSG_FIRSTHDR(&in[i].msg_hdr);
        CHECK(header != NULL && header->cmsg_type == IP_PKTINFO);
    }
    CHECK(seen == 'a' + 'b' + 'c');
    CHECK(connect(fd, (void *)&closed, sizeof closed) == 0 && send(fd, "x", 1, 0) == 1);
    /* Where no library is in between this is the kernel's own, and says less. */
    CHECK(recv(fd, got[0], 10, 0) == -1 && (errno == ECONNREFUSED || (BY_KERNEL && errno == ECONNRESET)));
    close(fd);
}

/* What the library has to do itself though it leaves sending and closing to the kernel otherwise. */
static void long_datagrams_urgent_data_and_lingering(void) {
    static char big[65507];
    int fd = socket(AF_INET, SOCK_DGRAM, 0), discover = IP_PMTUDISC_DO, on = 1;
    CHECK(setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof discover) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on) == 0);
    CHECK(sendto(fd, big, sizeof big, 0, (void *)&server, sizeof server) == -1 && errno == EMSGSIZE);
    CHECK(connect(fd, (void *)&server, sizeof server) == 0);
    CHECK(BY_KERNEL || (send(fd, big, sizeof big, 0) == -1 && errno == EMSGSIZE));
    CHECK(send(fd, "x", 1, MSG_OOB) == -1 && errno == EOPNOTSUPP);
    CHECK(send(fd, "x", 1, 0) == 1);
    char got[10];
    union {
        char bytes[100];
        struct cmsghdr aligned;
    } control;
    struct iovec piece = {got, sizeof got};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    CHECK(recvmsg(fd, &message, 0) == 1);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    CHECK(header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_TIMESTAMP);
    discover = IP_PMTUDISC_WANT;
    CHECK(setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof discover) == 0);
    CHECK(send(fd, big, sizeof big, 0) == sizeof big);
    /* Longer than any packet. */
    static char huge[65508];
    struct iovec halves[] = {{huge, 65000}, {huge, 508}};
    CHECK(sendto(fd, huge, sizeof huge, 0, (void *)&server, sizeof server) == -1 && errno == EMSGSIZE);
    CHECK(BY_KERNEL || (send(fd, huge, sizeof huge, 0) == -1 && errno == EMSGSIZE));
    CHECK(BY_KERNEL || (write(fd, huge, sizeof huge) == -1 && errno == EMSGSIZE));
    CHECK(BY_KERNEL || (writev(fd, halves, 2) == -1 && errno == EMSGSIZE));
    CHECK(send(fd, huge, 65507, 0) == 65507 && write(fd, huge, 65507) == 65507);
    halves[1].iov_len--;
    CHECK(writev(fd, halves, 2) == 65507);
    close(fd);

    fd = opened();
    struct linger linger = {1, 60};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    CHECK(send(fd, "x", 1, MSG_OOB) == -1 && errno == EOPNOTSUPP);
    CHECK(recv(fd, got, 1, MSG_OOB) == -1);
    echoes(fd, "lingering");
    CHECK(write(fd, big, 1000) == 1000);
    int copy = dup(fd), pipes[2];
    CHECK(close(fd) == 0 && close(copy) == 0 && close(copy) == -1 && errno == EBADF);
    CHECK(pipe(pipes) == 0 && close(pipes[0]) == 0 && close(pipes[1]) == 0);
}

/* Whom SIGIO goes to stays when a socket becomes the overlay's. */
static void owners_of_signals(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fcntl(fd, F_SETOWN, getpid()) == 0 && fcntl(fd, F_SETSIG, SIGURG) == 0);
    CHECK(connect(fd, (void *)&server, sizeof server) == 0);
    CHECK(fcntl(fd, F_GETOWN) == getpid() && fcntl(fd, F_GETSIG) == SIGURG);
    close(fd);
}

/* A time that never ends, and one that is none. */
static void times_of_recvmmsg(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(sendto(fd, "x", 1, 0, (void *)&server, sizeof server) == 1);
    char got[10];
    struct iovec piece = {got, sizeof got};
    struct mmsghdr message = {.msg_hdr = {.msg_iov = &piece, .msg_iovlen = 1}};
    struct timespec ever = {.tv_sec = INT64_MAX}, none = {.tv_nsec = 1000000000};
    CHECK(BY_KERNEL || (recvmmsg(fd, &message, 1, 0, &none) == -1 && errno == EINVAL));
    CHECK(recvmmsg(fd, &message, 1, 0, &ever) == 1 && got[0] == 'x');
    close(fd);
}

/* Every program of the machine may send to the abstract name that an overlay socket has at the kernel. */
static void datagrams_of_other_programs(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), other = socket(AF_UNIX, SOCK_DGRAM, 0);
    char got[10];
    CHECK(sendto(fd, "", 0, 0, (void *)&closed, sizeof closed) == 0);
    struct sockaddr_un own = {0}, named = {.sun_family = AF_UNIX};
    socklen_t length = sizeof own;
    CHECK(syscall(SYS_getsockname, fd, &own, &length) == 0);
    // A filter of system calls gives the overlay's address.
    for (int has_name = 0; own.sun_family == AF_UNIX && has_name < 2; has_name++) {
        if (has_name)
            CHECK(bind(other, (void *)&named, sizeof named.sun_family) == 0);
        CHECK(sendto(other, "forged", 6, 0, (void *)&own, length) == 6);
        CHECK(recv(fd, got, 10, MSG_DONTWAIT | MSG_PEEK) == -1 && errno == EAGAIN);
        CHECK(sendto(other, "forged", 6, 0, (void *)&own, length) == 6);
        CHECK(recv(fd, got, 10, MSG_DONTWAIT) == -1 && errno == EAGAIN);
        CHECK(sendto(other, "forged", 6, 0, (void *)&own, length) == 6);
        CHECK(recvfrom(fd, got, 10, MSG_DONTWAIT, NULL, NULL) == -1 && errno == EAGAIN);
    }
    close(fd), close(other);
}

/* Takes one connection on a socket that was bound to no port in particular. */
static void accepted(void) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6}, peer;
    socklen_t length = sizeof any;
    CHECK(bind(fd, (void *)&any, sizeof any) == 0 && getsockname(fd, (void *)&any, &length) == 0);
    CHECK(any.sin6_port != 0 && listen(fd, 5) == 0);
    printf("port %d\n", ntohs(any.sin6_port)), fflush(stdout);
    int connection = accept4(fd, (void *)&peer, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
    CHECK(connection >= 0 && peer.sin6_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr));
    CHECK(fcntl(connection, F_GETFD) == FD_CLOEXEC && fcntl(connection, F_GETFL) & O_NONBLOCK);
    CHECK(write(connection, "accepted\n", 9) == 9);
}

int main(int count, char **words) {
    if (count == 1) {
        accepted();
        return 0;
    }
    CHECK(syscall(SYS_io_uring_setup, 1, NULL) == -1 && errno == ENOSYS);
    server.sin_family = AF_INET, server.sin_port = htons(atoi(words[2]));
    CHECK(inet_pton(AF_INET, words[1], &server.sin_addr) == 1);
    closed = server, closed.sin_port = htons(atoi(words[3]));
    epoll_before_connect(), ppoll_and_pselect(), descriptors_that_are_copied();
    copies_that_are_made_early(), descriptors_that_are_passed();
    everything_closed(), many_at_once(), errors_and_options(), datagrams(), datagrams_of_other_programs();
    owners_of_signals(), times_of_recvmmsg();
    long_datagrams_urgent_data_and_lingering();
    puts("all well");
    return 0;
}
