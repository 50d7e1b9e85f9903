// Threads that join and leave networks while others use sockets of the same nodes: nothing hangs or stays
// behind.
#include "common.h"
#include <dirent.h>
#include <stdatomic.h>

enum { THREADS = 4, USERS = 2 };

static atomic_int done, answers, joined, left;
static struct sockaddr_in6 to;
static peersock_node other;
static int rounds, listener;

static int descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder != NULL);
    int count = 0;
    while (readdir(folder) != NULL) count++;
    CHECK(closedir(folder) == 0);
    return count;
}

// An exchange in the network that stays: nothing of it may fail.
static void *use(void *unused) {
    while (!done) {
        char answer[4];
        int fd = connect_to(to);
        write_all(fd, "ping", 4);
        read_all(fd, answer, 4);
        CHECK(memcmp(answer, "ping", 4) == 0 && close(fd) == 0);
        answers++;
    }
    return unused;
}

static void *serve(void *unused) {
    for (;;) {
        char buf[4];
        int fd = peersock_accept(listener, NULL, NULL);
        CHECK(fd >= 0);
        ssize_t got = read(fd, buf, 4);
        if (got == 4) write_all(fd, buf, 4);
        CHECK(close(fd) == 0);
        // The last client of each server writes nothing.
        if (got == 0) return unused;
    }
}

static void *read_one(void *fd) {
    char byte;
    CHECK(peersock_recv(*(int *)fd, &byte, 1, 0) == -1 && errno == ENETDOWN);
    return NULL;
}

// Joins a network that no other thread joins, uses it, and leaves it with sockets open.
static void come_and_go(peersock_node node, int thread, int round) {
    uint64_t network = peersock_ad_hoc((uint16_t)(2000 + thread), (uint16_t)(3000 + thread));
    struct sockaddr_in6 own = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)(2500 + thread))};
    char byte = 'x';
    pthread_t waiting;
    CHECK(peersock_join(node, network, NULL) == PEERSOCK_OK);
    CHECK(peersock_join(node, network, NULL) == PEERSOCK_E_EXISTS);
    CHECK(peersock_address(node, network, &own.sin6_addr) == PEERSOCK_OK);
    int server = peersock_node_socket(node, AF_INET6, SOCK_STREAM, 0);
    int client = peersock_node_socket(node, AF_INET6, SOCK_STREAM, 0);
    int datagrams = peersock_node_socket(node, AF_INET6, SOCK_DGRAM, 0);
    CHECK(server >= 0 && client >= 0 && datagrams >= 0);
    CHECK(peersock_bind(server, (struct sockaddr *)&own, sizeof own) == 0 && peersock_listen(server, 5) == 0);
    CHECK(peersock_bind(datagrams, (struct sockaddr *)&own, sizeof own) == 0);
    CHECK(peersock_connect(client, (struct sockaddr *)&own, sizeof own) == 0);
    int accepted = peersock_accept(server, NULL, NULL);
    CHECK(accepted >= 0);
    write_all(client, &byte, 1);
    read_all(accepted, &byte, 1);
    int waits = round % 2 == 0;
    if (waits) CHECK(pthread_create(&waiting, NULL, read_one, &accepted) == 0);
    CHECK(peersock_leave(node, network) == PEERSOCK_OK);
    CHECK(peersock_leave(node, network) == PEERSOCK_E_NOT_FOUND);
    if (waits) CHECK(pthread_join(waiting, NULL) == 0);
    // The node ends the descriptors a moment later. poll(2) may meet the end half done: Linux looks whether
    // the peer has closed before it looks for the error, and then tells the error alone.
    if (!(wait_for(client, POLLIN) & POLLHUP)) usleep(1000);
    CHECK(wait_for(client, POLLIN) & POLLHUP);
    CHECK(peersock_send(client, &byte, 1, MSG_NOSIGNAL) == -1 && errno == ENETDOWN);
    // Valgrind 3.19 does not know pidfd_open(2), without which who waits on these cannot be told.
    if (!in_valgrind()) {
        CHECK(peersock_accept(server, NULL, NULL) == -1 && errno == ENETDOWN);
        CHECK(peersock_recv(datagrams, &byte, 1, 0) == -1 && errno == ENETDOWN);
    }
    int late = peersock_node_socket(node, AF_INET6, SOCK_STREAM, 0);
    CHECK(late >= 0);
    CHECK(peersock_connect(late, (struct sockaddr *)&own, sizeof own) == -1 && errno == ENETUNREACH);
    CHECK(close(late) == 0 && close(server) == 0 && close(client) == 0 && close(accepted) == 0);
    CHECK(close(datagrams) == 0);
}

// Joins a network that other threads join and leave as well.
static void come_and_go_together(void) {
    uint64_t network = peersock_ad_hoc(2100, 3100);
    peersock_result result = peersock_join(PEERSOCK_DEFAULT, network, NULL);
    CHECK(result == PEERSOCK_OK || result == PEERSOCK_E_EXISTS);
    joined += result == PEERSOCK_OK;
    result = peersock_leave(PEERSOCK_DEFAULT, network);
    CHECK(result == PEERSOCK_OK || result == PEERSOCK_E_NOT_FOUND);
    left += result == PEERSOCK_OK;
}

static void *join_often(void *number) {
    int thread = *(int *)number;
    for (int round = 0; round < rounds; round++) {
        come_and_go(thread % 2 == 0 ? PEERSOCK_DEFAULT : other, thread, round);
        come_and_go_together();
    }
    return NULL;
}

static void play(int how_often) {
    pthread_t users[USERS], servers[USERS], joiners[THREADS];
    int numbers[THREADS];
    rounds = how_often;
    done = 0;
    for (int i = 0; i < USERS; i++) CHECK(pthread_create(&servers[i], NULL, serve, NULL) == 0);
    for (int i = 0; i < USERS; i++) CHECK(pthread_create(&users[i], NULL, use, NULL) == 0);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&joiners[i], NULL, join_often, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(joiners[i], NULL) == 0);
    done = 1;
    for (int i = 0; i < USERS; i++) CHECK(pthread_join(users[i], NULL) == 0);
    for (int i = 0; i < USERS; i++) CHECK(close(connect_to(to)) == 0);
    for (int i = 0; i < USERS; i++) CHECK(pthread_join(servers[i], NULL) == 0);
    CHECK(joined == left);
}

int main(void) {
    uint64_t networks[4];
    size_t count;
    other = start_pair();
    to = address_of(other, 7000);
    listener = listen_on(other, 7000);
    // What is made once and stays.
    play(1);
    int before = descriptors(), now = 0;
    // Whatever checks the program makes it slower.
    play(getenv("PEERSOCK_TEST_CHECKED") == NULL ? 50 : 5);
    // What was closed goes a moment later. One that each round leaves behind would be twice as many as are
    // allowed.
    int most = before + THREADS * rounds / 2;
    for (int i = 0; i < 3000 && (now = descriptors()) > most; i++) usleep(10000);
    fprintf(stderr, "%d descriptors, %d before; %d answers\n", now, before, answers);
    CHECK(now <= most && answers > 0);
    CHECK(peersock_networks(PEERSOCK_DEFAULT, networks, 4, &count) == PEERSOCK_OK && count == 1 && networks[0] == NETWORK);
    CHECK(peersock_networks(other, networks, 4, &count) == PEERSOCK_OK && count == 1 && networks[0] == NETWORK);
    CHECK(close(listener) == 0);
    CHECK(peersock_stop(other, 1000) == PEERSOCK_OK && peersock_stop(PEERSOCK_DEFAULT, 1000) == PEERSOCK_OK);
    puts("ok");
    return 0;
}
