/* Every flag of sending and receiving, and every control message that there may be, on sockets of the
 * machine's own network or of the overlay: flags ADDRESS. A line tells the way and the flag or the message,
 * and behind " = " what the call returned and what came of it. */
#include "observations.h"

static const struct { int level, last; } levels[] = {
    {SOL_SOCKET, 90}, {IPPROTO_TCP, 60}, {IPPROTO_UDP, 110}, {IPPROTO_IP, 60}, {IPPROTO_IPV6, 85}, {263, 10}, {300, 2}};

static const char *const types[] = {"datagram", "stream"};

/* Two ends, and the address of the second one in `own`. Two datagram sockets may be connected or not. */
static void ends(int type, int connects, int *from, int *to) {
    if (type == SOCK_STREAM) {
        pair(from, to);
        return;
    }
    *to = bound(SOCK_DGRAM);
    *from = opened(SOCK_DGRAM);
    if (connects) MUST(connect(*from, &own.any, size));
}

static const char *result(long returned) {
    static char text[4][24];
    static int at;
    if (returned < 0) return name_of(errno);
    snprintf(text[at = (at + 1) % 4], sizeof *text, "%ld", returned);
    return text[at];
}

static int comes(int fd) {
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    return poll(&wanted, 1, PATIENCE) == 1;
}

/* Sends a "z" and receives until it is there. Datagrams have a "|" between them. Returns true if nothing was
 * odd. */
static int show_what_comes(int type, int connects, int from, int to) {
    char bytes[100], all[120] = "";
    MUST(sendto(from, "z", 1, 0, connects ? NULL : &own.any, connects ? 0 : size));
    while (!strchr(all, 'z')) {
        if (!comes(to)) {
            strcat(all, " and no more");
            break;
        }
        int got = recv(to, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got <= 0 || got > 10 || strlen(all) > 60) {
            snprintf(all + strlen(all), 40, " and then %s", result(got));
            break;
        }
        snprintf(all + strlen(all), 20, "%s%.*s", *all && type == SOCK_DGRAM ? "|" : "", got, bytes);
    }
    printf(" %s\n", all);
    return !strcmp(all, type == SOCK_STREAM ? "abcz" : "abc|z");
}

/* Ways to send and to receive. */
enum { PLAIN, MESSAGE, MESSAGES, WAYS };

static void sends(int type, int connects) {
    static const char *const ways[] = {"send", "sendmsg", "sendmmsg"};
    for (int way = 0; way < WAYS; way++)
        for (int bit = 0; bit < 32; bit++) {
            static int from = -1, to;
            int flag = (int)(1u << bit);
            if (from < 0) ends(type, connects, &from, &to);
            struct iovec only = {"abc", 3};
            struct mmsghdr many = {.msg_hdr = {.msg_iov = &only, .msg_iovlen = 1}};
            if (!connects) many.msg_hdr.msg_name = &own.any, many.msg_hdr.msg_namelen = size;
            errno = 0;
            long sent = way == PLAIN ? sendto(from, "abc", 3, flag, many.msg_hdr.msg_name, many.msg_hdr.msg_namelen)
                : way == MESSAGE ? sendmsg(from, &many.msg_hdr, flag)
                : sendmmsg(from, &many, 1, flag);
            printf("%s %s %s %x = %s", types[type == SOCK_STREAM], connects ? "connected" : "unconnected", ways[way],
                (unsigned)flag, result(sent));
            int is_usual = show_what_comes(type, connects, from, to);
            if (!is_usual || bit == 31) part(from, to), from = -1;
        }
}

static void receive(int fd, int way, int flag) {
    char bytes[5] = "";
    struct iovec only = {bytes, 4};
    struct mmsghdr many = {.msg_hdr = {.msg_iov = &only, .msg_iovlen = 1}};
    errno = 0;
    long got = way == PLAIN ? recv(fd, bytes, 4, flag)
        : way == MESSAGE ? recvmsg(fd, &many.msg_hdr, flag)
        : recvmmsg(fd, &many, 1, flag, NULL);
    printf(" %s", result(got));
    if (got < 0) return;
    printf(" '%s'", bytes);
    if (way == MESSAGES) printf(" of %u", many.msg_len);
    if (way != PLAIN) printf(" flags %x", many.msg_hdr.msg_flags & ~MSG_CMSG_CLOEXEC);
}

static void receives(int type) {
    static const char *const ways[] = {"recv", "recvmsg", "recvmmsg"};
    for (int way = 0; way < WAYS; way++)
        for (int bit = 0; bit < 32; bit++) {
            int from, to, there = 0, flag = (int)(1u << bit);
            ends(type, 1, &from, &to);
            printf("%s %s %x = nothing:", types[type == SOCK_STREAM], ways[way], (unsigned)flag);
            receive(to, way, flag | MSG_DONTWAIT);
            MUST(send(from, "abcdef", 6, 0));
            for (int tries = 0; there < 6 && tries < PATIENCE; tries++) {
                if (tries) usleep(1000);
                MUST(ioctl(to, FIONREAD, &there));
            }
            printf(", something:");
            receive(to, way, flag);
            printf(", then:");
            receive(to, way, MSG_DONTWAIT);
            puts("");
            part(from, to);
        }
}

