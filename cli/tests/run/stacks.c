/*
 * Each kind of call in a thread of its own with the smallest stack that there is: on the kernel none needs
 * more, and what a library needs is taken from there.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static struct sockaddr_in to = {.sin_family = AF_INET};
static const char *program;

static int stream(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (void *)&to, sizeof to)) return -1;
    return fd;
}

static int connecting(void) {
    char byte = 'x';
    int fd = stream(), on = 1;
    struct sockaddr_storage name;
    socklen_t length = sizeof name, size = sizeof on;
    if (fd < 0) return 1;
    if (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on)) return 2;
    if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &on, &size)) return 3;
    if (getsockname(fd, (void *)&name, &length)) return 4;
    length = sizeof name;
    if (getpeername(fd, (void *)&name, &length)) return 5;
    if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1) return 6;
    if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) return 7;
    if (ioctl(fd, TIOCOUTQ, &on)) return 8;
    if (shutdown(fd, SHUT_WR)) return 9;
    return close(fd);
}

static int listening(void) {
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t length = sizeof any;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(fd, (void *)&any, sizeof any) || listen(fd, 5)) return 1;
    if (getsockname(fd, (void *)&any, &length)) return 2;
    if (accept(fd, NULL, NULL) != -1 || errno != EAGAIN) return 3;
    return close(fd);
}

static int datagrams(void) {
    char data[4] = "abc";
    struct iovec piece = {data, sizeof data};
    struct msghdr one = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &piece, .msg_iovlen = 1};
    struct mmsghdr many = {.msg_hdr = one};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (sendto(fd, data, sizeof data, 0, (void *)&to, sizeof to) != sizeof data) return 1;
    if (recvfrom(fd, data, sizeof data, 0, NULL, NULL) != sizeof data) return 2;
    if (sendmsg(fd, &one, 0) != sizeof data || recvmsg(fd, &one, 0) != sizeof data) return 3;
    if (sendmmsg(fd, &many, 1, 0) != 1 || recvmmsg(fd, &many, 1, 0, NULL) != 1) return 4;
    return close(fd);
}

static int names(void) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list;
    struct sockaddr_in found = {.sin_family = AF_INET, .sin_addr = to.sin_addr};
    char host[64];
    if (getaddrinfo("alpha", "80", &hints, &list)) return 1;
    freeaddrinfo(list);
    if (getnameinfo((void *)&found, sizeof found, host, sizeof host, NULL, 0, 0)) return 2;
    if (!gethostbyname("alpha") || !gethostbyaddr(&to.sin_addr, 4, AF_INET)) return 3;
    return 0;
}

static int interfaces(void) {
    struct ifaddrs *list;
    struct if_nameindex *names;
    if (getifaddrs(&list)) return 1;
    freeifaddrs(list);
    if (!(names = if_nameindex())) return 2;
    if_freenameindex(names);
    return !if_nametoindex("lo");
}

static int starting(void) {
    char *arguments[] = {(char *)program, "nothing", NULL};
    int status;
    pid_t child = fork();
    if (child == 0) {
        execv(program, arguments);
        _exit(9);
    }
    if (waitpid(child, &status, 0) != child || status) return 1;
    if (posix_spawnp(&child, "true", NULL, NULL, arguments, environ)) return 2;
    if (waitpid(child, &status, 0) != child || status) return 3;
    return 0;
}

static const struct {
    const char *name;
    int (*call)(void);
} KINDS[] = {{"connecting", connecting}, {"listening", listening}, {"datagrams", datagrams},
             {"names", names},           {"interfaces", interfaces}, {"starting", starting}};

static void *work(void *kind) {
    return (void *)(long)KINDS[(long)kind].call();
}

int main(int count, char **arguments) {
    if (count < 3) return 0;
    program = arguments[0];
    inet_pton(AF_INET, arguments[1], &to.sin_addr);
    to.sin_port = htons(atoi(arguments[2]));
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
    for (long kind = 0; kind < (long)(sizeof KINDS / sizeof *KINDS); kind++) {
        pthread_t thread;
        void *failed;
        // Said before: a stack that ends ends the program.
        printf("%s", KINDS[kind].name);
        fflush(stdout);
        if (pthread_create(&thread, &attributes, work, (void *)kind) || pthread_join(thread, &failed)) return 1;
        if (failed) {
            printf(": fails at %ld\n", (long)failed);
            return 1;
        }
        printf(" ");
    }
    puts("all well");
}
