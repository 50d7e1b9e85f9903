// Joins a managed network by its ID alone: managed_by_id STATE ID. It says that it waits, and once somebody has
// decided, whose node it is and its IPv4 address in the network.
#include "common.h"
#include <arpa/inet.h>

int main(int count, char **words) {
    CHECK(count == 3);
    peersock_config *config = in_state(words[1]);
    CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
    peersock_config_free(config);
    uint64_t network = strtoull(words[2], NULL, 16);
    CHECK(peersock_join(PEERSOCK_DEFAULT, network, "correct horse") == PEERSOCK_E_INVALID);
    CHECK(peersock_join(PEERSOCK_DEFAULT, network, NULL) == PEERSOCK_OK);
    peersock_result early = peersock_wait_ready(PEERSOCK_DEFAULT, network, 0);
    if (early != PEERSOCK_OK) {
        CHECK(early == PEERSOCK_E_TIMEOUT);
        puts("waits");
        fflush(stdout);
        early = peersock_wait_ready(PEERSOCK_DEFAULT, network, 60000);
    }
    if (early != PEERSOCK_OK) {
        CHECK(early == PEERSOCK_E_SYSTEM && errno == EACCES);
        CHECK(strstr(peersock_last_error(), "denied") != NULL);
        puts("denied");
        return peersock_stop(PEERSOCK_DEFAULT, 5000) == PEERSOCK_OK ? 0 : 1;
    }
    uint32_t process = 0;
    CHECK(peersock_process(PEERSOCK_DEFAULT, &process) == PEERSOCK_OK);
    struct sockaddr_storage addresses[4];
    size_t all = 0;
    CHECK(peersock_addresses(PEERSOCK_DEFAULT, network, addresses, 4, &all) == PEERSOCK_OK && all <= 4);
    for (size_t i = 0; i < all; i++) {
        char text[INET_ADDRSTRLEN];
        if (addresses[i].ss_family != AF_INET) continue;
        const void *raw = &((struct sockaddr_in *)&addresses[i])->sin_addr;
        const char *owner = process == (uint32_t)getpid() ? "own" : "shared";
        printf("%s %s\n", owner, inet_ntop(AF_INET, raw, text, sizeof text));
    }
    return peersock_stop(PEERSOCK_DEFAULT, 5000) == PEERSOCK_OK ? 0 : 1;
}
