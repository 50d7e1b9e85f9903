// What the test programs share: two nodes of this process that know each other.
#ifndef COMMON_H
#define COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <peersock.h>

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: %s (errno: %s; last error: %s)\n", __FILE__, __LINE__, #condition,                 \
                    strerror(errno), peersock_last_error());                                                          \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

// Whether this process runs in Valgrind, where it is up to thirty times slower.
static inline int in_valgrind(void) {
    const char *checked = getenv("PEERSOCK_TEST_CHECKED");
    return checked != NULL && strcmp(checked, "valgrind") == 0;
}

// A network with all ports.
static const uint64_t NETWORK = 0xff0001ffff000000;

// Settings of a node that meets only those of the same test.
static inline peersock_config *settings(void) {
    const char *port = getenv("PEERSOCK_TEST_PORT");
    peersock_config *config = peersock_config_new();
    CHECK(config != NULL && port != NULL);
    CHECK(peersock_config_ephemeral(config) == PEERSOCK_OK);
    CHECK(peersock_config_interfaces(config, "loopback") == PEERSOCK_OK);
    CHECK(peersock_config_discovery_port(config, (uint16_t)atoi(port)) == PEERSOCK_OK);
    return config;
}

// Settings of a node with a state directory.
static inline peersock_config *in_state(const char *state) {
    peersock_config *config = peersock_config_new();
    CHECK(config != NULL && peersock_config_state_dir(config, state) == PEERSOCK_OK);
    CHECK(peersock_config_interfaces(config, "loopback") == PEERSOCK_OK);
    return config;
}

// Makes keys of two members, `alpha` and `beta`, and a file for their network, fe00000000000001, whose path
// it gives. Each has an address of IPv4 besides its own of IPv6: 10.7.0.1 and 10.7.0.2.
static inline void describe_members(const char *folder, uint8_t seeds[2][PEERSOCK_SEED_SIZE], char path[4096]) {
    char keys[2][PEERSOCK_KEY_SIZE];
    for (int i = 0; i < 2; i++) {
        CHECK(peersock_identity_generate(seeds[i], PEERSOCK_SEED_SIZE) == PEERSOCK_OK);
        CHECK(peersock_identity_key(seeds[i], PEERSOCK_SEED_SIZE, keys[i], PEERSOCK_KEY_SIZE) == PEERSOCK_OK);
    }
    snprintf(path, 4096, "%s/network.toml", folder);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    CHECK(fprintf(file,
                  "network = \"fe00000000000001\"\n"
                  "[[member]]\nkey = \"%s\"\nname = \"alpha\"\naddresses = [\"10.7.0.1\"]\n"
                  "[[member]]\nkey = \"%s\"\nname = \"beta\"\naddresses = [\"10.7.0.2\"]\n",
                  keys[0], keys[1]) > 0);
    CHECK(fclose(file) == 0);
}

// Starts a node: the default one if `node` is NULL.
static inline void start(peersock_node *node) {
    peersock_config *config = settings();
    CHECK(peersock_start(config, node) == PEERSOCK_OK);
    peersock_config_free(config);
    CHECK(peersock_join(node ? *node : PEERSOCK_DEFAULT, NETWORK, NULL) == PEERSOCK_OK);
}

// The address of a node, with a port.
static inline struct sockaddr_in6 address_of(peersock_node node, uint16_t port) {
    struct sockaddr_in6 address;
    memset(&address, 0, sizeof address);
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    CHECK(peersock_address(node, NETWORK, &address.sin6_addr) == PEERSOCK_OK);
    return address;
}

// Starts the default node and one more, and waits until they have a session. Gives the other.
static inline peersock_node start_pair(void) {
    peersock_node other;
    struct sockaddr_in6 address;
    start(NULL);
    start(&other);
    address = address_of(other, 0);
    CHECK(peersock_wait_peer(PEERSOCK_DEFAULT, NETWORK, (struct sockaddr *)&address, sizeof address, 60000) ==
          PEERSOCK_OK);
    return other;
}

// A socket of a node that listens on a port.
static inline int listen_on(peersock_node node, uint16_t port) {
    struct sockaddr_in6 address = address_of(node, port);
    int fd = peersock_node_socket(node, AF_INET6, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    CHECK(peersock_bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(peersock_listen(fd, 128) == 0);
    return fd;
}

// A connection of the default node.
static inline int connect_to(struct sockaddr_in6 address) {
    int fd = peersock_socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    CHECK(peersock_connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

// Waits up to a minute for something of `events`, and gives what there is.
static inline short wait_for(int fd, short events) {
    struct pollfd poll_fd = {fd, events, 0};
    CHECK(poll(&poll_fd, 1, 60000) == 1);
    return poll_fd.revents;
}

static inline void write_all(int fd, const char *data, size_t length) {
    while (length > 0) {
        ssize_t written = write(fd, data, length);
        CHECK(written > 0);
        data += written;
        length -= (size_t)written;
    }
}

static inline void read_all(int fd, char *data, size_t length) {
    while (length > 0) {
        ssize_t got = read(fd, data, length);
        CHECK(got > 0);
        data += got;
        length -= (size_t)got;
    }
}

#endif
