// What netcheck finds, as it gives it. It is called with a STUN server.
#include "common.h"

int main(int argc, char **argv) {
    char *json = NULL;
    CHECK(argc == 2);
    peersock_config *config = peersock_config_new();
    CHECK(config != NULL && peersock_config_ephemeral(config) == PEERSOCK_OK);
    CHECK(peersock_netcheck(config, argv[1], &json) == PEERSOCK_OK && json != NULL);
    puts(json);
    peersock_string_free(json);
    peersock_config_free(config);
    return 0;
}
