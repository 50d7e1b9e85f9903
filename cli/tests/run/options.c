/* Every option that there may be, on sockets of the machine's own network or of the overlay: options ADDRESS.
 * A line tells the type, the level, the number and how far the socket has come, and behind " = " what is
 * asked for before and after it is set to 1, what setting it says, and of a socket that is bound then what is
 * asked for once more. */
#include "observations.h"

static void show(char *to, int fd, int level, int number) {
    unsigned char value[64];
    socklen_t length = sizeof value;
    memset(value, 0, sizeof value);
    if (getsockopt(fd, level, number, value, &length)) {
        sprintf(to, "%s", name_of(errno));
        return;
    }
    if (length > 16) length = 16;
    for (socklen_t at = 0; at < length; at++) sprintf(to + 2 * at, "%02x", value[at]);
    if (!length) sprintf(to, "nothing");
}

static void try(const char *type, int fd, int level, int number, int binds) {
    char before[40], after[40], later[40] = "";
    int one = 1;
    show(before, fd, level, number);
    const char *done = setsockopt(fd, level, number, &one, sizeof one) ? name_of(errno) : "done";
    show(after, fd, level, number);
    if (binds) {
        if (bind(fd, &own.any, size)) sprintf(later, " %s", name_of(errno));
        else later[0] = ' ', show(later + 1, fd, level, number);
    }
    printf("%s %d %d %s = %s %s %s%s\n", type, level, number, binds ? "new" : "bound", before, done, after, later);
}

int main(int count, char **arguments) {
    static const struct { int level, last; } levels[] = {
        {SOL_SOCKET, 90}, {IPPROTO_TCP, 60}, {IPPROTO_UDP, 110}, {IPPROTO_IP, 60}, {IPPROTO_IPV6, 85}};
    if (count != 2) return 2;
    alarm(100);
    if (inet_pton(AF_INET6, arguments[1], &own.v6.sin6_addr) == 1) own.any.sa_family = AF_INET6, size = sizeof own.v6;
    else if (inet_pton(AF_INET, arguments[1], &own.v4.sin_addr) == 1) own.any.sa_family = AF_INET, size = sizeof own.v4;
    else return 2;
    for (int stream = 0; stream < 2; stream++)
        for (unsigned at = 0; at < sizeof levels / sizeof *levels; at++)
            for (int number = 1; number <= levels[at].last; number++) {
                const char *type = stream ? "stream" : "datagram";
                int kind = stream ? SOCK_STREAM : SOCK_DGRAM;
                int fd = opened(kind);
                own.v6.sin6_port = 0;
                try(type, fd, levels[at].level, number, 1);
                close(fd);
                fd = bound(kind);
                try(type, fd, levels[at].level, number, 0);
                close(fd);
            }
    return 0;
}
