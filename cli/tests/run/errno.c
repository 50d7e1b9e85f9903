/* Calls that succeed leave errno as it was, each of those that the preloaded library takes the place of, on
 * sockets of both networks: errno ADDRESS PORT, where a server echoes TCP and UDP */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define BEFORE 4711

/* A call that has to succeed, and to do so in silence. */
#define QUIET(call) do { \
    errno = BEFORE; \
    if (!(call)) printf("line %d: %s: %s\n", __LINE__, #call, strerror(errno)), exit(1); \
    if (errno != BEFORE) printf("line %d: %s: errno became %s\n", __LINE__, #call, strerror(errno)), exit(1); \
} while (0)

/* As programs call them that were compiled with _FORTIFY_SOURCE. */
ssize_t __read_chk(int, void *, size_t, size_t);
ssize_t __recv_chk(int, void *, size_t, size_t, int);
ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);

static void wait_for(int fd) {
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    if (poll(&wanted, 1, 60000) != 1) puts("nothing came"), exit(1);
}

/* Echoes over a socket that is connected. */
static void exchange(int fd) {
    char byte = 'x', got[8];
    struct iovec piece = {&byte, 1}, room = {got, sizeof got};
    struct msghdr out = {.msg_iov = &piece, .msg_iovlen = 1}, in = {.msg_iov = &room, .msg_iovlen = 1};
    struct mmsghdr many_out = {.msg_hdr = out}, many_in = {.msg_hdr = in};
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    QUIET(send(fd, &byte, 1, 0) == 1);
    wait_for(fd);
    QUIET(recv(fd, got, sizeof got, 0) == 1);
    QUIET(send(fd, &byte, 1, 0) == 1);
    wait_for(fd);
    QUIET(__recv_chk(fd, got, sizeof got, sizeof got, 0) == 1);
    QUIET(sendto(fd, &byte, 1, 0, NULL, 0) == 1);
    wait_for(fd);
    QUIET(recvfrom(fd, got, sizeof got, 0, (void *)&address, &length) == 1);
    QUIET(send(fd, &byte, 1, 0) == 1);
    wait_for(fd);
    QUIET(__recvfrom_chk(fd, got, sizeof got, sizeof got, 0, NULL, NULL) == 1);
    QUIET(write(fd, &byte, 1) == 1);
    wait_for(fd);
    QUIET(read(fd, got, sizeof got) == 1);
    QUIET(syscall(SYS_write, fd, &byte, 1) == 1);
    QUIET(syscall(SYS_read, fd, got, sizeof got) == 1);
    QUIET(writev(fd, &piece, 1) == 1);
    wait_for(fd);
    QUIET(readv(fd, &room, 1) == 1);
    QUIET(write(fd, &byte, 1) == 1);
    wait_for(fd);
    QUIET(__read_chk(fd, got, sizeof got, sizeof got) == 1);
    QUIET(sendmsg(fd, &out, 0) == 1);
    wait_for(fd);
    QUIET(recvmsg(fd, &in, 0) == 1);
    QUIET(sendmmsg(fd, &many_out, 1, 0) == 1);
    wait_for(fd);
    QUIET(recvmmsg(fd, &many_in, 1, 0, NULL) == 1);
    length = sizeof address;
    QUIET(getsockname(fd, (void *)&address, &length) == 0);
    length = sizeof address;
    QUIET(getpeername(fd, (void *)&address, &length) == 0);
    int value = 1;
    length = sizeof value;
    QUIET(getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length) == 0);
    QUIET(setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &value, sizeof value) == 0);
}