/* Sends a control message with each of these lengths, of zeros after a first 1 where it is that of a
 * number. */
static void controls(int type) {
    static const int lengths[] = {0, 1, 4, 8, 12, 20};
    for (unsigned at = 0; at < sizeof levels / sizeof *levels; at++)
        for (int number = 0; number <= levels[at].last; number++) {
            static int from = -1, to;
            if (from < 0) ends(type, type == SOCK_STREAM, &from, &to);
            printf("%s control %d %d =", types[type == SOCK_STREAM], levels[at].level, number);
            for (unsigned which = 0; which < sizeof lengths / sizeof *lengths; which++) {
                union { struct cmsghdr header; char bytes[CMSG_SPACE(20)]; } control;
                memset(&control, 0, sizeof control);
                control.header = (struct cmsghdr){CMSG_LEN(lengths[which]), levels[at].level, number};
                if (lengths[which] == 1 || lengths[which] == 4) *(int *)CMSG_DATA(&control.header) = 1;
                struct iovec only = {"abc", 3};
                struct msghdr message = {.msg_iov = &only, .msg_iovlen = 1, .msg_control = &control,
                    .msg_controllen = CMSG_SPACE(lengths[which])};
                if (type == SOCK_DGRAM) message.msg_name = &own.any, message.msg_namelen = size;
                errno = 0;
                long sent = sendmsg(from, &message, 0);
                printf(" %s", result(sent));
                if (sent < 0) continue;
                char bytes[100], came[CMSG_SPACE(200)];
                only = (struct iovec){bytes, sizeof bytes};
                message = (struct msghdr){.msg_iov = &only, .msg_iovlen = 1, .msg_control = came,
                    .msg_controllen = sizeof came};
                if (!comes(to)) printf(" is lost");
                else if (recvmsg(to, &message, MSG_DONTWAIT) != 3 || memcmp(bytes, "abc", 3)) printf(" is changed");
                else if (message.msg_controllen) printf(" with %zu", message.msg_controllen);
            }
            puts("");
            if (number < levels[at].last) continue;
            printf("%s control %d then =", types[type == SOCK_STREAM], levels[at].level);
            show_what_comes(type, type == SOCK_STREAM, from, to);
            part(from, to), from = -1;
        }
}

/* The control messages that come where an option is set to 1. */
static void told(int type) {
    for (unsigned at = 0; at < sizeof levels / sizeof *levels; at++)
        for (int number = 1; number <= levels[at].last; number++) {
            static int from = -1, to;
            int one = 1, is_last = at + 1 == sizeof levels / sizeof *levels && number == levels[at].last;
            if (from < 0) ends(type, 1, &from, &to);
            int is_set = !setsockopt(to, levels[at].level, number, &one, sizeof one);
            if (is_set) {
                char bytes[100];
                union { struct cmsghdr align; char bytes[500]; } control;
                struct iovec only = {bytes, sizeof bytes};
                struct msghdr message = {.msg_iov = &only, .msg_iovlen = 1, .msg_control = &control,
                    .msg_controllen = sizeof control};
                printf("%s option %d %d = gives", types[type == SOCK_STREAM], levels[at].level, number);
                MUST(send(from, "abc", 3, 0));
                if (!comes(to)) printf(" nothing");
                else {
                    errno = 0;
                    long got = recvmsg(to, &message, MSG_DONTWAIT);
                    printf(" %s", result(got));
                    for (struct cmsghdr *c = got < 0 ? NULL : CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
                        printf(" %d:%d:%zu", c->cmsg_level, c->cmsg_type, c->cmsg_len - CMSG_LEN(0));
                }
                puts("");
            } else printf("%s option %d %d = %s\n", types[type == SOCK_STREAM], levels[at].level, number, "refused");
            if (is_set || is_last) part(from, to), from = -1;
        }
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    signal(SIGPIPE, SIG_IGN);
    alarm(300);
    if (inet_pton(AF_INET6, arguments[1], &own.v6.sin6_addr) == 1) own.any.sa_family = AF_INET6, size = sizeof own.v6;
    else if (inet_pton(AF_INET, arguments[1], &own.v4.sin_addr) == 1) own.any.sa_family = AF_INET, size = sizeof own.v4;
    else return 2;
    sends(SOCK_STREAM, 1);
    sends(SOCK_DGRAM, 1);
    sends(SOCK_DGRAM, 0);
    for (int stream = 0; stream < 2; stream++) {
        int type = stream ? SOCK_STREAM : SOCK_DGRAM;
        receives(type);
        controls(type);
        told(type);
    }
    return 0;
}
