// Everything at the same time from many threads: starting, connecting, asking, callbacks that come and go,
// stopping.
#include "common.h"
#include <stdatomic.h>

enum { THREADS = 8, ROUNDS = 20 };

static atomic_int started, answered, done;
static struct sockaddr_in6 to;
// Whether the node can look into this process, by which it reaches those who wait for what may come.
static int reaches;

static void *start_default(void *config) {
    peersock_result result = peersock_start(config, NULL);
    CHECK(result == PEERSOCK_OK || result == PEERSOCK_E_EXISTS);
    started += result == PEERSOCK_OK;
    return NULL;
}

static void *connect_often(void *unused) {
    for (int i = 0; i < ROUNDS; i++) {
        char answer[4];
        int fd = connect_to(to);
        write_all(fd, "ping", 4);
        read_all(fd, answer, 4);
        CHECK(memcmp(answer, "ping", 4) == 0 && close(fd) == 0);
    }
    return unused;
}

static void *serve(void *listener) {
    for (int i = 0; i < ROUNDS; i++) {
        char buf[4];
        int fd = peersock_accept(*(int *)listener, NULL, NULL);
        CHECK(fd >= 0);
        read_all(fd, buf, 4);
        write_all(fd, buf, 4);
        CHECK(close(fd) == 0);
        answered++;
    }
    return NULL;
}

static void on_event(const peersock_event *event, void *context) {
    char id[PEERSOCK_ID_SIZE];
    (void)context;
    // It may call the library.
    if (event->kind != PEERSOCK_NODE_STOPPED) CHECK(peersock_id(PEERSOCK_DEFAULT, id, sizeof id) == PEERSOCK_OK);
}

static void *ask_often(void *unused) {
    while (!done) {
        char *json;
        size_t count;
        int fd = peersock_event_fd(PEERSOCK_DEFAULT);
        CHECK(fd >= 0 && close(fd) == 0);
        CHECK(peersock_status(PEERSOCK_DEFAULT, &json) == PEERSOCK_OK);
        peersock_string_free(json);
        CHECK(peersock_peers(PEERSOCK_DEFAULT, 0, NULL, sizeof(peersock_peer), 0, &count) == PEERSOCK_OK && count == 1);
        CHECK(peersock_on_event(PEERSOCK_DEFAULT, on_event, NULL) == PEERSOCK_OK);
        CHECK(peersock_on_event(PEERSOCK_DEFAULT, NULL, NULL) == PEERSOCK_OK);
    }
    return unused;
}

static void *wait_for_data(void *fd) {
    char byte;
    // The node's end is no end of the stream, also for who has never written anything.
    CHECK(peersock_recv(*(int *)fd, &byte, 1, 0) == -1 && errno == ENETDOWN);
    return NULL;
}

