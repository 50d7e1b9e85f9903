// Sockets in one call, by the names of a static network's members. The argument is the folder for its file.
#include "common.h"

#define OFFICE 0xfe00000000000001

static peersock_node alpha, beta;

static void start_members(const char *folder) {
    uint8_t seeds[2][PEERSOCK_SEED_SIZE];
    char path[4096];
    describe_members(folder, seeds, path);
    for (int i = 0; i < 2; i++) {
        peersock_config *config = settings();
        peersock_node *node = i == 0 ? &alpha : &beta;
        uint64_t network = 0;
        CHECK(peersock_config_seed(config, seeds[i], PEERSOCK_SEED_SIZE) == PEERSOCK_OK);
        CHECK(peersock_start(config, node) == PEERSOCK_OK);
        // A file has its own secret.
        CHECK(peersock_join_named(*node, path, "correct horse", NULL) == PEERSOCK_E_INVALID);
        CHECK(peersock_join_named(*node, "/nonexistent", NULL, NULL) == PEERSOCK_E_FILE);
        CHECK(peersock_join_named(*node, path, NULL, &network) == PEERSOCK_OK && network == OFFICE);
        peersock_config_free(config);
    }
}

// Whether a text stands for these addresses; NULL: for nothing.
static int stands_for(peersock_node node, const char *host, const char *wanted) {
    char *addresses = NULL;
    peersock_result result = peersock_lookup(node, host, &addresses);
    int is = wanted ? result == PEERSOCK_OK && strcmp(addresses, wanted) == 0 : result == PEERSOCK_E_NOT_FOUND;
    if (!is) fprintf(stderr, "%s: %d, %s\n", host, result, addresses);
    peersock_string_free(addresses);
    return is;
}

static void check_lookup(void) {
    char *own = NULL;
    CHECK(peersock_lookup(beta, NULL, &own) == PEERSOCK_OK && strstr(own, " 10.7.0.2"));
    CHECK(stands_for(beta, "", own) && stands_for(beta, "beta", own) && stands_for(alpha, "BETA", own));
    peersock_string_free(own);
    CHECK(stands_for(alpha, "10.7.0.9", "10.7.0.9") && stands_for(alpha, "::ffff:10.7.0.9", "10.7.0.9"));
    CHECK(stands_for(alpha, "FD00:0::1", "fd00::1") && stands_for(alpha, "gamma", NULL));
    CHECK(stands_for(alpha, "localhost", NULL) && strstr(peersock_last_error(), "localhost"));
    CHECK(peersock_lookup(alpha, "\xff", &own) == PEERSOCK_E_INVALID);
    CHECK(peersock_lookup(alpha, "beta", NULL) == PEERSOCK_E_INVALID);
    CHECK(peersock_lookup(77, "beta", &own) == PEERSOCK_E_DOWN);
}

static uint16_t port_of(int fd) {
    struct sockaddr_in6 address;
    socklen_t length = sizeof address;
    CHECK(peersock_getsockname(fd, (struct sockaddr *)&address, &length) == 0 && length == sizeof address);
    return ntohs(address.sin6_port);
}

// Accepts what was dialled, and says whether it comes over IPv4.
static int is_v4(int listener, int fd) {
    struct sockaddr_in6 from;
    socklen_t length = sizeof from;
    int accepted = peersock_accept(listener, (struct sockaddr *)&from, &length);
    CHECK(accepted >= 0 && write(accepted, "x", 1) == 1);
    char byte;
    CHECK(read(fd, &byte, 1) == 1 && byte == 'x' && close(accepted) == 0 && close(fd) == 0);
    return IN6_IS_ADDR_V4MAPPED(&from.sin6_addr);
}

static void check_streams(void) {
    int listener = peersock_listen_at(beta, AF_UNSPEC, SOCK_STREAM, NULL, 0, 5);
    CHECK(listener >= 0);
    uint16_t port = port_of(listener);
    CHECK(port != 0 && !is_v4(listener, peersock_dial(alpha, AF_UNSPEC, SOCK_STREAM, "beta", port)));
    CHECK(is_v4(listener, peersock_dial(alpha, AF_INET, SOCK_STREAM, "beta", port)));
    CHECK(is_v4(listener, peersock_dial(alpha, AF_UNSPEC, SOCK_STREAM, "10.7.0.2", port)));
    // Without a host it is the node itself.
    CHECK(!is_v4(listener, peersock_dial(beta, AF_INET6, SOCK_STREAM, NULL, port)));
    // Nothing waits for small writes to be sent.
    int fd = peersock_dial(alpha, AF_UNSPEC, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, "beta", port), on = 0;
    socklen_t length = sizeof on;
    CHECK(fd >= 0 && peersock_getsockopt(fd, IPPROTO_TCP, 1, &on, &length) == 0 && on != 0);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    CHECK((wait_for(fd, POLLOUT) & POLLOUT) && peersock_connected(fd) == 0);
    CHECK(fcntl(fd, F_SETFL, 0) == 0 && !is_v4(listener, fd));
    CHECK(peersock_listen_at(beta, AF_UNSPEC, SOCK_STREAM, "beta", port, 5) == -1 && errno == EADDRINUSE);
    CHECK(close(listener) == 0);

    // Only one of the addresses is listened at: it is found in its turn.
    listener = peersock_listen_at(beta, AF_INET, SOCK_STREAM, "beta", port, 5);
    CHECK(listener >= 0 && is_v4(listener, peersock_dial(alpha, AF_UNSPEC, SOCK_STREAM, "beta", port)));
    CHECK(peersock_dial(alpha, AF_INET6, SOCK_STREAM, "beta", port) == -1 && errno == ECONNREFUSED);
    CHECK(*peersock_last_error() && close(listener) == 0);
    // At another port: the node hears of a close(2) by and by.
    listener = peersock_listen_at(beta, AF_INET6, SOCK_STREAM, NULL, 0, 5);
    port = port_of(listener);
    CHECK(listener >= 0 && !is_v4(listener, peersock_dial(alpha, AF_UNSPEC, SOCK_STREAM, "beta", port)));
    CHECK(peersock_dial(alpha, AF_INET, SOCK_STREAM, "beta", port) == -1 && errno == ECONNREFUSED);
    CHECK(close(listener) == 0);
}

