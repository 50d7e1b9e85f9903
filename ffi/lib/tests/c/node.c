// A node's life: identities, starting, networks, peers, paths, statistics, stopping and starting again.
#include "common.h"
#include <sys/stat.h>

static void check_identities(const char *directory, char *id) {
    char path[4096], key[PEERSOCK_KEY_SIZE];
    uint8_t seed[PEERSOCK_SEED_SIZE], again[PEERSOCK_SEED_SIZE];
    snprintf(path, sizeof path, "%s/identity", directory);
    CHECK(peersock_identity_generate(seed, sizeof seed) == PEERSOCK_OK);
    CHECK(peersock_identity_store(path, seed, sizeof seed) == PEERSOCK_OK);
    CHECK(peersock_identity_store(path, seed, sizeof seed) == PEERSOCK_E_FILE);
    CHECK(peersock_identity_load(path, again, sizeof again) == PEERSOCK_OK);
    CHECK(memcmp(seed, again, sizeof seed) == 0);
    CHECK(peersock_identity_id(seed, sizeof seed, id, PEERSOCK_ID_SIZE) == PEERSOCK_OK && strlen(id) == 64);
    CHECK(peersock_identity_key(seed, sizeof seed, key, sizeof key) == PEERSOCK_OK && strlen(key) == 86);

    peersock_node node;
    char own[PEERSOCK_ID_SIZE], own_key[PEERSOCK_KEY_SIZE];
    peersock_config *config = settings();
    CHECK(peersock_config_seed(config, seed, sizeof seed) == PEERSOCK_OK);
    CHECK(peersock_start(config, &node) == PEERSOCK_OK);
    peersock_config_free(config);
    CHECK(peersock_id(node, own, sizeof own) == PEERSOCK_OK && strcmp(own, id) == 0);
    CHECK(peersock_key(node, own_key, sizeof own_key) == PEERSOCK_OK && strcmp(own_key, key) == 0);
    CHECK(peersock_stop(node, 0) == PEERSOCK_OK);
    CHECK(peersock_id(node, own, sizeof own) == PEERSOCK_E_DOWN);
}

// The same state directory, again and again: it is locked while a node runs, and keeps the identity.
static void check_restarts(const char *directory) {
    char path[4096], id[PEERSOCK_ID_SIZE], first[PEERSOCK_ID_SIZE] = "";
    snprintf(path, sizeof path, "%s/state", directory);
    peersock_config *config = settings();
    CHECK(peersock_config_state_dir(config, path) == PEERSOCK_OK);
    for (int i = 0; i < 3; i++) {
        CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
        CHECK(peersock_is_running(PEERSOCK_DEFAULT));
        peersock_node second;
        CHECK(peersock_start(config, &second) == PEERSOCK_E_FILE);
        CHECK(strstr(peersock_last_error(), "in use") != NULL);
        CHECK(peersock_id(PEERSOCK_DEFAULT, id, sizeof id) == PEERSOCK_OK);
        if (i == 0) memcpy(first, id, sizeof id);
        CHECK(strcmp(first, id) == 0);
        CHECK(peersock_join(PEERSOCK_DEFAULT, NETWORK, NULL) == PEERSOCK_OK);
        int fd = listen_on(PEERSOCK_DEFAULT, 7000);
        CHECK(peersock_stop(PEERSOCK_DEFAULT, 1000) == PEERSOCK_OK);
        CHECK(!peersock_is_running(PEERSOCK_DEFAULT));
        CHECK(peersock_listen(fd, 5) == -1 && errno == ENETDOWN);
        // Where the system does not let the node look into the process, as in Valgrind, nobody is woken.
        struct pollfd woken = {fd, POLLIN, 0};
        for (int nonblocking = 0; nonblocking < 2 && poll(&woken, 1, 0) == 1; nonblocking++) {
            CHECK(fcntl(fd, F_SETFL, nonblocking ? O_NONBLOCK : 0) == 0);
            CHECK(peersock_accept(fd, NULL, NULL) == -1 && errno == ENETDOWN);
        }
        CHECK(close(fd) == 0);
    }
    peersock_config_free(config);
}