// Calls on connections of a node that has ended, or has left the network: each connection tells once.
#define CALLS 7
static void fails_with(int error, const int fds[CALLS]) {
    char byte = 'x';
    struct iovec piece = {&byte, 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    CHECK(peersock_recv(fds[0], &byte, 1, 0) == -1 && errno == error);
    CHECK(peersock_recvfrom(fds[1], &byte, 1, 0, NULL, NULL) == -1 && errno == error);
    CHECK(peersock_recvmsg(fds[2], &message, 0) == -1 && errno == error);
    // A peer's reset is told to who writes as it always was.
    CHECK(peersock_send(fds[3], &byte, 1, MSG_NOSIGNAL) == -1 && (errno == error || (error == ECONNRESET && errno == EPIPE)));
    CHECK(peersock_sendto(fds[4], &byte, 1, MSG_NOSIGNAL, NULL, 0) == -1 &&
          (errno == error || (error == ECONNRESET && errno == EPIPE)));
    CHECK(peersock_sendmsg(fds[5], &message, MSG_NOSIGNAL) == -1 &&
          (errno == error || (error == ECONNRESET && errno == EPIPE)));
    CHECK(peersock_shutdown(fds[6], SHUT_WR) == -1 && errno == (error == ENETDOWN ? ENETDOWN : ENOTCONN));
    for (int i = 0; i < CALLS; i++) CHECK(close(fds[i]) == 0);
}

// The end of one node's network is a reset to the other's.
static void leave(peersock_node other, int listener) {
    int near[CALLS], far[CALLS];
    for (int i = 0; i < CALLS; i++) {
        near[i] = connect_to(to);
        CHECK((far[i] = peersock_accept(listener, NULL, NULL)) >= 0);
    }
    CHECK(peersock_leave(other, NETWORK) == PEERSOCK_OK);
    for (int i = 0; i < CALLS; i++) {
        CHECK(wait_for(near[i], POLLIN) & POLLHUP);
        CHECK(wait_for(far[i], POLLIN) & POLLHUP);
    }
    fails_with(ENETDOWN, far);
    fails_with(ECONNRESET, near);
}

static void *wait_for_datagrams(void *fd) {
    char byte;
    CHECK(peersock_recv(*(int *)fd, &byte, 1, 0) == -1 && errno == ENETDOWN);
    return NULL;
}

static void *wait_to_accept(void *fd) {
    CHECK(peersock_accept(*(int *)fd, NULL, NULL) == -1 && errno == ENETDOWN);
    return NULL;
}

static void *wait_for_nobody(void *nobody) {
    CHECK(peersock_wait_peer(PEERSOCK_DEFAULT, NETWORK, nobody, sizeof(struct sockaddr_in6), -1) == PEERSOCK_E_DOWN);
    return NULL;
}

int main(void) {
    pthread_t clients[THREADS], servers[THREADS], asking[2], waiting[4];
    peersock_node other;
    peersock_config *config = settings();
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&clients[i], NULL, start_default, config) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(clients[i], NULL) == 0);
    CHECK(started == 1);
    peersock_config_free(config);
    CHECK(peersock_join(PEERSOCK_DEFAULT, NETWORK, NULL) == PEERSOCK_OK);
    start(&other);
    to = address_of(other, 7000);
    CHECK(peersock_wait_peer(PEERSOCK_DEFAULT, NETWORK, (struct sockaddr *)&to, sizeof to, 60000) == PEERSOCK_OK);

    int listener = listen_on(other, 7000);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&servers[i], NULL, serve, &listener) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&clients[i], NULL, connect_often, NULL) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&asking[i], NULL, ask_often, NULL) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(clients[i], NULL) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(servers[i], NULL) == 0);
    done = 1;
    for (int i = 0; i < 2; i++) CHECK(pthread_join(asking[i], NULL) == 0);
    CHECK(answered == THREADS * ROUNDS);

    leave(other, listener);
    CHECK(close(listener) == 0);
    CHECK(peersock_join(other, NETWORK, NULL) == PEERSOCK_OK);
    CHECK(peersock_wait_peer(PEERSOCK_DEFAULT, NETWORK, (struct sockaddr *)&to, sizeof to, 60000) == PEERSOCK_OK);
    listener = listen_on(other, 7000);

    // Who waits when the node is stopped returns. Valgrind 3.19 does not know pidfd_open(2).
    reaches = !in_valgrind();
    struct sockaddr_in6 nobody = address_of(PEERSOCK_DEFAULT, 0);
    nobody.sin6_addr.s6_addr[15] ^= 1;
    int fd = connect_to(to), accepted = peersock_accept(listener, NULL, NULL);
    CHECK(accepted >= 0);
    CHECK(pthread_create(&waiting[0], NULL, wait_for_data, &fd) == 0);
    CHECK(pthread_create(&waiting[1], NULL, wait_for_nobody, &nobody) == 0);
    int own_listener = listen_on(PEERSOCK_DEFAULT, 7001), datagrams = peersock_socket(AF_INET6, SOCK_DGRAM, 0);
    if (reaches) {
        CHECK(pthread_create(&waiting[2], NULL, wait_to_accept, &own_listener) == 0);
        CHECK(pthread_create(&waiting[3], NULL, wait_for_datagrams, &datagrams) == 0);
    }
    int open[CALLS], at_peer[CALLS];
    for (int i = 0; i < CALLS; i++) {
        open[i] = connect_to(to);
        CHECK((at_peer[i] = peersock_accept(listener, NULL, NULL)) >= 0);
    }
    usleep(50000);
    CHECK(peersock_stop(PEERSOCK_DEFAULT, 5000) == PEERSOCK_OK);
    fails_with(ENETDOWN, open);
    for (int i = 0; i < CALLS; i++) CHECK(wait_for(at_peer[i], POLLIN) & POLLHUP);
    fails_with(ECONNRESET, at_peer);
    for (int i = 0; i < (reaches ? 4 : 2); i++) CHECK(pthread_join(waiting[i], NULL) == 0);
    if (reaches) CHECK(wait_for(own_listener, POLLIN) & POLLHUP);
    CHECK(close(own_listener) == 0 && close(datagrams) == 0);
    CHECK(close(fd) == 0 && close(accepted) == 0 && close(listener) == 0);
    puts("ok");
    return 0;
}
