// Members of a static network by name: getaddrinfo, getnameinfo. The argument is the folder for its file.
#include "common.h"
#include <sys/stat.h>

int main(int argc, char **argv) {
    CHECK(argc == 2);
    uint8_t seeds[2][PEERSOCK_SEED_SIZE];
    char path[4096];
    describe_members(argv[1], seeds, path);

    peersock_node beta;
    uint64_t network = 0;
    for (int i = 0; i < 2; i++) {
        peersock_config *config = settings();
        CHECK(peersock_config_seed(config, seeds[i], PEERSOCK_SEED_SIZE) == PEERSOCK_OK);
        CHECK(peersock_start(config, i == 0 ? NULL : &beta) == PEERSOCK_OK);
        CHECK(peersock_join_file(i == 0 ? PEERSOCK_DEFAULT : beta, path, &network) == PEERSOCK_OK);
        CHECK(network == 0xfe00000000000001);
        peersock_config_free(config);
    }
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    CHECK(peersock_getaddrinfo("beta", "7000", &hints, &found) == 0);
    CHECK(found->ai_family == AF_INET && found->ai_next == NULL);
    struct sockaddr_in to;
    memcpy(&to, found->ai_addr, sizeof to);
    CHECK(to.sin_addr.s_addr == htonl(0x0a070002) && to.sin_port == htons(7000));
    peersock_freeaddrinfo(found);
    CHECK(peersock_getaddrinfo("beta", NULL, NULL, &found) == 0);
    peersock_freeaddrinfo(found);
    CHECK(peersock_getaddrinfo("127.0.0.1", "80", NULL, &found) == 0);
    peersock_freeaddrinfo(found);
    CHECK(peersock_getaddrinfo("no.such.invalid", NULL, &hints, &found) != 0);

    char host[64], service[16];
    CHECK(peersock_getnameinfo((struct sockaddr *)&to, sizeof to, host, sizeof host, service, sizeof service,
                               NI_NUMERICSERV) == 0);
    CHECK(strcmp(host, "beta") == 0 && strcmp(service, "7000") == 0);
    CHECK(peersock_getnameinfo((struct sockaddr *)&to, sizeof to, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0);
    CHECK(strcmp(host, "10.7.0.2") == 0);
    CHECK(peersock_getnameinfo((struct sockaddr *)&to, sizeof to, host, 3, NULL, 0, 0) == EAI_OVERFLOW);

    // And to them over IPv4.
    int listener = peersock_node_socket(beta, AF_INET, SOCK_STREAM, 0), fd = peersock_socket(AF_INET, SOCK_STREAM, 0);
    CHECK(peersock_bind(listener, (struct sockaddr *)&to, sizeof to) == 0 && peersock_listen(listener, 5) == 0);
    CHECK(peersock_connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    socklen_t length = sizeof to;
    int accepted = peersock_accept(listener, (struct sockaddr *)&to, &length);
    CHECK(accepted >= 0 && length == sizeof to && to.sin_addr.s_addr == htonl(0x0a070001));
    CHECK(close(accepted) == 0 && close(fd) == 0 && close(listener) == 0);
    puts("ok");
    return 0;
}
