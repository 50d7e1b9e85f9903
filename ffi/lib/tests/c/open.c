// Nodes from settings that are one JSON text, and what has come of connections that nobody waited for.
#include "common.h"
#include <arpa/inet.h>

// Starts a node with settings of which some are those of the test.
static peersock_result open_with(peersock_node *node, const char *more) {
    char text[8192];
    int size = snprintf(text, sizeof text, "{\"interfaces\":\"loopback\",\"roots\":\"\",\"discovery_port\":%s%s%s}",
                        getenv("PEERSOCK_TEST_PORT"), *more ? "," : "", more);
    CHECK(size > 0 && (size_t)size < sizeof text);
    return peersock_open(text, node);
}

static void check_identities(const char *directory) {
    char settings[5000], id[PEERSOCK_ID_SIZE], first[PEERSOCK_ID_SIZE];
    char key[PEERSOCK_KEY_SIZE], wanted[PEERSOCK_KEY_SIZE];
    peersock_node node, second;
    snprintf(settings, sizeof settings, "\"state\":\"%s/state\"", directory);
    for (int i = 0; i < 2; i++) {
        CHECK(open_with(&node, settings) == PEERSOCK_OK);
        CHECK(open_with(&second, settings) == PEERSOCK_E_FILE && strstr(peersock_last_error(), "in use"));
        CHECK(peersock_id(node, i == 0 ? first : id, PEERSOCK_ID_SIZE) == PEERSOCK_OK);
        CHECK(peersock_stop(node, 0) == PEERSOCK_OK);
    }
    CHECK(strcmp(first, id) == 0);
    // A fresh identity is another one.
    CHECK(open_with(&node, "") == PEERSOCK_OK && peersock_id(node, id, sizeof id) == PEERSOCK_OK);
    CHECK(strcmp(first, id) != 0 && peersock_stop(node, 0) == PEERSOCK_OK);

    uint8_t seed[PEERSOCK_SEED_SIZE];
    memset(seed, 0xaB, sizeof seed);
    int size = snprintf(settings, sizeof settings, "\"seed\":\"");
    for (int i = 0; i < PEERSOCK_SEED_SIZE; i++) size += snprintf(settings + size, 4, i % 2 ? "aB" : "Ab");
    strcat(settings, "\",\"discovery\":false,\"turn\":\"\",\"port\":0,\"stun\":\"192.0.2.1:3478 stun.example:1\"");
    strcat(settings, ",\"dht\":\"off\",\"port_mapping\":false,\"birthday\":false,\"tcp_punch\":false");
    strcat(settings, ",\"introduce\":false,\"busy_poll\":10000,\"only_suite\":\"ChaCha20-Poly1305\"");
    strcat(settings, ",\"tcp_buffers\":[65536,65536]");
    CHECK(open_with(&node, settings) == PEERSOCK_OK);
    CHECK(peersock_key(node, key, sizeof key) == PEERSOCK_OK);
    CHECK(peersock_identity_key(seed, sizeof seed, wanted, sizeof wanted) == PEERSOCK_OK);
    CHECK(strcmp(key, wanted) == 0 && peersock_stop(node, 0) == PEERSOCK_OK);
}

static void check_networks(const char *directory) {
    uint64_t network;
    size_t count;
    peersock_node node;
    CHECK(open_with(&node, "\"network\":\"ff0001ffff000000\",\"secret\":\"correct horse\"") == PEERSOCK_OK);
    CHECK(peersock_networks(node, &network, 1, &count) == PEERSOCK_OK && count == 1 && network == NETWORK);
    // The same passphrase, so that it is the same network.
    CHECK(peersock_join(node, NETWORK, "correct horse") == PEERSOCK_E_EXISTS);
    CHECK(peersock_join(node, NETWORK, NULL) == PEERSOCK_E_INVALID);
    CHECK(peersock_stop(node, 0) == PEERSOCK_OK);

    char path[4096], settings[5000], key[PEERSOCK_KEY_SIZE], file[500];
    const uint8_t seed[PEERSOCK_SEED_SIZE] = {7};
    CHECK(peersock_identity_key(seed, sizeof seed, key, sizeof key) == PEERSOCK_OK);
    snprintf(file, sizeof file, "network = \"fe4f0c1d2e3a4b55\"\n[[member]]\nkey = \"%s\"\n", key);
    snprintf(path, sizeof path, "%s/office.toml", directory);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    CHECK(fd >= 0 && write(fd, file, strlen(file)) == (ssize_t)strlen(file) && close(fd) == 0);
    // Who is no member is not in it, and no node is left.
    snprintf(settings, sizeof settings, "\"network\":\"%s\"", path);
    CHECK(open_with(NULL, settings) == PEERSOCK_E_INVALID && !peersock_is_running(PEERSOCK_DEFAULT));
    snprintf(settings, sizeof settings, "\"network\":\"%s\",\"seed\":\"07%062d\"", path, 0);
    CHECK(open_with(NULL, settings) == PEERSOCK_OK);
    CHECK(peersock_networks(PEERSOCK_DEFAULT, &network, 1, &count) == PEERSOCK_OK && count == 1);
    CHECK(network == 0xfe4f0c1d2e3a4b55 && peersock_stop(PEERSOCK_DEFAULT, 0) == PEERSOCK_OK);
}

