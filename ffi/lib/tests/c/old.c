// A program that was built with the header of version 0.1, and does not know what later libraries have.
#include "peersock_0_1.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            fprintf(stderr, "%d: %s (%s)\n", __LINE__, #condition, peersock_last_error());   \
            exit(1);                                                                         \
        }                                                                                    \
    } while (0)

static const uint64_t NETWORK = 0xff0001ffff000000;

static void start(peersock_node *node) {
    peersock_config *config = peersock_config_new();
    CHECK(config != NULL && peersock_config_ephemeral(config) == 0);
    CHECK(peersock_config_interfaces(config, "loopback") == 0);
    CHECK(peersock_config_discovery_port(config, (uint16_t)atoi(getenv("PEERSOCK_TEST_PORT"))) == 0);
    CHECK(peersock_start(config, node) == 0);
    peersock_config_free(config);
    CHECK(peersock_join(node ? *node : 0, NETWORK, NULL) == 0);
}

int main(void) {
    // Guarded, so that a library which knows a longer structure is caught when it writes it.
    struct {
        peersock_peer peers[2];
        unsigned char guard[512];
    } room;
    struct {
        peersock_event event;
        unsigned char guard[512];
    } told;
    char id[65];
    peersock_node other;
    size_t count = 0;
    memset(&room, 0xa5, sizeof room);
    memset(&told, 0xa5, sizeof told);
    start(NULL);
    int events = peersock_event_fd(0);
    CHECK(events >= 0);
    start(&other);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    CHECK(peersock_address(other, NETWORK, &address.sin6_addr) == 0);
    CHECK(peersock_wait_peer(0, NETWORK, (struct sockaddr *)&address, sizeof address, 60000) == 0);
    CHECK(peersock_id(other, id, sizeof id) == 0);

    CHECK(peersock_peers(0, NETWORK, room.peers, sizeof *room.peers, 1, &count) == 0 && count == 1);
    CHECK(strcmp(room.peers[0].id, id) == 0 && room.peers[0].network == NETWORK && room.peers[0].connected);
    CHECK(room.peers[0].state == 1 && room.peers[0].total_lost_packets <= room.peers[0].total_received_packets);
    for (const unsigned char *byte = (unsigned char *)&room.peers[1]; byte < room.guard + sizeof room.guard; byte++) {
        CHECK(*byte == 0xa5);
    }
    // A size that no version has.
    CHECK(peersock_peers(0, NETWORK, room.peers, 8, 1, &count) != 0);

    struct pollfd ready = {.fd = events, .events = POLLIN};
    CHECK(poll(&ready, 1, 60000) == 1);
    CHECK(read(events, &told.event, sizeof told.event) == sizeof told.event);
    CHECK(told.event.size >= sizeof told.event && told.event.kind > 0 && strcmp(told.event.peer, id) == 0);
    for (size_t at = 0; at < sizeof told.guard; at++) CHECK(told.guard[at] == 0xa5);
    close(events);
    CHECK(peersock_stop(other, 0) == 0 && peersock_stop(0, 0) == 0);
    puts("all well");
    return 0;
}
