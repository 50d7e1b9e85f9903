// One identity at two places: both nodes that have it say so, and so does their peer.
#include "common.h"

#include <netinet/in.h>
#include <sys/socket.h>

// Whether the node's status says it, of itself or of a peer: no other value of that name is an object.
static int says_conflict(peersock_node node) {
    char *json;
    CHECK(peersock_status(node, &json) == PEERSOCK_OK);
    const char *found = json;
    int says = 0;
    while (!says && (found = strstr(found, "\"conflict\":")) != NULL) {
        found += strlen("\"conflict\":");
        says = found[strspn(found, " \n")] == '{';
    }
    peersock_string_free(json);
    return says;
}

int main(void) {
    const uint8_t seed[PEERSOCK_SEED_SIZE] = {9};
    peersock_node twins[2];
    int sockets[2];
    start(NULL);
    struct sockaddr_in6 peer = address_of(PEERSOCK_DEFAULT, 7000);
    for (int i = 0; i < 2; i++) {
        peersock_config *config = settings();
        CHECK(peersock_config_seed(config, seed, sizeof seed) == PEERSOCK_OK);
        CHECK(peersock_start(config, &twins[i]) == PEERSOCK_OK);
        peersock_config_free(config);
        CHECK(peersock_join(twins[i], NETWORK, NULL) == PEERSOCK_OK);
        sockets[i] = peersock_node_socket(twins[i], AF_INET6, SOCK_DGRAM, 0);
        CHECK(sockets[i] >= 0);
    }
    CHECK(!says_conflict(PEERSOCK_DEFAULT));
    // Each handshake of the one takes the peer's session from the other.
    int all = 0;
    for (int round = 0; round < 1200 && !all; round++) {
        for (int i = 0; i < 2; i++) {
            // What finds no room or no peer is lost, as datagrams are.
            ssize_t sent = peersock_sendto(sockets[i], "x", 1, MSG_DONTWAIT, (struct sockaddr *)&peer, sizeof peer);
            CHECK(sent == 1 || errno == EAGAIN || errno == EHOSTUNREACH || errno == ECONNREFUSED);
        }
        usleep(50000);
        all = says_conflict(twins[0]) && says_conflict(twins[1]) && says_conflict(PEERSOCK_DEFAULT);
    }
    CHECK(all);
    peersock_peer known[4];
    size_t count;
    CHECK(peersock_peers(PEERSOCK_DEFAULT, NETWORK, known, sizeof(peersock_peer), 4, &count) == PEERSOCK_OK && count == 1);
    CHECK(known[0].flags & PEERSOCK_PEER_CONFLICT);
    close(sockets[0]), close(sockets[1]);
    puts("ok");
    return 0;
}
