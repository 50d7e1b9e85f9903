// Every misuse gives an error, none a crash: null pointers, bad lengths, closed descriptors, unknown handles.
#include "common.h"

#define FAILS(call, error) CHECK((errno = 0, (call) == -1) && errno == (error))
#define REFUSED(call) CHECK((call) == PEERSOCK_E_INVALID && peersock_last_error()[0] != '\0')

static void misuse_node_calls(void) {
    char small[3];
    size_t count;
    uint64_t number;
    struct sockaddr_storage addresses[1];
    struct sockaddr address = {AF_UNIX, {0}};
    uint8_t seed[PEERSOCK_SEED_SIZE];
    REFUSED(peersock_config_ephemeral(NULL));
    REFUSED(peersock_config_state_dir(NULL, NULL));
    REFUSED(peersock_config_seed(NULL, seed, sizeof seed));
    REFUSED(peersock_config_port(NULL, 1));
    REFUSED(peersock_config_discovery(NULL, true));
    REFUSED(peersock_config_tcp_buffers(NULL, 1, 1));
    peersock_config_free(NULL);
    peersock_config *config = peersock_config_new();
    REFUSED(peersock_config_interfaces(config, NULL));
    REFUSED(peersock_config_interfaces(config, ""));
    REFUSED(peersock_config_interfaces(config, "\xff"));
    REFUSED(peersock_config_seed(config, NULL, sizeof seed));
    REFUSED(peersock_config_seed(config, seed, 31));
    REFUSED(peersock_config_discovery_port(config, 0));
    REFUSED(peersock_config_tcp_buffers(config, 0, 1));
    peersock_config_free(config);

    REFUSED(peersock_identity_generate(NULL, sizeof seed));
    REFUSED(peersock_identity_generate(seed, 1));
    REFUSED(peersock_identity_load(NULL, seed, sizeof seed));
    REFUSED(peersock_identity_store(NULL, seed, sizeof seed));
    CHECK(peersock_identity_load("/nonexistent/file", seed, sizeof seed) == PEERSOCK_E_FILE);

    REFUSED(peersock_id(PEERSOCK_DEFAULT, NULL, 100));
    CHECK(peersock_id(PEERSOCK_DEFAULT, small, sizeof small) == PEERSOCK_E_SPACE);
    CHECK(strstr(peersock_last_error(), "65 bytes") != NULL);
    REFUSED(peersock_udp_port(PEERSOCK_DEFAULT, NULL));
    REFUSED(peersock_status(PEERSOCK_DEFAULT, NULL));
    peersock_string_free(NULL);
    REFUSED(peersock_counter(PEERSOCK_DEFAULT, NULL, &number));
    CHECK(peersock_counter(PEERSOCK_DEFAULT, "no such", &number) == PEERSOCK_E_NOT_FOUND);
    // A static network is described by its file, and a managed one has no passphrase.
    REFUSED(peersock_join(PEERSOCK_DEFAULT, 0xfe00000000000011, NULL));
    REFUSED(peersock_join(PEERSOCK_DEFAULT, 17, "correct horse"));
    // Everybody knows an empty passphrase.
    REFUSED(peersock_join(PEERSOCK_DEFAULT, peersock_ad_hoc(1, 2), ""));
    CHECK(strstr(peersock_last_error(), "empty") != NULL);
    REFUSED(peersock_join(PEERSOCK_DEFAULT, peersock_ad_hoc(1, 2), "\xff"));
    REFUSED(peersock_join_key(PEERSOCK_DEFAULT, NETWORK, NULL, 32));
    REFUSED(peersock_join_key(PEERSOCK_DEFAULT, peersock_ad_hoc(1, 2), seed, 31));
    REFUSED(peersock_join_file(PEERSOCK_DEFAULT, NULL, NULL));
    CHECK(peersock_join_file(PEERSOCK_DEFAULT, "/nonexistent", NULL) == PEERSOCK_E_FILE);
    CHECK(peersock_join(PEERSOCK_DEFAULT, NETWORK, NULL) == PEERSOCK_E_EXISTS);
    CHECK(peersock_leave(PEERSOCK_DEFAULT, NETWORK + (1ull << 24)) != PEERSOCK_OK);
    CHECK(peersock_leave(PEERSOCK_DEFAULT, peersock_ad_hoc(1, 2)) == PEERSOCK_E_NOT_FOUND);
    CHECK(peersock_ad_hoc(2, 1) == 0);
    REFUSED(peersock_networks(PEERSOCK_DEFAULT, NULL, 1, &count));
    REFUSED(peersock_networks(PEERSOCK_DEFAULT, NULL, 0, NULL));
    REFUSED(peersock_address(PEERSOCK_DEFAULT, NETWORK, NULL));
    CHECK(peersock_addresses(PEERSOCK_DEFAULT, 3, addresses, 1, &count) == PEERSOCK_E_NOT_FOUND);
    REFUSED(peersock_addresses(PEERSOCK_DEFAULT, NETWORK, NULL, 1, &count));
    REFUSED(peersock_wait_peer(PEERSOCK_DEFAULT, NETWORK, NULL, 0, 0));
    REFUSED(peersock_wait_peer(PEERSOCK_DEFAULT, NETWORK, &address, sizeof address, 0));
    REFUSED(peersock_peers(PEERSOCK_DEFAULT, NETWORK, NULL, sizeof(peersock_peer), 1, &count));
    REFUSED(peersock_paths(PEERSOCK_DEFAULT, NETWORK, "xyz", addresses, 1, &count));
    REFUSED(peersock_paths(PEERSOCK_DEFAULT, NETWORK, NULL, addresses, 1, &count));
    REFUSED(peersock_peer_name(PEERSOCK_DEFAULT, NETWORK, NULL, NULL, 0));
    CHECK(peersock_start(NULL, NULL) == PEERSOCK_E_EXISTS);
    CHECK(peersock_stop(4711, 0) == PEERSOCK_E_DOWN && errno == ENETDOWN);
    CHECK(!peersock_is_running(4711));
}

