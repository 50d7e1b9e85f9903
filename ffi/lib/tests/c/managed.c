// Joins a managed network: managed STATE INVITE. It says whose node it is, and its addresses in the network.
#include "common.h"
#include <arpa/inet.h>

int main(int count, char **words) {
    CHECK(count == 3);
    peersock_config *config = in_state(words[1]);
    CHECK(peersock_start(config, NULL) == PEERSOCK_OK);
    peersock_config_free(config);
    uint64_t network = 0;
    CHECK(peersock_join_invite(PEERSOCK_DEFAULT, NULL, &network) == PEERSOCK_E_INVALID);
    CHECK(peersock_join_invite(PEERSOCK_DEFAULT, "peersock://0123456789abcdef/AQ", &network) == PEERSOCK_E_INVALID);
    CHECK(network == 0 && strstr(peersock_last_error(), "invite") != NULL);
    CHECK(peersock_join_named(PEERSOCK_DEFAULT, words[2], "correct horse", &network) == PEERSOCK_E_INVALID);
    CHECK(peersock_join_invite(PEERSOCK_DEFAULT, words[2], &network) == PEERSOCK_OK && network != 0);
    CHECK(peersock_wait_ready(PEERSOCK_DEFAULT, network, 60000) == PEERSOCK_OK);
    uint32_t process = 0;
    CHECK(peersock_process(PEERSOCK_DEFAULT, &process) == PEERSOCK_OK);
    printf("%s", process == (uint32_t)getpid() ? "own" : "shared");
    struct sockaddr_storage addresses[4];
    size_t all = 0;
    CHECK(peersock_addresses(PEERSOCK_DEFAULT, network, addresses, 4, &all) == PEERSOCK_OK && all <= 4);
    for (size_t i = 0; i < all; i++) {
        char text[INET6_ADDRSTRLEN];
        bool is_v4 = addresses[i].ss_family == AF_INET;
        const void *raw = is_v4 ? (void *)&((struct sockaddr_in *)&addresses[i])->sin_addr
                                : (void *)&((struct sockaddr_in6 *)&addresses[i])->sin6_addr;
        printf(" %s", inet_ntop(addresses[i].ss_family, raw, text, sizeof text));
    }
    puts("");
    return peersock_stop(PEERSOCK_DEFAULT, 5000) == PEERSOCK_OK ? 0 : 1;
}