static void check_refusals(void) {
    const char *refused[] = {
        "\"nonsense\":1", "\"stun\":\"one\"", "\"dht\":\"somewhere\"", "\"dht\":true", "\"birthday\":\"no\"", "\"network\":5", "\"network\":\"a\\u0000\"", "\"secret\":\"\xff\"", "\"secret\":\"\\ud800\"",
        "\"secret\":\"\\ufffd\"", "\"seed\":\"short\"", "\"port\":-1", "\"port\":65536", "\"port\":\"80\"",
        "\"discovery\":1", "\"interfaces\":\"\"", "\"roots\":\"nonsense\"", "\"turn\":\"nonsense\"", "\"turn\":null",
        "\"secret\":\"correct horse\"", "\"network\":\"office.toml\",\"secret\":\"correct horse\"",
        "\"network\":\"0000000000000000\"", "\"network\":\"ff0001ffff000000\",\"secret\":\"\"",
        "\"introduce\":0", "\"busy_poll\":10001", "\"only_suite\":\"AES\"", "\"tcp_buffers\":[0,1]", "\"port_mapping\":1",
        "\"state\":\"x\",\"seed\":\"0000000000000000000000000000000000000000000000000000000000000000\"",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        peersock_node node = 77;
        peersock_result result = open_with(&node, refused[i]);
        if (result != PEERSOCK_E_INVALID) fprintf(stderr, "%s: %d\n", refused[i], result);
        CHECK(result == PEERSOCK_E_INVALID && *peersock_last_error() && node == 77);
    }
    CHECK(peersock_open(NULL, NULL) == PEERSOCK_E_INVALID && peersock_open("[]", NULL) == PEERSOCK_E_INVALID);
    CHECK(peersock_open("{", NULL) == PEERSOCK_E_INVALID && peersock_open("", NULL) == PEERSOCK_E_INVALID);
    CHECK(open_with(NULL, "\"network\":\"/nonexistent\"") == PEERSOCK_E_FILE);
    CHECK(!peersock_is_running(PEERSOCK_DEFAULT));
}

// Waits until an attempt has ended, and gives its error; 0 if there is none.
static int outcome(int fd) {
    while (peersock_connected(fd)) {
        if (errno != EINPROGRESS) return errno;
        struct pollfd writable = {fd, POLLOUT, 0};
        CHECK(poll(&writable, 1, -1) == 1);
    }
    return 0;
}

static void check_connections(void) {
    peersock_node node;
    CHECK(open_with(&node, "\"network\":\"ff0001ffff000000\"") == PEERSOCK_OK);
    int listener = listen_on(node, 7000), fd = peersock_node_socket(node, AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in6 to = address_of(node, 7000), nobody = to;
    CHECK(peersock_connect(fd, (struct sockaddr *)&to, sizeof to) == -1 && errno == EINPROGRESS && outcome(fd) == 0);
    CHECK(outcome(fd) == 0);
    // What has become of it since then is told, too.
    struct pollfd ended = {fd, POLLIN, 0};
    CHECK(peersock_stop(node, 5000) == PEERSOCK_OK && poll(&ended, 1, -1) == 1 && outcome(fd) == ENETDOWN);
    CHECK(close(fd) == 0 && close(listener) == 0);

    CHECK(open_with(&node, "\"network\":\"ff0001ffff000000\"") == PEERSOCK_OK);
    to = nobody = address_of(node, 7001);
    fd = peersock_node_socket(node, AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK(peersock_connect(fd, (struct sockaddr *)&to, sizeof to) == -1 && errno == EINPROGRESS);
    CHECK(outcome(fd) == ECONNREFUSED && close(fd) == 0);
    // Nobody answers from an address that no member has: it goes on.
    nobody.sin6_addr.s6_addr[15] ^= 1;
    fd = peersock_node_socket(node, AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK(peersock_connect(fd, (struct sockaddr *)&nobody, sizeof nobody) == -1 && errno == EINPROGRESS);
    CHECK(peersock_connected(fd) == -1 && errno == EINPROGRESS && close(fd) == 0);
    CHECK(peersock_connected(-1) == -1 && errno == EBADF && peersock_stop(node, 0) == PEERSOCK_OK);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    check_identities(argv[1]);
    check_networks(argv[1]);
    check_refusals();
    check_connections();
    return 0;
}