// Roots are those of the environment, of the configuration, or none.
static void check_roots(const char *directory) {
    char key[PEERSOCK_KEY_SIZE], one[200], two[200], path[4096], file[4100], *status;
    uint8_t seed[PEERSOCK_SEED_SIZE] = {7};
    peersock_node node;
    peersock_config *config = settings();
    CHECK(peersock_identity_key(seed, sizeof seed, key, sizeof key) == PEERSOCK_OK);
    snprintf(one, sizeof one, "%s@127.0.0.1:9", key);
    snprintf(two, sizeof two, "%s@127.0.0.1:11?token=a%%20b\n", key);
    CHECK(setenv("PEERSOCK_ROOTS", one, 1) == 0);
    // As a file that others could read, the second one would not be taken: it has a token.
    snprintf(path, sizeof path, "%s/roots", directory);
    snprintf(file, sizeof file, "@%s", path);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    CHECK(fd >= 0 && write(fd, two, strlen(two)) == (ssize_t)strlen(two) && close(fd) == 0);
    const char *given[] = {NULL, file, "", two, NULL};
    const char *wanted[] = {"127.0.0.1:9", "127.0.0.1:11", NULL, "127.0.0.1:11", "127.0.0.1:9"};
    for (int i = 0; i < 5; i++) {
        CHECK(peersock_config_roots(config, given[i]) == PEERSOCK_OK);
        CHECK(peersock_start(config, &node) == PEERSOCK_OK);
        CHECK(peersock_status(node, &status) == PEERSOCK_OK);
        const char *roots = strstr(status, "\"roots\":[");
        CHECK(roots != NULL && (wanted[i] ? strstr(roots, wanted[i]) != NULL : roots[9] == ']'));
        CHECK(strstr(status, "a b") == NULL);
        peersock_string_free(status);
        CHECK(peersock_stop(node, 0) == PEERSOCK_OK);
    }
    CHECK(peersock_config_roots(config, "nonsense") == PEERSOCK_E_INVALID);
    CHECK(strstr(peersock_last_error(), "peersock root") != NULL);
    CHECK(peersock_config_roots(config, "dns:example.org lan") == PEERSOCK_OK);
    CHECK(chmod(path, 0644) == 0 && peersock_config_roots(config, file) == PEERSOCK_E_INVALID);
    CHECK(unsetenv("PEERSOCK_ROOTS") == 0 && unlink(path) == 0);
    peersock_config_free(config);
}

// Whether the node's status names a TURN server so, within some seconds: the servers are asked by and by.
// NULL: none at all.
static bool has_turn(peersock_node node, const char *wanted) {
    for (int i = 0; i < 1000; i++) {
        char *status;
        CHECK(peersock_status(node, &status) == PEERSOCK_OK);
        const char *turn = strstr(status, "\"turn\":[");
        CHECK(turn != NULL && strstr(status, "sesame") == NULL);
        bool is_there = wanted ? strstr(turn, wanted) != NULL : turn[8] == ']';
        peersock_string_free(status);
        if (is_there) return true;
        usleep(10000);
    }
    return false;
}

