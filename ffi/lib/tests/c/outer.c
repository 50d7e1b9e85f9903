// What has started a program is in the network of the same ID without a secret: the program is not let into
// the one with a secret, nor the reverse.
#include "common.h"

int main(void) {
    const uint64_t secret_there = peersock_ad_hoc(1, 1000);
    peersock_node outer, inner;
    char environment[128];
    start(&outer);
    CHECK(peersock_join(outer, secret_there, "horse") == PEERSOCK_OK);
    CHECK(peersock_environment(outer, environment, sizeof environment) == PEERSOCK_OK);
    CHECK(setenv("PEERSOCK_NODE", environment, 1) == 0);
    peersock_config *config = settings();
    CHECK(peersock_start(config, &inner) == PEERSOCK_OK);
    CHECK(unsetenv("PEERSOCK_NODE") == 0);

    CHECK(peersock_join(inner, NETWORK, "horse") == PEERSOCK_E_INVALID);
    CHECK(strstr(peersock_last_error(), "without a secret, and this program joins it with one") != NULL);
    CHECK(strstr(peersock_last_error(), "--secret-file") != NULL);
    CHECK(peersock_join(inner, secret_there, NULL) == PEERSOCK_E_INVALID);
    CHECK(strstr(peersock_last_error(), "with a secret, and this program joins it without one") != NULL);

    CHECK(peersock_join(inner, NETWORK, NULL) == PEERSOCK_OK);
    CHECK(peersock_join(inner, secret_there, "horse") == PEERSOCK_OK);
    CHECK(peersock_join(inner, peersock_ad_hoc(5, 6), "horse") == PEERSOCK_OK);
    // What is started without any node joins what it likes.
    peersock_node alone;
    CHECK(peersock_start(config, &alone) == PEERSOCK_OK);
    CHECK(peersock_join(alone, NETWORK, "horse") == PEERSOCK_OK);
    peersock_config_free(config);
    puts("ok");
    return 0;
}