// Raw and packet sockets are left out, because the system has them for root alone.
static void refuse_what_the_system_refuses(void) {
    static const int protocols[] = {0, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IGMP, 256, 263, 1000, -1};
    static const int domains[] = {AF_INET, AF_INET6, -1, 4711};
    static const int flags[] = {0, SOCK_CLOEXEC, 0x10, 1 << 20};
    int refused = 0;
    for (int type = 0; type < 16; type++) {
        for (size_t n = 0; type != SOCK_RAW && type != SOCK_PACKET && n < 8 * 4 * 4; n++) {
            int domain = domains[n % 4], kind = type | flags[n / 4 % 4], protocol = protocols[n / 16];
            int system = socket(domain, kind, protocol), expected = system < 0 ? errno : 0;
            int ours = peersock_socket(domain, kind, protocol), seen = ours < 0 ? errno : 0;
            if (seen != expected) {
                fprintf(stderr, "socket(%d, %#x, %d): ", domain, kind, protocol);
                fprintf(stderr, "%d in place of %d\n", seen, expected);
            }
            CHECK(seen == expected);
            refused += seen != 0;
            CHECK(system < 0 || close(system) == 0);
            CHECK(ours < 0 || peersock_close(ours) == 0);
        }
    }
    CHECK(refused > 1000);
}