// TURN servers are those of the environment, of the configuration, or none. A node without roots asks none.
static void check_turn(const char *directory) {
    char key[PEERSOCK_KEY_SIZE], root[200], path[4096], file[4100];
    const char *text = "turns:alice:sesame@127.0.0.1:9";
    uint8_t seed[PEERSOCK_SEED_SIZE] = {7};
    peersock_node node;
    peersock_config *config = settings();
    CHECK(peersock_identity_key(seed, sizeof seed, key, sizeof key) == PEERSOCK_OK);
    snprintf(root, sizeof root, "%s@127.0.0.1:9", key);
    snprintf(path, sizeof path, "%s/turn", directory);
    snprintf(file, sizeof file, "@%s", path);
    CHECK(setenv("PEERSOCK_TURN", "turn:bob:sesame@127.0.0.1:9?transport=tcp", 1) == 0);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
    const char *given[] = {NULL, file, "", text};
    const char *wanted[] = {"turn:bob@127.0.0.1:9?transport=tcp", "turns:alice@127.0.0.1:9", NULL,
                            "turns:alice@127.0.0.1:9"};
    CHECK(peersock_config_roots(config, root) == PEERSOCK_OK);
    for (int i = 0; i < 4; i++) {
        CHECK(peersock_config_turn(config, given[i]) == PEERSOCK_OK);
        CHECK(peersock_start(config, &node) == PEERSOCK_OK);
        CHECK(has_turn(node, wanted[i]));
        CHECK(peersock_stop(node, 0) == PEERSOCK_OK);
    }
    CHECK(peersock_config_turn(config, "turns:alice:sesame@h?transport=udp") == PEERSOCK_E_INVALID);
    CHECK(strstr(peersock_last_error(), "TURN servers") != NULL && strstr(peersock_last_error(), "sesame") == NULL);
    CHECK(chmod(path, 0644) == 0 && peersock_config_turn(config, file) == PEERSOCK_E_INVALID);
    CHECK(peersock_config_turn(NULL, text) == PEERSOCK_E_INVALID);
    CHECK(unsetenv("PEERSOCK_TURN") == 0 && unlink(path) == 0);
    peersock_config_free(config);
}

static void check_networks(void) {
    uint64_t networks[4];
    size_t count = 9;
    struct sockaddr_storage addresses[4];
    struct in6_addr own;
    uint64_t two = peersock_ad_hoc(80, 81);
    CHECK(two == 0xff00500051000000);
    CHECK(peersock_join(PEERSOCK_DEFAULT, two, "correct horse") == PEERSOCK_OK);
    CHECK(peersock_join(PEERSOCK_DEFAULT, two, "correct horse") == PEERSOCK_E_EXISTS);
    // It is never used with another secret than that it was joined with, or without one.
    CHECK(peersock_join(PEERSOCK_DEFAULT, two, NULL) == PEERSOCK_E_INVALID);
    CHECK(strstr(peersock_last_error(), "another secret") != NULL);
    CHECK(peersock_join(PEERSOCK_DEFAULT, two, "battery staple") == PEERSOCK_E_INVALID);
    const uint8_t zeros[32] = {0};
    CHECK(peersock_join_key(PEERSOCK_DEFAULT, peersock_ad_hoc(90, 91), zeros, 32) == PEERSOCK_E_INVALID);
    CHECK(peersock_wait_ready(PEERSOCK_DEFAULT, two, 1000) == PEERSOCK_OK);
    CHECK(peersock_networks(PEERSOCK_DEFAULT, networks, 4, &count) == PEERSOCK_OK && count == 2);
    CHECK(networks[0] == NETWORK && networks[1] == two);
    CHECK(peersock_addresses(PEERSOCK_DEFAULT, two, addresses, 4, &count) == PEERSOCK_OK && count == 1);
    CHECK(peersock_address(PEERSOCK_DEFAULT, two, &own) == PEERSOCK_OK);
    CHECK(addresses[0].ss_family == AF_INET6);
    CHECK(memcmp(&((struct sockaddr_in6 *)&addresses[0])->sin6_addr, &own, sizeof own) == 0);

    char name[IF_NAMESIZE];
    struct if_nameindex *list = peersock_if_nameindex();
    CHECK(list != NULL && list[0].if_index > 0 && list[1].if_index > list[0].if_index && list[2].if_name == NULL);
    // No interface of the machine has the index of a network.
    CHECK(if_indextoname(list[0].if_index, name) == NULL && if_indextoname(list[1].if_index, name) == NULL);
    CHECK(peersock_if_nametoindex(list[1].if_name) == list[1].if_index);
    CHECK(peersock_if_indextoname(list[1].if_index, name) == name && strcmp(name, list[1].if_name) == 0);
    peersock_if_freenameindex(list);

    struct sockaddr_in6 nobody = {.sin6_family = AF_INET6, .sin6_addr = own};
    nobody.sin6_addr.s6_addr[15] ^= 1;
    CHECK(peersock_wait_peer(PEERSOCK_DEFAULT, two, (struct sockaddr *)&nobody, sizeof nobody, 20) ==
          PEERSOCK_E_TIMEOUT);
    CHECK(peersock_leave(PEERSOCK_DEFAULT, two) == PEERSOCK_OK);
    CHECK(peersock_leave(PEERSOCK_DEFAULT, two) == PEERSOCK_E_NOT_FOUND);
}