static void check_datagrams(void) {
    int server = peersock_listen_at(beta, AF_INET, SOCK_DGRAM, "10.7.0.2", 0, 0);
    CHECK(server >= 0);
    int client = peersock_dial(alpha, AF_UNSPEC, SOCK_DGRAM, "10.7.0.2", port_of(server));
    char text[8];
    CHECK(client >= 0 && peersock_send(client, "hello", 5, 0) == 5);
    CHECK(peersock_recv(server, text, sizeof text, 0) == 5 && memcmp(text, "hello", 5) == 0);
    CHECK(close(client) == 0 && close(server) == 0);
}

static void check_refusals(void) {
    CHECK(peersock_dial(alpha, AF_UNSPEC, SOCK_STREAM, "gamma", 80) == -1 && errno == EHOSTUNREACH);
    CHECK(strstr(peersock_last_error(), "gamma"));
    CHECK(peersock_dial(alpha, AF_INET, SOCK_STREAM, "fd00::1", 80) == -1 && errno == EHOSTUNREACH);
    CHECK(peersock_dial(alpha, AF_UNIX, SOCK_STREAM, "beta", 80) == -1 && errno == EAFNOSUPPORT);
    CHECK(peersock_dial(alpha, AF_UNSPEC, SOCK_SEQPACKET, "beta", 80) == -1 && errno == ESOCKTNOSUPPORT);
    CHECK(peersock_dial(77, AF_UNSPEC, SOCK_STREAM, "fd00::1", 80) == -1 && errno == ENETDOWN);
    CHECK(peersock_listen_at(alpha, AF_INET6, SOCK_STREAM, "10.7.0.1", 80, 5) == -1 && errno == EADDRNOTAVAIL);
    CHECK(peersock_listen_at(alpha, AF_UNSPEC, SOCK_STREAM, "beta", 80, 5) == -1 && errno == EADDRNOTAVAIL);
    CHECK(peersock_listen_at(77, AF_UNSPEC, SOCK_STREAM, NULL, 80, 5) == -1 && errno == ENETDOWN);
    // A node whose only network allows one port.
    peersock_node narrow;
    peersock_config *config = settings();
    CHECK(peersock_start(config, &narrow) == PEERSOCK_OK);
    peersock_config_free(config);
    CHECK(stands_for(narrow, NULL, ""));
    CHECK(peersock_join_named(narrow, "ff00500050000000", "correct horse", NULL) == PEERSOCK_OK);
    CHECK(peersock_listen_at(narrow, AF_UNSPEC, SOCK_STREAM, NULL, 90, 5) == -1 && errno == EACCES);
    CHECK(strstr(peersock_last_error(), "80") && peersock_stop(narrow, 0) == PEERSOCK_OK);
}

static void check_reasons(void) {
    int listener = peersock_listen_at(beta, AF_UNSPEC, SOCK_STREAM, NULL, 0, 5);
    int fd = peersock_dial(beta, AF_UNSPEC, SOCK_STREAM, NULL, port_of(listener));
    // What stands has no other reason, and other errors are their own.
    CHECK(peersock_reason(fd, EPIPE) == EPIPE && peersock_reason(fd, EAGAIN) == EAGAIN);
    CHECK(peersock_reason(-1, EPIPE) == EBADF);
    // That nobody has accepted it is no matter here.
    CHECK(peersock_stop(beta, 0) != PEERSOCK_E_DOWN && (wait_for(fd, POLLIN) & POLLHUP));
    CHECK(peersock_reason(fd, ECONNRESET) == ENETDOWN && close(fd) == 0 && close(listener) == 0);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    start_members(argv[1]);
    check_lookup();
    check_streams();
    check_datagrams();
    check_refusals();
    check_reasons();
    CHECK(peersock_stop(alpha, 0) == PEERSOCK_OK);
    return 0;
}
