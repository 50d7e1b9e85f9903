// Whoever sends is told what was not delivered, as with the kernel's sockets: the same calls on both.
#include "common.h"

#include <netinet/in.h>
#include <sys/socket.h>

enum peer { READS_ALL, CLOSES_AT_ONCE, CLOSES_UNREAD, CLOSES_AFTER_HALF, RESETS_AT_ONCE, PEERS };

static const size_t sizes[] = {2, 4000, 300000, 10000000};

// More than a peer has room for.
#define MUCH 10000000

struct task {
    enum peer peer;
    int fd;
    size_t size;
};

static void read_some(int fd, size_t left) {
    static _Thread_local char buf[65536];
    while (left > 0) {
        ssize_t got = peersock_recv(fd, buf, left < sizeof buf ? left : sizeof buf, 0);
        CHECK(got > 0);
        left -= (size_t)got;
    }
}

static void *act(void *given) {
    struct task *task = given;
    struct pollfd readable = {.fd = task->fd, .events = POLLIN};
    struct linger none = {1, 0};
    switch (task->peer) {
        case READS_ALL:
            read_some(task->fd, task->size);
            CHECK(peersock_recv(task->fd, &none, 1, 0) == 0);
            break;
        case CLOSES_UNREAD: CHECK(poll(&readable, 1, 60000) == 1); break;
        case CLOSES_AFTER_HALF: read_some(task->fd, task->size / 2); break;
        case RESETS_AT_ONCE:
            CHECK(peersock_setsockopt(task->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0);
            break;
        default: break;
    }
    CHECK(peersock_close(task->fd) == 0);
    return NULL;
}

// True if everything was said to be well. With `lingers` nothing is asked but how closing went.
static bool is_told_well(int fd, size_t size, bool lingers) {
    static char data[MUCH];
    size_t sent = 0;
    while (sent < size) {
        ssize_t n = peersock_send(fd, data + sent, size - sent, MSG_NOSIGNAL);
        if (n < 0) break;
        sent += (size_t)n;
    }
    if (lingers) {
        struct linger time = {1, 60};
        CHECK(peersock_setsockopt(fd, SOL_SOCKET, SO_LINGER, &time, sizeof time) == 0);
        int closed = peersock_close(fd);
        CHECK(closed == 0 || errno == ECONNRESET || errno == EPIPE || errno == ECONNABORTED);
        return sent == size && closed == 0;
    }
    char byte;
    int error = 0;
    socklen_t length = sizeof error;
    bool is_well = sent == size && peersock_shutdown(fd, SHUT_WR) == 0 && peersock_recv(fd, &byte, 1, 0) == 0;
    CHECK(peersock_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0);
    CHECK(peersock_close(fd) == 0);
    return is_well && error == 0;
}

// Connects to the listener, and has a thread act as the peer.
static bool try(int client, int listener, const struct sockaddr_in6 *to, struct task task, bool lingers) {
    pthread_t thread;
    CHECK(client >= 0 && peersock_connect(client, (const struct sockaddr *)to, sizeof *to) == 0);
    task.fd = peersock_accept(listener, NULL, NULL);
    CHECK(task.fd >= 0 && pthread_create(&thread, NULL, act, &task) == 0);
    bool is_well = is_told_well(client, task.size, lingers);
    CHECK(pthread_join(thread, NULL) == 0);
    return is_well;
}

int main(void) {
    peersock_node other = start_pair();
    int listener = listen_on(PEERSOCK_DEFAULT, 7000);
    struct sockaddr_in6 to = address_of(PEERSOCK_DEFAULT, 7000);
    struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    socklen_t length = sizeof loopback;
    int kernel = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(bind(kernel, (struct sockaddr *)&loopback, length) == 0 && listen(kernel, 5) == 0);
    CHECK(getsockname(kernel, (struct sockaddr *)&loopback, &length) == 0);
    for (int peer = 0; peer < PEERS; peer++) {
        for (size_t at = 0; at < sizeof sizes / sizeof sizes[0]; at++) {
            struct task task = {peer, -1, sizes[at]};
            bool by_kernel = try(socket(AF_INET6, SOCK_STREAM, 0), kernel, &loopback, task, false);
            for (int lingers = 0; lingers < 2; lingers++) {
                int fd = peersock_node_socket(other, AF_INET6, SOCK_STREAM, 0);
                bool is_well = try(fd, listener, &to, task, lingers);
                // Closing can tell of what is not acknowledged. A peer's machine may acknowledge as much as
                // it has room for, the end included, before its program closes without reading; and room
                // grows while its program reads.
                bool has_room = sizes[at] < MUCH || peer == CLOSES_AFTER_HALF;
                if (lingers && peer != READS_ALL && has_room) continue;
                if (is_well != (peer == READS_ALL)) {
                    fprintf(stderr, "peer %d, %zu bytes, lingering %d: %d, the kernel %d\n", peer, sizes[at], lingers,
                            is_well, by_kernel);
                    return 1;
                }
            }
        }
    }
    close(kernel), close(listener);
    puts("ok");
    return 0;
}