static void check_peers(peersock_node other) {
    char id[PEERSOCK_ID_SIZE], *json;
    peersock_peer peers[2];
    struct sockaddr_storage found[8];
    size_t count;
    uint64_t number;
    uint16_t port;
    CHECK(peersock_id(other, id, sizeof id) == PEERSOCK_OK);
    CHECK(peersock_udp_port(other, &port) == PEERSOCK_OK && port != 0);
    CHECK(peersock_peers(PEERSOCK_DEFAULT, 0, peers, sizeof(peersock_peer), 2, &count) == PEERSOCK_OK && count == 1);
    CHECK(peersock_peers(PEERSOCK_DEFAULT, NETWORK, NULL, sizeof(peersock_peer), 0, &count) == PEERSOCK_OK && count == 1);
    CHECK(strcmp(peers[0].id, id) == 0 && peers[0].network == NETWORK && peers[0].connected);
    struct sockaddr_in6 address = address_of(other, 0);
    CHECK(memcmp(&((struct sockaddr_in6 *)&peers[0].address)->sin6_addr, &address.sin6_addr, 16) == 0);
    CHECK(peers[0].state == PEERSOCK_PEER_CONNECTED && peers[0].flags == 0);
    CHECK(peers[0].last_seen_ms < 600000 && peers[0].total_sent_packets > 0 && peers[0].total_lost_packets <= peers[0].total_received_packets);
    char named[64];
    CHECK(peersock_peer_name(PEERSOCK_DEFAULT, NETWORK, id, named, sizeof named) == PEERSOCK_E_NOT_FOUND);
    CHECK((peers[0].flags & (PEERSOCK_PEER_RELAYED | PEERSOCK_PEER_TURN)) == 0);
    CHECK(peers[0].path.ss_family != AF_UNSPEC && peers[0].datagram_size >= 1200 && peers[0].sent_packets > 0);
    CHECK(peersock_peer_addresses(PEERSOCK_DEFAULT, NETWORK, id, found, 8, &count) == PEERSOCK_OK && count == 1);
    CHECK(peersock_paths(PEERSOCK_DEFAULT, NETWORK, id, found, 8, &count) == PEERSOCK_OK && count >= 1);
    CHECK(memcmp(&found[0], &peers[0].path, sizeof found[0]) == 0);
    CHECK(peersock_status(PEERSOCK_DEFAULT, &json) == PEERSOCK_OK);
    CHECK(strstr(json, id) != NULL && strstr(json, "\"counters\"") != NULL);
    const char *counters = strstr(json, "\"counters\":{\"");
    CHECK(counters != NULL);
    char name[100];
    CHECK(sscanf(counters, "\"counters\":{\"%99[^\"]", name) == 1);
    CHECK(peersock_counter(PEERSOCK_DEFAULT, name, &number) == PEERSOCK_OK);
    peersock_string_free(json);
    id[0] = id[0] == 'a' ? 'b' : 'a';
    CHECK(peersock_paths(PEERSOCK_DEFAULT, NETWORK, id, found, 8, &count) == PEERSOCK_E_NOT_FOUND);
}

int main(int argc, char **argv) {
    char id[PEERSOCK_ID_SIZE];
    CHECK(argc == 2 && peersock_version()[0] == '0');
    check_identities(argv[1], id);
    check_restarts(argv[1]);
    check_roots(argv[1]);
    check_turn(argv[1]);
    peersock_node other = start_pair();
    check_peers(other);
    check_networks();
    CHECK(peersock_stop(other, 1000) == PEERSOCK_OK && peersock_stop(PEERSOCK_DEFAULT, 1000) == PEERSOCK_OK);
    puts("ok");
    return 0;
}