static void stream_to(const struct sockaddr *server, socklen_t length) {
    int fd, set = epoll_create1(0), on = 1;
    struct epoll_event event = {.events = EPOLLIN};
    struct linger linger = {1, 60};
    QUIET((fd = socket(server->sa_family, SOCK_STREAM, 0)) >= 0);
    QUIET(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    int copy;
    QUIET((copy = dup(fd)) >= 0);
    QUIET(dup2(fd, copy) == copy);
    QUIET(dup3(fd, copy, O_CLOEXEC) == copy);
    QUIET(fcntl(copy, F_GETFL) >= 0);
    QUIET(fcntl64(copy, F_GETFD) == FD_CLOEXEC);
    close(copy);
    QUIET(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
    QUIET(connect(fd, server, length) == 0);
    exchange(fd);
    QUIET(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL) == 0);
    int file = open("/proc/self/exe", O_RDONLY);
    char got;
    QUIET(sendfile(fd, file, NULL, 1) == 1);
    wait_for(fd);
    QUIET(read(fd, &got, 1) == 1);
    QUIET(sendfile64(fd, file, NULL, 1) == 1);
    wait_for(fd);
    QUIET(read(fd, &got, 1) == 1);
    close(file);
    /* What came back was acknowledged. */
    int left = -1;
    QUIET(ioctl(fd, SIOCOUTQ, &left) == 0 && left >= 0);
    for (int tries = 0; left > 0 && tries < 6000; tries++) usleep(10000), ioctl(fd, SIOCOUTQ, &left);
    if (left != 0) printf("%d bytes are not acknowledged\n", left), exit(1);
    QUIET(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    QUIET(shutdown(fd, SHUT_WR) == 0);
    QUIET(close(fd) == 0);
    close(set);
}

static void datagrams_to(const struct sockaddr *server, socklen_t length) {
    int fd;
    QUIET((fd = socket(server->sa_family, SOCK_DGRAM, 0)) >= 0);
    QUIET(sendto(fd, "x", 1, 0, server, length) == 1);
    wait_for(fd);
    char got[8];
    QUIET(recvfrom(fd, got, sizeof got, 0, NULL, NULL) == 1);
    QUIET(connect(fd, server, length) == 0);
    exchange(fd);
    QUIET(close(fd) == 0);
}

/* A listener, whose address is the overlay's or not, and a connection to it. */
static void listener_on(const struct sockaddr_in *local) {
    struct sockaddr_in address = *local, peer;
    socklen_t length = sizeof address;
    int fd, client, accepted, on = 1;
    QUIET((fd = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    QUIET(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    QUIET(bind(fd, (void *)&address, sizeof address) == 0);
    QUIET(listen(fd, 5) == 0);
    QUIET(getsockname(fd, (void *)&address, &length) == 0);
    if (address.sin_addr.s_addr == INADDR_ANY) {
        close(fd);
        return;
    }
    for (int round = 0; round < 2; round++) {
        QUIET((client = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
        QUIET(connect(client, (void *)&address, sizeof address) == 0);
        length = sizeof peer;
        if (round == 0) QUIET((accepted = accept(fd, (void *)&peer, &length)) >= 0);
        else QUIET((accepted = accept4(fd, (void *)&peer, &length, SOCK_CLOEXEC)) >= 0);
        QUIET(close(client) == 0);
        QUIET(close(accepted) == 0);
    }
    QUIET(close(fd) == 0);
}

/* Whether a call that puts another program in this one's place does so in a child. */
#define IN_CHILD(call) ({ \
    pid_t child = fork(); \
    if (child == 0) call, _exit(99); \
    ends_well(child); \
})

static int ends_well(pid_t child) {
    int status, before = errno;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0 && (errno = before, 1);
}

static void programs(void) {
    char *words[] = {"true", NULL}, *none[] = {NULL};
    pid_t child;
    FILE *pipe;
    QUIET(posix_spawn(&child, "/bin/true", NULL, NULL, words, none) == 0 && ends_well(child));
    QUIET(posix_spawnp(&child, "true", NULL, NULL, words, none) == 0 && ends_well(child));
    QUIET(IN_CHILD(execve("/bin/true", words, none)));
    QUIET(IN_CHILD(execveat(AT_FDCWD, "/bin/true", words, none, 0)));
    QUIET(IN_CHILD(fexecve(open("/bin/true", O_RDONLY), words, none)));
    QUIET(IN_CHILD(execv("/bin/true", words)));
    QUIET(IN_CHILD(execvp("true", words)));
    QUIET(IN_CHILD(execvpe("true", words, none)));
    QUIET(IN_CHILD(execl("/bin/true", "true", NULL)));
    QUIET(IN_CHILD(execlp("true", "true", NULL)));
    QUIET(IN_CHILD(execle("/bin/true", "true", NULL, none)));
    QUIET(system("true") == 0);
    QUIET((pipe = popen("true", "r")) != NULL);
    pclose(pipe);
}

static void names(const char *name) {
    struct addrinfo *list, hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[100], room[1000];
    struct hostent entry, *found;
    int error;
    QUIET(getaddrinfo(name, "80", &hints, &list) == 0);
    memcpy(&address, list->ai_addr, sizeof address);
    freeaddrinfo(list);
    QUIET(getnameinfo((void *)&address, sizeof address, host, sizeof host, NULL, 0, 0) == 0);
    QUIET(gethostbyname(name) != NULL);
    QUIET(gethostbyname2(name, AF_INET) != NULL);
    QUIET(gethostbyname_r(name, &entry, room, sizeof room, &found, &error) == 0 && found != NULL);
    QUIET(gethostbyname2_r(name, AF_INET, &entry, room, sizeof room, &found, &error) == 0 && found != NULL);
    const void *ip = &address.sin_addr;
    QUIET(gethostbyaddr(ip, 4, AF_INET) != NULL);
    QUIET(gethostbyaddr_r(ip, 4, AF_INET, &entry, room, sizeof room, &found, &error) == 0 && found != NULL);
}

static void interfaces(void) {
    struct ifaddrs *list;
    struct if_nameindex *indices;
    char name[IF_NAMESIZE];
    QUIET(getifaddrs(&list) == 0);
    QUIET((freeifaddrs(list), 1));
    QUIET((indices = if_nameindex()) != NULL);
    unsigned last = 0;
    for (struct if_nameindex *one = indices; one->if_name != NULL; one++) last = one->if_index;
    QUIET((if_freenameindex(indices), 1));
    QUIET(if_indextoname(last, name) == name);
    QUIET(if_nametoindex(name) == last);
}

int main(int count, char **words) {
    if (count != 5) return 2;
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))}, own = server;
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = server.sin_port};
    char text[100];
    snprintf(text, sizeof text, "::ffff:%s", words[1]);
    if (inet_pton(AF_INET, words[1], &server.sin_addr) != 1 || inet_pton(AF_INET6, text, &mapped.sin6_addr) != 1 ||
        inet_pton(AF_INET, words[3], &own.sin_addr) != 1)
        return 2;
    stream_to((void *)&server, sizeof server);
    datagrams_to((void *)&server, sizeof server);
    stream_to((void *)&mapped, sizeof mapped);
    datagrams_to((void *)&mapped, sizeof mapped);
    struct sockaddr_in any = {.sin_family = AF_INET}, loopback = any;
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK), own.sin_port = 0;
    listener_on(&any), listener_on(&own), listener_on(&loopback);
    names(words[4]);
    interfaces();
    programs();
    puts("all quiet");
    return 0;
}