static void misuse_sockets(void) {
    struct sockaddr_in6 address = address_of(PEERSOCK_DEFAULT, 7000);
    struct sockaddr *any = (struct sockaddr *)&address;
    socklen_t length = sizeof address;
    char byte;
    FAILS(peersock_socket(AF_INET6, 9, 0), ESOCKTNOSUPPORT);
    FAILS(peersock_socket(AF_INET6, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    FAILS(peersock_socket(AF_UNIX, SOCK_STREAM, 0), EAFNOSUPPORT);
    FAILS(peersock_node_socket(4711, AF_INET6, SOCK_STREAM, 0), ENETDOWN);
    int fd = peersock_socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    FAILS(peersock_bind(fd, NULL, sizeof address), EFAULT);
    FAILS(peersock_bind(fd, any, 5), EINVAL);
    FAILS(peersock_connect(fd, NULL, sizeof address), EFAULT);
    FAILS(peersock_connect(fd, any, 1), EINVAL);
    FAILS(peersock_getsockname(fd, NULL, &length), EFAULT);
    FAILS(peersock_getsockname(fd, any, NULL), EFAULT);
    FAILS(peersock_getpeername(fd, any, &length), ENOTCONN);
    FAILS(peersock_getsockopt(fd, SOL_SOCKET, SO_ERROR, NULL, &length), EFAULT);
    FAILS(peersock_getsockopt(fd, SOL_SOCKET, SO_ERROR, &length, NULL), EFAULT);
    FAILS(peersock_setsockopt(fd, IPPROTO_TCP, 9999, NULL, 0), ENOPROTOOPT);
    FAILS(peersock_setsockopt(fd, IPPROTO_TCP, 1, NULL, 4), EFAULT);
    FAILS(peersock_sendmsg(fd, NULL, 0), EFAULT);
    FAILS(peersock_recvmsg(fd, NULL, 0), EFAULT);
    FAILS(peersock_shutdown(fd, SHUT_WR), ENOTCONN);
    FAILS(peersock_shutdown(fd, 99), EINVAL);
    FAILS(peersock_accept4(fd, NULL, NULL, 0x40), EINVAL);
    CHECK(peersock_close(fd) == 0);
    FAILS(peersock_close(fd), EBADF);
    for (int closed = fd, i = 0; i < 3; i++, closed = i == 1 ? -1 : 1 << 20) {
        FAILS(peersock_bind(closed, any, sizeof address), EBADF);
        FAILS(peersock_listen(closed, 1), EBADF);
        FAILS(peersock_connect(closed, any, sizeof address), EBADF);
        FAILS(peersock_accept(closed, NULL, NULL), EBADF);
        FAILS(peersock_send(closed, "x", 1, 0), EBADF);
        FAILS(peersock_recv(closed, &byte, 1, 0), EBADF);
        FAILS(peersock_shutdown(closed, SHUT_RD), EBADF);
        FAILS(peersock_getsockopt(closed, SOL_SOCKET, SO_ERROR, &byte, &length), EBADF);
        FAILS(peersock_getsockname(closed, any, &length), EBADF);
        FAILS(peersock_close(closed), EBADF);
    }
    FAILS(peersock_listen(STDERR_FILENO, 1), ENOTSOCK);
}

static void misuse_names(void) {
    struct addrinfo *list;
    struct sockaddr address = {AF_INET, {0}};
    char host[4];
    CHECK(peersock_getaddrinfo(NULL, NULL, NULL, &list) == EAI_NONAME);
    CHECK(peersock_getaddrinfo("localhost", NULL, NULL, NULL) == EAI_FAIL);
    peersock_freeaddrinfo(NULL);
    CHECK(peersock_getnameinfo(NULL, 0, host, sizeof host, NULL, 0, 0) != 0);
    CHECK(peersock_getnameinfo(&address, 3, host, sizeof host, NULL, 0, 0) != 0);
    CHECK(peersock_gai_strerror(EAI_NONAME)[0] != '\0');
    CHECK(peersock_if_nametoindex(NULL) == 0 && peersock_if_nametoindex("eth17") == 0 && errno == ENODEV);
    CHECK(peersock_if_indextoname(99, host) == NULL && errno == ENXIO);
    peersock_if_freenameindex(NULL);
}

// A port that no network allows is refused, and the text names those that are allowed.
static void ports_that_are_not_allowed(void) {
    peersock_node node;
    peersock_config *config = settings();
    CHECK(peersock_start(config, &node) == PEERSOCK_OK);
    peersock_config_free(config);
    uint64_t network = peersock_ad_hoc(5000, 5100);
    CHECK(peersock_join(node, network, NULL) == PEERSOCK_OK);
    for (int is_wildcard = 0; is_wildcard < 2; is_wildcard++) {
        struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
        if (!is_wildcard) CHECK(peersock_address(node, network, &address.sin6_addr) == PEERSOCK_OK);
        // A static network's file is needed; the text is that of the last error alone.
        CHECK(peersock_join(node, 0xfe00000000000011, NULL) != PEERSOCK_OK);
        CHECK(strstr(peersock_last_error(), "5100") == NULL);
        int fd = peersock_node_socket(node, AF_INET6, SOCK_STREAM, 0);
        int bound = peersock_bind(fd, (struct sockaddr *)&address, sizeof address);
        // What is bound to a wildcard may still connect.
        CHECK(bound == (is_wildcard ? 0 : -1));
        if (is_wildcard) FAILS(peersock_listen(fd, 5), EACCES);
        else CHECK(errno == EACCES);
        CHECK(strstr(peersock_last_error(), "port 80 is not allowed: network ff138813ec000000 allows ports 5000 to 5100"));
        CHECK(close(fd) == 0);
    }
    CHECK(peersock_stop(node, 1000) == PEERSOCK_OK);
}

int main(void) {
    CHECK(strcmp(peersock_last_error(), "") == 0);
    ports_that_are_not_allowed();
    start(NULL);
    misuse_node_calls();
    refuse_what_the_system_refuses();
    misuse_sockets();
    misuse_names();
    CHECK(peersock_stop(PEERSOCK_DEFAULT, 1000) == PEERSOCK_OK);
    CHECK(peersock_stop(PEERSOCK_DEFAULT, 1000) == PEERSOCK_E_DOWN);
    CHECK(peersock_join(PEERSOCK_DEFAULT, NETWORK, NULL) == PEERSOCK_E_DOWN);
    FAILS(peersock_socket(AF_INET6, SOCK_STREAM, 0), ENETDOWN);
    puts("ok");
    return 0;
}
